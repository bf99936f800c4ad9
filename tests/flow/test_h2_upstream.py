"""HTTP/2 to servers: h2c and TLS, both directions of bodies, and servers that refuse, reset, cheat, flood
and fall silent."""
import hashlib
import os
import threading
import time

import pytest

from kit import SLOW, need, services, until
from kit.h2_peer import (CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, ErrorCodes,
                    Peer, SettingCodes, frame, serve)
from kit import raw


def pairs(lines):
    return [tuple(line.split(": ", 1)) for line in lines]


def request(method="GET", target="/", lines=()):
    return raw.request(method, target, pairs(lines))


def fetch(port, target="/", method="GET", lines=(), **more):
    return raw.fetch(port, target, method, pairs(lines), **more)


def conf(upstream="", top="", route=""):
    return (f"{top} listen 127.0.0.1:@http@; upstream u {{ server @s@; protocol h2c; {upstream} }} "
            f"host * {{ body max=off; route / {{ proxy u; {route} }} }}")


@pytest.fixture
def h2(weir, server):
    """A weir before a server that does what script says."""
    def make(script, upstream="", top="threads 1;", **more):
        s = server(script=script, **more)
        w = weir(conf(upstream, top), s=s)
        w.server = s
        return w
    return make


NODE = """
const http2 = require('http2');
const s = http2.createServer({settings: {enableConnectProtocol: true}});
s.on('stream', (st, h) => {
  st.on('error', () => {});
  if (h[':method'] === 'CONNECT') { st.respond({':status': 200}); st.pipe(st); return; }
  if (h[':path'] === '/echo') { st.respond({':status': 200}, {waitForTrailers: true});
    st.on('wantTrailers', () => st.sendTrailers({'x-sum': 'yes'})); st.pipe(st); return; }
  if (h[':path'] === '/early') { st.additionalHeaders({':status': 103, 'link': '</a>'}); }
  st.respond({':status': 200, 'x-path': h[':path']});
  st.end(h[':method'] === 'HEAD' ? '' : 'node');
});
s.listen(+process.argv[2], '127.0.0.1');
"""


class Node(services.Service):
    def argv(self):
        (self.dir / "server.js").write_text(NODE)
        return [need("node"), str(self.dir / "server.js"), str(self.port)]


@pytest.fixture
def service():
    made = []

    def make(s):
        made.append(s)
        return s.start()

    yield make
    for s in made:
        s.close()


# ---------------------------------------------------------------- servers that people have

def test_nghttpd_in_the_clear(weir, service):
    n = service(services.Nghttpd())
    big = os.urandom(3 << 20)
    (n.root / "big").write_bytes(big)
    w = weir(conf(), s=n)
    r = fetch(w.http, "/big")
    assert r.status == 200 and r.body == big and r.get("server").startswith("nghttpd")
    assert fetch(w.http, "/big", "HEAD").get("content-length") == str(len(big))
    assert fetch(w.http, "/no").status == 404
    assert hashlib.sha256(fetch(w.http, "/big", "POST", body=big).body).digest() == hashlib.sha256(big).digest()


@pytest.mark.parametrize("buffer", ["10k", "64k", "65k", "100k", "1m"])
def test_a_collected_answer(weir, service, buffer):
    """What is collected is more than a window of the stream, or not; either way the rest follows."""
    n = service(services.Nghttpd())
    w = weir(conf(route=f"buffer response={buffer};"), s=n)
    for size in (0, 1, 10_240, 65_535, 65_536, 66_560, 99_999, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20):
        body = os.urandom(size)
        (n.root / f"{size}").write_bytes(body)
        assert fetch(w.http, f"/{size}").body == body


def test_nghttpd_over_tls(weir, service, ca):
    n = service(services.Nghttpd(ca.cert("localhost", "127.0.0.1")))
    (n.root / "a").write_bytes(b"in TLS")
    w = weir(conf(f"tls ca={ca.cert_file};").replace("h2c", "h2"), s=n)
    assert fetch(w.http, "/a").body == b"in TLS"


def test_node(weir, service, connect):
    w = weir(conf(), s=service(Node()))
    assert fetch(w.http, "/x").get("x-path") == "/x"
    assert fetch(w.http, "/x", "HEAD").body == b""
    r = fetch(w.http, "/early")
    assert r.status == 200 and [i.status for i in r.interim] == [103]
    c = connect(w.http)
    c.send(request("POST", "/echo", ["TE: trailers", "Connection: TE", "Transfer-Encoding: chunked"])
           + b"5\r\nhello\r\n0\r\n\r\n")
    r = c.response("POST")
    assert r.body == b"hello" and ("x-sum", "yes") in r.trailers


