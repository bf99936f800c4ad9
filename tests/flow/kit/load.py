"""Load that looks at every answer: wrk, with a script that keeps what is not as it should be."""
import re
import signal
import subprocess
import tempfile

from . import SLOW, need

SCRIPT = """
local threads = {{}}
function setup(thread) table.insert(threads, thread) end
function init() seen, bad, first = 0, 0, "" end
wrk.method, wrk.body = "{method}", {body}
local function good(status, headers, body)
  {good}
end
function response(status, headers, body)
  seen = seen + 1
  if not good(status, headers, body) then
    bad = bad + 1
    if first == "" then
      first = status .. " " .. string.sub(body, 1, 100)
      for k, v in pairs(headers) do first = first .. " " .. k .. "=" .. v end
    end
  end
end
function done(summary)
  local seen, bad, first = 0, 0, ""
  for _, t in ipairs(threads) do
    seen, bad = seen + t:get("seen"), bad + t:get("bad")
    if first == "" then first = t:get("first") end
  end
  local e = summary.errors
  io.write(string.format("LOAD seen=%d bad=%d broken=%d first=%s\\n", seen, bad,
                         e.connect + e.read + e.write + e.timeout, first))
end
"""


class Load:
    """Runs from its making to end(); good is the body of a Lua function of (status, headers, body)."""

    def __init__(self, url, connections, good, method="GET", body=None):
        self.script = tempfile.NamedTemporaryFile("w", prefix="wf-", suffix=".lua")
        self.script.write(SCRIPT.format(method=method, body=f'"{body}"' if body else "nil", good=good))
        self.script.flush()
        self.process = subprocess.Popen(
            [need("wrk"), "-t1", f"-c{connections}", "-d1h", "--timeout", f"{int(30 * SLOW)}s", "-s", self.script.name,
             url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self):
        """How many answers there were; fails if one was not good or a connection broke."""
        self.process.send_signal(signal.SIGINT)
        try:
            out = self.process.communicate(timeout=60 * SLOW)[0]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        m = re.search(r"LOAD seen=(\d+) bad=(\d+) broken=(\d+) first=(.*)", out)
        assert m, out
        assert (m.group(2), m.group(3)) == ("0", "0"), m.group(0)
        return int(m.group(1))

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.script.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
