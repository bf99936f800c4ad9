"""Being watched: metrics, status, health, logs, the control socket."""
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import threading
import time

import pytest

from kit import HOST, SLOW, temp_dir, until
from kit.raw import answer, fetch, request

CONF = """
%s
listen 127.0.0.1:@http@;
upstream u { server @backend@; }
host * { route /x { respond 201 "made"; } route / { proxy u; } }
"""


def test_live_and_ready(weir, server):
    w = weir(CONF % "", backend=server())
    assert w.get("/livez").status == 200
    assert w.get("/readyz").status == 200
    assert w.get("/nothing").status == 404


def test_metrics_format(weir, server):
    w = weir(CONF % "", backend=server())
    for _ in range(3):
        fetch(w.http)
    fetch(w.http, "/x")
    r = w.get("/metrics")
    assert r.status == 200
    assert r.get("content-type").startswith("text/plain; version=0.0.4")
    text = r.body.decode()
    for name in {n for n, _, _ in w.metrics()}:
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        assert re.search(rf"(?m)^# TYPE ({name}|{family}) ", text), name
        assert re.search(rf"(?m)^# HELP ({name}|{family}) ", text), name
    names = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    w.wait_metric("weir_requests_total", 4)
    w.wait_metric("weir_requests_total", 4, code="2xx")
    w.wait_metric("weir_upstream_requests_total", 3, upstream="u")
    w.wait_metric("weir_local_replies_total", 1, reason="respond")
    w.wait_metric("weir_server_up", 1, upstream="u")
    assert w.metric("weir_generation") >= 1
    w.wait_metric("weir_request_duration_seconds_count", 4)
    w.wait_metric("weir_upstream_duration_seconds_count", 3, upstream="u")
    buckets = [v for n, l, v in w.metrics()
               if n == "weir_upstream_duration_seconds_bucket" and l["upstream"] == "u"]
    assert buckets == sorted(buckets) and buckets[-1] == 3


def test_every_part_is_counted(weir, server, redis, ca, connect):
    """One sample at least of what operators were promised: by route, upstream, server, store, listener."""
    r = redis()
    cert, key = ca.cert("a.test")
    w = weir(f"""
        module ratelimit; redis main {{ server {HOST}:{r.port}; }}
        listen 127.0.0.1:@http@;
        listen 127.0.0.1:@https@ tls {{ certificate {cert} key={key}; }}
        upstream u {{ server @backend@; keepalive 8; }}
        host * {{
            body max=100;
            route /limited {{ function ratelimit name=shared rate=1/m burst=1 key=$client_ip store=main; respond 200; }}
            route /p {{ proxy u; }}
        }}""", backend=server(lambda q: answer(b"x" * 500)))
    c = connect(w.http)
    assert c.send(request("POST", "/p", body=b"y" * 50)).response().status == 200
    assert fetch(w.http, "/p", "POST", body=b"y" * 200).status == 413
    assert fetch(w.https, "/p", tls=ca.client()).status == 200
    for _ in range(3):
        fetch(w.http, "/limited")
    for name, value, labels in [
            ("weir_requests_total", 2, {"route": "/p", "code": "2xx"}),
            ("weir_request_duration_seconds_count", 3, {"route": "/limited"}),
            ("weir_upstream_duration_seconds_count", 2, {"upstream": "u"}),
            ("weir_upstream_requests_total", 2, {"upstream": "u", "server": str(w.values["backend"]), "result": "2xx"}),
            ("weir_server_up", 1, {"upstream": "u", "server": str(w.values["backend"])}),
            ("weir_server_requests", 0, {"upstream": "u"}),
            ("weir_pool_idle_connections", 1, {"upstream": "u"}),
            ("weir_connections", 1, {"listener": f"127.0.0.1:{w.http}"}),
            ("weir_connections_total", 1, {"listener": f"127.0.0.1:{w.https}"}),
            ("weir_tls_handshakes_total", 1, {"result": "full"}),
            ("weir_limit_hits_total", 1, {}),
            ("weir_function_calls_total", 3, {"function": "shared"}),
            ("weir_redis_connections", 1, {"store": "main"}),
            ("weir_client_bytes_received_total", 50, {}),
            ("weir_client_bytes_sent_total", 1000, {}),
            ("weir_generation", 1, {}), ("weir_generations_alive", 1, {})]:
        until(lambda: w.metric(name, **labels) >= value and any(n == name for n, _, _ in w.metrics()),
              lambda: f"{name}{labels} {value}: {[m for m in w.metrics() if m[0] == name]}")
    assert w.metric("weir_redis_commands_total", store="main", result="ok") >= 2
    assert w.metric("weir_redis_duration_seconds_count", store="main") >= 2
    assert w.metric("weir_server_requests", upstream="u") == 0
    w.reload()
    w.reload("nonsense;", ok=False)
    w.wait_metric("weir_reloads_total", 1, result="ok")
    w.wait_metric("weir_reloads_total", 2)
    w.wait_metric("weir_generation", 2)


