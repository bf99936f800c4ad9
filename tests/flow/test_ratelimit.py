"""Shared limits: exact, in Redis or the local store; a store that is away never blocks a loop."""
import collections
import threading
import time

import pytest

from kit import SLOW, free_port, raw, until
from kit.raw import fetch


def conf(limit, top=""):
    return (f"module ratelimit; {top} listen 127.0.0.1:@http@; "
            f"host * {{ route / {{ function ratelimit {limit}; respond 200 ok; }} }}")


def count(w, times, **more):
    return collections.Counter(fetch(w.http, **more).status for _ in range(times))


def redis_conf(limit, timeout="timeout connect=200ms command=50ms;"):
    return conf(f"store=main {limit}", f"redis main {{ server @redis@; {timeout} }}")


def test_local(weir):
    w = weir(conf("rate=1/m burst=5 key=$client_ip store=local"))
    seen = count(w, 10)
    assert 5 <= seen[200] <= 6 and seen[200] + seen[429] == 10
    r = fetch(w.http)
    assert r.status == 429
    assert 1 <= int(r.get("retry-after")) <= 66
    w.wait_metric("weir_ratelimit_total", 11)
    w.wait_metric("weir_local_replies_total", seen[429] + 1, reason="rate_limited")


def test_fields(weir):
    w = weir(conf("rate=10/s burst=20 key=$client_ip store=local"))
    r = fetch(w.http)
    assert r.status == 200
    assert "q=" in r.get("ratelimit-policy") and "w=" in r.get("ratelimit-policy")
    assert "r=" in r.get("ratelimit") and "t=" in r.get("ratelimit")


@pytest.mark.parametrize("name, shown", [("name=per-key", "per-key"), ("", "default")])
def test_fields_do_not_show_the_route(weir, name, shown):
    w = weir(conf(f"rate=1/m {name}"))
    assert fetch(w.http).get("ratelimit-policy") == f'"{shown}";q=1;w=60'


def test_exact_over_all_loops_and_workers(weir):
    w = weir(conf("rate=1/m burst=10 key=$client_ip store=local", "threads 2; workers 2;"))
    seen = count(w, 40)
    assert 10 <= seen[200] <= 11


def test_keys_are_apart(weir):
    w = weir(conf("rate=1/m burst=2 key=$arg_k store=local"))
    for k in "abc":
        seen = collections.Counter(fetch(w.http, f"/?k={k}").status for _ in range(5))
        assert 2 <= seen[200] <= 3, k


def test_it_refills(weir):
    w = weir(conf("rate=20/s burst=2 key=$client_ip store=local"))
    count(w, 5)
    until(lambda: fetch(w.http).status == 429, "429")
    until(lambda: fetch(w.http).status == 200, "a token")


def test_a_named_limit_is_shared_by_routes(weir):
    w = weir("""module ratelimit; listen 127.0.0.1:@http@;
        limit per { rate 1/m; burst 4; key $client_ip; store local; }
        host * {
            route /a { function ratelimit per; respond 200; }
            route /b { function ratelimit per; respond 200; }
        }""")
    seen = collections.Counter(fetch(w.http, "/a" if i % 2 else "/b").status for i in range(10))
    assert 4 <= seen[200] <= 5


def test_a_limit_survives_a_reload_and_a_death(weir):
    import os
    import signal

    text = conf("rate=1/m burst=5 key=$client_ip store=local name=l")
    w = weir(text)
    w.deaths_expected = True
    assert count(w, 8)[429] >= 2
    w.reload(text + " # changed")
    assert count(w, 3) == {429: 3}
    os.kill(w.worker(), signal.SIGKILL)
    w.wait_deaths(1)
    assert count(w, 3) == {429: 3}


def test_redis(weir, redis):
    r = redis()
    w = weir(redis_conf("rate=1/m burst=5 key=$client_ip"), redis=r)
    seen = count(w, 10)
    assert 5 <= seen[200] <= 6
    assert r("DBSIZE") >= 1
    assert all(r("PTTL", k) > 0 for k in r("KEYS", "*"))


