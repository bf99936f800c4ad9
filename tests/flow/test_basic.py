"""One request and its response: what passes, what is added, what is taken away."""
import json
import re
import socket
import time

import pytest

from kit import SLOW, raw, until
from kit.raw import answer, fetch, request

PROXY = """
listen 127.0.0.1:@http@;
upstream u { server @backend@; }
host * { route / { proxy u; } }
"""


@pytest.fixture
def proxy(weir):
    def make(backend, **more):
        return weir(PROXY, backend=backend, **more)

    return make


def test_forwards(proxy, server):
    s = server(answer(b"hello", fields={"x-answer": "1", "server": "s"}))
    w = proxy(s)
    r = fetch(w.http, "/p?q=1", "POST", {"x-custom": "v", "user-agent": "t"}, b"body", "a.test:80")
    assert (r.status, r.body, r.get("x-answer"), r.get("server")) == (200, b"hello", "1", "s")
    q = s.last()
    assert (q.line, q.body) == ("POST /p?q=1 HTTP/1.1", b"body")
    assert q.get("host") == "a.test:80"
    assert (q.get("x-custom"), q.get("user-agent")) == ("v", "t")
    assert q.get("x-forwarded-for") == "127.0.0.1"
    assert q.get("x-forwarded-proto") == "http"
    assert q.get("x-forwarded-host") == "a.test:80"
    assert "weir" in q.get("via")
    assert q.get("x-request-id")
    w.wait_metric("weir_requests_total", 1)
    w.wait_metric("weir_upstream_requests_total", 1, upstream="u")


@pytest.mark.parametrize("trusted", [False, True])
def test_forwarded_fields(weir, server, trusted):
    s = server()
    w = weir(PROXY + ("trusted_proxies 127.0.0.0/8;" if trusted else ""), backend=s)
    fetch(w.http, fields={"x-forwarded-for": "10.1.2.3", "x-forwarded-proto": "https",
                          "x-forwarded-host": "other.test", "x-request-id": "given"})
    q = s.last()
    if trusted:
        assert q.get("x-forwarded-for") == "10.1.2.3, 127.0.0.1"
        assert q.get("x-forwarded-proto") == "https"
        assert q.get("x-forwarded-host") == "other.test"
        assert q.get("x-request-id") == "given"
    else:
        assert q.get("x-forwarded-for") == "127.0.0.1"
        assert q.get("x-forwarded-proto") == "http"
        assert q.get("x-forwarded-host") == "a.test"
        assert q.get("x-request-id") != "given"


def test_client_keep_alive(proxy, server, connect):
    s = server()
    w = proxy(s)
    c = connect(w.http)
    for _ in range(3):
        assert c.send(request()).response().status == 200
    assert s.wait(3)[2].conn == 1
    w.wait_metric("weir_upstream_connects_total", 1, upstream="u")


@pytest.mark.parametrize("version,fields,kept", [
    ("1.1", {}, True),
    ("1.1", {"connection": "close"}, False),
    ("1.1", {"connection": "Close, x"}, False),
    ("1.0", {}, False),
    ("1.0", {"connection": "keep-alive"}, True),
])
def test_persistence(proxy, server, connect, version, fields, kept):
    w = proxy(server())
    c = connect(w.http)
    r = c.send(request(fields=fields, version=version)).response()
    assert r.status == 200
    if kept:
        assert "close" not in r.get("connection", "")
        assert c.send(request()).response().status == 200
    else:
        assert c.ended() == "eof"


def test_pool_serves_other_clients(proxy, server):
    s = server()
    w = proxy(s)
    for _ in range(5):
        assert fetch(w.http).status == 200
    assert s.accepted == 1


def test_pipelining(proxy, server, connect):
    s = server(lambda q: answer(q.target.encode()))
    w = proxy(s)
    c = connect(w.http)
    c.send(b"".join(request(target=f"/{i}", body=b"x" * i, method="POST") for i in range(20)))
    for i in range(20):
        assert c.response().body == b"/%d" % i


def test_pipelining_a_byte_at_a_time(proxy, server, connect):
    w = proxy(server(lambda q: answer(q.body)))
    c = connect(w.http)
    for byte in request(method="POST", body=b"one") + request(method="POST", body=b"two"):
        c.send(bytes([byte]))
    assert c.response().body == b"one"
    assert c.response().body == b"two"


