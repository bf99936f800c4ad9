"""Requests that functions make to upstreams: through the real binary, to servers that answer, hang, cut
and cheat, from requests and from background work."""
import re
import shutil
import tempfile
import threading
import time
from pathlib import Path

import pytest
from h2.exceptions import StreamClosedError

from kit import SLOW, proxy_header, raw, until
from kit import h2 as h2_client
from kit.h2_peer import ErrorCodes, serve
from kit.raw import answer, fetch
from test_functions import FROZEN, build

E_NOMEM, E_INVAL, E_DENIED, E_FULL, E_UNAVAIL, E_TIMEOUT = -1, -2, -4, -5, -7, -8


@pytest.fixture(scope="session")
def modules():
    """The modules of these scenarios, built once, where nobody else may write."""
    folder = Path(tempfile.mkdtemp(prefix="sub", dir=Path.home()))
    folder.chmod(0o755)
    for name in ("fanout", "work_http"):
        build(FROZEN / f"{name}.c", folder / f"{name}.so")
    yield folder
    shutil.rmtree(folder)


def conf(modules, ua="", ub="", top="threads 1;", use="", action="respond 200 ok;"):
    return (f"{top} module fanout {modules}/fanout.so; upstream a {{ server @a@; {ua} }} "
            f"upstream b {{ server @b@; {ub} }} listen 127.0.0.1:@http@; host * {{ route / {{ "
            f"function fanout name=f a=a b=b {use}; {action} }} }}")


@pytest.fixture
def fan(weir, server, modules):
    """A weir whose function asks the servers a and b; each is what raw.Server takes, or its script."""
    def make(a=None, b=None, **more):
        made = [s if isinstance(s, raw.Server) else
                server(script=s) if callable(s) and getattr(s, "script", False) else
                server(s if s is not None else answer(b"7", fields=[("X-Back", "yes")])) for s in (a, b)]
        w = weir(conf(modules, **more), a=made[0], b=made[1])
        w.servers = made
        return w
    return make


def script(f):
    f.script = True
    return f


def told(text):
    """What the function says of an answer."""
    text = text if isinstance(text, str) else text.body.decode()
    m = re.match(r"status=(\d+) error=(-?\d+) fields=(\d+) back=(\S*) n=(\d+) body=(.*)", text, re.S)
    assert m, text
    return {"status": int(m[1]), "error": int(m[2]), "fields": int(m[3]), "back": m[4], "n": int(m[5]), "body": m[6]}


def one(w, **query):
    query.setdefault("path", "/x")
    q = "&".join(f"{k}={v}" for k, v in query.items())
    return told(fetch(w.http, f"/one?{q}"))


def idle(w):
    """Nothing is in flight any more."""
    for u in ("a", "b"):
        w.wait_metric("weir_server_requests", 0, upstream=u)
        w.wait_metric("weir_upstream_queued", 0, upstream=u)


# ---------------------------------------------------------------- the plain way


def test_an_answer(fan):
    w = fan()
    got = one(w, path="/p%3Fq%3D1", field="X-Ask:v")
    assert got == {"status": 200, "error": 0, "fields": 2, "back": "yes", "n": 1, "body": "7"}
    q = w.servers[0].last()
    assert (q.method, q.target, q.get("host"), q.get("x-ask")) == ("GET", "/p?q=1", "a", "v")
    assert re.fullmatch(r"[0-9a-f]{32}", q.get("x-request-id"))
    assert "connection" not in q and "content-length" not in q
    assert w.metric("weir_upstream_requests_total", upstream="a", result="2xx") == 1
    for _ in range(3):
        one(w)
    assert w.servers[0].accepted == 1, "connections are kept"
    idle(w)


def test_method_body_and_host(fan):
    w = fan()
    assert one(w, method="POST", body="abc", field="Host:other:81")["status"] == 200
    q = w.servers[0].last()
    assert (q.method, q.body, q.get("content-length"), q.get("host")) == ("POST", b"abc", "3", "other:81")
    one(w, method="POST")
    assert w.servers[0].last().get("content-length") == "0"
    one(w, method="FROB", body="x")
    assert w.servers[0].last().method == "FROB"