def test_two_weirs_share_one_redis(weir, redis):
    r = redis()
    both = [weir(redis_conf("rate=1/m burst=6 key=$client_ip name=shared", "timeout connect=2s command=2s;"), redis=r)
            for _ in range(2)]
    seen = collections.Counter(fetch(both[i % 2].http).status for i in range(20))
    assert 6 <= seen[200] <= 7


def test_script_is_loaded_again(weir, redis):
    r = redis()
    w = weir(redis_conf("rate=1000/s burst=1000 key=$client_ip on_store_error=deny"), redis=r)
    assert fetch(w.http).status == 200
    r("SCRIPT", "FLUSH")
    assert count(w, 5) == {200: 5}


def test_redis_password_and_database(weir, redis):
    r = redis("--requirepass", "secret")
    w = weir(conf("rate=1/m burst=2 key=$client_ip store=main on_store_error=deny",
                  "redis main { server @redis@; password secret; database 3; }"), redis=r)
    until(lambda: fetch(w.http).status == 200, "a connection")
    until(lambda: "db3" in r("INFO", "keyspace", password="secret"), "a key in database 3")


POLICIES = [("allow", {200: 10}), ("deny", {503: 10})]


@pytest.mark.parametrize("trouble", ["gone", "stalled", "never"])
@pytest.mark.parametrize("policy", ["allow", "deny", "local"])
def test_store_error(weir, redis, trouble, policy):
    r = redis()
    w = weir(redis_conf(f"rate=1/m burst=3 key=$arg_k on_store_error={policy}"), redis=r) \
        if trouble != "never" else None
    if trouble == "gone":
        assert fetch(w.http, "/?k=0").status == 200
        r.kill()
    elif trouble == "stalled":
        assert fetch(w.http, "/?k=0").status == 200
        r.pause()
    else:
        r.kill()
        w = weir(redis_conf(f"rate=1/m burst=3 key=$arg_k on_store_error={policy}"), redis=r)
    slowest, seen = 0, collections.Counter()
    for _ in range(8):
        started = time.monotonic()
        seen[fetch(w.http, "/?k=1").status] += 1
        slowest = max(slowest, time.monotonic() - started)
    assert slowest < 1, "a request waited longer than its deadlines"
    if policy == "allow":
        assert seen == {200: 8}
    elif policy == "deny":
        assert seen[200] == 0 and set(seen) <= {429, 503}
    else:
        assert 3 <= seen[200] <= 4 and seen[429] >= 4
    if trouble == "stalled":
        r.resume()
    else:
        r.start()
    # It comes back by itself, and then the store decides again.
    until(lambda: w.metric("weir_redis_connections", store="main") >= 1, "a connection", 10)
    until(lambda: fetch(w.http, "/?k=2").status == 200, "the store to answer")


DECISION = b"*3\r\n:1\r\n:60000000\r\n:0\r\n"

# What a store may say that is no decision.  Some of it ends the connection, none of it decides.
NONSENSE = {
    "nulls": b"*3\r\n$-1\r\n$-1\r\n$-1\r\n", "strings": b"*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n",
    "negative": b"*3\r\n:0\r\n:-5\r\n:-7\r\n", "far": b"*3\r\n:0\r\n:9223372036854775807\r\n:1\r\n",
    "one": b":1\r\n", "two": b"*2\r\n:1\r\n:1\r\n", "null array": b"*-1\r\n", "error": b"-ERR no\r\n",
    "full": b"-OOM command not allowed when used memory > 'maxmemory'.\r\n",
    "forgets": b"-NOSCRIPT No matching script.\r\n", "loading": b"-LOADING\r\n",
    "long": b"$900000\r\n" + b"x" * 900000 + b"\r\n", "endless": b"$90000000\r\n" + b"x" * 2000000,
    "elements": b"*1000000000\r\n", "deep": b"*1\r\n" * 100, "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "no number": b"*3\r\n:x\r\n:y\r\n:z\r\n", "silence": b"", "half": DECISION[:9], "end": None,
}


