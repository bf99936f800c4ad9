"""A loop that does not turn: seen, named, its listeners served by another, and in the end aborted."""
import re
import signal
import subprocess
import time

import pytest

from kit import SLOW, need, until
from kit.raw import client, fetch, request
from kit.weir import TOP

CONF = ("module sleeper @dir@/sleeper.so; threads 2; listen 127.0.0.1:@http@; admin 127.0.0.1:@admin@; "
        "upstream u { server 127.0.0.1:1; } "
        "host * { route /sleep { function sleeper name=naps; proxy u; } route / { respond 200; } }")

PLACE = r"in module sleeper: on_request of function sleeper naps \(weir\.conf:\d+\) on route /sleep"


def sleeper(w, us):
    source = w.file("sleeper.c", """
        #include <weir/module.h>
        #include <unistd.h>
        static weir_rc on_request(weir_req *r, const void *i, void *c)
        { (void)i; (void)c; for (int n = 0; n < %d; n++) usleep(10000); return weir->respond(r, 200, WEIR_STR("slept")); }
        WEIR_MODULE(.name = "sleeper", .version = "1.0", .on_request = on_request);
        """ % (us // 10000))
    subprocess.run([need("cc"), "-std=c11", "-D_GNU_SOURCE", "-fPIC", "-shared", "-fvisibility=hidden",
                    f"-I{TOP}/src/include", "-o", w.dir / "sleeper.so", source], check=True)


@pytest.mark.alone
def test_a_stalled_loop_is_named_and_helped(weir, connect):
    w = weir(CONF, start=False)
    sleeper(w, int(900000 * SLOW))
    w.start()
    c = connect(w.http)
    c.send(request(target="/sleep"))
    w.wait_log("watchdog.*loop . of worker 0 does not turn: " + PLACE)
    # Half of these come to the stalled loop's sockets; the other loop takes them.
    started = time.monotonic()
    for _ in range(12):
        assert fetch(w.http).status == 200
    assert time.monotonic() - started < 0.7 * SLOW
    assert w.metric("weir_loop_stalls_total") == 1
    assert c.response().body == b"slept"
    w.wait_log("watchdog.*turns again")
    w.wait_log(r"function sleeper naps \(weir\.conf:\d+\)\] on_request on route /sleep ran for \d+ us, budget= is")
    for _ in range(12):
        assert fetch(w.http).status == 200
    assert w.metric("weir_worker_deaths_total") == 0


def test_a_loop_that_never_turns_is_aborted(weir, connect):
    w = weir(CONF, start=False)
    w.deaths_expected = True
    sleeper(w, 100000000)
    w.start()
    c = connect(w.http)
    c.send(request(target="/sleep"))
    line = w.wait_log(f"loop . of worker 0 has not turned for 1 s: {PLACE}; it is in .*")[0].group(0)
    # The function (its name is hidden, its module is not), what it called and who called it.
    assert re.search(r"sleep.* < \S*sleeper\S*\+0x.* < .*weir", line), line
    w.wait_deaths(1, 15)
    assert fetch(w.http).status == 200
    assert w.metric("weir_function_strikes_total", module="sleeper") == 1
    assert len(w.wait_log(f"loop . of worker 0 has not turned for 10 s: {PLACE}; the worker is aborted")) == 1
    w.wait_log(rf"worker 0 \(\d+\) ended: signal 6 \(Aborted\) {PLACE}, on loop \d.*a new one is started")


def test_drain_delay(weir):
    """/readyz fails at once, accepting goes on for the delay, then the listeners close."""
    w = weir("drain_delay 600ms; listen 127.0.0.1:@http@; host * { route / { respond 200; } }")
    w.send(signal.SIGTERM)
    started = time.monotonic()
    until(lambda: w.get("/readyz").status == 503, "/readyz to fail")
    assert fetch(w.http).status == 200
    assert w.process.wait(10 * SLOW) == 0
    assert time.monotonic() - started >= 0.6


def test_a_second_term_does_not_wait(weir):
    w = weir("drain_delay 30s; listen 127.0.0.1:@http@; host * { route / { respond 200; } }")
    with client(w.http) as c:
        assert c.send(request()).response().status == 200
        w.send(signal.SIGTERM)
        until(lambda: w.get("/readyz").status == 503, "/readyz to fail")
        w.send(signal.SIGTERM)
        assert w.process.wait(10 * SLOW) == 0


def test_control_and_admin_move_with_a_reload(weir):
    body = "listen 127.0.0.1:@http@; host * { route / { respond 200; } }"
    w = weir("control unix:@dir@/a.sock; admin 127.0.0.1:@admin@; " + body)
    before = w.admin
    w.configure("control unix:@dir@/b.sock; admin 127.0.0.1:@moved@; " + body)
    w.send(signal.SIGHUP)
    until(lambda: (w.dir / "b.sock").exists() and not (w.dir / "a.sock").exists(), "the socket to move")
    assert fetch(w.moved, "/readyz").status == 200
    try:
        fetch(before, "/readyz")
        raise AssertionError("the old admin listener still answers")
    except ConnectionRefusedError:
        pass
    assert w.command("-s", "status").returncode == 0
    # What cannot be moved stays where it is.
    w.configure("control unix:@dir@/none/x/c.sock; admin 127.0.0.1:@moved@; " + body)
    w.send(signal.SIGHUP)
    w.wait_log("was refused: nothing was changed")
    assert fetch(w.moved, "/readyz").status == 200
    w.configure("control unix:@dir@/b.sock; admin 127.0.0.1:@moved@; " + body)
    assert w.command("-s", "reload").returncode == 0
    assert sorted(p.name for p in w.dir.glob("*.sock*")) == ["b.sock"]
    w.values["admin"] = w.moved