def test_websocket_by_extended_connect(weir, service, connect):
    w = weir(conf(), s=service(Node()))
    c = connect(w.http)
    c.send(request("GET", "/ws", ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]))
    r = c.response()
    assert r.status == 101 and r.get("upgrade") == "websocket"
    assert r.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    for i in range(50):
        c.send(b"ping %d" % i)
        assert c.read(len(b"ping %d" % i)) == b"ping %d" % i
    c.half_close()
    assert c.read_all() == b""


def test_websocket_is_refused_where_the_server_does_not_announce_it(h2, connect):
    w = h2(serve())
    c = connect(w.http)
    c.send(request("GET", "/ws", ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]))
    r = c.response()
    assert r.status == 502
    w.wait_metric("weir_local_replies_total", 1, reason="no_extended_connect")
    assert not w.server.requests
    assert fetch(w.http).body == b"ok"


# ---------------------------------------------------------------- what is said

def test_the_request(h2):
    w = h2(serve())
    r = fetch(w.http, "/a?b=c", "POST", ["X-Mixed: Yes", "TE: trailers, deflate", "Connection: TE, X-Hop",
                                         "X-Hop: 1", "Cookie: a=1; b=2", "Upgrade: h2c"], body=b"body")
    assert r.body == b"body"
    q = w.server.requests[0]
    assert [n for n, _ in q.fields][:4] == [":method", ":scheme", ":authority", ":path"]
    assert (q.method, q.path, q.get(":scheme"), q.get(":authority")) == ("POST", "/a?b=c", "http", "a.test")
    assert q.get("x-mixed") == "Yes" and q.get("te") == "trailers" and q.get("content-length") == "4"
    for gone in "host", "connection", "x-hop", "upgrade", "transfer-encoding":
        assert q.get(gone) is None