CHUNKED = b"5;ext=\"a;b\"\r\nhello\r\n06\r\n world\r\n0\r\nx-trailer: t\r\n\r\n"


def test_chunked_request(proxy, server, connect):
    s = server()
    w = proxy(s)
    c = connect(w.http)
    c.send(request("POST", fields={"transfer-encoding": "chunked", "trailer": "x-trailer"}) + CHUNKED)
    assert c.response().status == 200
    q = s.last()
    assert (q.body, q.trailers) == (b"hello world", [("x-trailer", "t")])
    assert b"ext" not in q.raw_body
    assert c.send(request()).response().status == 200


def test_chunked_response(proxy, server, connect):
    s = server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKED)
    w = proxy(s)
    c = connect(w.http)
    for _ in range(2):
        r = c.send(request(fields={"te": "trailers"})).response()
        assert (r.body, r.trailers) == (b"hello world", [("x-trailer", "t")])
        assert b"ext" not in r.raw_body
    assert s.accepted == 1


def test_chunked_response_to_http_1_0(proxy, server, connect):
    w = proxy(server(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + CHUNKED))
    r = connect(w.http).send(request(version="1.0")).response()
    assert "transfer-encoding" not in r
    assert r.body == b"hello world"


def test_response_until_close(proxy, server, connect):
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end")

    w = proxy(server(script=script))
    c = connect(w.http)
    assert c.send(request()).response().body == b"until the end"


@pytest.mark.parametrize("method,head", [
    ("HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"),
    ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"),
    ("GET", b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n"),
    ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 500\r\n\r\n"),
    ("HEAD", b"HTTP/1.1 204 No Content\r\ncontent-length: 500\r\n\r\n"),
    ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\netag: \"e\"\r\n\r\n"),
])
def test_no_body(proxy, server, connect, method, head):
    s = server(head)
    w = proxy(s)
    c = connect(w.http)
    for _ in range(2):
        r = c.send(request(method)).response(method)
        assert r.status == int(head.split()[1])
        said = b"content-length" in head and r.status != 204  # which has no length
        assert r.get("content-length") == ("500" if said else None)
    assert s.accepted == 1
    assert c.silent(0.05)


def test_expect_continue(proxy, server, connect):
    """Whoever says 100, the client is told before its body has gone, and the server gets it whole."""
    def script(c):
        q = c.head()
        if "expect" in q:
            c.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        c.send(answer(c.read(int(q.get("content-length")))))

    w = proxy(server(script=script))
    c = connect(w.http)
    c.send(request("POST", fields={"expect": "100-continue", "content-length": "4"}))
    assert c.head().status == 100
    c.send(b"body")
    assert c.response().body == b"body"


def test_no_continue_for_a_body_that_is_there(proxy, server, connect):
    w = proxy(server(lambda q: answer(q.body)))
    c = connect(w.http)
    c.send(request("POST", fields={"expect": "100-continue"}, body=b"body"))
    r = c.response()
    assert r.body == b"body"
    assert c.send(request()).response().status == 200


def test_expect_refused_by_the_server(proxy, server, connect):
    def script(c):
        c.head()
        c.send(answer(b"no", "417 Expectation Failed", {"connection": "close"}))

    w = proxy(server(script=script))
    c = connect(w.http)
    c.send(request("POST", fields={"expect": "100-continue", "content-length": "4"}))
    r = c.response()
    assert (r.status, r.body) == (417, b"no")
    assert [i.status for i in r.interim] in ([], [100])


def test_interim_responses(proxy, server, connect):
    w = proxy(server(b"HTTP/1.1 103 Early Hints\r\nlink: </s>; rel=preload\r\n\r\n"
                     b"HTTP/1.1 102 Processing\r\n\r\n" + answer()))
    r = connect(w.http).send(request()).response()
    assert [i.status for i in r.interim] == [103, 102]
    assert r.interim[0].get("link") == "</s>; rel=preload"
    assert r.body == b"ok"


def test_interim_responses_not_to_http_1_0(proxy, server, connect):
    w = proxy(server(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer()))
    r = connect(w.http).send(request(version="1.0")).response()
    assert (r.interim, r.body) == ([], b"ok")


