"""Which server gets a request, and what happens when none can."""
import collections
import os
import signal
import threading
import time

import pytest

from kit import SLOW, until
from kit.raw import answer, fetch, request


def named(server, *names):
    return {n: server(answer(n.encode())) for n in names}


def conf(upstream, top=""):
    return f"{top} listen 127.0.0.1:@http@; upstream u {{ {upstream} }} host * {{ route / {{ proxy u; }} }}"


def spread(w, count, **more):
    return [fetch(w.http, f"/{i}", **more).body.decode() for i in range(count)]


def holds(go):
    def script(c):
        while True:
            c.server.take(c)
            go.wait(30)
            c.send(answer())

    return script


def test_round_robin(weir, server):
    w = weir(conf("server @a@; server @b@; server @c@;"), **named(server, "a", "b", "c"))
    assert collections.Counter(spread(w, 9)) == {"a": 3, "b": 3, "c": 3}


def test_weighted_round_robin_is_smooth(weir, server):
    w = weir(conf("balance round_robin; server @a@ weight=5; server @b@; server @c@;"),
             **named(server, "a", "b", "c"))
    seen = "".join(spread(w, 14))
    assert collections.Counter(seen) == {"a": 10, "b": 2, "c": 2}
    assert "aaaaa" not in seen


@pytest.mark.parametrize("policy", ["random", "p2c"])
def test_random_reaches_all(weir, server, policy):
    w = weir(conf(f"balance {policy}; server @a@; server @b@;"), **named(server, "a", "b"))
    seen = collections.Counter(spread(w, 60))
    assert min(seen["a"], seen["b"]) >= 10


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("policy", ["least_conn", "p2c"])
def test_a_busy_server_gets_less(weir, server, connect, policy, threads):
    """Counted over all loops: the second request never joins the one that hangs."""
    go = threading.Event()

    def script(c):
        c.server.take(c)
        go.wait(30)
        c.send(answer(b"a"))

    slow = server(script=script)
    quick = named(server, "b")
    w = weir(conf(f"balance {policy}; server @a@; server @b@;", f"threads {threads};"), a=slow, **quick)
    clients = []
    while not slow.requests:
        clients.append(connect(w.http).send(request()))
        assert len(clients) < 20
        time.sleep(0.05)
    assert set(spread(w, 20)) == {"b"}
    go.set()


@pytest.mark.parametrize("processes", ["threads 1;", "threads 2;", "workers 2; threads 2;"])
def test_least_connections_by_weight_over_all_loops_and_workers(weir, server, connect, processes):
    go = threading.Event()
    a, b = server(script=holds(go)), server(script=holds(go))
    w = weir(conf("balance least_conn; server @a@ weight=3; server @b@;", processes), a=a, b=b)
    clients = []
    for i in range(16):
        clients.append(connect(w.http).send(request()))
        until(lambda: len(a.requests) + len(b.requests) == i + 1, "the request")
    assert (len(a.requests), len(b.requests)) == (12, 4)
    go.set()
    for c in clients:
        assert c.response().status == 200


@pytest.mark.parametrize("policy", ["random", "hash $arg_k"])
def test_weights_of_chance(weir, server, policy):
    w = weir(conf(f"balance {policy}; server @a@ weight=3; server @b@;"), **named(server, "a", "b"))
    seen = collections.Counter(fetch(w.http, f"/?k={i}").body for i in range(200))
    assert 0.6 < seen[b"a"] / 200 < 0.9


def test_hash_is_the_same_everywhere(weir, server):
    """On all loops and workers, on another machine, in whatever order the servers are written."""
    servers = named(server, "a", "b", "c")
    one = weir(conf("balance hash $arg_k; server @a@; server @b@; server @c@;", "workers 2; threads 2;"), **servers)
    two = weir(conf("balance hash $arg_k; server @c@; server @b@; server @a@;"), **servers)
    for k in range(30):
        assert len({fetch(w.http, f"/?k={k}").body for w in (one, one, one, two)}) == 1


def test_hash_keeps_and_moves_little(weir, server):
    servers = named(server, "a", "b", "c")
    text = conf("balance hash $arg_k; server @a@; server @b@; server @c@;")
    w = weir(text, **servers)

    def ask():
        return {k: fetch(w.http, f"/?k={k}").body for k in range(60)}

    first = ask()
    assert ask() == first
    assert len(set(first.values())) == 3
    w.reload(text.replace(" server @c@;", ""))
    second = ask()
    assert all(second[k] == v for k, v in first.items() if v != b"c")


def bring_back(w, address):
    """A server that was away comes back now."""
    for state in ("down", "up"):
        assert w.command("server", "u", address, state).returncode == 0