def test_status(weir, server):
    w = weir(CONF % "", backend=server())
    s = w.status()
    assert s["version"]
    assert isinstance(s["generation"], int)
    text = json.dumps(s)
    assert "u" in text


def test_status_has_all_workers_from_the_first(weir, server):
    """Whoever sees /readyz sees them all in /status, and after a reload none that is still of the generation before."""
    w = weir(CONF % "workers 8;", backend=server())
    assert [v["worker"] for v in w.status()["workers"]] == list(range(8))
    w.reload((CONF % "workers 8;").replace("made", "again"))
    assert {v["generation"] for v in w.status()["workers"]} == {2}


def test_status_of_two_workers_is_whole(weir, server, connect):
    """Whichever answers: connections, generations and servers are those of both."""
    hold = threading.Event()

    def reply(q):
        if q.target == "/held":
            hold.wait(10)
        return answer(b"ok")

    w = weir(CONF % "workers 2; threads 2;", backend=server(reply))
    w.deaths_expected = True
    clients = [connect(w.http) for _ in range(40)]
    for c in clients:
        assert c.send(request()).response().status == 200
    for c in clients[:12]:
        c.send(request(target="/held"))
    w.reload((CONF % "workers 2; threads 2;").replace("made", "again"))
    until(lambda: w.status()["connections"] == 40, lambda: f"40 connections: {w.status()}")
    until(lambda: [(g["number"], g["requests"]) for g in w.status()["generations"]] == [(1, 12), (2, 0)],
          lambda: f"12 requests in the first generation: {w.status()}")
    until(lambda: all(v["generation"] == 2 for v in w.status()["workers"]), "both to say that they switched")
    answered = set()
    for _ in range(20):
        s = w.status()
        answered.add(s["worker"])
        assert [v["worker"] for v in s["workers"]] == [0, 1]
        assert {v["pid"] for v in s["workers"]} == set(w.children())
        assert sum(v["connections"] for v in s["workers"]) == 40
        assert all(v["connections"] and v["ready"] and v["generation"] == 2 for v in s["workers"])
        assert s["upstreams"][0]["servers"][0]["requests"] == 12
    assert answered == {0, 1}, "both were asked"
    hold.set()
    until(lambda: [g["number"] for g in w.status()["generations"]] == [2], "the first generation to end")
    os.kill(w.children()[0], signal.SIGKILL)
    until(lambda: {v["pid"] for v in w.status()["workers"]} == set(w.children())
          and len(w.children()) == 2, "the new one")
    until(lambda: 0 < w.status()["connections"] < 40, "its connections to be gone")


def test_admin_is_read_only(weir, server):
    w = weir(CONF % "", backend=server())
    for method in ("POST", "PUT", "DELETE"):
        assert fetch(w.admin, "/reload", method).status in (403, 404, 405)
    w.wait_metric("weir_reloads_total", 0)


def test_counters_of_two_workers_are_summed(weir, server):
    w = weir(CONF % "workers 2; threads 2;", backend=server())
    for _ in range(30):
        fetch(w.http)
    w.wait_metric("weir_requests_total", 30)
    w.wait_metric("weir_upstream_requests_total", 30, upstream="u")


