"""gRPC through weir with grpc-js as client and as server.

grpc-js comes from the registry of npm when the first of these runs, into a folder of its own.  It is
optional: without node, npm or the registry these scenarios are skipped, also where everything else is
meant to be there.  WEIR_FLOW_GRPC_JS=FOLDER names a folder whose node_modules holds it already."""
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from kit import HOST, SLOW, temp_dir, until

SOURCE = Path(__file__).parent / "kit" / "grpc_js"
CONF = """
listen 127.0.0.1:@http@ { protocols h2c http/1.1; }
listen 127.0.0.1:@https@ tls { certificate @cert@ key=@key@; protocols h2 http/1.1; }
upstream u { %s server @backend@; }
host * { timeout response_idle=1m client_body=1m; route / { proxy u; } }
"""


def install(folder):
    for f in SOURCE.iterdir():
        if f.is_file():
            shutil.copy(f, folder)
    given = os.environ.get("WEIR_FLOW_GRPC_JS")
    if given:
        os.symlink(Path(given) / "node_modules", Path(folder) / "node_modules")
        return
    try:
        done = subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock",
                               "--fetch-retries=1", "--fetch-timeout=20000", f"--cache={folder}/cache"],
                              cwd=folder, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as e:
        pytest.skip(f"grpc-js cannot be installed: {e}")
    if done.returncode:
        pytest.skip(f"grpc-js cannot be installed: {done.stderr[-300:]}")


@pytest.fixture(scope="module")
def js():
    if not shutil.which("node") or not (shutil.which("npm") or os.environ.get("WEIR_FLOW_GRPC_JS")):
        pytest.skip("grpc-js needs node and npm")
    folder = Path(temp_dir())
    try:
        install(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Server:
    def __init__(self, folder, cert=()):
        self.said = folder / f"said-{id(self)}"
        with open(self.said, "w") as out:
            self.process = subprocess.Popen(["node", "server.js", *map(str, cert)], cwd=folder, stdin=subprocess.PIPE,
                                            stdout=out)
        until(lambda: self.lines() or self.process.poll() is not None, "the server's port", 20)
        assert self.process.poll() is None
        self.port = int(self.lines()[0])

    def lines(self):
        return [line for line in self.said.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def __str__(self):
        return f"{HOST}:{self.port}"

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture(params=["h2c", "h2"])
def through(weir, js, ca, request):
    """weir between cleartext on both sides, or TLS on both; and what a client needs to find it."""
    pair = ca.cert("a.test")
    tls = request.param == "h2"
    s = Server(js, pair if tls else ())
    upstream = f"protocol h2; tls ca={ca.cert_file} name=a.test;" if tls else "protocol h2c;"
    w = weir(CONF % upstream, backend=s, cert=pair[0], key=pair[1])
    w.js_server, w.port, w.ca_file = s, w.https if tls else w.http, ca.cert_file if tls else None
    yield w
    s.close()


def test_grpc_js_on_both_sides(through, js):
    w = through
    args = [f"{HOST}:{w.port}", str(20 * SLOW)] + ([str(w.ca_file)] if w.ca_file else [])
    done = subprocess.run(["node", "client.js", *args], cwd=js, capture_output=True, text=True, timeout=100 * SLOW)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    unary = out["unary"]
    assert (unary["value"], unary["code"], unary["first"]["x-first"]) == ("cba", 0, "1")
    assert unary["last"] == ["2"] and unary["lastBin"] == ["00ff"]
    fails = out["fails"]
    assert (fails["code"], fails["details"], fails["last"]) == (9, "not so: 100 % \u00fc", ["2"])
    assert out["unknown"] == 12
    assert out["down"] == {"code": 0, "values": [str(i) for i in range(500)]}
    assert out["up"] == {"error": None, "value": "5000000"}
    assert out["both"] == {"code": 0, "values": [f"<{i}>" for i in range(100)]}
    assert out["big"] is True
    assert (out["late"], out["cancelled"]) == (4, 1)
    until(lambda: w.js_server.lines()[1:] == ["cancelled\n"] * 2, "the server to hear of both")
    until(lambda: w.metric("weir_requests_open") == 0, "all calls to end")


def test_python_calls_grpc_js(through):
    grpc = pytest.importorskip("grpc")
    w = through
    where, options = f"{HOST}:{w.port}", [("grpc.ssl_target_name_override", "a.test")]
    if w.ca_file:
        root = grpc.ssl_channel_credentials(w.ca_file.read_bytes())
        channel = grpc.secure_channel(where, root, options=options)
    else:
        channel = grpc.insecure_channel(where)
    with channel:
        answer, call = channel.unary_unary("/t.T/Unary").with_call(b"abc", timeout=10 * SLOW)
        assert answer == b"cba" and ("x-last-bin", b"\0\xff") in call.trailing_metadata()
        assert list(channel.unary_stream("/t.T/Down")(b"50", timeout=10 * SLOW)) == [b"%d" % i for i in range(50)]
        assert channel.stream_unary("/t.T/Up")(iter([b"x" * 1000] * 50), timeout=10 * SLOW) == b"50000"
        assert list(channel.stream_stream("/t.T/Both")(iter([b"a", b"b"]), timeout=10 * SLOW)) == [b"<a>", b"<b>"]