@pytest.mark.parametrize("slow_start, share", [("10m", (1, 12)), ("off", (50, 50))])
@pytest.mark.parametrize("policy", ["round_robin", "random"])
def test_slow_start_gives_a_server_little_at_first(weir, server, slow_start, share, policy):
    servers = named(server, "a", "b")
    w = weir(conf(f"balance {policy}; server @a@; server @b@; slow_start {slow_start};"), **servers)
    assert min(collections.Counter(spread(w, 40)).values()) >= 5, "those there from the start have their full share"
    bring_back(w, servers["b"].address)
    seen = collections.Counter(spread(w, 100))
    spare = 0 if policy == "round_robin" else 25 if slow_start == "off" else 8
    assert max(share[0] - spare, 0) <= seen["b"] <= share[1] + spare, seen


def test_slow_start_ends_with_the_full_share(weir, server):
    servers = named(server, "a", "b")
    w = weir(conf("server @a@; server @b@; slow_start 1s;"), **servers)
    bring_back(w, servers["b"].address)
    shares = []

    def even():
        shares.append(spread(w, 20).count("b"))
        return shares[-2:] == [10, 10]

    until(even, lambda: f"half of the requests, it got {shares} of 20 each")
    assert shares[0] < 10, shares


def test_least_time_prefers_who_answers_sooner(weir, server):
    """And it is no verdict for ever: who becomes slow gets less than who is quick by then."""
    pause = {b"a": 0.03, b"b": 0}

    def waits(name):
        def reply(_):
            time.sleep(pause[name])
            return answer(name)

        return reply

    w = weir(conf("balance least_time; server @a@; server @b@;"), a=server(waits(b"a")), b=server(waits(b"b")))
    seen = collections.Counter(spread(w, 40))
    assert 1 <= seen["a"] <= 5, seen
    pause.update({b"a": 0, b"b": 0.1})
    until(lambda: spread(w, 10).count("a") >= 9, "the other one to be preferred", 15)


def test_backup_only_when_the_others_are_gone(weir, server):
    servers = named(server, "a", "b")
    w = weir(conf("server @a@; server @b@ backup; eject failures=1 for=300ms;"), **servers)
    assert set(spread(w, 5)) == {"a"}
    servers["a"].close()
    assert set(spread(w, 5)) == {"b"}
    again = server(answer(b"a"), port=servers["a"].port)
    until(lambda: fetch(w.http).body == b"a", "the first server to be used again")
    assert again.requests


def test_max_connections_queue(weir, server, connect):
    go = threading.Event()

    def script(c):
        while True:
            c.server.take(c)
            go.wait(30)
            c.send(answer(b"a"))

    s = server(script=script)
    w = weir(conf("server @a@ max_connections=2; timeout queue=5s;"), a=s)
    clients = [connect(w.http).send(request(target=f"/{i}")) for i in range(4)]
    s.wait(2)
    until(lambda: w.metric("weir_upstream_queued", upstream="u") == 2, "two requests in the queue")
    assert len(s.requests) == 2
    go.set()
    for c in clients:
        assert c.response().status == 200
    w.wait_metric("weir_upstream_queued", 0, upstream="u")


def test_queue_timeout(weir, server, connect):
    go = threading.Event()

    def script(c):
        c.server.take(c)
        go.wait(30)
        c.send(answer())

    s = server(script=script)
    w = weir(conf("server @a@ max_connections=1; timeout queue=100ms;"), a=s)
    c = connect(w.http).send(request())
    s.wait()
    r = fetch(w.http)
    assert r.status == 503 and "retry-after" in r
    w.wait_metric("weir_local_replies_total", 1, reason="queue")
    go.set()
    assert c.response().status == 200


def test_who_goes_leaves_the_queue(weir, server, connect):
    go = threading.Event()
    s = server(script=holds(go))
    w = weir(conf("server @a@ max_connections=1; timeout queue=20s;"), a=s)
    first = connect(w.http).send(request())
    s.wait()
    gone = connect(w.http).send(request(target="/gone"))
    w.wait_metric("weir_upstream_queued", 1, upstream="u")
    gone.reset()
    w.wait_metric("weir_upstream_queued", 0, upstream="u")
    go.set()
    assert first.response().status == fetch(w.http).status == 200
    assert "/gone" not in [q.target for q in s.requests]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dead_worker_takes_no_places_with_it(weir, server, connect, workers):
    go = threading.Event()
    s = server(script=holds(go))
    w = weir(conf("server @a@ max_connections=2; timeout queue=200ms;", f"workers {workers};"), a=s)
    w.deaths_expected = True
    for _ in range(2):
        connect(w.http).send(request())
    s.wait(2)
    assert fetch(w.http).status == 503
    for pid in w.children():
        os.kill(pid, signal.SIGKILL)
    w.wait_deaths(workers)
    for _ in range(2):
        connect(w.http).send(request())
    s.wait(4)
    assert fetch(w.http).status == 503
    go.set()