def lines(w, name="access.log"):
    path = w.dir / name
    return path.read_text().splitlines() if path.exists() else []


def test_access_log_json(weir, server):
    w = weir(CONF % "access_log @dir@/access.log format=json;", backend=server())
    fetch(w.http, '/a"b?c', fields={"user-agent": 'quo"te\\ \t end'})
    until(lambda: lines(w), "a line in the access log")
    e = json.loads(lines(w)[0])
    assert (e["method"], e["status"]) == ("GET", 200)
    assert "127.0.0.1" in json.dumps(e)


def test_access_log_combined(weir, server):
    w = weir(CONF % "access_log @dir@/access.log format=combined;", backend=server())
    fetch(w.http, "/p?q", fields={"user-agent": 'quo"te', "referer": "http://r/"})
    until(lambda: lines(w), "a line in the access log")
    m = re.fullmatch(r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] '
                     r'"GET /p\?q HTTP/1\.1" 200 (\d+) "http://r/" "(.*)"', lines(w)[0])
    assert m, lines(w)[0]
    assert '"' not in m.group(2).replace('\\"', "").replace("\\x22", "")


def test_a_log_that_nobody_reads(weir, connect):
    """A pipe that is full costs lines, which are counted, and no request any time."""
    path = pathlib.Path(temp_dir()) / "pipe"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDWR)
    try:
        w = weir(f"log_format long '$path'; access_log {path} format=long; threads 1; header line=16k;"
                 "listen 127.0.0.1:@http@; host * { route / { respond 204; } }")
        c, slowest, times = connect(w.http), 0, 0
        while w.metric("weir_access_log_dropped_total") == 0:
            for _ in range(100):
                started = time.monotonic()
                assert c.send(request(target="/" + "x" * 15000)).response().status == 204
                slowest = max(slowest, time.monotonic() - started)
                times += 1
            assert times < 5000
        assert slowest < 0.5 * SLOW, "a loop waited"
        end = time.monotonic() + 2
        while time.monotonic() < end and select.select([fd], [], [], 0.3)[0]:
            os.read(fd, 1 << 20)
        fetch(w.http, "/read-again")
        text = b""
        while b"/read-again" not in text:
            assert select.select([fd], [], [], 5 * SLOW)[0], "a line once it is read again"
            text = text[-100:] + os.read(fd, 1 << 20)
        w.stop()
    finally:
        os.close(fd)
        shutil.rmtree(path.parent)


def test_log_format(weir, server):
    w = weir(CONF % "log_format short '$method $path $status $upstream $attempts'; "
             "access_log @dir@/access.log format=short;", backend=server())
    fetch(w.http, "/one")
    fetch(w.http, "/x")
    until(lambda: len(lines(w)) == 2, "two lines")
    assert lines(w)[0] == "GET /one 200 u 1"
    assert lines(w)[1].startswith("GET /x 201")


def test_a_refused_request_is_logged(weir, server, connect):
    w = weir(CONF % "log_format short '$status'; access_log @dir@/access.log format=short;",
             backend=server())
    c = connect(w.http)
    c.send(b"GET / HTTP/1.1\r\n\r\n")
    assert c.response().status == 400
    until(lambda: lines(w) == ["400"], lambda: f"one line, {lines(w)}")


@pytest.mark.parametrize("how", ["signal", "command"])
def test_logs_are_reopened(weir, server, how):
    w = weir(CONF % "error_log @dir@/error.log level=info; access_log @dir@/access.log format=json;",
             backend=server())
    fetch(w.http, "/before")
    until(lambda: len(lines(w)) == 1, "the first line")
    (w.dir / "access.log").rename(w.dir / "old.log")
    (w.dir / "error.log").rename(w.dir / "olderror.log")
    if how == "signal":
        w.send(signal.SIGUSR1)
    else:
        assert w.command("-s", "reopen").returncode == 0
    until(lambda: (w.dir / "access.log").exists() and (w.dir / "error.log").exists(), "new files")
    fetch(w.http, "/after")
    until(lambda: len(lines(w)) == 1, "a line in the new file")
    assert "/after" in lines(w)[0]
    assert len(lines(w, "old.log")) == 1


