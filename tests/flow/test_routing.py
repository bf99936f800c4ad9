"""How a request finds its action."""
import collections
import re

import pytest

from kit.raw import answer, fetch, request

CONF = r"""
module headers;
listen 127.0.0.1:@http@;
upstream u { server @backend@; }
upstream v { server @other@; }
host a.test www.a.test { route / { respond 200 "a"; } }
host *.a.test { route / { respond 200 "*.a"; } }
host *.x.a.test { route / { respond 200 "*.x.a"; } }
host [::1] { route / { respond 200 "v6"; } }
host routes.test {
    route = /exact { respond 200 "exact"; }
    route /seg { respond 200 "seg:$path_rest"; }
    route /pre/ { respond 200 "pre:$path_rest"; }
    route ~ '^/re/(\d+)/(?<name>[a-z]+)$' { respond 200 "$1-$name-${name}x"; }
    route ~* '\.JPG$' { respond 200 "image"; }
    route ~ 'middle' { respond 200 "unanchored"; }
    route /first { when method POST; respond 200 "post"; }
    route /first { when header x-k = v; respond 200 "header"; }
    route /first { when header x-r ~ '^[0-9]+$'; respond 200 "header re"; }
    route /first { when header x-e; respond 200 "header exists"; }
    route /first { when query k = v; respond 200 "query"; }
    route /first { when query r ~ '^[0-9]+$'; respond 200 "query re"; }
    route /first { when query e; respond 200 "query exists"; }
    route /first { when client 10.0.0.0/8 192.168.0.0/16; respond 200 "never"; }
    route /first { when method GET HEAD; when client 127.0.0.0/8; respond 200 "client"; }
    route /order/x { respond 200 "written first"; }
    route = /order/x { respond 200 "written second"; }
    route /vars {
        respond 200 "$method|$scheme|$host|$port|$uri|$path|$query|$arg_a|$header_x_y|$cookie_c|$client_ip|$route|$$";
    }
    route /old/ { redirect 308 https://$host/new/$path_rest; }
    route = /early { respond 200 "[$server][$upstream]"; }
    route = /moved { redirect 301 http://b.test/; }
    route = /empty { respond 204; }
    route ~ '^/users/(?<id>\d+)(?<rest>/.*)?$' { rewrite /internal/$id$rest; proxy u; }
    route /query/ { rewrite /q?fixed=1; proxy u; }
    route /hosted { proxy u host=in.$host; }
    route /split { proxy u weight=3; proxy v weight=1; }
    route /sets { function headers { set request X-Id "$arg_id"; } proxy u; }
    route ~ '^/limit/(a|b|ab)+$' { respond 200 "matched"; }
    route /limit { respond 200 "the next"; }
    route /when-limit { when header x-l ~ '^(a+)+$'; respond 200 "matched"; }
    route /when-limit { respond 200 "the next"; }
}
"""


@pytest.fixture(scope="module")
def s(server_for_all):
    return server_for_all(answer(b"u"))


@pytest.fixture(scope="module")
def w(weir_for_all, server_for_all, s):
    return weir_for_all(CONF, backend=s, other=server_for_all(answer(b"v")))


@pytest.mark.parametrize("host,body", [
    ("a.test", "a"), ("www.a.test", "a"), ("A.TEST", "a"), ("a.test:8080", "a"),
    ("b.a.test", "*.a"), ("c.b.a.test", "*.a"), ("y.x.a.test", "*.x.a"), ("x.a.test", "*.a"),
    ("[::1]:80", "v6"),
])
def test_hosts(w, host, body):
    assert fetch(w.http, host=host, name="x").body.decode() == body


@pytest.mark.parametrize("host,target,reason", [
    ("nowhere.test", "/", "no_host"), ("ba.test", "/", "no_host"), ("routes.test", "/none", "no_route"),
])
def test_not_found(w, host, target, reason):
    before = w.metric("weir_local_replies_total", reason=reason)
    assert fetch(w.http, target, host=host).status == 404
    w.wait_metric("weir_local_replies_total", before + 1, reason=reason)


@pytest.mark.parametrize("target,body", [
    ("/exact", "exact"), ("/seg", "seg:"), ("/seg/x/y", "seg:/x/y"), ("/pre/x/y", "pre:x/y"),
    ("/pre/", "pre:"), ("/re/12/ab", "12-ab-abx"), ("/x/y.jpg", "image"), ("/a/middle/b", "unanchored"),
    ("/order/x", "written first"),
])
def test_kinds(w, target, body):
    assert fetch(w.http, target, host="routes.test").body.decode() == body