# ----------------------------------------------------------------- upgrade

UPGRADE = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "k",
           "sec-websocket-version": "13"}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


def test_websocket_tunnel(proxy, server, connect):
    def script(c):
        q = c.server.take(c)
        assert (q.get("upgrade"), q.get("connection").lower()) == ("websocket", "upgrade")
        c.send(SWITCH + b"first")
        while True:
            c.send(c.read(4)[::-1])

    w = proxy(server(script=script))
    c = connect(w.http)
    c.send(request(fields=UPGRADE))
    r = c.response()
    assert (r.status, r.get("upgrade"), r.get("connection").lower()) == (101, "websocket", "upgrade")
    assert c.read(5) == b"first"
    for text in (b"abcd", b"\0\xff\r\n"):
        c.send(text)
        assert c.read(4) == text[::-1]


def test_tunnel_half_close(proxy, server, connect):
    def script(c):
        c.server.take(c)
        c.send(SWITCH)
        c.send(b"all:" + c.read_all())

    w = proxy(server(script=script))
    c = connect(w.http)
    c.send(request(fields=UPGRADE)).response()
    c.send(b"data")
    c.half_close()
    assert c.read_all() == b"all:data"
    until(lambda: w.metric("weir_requests") == 0, "the tunnel to end")


def test_upgrade_declined_by_the_server(proxy, server, connect):
    w = proxy(server(answer(b"plain")))
    c = connect(w.http)
    assert c.send(request(fields=UPGRADE)).response().body == b"plain"
    assert c.send(request()).response().body == b"plain"


def test_upgrade_off(weir, server, connect):
    s = server()
    w = weir("listen 127.0.0.1:@http@; upstream u { server @backend@; }"
             "host * { route / { upgrade off; proxy u; } }", backend=s)
    assert connect(w.http).send(request(fields=UPGRADE)).response().status == 403
    assert s.requests == []


def test_upgrade_to_h2c_is_not_passed(proxy, server):
    s = server()
    w = proxy(s)
    assert fetch(w.http, fields={"upgrade": "h2c", "http2-settings": "AAAA",
                                 "connection": "upgrade, http2-settings"}).status == 200
    q = s.last()
    assert "upgrade" not in q and "http2-settings" not in q


# ----------------------------------------------------------------- fields

def test_hop_by_hop_fields_stop_here(proxy, server, connect):
    s = server(answer(fields=[("connection", "x-hop, keep-alive"), ("x-hop", "1"),
                              ("keep-alive", "timeout=5"), ("proxy-connection", "keep-alive"),
                              ("x-end", "2")]))
    w = proxy(s)
    c = connect(w.http)
    r = c.send(request(fields=[("connection", "x-mine , X-Other"), ("x-mine", "1"),
                               ("X-OTHER", "2"), ("keep-alive", "300"), ("te", "trailers, x"),
                               ("proxy-connection", "close"), ("proxy-authorization", "b"),
                               ("x-kept", "3")])).response()
    q = s.last()
    for name in ("x-mine", "x-other", "keep-alive", "proxy-connection"):
        assert name not in q, name
    assert q.get("x-kept") == "3"
    for name in ("x-hop", "keep-alive", "proxy-connection"):
        assert name not in r, name
    assert r.get("x-end") == "2"
    assert c.send(request()).response().status == 200


def test_nothing_that_weir_decides_can_be_nominated_away(proxy, server, connect):
    s = server(answer(fields={"connection": "content-length, server, date", "server": "s"}))
    w = proxy(s)
    c = connect(w.http)
    nominated = "host, content-length, transfer-encoding, x-forwarded-for, via, x-request-id"
    c.send(request("POST", fields={"connection": nominated}, body=b"1234"))
    r = c.response()
    assert (r.get("content-length"), r.body) == ("2", b"ok")
    q = s.last()
    assert (q.get("host"), q.body) == ("a.test", b"1234")
    assert "x-forwarded-for" in q and "x-request-id" in q and "via" in q


