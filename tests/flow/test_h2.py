"""HTTP/2 from clients: messages, translation, flow control, tunnels, ends and limits."""
import re
import signal
import subprocess
import time

import pytest

from kit import SLOW, h2, need, until
from kit.raw import answer, fetch, request
from test_tls import listener

PLAIN = "listen 127.0.0.1:@http@ { protocols h2c http/1.1; %s } "
PROXY = "upstream u { server @backend@; } host * { route / { proxy u; } } "


@pytest.fixture
def h2c():
    made = []

    def connect(port, kind=h2.Client, **more):
        made.append(kind(port, **more))
        return made[-1]

    yield connect
    for c in made:
        c.close()


def proxied(weir, backend, more="", listen="", **values):
    return weir(PLAIN % listen + "listen 127.0.0.1:@plain@; " + more + PROXY, backend=backend, **values)


def closed(w, reason):
    until(lambda: (w.metric("weir_connection_closes_total", reason=reason) or 0) >= 1, f"a close for {reason}")


# ---------------------------------------------------------------- messages

@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_requests(weir, server, h2c, ca, tls):
    s = server(lambda q: answer(b"%d bytes" % len(q.body), fields={"x-y": "z", "connection": "x-y2", "x-y2": "1"}))
    w = weir(PLAIN % "" + listener(ca.cert("a.test")) + PROXY, backend=s)
    c = h2c(w.https, tls=ca.client(alpn=["h2"])) if tls else h2c(w.http)
    a = c.fetch(path="/p?q=1", fields={"x-own": "v", "user-agent": "me"})
    assert (a.status, a.body, a.get("x-y"), a.get("x-y2"), a.get("content-length")) == (200, b"0 bytes", "z", None, "7")
    assert a.get("date")
    q = s.last()
    assert q.line == "GET /p?q=1 HTTP/1.1"
    assert (q.get("host"), q.get("x-own"), q.get("user-agent")) == ("a.test", "v", "me")
    assert q.get("via") == "2.0 weir"
    assert q.get("x-forwarded-proto") == ("https" if tls else "http")
    a = c.fetch("POST", body=b"y" * 300_000, fields={"content-length": "300000"})
    assert a.body == b"300000 bytes"
    assert s.last().get("content-length") == "300000"
    a = c.fetch("POST", body=b"y" * 300_000)
    assert a.body == b"300000 bytes"
    assert s.last().get("transfer-encoding") == "chunked"
    many = [c.request(path=f"/{i}") for i in range(50)]
    assert all(c.response(i).status == 200 for i in many)


def test_protocol_is_chosen_once(weir, h2c, connect, ca):
    body = "host * { route / { respond 200 hi; } } "
    w = weir(PLAIN % "" + listener(ca.cert("a.test")) + "listen 127.0.0.1:@only@ { protocols h2c; } "
             "listen 127.0.0.1:@old@ tls { certificate %s key=%s; protocols http/1.1 h2; } " % ca.cert("a.test") + body)
    for port, offered, chosen in [(w.https, ["h2", "http/1.1"], "h2"), (w.https, ["http/1.1", "h2"], "h2"),
                                  (w.https, ["http/1.1"], "http/1.1"), (w.old, ["h2", "http/1.1"], "http/1.1"),
                                  (w.old, ["h2"], "h2"), (w.https, None, None)]:
        c = connect(port, tls=ca.client(alpn=offered))
        assert c.sock.selected_alpn_protocol() == chosen, (offered, chosen)
        if chosen != "h2":
            assert c.send(request()).response().body == b"hi"
    assert fetch(w.http).body == b"hi"
    assert h2c(w.only).fetch().body == b"hi"
    c = connect(w.only)
    c.send(request())
    assert b"HTTP/1.1" not in c.read_all()
    c = connect(w.http)
    for b in request("POST", body=b"abc"):
        c.send(bytes([b]))
    assert c.response().body == b"hi"
    c = h2c(w.http, kind=h2.Raw, hello=False)
    for b in h2.PREFACE + h2.frame(h2.SETTINGS) + h2.frame(h2.HEADERS, 5, 1, h2.block(h2.head())):
        c.send(bytes([b]))
    assert c.frames(h2.DATA)[-1][3] == b"hi"
    c = connect(w.http)
    c.send(b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n")
    assert b"505" in c.read_all()[:20]


def test_bodiless_responses(weir, server, h2c):
    replies = {"/204": b"HTTP/1.1 204 No Content\r\n\r\n", "/304": b"HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n",
               "/0": answer(b""), "/h": answer(b"12345")}
    s = server(lambda q: replies[q.target])
    w = proxied(weir, s)
    c = h2c(w.http)
    assert c.fetch(path="/204").status == 204
    assert c.fetch(path="/304").get("etag") == '"a"'
    assert c.fetch(path="/0").get("content-length") == "0"
    a = c.fetch("HEAD", path="/h")
    assert (a.status, a.get("content-length"), a.body) == (200, "5", b"")


def test_trailers_and_interim(weir, server, h2c):
    def script(stream):
        while True:
            q = stream.server.take(stream)
            assert ("x-t", "1") in q.trailers or q.method == "GET"
            stream.send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
                        b"3\r\nabc\r\n0\r\nx-checksum: 9\r\n\r\n")

    s = server(script=script)
    w = proxied(weir, s)
    c = h2c(w.http)
    a = c.fetch()
    assert (a.body, a.trailers, len(a.interim)) == (b"abc", [("x-checksum", "9")], 1)
    i = c.request("POST", end=False)
    c.body(i, b"abc", end=False)
    c.h2.send_headers(i, [("x-t", "1")], end_stream=True)
    c.flush()
    assert c.response(i).trailers == [("x-checksum", "9")]


