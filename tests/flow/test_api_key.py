"""API keys that a real Redis knows: who gets in, what the server sees, and what a Redis that is away means."""
import hashlib
import json
import re

import pytest

from kit import h2, raw, until
from kit.raw import answer, fetch


def name(key, prefix="apikey:"):
    return prefix + hashlib.sha256(key.encode()).hexdigest()


def conf(words="", action='respond 200 "$api_key_owner";', timeout="timeout connect=1s command=1s;"):
    return (f"module api_key; redis main {{ server @redis@; {timeout} }} listen 127.0.0.1:@http@; "
            f"host * {{ route / {{ function api_key {{ store main; name f; {words} }} {action} }} }}")


def key(value, field="x-api-key"):
    return {field: value}


@pytest.fixture
def alice(redis):
    r = redis()
    r("SET", name("alices key"), "alice")
    return r


def test_who_gets_in(weir, alice):
    w = weir(conf(), redis=alice)
    r = fetch(w.http, fields=key("alices key"))
    assert (r.status, r.body) == (200, b"alice")
    r = fetch(w.http, fields=key("bobs key"))
    assert (r.status, r.body) == (403, b"unknown API key\n") and "www-authenticate" not in r
    for fields in ((), key(""), [("x-api-key", "alices key")] * 2, {"authorization": "alices key"}):
        r = fetch(w.http, fields=fields)
        assert (r.status, r.get("www-authenticate")) == (401, 'ApiKey realm="api"')
    assert fetch(w.http, fields=key("x" * 2000)).status == 403
    for result, n in (("accepted", 1), ("unknown", 2), ("missing", 4)):
        w.wait_metric("weir_api_key_total", n, function="f", result=result)


def test_redis_is_asked_rarely(weir, alice):
    w = weir(conf("ttl 1h; negative_ttl 1h;"), redis=alice)

    def asked():
        return w.metric("weir_redis_commands_total", store="main")

    assert fetch(w.http, fields=key("alices key")).status == 200
    assert fetch(w.http, fields=key("bobs key")).status == 403
    once = asked()
    for _ in range(10):
        assert fetch(w.http, fields=key("alices key")).body == b"alice"
        assert fetch(w.http, fields=key("bobs key")).status == 403
    assert asked() == once
    w.wait_metric("weir_api_key_total", 10, function="f", result="cached")


def test_unknown_keys_push_out_nobody_else(weir, alice):
    """As many as anybody makes up, in the smallest store there is."""
    w = weir("store_size 64k; threads 1; " + conf("ttl 1h; negative_ttl 1h; max_unknown 16;"), redis=alice)

    def asked():
        return w.metric("weir_redis_commands_total", store="main")

    for i in range(20):
        alice("SET", name(f"known {i}"), f"owner {i}")
        assert fetch(w.http, fields=key(f"known {i}")).status == 200
    with raw.client(w.http) as c:
        for i in range(2000):
            assert c.send(raw.request(fields=key(f"made up {i}"))).response().status == 403
    once = asked()
    for i in range(20):
        assert fetch(w.http, fields=key(f"known {i}")).body == f"owner {i}".encode()
    assert asked() == once, "those that are known are remembered"
    assert fetch(w.http, fields=key("made up 1999")).status == 403
    assert asked() == once, "so is the last one that is not"
    assert fetch(w.http, fields=key("made up 0")).status == 403
    assert asked() == once + 1
    assert w.metric("weir_local_store_evictions_total") == 0
    assert w.metric("weir_api_key_forgotten_total", function="f") == 2001 - 16


@pytest.mark.parametrize("words", ["max_unknown 0;", "negative_ttl 0s;"])
def test_nothing_is_remembered_of_unknown_keys(weir, alice, words):
    w = weir(conf(words), redis=alice)
    once = w.metric("weir_redis_commands_total", store="main")
    for _ in range(3):
        assert fetch(w.http, fields=key("bobs key")).status == 403
    assert w.metric("weir_redis_commands_total", store="main") == once + 3
    alice("SET", name("bobs key"), "bob")
    assert fetch(w.http, fields=key("bobs key")).body == b"bob"


def test_what_changes_is_seen(weir, alice):
    w = weir(conf("ttl 50ms; negative_ttl 50ms;"), redis=alice)
    assert fetch(w.http, fields=key("alices key")).body == b"alice"
    assert fetch(w.http, fields=key("bobs key")).status == 403
    alice("DEL", name("alices key"))
    alice("SET", name("bobs key"), "bob")
    until(lambda: fetch(w.http, fields=key("alices key")).status == 403, "the key to be taken back")
    until(lambda: fetch(w.http, fields=key("bobs key")).body == b"bob", "the new key to be known")