def test_log_lines_say_what_they_are_about(weir):
    w = weir("listen 127.0.0.1:@http@; upstream u { server 127.0.0.1:@nobody@; eject failures=1 for=1s; }"
             "host * { route / { proxy u; } }")
    assert fetch(w.http).status in (502, 503)
    line = w.wait_log(r".*upstream u.*")[0].group(0)
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (error|warn|info) ", line), line


def test_drain_and_back(weir, server, connect):
    w = weir(CONF % "", backend=server())
    c = connect(w.http)
    assert c.send(request()).response().status == 200
    assert w.command("-s", "drain").returncode == 0
    until(lambda: w.get("/readyz").status == 503, "/readyz to fail")
    assert w.get("/livez").status == 200

    def refused():
        try:
            fetch(w.http)
        except (ConnectionRefusedError, ConnectionResetError, EOFError):
            return True

    until(refused, "the listener to close")
    w.reload()
    until(lambda: w.get("/readyz").status == 200, "/readyz")
    assert fetch(w.http).status == 200


@pytest.mark.parametrize("word", ["quit", "stop"])
def test_end_by_command(weir, server, word):
    w = weir(CONF % "", backend=server())
    done = w.command("-s", word)
    assert done.returncode == 0, done.stderr
    assert w.process.wait(15 * SLOW) == 0
    assert not (w.dir / "weir.pid").exists() and not (w.dir / "control.sock").exists()
    with pytest.raises(ConnectionRefusedError):
        fetch(w.http)


def test_commands_without_a_weir(weir, server):
    w = weir(CONF % "", backend=server(), start=False)
    done = w.command("-s", "reload")
    assert done.returncode != 0
    assert "control.sock" in done.stderr


def test_server_down_and_up(weir, server):
    a, b = server(answer(b"a")), server(answer(b"b"))
    w = weir("listen 127.0.0.1:@http@; upstream u { server @a@; server @b@; } "
             "host * { route / { proxy u; } }", a=a, b=b)
    for word in ("down", "drain"):
        assert w.command("server", "u", str(a), word).returncode == 0
        until(lambda: {fetch(w.http).body for _ in range(4)} == {b"b"}, "only b")
        assert w.command("server", "u", str(a), "up").returncode == 0
        until(lambda: {fetch(w.http).body for _ in range(4)} == {b"a", b"b"}, "both")
    assert w.command("server", "u", "127.0.0.1:1", "down").returncode != 0


def test_drain_waits_for_what_is_under_way(weir, server, connect):
    def reply(q):
        time.sleep(0.5)
        return answer(b"late")

    s = server(reply)
    w = weir((CONF % "").replace("%", "%%") + "shutdown_timeout 10s;", backend=s)
    c = connect(w.http)
    c.send(request())
    s.wait()
    w.send(signal.SIGTERM)
    r = c.response()
    assert (r.body, r.get("connection")) == (b"late", "close")
    assert c.ended() == "eof"
    assert w.process.wait(10 * SLOW) == 0


def test_shutdown_timeout(weir, server, connect):
    def script(c):
        c.server.take(c)
        c.read_all()

    s = server(script=script)
    w = weir("shutdown_timeout 300ms; listen 127.0.0.1:@http@; upstream u { server @backend@; } "
             "host * { route / { proxy u; } }", backend=s)
    c = connect(w.http)
    c.send(request())
    s.wait()
    started = time.monotonic()
    w.send(signal.SIGTERM)
    assert w.process.wait(10 * SLOW) == 0
    assert time.monotonic() - started < 5 * SLOW


def test_the_control_socket_is_not_for_everybody(weir, server):
    w = weir(CONF % "", backend=server())
    path = w.dir / "control.sock"
    assert path.stat().st_mode & 0o007 == 0
    s = socket.socket(socket.AF_UNIX)
    s.connect(str(path))
    s.sendall(b"\0garbage\n" * 1000)
    s.close()
    assert w.command("-s", "reload").returncode == 0