def test_expect_continue(weir, server, h2c):
    s = server(answer(b"ok"))
    w = proxied(weir, s)
    c = h2c(w.http)
    i = c.request("POST", fields={"expect": "100-continue"}, end=False)
    assert c.until(lambda: c.answer(i).interim)
    c.body(i, b"abc")
    assert c.response(i).body == b"ok"
    assert c.fetch("POST", fields={"expect": "200-maybe"}, end=False).status == 417


# ---------------------------------------------------------------- translation

RESET = "reset"
BAD_HEADS = {
    "uppercase name": (h2.head(fields={"X-Up": "1"}), RESET),
    "space in name": (h2.head(fields={"x y": "1"}), RESET),
    "colon in name": (h2.head(fields={"x:y": "1"}), RESET),
    "empty name": (h2.head(fields={"": "1"}), RESET),
    "cr in value": (h2.head(fields={"x": "a\rb"}), RESET),
    "lf in value": (h2.head(fields={"x": "a\nGET / HTTP/1.1"}), RESET),
    "nul in value": (h2.head(fields={"x": "a\0b"}), RESET),
    "blank around value": (h2.head(fields={"x": " a"}), RESET),
    "connection": (h2.head(fields={"connection": "close"}), RESET),
    "keep-alive": (h2.head(fields={"keep-alive": "1"}), RESET),
    "proxy-connection": (h2.head(fields={"proxy-connection": "close"}), RESET),
    "transfer-encoding": (h2.head(fields={"transfer-encoding": "chunked"}), RESET),
    "upgrade": (h2.head(fields={"upgrade": "websocket"}), RESET),
    "te": (h2.head(fields={"te": "trailers, deflate"}), RESET),
    "no method": (h2.head(method=None), RESET),
    "no path": (h2.head(path=None), RESET),
    "no scheme": (h2.head(scheme=None), RESET),
    "empty path": (h2.head(path=""), RESET),
    "method twice": (h2.head() + [(":method", "GET")], RESET),
    "pseudo-field late": ([("x", "1")] + h2.head(), RESET),
    "response pseudo-field": (h2.head() + [(":status", "200")], RESET),
    "unknown pseudo-field": (h2.head(unknown="1"), RESET),
    "protocol without connect": (h2.head(protocol="websocket"), RESET),
    "space in path": (h2.head(path="/a b"), RESET),
    "lf in path": (h2.head(path="/a\r\nx: y"), RESET),
    "space in method": (h2.head(method="GET /x"), RESET),
    "relative path": (h2.head(path="a"), RESET),
    "star": (h2.head(path="*"), RESET),
    "fragment": (h2.head(path="/a#b"), 400),
    "user in authority": (h2.head(authority="u@a.test"), 400),
    "no authority": (h2.head(authority=None), (RESET, 400)),
    "path in authority": (h2.head(authority="a.test/x"), (RESET, 400)),
    "host differs": (h2.head(fields={"host": "b.test"}), 400),
    "host twice": (h2.head(fields=[("host", "a.test"), ("host", "a.test")]), RESET),
    "other scheme": (h2.head(scheme="ftp"), 400),
    "connect": ([(":method", "CONNECT"), (":authority", "a.test:1")], 501),
    "connect with protocol": (h2.head("CONNECT", protocol="connect-udp"), 501),
    "content-length sign": (h2.head("POST", fields={"content-length": "+1"}), RESET),
    "content-length twice": (h2.head("POST", fields=[("content-length", "1"), ("content-length", "1")]), RESET),
    "content-length belied": (h2.head("POST", fields={"content-length": "1"}), RESET),
    "dot segments": (h2.head(path="/%2e%2e%2fx"), 400),
}