@pytest.mark.parametrize("target", ["/exact/", "/exac", "/segx", "/pre", "/re/12/AB", "/re/x/ab"])
def test_near_misses(w, target):
    assert fetch(w.http, target, host="routes.test").status == 404


@pytest.mark.parametrize("method,target,fields,body", [
    ("POST", "/first", {}, "post"),
    ("GET", "/first", {"X-K": "v"}, "header"),
    ("GET", "/first", {"x-k": "w", "x-r": "12"}, "header re"),
    ("GET", "/first", {"x-r": "12a", "x-e": ""}, "header exists"),
    ("GET", "/first?a=b&k=v", {}, "query"),
    ("GET", "/first?k=vv&r=7", {}, "query re"),
    ("GET", "/first?r=x&e", {}, "query exists"),
    ("GET", "/first", {}, "client"),
])
def test_when(w, method, target, fields, body):
    assert fetch(w.http, target, method, fields, host="routes.test").body.decode() == body


def test_when_nothing_is_left(w):
    assert fetch(w.http, "/first", "DELETE", host="routes.test").status == 404


def test_variables(w):
    body = fetch(w.http, "/vars/%7e?a=1&b=2", fields={"x-y": "field", "cookie": "b=1; c=crumb"},
                 host=f"routes.test:{w.http}").body.decode()
    assert body == (f"GET|http|routes.test|{w.http}|/vars/%7e?a=1&b=2|/vars/~|a=1&b=2|1|field|crumb|"
                    "127.0.0.1|/vars|$")


def test_server_and_upstream_are_empty_before_they_are_chosen(w):
    assert fetch(w.http, "/early", host="routes.test").body == b"[][]"


@pytest.mark.parametrize("target,status,location", [
    ("/old/x/y?q=1", 308, "https://routes.test/new/x/y"),
    ("/moved?q=1", 301, "http://b.test/"),
])
def test_redirect(w, target, status, location):
    r = fetch(w.http, target, host="routes.test")
    assert (r.status, r.get("location")) == (status, location)


def test_a_redirect_holds_no_line_break(w):
    r = fetch(w.http, "/old/%0d%0aset-cookie:x", host="routes.test")
    assert r.status == 400 and "set-cookie" not in r


def test_respond_without_body(w, connect):
    c = connect(w.http)
    r = c.send(request(target="/empty", host="routes.test")).response()
    assert r.status == 204 and "content-length" not in r
    assert c.silent(0.05)


@pytest.mark.parametrize("target,sent", [
    ("/users/12/x?q=1", "/internal/12/x?q=1"),
    ("/users/12", "/internal/12"),
    ("/query/x?lost=1", "/q?fixed=1"),
])
def test_rewrite(w, s, target, sent):
    assert fetch(w.http, target, host="routes.test").status == 200
    assert s.last().target == sent


def test_host_sent(w, s):
    fetch(w.http, "/hosted", host="routes.test:1")
    assert s.last().get("host") == "in.routes.test"


def test_split(w, connect):
    c = connect(w.http)
    seen = collections.Counter(
        c.send(request(target="/split", host="routes.test")).response().body for _ in range(400))
    assert 240 <= seen[b"u"] <= 360 and seen[b"u"] + seen[b"v"] == 400


def test_captures_cannot_break_the_head(w, s):
    assert fetch(w.http, "/sets?id=a%20b", host="routes.test").status == 200
    assert s.last().get("x-id") == "a b"
    assert fetch(w.http, "/sets?id=a%0d%0ax:y", host="routes.test").status == 200
    assert s.last().get("x-id") == "a%0d%0ax:y" and "x" not in s.last()


@pytest.mark.parametrize("target,fields", [
    ("/limit/" + "ab" * 4000 + "!", {}), ("/when-limit", {"x-l": "a" * 3000 + "!"}),
])
def test_regex_limit_refuses(w, target, fields):
    """Never the next route, though it would take the request."""
    before = w.metric("weir_local_replies_total", reason="regex_limit")
    r = fetch(w.http, target, fields=fields, host="routes.test")
    assert r.status == 400
    w.wait_metric("weir_local_replies_total", before + 1, reason="regex_limit")