def test_all_ejected_are_tried_all_the_same(weir, server):
    """Nobody says that they are down but failures: trying beats refusing, and recovery needs no one.
    What fails then is told as what it is: no server is up."""
    w = weir(conf("server 127.0.0.1:@one@; server 127.0.0.1:@two@; eject failures=1 for=1m;"))
    started = time.monotonic()
    assert {fetch(w.http).status for _ in range(4)} <= {502, 503}
    r = fetch(w.http)
    assert r.status == 503 and int(r.get("retry-after")) >= 1
    assert time.monotonic() - started < 2 * SLOW
    server(answer(b"back"), port=w.one)
    until(lambda: fetch(w.http).body == b"back", "the server that is back")


def test_connect_error_goes_to_the_next_server(weir, server):
    w = weir(conf("server 127.0.0.1:@nobody@; server @b@; eject off;"), **named(server, "b"))
    for i in range(6):
        r = fetch(w.http, "/", "POST", body=b"x")
        assert (r.status, r.body) == (200, b"b"), i
    assert w.metric("weir_upstream_retries_total", upstream="u") >= 2


@pytest.mark.parametrize("on,status,attempts", [("502", 502, 1), ("503", 200, 2)])
def test_retry_on_status(weir, server, on, status, attempts):
    replies = [answer(b"no", "503 Service Unavailable"), answer(b"yes")]
    s = server(lambda q: replies[min(len(s.requests) - 1, 1)])
    w = weir(conf(f"server @a@; retry attempts=3 on={on};"), a=s)
    r = fetch(w.http)
    assert (r.status, len(s.requests)) == ((503, 1) if status == 502 else (200, attempts))


def test_an_unknown_name_is_down_and_no_reason_not_to_start(weir, server):
    w = weir(conf("server does-not-exist.invalid:80; server @b@;"), **named(server, "b"))
    assert set(spread(w, 4)) == {"b"}


def test_a_name_only(weir):
    w = weir(conf("server does-not-exist.invalid:80;"))
    assert fetch(w.http).status == 503


def test_localhost_resolves(weir, server):
    s = server(answer(b"n"))
    w = weir(conf("server localhost:@port@;"), port=s.port)
    until(lambda: fetch(w.http).status == 200, "the name to resolve")


def test_a_name_is_asked_for_again_by_its_ttl(weir, server, names):
    """Other addresses are other servers; a name that is no more keeps its last ones."""
    a, dns = server(answer(b"a")), names()
    server(answer(b"b"), port=a.port, host="127.0.0.2")
    dns.records = {"s.test": (["127.0.0.1"], 1), "long.test": (["127.0.0.1"], 60)}
    w = weir(conf(f"server s.test:{a.port};", f"resolver {dns}; upstream long {{ server long.test:{a.port}; }}"))
    assert fetch(w.http).body == b"a"
    dns.records["s.test"] = (["127.0.0.2", "127.0.0.1"], 1)
    until(lambda: set(spread(w, 4)) == {"a", "b"}, "the second address", 8)
    del dns.records["s.test"]
    w.wait_log("s.test does not resolve: .*; its last addresses are kept", seconds=8)
    assert set(spread(w, 4)) == {"a", "b"}
    assert dns.asked["long.test"] == 1


def test_a_name_that_comes_later(weir, server, names):
    a, dns = server(answer(b"a")), names()
    w = weir(conf(f"server s.test:{a.port};", f"resolver {dns};"))
    r = fetch(w.http)
    assert r.status == 503 and int(r.get("retry-after")) >= 1
    dns.records["s.test"] = (["127.0.0.1"], 60)
    until(lambda: fetch(w.http).body == b"a", "the name to resolve")


def test_a_name_server_that_is_silent_delays_nobody(weir, server, names):
    dns = names()
    dns.silent = True
    w = weir(conf("server s.test:80; server @b@;", f"resolver {dns};"), **named(server, "b"))
    started = time.monotonic()
    assert set(spread(w, 4)) == {"b"}
    assert time.monotonic() - started < 1 * SLOW


def test_keepalive_is_bounded(weir, server, connect):
    s = server()
    w = weir(conf("server @a@; keepalive 1;"), a=s)
    clients = [connect(w.http) for _ in range(4)]
    gate = threading.Barrier(4)

    def slow(q):
        gate.wait(10)
        return answer()

    s.reply = slow
    for c in clients:
        c.send(request())
    for c in clients:
        assert c.response().status == 200
    until(lambda: s.open == 1, lambda: f"one idle connection, {s.open} are open")
    w.wait_metric("weir_pool_idle_connections", 1, upstream="u")