@pytest.mark.parametrize("query, error", [
    ({"path": ""}, E_INVAL), ({"path": "x"}, E_INVAL), ({"path": "/a%20b"}, E_INVAL),
    ({"path": "/%2500"}, E_INVAL), ({"path": "/a%23b"}, E_INVAL),
    ({"method": "G%20T"}, E_INVAL), ({"method": "CONNECT"}, E_INVAL),
    ({"field": "A%20B:x"}, E_INVAL), ({"field": "Host:a/b"}, E_INVAL),
    ({"field": "Content-Length:3"}, E_DENIED), ({"field": "Transfer-Encoding:chunked"}, E_DENIED),
    ({"field": "Connection:close"}, E_DENIED), ({"field": "Upgrade:websocket"}, E_DENIED),
    ({"field": "TE:trailers"}, E_DENIED), ({"field": "Expect:100-continue"}, E_DENIED),
])
def test_what_cannot_be_asked(fan, query, error):
    w = fan()
    got = one(w, **query)
    assert (got["status"], got["error"]) == (0, error)
    assert got["body"], "in words"
    assert w.servers[0].requests == []
    assert one(w)["status"] == 200


@pytest.mark.parametrize("reply, wants", [
    (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nX-Back: c\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
     {"status": 200, "n": 5, "body": "abcde", "back": "c"}),
    (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer(b"after"), {"status": 200, "body": "after"}),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"after"), {"status": 200, "body": "after"}),
    (b"HTTP/1.1 204 No Content\r\nx-back: n\r\n\r\n", {"status": 204, "n": 0, "back": "n"}),
    (b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n", {"status": 302, "n": 0}),
    (answer(b"no", "404 Not Found"), {"status": 404, "body": "no"}),
    (answer(b"no", "500 Internal Server Error"), {"status": 500, "body": "no"}),
    (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", {"status": 200, "body": "until the end"}),
])
def test_answers_of_every_kind(fan, reply, wants):
    @script
    def a(c):
        while True:
            c.server.take(c)
            c.send(reply)
            if b"HTTP/1.0" in reply:
                return

    w = fan(a)
    got = one(w)
    assert {k: got[k] for k in wants} == wants and got["error"] == 0
    idle(w)


def test_head(fan):
    w = fan(answer(b"x" * 100000))
    got = one(w, method="HEAD")
    assert (got["status"], got["n"]) == (200, 0)


# ---------------------------------------------------------------- failing


def test_nobody_listens(fan, server):
    down = server()
    down.stop_listening()
    w = fan(down)
    got = one(w)
    assert (got["status"], got["error"]) == (0, E_UNAVAIL)
    idle(w)


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200 O", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345",
                                 b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab",
                                 b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n1",
                                 b"HTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_an_answer_that_is_cut(fan, cut, how):
    @script
    def a(c):
        c.server.take(c)
        c.send(cut)
        c.reset() if how == "reset" else c.close()

    w = fan(a)
    got = one(w, method="POST")
    assert (got["status"], got["error"]) == (0, E_UNAVAIL)
    idle(w)


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345"])
def test_a_server_that_hangs(fan, before):
    ended = threading.Event()

    @script
    def a(c):
        c.server.take(c)
        c.send(before)
        c.read_all()
        ended.set()

    w = fan(a)
    t = time.monotonic()
    got = one(w, timeout=150)
    assert (got["status"], got["error"]) == (0, E_TIMEOUT)
    assert 0.1 < time.monotonic() - t < 3 * SLOW
    assert ended.wait(5 * SLOW), "the exchange is aborted, at once"
    assert w.metric("weir_upstream_requests_total", upstream="a", result="timeout") == 1
    assert w.metric("weir_function_requests_total", function="f", result="failed") == 1
    idle(w)


