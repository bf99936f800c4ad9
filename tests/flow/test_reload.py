"""A reload ends nothing, and a bad one changes nothing."""
import threading
import time

import pytest

from kit import SLOW, raw, until
from kit.raw import answer, fetch, request


def numbered(n, more=""):
    return f'listen 127.0.0.1:@http@; {more} host * {{ route / {{ respond 200 "{n}"; }} }}'


def proxied(n):
    return ("module headers; listen 127.0.0.1:@http@; upstream u { server @backend@; } host * { "
            f"function headers {{ set response X-Number {n}; }} route / {{ proxy u; }} }}")


def test_takes_effect(weir):
    w = weir(numbered(0))
    for n in range(1, 6):
        w.reload(numbered(n))
        assert fetch(w.http).body == b"%d" % n
    w.wait_metric("weir_reloads_total", 5, result="ok")
    w.wait_metric("weir_generations_alive", 1)


def test_by_signal(weir):
    import signal

    w = weir(numbered(0))
    w.configure(numbered(1))
    w.send(signal.SIGHUP)
    until(lambda: fetch(w.http).body == b"1", "the new configuration")


def test_a_kept_connection_takes_the_newest(weir, connect):
    w = weir(numbered(0))
    c = connect(w.http)
    for n in range(4):
        if n:
            w.reload(numbered(n))
        r = c.send(request()).response()
        assert (r.body, r.get("connection")) == (b"%d" % n, None)


def test_a_request_keeps_the_generation_it_began_with(weir, server, connect):
    go = threading.Event()

    def reply(q):
        if q.target == "/slow":
            go.wait(30)
        return answer()

    s = server(reply)
    w = weir(proxied(0), backend=s)
    c = connect(w.http)
    c.send(request(target="/slow"))
    s.wait()
    w.reload(proxied(1))
    assert fetch(w.http).get("x-number") == "1"
    w.wait_metric("weir_generations_alive", 2)
    go.set()
    assert c.response().get("x-number") == "0"
    assert c.send(request()).response().get("x-number") == "1"
    until(lambda: w.metric("weir_generations_alive") == 1, "the old generation to go")


def test_a_tunnel_survives(weir, server, connect):
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        while True:
            c.send(c.read(1))

    s = server(script=script)
    w = weir(proxied(0), backend=s)
    c = connect(w.http)
    assert c.send(request(fields={"connection": "upgrade", "upgrade": "x"})).response().status == 101
    for n in range(1, 4):
        w.reload(proxied(n))
        c.send(b"a")
        assert c.read(1) == b"a"


def test_pools_survive(weir, server):
    s = server()
    w = weir("threads 1; " + proxied(0), backend=s)
    for n in range(1, 4):
        assert fetch(w.http).status == 200
        w.reload("threads 1; " + proxied(n))
    assert fetch(w.http).status == 200
    assert s.accepted == 1


@pytest.mark.parametrize("config,word", [
    ("listen 127.0.0.1:@http@; host * { route / { respnd 200; } }", "respnd"),
    ("listen 127.0.0.1:@http@; host * { route / { proxy nobody; } }", "nobody"),
    ("listen 127.0.0.1:@http@ {", "weir.conf"),
    ("module missing; listen 127.0.0.1:@http@; host * { route / { respond 200; } }", "missing"),
    ("listen 127.0.0.1:@http@ tls { certificate none.pem key=none.key; }", "none.pem"),
])
def test_a_mistake_changes_nothing(weir, connect, config, word):
    w = weir(numbered(0))
    c = connect(w.http)
    assert c.send(request()).response().body == b"0"
    done = w.reload(config, ok=False)
    assert word in done.stdout + done.stderr
    assert word in w.log()
    assert c.send(request()).response().body == b"0"
    assert fetch(w.http).body == b"0"
    w.wait_metric("weir_reloads_total", 1, result="failed")
    w.reload(numbered(1))
    assert c.send(request()).response().body == b"1"


def test_an_address_in_use_is_an_error(weir, server):
    s = server()
    w = weir(numbered(0))
    done = w.reload(numbered(1, f"listen {s};"), ok=False)
    assert str(s.port) in done.stdout + done.stderr
    assert fetch(w.http).body == b"0"