def test_many_routes_first_match_wins(weir):
    """However they are indexed, the answer is that of trying them in order."""
    patterns = []
    for i in range(300):
        patterns.append((rf"^/api/v{i}/(\d+)$", f"r{i}"))
    patterns += [(r"/(\d+)$", "tail"), (r"^/api/", "api"), (r"x.*y", "xy"), (r"(?i)FOO", "foo")]
    routes = "".join(f"route ~ '{p}' {{ respond 200 \"{name}\"; }}\n" for p, name in patterns)
    w = weir(f"listen 127.0.0.1:@http@; host * {{ {routes} route / {{ respond 200 none; }} }}")
    for path in ("/api/v0/1", "/api/v299/77", "/api/v300/5", "/api/v7/x", "/q/3", "/xay", "/bar/foo",
                 "/api/v12/12/", "/other"):
        wanted = next((n for p, n in patterns if re.search(p, path)), "none")
        assert fetch(w.http, path).body.decode() == wanted, path


def test_listener_serves_only_its_hosts(weir):
    w = weir("""listen 127.0.0.1:@all@; listen 127.0.0.1:@some@ { hosts a.test *.b.test; }
        host a.test { route / { respond 200 a; } } host *.b.test { route / { respond 200 b; } }
        host c.test { route / { respond 200 c; } }""")
    assert fetch(w.all, host="c.test").status == 200
    assert fetch(w.some, host="a.test").body == b"a"
    assert fetch(w.some, host="x.b.test").body == b"b"
    assert fetch(w.some, host="c.test").status == 404


def test_functions_run_in_order_and_back(weir, server):
    s = server(answer(fields={"x-order": "server"}))
    w = weir("""module headers; listen 127.0.0.1:@http@; upstream u { server @backend@; }
        host * {
            function headers { add request X-Order host; add response X-Order host; }
            route / {
                function headers { add request X-Order one; add response X-Order one; }
                function headers { add request X-Order two; add response X-Order two; }
                proxy u;
            }
        }""", backend=s)
    r = fetch(w.http)
    assert s.last().all("x-order") == ["host", "one", "two"]
    assert r.all("x-order") == ["server", "two", "one", "host"]


def test_headers_function(weir, server):
    s = server(answer(fields=[("server", "s"), ("x-a", "1"), ("x-a", "2"), ("location", "http://in/x")]))
    w = weir(r"""module headers; listen 127.0.0.1:@http@; upstream u { server @backend@; }
        host * { route / {
            function headers {
                remove response Server;
                set response X-A "$status";
                set request X-Ip $client_ip;
                remove request X-Secret;
                replace response Location '^http://in(/.*)$' https://$host$1;
            }
            proxy u; } }""", backend=s)
    r = fetch(w.http, fields={"x-secret": "1", "X-IP": "9.9.9.9"})
    assert "server" not in r
    assert r.all("x-a") == ["200"]
    assert r.get("location") == "https://a.test/x"
    q = s.last()
    assert q.all("x-ip") == ["127.0.0.1"] and "x-secret" not in q


def test_error_page(weir):
    """Page by page the nearest scope counts; a route's own body, and a server's, stay."""
    w = weir("""listen 127.0.0.1:@http@; upstream u { server 127.0.0.1:@nobody@; error_page 502 text=upstream; }
        error_page 403 404 text="not here"; error_page 502 text="top";
        host * {
            error_page 502 503 file=page.html;
            error_page 403 text=host;
            route /u { proxy u; }
            route /bare { respond 403; }
            route /own { error_page 403 text=route; respond 403; }
            route /said { respond 403 "said"; }
            route /empty { respond 403 ""; }
            route /other { respond 410; }
            route /nobody { proxy v; }
        }
        upstream v { server 127.0.0.1:@nobody@; }""", files={"page.html": "<p>sorry</p>"})
    for target, status, body in [
            ("/x", 404, b"not here"), ("/u", 502, b"upstream"), ("/bare", 403, b"host"),
            ("/own", 403, b"route"), ("/said", 403, b"said"), ("/empty", 403, b""), ("/other", 410, b"")]:
        r = fetch(w.http, target)
        assert (r.status, r.body) == (status, body), target
    r = fetch(w.http, "/nobody")
    assert r.body == b"<p>sorry</p>" and r.get("content-type") == "text/html"