@pytest.mark.parametrize("fields,wanted", BAD_HEADS.values(), ids=BAD_HEADS.keys())
def test_bad_heads(weir_for_all, server_for_all, h2c, fields, wanted, request):
    module = request.module
    if not hasattr(module, "bad_world"):
        s = server_for_all(answer(b"passed"))
        module.bad_world = (s, proxied(weir_for_all, s))
    s, w = module.bad_world
    before = len(s.requests)
    c = h2c(w.http, kind=h2.Raw)
    c.send(h2.frame(h2.HEADERS, h2.END_STREAM | h2.END_HEADERS, 1, h2.block(fields)))
    c.send(h2.frame(h2.HEADERS, h2.END_STREAM | h2.END_HEADERS, 3, h2.block(h2.head())))
    frames = c.frames(h2.DATA)
    while frames[-1][2] != 3:
        frames += c.frames(h2.DATA)
    reset = [f for f in frames if f[0] == h2.RST and f[2] == 1 and f[3] == b"\0\0\0\1"]
    heads = [f for f in frames if f[0] == h2.HEADERS and f[2] == 1]
    if reset:
        assert not heads and (wanted == RESET or RESET in (wanted if isinstance(wanted, tuple) else ()))
    else:
        assert heads and wanted != RESET
        status = {b"\x8c": 400}.get(heads[0][3][:1])
        assert status == 400 or wanted == 501
    assert frames[-1][3] == b"passed"
    assert len(s.requests) == before + 1
    if reset:
        w.wait_log("h2_protocol: a frame was refused: ")


def test_what_passes(weir, server, h2c):
    s = server(answer(b"ok"))
    w = proxied(weir, s)
    c = h2c(w.http)
    c.fetch(fields=[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("cookie", "c=3"), ("x-a", "1"), ("x-a", "2")])
    q = s.last()
    assert q.all("cookie") == ["a=1; b=2; c=3"]
    assert "te" not in q and q.all("x-a") == ["1", "2"]
    c.fetch(authority=None, fields={"host": "h.test:81"})
    assert s.last().all("host") == ["h.test:81"]
    c.fetch(authority="A.test", fields={"host": "a.test"})
    assert s.last().all("host") == ["A.test"]
    c.fetch("OPTIONS", path="*")
    assert s.last().line == "OPTIONS * HTTP/1.1"
    c.fetch(path="/%2F;a//b?%20#x"[:-2])
    assert s.last().target == "/%2F;a//b?%20"


@pytest.mark.parametrize("crumbs, cookie", [(["", "a=1", "", "", "b=2", ""], "a=1; b=2"), (["", ""], ""), (["a=1", ""], "a=1")])
def test_empty_crumbs_leave_no_blanks_in_the_cookie(weir, server, h2c, crumbs, cookie):
    s = server(answer(b"ok"))
    w = proxied(weir, s)
    h2c(w.http).fetch(fields=[("cookie", c) for c in crumbs])
    assert s.last().all("cookie") == [cookie]


def test_functions_and_log(weir, server, h2c):
    s = server(answer(b"ok"))
    w = proxied(weir, s, "module headers; access_log stdout; ".replace("stdout", "access.log") +
                "host f.test { function headers { set response X-F on; set request X-Host $header_host; } "
                "route / { proxy u; } } ")
    a = h2c(w.http).fetch(path="/f", authority="f.test")
    assert a.get("x-f") == "on" and s.last().get("x-host") == "f.test"
    until(lambda: '"GET /f HTTP/2.0" 200 2 ' in (w.dir / "access.log").read_text(), "the line")


def test_bad_bodies(weir, server, h2c):
    s = server(answer(b"ok"))
    w = proxied(weir, s, "threads 1; ")
    for length, sent in [(5, b"1234"), (3, b"1234")]:
        c = h2c(w.http)
        i = c.request("POST", fields={"content-length": str(length)}, end=False)
        until(lambda: s.open == 1, "the request at the server")
        c.send(h2.frame(h2.DATA, 1, i, sent))
        a = c.response(i)
        assert (a.status, a.reset) == (None, h2.PROTOCOL_ERROR)
        until(lambda: s.open == 0, "the server's connection ends")
        assert c.fetch().status == 200
    for fields in ([("content-length", "3")], [("host", "x")], [(":path", "/")], [("X", "y")], [("x", "a\nb")]):
        c = h2c(w.http)
        i = c.request("POST", end=False)
        c.body(i, b"abc", end=False)
        c.send(h2.frame(h2.HEADERS, 5, i, h2.block(fields)))
        a = c.response(i)
        assert a.status == 400 or a.reset == h2.PROTOCOL_ERROR, fields
    assert all("x" not in dict(q.trailers) for q in s.requests)


def test_a_cut_response_looks_cut(weir, server, h2c):
    s = server(script=lambda st: (st.server.take(st), st.send(
        b"HTTP/1.1 200 OK\r\n" + st.server.framing + b"\r\n\r\n5\r\nabcde\r\n"), time.sleep(0.05)))
    w = proxied(weir, s)
    c = h2c(w.http)
    for framing in (b"content-length: 100", b"transfer-encoding: chunked"):
        s.framing = framing
        a = c.fetch()
        assert a.status == 200 and not a.ended and a.reset == h2.INTERNAL_ERROR
    assert not c.goaways