def test_keys_kept_for_one_use_are_not_for_another(weir, redis):
    """Two uses of one prefix, with records of another Redis each."""
    one, two = redis(), redis()
    one("SET", name("k"), "alice")
    w = weir("""module api_key; redis one { server @one@; } redis two { server @two@; } listen 127.0.0.1:@http@;
        host * { route /1 { function api_key store=one ttl=1h; respond 200; }
                 route /2 { function api_key store=two ttl=1h; respond 200; } }""", one=one, two=two)
    until(lambda: fetch(w.http, "/1", fields=key("k")).status == 200, "a connection to Redis")
    until(lambda: fetch(w.http, "/2", fields=key("k")).status != 503, "a connection to Redis")
    assert fetch(w.http, "/2", fields=key("k")).status == 403
    assert fetch(w.http, "/1", fields=key("k")).status == 200


@pytest.mark.parametrize("forward", ["", "forward on;"])
def test_places(weir, server, alice, forward):
    s = server(answer())
    alice("SET", name("k"), "kay")
    w = weir("module headers; upstream u { server @backend@; } " + conf(
        f"header Authorization; scheme Bearer; query key; cookie key; {forward}",
        "function headers { set request X-Owner $api_key_owner; } proxy u;"), redis=alice, backend=s)

    def sent(target="/", **fields):
        r = fetch(w.http, target, fields={**fields, "x-owner": "forged"})
        assert r.status == 200, r
        q = s.requests[-1]
        assert q.all("x-owner") == ["kay"]
        return q

    q = sent(authorization="bearer k")
    assert ("authorization" in q) == bool(forward)
    q = sent("/p?a=1&key=k&b=%20&k%65y=k", authorization="Basic eDp5")
    assert q.target == ("/p?a=1&key=k&b=%20&k%65y=k" if forward else "/p?a=1&b=%20")
    assert q.get("authorization") == "Basic eDp5", "what carries no key is not ours"
    q = sent("/p?key=k")
    assert q.target == ("/p?key=k" if forward else "/p")
    q = sent(cookie="a=1; key=k;b=2")
    assert q.get("cookie") == ("a=1; key=k;b=2" if forward else "a=1; b=2")
    many = [f"{i}" for i in range(1000)]
    q = sent(cookie=";".join(["key=k", *many]))
    assert q.get("cookie") == (";".join(["key=k", *many]) if forward else "; ".join(many)), "it becomes longer"
    q = sent(cookie="key=k")
    assert q.get("cookie") == ("key=k" if forward else None)
    q = sent("/?key=x", cookie="key=other; keys=1", authorization="Bearer k")
    if not forward:
        assert (q.target, q.get("cookie")) == ("/", "keys=1"), "it is taken out of all places"
    assert fetch(w.http, fields={"cookie": "key=k; key=other"}).status == 401
    assert fetch(w.http, "/?key=", fields={"cookie": "key=k"}).status == 401


def test_a_cookie_in_crumbs(weir, server, alice):
    """HTTP/2 sends each cookie as a field of its own."""
    s = server(answer())
    w = weir("upstream u { server @backend@; } " + conf("cookie key;", "proxy u;").replace(
        "listen 127.0.0.1:@http@;", "listen 127.0.0.1:@http@ { protocols h2c; }"), redis=alice, backend=s)
    c = h2.Client(w.http)
    try:
        a = c.fetch(fields=[("cookie", "a=1"), ("cookie", "key=alices key"), ("cookie", "b=2")])
        assert (a.status, s.last().all("cookie")) == (200, ["a=1; b=2"])
        a = c.fetch(fields=[("cookie", "key=alices key"), ("cookie", "key=x")])
        assert (a.status, a.get("www-authenticate")) == (401, 'ApiKey realm="api"')
    finally:
        c.close()


def test_a_hash(weir, redis):
    r = redis()
    r("HSET", name("k", "k:"), "owner", "alice", "plan", "gold\n", "empty", "")
    r("SET", name("odd", "k:"), "a string")
    w = weir(conf("prefix k:; record hash; field plan as plan; field empty as empty; field none as none; owner who;",
                  'respond 200 "$api_key_who|$api_key_plan|$api_key_empty|$api_key_none";'), redis=r)
    for _ in range(2):  # the second one from the local store
        assert fetch(w.http, fields=key("k")).body == b"alice|gold\n||"
    assert fetch(w.http, fields=key("odd")).status == 503
    w.wait_log(r"function api_key f .*the store answered WRONGTYPE")
    assert fetch(w.http, fields=key("none")).status == 403


