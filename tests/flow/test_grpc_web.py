"""gRPC-Web from browsers to servers of gRPC: binary and text, over HTTP/1.1 and HTTP/2."""
import base64
import struct
import threading
import time

import pytest

from kit import SLOW, rpc, until
from kit.h2 import Client
from kit.h2_peer import ErrorCodes, serve
from kit.raw import answer, fetch, request

grpc = pytest.importorskip("grpc")

BINARY, TEXT = "application/grpc-web+proto", "application/grpc-web-text"
CONF = """
threads 1;
listen 127.0.0.1:@http@ { protocols h2c http/1.1; }
upstream u { protocol h2c; server @a@; eject off; }
upstream none { protocol h2c; server 127.0.0.1:1; retry attempts=1; }
host * {
    grpc_web on;
    route /t.None/ { proxy none; }
    route = /denied { respond 403 "not for you"; }
    route = /fine { respond 200 "fine"; }
    route /off/ { grpc_web off; rewrite /t.T/Unary; proxy u; }
    route / { proxy u; }
}
"""


class Service:
    def __init__(self):
        self.go = threading.Event()
        self.left = None

    def unary(self, message, context):
        context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last", "2"), ("x-last-bin", b"\0\xff")))
        self.left = context.time_remaining()
        return message[::-1]

    def down(self, message, context):
        for i in range(int(message)):
            yield b"%d" % i * (i % 7)

    def slowly(self, message, context):
        yield b"first"
        self.go.wait(10 * SLOW)
        yield b"second"

    def fails(self, message, context):
        context.set_trailing_metadata((("x-why", "because"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not so: 100 %")


@pytest.fixture
def service():
    s = Service()
    s.server = rpc.Server({"/t.T/Unary": s.unary, "/t.T/Down": (s.down, "unary_stream"), "/t.T/Fails": s.fails,
                           "/t.T/Slowly": (s.slowly, "unary_stream")})
    yield s
    s.go.set()
    s.server.close()


def frame(message, flag=0):
    return struct.pack(">BI", flag, len(message)) + message


def pieces(text):
    """Base64 that is padded here and there."""
    out, at = b"", 0
    while at < len(text):
        end = text.find(b"=", at)
        end = len(text) if end < 0 else end
        while end < len(text) and text[end:end + 1] == b"=":
            end += 1
        out += base64.b64decode(text[at:end], validate=True)
        at = end
    return out


def parts(body):
    """Messages, and the trailers of the last frame."""
    messages = []
    while body:
        flag, n = struct.unpack(">BI", body[:5])
        assert len(body) >= 5 + n, "a frame is cut"
        one, body = body[5:5 + n], body[5 + n:]
        if flag & 0x80:
            assert not body, "the trailers come last"
            lines = one.decode().split("\r\n")
            assert lines.pop() == ""
            return messages, dict(line.split(": ", 1) for line in lines)
        messages.append(one)
    raise AssertionError("no trailers")


class Web:
    """One call, over HTTP/1.1 or HTTP/2."""

    def __init__(self, port, version):
        self.port, self.version = port, version

    def call(self, path, message, kind=BINARY, body=None, **fields):
        data = frame(message) if body is None else body
        if "text" in kind and body is None:
            data = base64.b64encode(data)
        fields = {"content-type": kind, "x-grpc-web": "1", **{k.replace("_", "-"): v for k, v in fields.items()}}
        if self.version == 1:
            r = fetch(self.port, path, "POST", fields=fields, body=data)
        else:
            c = Client(self.port)
            r = c.response(c.request("POST", path, fields, data), 20)
            assert r.ended and not r.trailers
            c.close()
        self.r = r
        return r

    def result(self, *args, **more):
        """(messages, trailers)"""
        r = self.call(*args, **more)
        assert r.status == 200, r
        return parts(pieces(r.body) if "text" in r.get("content-type") else r.body)


@pytest.fixture(params=[1, 2], ids=["http1", "http2"])
def web(weir, service, request):
    w = weir(CONF, a=service.server)
    made = Web(w.http, request.param)
    made.w = w
    return made


@pytest.mark.parametrize("kind,back", [
    (BINARY, BINARY), ("application/grpc-web", "application/grpc-web"), (TEXT, TEXT),
    (TEXT + "+proto", TEXT + "+proto"), ("Application/GRPC-Web+json; charset=x", "application/grpc-web+json"),
])
def test_unary(web, service, kind, back):
    messages, trailers = web.result("/t.T/Unary", b"abc", kind)
    assert messages == [b"cba"]
    assert trailers["grpc-status"] == "0" and trailers["x-last"] == "2" and trailers["x-last-bin"] == "AP8"
    assert web.r.get("content-type") == back and web.r.get("x-first") == "1"
    assert web.r.get("grpc-status") is None
    seen = service.server.metadata()
    assert seen.get("x-grpc-web") == "1"


def test_server_streaming(web):
    for kind in (BINARY, TEXT):
        messages, trailers = web.result("/t.T/Down", b"300", kind)
        assert messages == [b"%d" % i * (i % 7) for i in range(300)]
        assert trailers["grpc-status"] == "0"


@pytest.mark.parametrize("kind,accept,back", [
    (BINARY, TEXT, TEXT), (TEXT, BINARY, "application/grpc-web"), (TEXT, "*/*", TEXT),
    (BINARY, "application/json, application/grpc-web-text", TEXT),
])
def test_the_client_may_accept_the_other_form(web, kind, accept, back):
    messages, trailers = web.result("/t.T/Unary", b"abc", kind, accept=accept)
    assert (messages, trailers["grpc-status"]) == ([b"cba"], "0")
    assert web.r.get("content-type").startswith(back)


def test_failures_keep_their_status(web):
    for kind in (BINARY, TEXT):
        messages, trailers = web.result("/t.T/Fails", b"", kind)
        assert messages == [] and trailers["grpc-status"] == "9"
        assert trailers["grpc-message"] == "not so: 100 %25" and trailers["x-why"] == "because"
        assert web.r.get("grpc-status") is None
    assert web.result("/t.T/Unknown", b"")[1]["grpc-status"] == "12"


def test_large_messages(web):
    big = bytes(range(251)) * 12000
    for kind in (BINARY, TEXT):
        messages, trailers = web.result("/t.T/Unary", big, kind)
        assert messages == [big[::-1]] and trailers["grpc-status"] == "0"


def test_text_in_padded_pieces(web):
    data = frame(b"some message")
    body = b"".join(base64.b64encode(data[i:i + 4]) for i in range(0, len(data), 4))
    assert web.result("/t.T/Unary", None, TEXT, body=body)[0] == [b"egassem emos"]


@pytest.mark.parametrize("body", [b"AAAA*AAA", b"AAAAAAFh=", b"AAAAAAF", b"=AAA", b"AAAA AAA"])
def test_text_that_is_none(web, body):
    messages, trailers = web.result("/t.T/Unary", None, TEXT, body=body)
    assert (messages, trailers["grpc-status"]) == ([], "13")
    assert "base64" in trailers["grpc-message"]
    assert web.w.metric("weir_local_replies_total", reason="bad_grpc_web") == 1


def test_own_answers(web):
    for kind in (BINARY, TEXT):
        assert web.result("/t.None/X", b"", kind)[1]["grpc-status"] == "14"
        messages, trailers = web.result("/denied", b"", kind)
        assert (messages, trailers) == ([], {"grpc-status": "7", "grpc-message": "not for you"})
        assert web.r.get("content-type").startswith(kind)
        assert web.call("/fine", b"", kind).body == b"fine"
    assert fetch(web.w.http, "/denied").status == 403


def test_off_is_off(web):
    r = web.call("/off/x", b"abc")
    assert r.status != 200 or not r.get("content-type").startswith("application/grpc-web")


def test_deadline(weir, server):
    s = server(script=serve(lambda p, a: None))
    w = weir(CONF, a=s)
    began = time.monotonic()
    assert Web(w.http, 1).result("/t.T/X", b"", grpc_timeout="200m")[1]["grpc-status"] == "4"
    assert time.monotonic() - began < 3 * SLOW
    assert s.requests[0].get("grpc-timeout") == "200m"


def test_the_server_is_told_of_the_deadline(web, service):
    web.result("/t.T/Unary", b"", grpc_timeout="4S")
    assert 0 < service.left <= 4


@pytest.mark.parametrize("kind", [BINARY, TEXT])
def test_messages_do_not_wait_for_each_other(weir, service, connect, kind):
    w = weir(CONF, a=service.server)
    body = frame(b"x")
    body = base64.b64encode(body) if kind == TEXT else body
    c = connect(w.http).send(request("POST", "/t.T/Slowly", {"content-type": kind}, body))
    assert c.head().status == 200
    want = base64.b64encode(frame(b"first")) if kind == TEXT else frame(b"first")
    got = b""
    while len(got) < len(want):
        size = int(c.read_until(b"\r\n"), 16)
        got += c.read(size)
        c.read(2)
    assert got == want
    service.go.set()


@pytest.mark.parametrize("kind", [BINARY, TEXT])
def test_what_reaches_the_server(weir, server, connect, kind):
    """A request in single bytes: te, the type, no length of the text; its bytes decoded."""
    def reply(p, a):
        p.head(a, 200, [("content-type", "application/grpc")])
        p.data(a, frame(bytes(a.body[5:])))
        p.h.send_headers(a.id, [("grpc-status", "0")], end_stream=True)
        p.flush()

    s = server(script=serve(reply))
    w = weir(CONF, a=s)
    body = frame(b"one after the other")
    body = base64.b64encode(body) if kind == TEXT else body
    c = connect(w.http)
    c.send(b"POST /t.T/X HTTP/1.1\r\nhost: a.test\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % kind.encode())
    for i in range(len(body)):
        c.send(b"1\r\n%s\r\n" % body[i:i + 1])
    c.send(b"0\r\n\r\n")
    r = c.response()
    assert parts(pieces(r.body) if kind == TEXT else r.body) == ([b"one after the other"], {"grpc-status": "0"})
    a = s.requests[0]
    assert bytes(a.body) == frame(b"one after the other")
    assert a.get("te") == "trailers" and a.get("content-length") is None
    assert a.get("content-type") == ("application/grpc+proto" if kind == BINARY else "application/grpc")
    r = c.send(request("POST", "/t.T/X", {"content-type": kind}, body)).response()
    assert r.status == 200, "the connection goes on"
    assert s.requests[1].get("content-length") == (str(len(body)) if kind == BINARY else None)


def test_a_server_that_dies_in_the_middle(weir, server, connect):
    def reply(p, a):
        p.head(a, 200, [("content-type", "application/grpc")])
        p.data(a, frame(b"one") + b"\0\0")
        time.sleep(0.05)
        p.reset(a, ErrorCodes.INTERNAL_ERROR)

    w = weir(CONF, a=server(script=serve(reply)))
    c = connect(w.http).send(request("POST", "/t.T/X", {"content-type": TEXT}, base64.b64encode(frame(b""))))
    assert c.head().status == 200
    rest = c.read_all()
    assert base64.b64encode(frame(b"one")) in rest and b"0\r\n\r\n" not in rest, "it looks cut"


@pytest.mark.parametrize("body,cut", [(b"\0\0\0\0\5ab", True), (b"\x80\0\0\0\0", False), (b"\7\0\0\0\0", False)])
def test_messages_that_are_none(weir, server, body, cut):
    """An answer that is no sequence of messages is never given an end."""
    def reply(p, a):
        p.head(a, 200, [("content-type", "application/grpc")])
        p.data(a, body)
        if cut:
            time.sleep(0.05)
        p.h.send_headers(a.id, [("grpc-status", "0")], end_stream=True)
        p.flush()

    w = weir(CONF, a=server(script=serve(reply)))
    c = Client(w.http)
    r = c.fetch("POST", "/t.T/X", {"content-type": BINARY}, frame(b""))
    assert r.reset is not None or parts(r.body)[1]["grpc-status"] == "14"
    c.close()


def test_an_answer_without_a_status(weir, server):
    def reply(p, a):
        p.head(a, 200, [("content-type", "application/grpc")])
        p.data(a, frame(b"one"), end=True)

    w = weir(CONF, a=server(script=serve(reply)))
    messages, trailers = Web(w.http, 1).result("/t.T/X", b"")
    assert (messages, trailers["grpc-status"]) == ([b"one"], "2")


def test_an_answer_that_is_not_of_grpc_stays_as_it_is(weir, server):
    w = weir(CONF, a=server(script=serve(lambda p, a: p.answer(a, b"sorry", 503))))
    r = Web(w.http, 1).call("/t.T/X", b"", TEXT)
    assert (r.status, r.body) == (503, b"sorry")


def test_cors_fields_pass(weir, server):
    seen = [("access-control-allow-origin", "https://app"), ("access-control-expose-headers", "grpc-status,grpc-message")]

    def reply(p, a):
        p.head(a, 200, [("content-type", "application/grpc"), ("grpc-status", "5"), *seen], end=True)

    w = weir(CONF, a=server(script=serve(reply)))
    web = Web(w.http, 1)
    assert web.result("/t.T/X", b"", origin="https://app")[1] == {"grpc-status": "5"}
    assert all(web.r.get(n) == v for n, v in seen)


def test_http1_servers_get_it_as_it_is(weir, server):
    s = server(answer(b"as it is"))
    w = weir(CONF.replace("upstream u { protocol h2c;", "upstream u {"), a=s)
    assert Web(w.http, 1).call("/t.T/X", b"abc", TEXT).body == b"as it is"
    assert s.requests[0].get("content-type") == TEXT and s.requests[0].body == base64.b64encode(frame(b"abc"))


def test_a_slow_reader_stops_the_server(weir, server, connect):
    """Credit: a client that reads nothing holds a pipe or two, not all that the server has."""
    sent = [0]

    def reply(p, a):
        p.head(a, 200, [("content-type", "application/grpc")])
        for _ in range(200):
            p.data(a, frame(b"x" * 100_000))
            sent[0] += 1
        p.h.send_headers(a.id, [("grpc-status", "0")], end_stream=True)
        p.flush()

    w = weir(CONF, a=server(script=serve(reply)))
    c = connect(w.http, rcvbuf=65536)
    c.send(request("POST", "/t.T/X", {"content-type": TEXT}, base64.b64encode(frame(b""))))
    until(lambda: sent[0] > 0, "the server to begin")
    last, still = -1, time.monotonic()
    while time.monotonic() - still < 0.5 * SLOW:
        if sent[0] != last:
            last, still = sent[0], time.monotonic()
        time.sleep(0.02)
    assert sent[0] < 150, "it waits"
    got, last = 0, b""
    while not last.endswith(b"0\r\n\r\n"):
        last = c.sock.recv(65536)
        assert last, "it is not cut"
        got += len(last)
    assert got > 200 * 100_000 * 4 // 3


def test_retries_by_status_work_behind_it(weir):
    calls = []

    def unary(message, context):
        calls.append(message)
        if len(calls) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        return b"well"

    s = rpc.Server({"/t.T/Unary": unary})
    try:
        w = weir(CONF.replace("eject off;", "eject off; retry on=grpc_unavailable;"), a=s)
        assert Web(w.http, 1).result("/t.T/Unary", b"again", TEXT) == ([b"well"], {"grpc-status": "0"})
        assert calls == [b"again"] * 2
    finally:
        s.close()