def test_a_reset_aborts_at_once(weir, server, h2c):
    ended = []

    def script(stream):
        stream.server.take(stream)
        ended.append(stream.ended())

    s = server(script=script)
    w = proxied(weir, s)
    c = h2c(w.http)
    i = c.request()
    s.wait(1)
    c.h2.reset_stream(i, h2.CANCEL)
    c.flush()
    until(lambda: ended, "the server hears of it", 1)
    w.wait_metric("weir_requests", 0)
    i = c.request()
    s.wait(2)
    c.close()
    until(lambda: len(ended) == 2, "the server hears that the client has gone", 1)


# ---------------------------------------------------------------- flow control

def test_a_slow_server_stops_the_upload(weir, server, h2c):
    go = []

    def script(stream):
        stream.head()
        until(lambda: go, "the go", 20)
        rest = stream.read_until(b"\r\n0\r\n\r\n")
        stream.send(answer(b"%d" % rest.count(b"y")))

    s = server(script=script)
    w = proxied(weir, s)
    c = h2c(w.http)
    i = c.request("POST", end=False)
    sent, size = 0, 8_000_000
    for _ in range(40):  # as far as credit goes
        n = min(c.h2.local_flow_control_window(i), 16384)
        if n:
            c.h2.send_data(i, b"y" * n)
            c.flush()
            sent += n
        else:
            c.sock.settimeout(0.3)
            try:
                c.take()
            except TimeoutError:
                break
    assert sent < 5_000_000  # the pipe, and what the two sockets hold
    go.append(1)
    c.body(i, b"y" * (size - sent))
    assert int(c.response(i, 20).body) >= size


def test_a_small_window_is_respected(weir, server, h2c):
    s = server(answer(bytes(1_000_000)))
    w = proxied(weir, s)
    c = h2c(w.http, window=1000)
    a = c.fetch()
    assert len(a.body) == 1_000_000 and a.ended


def test_streams_do_not_wait_for_each_other(weir, server, h2c):
    s = server(lambda q: answer(bytes(1_000_000) if q.target == "/big" else b"small"))
    w = proxied(weir, s)
    c = h2c(w.http, window=65535)
    c.credit = False
    big = [c.request(path="/big") for _ in range(10)]
    c.until(lambda: sum(len(c.answer(i).body) for i in big) >= 65535)
    c.h2.increment_flow_control_window(1 << 20)
    c.flush()
    c.until(lambda: all(len(c.answer(i).body) >= 65535 for i in big))
    assert c.fetch(path="/small").body == b"small"


def test_memory_of_stalled_streams(weir, server, h2c):
    s = server(answer(bytes(4_000_000)))
    w = proxied(weir, s)
    c = h2c(w.http, window=0)

    def rss():
        return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{w.worker()}/status").read())[1])

    assert h2c(w.http).fetch().ended
    before = rss()
    for _ in range(100):
        c.request()
    s.wait(101)
    time.sleep(0.3)
    assert rss() - before < 100 * 300  # KiB: a pipe and the socket's chunks each
    assert h2c(w.http).fetch().ended


def test_priorities(weir, server, h2c):
    s = server(answer(bytes(200_000)))
    w = proxied(weir, s)
    c = h2c(w.http, window=1 << 20)  # of the streams; the connection's is 65,535
    c.credit = False
    low, normal, urgent, raised = [c.request(fields={"priority": p}) for p in ("u=7", "u=3", "u=0", "u=6")]
    s.wait(4)
    c.until(lambda: sum(len(c.answer(i).body) for i in c.answers) >= 65_535)
    time.sleep(0.3)  # all of them have something to send now
    c.send(h2.frame(16, 0, 0, raised.to_bytes(4, "big") + b"u=1"))
    order = []
    while len(order) < 4:
        c.h2.increment_flow_control_window(20_000)
        c.flush()
        c.take()
        order += [i for i in c.answers if c.answers[i].ended and i not in order]
    assert order == [urgent, raised, normal, low]


def test_the_server_says_what_is_urgent(weir, server, h2c):
    """Two streams that the client asks for alike: what the server raised ends first, though it began last."""
    s = server(lambda q: answer(bytes(200_000), fields=q.all("x-priority") and [("Priority", q.all("x-priority")[0])]))
    w = proxied(weir, s)
    c = h2c(w.http, window=1 << 20)
    c.credit = False
    low, plain, high = [c.request(fields=f) for f in ({"x-priority": "u=6"}, {}, {"x-priority": "u=1, i"})]
    s.wait(3)
    c.until(lambda: sum(len(c.answer(i).body) for i in c.answers) >= 65_535)
    time.sleep(0.3)  # all of them have something to send now
    order = []
    while len(order) < 3:
        c.h2.increment_flow_control_window(20_000)
        c.flush()
        c.take()
        order += [i for i in c.answers if c.answers[i].ended and i not in order]
    assert order == [high, plain, low]


def test_a_buffered_upload(weir, server, h2c):
    s = server(lambda q: answer(b"%d" % len(q.body)))
    w = proxied(weir, s, "buffer request=1m response=1m; ")
    c = h2c(w.http)
    for size in (0, 10, 70_000, 900_000, 3_000_000):
        assert c.fetch("POST", body=b"b" * size).body == b"%d" % size


