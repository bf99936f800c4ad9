"""A function that crashes on one route, and what clients of the others see of it: nothing outside of the restarts."""
import re
import threading
import time

import pytest

from kit import SLOW, raw, until
from kit.raw import fetch, request
from test_functions import build

CRASHER = """
#include <weir/module.h>
#include <unistd.h>
static weir_rc on_request(weir_req *r, const void *i, void *c)
{
        weir_str path;
        (void)i, (void)c;
        weir->header_set(r, WEIR_RESPONSE, WEIR_STR("x-pid"), weir->format(r, "%d", (int)getpid()));
        if (weir->var_get(r, WEIR_STR("path"), &path) && weir_eq(path, WEIR_STR("/f/crash")))
                *(volatile int *)0 = 1;
        return WEIR_CONTINUE;
}
WEIR_MODULE(.name = "crasher", .version = "1", .on_request = on_request);
"""
WHO = CRASHER.replace("/f/crash", "-").replace("crasher", "who")
CONF = """
workers %d; module crasher @dir@/crasher.so; module who @dir@/who.so; listen 127.0.0.1:@http@;
upstream u { server @backend@; }
host * {
    route /f { function crasher name=f on_error=%s; respond 200 served; }
    route /proxied { function who; proxy u; }
    route / { function who; respond 200 ok; }
}
"""


class Client(threading.Thread):
    """Asks on one kept connection after the other; what happened to it, and when."""

    def __init__(self, port, target):
        super().__init__()
        self.port, self.target = port, target
        self.stop = threading.Event()
        self.answers = 0
        self.broken = []  # (when, the worker of that connection)
        self.refused = []  # connections that were not taken, answers that were not 200

    def run(self):
        while not self.stop.is_set():
            try:
                c = raw.client(self.port)
            except OSError as error:
                self.refused.append(repr(error))
                continue
            pid = None
            try:
                while not self.stop.is_set():
                    r = c.send(request(target=self.target)).response()
                    if r.status != 200:
                        self.refused.append(r)
                    pid = int(r.get("x-pid"))
                    self.answers += 1
            except (OSError, EOFError):
                self.broken.append((time.monotonic(), pid))
            finally:
                c.close()


@pytest.fixture
def crashing(weir, server):
    def make(workers, on_error):
        w = weir(CONF % (workers, on_error), start=False, backend=server())
        w.deaths_expected = True
        for name, source in (("crasher", CRASHER), ("who", WHO)):
            build(w.file(f"{name}.c", source), w.dir / f"{name}.so")
        return w.start()
    return make


def crash(w, longest):
    """Sends what kills a worker: (the worker, when, the longest time so far until a new connection was
    served)."""
    with raw.client(w.http) as c:
        pid = int(c.send(request(target="/f")).response().get("x-pid"))
        deaths = len(re.findall(r"worker \d+ \(\d+\) ended", w.log()))
        begin = time.monotonic()
        w.kill_by(c, "/f/crash")
    w.wait_log(r"worker \d+ \(\d+\) ended", deaths + 1)
    with raw.client(w.http) as c:
        assert c.send(request()).response().status == 200
    return pid, begin, max(longest, time.monotonic() - begin)


def serves_all(w, workers):
    try:
        return len(w.children()) == workers and w.get("/readyz").status == 200
    except (OSError, EOFError):
        return False


