"""auth_request: a server says who may pass; what it says reaches the servers behind, and what clients say
in its place does not."""
import re
import threading

import pytest

from kit import SLOW, raw, until
from kit.h2_peer import serve
from kit.raw import answer, fetch

CONF = """threads 1; module auth_request; upstream auth { server @auth@; @upstream@ } upstream u { server @u@; }
listen 127.0.0.1:@http@; log_format l "$path $status $auth_request_role"; access_log @dir@/access.log format=l;
host * { route /free/ { proxy u; }
    route / { function auth_request name=f { upstream auth; @more@ } proxy u; } }"""
YES = answer(b"", fields=[("X-User", "alice"), ("X-Role", "admin")])
TAKES = "copy X-User as X-User; copy X-Group as X-Group; variable X-Role as role; "


@pytest.fixture
def guard(weir, server):
    """A weir whose route asks auth.  .auth and .u are the servers."""
    def make(reply=YES, more=TAKES, upstream="", script=None, **words):
        auth = server(script=script) if script else server(reply)
        u = server(answer(b"secret"))
        w = weir(CONF.replace("@more@", more).replace("@upstream@", upstream), auth=auth, u=u, **words)
        w.auth, w.u = auth, u
        return w
    return make


def test_yes(guard):
    w = guard()
    r = fetch(w.http, "/doc?a=b%20c", "POST", body=b"data",
              fields={"Cookie": "s=1", "X-User": "forged", "X-Group": "wheel", "X-Forwarded-For": "10.0.0.1",
                      "X-Forwarded-Host": "forged", "X-Original-URI": "/forged", "If-None-Match": "x",
                      "X-Forwarded-Uri": "/forged", "Connection": "close"})
    assert (r.status, r.body) == (200, b"secret")
    q = w.auth.last()
    assert (q.method, q.target, q.body) == ("GET", "/doc?a=b%20c", b"")
    assert {n: q.all(n) for n in ("x-original-uri", "x-original-method", "x-forwarded-for", "x-forwarded-proto",
                                  "x-forwarded-host", "cookie", "host")} == {
        "x-original-uri": ["/doc?a=b%20c"], "x-original-method": ["POST"], "x-forwarded-for": ["127.0.0.1"],
        "x-forwarded-proto": ["http"], "x-forwarded-host": ["a.test"], "cookie": ["s=1"], "host": ["auth"]}
    for gone in ("content-length", "if-none-match", "connection", "x-forwarded-uri"):
        assert gone not in q
    served = w.u.last()
    assert (served.body, served.all("x-user"), "x-group" in served) == (b"data", ["alice"], False)
    assert q.get("x-request-id") == served.get("x-request-id")
    until(lambda: "/doc 200 admin\n" in (w.dir / "access.log").read_text(), "the role in the log")
    assert w.metric("weir_auth_request_total", function="f", result="allowed") == 1


@pytest.mark.parametrize("status, says", [("401 Unauthorized", b"authentication is required\n"),
                                          ("403 Forbidden", b"forbidden\n")])
@pytest.mark.parametrize("body", ["on", "off"])
def test_no(guard, status, says, body):
    w = guard(answer(b"<p>who?", status, [("WWW-Authenticate", 'Basic realm="x"'), ("WWW-Authenticate", "Bearer"),
                                          ("Content-Type", "text/html"), ("X-Secret", "s")]), TAKES + f"body {body};")
    r = fetch(w.http)
    assert r.status == int(status[:3])
    assert r.all("www-authenticate") == ['Basic realm="x"', "Bearer"]
    assert r.body == (b"<p>who?" if body == "on" else says)
    assert ("text/html" in r.get("content-type")) == (body == "on")
    assert "x-secret" not in r
    assert w.u.requests == []
    assert w.metric("weir_auth_request_total", function="f", result="denied") == 1


@pytest.mark.parametrize("reply", [answer(b"", "302 Found", [("Location", "/login")]),
                                   answer(b"", "404 Not Found"), answer(b"", "500 Oh"), b"nonsense\r\n\r\n"])
def test_all_else_is_an_error(guard, reply):
    w = guard(reply)
    assert fetch(w.http).status == 503
    assert w.u.requests == []
    w.wait_log(r"\[function auth_request f \(.*?\) request \w+\] (the answer has status \d+|no answer: )")
    assert w.metric("weir_auth_request_total", function="f", result="error") == 1