@pytest.mark.parametrize("target,host,seen,seen_host", [
    ("http://a.test/x?y", "a.test", "/x?y", "a.test"),
    ("http://b.test:81/x", "a.test", "/x", "b.test:81"),
    ("http://a.test", "a.test", "/", "a.test"),
    ("http://a.test?q", "a.test", "/?q", "a.test"),
    ("/x", "a.test:8080", "/x", "a.test:8080"),
])
def test_targets(proxy, server, target, host, seen, seen_host):
    s = server()
    w = proxy(s)
    assert fetch(w.http, target, host=host).status == 200
    q = s.last()
    assert (q.target, q.get("host")) == (seen, seen_host)


def test_options_star(proxy, server):
    s = server()
    w = proxy(s)
    assert fetch(w.http, "*", "OPTIONS").status == 200
    assert s.last().line == "OPTIONS * HTTP/1.1"


# ----------------------------------------------------------------- ends

@pytest.mark.parametrize("reply", [
    b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
])
def test_a_cut_response_looks_cut(proxy, server, connect, reply):
    def script(c):
        c.server.take(c)
        c.send(reply)

    w = proxy(server(script=script))
    c = connect(w.http)
    c.send(request())
    with pytest.raises((EOFError, ConnectionError)):
        c.response()
    until(lambda: w.metric("weir_requests") == 0, "the exchange to end")


def test_a_closed_kept_connection_is_retried(proxy, server, connect):
    def script(c):
        c.server.take(c)
        c.send(answer())
        if c.number == 1:
            c.server.take(c)
            return
        while True:
            c.server.take(c)
            c.send(answer(b"second"))

    s = server(script=script)
    w = proxy(s)
    c = connect(w.http)
    assert c.send(request()).response().status == 200
    assert c.send(request(target="/again")).response().status == 200
    assert [q.target for q in s.requests] == ["/", "/again", "/again"]
    w.wait_metric("weir_upstream_connects_total", 2, upstream="u", result="ok")


def test_a_post_is_never_sent_twice(proxy, server, connect):
    def script(c):
        c.server.take(c)
        c.send(answer())
        c.server.take(c)

    s = server(script=script)
    w = proxy(s)
    c = connect(w.http)
    assert c.send(request()).response().status == 200
    assert c.send(request("POST", "/once", body=b"b")).response().status == 502
    assert [q.target for q in s.requests] == ["/", "/once"]


def test_the_upstream_request_ends_with_the_client(proxy, server, connect):
    ended = []

    def script(c):
        c.server.take(c)
        ended.append(c.ended())

    s = server(script=script)
    w = proxy(s)
    c = connect(w.http)
    c.send(request())
    s.wait()
    c.reset()
    until(lambda: ended, "the server's connection to end")
    w.wait_metric("weir_requests", 0)


def test_a_half_closed_client_gets_its_answer(proxy, server, connect):
    def reply(q):
        time.sleep(0.1)
        return answer(b"late")

    w = proxy(server(reply))
    c = connect(w.http)
    c.send(request())
    c.half_close()
    assert c.response().body == b"late"
    assert c.ended() == "eof"


def test_early_final_answer(proxy, server, connect):
    def script(c):
        c.server.requests.append(c.head())
        c.send(answer(b"too large", "413 Content Too Large", {"connection": "close"}))
        c.read_all()

    w = proxy(server(script=script))
    c = connect(w.http)
    c.send(request("POST", fields={"content-length": "1000000"}) + b"x" * 1000)
    r = c.response()
    assert (r.status, r.body) == (413, b"too large")


def test_upload_reaches_the_server_before_it_is_complete(proxy, server, connect):
    seen = []

    def script(c):
        q = c.head()
        seen.append(c.read(4))
        seen.append(c.read(int(q.get("content-length")) - 4))
        c.send(answer())

    w = proxy(server(script=script))
    c = connect(w.http)
    c.send(request("POST", fields={"content-length": "8"}) + b"1234")
    until(lambda: seen == [b"1234"], "the first half at the server")
    c.send(b"5678")
    assert c.response().status == 200
    assert seen == [b"1234", b"5678"]


def test_download_reaches_the_client_before_it_is_complete(proxy, server, connect):
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
        c.read(1)

    w = proxy(server(script=script))
    c = connect(w.http)
    c.send(request())
    assert c.head().status == 200
    assert c.read_until(b"a") == b"1\r\na"


