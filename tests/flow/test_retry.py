"""When a request is sent to a server again, and when it is not; and clients that come back to theirs."""
import collections
import threading

import pytest

from kit import until
from kit.raw import answer, fetch, request


def conf(upstream):
    return f"listen 127.0.0.1:@http@; upstream u {{ {upstream} }} host * {{ route / {{ proxy u; }} }}"


def falls_over(c):
    """Reads a request and closes the connection without a word."""
    c.server.take(c)


def sent(*servers):
    return sum(len(s.requests) for s in servers)


@pytest.mark.parametrize("method,times", [
    ("GET", 3), ("HEAD", 3), ("PUT", 3), ("DELETE", 3), ("POST", 1), ("PATCH", 1), ("BREW", 1),
])
def test_a_reset_is_tried_again_where_the_method_bears_it(weir, server, method, times):
    a, b = server(script=falls_over), server(script=falls_over)
    w = weir(conf("server @a@; server @b@; eject off; retry attempts=3;"), a=a, b=b)
    assert fetch(w.http, "/", method).status == 502
    assert sent(a, b) == times
    if times == 3:
        assert a.requests and b.requests


def test_non_idempotent_on(weir, server):
    a, b = server(script=falls_over), server(answer(b"b"))
    w = weir(conf("server @a@ weight=1000; server @b@; eject off; retry attempts=2 non_idempotent=on;"), a=a, b=b)
    assert fetch(w.http, "/", "POST").body == b"b"
    assert sent(a) == 1


@pytest.mark.parametrize("buffer,status", [("8k", 200), ("2", 502)])
def test_a_buffered_body_is_sent_again_whole(weir, server, buffer, status):
    a, b = server(script=falls_over), server(lambda q: answer(q.body[::-1]))
    w = weir(conf(f"server @a@ weight=1000; server @b@; eject off; buffer request={buffer};"), a=a, b=b)
    r = fetch(w.http, "/", "PUT", body=b"whole body")
    assert r.status == status
    assert sent(a) == 1
    if status == 200:
        assert r.body == b"ydob elohw"


def test_retry_off(weir, server):
    a, b = server(script=falls_over), server(script=falls_over)
    w = weir(conf("server @a@; server @b@; eject off; retry off;"), a=a, b=b)
    assert fetch(w.http).status == 502
    assert sent(a, b) == 1


def test_a_slow_server_is_left_for_another(weir, server):
    def hangs(c):
        c.server.take(c)
        c.read_all()

    a, b = server(script=hangs), server(answer(b"b"))
    w = weir(conf("server @a@ weight=1000; server @b@; eject off; timeout response=100ms; retry on=timeout;"), a=a, b=b)
    assert fetch(w.http).body == b"b"
    w.wait_metric("weir_upstream_requests_total", 1, upstream="u", server=str(a), result="timeout")


def test_a_budget_keeps_retries_from_making_it_worse(weir, server):
    a, b = server(script=falls_over), server(script=falls_over)
    w = weir("threads 1; " + conf("server @a@; server @b@; eject off; retry attempts=3 budget=10%;"), a=a, b=b)
    for _ in range(100):
        assert fetch(w.http).status == 502
    retries = w.metric("weir_upstream_retries_total", upstream="u")
    assert 10 <= retries <= 21 and sent(a, b) == 100 + retries
    assert w.metric("weir_limit_hits_total", setting="retry budget") >= 79
    w.wait_log(r"upstream u.*retry budget=10%")


def test_a_head_that_was_forwarded_is_final(weir, server, connect):
    def breaks(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")

    a, b = server(script=breaks), server(answer(b"b"))
    w = weir(conf("server @a@ weight=1000; server @b@; eject off;"), a=a, b=b)
    c = connect(w.http).send(request())
    assert c.head().status == 200
    assert c.read(4) == b"half"
    assert c.ended() in ("eof", "reset")
    assert sent(a, b) == 1


def test_a_dead_kept_connection_is_nobodys_failure(weir, server, connect):
    """Sent again even with retry off, and no failure of the server: only the count of retries shows it."""
    def one_more(c):
        c.server.take(c)
        c.send(answer())
        if c.number < 4:
            c.server.take(c)
            return
        c.server._answer(c)

    s = server(script=one_more)
    w = weir(conf("server @a@; eject failures=1 for=1m; retry off;"), a=s)
    c = connect(w.http)
    for _ in range(5):
        assert c.send(request()).response().status == 200
    assert w.metric("weir_server_ejections_total", upstream="u") == 0
    assert w.metric("weir_upstream_retries_total", upstream="u") > 0


def test_a_post_on_a_kept_connection_is_never_sent_twice(weir, server, connect):
    """The server may have seen it: it closed without a word after it had read the request."""
    def once(c):
        c.server.take(c)
        c.send(answer())
        c.server.take(c)

    s = server(script=once)
    w = weir(conf("server @a@; eject off; retry attempts=3;"), a=s)
    c = connect(w.http)
    assert c.send(request()).response().status == 200
    assert c.send(request("POST", body=b"x")).response().status == 502
    assert c.send(request()).response().status == c.send(request()).response().status == 200
    assert [q.method for q in s.requests] == ["GET", "POST", "GET", "GET", "GET"], "only the GET was sent again"


def test_a_cookie_leads_back_to_its_server(weir, server):
    names = {n: server(answer(n.encode())) for n in "abc"}
    w = weir(conf("server @a@; server @b@; server @c@; sticky cookie=SRV;"), **names)
    for _ in range(3):
        first = fetch(w.http)
        cookie = first.get("set-cookie").split(";")[0]
        assert cookie.startswith("SRV=") and "127.0" not in cookie
        assert "HttpOnly" in first.get("set-cookie")
        for _ in range(5):
            r = fetch(w.http, fields={"cookie": f"x=1; {cookie}"})
            assert r.body == first.body and "set-cookie" not in r
    gone = names[first.body.decode()]
    assert w.command("server", "u", str(gone), "drain").returncode == 0  # who is there may stay
    assert fetch(w.http, fields={"cookie": cookie}).body == first.body
    assert w.command("server", "u", str(gone), "down").returncode == 0
    r = fetch(w.http, fields={"cookie": cookie})
    assert r.body != first.body and "set-cookie" in r


def test_who_waits_is_served_first_come_first_served(weir, server, connect):
    go = threading.Semaphore(0)

    def script(c):
        while True:
            c.server.take(c)
            go.acquire()
            c.send(answer())

    s = server(script=script)
    w = weir("threads 1; " + conf("server @a@ max_connections=1; timeout queue=20s;"), a=s)
    clients = []
    for i in range(5):
        clients.append(connect(w.http).send(request(target=f"/{i}")))
        until(lambda: w.metric("weir_upstream_queued", upstream="u") + len(s.requests) == i + 1, "the next one")
    for c in clients:
        go.release()
        assert c.response().status == 200
    assert [q.target for q in s.requests] == [f"/{i}" for i in range(5)]
    assert s.accepted == 1


def test_max_connections_counts_over_workers(weir, server, connect):
    go = threading.Event()

    def script(c):
        while True:
            c.server.take(c)
            go.wait(30)
            c.send(answer())

    s = server(script=script)
    w = weir("workers 2; threads 2; " + conf("server @a@ max_connections=3; timeout queue=20s;"), a=s)
    clients = [connect(w.http).send(request(target=f"/{i}")) for i in range(12)]
    s.wait(3)
    until(lambda: w.metric("weir_upstream_queued", upstream="u") == 9, "the others to wait")
    assert len(s.requests) == 3
    go.set()
    assert collections.Counter(c.response().status for c in clients) == {200: 12}
