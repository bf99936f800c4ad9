"""What the benchmarks share: a proxy that runs, the CPU that it used, and a load of plain HTTP/1.1 requests."""
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests" / "flow"))

from kit import until  # noqa: E402


def say(*words):
    print(*words, flush=True)


def family(pid):
    """A process and all its descendants."""
    found = [pid]
    for p in found:
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{task}/children") as f:
                    found += [int(c) for c in f.read().split()]
        except OSError:
            pass
    return found


def cpu(pid):
    """User and system seconds of a family so far."""
    total = 0
    for p in family(pid):
        for task in os.listdir(f"/proc/{p}/task"):
            with open(f"/proc/{p}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
    return total / 1e9


def pin(cpus):
    return lambda: os.sched_setaffinity(0, cpus)


class Proxy:
    def __init__(self, name, argv, ports):
        self.name, self.argv, self.plain, self.tls = name, argv, ports[0], ports[1]
        self.process = None

    def start(self, cpus, cwd, seconds=10):
        self.log = open(f"{cwd}/{self.name}.out", "ab")
        self.process = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, cwd=cwd, preexec_fn=pin(cpus))
        until(self.listens, f"{self.name} (see {cwd}/{self.name}.out)", seconds)
        time.sleep(0.1)

    def listens(self):
        assert self.process.poll() is None, f"{self.name}: " + Path(self.log.name).read_text()[-2000:]
        try:
            socket.create_connection(("127.0.0.1", self.plain), 1).close()
            return True
        except OSError:
            return False

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                for pid in reversed(family(self.process.pid)):
                    os.kill(pid, signal.SIGKILL)
                self.process.wait()
        self.process = None


def number(text):
    """What wrk prints: 12.3us, 4.5ms, 1.2s -> milliseconds."""
    match = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if not match:
        return float("nan")
    value, unit = match.groups()
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000, "m": 60000}[unit]


def load(url, seconds, connections, cpus, *options):
    """HTTP/1: wrk."""
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *options, url],
                          capture_output=True, text=True, preexec_fn=pin(cpus))
    out = done.stdout
    assert done.returncode == 0, done.stderr
    requests = int(re.search(r"(\d+) requests in", out).group(1))
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    sockets = re.search(r"Socket errors: (.*)", out)
    if errors or sockets:
        say(f"    {url}: {errors.group(0) if errors else ''} {sockets.group(0) if sockets else ''}")
    return {"requests": requests, "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
            "time": number(re.search(r"^\s+99%\s+(\S+)", out, re.M).group(1)),
            "bad": int(errors.group(1)) if errors else 0}