@pytest.mark.parametrize("size", [0, 1, 16383, 16384, 65536, 5_000_001])
def test_bodies_of_all_sizes(proxy, server, size):
    body = bytes(i % 251 for i in range(min(size, 100_000))) * (size // 100_000 + 1)
    body = body[:size]
    w = proxy(server(lambda q: answer(q.body)))
    assert fetch(w.http, "/", "POST", body=body).body == body


# ----------------------------------------------------------------- the field

def test_nginx(proxy, nginx, connect):
    s = nginx()
    s.file("f.html", b"<p>file</p>")
    w = proxy(s)
    c = connect(w.http)
    assert c.send(request(target="/hello")).response().body == b"hello from nginx\n"
    assert c.send(request(target="/f.html")).response().body == b"<p>file</p>"
    assert c.send(request("HEAD", "/f.html")).response("HEAD").get("content-length") == "11"
    r = c.send(request(target="/f.html", fields={"range": "bytes=0-2"})).response()
    assert (r.status, r.body) == (206, b"<p>")


def test_node(proxy, node, connect):
    w = proxy(node())
    c = connect(w.http)
    for _ in range(2):
        q = json.loads(c.send(request("PUT", "/n?x=%20", body=b"data")).response().body)
        assert (q["method"], q["url"], q["body"]) == ("PUT", "/n?x=%20", "data")
        assert q["headers"]["x-forwarded-for"] == "127.0.0.1"


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
def test_python(proxy, python, protocol):
    w = proxy(python(protocol))
    for i in range(3):
        assert fetch(w.http, f"/{i}").body == b"python /%d" % i
    assert fetch(w.http, "/", "POST", body=b"posted").body == b"posted"


def test_request_ids_differ(proxy, server):
    s = server()
    w = proxy(s)
    for _ in range(3):
        fetch(w.http)
    ids = [q.get("x-request-id") for q in s.wait(3)]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"[0-9a-f-]{16,}", i) for i in ids)


def test_ipv6_and_unix_listeners(weir, server, connect):
    import socket

    w = weir("listen [::1]:@http@; listen unix:@dir@/http.sock; upstream u { server @backend@; }"
             "host * { route / { proxy u; } }", backend=server())
    assert connect(w.http, host="::1").send(request()).response().status == 200
    s = socket.socket(socket.AF_UNIX)
    s.connect(str(w.dir / "http.sock"))
    assert raw.Stream(s).send(request()).response().status == 200
    s.close()


def test_any_v6_takes_v4_unless_another_listens_there(weir):
    w = weir("""listen [::]:@both@; listen [::]:@six@; listen 0.0.0.0:@six@ { hosts four.test; }
        host four.test { route / { respond 200 "four"; } }
        host * { route / { respond 200 "$client_ip"; } }""")
    assert fetch(w.both).body == b"127.0.0.1"
    assert fetch(w.six, host="four.test").body == b"four"
    assert fetch(w.six).status == 404


def test_an_address_of_somebody_else_is_not_shared(weir):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"listen 127.0.0.1:{other.getsockname()[1]};"
        own = 'listen 127.0.0.1:@http@; host * { route / { respond 200 "ok"; } }'
        w = weir(own + taken, start=False)
        process = w.spawn()
        assert process.wait(10 * SLOW) == 1
        assert "in use" in w.log(), w.log()
        w.process = None
        w.configure(own)
        w.start()
        done = w.reload(own + taken, ok=False)
        assert "in use" in done.stdout + done.stderr
        assert fetch(w.http).body == b"ok"


@pytest.mark.parametrize("head,client", [
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n", b"192.0.2.7 4711"),
    (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\2\x07\xc0\0\2\x01\x12\x67\0\x50", b"192.0.2.7 4711"),
    (b"", None), (b"PROXY TCP4 nonsense\r\n", None),
])
def test_proxy_protocol(weir, connect, head, client):
    w = weir("""listen 127.0.0.1:@http@ proxy_protocol;
        host * { route / { respond 200 "$client_ip $client_port"; } }""")
    c = connect(w.http)
    c.send(head + request())
    if client:
        assert c.response().body == client
    else:  # who the client is was not said: nothing is answered
        assert c.ended() in ("eof", "reset")
