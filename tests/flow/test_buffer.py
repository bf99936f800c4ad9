"""buffer: what is collected reaches the other side whole or not at all, and keeps no server."""
import os
import threading

import pytest

from kit import h2, raw
from kit.h2_peer import serve
from kit.raw import answer, fetch, request

BIG = bytes(range(256)) * (1 << 15)  # 8 MiB: more than the sockets on the way can hold


def conf(setting, server=""):
    return (f"listen 127.0.0.1:@http@; upstream u {{ server @backend@ {server}; retry off; eject off; }} "
            f"host * {{ {setting} timeout queue=500ms; route / {{ proxy u; }} }}")


@pytest.mark.parametrize("setting", ["", "buffer response=1m;"])
def test_a_response_that_is_cut_reaches_the_client_only_where_it_streams(weir, server, connect, setting):
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 500)

    w = weir(conf(setting), backend=server(script=script))
    c = connect(w.http).send(request())
    if setting:
        r = c.response()
        assert (r.status, b"x" * 10 in r.body) == (502, False)
        w.wait_metric("weir_local_replies_total", 1, reason="upstream_reset")
    else:
        assert c.head().status == 200
        with pytest.raises((EOFError, ConnectionError)):
            c.read(1000)


@pytest.mark.parametrize("chunked", [False, True])
def test_what_is_collected_arrives_as_it_was(weir, server, chunked):
    body = BIG[:700_000]
    reply = answer(body, fields={"x-a": "1"})
    if chunked:
        reply = b"HTTP/1.1 200 OK\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(
            b"%x\r\n%s\r\n" % (len(p), p) for p in (body[i:i + 9999] for i in range(0, len(body), 9999))) + b"0\r\n\r\n"
    w = weir(conf("buffer response=1m;"), backend=server(reply))
    r = fetch(w.http)
    assert (r.status, r.get("x-a")) == (200, "1")
    assert r.body == body


@pytest.mark.parametrize("size, second", [("32m", 200), ("0", 503)])
def test_a_slow_client_keeps_no_server(weir, server, connect, size, second):
    """One request at a time: the next one is served once the first response is all in weir."""
    s = server(answer(BIG))
    w = weir(conf(f"buffer response={size};", "max_connections=1"), backend=s)
    slow = connect(w.http, rcvbuf=4096).send(request())
    s.wait()
    if second == 200:
        w.wait_metric("weir_server_requests", 0, upstream="u")
    other = fetch(w.http, "/other")
    assert other.status == second
    assert (len(other.body) == len(BIG)) is (second == 200)
    assert slow.head().status == 200 and slow.read(100_000) == BIG[:100_000]


def test_what_does_not_fit_streams(weir, server, connect):
    go = threading.Event()

    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ncontent-length: 400000\r\n\r\n" + b"x" * 300000)
        go.wait(30)
        c.send(b"y" * 100000)

    w = weir(conf("buffer response=128k;"), backend=server(script=script))
    c = connect(w.http).send(request())
    assert c.head().status == 200
    assert c.read(128 * 1024) == b"x" * 128 * 1024
    go.set()
    assert c.read(400000 - 128 * 1024).endswith(b"y" * 100000)


# ---------------------------------------------------------------- bodies of all kinds

BUFFERS = ["", "buffer request=10k response=10k;", "buffer request=64k response=64k;", "buffer request=100k response=100k;",
           "buffer request=1m response=1m;", "buffer request=1m;", "buffer response=1m;"]
FUNCTIONS = ["", "function rewrite_body { replace never-there x; types *; } "
                 "function rewrite_body { replace never-there x; types *; of request; }"]
SIZES = [0, 1, 10_240, 65_535, 65_536, 65_537, 102_401, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000]


def chunked(body):
    pieces = [body[i:i + 50_000] for i in range(0, len(body), 50_000)]
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in [*pieces, b""])


def ask(w, how, path, body):
    if how == "h2":
        c = h2.Client(w.http)
        a = c.fetch("POST", path, body=body)
        c.close()
        return a
    if how == "length":
        return fetch(w.http, path, "POST", body=body)
    with raw.client(w.http) as c:
        head = raw.request("POST", path, {"transfer-encoding": "chunked"})
        return c.send(head + chunked(body)).response()


@pytest.mark.parametrize("up", ["http/1.1", "h2c"])
@pytest.mark.parametrize("how", ["length", "chunked", "h2"])
def test_bodies_come_and_go_whole(weir, server, how, up):
    """Whatever is collected on the way: more than fits, and as much as fits, to the byte."""
    s = server(lambda q: answer(q.body)) if up == "http/1.1" else server(script=serve(lambda p, a: p.answer(a, a.body)))
    routes = [(f"/{b}/{f}", f"{BUFFERS[b]} {FUNCTIONS[f]}") for b in range(len(BUFFERS)) for f in range(len(FUNCTIONS))]
    w = weir("module rewrite_body; listen 127.0.0.1:@http@ { protocols h2c http/1.1; } "
             f"upstream u {{ server @backend@; protocol {up}; }} host * {{ body max=off; "
             + "\n".join(f"route = {path} {{ {lines} proxy u; }}" for path, lines in routes) + " }", backend=s)
    everything = os.urandom(SIZES[-1])
    for path, lines in routes:
        for size in SIZES:
            got = ask(w, how, path, everything[:size])
            assert got.status == 200 and got.body == everything[:size], (lines, size, got.status, len(got.body))