# ---------------------------------------------------------------- tunnels

def websocket(c, **more):
    fields = {"sec-websocket-version": "13", **more.pop("fields", {})}
    return c.request("CONNECT", fields=fields, end=False, protocol="websocket", **more)


def echo(stream):
    q = stream.server.take(stream)
    if q.target == "/no":
        stream.send(answer(b"no", "403 Forbidden"))
        return
    stream.send(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: x\r\n\r\n")
    while True:
        data = stream.sock.recv(65536)
        if not data:
            stream.send(b"bye")
            return
        stream.send(data)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_websocket(weir, server, h2c, ca, tls):
    s = server(script=echo)
    w = weir(PLAIN % "" + listener(ca.cert("a.test")) + PROXY, backend=s)
    c = h2c(w.https, tls=ca.client(alpn=["h2"])) if tls else h2c(w.http)
    c.fetch(path="/no")
    assert c.settings.get(8) == 1
    i = websocket(c, path="/chat")
    c.until(lambda: c.answer(i).status)
    a = c.answer(i)
    assert a.status == 200 and not a.get("sec-websocket-accept") and not a.get("upgrade") and not a.get("content-length")
    q = s.last()
    assert q.line == "GET /chat HTTP/1.1" and q.get("upgrade") == "websocket" and q.get("connection") == "upgrade"
    assert len(q.get("sec-websocket-key")) == 24 and q.get("sec-websocket-version") == "13"
    for n in (1, 100, 50_000):
        c.body(i, b"x" * n, end=False)
        c.until(lambda: len(a.body) >= n)
        a.body = b""
    assert c.fetch(path="/no").status == 403  # other streams go on
    c.body(i, b"", end=True)
    c.response(i)
    assert (a.body, a.ended, a.reset) == (b"bye", True, None)
    a = c.response(websocket(c, path="/no"))
    assert (a.status, a.body) == (403, b"no")
    i = websocket(c)
    c.until(lambda: c.answer(i).status)
    c.h2.reset_stream(i, h2.CANCEL)
    c.flush()
    until(lambda: s.open == 0, "the tunnel's server is told")


def test_websocket_refused(weir, server, h2c):
    s = server(script=echo)
    w = weir(PLAIN % "" + "upstream u { server @backend@; } host * { route / { proxy u; upgrade off; } }", backend=s)
    c = h2c(w.http)
    assert c.response(websocket(c)).status == 403
    assert not s.requests


# ---------------------------------------------------------------- limits of a request

def test_limits(weir, server, h2c):
    s = server(answer(b"ok"))
    w = proxied(weir, s, "header max=8k fields=20 line=4k; body max=10k; ")
    c = h2c(w.http)
    for wanted, word, ask in [
            (414, "header_line", dict(path="/" + "a" * 4096)),
            (431, "field_line", dict(fields={"x": "a" * 4096})),
            (431, "header_max", dict(fields=[(f"x{i}", "a" * 900) for i in range(12)])),
            (431, "header_fields", dict(fields=[(f"x{i}", "a") for i in range(21)])),
            (413, "body_max", dict(method="POST", fields={"content-length": "10241"}, end=False)),
            (413, "body_max", dict(method="POST", body=b"a" * 10241, end=False))]:
        a = c.fetch(**ask)
        assert a.status == wanted, word
        w.wait_log(rf" {word}: ")
    assert not s.requests or all(q.method == "POST" for q in s.requests)
    assert c.fetch(fields=[("cookie", f"c{i}=1") for i in range(100)]).status == 200
    w.wait_metric("weir_limit_hits_total", 1, setting="header fields")
    w.wait_metric("weir_limit_hits_total", 2, setting="body max")


def test_an_early_answer_arrives(weir, server, h2c):
    s = server(script=lambda st: (st.head(), st.send(answer(b"no", "401 Unauthorized")), time.sleep(0.2)))
    w = proxied(weir, s)
    c = h2c(w.http)
    i = c.request("POST", end=False)
    a = c.response(i)
    assert (a.status, a.body, a.ended) == (401, b"no", True)
    c.until(lambda: a.reset is not None)
    assert a.reset == h2.NO_ERROR
    assert c.fetch().status == 401


# ---------------------------------------------------------------- timeouts

def test_client_head(weir, h2c):
    w = weir(PLAIN % "timeout client_head=300ms client_idle=10s;" + "host * { route / { respond 200 hi; } }")
    c = h2c(w.http, kind=h2.Raw)
    c.send(h2.frame(h2.HEADERS, 1, 1, h2.block(h2.head())))
    for _ in range(20):
        time.sleep(0.05)
        try:
            c.send(h2.frame(h2.CONTINUATION, 0, 1, b"")) if _ < 5 else None
        except OSError:
            break
    assert c.goaway() == h2.CALM
    w.wait_metric("weir_connection_closes_total", 1, reason="client_head")
    c = h2c(w.http, kind=h2.Raw, hello=False)
    c.send(h2.PREFACE[:10])
    assert c.goaway() is None
    w.wait_metric("weir_connection_closes_total", 2, reason="client_head")


def test_client_idle(weir, h2c):
    w = weir(PLAIN % "timeout client_idle=300ms;" + "host * { route / { respond 200 hi; } }")
    c = h2c(w.http)
    assert c.fetch().status == 200
    assert c.ended(3) and c.goaways == [(1, h2.NO_ERROR)]
    w.wait_metric("weir_connection_closes_total", 1, reason="client_idle")
    assert h2c(w.http).ended(3)


def test_client_body(weir, server, h2c):
    s = server(answer(b"ok"))
    w = proxied(weir, s, "timeout client_body=300ms; ")
    c = h2c(w.http)
    i = c.request("POST", end=False)
    c.body(i, b"a", end=False)
    assert c.response(i).status == 408
    assert c.fetch().status == 200
    w.wait_metric("weir_limit_hits_total", 1, setting="timeout client_body")
    w.reload(PLAIN % "" + "timeout client_body=300ms; buffer request=1m; " + PROXY)
    i = c.request("POST", end=False)  # also while it is collected
    c.body(i, b"a" * 50_000, end=False)
    assert c.response(i).status == 408


def test_client_send(weir, server, h2c):
    s = server(answer(bytes(1_000_000)))
    w = proxied(weir, s, "timeout client_send=400ms; ")
    c = h2c(w.http, window=0)  # a stream that may not say a byte
    i = c.request()
    assert c.response(i).reset == h2.CANCEL
    c = h2c(w.http, kind=h2.Raw, rcvbuf=4096)  # a connection that is not read
    c.send(h2.frame(h2.WINDOW, 0, 0, b"\x0f\xff\xff\xff"))
    c.send(h2.frame(h2.SETTINGS, 0, 0, b"\0\4\x0f\xff\xff\xff"))
    for i in range(1, 20, 2):
        c.send(h2.frame(h2.HEADERS, 5, i, h2.block(h2.head())))
    w.wait_metric("weir_requests", 0)


# ---------------------------------------------------------------- abuse

CALM = h2.CALM


def get(stream, flags=5):
    return h2.frame(h2.HEADERS, flags, stream, h2.block(h2.head()))


def resets(c):
    for i in range(1, 40_001, 2):
        c.send(get(i) + h2.frame(h2.RST, 0, i, b"\0\0\0\x08"))


def slow_resets(c):
    for i in range(1, 2001, 2):
        c.send(get(i))
        time.sleep(0.0005)
        c.send(h2.frame(h2.RST, 0, i, b"\0\0\0\x08"))


def made_you_reset(c):
    for i in range(1, 2001, 2):
        c.send(get(i, 4) + h2.frame(h2.WINDOW, 0, i, b"\x7f\xff\xff\xff"))
        time.sleep(0.0005)  # at once they would be too many streams


def refused(c):
    """More streams than are allowed, by a client that reads and acknowledges nothing."""
    for i in range(1, 100_001, 2):
        c.send(get(i, 4))


def bomb(c):
    # one entry of 4000 bytes in the dynamic table, then references to it, a byte each
    name = h2.literal("x-b", "a" * 4000)
    indexed = b"\x40" + name[1:]
    payload = h2.block(h2.head()) + indexed + b"\xbe" * 11000
    c.send(h2.frame(h2.HEADERS, 1, 1, payload[:16000]))
    for _ in range(4):
        c.send(h2.frame(h2.CONTINUATION, 0, 1, b"\xbe" * 16000))
    c.send(h2.frame(h2.CONTINUATION, 4, 1, b"\xbe" * 16000))


def continuations(c):
    c.send(get(1, 1))
    for _ in range(1000):
        c.send(h2.frame(h2.CONTINUATION, 0, 1, b""))


def many(what):
    def attack(c):
        c.send(get(1, 4))
        for _ in range(2000):
            c.send(what * 10)
    return attack


ATTACKS = {
    "rapid reset": (resets, "h2_resets", "http2 resets"),
    "slow reset": (slow_resets, "h2_resets", "http2 resets"),
    "made you reset": (made_you_reset, "h2_resets", "http2 resets"),
    "refused streams": (refused, "h2_resets", "http2 resets"),
    "pings": (many(h2.frame(h2.PING, 0, 0, b"12345678")), "h2_pings", "http2 pings"),
    "settings": (many(h2.frame(h2.SETTINGS)), "h2_settings", "http2 settings"),
    "priority": (many(h2.frame(h2.PRIORITY, 0, 5, b"\0\0\0\0\x10")), "h2_priorities", "http2 priorities"),
    "priority update": (many(h2.frame(16, 0, 0, b"\0\0\0\1u=1")), "h2_priorities", "http2 priorities"),
    "empty data": (many(h2.frame(h2.DATA, 0, 1)), "h2_empty_data", "http2 empty_data"),
    "window updates": (many(h2.frame(8, 0, 0, b"\0\0\0\1")), "h2_window_updates", "http2 window_updates"),
    "unknown frames": (many(h2.frame(200, 0, 0, b"x")), "h2_unknown", "http2 unknown"),
    "unknown on a stream": (many(h2.frame(99, 0, 1)), "h2_unknown", "http2 unknown"),
    "continuations": (continuations, "h2_continuations", "http2 continuations"),
    "hpack bomb": (bomb, "h2_bomb", "header max"),
}


@pytest.mark.parametrize("attack,word,setting", ATTACKS.values(), ids=ATTACKS.keys())
def test_attacks(weir, server, h2c, attack, word, setting):
    s = server(answer(b"ok"))
    w = proxied(weir, s)
    other = h2c(w.http)
    assert other.fetch().status == 200

    def cpu():
        fields = open(f"/proc/{w.worker()}/stat").read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    before = cpu()
    c = h2c(w.http, kind=h2.Raw, hello=attack != refused)
    if attack == refused:
        c.send(h2.PREFACE + h2.frame(h2.SETTINGS))
    try:
        attack(c)
    except OSError:
        pass
    code = c.goaway(10)
    assert code in (CALM, None)  # None: the attacker's own bytes reset the connection
    closed(w, word)  # and the servers' connections that it had
    w.wait_metric("weir_limit_hits_total", 1, setting=setting)
    w.wait_log(rf" {word}: {setting}: ")
    assert cpu() - before < 100 * SLOW  # ticks
    assert other.fetch().status == 200
    assert s.accepted < 600
    w.wait_metric("weir_requests", 0)


def test_goaway_says_calm(weir, h2c):
    w = weir(PLAIN % "http2 pings=5;" + "host * { route / { respond 200 hi; } }")
    c = h2c(w.http, kind=h2.Raw)
    c.send(h2.frame(h2.PING, 0, 0, b"12345678") * 5)
    assert len([f for f in c.frames(h2.PING)]) and c.send(h2.frame(h2.PING, 0, 0, b"12345678")).goaway() == CALM


def test_streams_and_requests(weir, server, h2c):
    s = server(script=lambda st: (st.server.take(st), time.sleep(0.5), st.send(answer())))
    w = proxied(weir, s, listen="http2 max_streams=5 requests=20;")
    c = h2c(w.http)
    c.until(lambda: 3 in c.settings)
    assert c.settings[3] == 5
    raw = h2c(w.http, kind=h2.Raw)
    raw.frames(h2.SETTINGS)
    for i in range(1, 21, 2):
        raw.send(get(i))
    assert raw.goaway() == h2.PROTOCOL_ERROR
    closed(w, "h2_protocol")
    c = h2c(w.http)
    for _ in range(4):
        ids = [c.request() for _ in range(5)]
        assert all(c.response(i).status == 200 for i in ids)
    assert c.ended()
    assert [g[0] for g in c.goaways] == [2**31 - 1, 39]
    w.wait_metric("weir_connection_closes_total", 1, reason="h2_requests")


# ---------------------------------------------------------------- ends

def test_reload_leaves_streams_alone(weir, server, h2c):
    go = []

    def script(stream):
        while True:
            q = stream.server.take(stream)
            if q.target == "/slow":
                until(lambda: go, "the go", 20)
            stream.send(answer(b"ok"))

    s = server(script=script)
    w = proxied(weir, s)
    c = h2c(w.http)
    slow = c.request(path="/slow")
    s.wait(1)
    for i in range(5):
        w.reload(PLAIN % "" + f"upstream u {{ server @backend@; }} host * {{ route = /v {{ respond 200 {i}; }} route / {{ proxy u; }} }}")
        assert c.fetch(path="/v").body == b"%d" % i
    go.append(1)
    assert c.response(slow).body == b"ok"
    assert not c.goaways


def test_drain_loses_no_stream(weir, server, h2c):
    go = []

    def script(stream):
        while True:
            stream.server.take(stream)
            until(lambda: go, "the go", 20)
            stream.send(answer(b"ok"))

    s = server(script=script)
    w = proxied(weir, s)
    idle, c = h2c(w.http), h2c(w.http)
    i = c.request()
    s.wait(1)
    w.send(signal.SIGTERM)
    c.until(lambda: c.goaways)
    assert c.goaways == [(2**31 - 1, h2.NO_ERROR)] or c.goaways[-1][0] == i
    c.until(lambda: len(c.goaways) == 2)
    assert c.goaways[1] == (i, h2.NO_ERROR)
    go.append(1)
    assert c.response(i).body == b"ok"
    assert c.ended()
    assert idle.ended() and [g[0] for g in idle.goaways] == [2**31 - 1, 0]


def test_a_stream_between_the_goaways_is_served(weir, h2c):
    w = weir(PLAIN % "" + "host * { route / { respond 200 hi; } }")
    c = h2c(w.http, kind=h2.Raw)
    c.send(get(1)).frames(h2.DATA)
    w.send(signal.SIGTERM)
    assert c.frames(h2.PING)[-1][1] == 0
    c.send(get(3))  # before the PING is answered
    seen = c.frames(h2.DATA)
    assert seen[-1][2] == 3
    c.send(h2.frame(h2.PING, h2.ACK, 0, bytes(8)))
    assert c.goaway() == h2.NO_ERROR


def test_a_half_close_gets_its_answer(weir, server, h2c):
    import socket as so

    s = server(script=lambda st: (st.server.take(st), time.sleep(0.2), st.send(answer(b"late"))))
    w = proxied(weir, s)
    c = h2c(w.http)
    i = c.request()
    c.sock.shutdown(so.SHUT_WR)
    assert c.response(i).body == b"late"
    assert c.ended()


@pytest.mark.parametrize("way", ["cleartext", "tls", "goaway"])
def test_a_client_that_closes_calls_off_what_it_asked_for(weir, server, h2c, ca, way):
    """Its FIN looks like a half-close; but nobody is there, and the server need not work on."""
    ended = []

    def script(st):
        st.server.take(st)
        st.read_all()
        ended.append(st)

    s = server(script=script)
    cert, key = ca.cert("a.test")
    w = weir(f"listen 127.0.0.1:@http@ {{ protocols h2c; }} listen 127.0.0.1:@https@ tls {{ certificate {cert} key={key}; }} "
             "upstream u { server @backend@; } host * { route / { proxy u; } }", backend=s)
    c = h2c(w.https, tls=ca.client(alpn=["h2"])) if way == "tls" else h2c(w.http)
    for _ in range(3):
        c.request()
    s.wait(3)
    c.until(lambda: c.acked)
    if way == "goaway":
        c.send(h2.frame(h2.GOAWAY, payload=bytes(8)))
    c.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):  # what is left unread would make the end a reset
        c.take()
    c.close()
    until(lambda: len(ended) == 3, "the server to hear of it")
    until(lambda: w.metric("weir_requests_open") == 0, "no request is left")