def test_down_and_open(guard):
    """What passes without an answer passes without what the answer would have said."""
    w = guard(more=TAKES)
    w.auth.stop_listening()
    w.reload(w.expand(CONF.replace("name=f", "name=f on_error=fail_open").replace("@upstream@", "")
                      .replace("@more@", TAKES)))
    assert fetch(w.http, fields={"X-User": "forged"}).status == 200
    assert "x-user" not in w.u.last()


def test_a_hang(guard, connect):
    ended = threading.Event()

    def hang(c):
        c.server.take(c)
        c.read_all()
        ended.set()

    w = guard(script=hang, upstream="timeout response=150ms;")
    assert fetch(w.http).status == 503
    assert ended.wait(5 * SLOW)
    assert fetch(w.http, "/free/").status == 200


def test_a_client_that_leaves(guard, connect):
    ended = threading.Event()

    def hang(c):
        c.server.take(c)
        c.read_all()
        ended.set()

    w = guard(script=hang)
    c = connect(w.http).send(raw.request())
    w.auth.wait()
    c.reset()
    assert ended.wait(5 * SLOW), "nobody waits for the answer"
    w.wait_metric("weir_server_requests", 0)
    assert w.u.requests == []


CACHE = TAKES + "cache 60s; key $header_authorization; "


def test_a_yes_is_remembered(guard):
    w = guard(more=CACHE)
    for _ in range(3):
        assert fetch(w.http, fields={"Authorization": "a", "X-User": "forged"}).status == 200
        assert w.u.last().all("x-user") == ["alice"]
    assert len(w.auth.requests) == 1
    fetch(w.http, fields={"Authorization": "b"})
    assert len(w.auth.requests) == 2
    for _ in range(2):
        fetch(w.http)
    assert len(w.auth.requests) == 4, "no key, no memory"
    w.reload()
    fetch(w.http, fields={"Authorization": "a"})
    assert len(w.auth.requests) == 4, "it survives a reload"
    assert w.metric("weir_auth_request_total", function="f", result="cached") == 3


def test_what_is_remembered_belongs_to_its_lines(guard):
    w = guard(more=CACHE)
    fetch(w.http, fields={"Authorization": "a"})
    other = CACHE.replace("copy X-User as X-User", "copy X-Role as X-User")
    w.reload(w.expand(CONF.replace("@upstream@", "").replace("@more@", other)))
    fetch(w.http, fields={"Authorization": "a"})
    assert w.u.last().all("x-user") == ["admin"]


def test_a_no_is_not_remembered(guard):
    replies = [answer(b"", "403 Forbidden"), YES]
    w = guard(lambda q: replies.pop(0), more=CACHE)
    assert [fetch(w.http, fields={"Authorization": "a"}).status for _ in range(3)] == [403, 200, 200]


def test_h2(guard):
    def reply(p, a):
        p.answer(a, b"", 204 if a.get("cookie") == "s=1" else 401, fields=[("x-user", "bob")])

    w = guard(script=serve(reply), upstream="protocol h2c;")
    assert fetch(w.http, fields={"Cookie": "s=1"}).status == 200
    assert w.u.last().all("x-user") == ["bob"]
    assert fetch(w.http).status == 401


def test_many_at_once(guard, connect):
    w = guard(lambda q: answer(b"", fields=[("X-User", q.get("cookie"))]))
    for _ in range(3):
        clients = [(connect(w.http), str(n)) for n in range(40)]
        for c, n in clients:
            c.send(raw.request(fields={"Cookie": n}))
        for c, n in clients:
            assert c.response().status == 200
    assert {q.get("x-user") for q in w.u.requests} == {str(n) for n in range(40)}
    assert all(q.get("x-user") == q.get("cookie") for q in w.u.requests)


@pytest.mark.parametrize("more", ["cache 5s;", "key $path;", "method 'G T';", "method CONNECT;", "copy X-User X-User;",
                                  "copy X-User as Host;", "pass Content-Length;", "set Connection x;",
                                  "variable X-User as 'a b';", "path $nothing;", "upstream nobody;", "body maybe;"])
def test_mistakes(weir, more):
    w = weir("module auth_request; upstream auth { server 127.0.0.1:1; }\nlisten 127.0.0.1:1;\n"
             f"host * {{ route / {{ function auth_request {{ upstream auth;\n{more}\n}} respond 200; }} }}", start=False)
    done = w.command("-t")
    assert done.returncode == 1
    assert re.search(r"weir\.conf:\d+:\d+: ", done.stderr), done.stderr
