"""Each hook waiting for each operation, in each body mode: what goes right, the client leaving, the function
failing, and what it waits for or the upstream failing."""
import threading

import pytest

from kit import h2 as h2c
from kit import raw, until
from kit.raw import answer, fetch, request
from test_functions import FROZEN, build, zoo  # noqa: F401 (a fixture)

HEADS = ["request", "response"]
BODIES = ["request_body", "response_body"]
STEPS = [(hook, "-") for hook in HEADS] + [(hook, mode) for hook in BODIES for mode in ("read", "rewrite", "buffer")]
OPS = ["none", "timer", "redis", "script", "http", "wait"]
BODY = b"as it was sent"
CONF = """
module steps @module@; listen 127.0.0.1:@http@ { protocols h2c http/1.1; }
redis store { server @store@; timeout command=%s; }
upstream u { server @backend@; retry off; eject off; }
upstream side { server @side@; retry off; eject off; }
host * {
    route /open { function steps store=store side=side timeout=%s on_error=fail_open; proxy u; }
    route / { function steps store=store side=side timeout=%s; proxy u; }
}
"""


class Side:
    """Redis and an upstream that answer, hold what they get, or end the connection."""

    def __init__(self, server):
        self.does = "answer"
        self.go = threading.Event()
        self.redis = server(script=self.serve_redis)
        self.http = server(script=self.serve_http)

    def act(self, c, reply):
        if self.does == "hold":
            self.go.wait(120)
        elif self.does != "answer":
            raise EOFError
        c.send(reply)

    def serve_redis(self, c):
        c.sock.settimeout(None)
        while True:
            words = []
            for _ in range(int(c.read_until(b"\r\n")[1:])):
                words.append(c.read(int(c.read_until(b"\r\n")[1:]) + 2)[:-2])
            name = words[0].upper()
            if name in (b"GET", b"EVAL", b"EVALSHA"):
                self.act(c, b"$1\r\nv\r\n")
            else:
                c.send(b"+PONG\r\n" if name == b"PING" else b"+OK\r\n")

    def serve_http(self, c):
        while True:
            c.head()
            self.act(c, answer(b"side"))


@pytest.fixture
def steps(weir, server, zoo):  # noqa: F811
    """A weir with the function before an echo; .side is what it asks, .asked how many were sent."""
    sides = []

    def make(command="20s", timeout="30s", backend=None):
        side = Side(server)
        sides.append(side)
        s = server(script=backend) if backend else server(lambda q: answer(q.body))
        path = build(FROZEN / "steps.c", zoo("null").with_name("steps.so"))
        w = weir(CONF % (command, timeout, timeout), module=path, backend=s, store=side.redis, side=side.http)
        w.side, w.server = side, s
        w.asked = 0
        return w

    yield make
    for side in sides:
        side.go.set()


def target(hook, mode, op, then="go", path="/", **more):
    return f"{path}?hook={hook}&mode={mode}&op={op}&then={then}" + "".join(f"&{k}={v}" for k, v in more.items())


def ask(w, *what, **more):
    """The whole answer, or None if it did not end as it should."""
    w.asked += 1
    try:
        return fetch(w.http, target(*what, **more), "POST", body=BODY)
    except (EOFError, ConnectionError):
        return None


def count(w, what):
    return w.metric(f"weir_steps_{what}_total")


def over(w):
    """Each request has had its on_log once, and nothing is left of it."""
    until(lambda: count(w, "logged") == w.asked, lambda: f"{w.asked} on_log, not {count(w, 'logged')}")
    w.wait_metric("weir_requests_open", 0)


# ---------------------------------------------------------------- what goes right


@pytest.mark.parametrize("hook, mode", STEPS)
def test_it_waits_and_goes_on(steps, hook, mode):
    w = steps()
    ops = OPS + (["drain"] if mode == "rewrite" else [])
    for op in ops:
        r = ask(w, hook, mode, op)
        assert (r.status, r.body) == (200, BODY), op
        if mode in ("rewrite", "buffer"):
            r = ask(w, hook, mode, op, "replace")
            assert (r.status, r.body) == (200, b"new"), op
            assert w.server.last().body == (b"new" if hook == "request_body" else BODY)
    over(w)
    assert count(w, "begun") == w.asked
    assert count(w, "completed") == w.asked - (2 if mode in ("rewrite", "buffer") else 1)
    assert w.metric("weir_function_calls_total", result="error") == 0


# ---------------------------------------------------------------- the function fails