def test_an_unfinished_request_does_not_keep_a_connection_that_ended(weir, server, h2c):
    import socket as so

    s = server(script=lambda st: st.read_until(b"never sent"))
    w = proxied(weir, s)
    c = h2c(w.http)
    c.request("POST", "/", {"content-length": "100"}, b"abc", end=False)
    until(lambda: s.streams, "the request at the server")
    c.sock.shutdown(so.SHUT_WR)
    assert c.ended()
    closed(w, "client_closed")
    until(lambda: w.metric("weir_requests_open") == 0, "no request is left")


def test_misdirected(weir, h2c, ca):
    cert = ca.cert("a.test")
    common = "host * { route / { respond 200 hi; } }"
    w = weir(listener(cert) + common)
    c = h2c(w.https, tls=ca.client(alpn=["h2"]))
    assert c.fetch().status == 200
    w.reload(listener(cert, more=f"client_certificate required ca={ca.cert_file};") + common)
    assert c.fetch().status == 421
    assert c.ended()


# ---------------------------------------------------------------- other people's clients

def test_tools(weir, server, ca, tmp_path):
    s = server(lambda q: answer(b"n=%d" % len(q.body)))
    w = weir(PLAIN % "" + listener(ca.cert("a.test")) + PROXY, backend=s)
    curl = [need("curl"), "-s", "--max-time", "10"]
    out = subprocess.run(curl + ["--http2-prior-knowledge", f"http://127.0.0.1:{w.http}/"], capture_output=True)
    assert out.stdout == b"n=0"
    big = tmp_path / "big"
    big.write_bytes(bytes(5_000_000))
    out = subprocess.run(curl + ["--http2", "--cacert", ca.cert_file, "--resolve", f"a.test:{w.https}:127.0.0.1",
                                 "-T", str(big), "-w", " %{http_version}", f"https://a.test:{w.https}/"], capture_output=True)
    assert out.stdout == b"n=5000000 2"
    out = subprocess.run([need("nghttp"), "-nv", f"http://127.0.0.1:{w.http}/"], capture_output=True, timeout=10 * SLOW)
    assert b":status: 200" in out.stdout
    out = subprocess.run([need("h2load"), "-n", "2000", "-c", "4", "-m", "20", f"http://127.0.0.1:{w.http}/"],
                         capture_output=True, timeout=60)
    assert b"2000 succeeded, 0 failed" in out.stdout
    script = f"""
const c = require('http2').connect('http://127.0.0.1:{w.http}');
let n = 0;
for (let i = 0; i < 50; i++) {{
  const q = c.request({{':path': '/' + i, ':method': 'POST'}});
  let b = ''; q.on('data', d => b += d);
  q.on('end', () => {{ if (b === 'n=100000') n++; if (i >= 49 || n === 50) setTimeout(() => {{ console.log(n); c.close(); }}, 500); }});
  q.end(Buffer.alloc(100000));
}}"""
    out = subprocess.run([need("node"), "-e", script], capture_output=True, timeout=30)
    assert out.stdout.split()[-1] == b"50", out