def test_an_object(weir, redis):
    r = redis()
    r("SET", name("k"), json.dumps({"owner": "alice", "account": {"plan": "gold"}, "a.b": 1, "tags": ["x", 2, True, None],
                                    "deep": {"x": [1]}, "null": None, "half": 0.5}))
    for bad in ("no json", "[]", '{"owner":1,"owner":2}', "{" * 100):
        r("SET", name("bad" + bad), bad)
    w = weir(conf("record json; field account.plan as plan; field a.b as ab; field tags as tags; field deep as deep;"
                  "field null as null; field half as half; field owner.x as x;",
                  'respond 200 "$api_key_owner|$api_key_plan|$api_key_ab|$api_key_tags|$api_key_deep|$api_key_null|'
                  '$api_key_half|$api_key_x";'), redis=r)
    for _ in range(2):
        assert fetch(w.http, fields=key("k")).body == b'alice|gold|1|x 2 true|{"x": [1]}||0.5|'
    for bad in ("no json", "[]", '{"owner":1,"owner":2}', "{" * 100):
        assert fetch(w.http, fields=key("bad" + bad)).status == 503
    w.wait_log(r"what the store has is not what record= says", 4)


@pytest.mark.parametrize("words, known, new", [
    ("ttl 1ms;", 503, 503),
    ("ttl 1ms; stale 1h;", 200, 503),
    ("ttl 1h;", 200, 503),
    ("ttl 1ms; on_error fail_open;", 200, 200),
])
def test_redis_is_away(weir, alice, words, known, new):
    w = weir(conf(words, timeout="timeout connect=100ms command=100ms;"), redis=alice)
    until(lambda: fetch(w.http, fields=key("alices key")).status == 200, "a connection to Redis")
    alice.kill()
    seen = [fetch(w.http, fields=key("alices key")) for _ in range(5)]
    assert {r.status for r in seen} == {known}
    assert {r.body for r in seen if r.status == 200} <= ({b"alice"} if "open" not in words else {b""})
    assert fetch(w.http, fields=key("bobs key")).status == new
    if "stale" in words:
        w.wait_metric("weir_api_key_total", 5, function="f", result="stale")
    alice.start()
    alice("SET", name("alices key"), "alice")
    until(lambda: fetch(w.http, fields=key("alices key")).body == b"alice", "Redis to be asked again", 10)
    if "1h;" not in words:
        until(lambda: fetch(w.http, fields=key("bobs key")).status == 403, "Redis to be asked again", 10)


def test_a_key_that_was_taken_back_is_not_stale(weir, alice):
    w = weir(conf("ttl 1ms; stale 1h; negative_ttl 0s;", timeout="timeout connect=100ms command=100ms;"), redis=alice)
    until(lambda: fetch(w.http, fields=key("alices key")).status == 200, "a connection to Redis")
    alice("DEL", name("alices key"))
    until(lambda: fetch(w.http, fields=key("alices key")).status == 403, "the key to be taken back")
    alice.kill()
    assert fetch(w.http, fields=key("alices key")).status == 503


def test_keys_survive_a_reload(weir, alice):
    text = conf("ttl 1h;")
    w = weir(text, redis=alice)
    assert fetch(w.http, fields=key("alices key")).status == 200
    alice.kill()
    w.reload(text + " # changed")
    assert fetch(w.http, fields=key("alices key")).body == b"alice"
    w.reload(conf("ttl 1h; prefix other:;"))
    assert fetch(w.http, fields=key("alices key")).status == 503, "it was known under another prefix"


def test_clients_that_leave(weir, alice, connect):
    w = weir(conf(timeout="timeout connect=2s command=2s;"), redis=alice)
    assert fetch(w.http, fields=key("alices key")).status == 200
    alice.pause()
    gone = [connect(w.http).send(raw.request(fields=key(f"{i}"))) for i in range(20)]
    for c in gone:
        c.reset()
    alice.resume()
    assert fetch(w.http, fields=key("alices key")).status == 200


@pytest.mark.parametrize("words, at, says", [
    ("scheme Bearer; query k;", "Bearer", "say header="),
    ("field plan as plan;", "plan as plan", "say record hash or json"),
    ("record hash; field plan plan;", "plan;", '"as" is expected'),
    ("record hsah;", "hsah", 'did you mean "hash"'),
    ('realm "a\\tb";', '"a', "control character"),
    ("stale 8d;", "8d", "between 0s and 7d"),
    ("max_unknown 1000001;", "1000001", "between 0 and 1000000"),
    ("header Connection;", "Connection", "weir itself decides"),
    ("owner a-b;", "a-b", "is not the name of a variable"),
])
def test_mistakes(weir, words, at, says):
    text = ("module api_key; redis main { server 127.0.0.1; } listen 127.0.0.1:1;\n"
            f"host * {{ route / {{ function api_key {{ store main; {words} }} respond 200; }} }}")
    w = weir(text, start=False)
    done = w.command("-t")
    assert done.returncode == 1 and says in done.stderr, done.stderr
    assert int(re.search(r"weir\.conf:3:(\d+): ", done.stderr).group(1)) - 1 - text.splitlines()[1].rindex(at) in (0, 2)