def scripted_redis(reply):
    """A store that greets well and answers each other command with reply, one byte at a time if it is a list."""
    def script(c):
        while True:
            words = []
            for _ in range(int(c.read_until(b"\r\n")[1:])):
                words.append(c.read(int(c.read_until(b"\r\n")[1:]) + 2)[:-2])
            if words == [b"PING"]:
                c.send(b"+PONG\r\n")
            elif reply is None:
                return
            elif isinstance(reply, list):
                for byte in reply:
                    c.send(byte)
                    time.sleep(0.001)
            else:
                c.send(reply)

    return script


@pytest.mark.parametrize("kind", NONSENSE)
def test_a_store_that_talks_nonsense_decides_nothing(weir, server, kind):
    s = server(script=scripted_redis(NONSENSE[kind]))
    w = weir(redis_conf("rate=1/m burst=5 key=$arg_k on_store_error=deny"), redis=s)
    started = time.monotonic()
    replies = [fetch(w.http, f"/?k={i}") for i in range(8)]
    assert {r.status for r in replies} == {503}
    assert all("retry-after" in r and "ratelimit" not in r for r in replies)
    assert time.monotonic() - started < 2 * SLOW


def logged_by_the_function(w):
    """How many lines it wrote, and those that tell of more; what weir says of it (its time ran out) is neither."""
    lines = [line for line in w.log().splitlines() if "function ratelimit f" in line]
    return len([line for line in lines if "the store answered" in line]), \
        [line for line in lines if "of its lines were left out" in line]


@pytest.mark.parametrize("kind", ["full", "loading"])
def test_errors_of_a_store_do_not_flood_the_log(weir, server, kind):
    s = server(script=scripted_redis(NONSENSE[kind]))
    w = weir(redis_conf("rate=1/m key=$arg_k on_store_error=allow name=f log_lines=3",
                        "timeout connect=1s command=1s;"), redis=s)
    started = time.monotonic()
    with raw.client(w.http) as c:
        for i in range(500):
            assert c.send(raw.request(target=f"/?k={i}")).response().status == 200
    seconds = int(time.monotonic() - started) + 2
    asked = w.metric("weir_redis_commands_total", store="main", result="error")
    held = w.metric("weir_function_log_held_total", function="f")
    assert asked >= 490
    w.wait_log(r"warn  \[function ratelimit f .*\] \d+ of its lines were left out \(log_lines=3\)")

    def told():
        return sum(int(line.split("] ")[1].split()[0]) for line in logged_by_the_function(w)[1])

    until(lambda: told() == held, lambda: f"{held} lines to be told of, {told()} are:\n{w.log()}")
    written, lines = logged_by_the_function(w)
    assert 3 <= written <= 3 * seconds and len(lines) <= seconds
    assert written + held == asked


def test_a_function_may_log_all_it_wants(weir, server):
    s = server(script=scripted_redis(NONSENSE["full"]))
    w = weir(redis_conf("rate=1/m key=$arg_k name=f log_lines=off", "timeout connect=1s command=1s;"), redis=s)
    count(w, 30)
    asked = w.metric("weir_redis_commands_total", store="main", result="error")
    assert asked >= 25
    until(lambda: logged_by_the_function(w) == (asked, []), "a line for each")


def test_a_store_that_drips(weir, server):
    s = server(script=scripted_redis([bytes([b]) for b in DECISION]))
    w = weir(redis_conf("rate=1/m key=$arg_k on_store_error=deny", "timeout connect=200ms command=2s;"), redis=s)
    assert {fetch(w.http, f"/?k={i}").status for i in range(5)} == {200}


@pytest.mark.parametrize("greeting", ["silence", "wrong password"])
def test_a_store_that_does_not_greet(weir, server, redis, greeting):
    s = server(script=lambda c: c.read_all()) if greeting == "silence" else redis("--requirepass", "secret")
    w = weir(redis_conf("rate=1/m on_store_error=deny", "password mistaken; timeout connect=200ms command=50ms;"), redis=s)
    started = time.monotonic()
    assert count(w, 6) == {503: 6}
    assert time.monotonic() - started < 1 * SLOW
    w.wait_log(r"\[redis main\] .*" + ("no answer to the greeting" if greeting == "silence" else "AUTH: WRONGPASS"))