@pytest.mark.alone
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("on_error", ["fail_open", "fail_closed"])
def test_other_routes_while_one_crashes(crashing, workers, on_error):
    w = crashing(workers, on_error)
    clients = [Client(w.http, target) for target in ("/", "/proxied") for _ in range(6)]
    for c in clients:
        c.start()
    restarts, longest = [], 0
    try:
        for n in range(1, 4):
            answers = [c.answers for c in clients]
            until(lambda: all(c.answers > a + 20 for c, a in zip(clients, answers)), "all to be served", 20)
            assert w.metric("weir_function_strikes_total", module="crasher") == n - 1
            dead, begin, longest = crash(w, longest)
            until(lambda: serves_all(w, workers), "all workers to be there", 20)
            w.wait_deaths(n)
            w.wait_log(r"ended: signal 11 .* in module crasher: on_request of function crasher f \(weir\.conf:\d+\) "
                       r"on route /f, on loop \d, pc 0x\w+, address 0x0; a new one", n)
            # At most one answer was still on its way: by now each has noticed that its worker is gone.
            answers = [c.answers for c in clients]
            until(lambda: all(c.answers > a + 1 for c, a in zip(clients, answers)), "all to be served again", 20)
            restarts.append((dead, begin, time.monotonic()))
        until(lambda: "quarantined" in w.log(), "the quarantine")
        expected = (200, b"served") if on_error == "fail_open" else (503, None)
        until(lambda: not any("x-pid" in fetch(w.http, "/f") for _ in range(20)), "all workers to know")
        for _ in range(20):
            r = fetch(w.http, "/f/crash")
            assert r.status == expected[0] and (expected[1] is None or r.body == expected[1])
        answers = [c.answers for c in clients]
        until(lambda: all(c.answers > a + 50 for c, a in zip(clients, answers)), "all to be served", 20)
    finally:
        for c in clients:
            c.stop.set()
        for c in clients:
            c.join()
    assert w.metric("weir_worker_deaths_total") == 3
    assert not [c.refused for c in clients if c.refused]
    for c in clients:
        for when, pid in c.broken:
            assert any(begin <= when <= end for _, begin, end in restarts), (when, restarts)
            assert pid is None or pid in {dead for dead, _, _ in restarts}, "a connection of a worker that lives"
        assert len(c.broken) <= 2 * len(restarts)
    assert longest < 1.0 * SLOW, f"{longest} s from the crash to an answer on a new connection"


DYING = """
#include <weir/module.h>
#include <stdlib.h>
static int *volatile nowhere; /* the compiler would leave out what it knows to end badly */
static weir_rc die(weir_task *t, const void *i, void *c, void *arg)
{ (void)t, (void)i, (void)c, (void)arg; *nowhere = 1; return WEIR_DONE; }
static weir_rc on_request(weir_req *r, const void *i, void *c)
{
        weir_str path;
        (void)i, (void)c;
        weir->var_get(r, WEIR_STR("path"), &path);
        if (weir_eq(path, WEIR_STR("/f/exit")))
                exit(3);
        if (weir_eq(path, WEIR_STR("/f/timer")))
                return weir->timer(r, 1000, die, NULL);
        if (weir_eq(path, WEIR_STR("/f/work")))
                weir->spawn(r, 0, die, NULL, 0);
        if (weir_eq(path, WEIR_STR("/f/body")))
                weir->body_mode(r, WEIR_BODY_BUFFER, 0);
        return WEIR_CONTINUE;
}
static weir_rc on_request_body(weir_req *r, const void *i, void *c, const weir_chunk *b)
{ (void)b; return die(r, i, c, NULL); }
static void on_log(weir_req *r, const void *i, void *c)
{
        weir_str path;
        if (weir->var_get(r, WEIR_STR("path"), &path) && weir_eq(path, WEIR_STR("/f/log")))
                die(r, i, c, NULL);
}
WEIR_MODULE(.name = "dying", .version = "1", .on_request = on_request, .on_request_body = on_request_body,
            .on_log = on_log);
"""


@pytest.mark.parametrize("where, phase, route", [
    ("exit", "on_request", " on route /f"),
    ("timer", "a completion", " on route /f"),
    ("body", "on_request_body", " on route /f"),
    ("log", "on_log", " on route /f"),
    ("work", "background work", ""),  # which is of no request
])
def test_a_death_is_told_with_function_and_route(weir, server, where, phase, route):
    w = weir("module dying @dir@/dying.so; listen 127.0.0.1:@http@; upstream u { server @backend@; } "
             "host * { function dying name=f; route /f { proxy u; } route / { respond 200; } }",
             start=False, backend=server())
    w.deaths_expected = True
    build(w.file("dying.c", DYING), w.dir / "dying.so")
    w.start()
    assert fetch(w.http, "/f").status == 200
    with raw.client(w.http) as c:
        c.send(request("POST", f"/f/{where}", body=b"body"))
        w.wait_deaths(1)
    how = r"exit status \d+" if where == "exit" else r"signal 11 \(.*\)"
    w.wait_log(rf"ended: {how} in module dying: {phase} of function dying f \(weir\.conf:2\){route}, on loop \d")
    assert w.metric("weir_function_strikes_total", module="dying") == 1