def fails(r, hook, mode):
    """An answer in place of what was there, or what cannot be taken for a whole one."""
    assert r is None or r.status == 503, (r, hook, mode)
    if hook != "response_body" or mode == "buffer":
        assert r is not None


@pytest.mark.parametrize("hook, mode", STEPS)
def test_it_fails_after_it_has_waited(steps, hook, mode):
    w = steps()
    for op in OPS:
        fails(ask(w, hook, mode, op, "fail"), hook, mode)
        r = ask(w, hook, mode, op, "fail", "/open")
        assert (r.status, r.body) == (200, BODY), op
    over(w)
    assert count(w, "begun") == w.asked


@pytest.mark.parametrize("hook, mode", STEPS)
def test_it_answers_after_it_has_waited(steps, hook, mode):
    w = steps()
    for op in OPS:
        r = ask(w, hook, mode, op, "answer")
        if hook == "response_body" and mode != "buffer":
            fails(r, hook, mode)
        else:
            assert (r.status, r.body) == (418, b"answered"), op
    over(w)


@pytest.mark.parametrize("hook, mode", STEPS)
def test_its_time_is_up(steps, hook, mode):
    w = steps(timeout="150ms")
    w.side.does = "hold"
    for op in ("timer", "redis", "script", "http", "wait"):
        fails(ask(w, hook, mode, op, long=1), hook, mode)
        r = ask(w, hook, mode, op, path="/open", long=1)
        assert (r.status, r.body) == (200, BODY), op
    over(w)
    assert w.metric("weir_function_calls_total", result="timeout") == w.asked
    assert count(w, "completed") == 0
    until(lambda: count(w, "dropped") == 2, "what woke nobody to be dropped")


# ---------------------------------------------------------------- what it waits for fails


@pytest.mark.parametrize("does", ["cut", "hold", "gone"])
@pytest.mark.parametrize("hook, mode", STEPS)
def test_what_it_asks_fails(steps, hook, mode, does):
    w = steps(command="100ms")
    w.side.does = does
    if does == "gone":
        w.side.redis.stop_listening()
        w.side.http.stop_listening()
    for op in ("redis", "script") + (("http",) if does != "hold" else ()):
        fails(ask(w, hook, mode, op), hook, mode)
        r = ask(w, hook, mode, op, path="/open")
        assert (r.status, r.body) == (200, BODY), op
    over(w)
    assert count(w, "begun") == w.asked
    assert w.metric("weir_function_calls_total", result="error") == w.asked


# ---------------------------------------------------------------- the client leaves


@pytest.mark.parametrize("client_h2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("hook, mode", STEPS)
def test_the_client_leaves_while_it_waits(steps, hook, mode, client_h2):
    w = steps()
    w.side.does = "hold"
    for op in ("timer", "redis", "script", "http", "wait"):
        w.asked += 1
        what = target(hook, mode, op, long=1)
        if client_h2:
            c = h2c.Client(w.http)
            s = c.request("POST", what, body=BODY)
            until(lambda: count(w, "begun") == w.asked, "it to wait")
            c.h2.reset_stream(s)
            c.flush()
        else:
            c = raw.client(w.http).send(request("POST", what, body=BODY))
            until(lambda: count(w, "begun") == w.asked, "it to wait")
            c.reset()
        over(w)
        if client_h2:
            assert c.response(c.request("POST", target(hook, "-", "none"), body=BODY)).status == 200
            w.asked += 1
            c.stream.close()
    until(lambda: count(w, "dropped") == 1, "what woke nobody to be dropped")
    assert count(w, "completed") == 0
    for name in ("side", "u"):
        w.wait_metric("weir_server_requests", 0, upstream=name)
    w.side.does = "answer"
    w.side.go.set()  # what comes now is for nobody
    for _ in range(3):
        r = ask(w, hook, mode, "redis")
        assert (r.status, r.body) == (200, BODY)


# ---------------------------------------------------------------- the upstream fails


@pytest.mark.parametrize("hook, mode", [s for s in STEPS if s[0] != "request"])
def test_the_upstream_fails_while_it_waits(steps, hook, mode):
    """The connection ends in the middle of the answer's body; in that of the request's, before any answer."""
    def backend(c):
        q = c.head()
        if hook == "request_body":
            return
        c.read(int(q.get("content-length")))
        c.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 500)

    w = steps(backend=backend)
    for op in OPS:
        for path in ("/", "/open"):
            r = ask(w, hook, mode, op, path=path)
            assert r is None or r.status == 502, (op, r)
            if hook == "request_body":
                assert r is not None
    over(w)