def test_the_clock_is_the_stores(weir, redis):
    """The one time stamp of a key is Redis' time and one request's cost further."""
    r = redis()
    w = weir(redis_conf("rate=1/m burst=2 on_store_error=deny"), redis=r)
    assert fetch(w.http).status == 200
    (key,) = r("KEYS", "*")
    seconds, us = r("TIME")
    assert 0 <= float(r("GET", key)) - int(seconds) * 1e6 - int(us) <= 60e6
    assert "127.0.0.1" not in key
    count(w, 2)
    refused = fetch(w.http)
    assert refused.status == 429 and 1 <= int(refused.get("retry-after")) <= 66
    assert 'r=0' in refused.get("ratelimit") and "ratelimit-policy" in refused


@pytest.mark.parametrize("trust", ["ca", "system"])
def test_redis_over_tls(weir, redis, ca, trust):
    (cert, key), port = ca.cert("127.0.0.1"), free_port()
    redis("--tls-port", str(port), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file",
          str(ca.cert_file), "--tls-auth-clients", "no")
    known = f"ca={ca.cert_file}" if trust == "ca" else ""
    w = weir(conf("rate=1/m burst=2 store=main on_store_error=deny",
                  f"redis main {{ server 127.0.0.1:{port}; tls {known}; timeout connect=2s command=2s; }}"))
    if trust == "ca":
        seen = count(w, 5)
        assert 2 <= seen[200] <= 3 and seen[200] + seen[429] == 5
    else:
        assert count(w, 3) == {503: 3}
        w.wait_log(r"\[redis main\] .*TLS")


def test_redis_by_name_and_user(weir, redis):
    r = redis()
    r("ACL", "SETUSER", "weir", "on", ">pw", "~weir:*", "+@all")
    w = weir(redis_conf("rate=1/m burst=2 on_store_error=deny", "user weir; password pw; timeout command=500ms;"),
             redis=f"localhost:{r.port}")
    until(lambda: fetch(w.http).status != 503, "a connection")
    assert count(w, 4)[429] >= 2


def test_nobody_fails_while_redis_comes_and_goes(weir, redis):
    r = redis()
    w = weir("threads 2; " + redis_conf("rate=100000/s burst=100000 on_store_error=allow"), redis=r)
    seen, slowest, end = collections.Counter(), [0], threading.Event()

    def ask():
        while not end.is_set():
            started = time.monotonic()
            seen[fetch(w.http).status] += 1
            slowest.append(time.monotonic() - started)

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for t in askers:
        t.start()
    for trouble, mend in [(r.kill, r.start), (r.pause, r.resume), (r.kill, r.start)]:
        time.sleep(0.3)
        trouble()
        time.sleep(0.3)
        mend()
    r("SCRIPT", "FLUSH")
    until(lambda: "ratelimit" in fetch(w.http), "the store to decide again", 10)
    end.set()
    for t in askers:
        t.join()
    assert set(seen) == {200}
    assert max(slowest) < 1 * SLOW


def test_a_stalled_redis_does_not_stop_other_requests(weir, redis):
    r = redis()
    w = weir("""module ratelimit; redis main { server @redis@; timeout connect=200ms command=20s; }
        listen 127.0.0.1:@http@; host * {
            route /limited { function ratelimit rate=1/s burst=5 key=$client_ip store=main; respond 200; }
            route / { respond 200; } }""", redis=r)
    assert fetch(w.http, "/limited").status == 200
    r.pause()
    try:
        with raw.client(w.http) as c:
            c.send(raw.request(target="/limited"))
            started = time.monotonic()
            for _ in range(20):
                assert fetch(w.http).status == 200
            assert time.monotonic() - started < 10, "it waited for Redis"
    finally:
        r.resume()