def test_listeners_come_and_go(weir, connect):
    w = weir(numbered(0, "listen 127.0.0.1:@second@;"))
    kept = connect(w.second)
    assert kept.send(request()).response().body == b"0"
    w.reload(numbered(1))
    with pytest.raises(ConnectionRefusedError):
        fetch(w.second)
    assert fetch(w.http).body == b"1"
    w.reload(numbered(2, "listen 127.0.0.1:@second@; listen 127.0.0.1:@third@;"))
    assert fetch(w.second).body == b"2"
    assert fetch(w.third).body == b"2"


def test_what_is_fixed_at_start_is_said(weir):
    w = weir(numbered(0, "threads 1;"))
    w.reload(numbered(1, "threads 2; store_size 3m;"))
    assert fetch(w.http).body == b"1"
    assert "threads" in w.log() and "store_size" in w.log()


def test_under_load(weir, server):
    """No request fails and none is lost while the configuration changes thirty times."""
    s = server()
    w = weir(proxied(0), backend=s)
    stop = threading.Event()
    seen, failed = set(), []

    def work():
        try:
            with raw.client(w.http) as c:
                while not stop.is_set():
                    r = c.send(request()).response()
                    assert r.status == 200, r
                    seen.add(int(r.get("x-number")))
        except Exception as e:
            failed.append(e)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for t in workers:
        t.start()
    for n in range(1, 31):
        w.reload(proxied(n))
        until(lambda: n in seen or failed, f"number {n}")
    stop.set()
    for t in workers:
        t.join(20)
    assert not failed
    assert seen == set(range(31))
    until(lambda: w.metric("weir_generations_alive") == 1, "the old generations to go")


def test_from_signal_to_effect(weir, connect):
    """The median of a small configuration: under 40 ms."""
    import signal
    import statistics

    w = weir(numbered(0))
    c = connect(w.http)
    times = []
    for n in range(1, 16):
        w.configure(numbered(n))
        started = time.monotonic()
        w.send(signal.SIGHUP)
        while c.send(request()).response().body != b"%d" % n:
            assert time.monotonic() - started < 5 * SLOW
        times.append(time.monotonic() - started)
    assert statistics.median(times) < 0.04 * SLOW, times


def test_a_changed_certificate(weir, connect, ca):
    def conf(cert):
        return (f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; }} "
                "host * { route / { respond 200; } }")

    w = weir(conf(ca.cert("a.test")))
    old = connect(w.https, tls=ca.client())
    w.reload(conf(ca.cert("b.test")))
    assert old.send(request()).response().status == 200
    assert connect(w.https, tls=ca.client(), name="b.test").send(request()).response().status == 200


def test_a_rebuilt_module(weir):
    """The file on disk is replaced: the next reload takes the new code."""
    import shutil
    import subprocess

    from kit import need
    from kit.weir import TOP

    cc = need("cc")

    def build(w, n):
        source = w.file("number.c", """
            #include <weir/module.h>
            static weir_rc on_request(weir_req *r, const void *i, void *c)
            { (void)i; (void)c; return weir->respond(r, 200, WEIR_STR("%d")); }
            WEIR_MODULE(.name = "number", .version = "1.0", .on_request = on_request);
            """ % n)
        made = w.dir / "made.so"
        subprocess.run([cc, "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden",
                        f"-I{TOP}/src/include", "-o", made, source], check=True)
        target = w.dir / "number.so"
        shutil.copy(made, str(target) + ".new")
        (w.dir / "number.so.new").rename(target)

    conf = ("module number @dir@/number.so; listen 127.0.0.1:@http@; upstream u { server 127.0.0.1:1; } "
            "host * { route / { function number; proxy u; } } # %d")
    w = weir(conf % 0, start=False)
    build(w, 0)
    w.start()
    assert fetch(w.http).body == b"0"
    for n in range(1, 5):
        build(w, n)
        w.reload(conf % n)
        assert fetch(w.http).body == b"%d" % n
