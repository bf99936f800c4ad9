"""Cross-origin requests: what a browser is told, and what it must never be told."""
import re

import pytest

from kit.raw import answer, fetch

ALLOW = "access-control-allow-origin"


def conf(words, more="", action="respond 200 ok;"):
    return (f"module cors; module headers; listen 127.0.0.1:@http@; host * {{ function cors {{ {words} }} {more} "
            f"route / {{ {action} }} }}")


def ask(w, origin, method="PUT", **fields):
    """A preflight."""
    return fetch(w.http, method="OPTIONS", fields={"origin": origin, "access-control-request-method": method,
                                                   **{k.replace("_", "-"): v for k, v in fields.items()}})


def cors_fields(r):
    return {n: v for n, v in r.fields if n.startswith("access-control-")}


def test_a_preflight_is_answered_here(weir, server):
    s = server(answer(b"from the server", fields=[(ALLOW, "https://server.test"), ("Vary", "Accept-Encoding")]))
    w = weir("upstream u { server @backend@; } " + conf(
        "origins https://a.test https://*.b.test; methods GET PUT; headers X-A Authorization; expose X-Count X-Page; "
        "credentials on; max_age 2m;", action="proxy u;"), backend=s)
    r = ask(w, "https://a.test", access_control_request_headers="x-a")
    assert (r.status, r.body) == (204, b"") and "content-length" not in r and "content-type" not in r
    assert cors_fields(r) == {ALLOW: "https://a.test", "access-control-allow-credentials": "true",
                              "access-control-allow-methods": "GET, PUT", "access-control-max-age": "120",
                              "access-control-allow-headers": "X-A, Authorization"}
    assert r.all("vary") == ["Origin"]
    assert s.requests == []
    r = fetch(w.http, fields={"origin": "https://x.b.test"})
    assert r.body == b"from the server"
    assert cors_fields(r) == {ALLOW: "https://x.b.test", "access-control-allow-credentials": "true",
                              "access-control-expose-headers": "X-Count, X-Page"}
    assert r.get("vary") == "Accept-Encoding, Origin"
    assert s.last().get("origin") == "https://x.b.test"


@pytest.mark.parametrize("origin", ["https://a.test.evil.test", "http://a.test", "https://a.test:444", "https://b.test",
                                    "https://evil.test/.b.test", "https://evil.test?.b.test", "HTTPS://A.TEST", "null",
                                    "https://ab.test", "*", "", "https://evil.test#.b.test", "https://u@x.b.test",
                                    "https://" + "x" * 3000 + ".b.test", "https://a.test, https://a.test"])
def test_who_is_not_allowed_learns_nothing(weir, origin):
    w = weir(conf("origins https://a.test https://*.b.test; credentials on;"))
    r = fetch(w.http, fields={"origin": origin})
    assert (r.status, cors_fields(r), r.all("vary")) == (200, {}, ["Origin"])
    r = ask(w, origin)
    assert (r.status, cors_fields(r), r.all("vary")) == (403, {}, ["Origin"])


def test_two_origins_are_none(weir):
    w = weir(conf("origins https://a.test;"))
    r = fetch(w.http, fields=[("origin", "https://a.test"), ("origin", "https://a.test")])
    assert cors_fields(r) == {}


def test_an_answer_without_an_origin_is_not_for_those_with_one(weir):
    """What a cache keeps of it must not be given to a script."""
    w = weir(conf("origins https://a.test;"))
    r = fetch(w.http)
    assert (cors_fields(r), r.all("vary")) == ({}, ["Origin"])


def test_everybody(weir):
    w = weir(conf("origins *; methods *; headers *;"))
    r = fetch(w.http, fields={"origin": "https://any.test"})
    assert cors_fields(r) == {ALLOW: "*"} and "vary" not in r
    r = ask(w, "https://any.test", "PATCH", access_control_request_headers="authorization,x-b")
    assert r.status == 204 and r.get("access-control-allow-headers") == "authorization,x-b"
    assert r.get("access-control-allow-methods") == "PATCH"
    assert sorted(r.all("vary")) == ["Access-Control-Request-Headers", "Access-Control-Request-Method"]
    r = ask(w, "https://any.test", "PATCH", access_control_request_headers="a: b")
    assert r.status == 204 and "access-control-allow-headers" not in r


def test_a_regex(weir):
    w = weir(conf("origin_regex '^https://(a|b)\\.test$' '^null$';"))
    assert fetch(w.http, fields={"origin": "https://b.test"}).get(ALLOW) == "https://b.test"
    assert ALLOW not in fetch(w.http, fields={"origin": "https://c.test"})
    assert ALLOW not in fetch(w.http, fields={"origin": "null"}), "null has to be said in so many words"
    w.reload(conf("origins null;"))
    assert fetch(w.http, fields={"origin": "null"}).get(ALLOW) == "null"


def test_a_private_network_is_not_opened_unless_asked_for(weir):
    w = weir(conf("origins https://a.test;"))
    asked = {"access_control_request_private_network": "true"}
    assert "access-control-allow-private-network" not in ask(w, "https://a.test", **asked)
    w.reload(conf("origins https://a.test; private_network on;"))
    assert ask(w, "https://a.test", **asked).get("access-control-allow-private-network") == "true"
    assert "access-control-allow-private-network" not in ask(w, "https://a.test")


def test_refusals_can_be_read_too(weir):
    """A script must be able to see why: the field stands on what weir itself answers."""
    w = weir(conf("origins https://a.test;", action="respond 401 no;"))
    assert fetch(w.http, fields={"origin": "https://a.test"}).get(ALLOW) == "https://a.test"
    w.reload("upstream u { server 127.0.0.1:1; } " + conf("origins https://a.test;", action="proxy u;"))
    r = fetch(w.http, fields={"origin": "https://a.test"})
    assert (r.status, r.get(ALLOW)) == (502, "https://a.test")


@pytest.mark.parametrize("words, at, says", [
    ("origins *; credentials on;", "on; }", "name the origins"),
    ("origins https://a.test/;", "https://a.test/", "is not an origin"),
    ("origins HTTPS://a.test;", "HTTPS", "is not an origin"),
    ("origins a.test;", "a.test", "is not an origin"),
    ("origins https://a.*.test;", "*.test", "stands for whole names"),
    ("origins https://*a.test;", "*a.test", "stands for whole names"),
    ("origins https://a.test:443;", "443", "default port"),
    ("origins https://a.test; methods 'G T';", "G T", "is not the name of a method"),
    ("origins https://a.test; expose *;", "*;", "is not the name of a field"),
    ("origin_regex 'a(';", "; }", "missing closing parenthesis"),
    ("credentials on;", "cors", "it needs origins or origin_regex"),
])
def test_mistakes(weir, words, at, says):
    text = f"module cors; listen 127.0.0.1:1; host * {{ route / {{\nfunction cors {{ {words} }}\nrespond 200; }} }}"
    w = weir(text, start=False)
    done = w.command("-t")
    assert done.returncode == 1 and says in done.stderr
    line = text.splitlines()[1]
    column = int(re.search(r"weir\.conf:3:(\d+): ", done.stderr).group(1))
    assert line[column - 1:].lstrip("'").startswith(at), done.stderr