def test_trailers_of_a_request(h2, connect):
    w = h2(serve())
    c = connect(w.http)
    c.send(request("POST", "/", ["Transfer-Encoding: chunked"]) + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert c.response("POST").body == b"abc"
    assert w.server.requests[0].trailers == [("x-sum", "1")]


def test_interim_heads_and_a_body_that_waits_for_them(h2, connect):
    def script(c):
        p = Peer(c)
        a = p.request(whole=False)
        p.head(a, 103, [("link", "</a>")])
        p.head(a, 100)
        p.until(lambda: a.ended)
        p.answer(a, a.body)
        p.drain()

    w = h2(script)
    c = connect(w.http)
    c.send(request("POST", "/", ["Expect: 100-continue", "Content-Length: 3"]))
    r = c.read_until(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert b"103" in r
    c.send(b"abc")
    assert c.response("POST").body == b"abc"
    assert w.server.requests[0].get("expect") == "100-continue"


@pytest.mark.parametrize("name,fields", [
    ("connection", [(":status", "200"), ("connection", "close")]),
    ("transfer-encoding", [(":status", "200"), ("transfer-encoding", "chunked")]),
    ("keep-alive", [(":status", "200"), ("keep-alive", "1")]),
    ("upgrade", [(":status", "200"), ("upgrade", "x")]),
    ("upper case", [(":status", "200"), ("X-Upper", "1")]),
    ("line feed", [(":status", "200"), ("x-a", "b\nc: d")]),
    ("carriage return", [(":status", "200"), ("x-a", "b\rc")]),
    ("nul", [(":status", "200"), ("x-a", "b\0c")]),
    ("delete", [(":status", "200"), ("x-a", "b\x7fc")]),
    ("name with a space", [(":status", "200"), ("x a", "b")]),
    ("name with a colon", [(":status", "200"), ("x:a", "b")]),
    ("no status", [("x-a", "b")]),
    ("two statuses", [(":status", "200"), (":status", "201")]),
    ("status of two digits", [(":status", "20")]),
    ("status that is no number", [(":status", "2x0")]),
    ("status last", [("x-a", "b"), (":status", "200")]),
    ("unknown pseudo-field", [(":status", "200"), (":path", "/")]),
    ("switching", [(":status", "101")]),
    ("two lengths", [(":status", "200"), ("content-length", "1"), ("content-length", "2")]),
    ("signed length", [(":status", "200"), ("content-length", "+1")]),
    ("length without a body", [(":status", "200"), ("content-length", "5")]),
])
def test_a_head_that_breaks_the_rules(h2, name, fields):
    def script(c):
        p = Peer(c)
        a = p.request()
        p.fields(a, *fields, flags=END_HEADERS | END_STREAM)
        p.drain()
        a = p.request()
        p.answer(a, b"well")
        p.drain()

    w = h2(script, "retry off;")
    r = fetch(w.http)
    assert r.status == 502, name
    assert b"c: d" not in r.raw
    w.wait_metric("weir_upstream_requests_total", 1, upstream="u", server=str(w.server), result="bad_response")


@pytest.mark.parametrize("announced,sent", [(10, 3), (3, 10)])
def test_a_length_that_is_not_kept_looks_cut(h2, connect, announced, sent):
    def script(c):
        p = Peer(c)
        a = p.request()
        p.head(a, 200, [("content-length", str(announced))])
        p.raw(frame(DATA, 0, a.id, b"x" * 2))
        time.sleep(0.2)
        p.raw(frame(DATA, END_STREAM, a.id, b"x" * (sent - 2)))
        p.drain()

    w = h2(script)
    c = connect(w.http)
    c.send(request())
    rest = c.read_all()
    assert rest.count(b"x") < announced
    assert w.server.accepted == 1


def test_trailers_that_frame_are_refused(h2, connect):
    def script(c):
        p = Peer(c)
        a = p.request()
        p.head(a, 200)
        p.data(a, b"abc")
        time.sleep(0.2)
        p.fields(a, ("content-length", "3"), flags=END_HEADERS | END_STREAM)
        p.drain()

    w = h2(script)
    c = connect(w.http)
    c.send(request())
    assert not c.read_all().endswith(b"0\r\n\r\n")


def test_trailers_of_a_response(h2):
    def script(p, a):
        p.head(a, 200)
        p.data(a, b"abc")
        p.h.send_headers(a.id, [("grpc-status", "0"), ("content-type", "no")], end_stream=True)
        p.flush()

    w = h2(serve(script))
    r = fetch(w.http, lines=["TE: trailers"])
    assert r.body == b"abc" and r.trailers == [("grpc-status", "0")]


# ---------------------------------------------------------------- bodies, credit, early answers

def test_a_gigantic_response_to_a_slow_reader_costs_little(h2, connect):
    block = b"x" * (1 << 20)
    sent = []

    def script(p, a):
        p.head(a, 200)
        for i in range(200):
            p.data(a, block, end=i == 199)
            sent.append(i)

    w = h2(serve(script))
    c = connect(w.http, rcvbuf=65536)
    before = memory(w)
    c.send(request())
    c.read_until(b"\r\n\r\n")
    time.sleep(1)
    assert len(sent) < 20
    assert memory(w) - before < 4 << 20
    total, end = len(c.buffer), b""
    while not end.endswith(b"0\r\n\r\n"):
        end = c.sock.recv(1 << 20)
        total += len(end)
    assert total > 200 << 20


def memory(w):
    with open(f"/proc/{w.worker()}/statm") as f:
        return int(f.read().split()[1]) * 4096


def test_a_slow_client_does_not_stop_the_others(h2, connect):
    def script(c):
        p = Peer(c)
        slow = p.request()
        p.head(slow, 200)
        while p.h.local_flow_control_window(slow.id) > 0:
            p.data(slow, b"y" * min(1000, p.h.local_flow_control_window(slow.id)))
        while True:
            a = p.request()
            p.answer(a, b"z" * 300000)

    w = h2(script)
    c = connect(w.http, rcvbuf=4096)
    c.send(request())
    c.read_until(b"\r\n\r\n")
    for _ in range(10):
        assert fetch(w.http).body == b"z" * 300000
    assert w.server.accepted == 1


def test_a_fast_upload_to_a_slow_server_costs_little(h2, connect):
    got = []
    go = threading.Event()

    def script(c):
        p = Peer(c)
        p.take = False
        a = p.request(whole=False)
        p.until(lambda: len(a.body) >= 65535)
        got.append(len(a.body))
        go.wait(20)
        p.take = True
        p.h.acknowledge_received_data(len(a.body), a.id)
        p.flush()
        p.until(lambda: a.ended)
        p.answer(a, hashlib.sha256(a.body).hexdigest().encode())
        p.drain()

    w = h2(script)
    body = os.urandom(1 << 20) * 6
    c = connect(w.http)
    before = memory(w)
    t = threading.Thread(target=lambda: c.send(request("PUT", "/", [f"Content-Length: {len(body)}"]) + body))
    t.start()
    until(lambda: got, "the first window's worth at the server")
    time.sleep(0.7)
    assert memory(w) - before < 4 << 20
    go.set()
    r = c.response("PUT")
    t.join()
    assert r.body == hashlib.sha256(body).hexdigest().encode()


def test_the_first_bytes_arrive_before_the_last_were_sent(h2, connect):
    first = threading.Event()

    def script(c):
        p = Peer(c)
        a = p.request(whole=False)
        p.until(lambda: a.body)
        first.set()
        p.until(lambda: a.ended)
        p.answer(a, a.body)
        p.drain()

    w = h2(script)
    c = connect(w.http)
    c.send(request("POST", "/", ["Content-Length: 6"]) + b"abc")
    assert first.wait(5 * SLOW)
    c.send(b"def")
    assert c.response("POST").body == b"abcdef"


def test_an_early_answer_reaches_the_client(h2, connect):
    def script(c):
        p = Peer(c)
        a = p.request(whole=False)
        p.answer(a, b"too much", 413)
        p.drain(1)

    w = h2(script)
    c = connect(w.http)
    c.send(request("POST", "/", ["Content-Length: 100000000"]) + b"x" * 100000)
    r = c.response("POST")
    assert r.status == 413 and r.body == b"too much"


def test_a_client_that_goes_resets_the_stream_at_once(h2, connect):
    peers = []

    def script(c):
        p = Peer(c)
        peers.append(p)
        a = p.request()
        if a.path == "/goes":
            p.head(a, 200)
            p.data(a, b"x")
            p.until(lambda: a.reset is not None)
        a = p.request()
        p.answer(a)
        p.drain()

    w = h2(script)
    c = connect(w.http)
    c.send(request("GET", "/goes"))
    c.read_until(b"x")
    c.reset()
    until(lambda: peers[0].resets, "RST_STREAM")
    assert peers[0].resets[0][1] == ErrorCodes.CANCEL
    assert fetch(w.http).body == b"ok"
    assert w.server.accepted == 1


@pytest.mark.parametrize("how", ["reset", "close", "goaway", "garbage"])
def test_a_response_that_is_cut_looks_cut(h2, connect, how):
    def script(c):
        p = Peer(c)
        a = p.request()
        p.head(a, 200)
        p.data(a, b"abc")
        time.sleep(0.2)
        if how == "reset":
            p.reset(a, ErrorCodes.INTERNAL_ERROR)
        elif how == "goaway":
            p.goaway(a.id, 2)
            return
        elif how == "garbage":
            p.raw(frame(DATA, 0, 0, b"x"))
        else:
            return
        p.drain()

    w = h2(script)
    c = connect(w.http)
    c.send(request())
    rest = c.read_all()
    assert b"abc" in rest and not rest.endswith(b"0\r\n\r\n")
    w.wait_metric("weir_requests_total", 1)


# ---------------------------------------------------------------- retries

@pytest.mark.parametrize("size", [4, 65535])
def test_refused_streams_are_sent_again_also_a_post(h2, size):
    def reply(p, a):
        if len(p.c.server.requests) == 1:
            p.reset(a, ErrorCodes.REFUSED_STREAM)
        else:
            p.answer(a, a.body)

    w = h2(serve(reply))
    body = os.urandom(size)
    assert fetch(w.http, "/", "POST", body=body).body == body
    assert [q.body for q in w.server.requests] == [body, body]


def test_a_server_that_always_refuses(h2):
    w = h2(serve(lambda p, a: p.reset(a, ErrorCodes.REFUSED_STREAM)), "eject off;")
    r = fetch(w.http, "/", "POST", body=b"x")
    assert r.status == 502
    assert 2 <= len(w.server.requests) <= 4
    w.wait_metric("weir_local_replies_total", 1, reason="stream_refused")


def test_a_body_that_was_too_large_to_keep_is_not_sent_again(h2):
    def reply(p, a):
        p.reset(a, ErrorCodes.REFUSED_STREAM)

    w = h2(serve(reply))
    assert fetch(w.http, "/", "POST", body=b"x" * 100000).status == 502
    assert len(w.server.requests) == 1


def test_goaway_gives_back_what_is_above_it(h2):
    gate = threading.Barrier(4)

    def script(c):
        p = Peer(c)
        if c.number == 1:
            asked = [p.request() for _ in range(3)]
            p.goaway(asked[0].id)
            p.answer(asked[0], b"first")
            p.drain(2)
        else:
            while True:
                p.answer(p.request(), b"again")

    w = h2(script)
    got = []

    def one():
        gate.wait()
        got.append(fetch(w.http, "/", "POST", body=b"x").body)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for t in threads:
        t.start()
    gate.wait()
    for t in threads:
        t.join()
    assert sorted(got) == [b"again", b"again", b"first"]
    assert w.server.accepted == 2


def test_a_reset_is_tried_again_where_the_method_bears_it(h2):
    def reply(p, a):
        p.reset(a, ErrorCodes.INTERNAL_ERROR)

    w = h2(serve(reply), "eject off;")
    assert fetch(w.http, "/", "POST", body=b"x").status == 502
    assert len(w.server.requests) == 1
    w.wait_metric("weir_local_replies_total", 1, reason="stream_reset")
    w.wait_log("the server reset the stream before the response was complete: INTERNAL_ERROR")


def test_a_kept_connection_that_was_closed_is_nobodys_failure(h2):
    def script(c):
        p = Peer(c)
        p.answer(p.request())
        if c.number == 1:
            p.request()
            return
        p.answer(p.request())
        p.drain()

    w = h2(script)
    assert fetch(w.http).body == b"ok"
    assert fetch(w.http).body == b"ok"
    assert w.server.accepted == 2


# ---------------------------------------------------------------- connections

def test_many_requests_share_one_connection(h2):
    w = h2(serve())
    threads = [threading.Thread(target=lambda: [fetch(w.http) for _ in range(5)]) for _ in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(w.server.requests) == 100 and w.server.accepted == 1


def test_the_limit_of_the_server_opens_connections_before_requests_wait(h2):
    everybody, came, most = threading.Event(), [], []

    def script(c):
        p = Peer(c, {SettingCodes.MAX_CONCURRENT_STREAMS: 3})
        p.c.sock.settimeout(0.05)
        open_here = []
        while True:
            try:
                open_here.append(p.request())
            except TimeoutError:
                pass
            else:
                came.append(c.number)
                most.append(len(open_here))
            if len(came) >= 10:
                everybody.set()
            if everybody.is_set():
                while open_here:
                    p.answer(open_here.pop())

    w = h2(script)
    results = []
    threads = [threading.Thread(target=lambda: results.append(fetch(w.http).status)) for _ in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [200] * 10 and everybody.is_set()
    assert len(came) == 10 and max(most) == 3
    assert w.server.accepted == 4


def test_a_server_that_speaks_http1_fails_the_connect(h2, server, weir):
    s = server()
    w = weir(conf("timeout connect=1s; eject off;"), s=s)
    assert fetch(w.http, "/", "POST", body=b"x").status in (502, 504)
    w.wait_log(r"server .*: .*HTTP/2")


def test_no_settings_is_a_connect_timeout(h2):
    w = h2(lambda c: c.read_all(), "timeout connect=200ms; eject off;")
    assert fetch(w.http).status == 504
    w.wait_log("no SETTINGS of HTTP/2 came")


def test_tls_without_alpn_says_so(weir, server, ca):
    tls = ca.server(ca.cert("localhost", "127.0.0.1"))
    s = server(tls=tls)
    w = weir(conf(f"tls ca={ca.cert_file}; eject off;").replace("h2c", "h2"), s=s)
    assert fetch(w.http).status == 502
    w.wait_log(r"does not agree to h2 \(ALPN\)")
    assert not s.requests


def test_a_window_that_never_opens_is_a_timeout(h2, connect):
    def script(c):
        p = Peer(c, window=0)
        p.request(whole=False)
        p.drain(3)

    w = h2(script, "timeout response=500ms response_idle=500ms;")
    c = connect(w.http)
    c.send(request("POST", "/", ["Content-Length: 5"]) + b"abcde")
    assert c.response("POST").status == 504


def test_timeouts_end_the_stream_and_not_the_connection(h2, connect):
    peers = []

    def script(c):
        p = Peer(c)
        peers.append(p)
        while True:
            a = p.request()
            if a.path == "/silent":
                continue
            if a.path == "/half":
                p.head(a, 200)
                p.data(a, b"half")
                continue
            if a.reset is None:
                p.answer(a)

    w = h2(script, "timeout response=300ms response_idle=300ms; retry off; eject off;")
    # Another stream shows that the connection lives.
    stop = threading.Event()
    t = threading.Thread(target=lambda: [fetch(w.http) or time.sleep(0.05) for _ in iter(stop.is_set, True)])
    t.start()
    try:
        assert fetch(w.http, "/silent").status == 504
        c = connect(w.http)
        c.send(request("GET", "/half"))
        assert not c.read_all().endswith(b"0\r\n\r\n")
    finally:
        stop.set()
        t.join()
    w.wait_metric("weir_local_replies_total", 1, reason="response")
    assert w.server.accepted == 1
    until(lambda: len(peers[0].resets) == 2, "two streams reset")


@pytest.mark.parametrize("what,reason", [
    (frame(PING, 0, 0, b"12345678"), "server_flood"),
    (frame(SETTINGS), "server_flood"),
    (frame(0xee, 0, 0, b""), "server_flood"),
])
def test_floods_end_the_connection(h2, what, reason):
    def script(c):
        p = Peer(c)
        p.request()
        p.raw(what * 20000)
        while c.sock.recv(65536):
            pass

    w = h2(script, "retry off;")
    assert fetch(w.http).status == 502
    closes = w.metrics()
    assert w.metric("weir_connection_closes_total", reason=reason) + \
        w.metric("weir_connection_closes_total", reason="upstream_protocol") == 1, closes


def test_an_hpack_bomb_costs_its_limit(h2):
    def script(c):
        p = Peer(c)
        a = p.request()
        block = p.h.encoder.encode([(":status", "200"), ("x-bomb", "b" * 3900)], huffman=False)
        index = b"\xbe"
        p.raw(frame(HEADERS, 0, a.id, block))
        for i in range(6):
            p.raw(frame(CONTINUATION, END_HEADERS if i == 5 else 0, a.id, index * 16000))
        p.drain(2)

    w = h2(script, "retry off;")
    before = memory(w)
    assert fetch(w.http).status == 502
    assert memory(w) - before < 4 << 20
    w.wait_metric("weir_local_replies_total", 1, reason="response_header_max")
    until(lambda: w.server.open == 0, "the connection ended")


def test_a_head_over_the_limit_costs_the_stream_only(h2):
    def reply(p, a):
        p.head(a, 200, [(f"x-{i}", "y" * 1000) for i in range(40 if a.path == "/big" else 1)], end=True)

    w = h2(serve(reply))
    assert fetch(w.http, "/big").status == 502
    assert fetch(w.http).status == 200
    assert w.server.accepted == 1


def test_health_checks_speak_http2(weir, server):
    state = {"status": 200}

    def reply(p, a):
        p.answer(a, b"ok", state["status"] if a.path == "/health" else 200)

    s = server(script=serve(reply))
    w = weir(conf("health_check path=/health interval=50ms fall=2 rise=2;"), s=s)
    until(lambda: any(q.path == "/health" for q in s.requests), "a probe")
    assert fetch(w.http).status == 200
    state["status"] = 500
    w.wait_log("is down: health check: status 500")
    state["status"] = 200
    w.wait_log("is up again")
    assert fetch(w.http).status == 200


def test_a_server_that_is_drained_by_goaway_gets_no_new_requests(h2):
    def script(c):
        p = Peer(c)
        a = p.request()
        p.goaway(2 ** 31 - 1)
        p.answer(a, b"from %d" % c.number)
        p.drain()

    w = h2(script)
    assert [fetch(w.http).body for _ in range(3)] == [b"from 1", b"from 2", b"from 3"]


def test_reload_keeps_the_connection_and_a_change_of_protocol_does_not(weir, server):
    s = server(script=serve())
    w = weir(conf(top="threads 1;"), s=s)
    fetch(w.http)
    w.reload()
    fetch(w.http)
    assert s.accepted == 1


def test_the_effective_configuration_names_the_protocol(weir, server):
    w = weir(conf(), s=server(script=serve()))
    assert "protocol h2c;" in w.command("-T").stdout