def test_the_upstreams_own_timeouts(fan):
    @script
    def a(c):
        c.server.take(c)
        c.read_all()

    w = fan(a, ua="timeout response=100ms;")
    assert one(w)["error"] == E_TIMEOUT


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
def test_a_body_that_is_too_large(fan, framing):
    @script
    def a(c):
        c.server.take(c)
        if framing == "length":
            c.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        elif framing == "chunked":
            c.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        else:
            c.send(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            c.send(b"1000\r\n" + b"x" * 4096 + b"\r\n" if framing == "chunked" else b"x" * 4096)

    w = fan(a)
    for _ in range(3):
        got = one(w)
        assert (got["status"], got["error"]) == (0, E_FULL)
    assert one(w, max=5000000)["error"] in (E_FULL, E_NOMEM)
    idle(w)


def test_max_body(fan):
    w = fan(answer(b"x" * 100000))
    assert one(w)["error"] == E_FULL
    assert one(w, max=99999)["error"] == E_FULL
    assert one(w, max=100000)["n"] == 100000
    assert one(w, max=400000)["n"] == 100000


def test_memory_of_the_function_is_a_bound(fan):
    w = fan(answer(b"x" * 60000), use="memory=64k")
    assert one(w)["n"] == 60000 or one(w)["error"] == E_NOMEM
    w2 = fan(answer(b"x" * 100000), use="memory=64k")
    assert one(w2, max=1000000)["error"] == E_NOMEM
    r = fetch(w2.http, "/many?n=64")
    m = re.match(rb"sum=0 good=0 bad=(\d+)", r.body)
    assert m and int(m[1]) == 64, r
    idle(w2)


def test_a_request_that_fails_counts_towards_ejection(fan):
    @script
    def a(c):
        c.server.take(c)
        c.reset()

    w = fan(a, ua="eject failures=3 for=60s; retry off;")
    for _ in range(3):
        assert one(w)["error"] == E_UNAVAIL
    w.wait_metric("weir_server_ejections_total", 1, upstream="a")
    assert one(w)["error"] == E_UNAVAIL and len(w.servers[0].requests) in (3, 4)


def test_a_safe_request_is_sent_again(fan):
    cut = []

    @script
    def a(c):
        while True:
            c.server.take(c)
            if not cut:
                cut.append(1)
                c.reset()
                return
            c.send(answer(b"second"))

    w = fan(a)
    assert one(w, method="PUT", body="again")["body"] == "second"
    assert [q.body for q in w.servers[0].requests] == [b"again", b"again"]


# ---------------------------------------------------------------- several at once


def test_three_at_once(fan):
    barrier = threading.Barrier(3, timeout=5 * SLOW)

    def reply(q):
        barrier.wait()
        return answer(q.target[1:].encode())

    w = fan(reply, reply)
    assert fetch(w.http, "/three").body == b"sum=6 good=3 bad=0"
    idle(w)


def test_one_of_three_hangs(fan):
    @script
    def b(c):
        c.server.take(c)
        c.read_all()

    w = fan(lambda q: answer(q.target[1:].encode()), b, use="within=200ms")
    assert fetch(w.http, "/three").body == b"sum=4 good=2 bad=1"
    idle(w)


def test_the_first_decides(fan):
    ended = threading.Event()

    @script
    def b(c):
        c.server.take(c)
        c.read_all()
        ended.set()

    w = fan(None, b)
    assert told(fetch(w.http, "/first"))["body"] == "7"
    assert ended.wait(5 * SLOW), "what is outstanding is dropped with the verdict"
    assert w.metric("weir_upstream_requests_total", upstream="b", result="aborted") == 1
    for result in ("answered", "dropped"):
        assert w.metric("weir_function_requests_total", function="f", result=result) == 1
    idle(w)


def test_one_after_the_other(fan):
    w = fan(answer(b"first"), answer(b"second"))
    assert told(fetch(w.http, "/twice"))["body"] == "second"
    assert w.servers[1].last().target == "/then"


def test_64_at_once(fan):
    w = fan(lambda q: answer(q.target[1:].encode()))
    assert fetch(w.http, "/many?n=64").body == f"sum={64 * 65 // 2} good=64 bad=0".encode()
    idle(w)


def test_64_clients_at_once(fan, connect):
    w = fan(lambda q: answer(q.target[1:].encode()), lambda q: answer(q.target[1:].encode()))
    for _ in range(3):
        clients = [connect(w.http).send(raw.request(target="/three")) for _ in range(64)]
        assert {c.response().body for c in clients} == {b"sum=6 good=3 bad=0"}
    idle(w)


def test_they_wait_for_a_place(weir, server, modules):
    most, now, lock = [0], [0], threading.Lock()

    def reply(q):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return answer(b"1")

    a = server(reply)
    w = weir(conf(modules).replace("server @a@;", "server @a@ max_connections=2;"), a=a, b=a)
    assert fetch(w.http, "/many?n=20").body == b"sum=20 good=20 bad=0"
    assert most[0] == 2
    idle(w)


def test_a_queue_that_is_too_slow(weir, server, modules):
    @script
    def hang(c):
        c.server.take(c)
        c.read_all()

    a = server(script=hang)
    w = weir(conf(modules).replace("server @a@;", "server @a@ max_connections=1; timeout queue=100ms;"), a=a, b=a)
    assert fetch(w.http, "/many?n=3").body == b"sum=0 good=0 bad=3"
    assert len(a.requests) == 1
    idle(w)


# ---------------------------------------------------------------- the client, the response, reloads


def test_a_client_that_leaves(fan, connect):
    ended = threading.Semaphore(0)

    @script
    def hang(c):
        c.server.take(c)
        c.read_all()
        ended.release()

    w = fan(hang, hang)
    c = connect(w.http).send(raw.request(target="/first"))
    w.servers[0].wait()
    w.servers[1].wait()
    assert [w.metric("weir_server_requests", upstream=u) for u in ("a", "b")] == [1, 1]
    c.reset()
    for _ in range(2):
        assert ended.acquire(timeout=5 * SLOW), "the upstream exchanges are aborted with the client"
    idle(w)
    assert fetch(w.http, "/").body == b"ok"


def test_in_the_response(fan, server):
    w = fan(answer(b"sub", fields=[("X-Back", "b")]), answer(b"main"), action="proxy b;")
    r = fetch(w.http, "/response?path=/in")
    assert r.body == b"main"
    assert told(r.get("x-told"))["body"] == "sub"


def test_in_the_body_of_a_request(fan):
    """One that is looked at elsewhere before it goes on."""
    w = fan(lambda q: answer(b"", "200 OK" if q.body != b"bad" else "403 Forbidden"), answer(b"main"), action="proxy b;")
    assert fetch(w.http, "/scan", "POST", body=b"good" * 5000).body == b"main"
    assert (w.servers[0].last().body, w.servers[1].last().body) == (b"good" * 5000, b"good" * 5000)
    assert fetch(w.http, "/scan", "POST", body=b"bad").status == 422
    assert len(w.servers[1].requests) == 1
    idle(w)


def test_in_the_body_of_a_response(fan):
    text = b"abc" * 50000
    w = fan(lambda q: answer(q.body.upper()), answer(text), action="proxy b;")
    for _ in range(3):
        assert fetch(w.http, "/translate").body == text.upper()
    assert all(len(q.body) <= 16384 for q in w.servers[0].requests)
    idle(w)


def test_a_client_that_leaves_in_the_body(fan, connect):
    ended = threading.Event()

    @script
    def hang(c):
        c.server.take(c)
        c.read_all()
        ended.set()

    w = fan(hang, answer(b"main" * 100000), action="proxy b;")
    c = connect(w.http).send(raw.request(target="/translate"))
    w.servers[0].wait()
    c.reset()
    assert ended.wait(5 * SLOW)
    idle(w)


def test_a_reload_while_under_way(fan, modules, connect):
    release = threading.Event()

    def slow(q):
        release.wait(10 * SLOW)
        return answer(b"old")

    w = fan(slow)
    old = connect(w.http).send(raw.request(target="/one?path=/x"))
    w.servers[0].wait()
    w.reload(w.expand(conf(modules, action="respond 200 new;")).replace("function fanout name=f a=a b=b ;", ""))
    assert fetch(w.http, "/").body == b"new"
    assert len(w.status()["generations"]) == 2, "the request holds its generation"
    release.set()
    assert told(old.response())["body"] == "old"
    until(lambda: len(w.status()["generations"]) == 1, "the old generation to end")


# ---------------------------------------------------------------- HTTP/2


def h2(reply=None, **more):
    f = serve(reply, **more)

    def run(c):
        return f(c)

    return script(run)


def test_h2(fan):
    w = fan(h2(lambda p, a: p.answer(a, a.path.encode() + b" " + bytes(a.body), fields=[("x-back", "two")])),
            ua="protocol h2c;")
    got = one(w, method="POST", body="abc", path="/p", field="X-Ask:v")
    assert (got["status"], got["body"], got["back"]) == (200, "/p abc", "two")
    q = w.servers[0].requests[-1]
    assert (q.get(":authority"), q.get("x-ask")) == ("a", "v")
    assert fetch(w.http, "/many?n=64").body.startswith(b"sum=0 good=64")
    assert w.servers[0].accepted == 1, "all on one connection"
    idle(w)


def test_h2_large_and_too_large(fan):
    def reply(p, a):
        try:
            p.answer(a, b"x" * 300000)
        except StreamClosedError:  # as soon as it is too much
            pass

    w = fan(h2(reply), ua="protocol h2c;")
    assert one(w)["error"] == E_FULL
    assert one(w, max=300000)["n"] == 300000
    assert one(w, max=299999)["error"] == E_FULL
    idle(w)


@pytest.mark.parametrize("code", [ErrorCodes.CANCEL, ErrorCodes.INTERNAL_ERROR])
@pytest.mark.parametrize("head", [False, True])
def test_h2_resets(fan, head, code):
    def reply(p, a):
        if head:
            p.head(a, 200)
            p.data(a, b"abc")
        p.reset(a, code)

    w = fan(h2(reply), ua="protocol h2c; retry off;")
    assert one(w)["error"] == E_UNAVAIL
    idle(w)


def test_h2_is_reset_when_nobody_waits(fan):
    asked = []

    def reply(p, a):
        asked.append(a)

    w = fan(h2(reply), ua="protocol h2c;")
    assert one(w, timeout=150)["error"] == E_TIMEOUT
    until(lambda: asked[0].reset is not None, "the stream to be reset")
    idle(w)


# ---------------------------------------------------------------- background work


def work_conf(modules, upstream="", top="threads 1;", use=""):
    return (f"{top} module work_http {modules}/work_http.so; upstream u {{ server @s@; {upstream} }} "
            f"listen 127.0.0.1:@http@; host * {{ route / {{ function work_http name=w upstream=u {use}; }} }}")


def test_a_poller(weir, server, modules):
    s = server(answer(b"news"))
    w = weir(work_conf(modules), s=s)
    until(lambda: re.match(rb"good=([5-9]|\d\d+) bad=0 error=0 last=news", fetch(w.http).body), "five good polls")
    q = s.last()
    assert (q.target, q.get("host"), "x-request-id" in q) == ("/poll", "u", False)
    assert s.accepted == 1
    w.wait_metric("weir_work_http_refused_total", 1, function="w")
    w.wait_log("http\\(\\) was called on the control thread")


def test_a_poller_of_each_loop(weir, server, modules):
    s = server(answer(b"news"))
    w = weir(work_conf(modules, top="threads 3;"), s=s)
    until(lambda: s.accepted == 3, "each loop to have a connection of its own")
    until(lambda: w.metric("weir_work_http_polls_total", function="w") > 10, "polls")


def test_a_poller_whose_server_comes_late(weir, server, modules):
    s = server(answer(b"news"))
    port = s.port
    s.stop_listening()
    w = weir(work_conf(modules, upstream="retry off; eject off;"), s=s)
    until(lambda: re.match(rb"good=0 bad=[3-9]\d* error=-7", fetch(w.http).body), "some bad polls")
    s.start()
    assert s.port == port
    until(lambda: b"last=news" in fetch(w.http).body, "a good poll")


def test_a_poller_over_reloads(weir, server, modules):
    """One that is waiting finishes on its generation; the next is the new one's."""
    hold = threading.Event()

    def reply(q):
        hold.wait(10 * SLOW)
        return answer(b"news")

    s = server(reply)
    w = weir(work_conf(modules), s=s)
    s.wait()
    w.reload()
    until(lambda: len(s.requests) == 2, "the new generation's poll")
    assert len(w.status()["generations"]) == 2
    hold.set()
    until(lambda: len(w.status()["generations"]) == 1, "the old generation to end")
    for _ in range(5):
        w.reload()
    until(lambda: len(w.status()["generations"]) == 1, "all old generations to end")
    until(lambda: b"last=news" in fetch(w.http).body, "a good poll")


def test_the_end_while_under_way(weir, server, modules):
    @script
    def hang(c):
        c.server.take(c)
        c.read_all()

    s = server(script=hang)
    w = weir(work_conf(modules), s=s)
    s.wait()
    w.stop()


# ---------------------------------------------------------------- other ways to servers and clients


def test_a_server_of_tls(weir, server, modules, ca):
    a = server(answer(b"safe"), tls=ca.server(ca.cert("inside.test")))
    w = weir(conf(modules, ua=f"tls ca={ca.cert_file} name=inside.test;"), a=a, b=a)
    assert one(w)["body"] == "safe"
    w2 = weir(conf(modules, ua=f"tls ca={ca.cert_file} name=other.test; retry off;"), a=a, b=a)
    assert one(w2)["error"] == E_UNAVAIL


@pytest.mark.parametrize("version", [1, 2])
def test_a_server_of_proxy_headers(fan, version):
    heads = []

    @script
    def a(c):
        heads.append(proxy_header.Header(c))
        while True:
            c.server.take(c)
            c.send(answer(b"told"))

    w = fan(a, ua=f"proxy_protocol v{version};")
    for _ in range(2):
        assert one(w)["body"] == "told"
    assert len(heads) == 1
    if version == 1:
        assert heads[0].words == ["PROXY", "UNKNOWN"]
    else:
        assert heads[0].raw[12] == 0x20, "LOCAL"


def test_a_key_of_the_client(weir, server, modules):
    servers = [server(answer(str(n).encode())) for n in range(4)]
    lines = " ".join(f"server {s.address};" for s in servers)
    w = weir(conf(modules, ua=lines + " balance hash $client_ip;").replace("server @a@;", ""), b=servers[0])
    assert len({one(w)["body"] for _ in range(8)}) == 1
    w2 = weir(conf(modules, ua=lines + " balance hash $path;").replace("server @a@;", ""), b=servers[0])
    assert len({one(w2, path=f"/{n}")["body"] for n in range(32)}) == 4, "the path that is asked for"
    assert len({one(w2, path="/same")["body"] for n in range(8)}) == 1


def test_a_stream_that_is_reset(fan):
    ended = threading.Event()

    @script
    def hang(c):
        c.server.take(c)
        c.read_all()
        ended.set()

    w = fan(hang)
    w.reload(w.conf.read_text().replace(f"listen 127.0.0.1:{w.http};",
                                        f"listen 127.0.0.1:{w.http} {{ protocols h2c http/1.1; }}"))
    c = h2_client.Client(w.http)
    stream = c.request(path="/one?path=/x")
    w.servers[0].wait()
    c.h2.reset_stream(stream)
    c.flush()
    assert ended.wait(5 * SLOW), "the upstream exchange is aborted with the stream"
    idle(w)
    c.close()


def test_the_functions_own_time_is_up(fan):
    ended = threading.Event()

    @script
    def hang(c):
        c.server.take(c)
        c.read_all()
        ended.set()

    w = fan(hang, use="timeout=150ms")
    r = fetch(w.http, "/one?path=/x")
    assert r.status == 503
    assert ended.wait(5 * SLOW)
    assert w.metric("weir_function_calls_total", function="f", result="timeout") == 1
    idle(w)


def test_memory_does_not_grow(fan):
    """Servers that never stop sending, on and on."""
    @script
    def a(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            c.send(b"4000\r\n" + b"x" * 16384 + b"\r\n")

    w = fan(a, ua="keepalive 1;")

    def rss():
        text = Path(f"/proc/{w.worker()}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1])

    for _ in range(5):
        assert fetch(w.http, "/many?n=16").body == b"sum=0 good=0 bad=16"
    before = rss()
    for _ in range(40):
        assert fetch(w.http, "/many?n=16").body == b"sum=0 good=0 bad=16"
    assert rss() < before + 8000
    idle(w)


def test_reloads_under_load(fan, connect, modules):
    """Every request is answered by its own generation, and all old ones end."""
    w = fan(lambda q: answer(q.target[1:].encode()), lambda q: answer(q.target[1:].encode()), top="threads 2;")
    wrong, stop = [], threading.Event()

    def client():
        while not stop.is_set():
            r = fetch(w.http, "/three")
            if r.body != b"sum=6 good=3 bad=0":
                wrong.append(r)

    threads = [threading.Thread(target=client) for _ in range(8)]
    for t in threads:
        t.start()
    for _ in range(10):
        w.reload()
    stop.set()
    for t in threads:
        t.join()
    assert not wrong
    until(lambda: len(w.status()["generations"]) == 1, "all old generations to end")
    idle(w)
