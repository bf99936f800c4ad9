"""weir -s reload --canary: a share of the clients tries the new configuration, and weir decides by
itself whether it comes into force."""
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from kit import SLOW, h2, until, ws
from kit import proxy_header as ph
from kit.raw import answer, client, fetch, request
from kit.weir import TOP

LISTEN = "listen 127.0.0.1:@http@ { protocols h2c http/1.1; }"
CLIENTS = [f"127.0.{1 + i // 200}.{1 + i % 200}" for i in range(400)]
SOME = CLIENTS[:60]
PROMOTED, REFUSED, BACK = 0, 1, 2


def numbered(n, more="", listen=LISTEN):
    return f'{listen} {more} host * {{ route / {{ respond 200 "{n}"; }} }}'


def proxied(n, more="", route=""):
    return (f"module headers; {LISTEN} upstream u {{ server @backend@; }} {more} host * {{ "
            f"function headers {{ set response X-Number {n}; }} route / {{ {route} proxy u; }} }}")


def number_for(w, ip, **more):
    return int(fetch(w.http, bind=ip, **more).body)


def get(c):
    """The answer on a new stream of an HTTP/2 connection."""
    stream = c.request()
    c.until(lambda: c.answer(stream).ended)
    return int(c.answer(stream).body)


class Canary:
    """The command that waits for a canary, running beside the scenario."""

    def __init__(self, w, config, share="20%", period="60s", *more, begins=True):
        if config is not None:
            w.configure(config)
        self.w = w
        before = w.status()["canary"] or {"generation": 0}
        self.command = subprocess.Popen(
            [str(w.binary), "-c", str(w.conf), "-s", "reload", "--canary", share, "--for", period, *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=w.environment())
        if begins:
            until(lambda: self.share_is_open(before["generation"]), self.log, 10)

    def share_is_open(self, before):
        """At once everywhere, a moment after it was announced."""
        now = self.w.status()["canary"]
        return now and now["generation"] > before and \
            (now["state"] != "running" or now["seconds_left"] < self.seconds())

    def seconds(self):
        return float(re.search(r"--for', '(\d+)s", str(self.command.args)).group(1))

    def log(self):
        return f"the canary to begin:\n{self.w.log()}"

    def wait(self, want, *words):
        out, err = self.command.communicate(timeout=60 * SLOW)
        assert self.command.returncode == want, f"{self.command.returncode}: {out}{err}\n{self.w.log()}"
        for word in words:
            assert word in (err if want else out), (word, out, err)
        return out + err


@pytest.fixture
def canary():
    made = []

    def make(*args, **more):
        made.append(Canary(*args, **more))
        return made[-1]

    yield make
    for c in made:
        c.command.kill()
        c.command.communicate()


@pytest.fixture(scope="module")
def failing():
    """A module whose function fails each request."""
    folder = Path(tempfile.mkdtemp(prefix="canary", dir=Path.home()))
    folder.chmod(0o755)
    out = folder / "bad_error.so"
    subprocess.run(["cc", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{TOP}/src/include", "-o",
                    str(out), str(TOP / "tests/modules/bad_error.c")], check=True)
    yield f"module bad_error {out}; " + LISTEN + " host * { route / { function bad_error on_error=%s; respond 200 1; } }"
    shutil.rmtree(folder)


class Traffic:
    """Clients that ask all the time, each over connections of its own and in order; what each saw."""

    def __init__(self, w, ips=CLIENTS[:40], threads=4, number=lambda r: int(r.get("x-number") or r.body)):
        self.w, self.number = w, number
        self.stop = threading.Event()
        self.seen = {ip: [] for ip in ips}
        self.failed = []
        self.threads = [threading.Thread(target=self.work, args=(ips[i::threads],)) for i in range(threads)]
        for t in self.threads:
            t.start()
        until(lambda: self.failed or all(self.seen.values()), "each client to be served once", 30)

    def work(self, ips):
        try:
            kept = {ip: client(self.w.http, bind=ip) for ip in ips}
            more = True
            while more:
                more = not self.stop.is_set()  # once more when it is, so that all see how it ended
                for ip in ips:
                    self.note(ip, kept[ip].send(request()).response())
                    self.note(ip, fetch(self.w.http, bind=ip))
            for c in kept.values():
                c.close()
        except Exception as e:
            self.failed.append(e)

    def note(self, ip, r):
        if r.status != 200:
            self.failed.append(r)
        self.seen[ip].append(self.number(r) if r.status == 200 else -1)

    def end(self):
        self.stop.set()
        for t in self.threads:
            t.join(30)
        return self.seen


def flips(numbers):
    return [b for a, b in zip(numbers, numbers[1:]) if a != b]


# ------------------------------------------------------------------ who


def test_a_share_by_address(weir, canary):
    w = weir("threads 2; " + numbered(0))
    canary(w, "threads 2; " + numbered(1))
    chosen = {ip: number_for(w, ip) for ip in CLIENTS}
    assert 40 <= sum(chosen.values()) <= 120, "a fifth of 400"
    for _ in range(3):
        assert {ip: number_for(w, ip) for ip in SOME} == {ip: chosen[ip] for ip in SOME}
    status = w.status()
    assert {g["number"] for g in status["generations"]} == {1, 2}
    assert status["generation"] == 1
    assert status["canary"]["generation"] == 2 and status["canary"]["share"] == 0.2
    assert 0 < status["canary"]["seconds_left"] < 60
    until(lambda: w.status()["canary"]["new"]["requests"] >= sum(chosen.values()), "the counts")
    assert w.status()["canary"]["old"]["requests"] >= 400 - sum(chosen.values())
    assert w.metric("weir_canary_generation") == 2
    assert "canary: configuration 2" in w.command("-s", "status", check=True).stdout


def test_connections_that_were_open_take_part(weir, canary):
    """HTTP/1 and HTTP/2, by request."""
    w = weir("threads 2; " + numbered(0))
    h1s = {ip: client(w.http, bind=ip) for ip in SOME}
    h2s = {ip: h2.Client(w.http, bind=ip) for ip in SOME[:20]}
    assert {int(c.send(request()).response().body) for c in h1s.values()} == {0}
    assert {get(c) for c in h2s.values()} == {0}
    canary(w, "threads 2; " + numbered(1), "50%")
    chosen = {ip: number_for(w, ip) for ip in SOME}
    assert set(chosen.values()) == {0, 1}
    for _ in range(2):
        assert {ip: int(c.send(request()).response().body) for ip, c in h1s.items()} == chosen
        assert {ip: get(c) for ip, c in h2s.items()} == {ip: chosen[ip] for ip in h2s}
    w.reload(None)
    assert {int(c.send(request()).response().body) for c in h1s.values()} == {1}
    assert {get(c) for c in h2s.values()} == {1}
    for c in [*h1s.values(), *h2s.values()]:
        c.close()


def test_the_address_is_what_a_proxy_reports(weir, canary):
    """By the trusted_proxies of the configuration in force, and the same by a PROXY header."""
    listen = LISTEN + " listen 127.0.0.1:@behind@ proxy_protocol;"
    w = weir(numbered(0, "trusted_proxies 127.0.0.1;", listen))
    canary(w, numbered(1, "", listen), "50%")
    chosen = {ip: number_for(w, ip) for ip in SOME}
    assert set(chosen.values()) == {0, 1}
    assert {ip: int(fetch(w.http, fields={"x-forwarded-for": ip}).body) for ip in SOME} == chosen
    for ip in SOME:
        with client(w.behind) as c:
            c.send(ph.v2(src=ip) + request())
            assert int(c.response().body) == chosen[ip]
    untrusted = SOME[0]
    assert {int(fetch(w.http, bind=untrusted, fields={"x-forwarded-for": ip}).body) for ip in SOME} == \
        {chosen[untrusted]}, "what others say of themselves does not count"


def test_the_same_clients_on_all_workers(weir, canary):
    head = "workers 2; threads 2; "
    w = weir(head + numbered(0))
    canary(w, head + numbered(1), "50%")
    chosen = {ip: {number_for(w, ip) for _ in range(12)} for ip in SOME}
    assert all(len(seen) == 1 for seen in chosen.values())
    assert {min(seen) for seen in chosen.values()} == {0, 1}


def test_tunnels_are_left_alone(weir, server, canary):
    def script(c):
        c.server.take(c)
        c.send(ws.SWITCH)
        while True:
            c.send(c.read(1))

    w = weir(proxied(0), backend=server(script=script))
    opened = [client(w.http, bind=ip).send(request(fields=ws.UPGRADE)) for ip in SOME[:10]]
    assert {c.response().status for c in opened} == {101}

    def use():
        for c in opened:
            c.send(b"a")
            assert c.read(1) == b"a"

    k = canary(w, proxied(1), "50%")
    use()
    w.reload(None)
    k.wait(BACK, "another reload")
    use()
    for c in opened:
        c.close()


# ------------------------------------------------------------------ promoted


def test_a_good_one_is_promoted(weir, server, canary):
    w = weir(proxied(0), backend=server())
    traffic = Traffic(w)
    k = canary(w, proxied(1), "30%", "2s")
    out = k.wait(PROMOTED, "reload 2: promoted:")
    assert "% of its requests failed" in out
    assert all(int(fetch(w.http, bind=ip).get("x-number")) == 1 for ip in SOME)
    seen = traffic.end()
    assert not traffic.failed, traffic.failed
    assert {n for numbers in seen.values() for n in numbers} == {0, 1}
    for ip, numbers in seen.items():  # none back
        assert flips(numbers) == [1], (ip, numbers)
    w.wait_log(r"configuration 2 gets 30 % of the clients for 2s")
    w.wait_log(r"configuration 2 is promoted: ")
    w.wait_log(r"configuration 2 is in force")
    c = w.status()["canary"]
    assert c["state"] == "promoted" and c["seconds_left"] == 0 and c["reason"] in out
    assert c["new"]["answered"] > 20 and c["old"]["answered"] > 20 and c["new"]["p90_ms"] > 0
    w.wait_metric("weir_reloads_total", 1, result="ok")
    w.wait_metric("weir_generations_alive", 1)
    w.wait_metric("weir_canary_generation", 0)


def test_listeners_and_certificates_wait_for_the_promotion(weir, connect, canary, ca):
    def conf(n, name, more=""):
        cert, key = ca.cert(name)
        return numbered(n, f"{more} listen 127.0.0.1:@https@ tls {{ certificate {cert} key={key}; }}")

    def name():
        with client(w.https, tls=ca.client(verify=False), name="b.test") as c:
            return str(c.sock.getpeercert(True))

    w = weir(conf(0, "a.test", "listen 127.0.0.1:@old@;"))
    old = name()
    k = canary(w, conf(1, "b.test", "listen 127.0.0.1:@new@;"), "99%", "3s")
    with pytest.raises(ConnectionRefusedError):
        fetch(w.new)
    assert fetch(w.old).status == 200 and fetch(w.old, bind=SOME[0]).body == b"0", "the new one does not listen there"
    assert name() == old
    k.wait(PROMOTED)
    assert fetch(w.new).body == b"1"
    assert name() != old
    with pytest.raises(ConnectionRefusedError):
        fetch(w.old)


def test_an_address_in_use_is_seen_before(weir, server, canary):
    w = weir(numbered(0))
    k = canary(w, numbered(1, f"listen {server()};"), begins=False)
    k.wait(REFUSED, "refused, nothing was changed")
    assert fetch(w.http).body == b"0"


def test_tls_that_asks_for_more_is_not_tried(weir, connect, canary, ca):
    """Who went through less than the new one asks for stays with the old one: no 421, no way around."""
    cert, key = ca.cert("a.test")

    def conf(n, more=""):
        return numbered(n, listen=f"listen 127.0.0.1:@https@ tls {{ certificate {cert} key={key}; {more} }}")

    w = weir(conf(0))
    k = canary(w, conf(1, f"client_certificate required ca={ca.cert_file};"), "90%", "2s")
    for ip in SOME[:20]:
        r = fetch(w.https, bind=ip, tls=ca.client())
        assert (r.status, r.body) == (200, b"0")
    k.wait(PROMOTED)


def test_too_little_traffic(weir, canary):
    w = weir(numbered(0))
    canary(w, numbered(1), "50%", "1s").wait(PROMOTED, "too little traffic to judge", "nothing speaks against it")
    for ip in SOME[:5]:
        assert number_for(w, ip) == 1
    k = canary(w, f"{LISTEN} host * {{ route / {{ respond 500; }} }}", "50%", "3s")
    assert any(fetch(w.http, bind=ip).status == 500 for ip in SOME), "one of them stops it"
    k.wait(BACK, "too little traffic to judge", "ended in errors")


# ------------------------------------------------------------------ rolled back


def rolled_back(w, k, reason, workers=1):
    out = k.wait(BACK, "rolled back", reason)
    w.wait_log(rf"error \[canary\] configuration 2 is rolled back: [^\n]*{reason}")
    c = w.status()["canary"]
    assert c["state"] == "rolled_back" and reason in c["reason"] and c["reason"] in out
    w.wait_metric("weir_reloads_total", 1, result="rolled_back")
    w.wait_metric("weir_generations_alive", workers)
    w.wait_metric("weir_canary_generation", 0)
    assert w.status()["generation"] == 1
    assert "rolled back" in w.command("-s", "status", check=True).stdout


@pytest.mark.parametrize("on_error,reason", [("fail_open", "had a function fail"), ("fail_closed", "ended in errors")])
def test_a_function_that_fails(weir, canary, failing, on_error, reason):
    """Long before the time is over, also where clients do not notice."""
    w = weir(numbered(0))
    k = canary(w, failing % on_error, "20%", "3600s")
    stop = threading.Event()

    def work():
        while not stop.is_set():
            for ip in CLIENTS[:100]:
                fetch(w.http, bind=ip)

    t = threading.Thread(target=work)
    t.start()
    rolled_back(w, k, reason)
    stop.set()
    t.join()
    assert {number_for(w, ip) for ip in SOME} == {0}


def test_an_upstream_that_fails(weir, server, canary):
    bad, good = server(answer(b"x", "503 Service Unavailable")), server()
    w = weir(proxied(0), backend=good)
    traffic = Traffic(w)
    k = canary(w, proxied(1, f"upstream bad {{ server {bad}; }}").replace("proxy u", "proxy bad"), "20%", "3600s")
    rolled_back(w, k, "ended in errors")
    after = {ip: len(numbers) for ip, numbers in traffic.seen.items()}
    until(lambda: all(len(traffic.seen[ip]) > n + 1 for ip, n in after.items()), "more requests")
    seen = traffic.end()
    assert all(numbers[-1] == 0 for numbers in seen.values())
    assert all(numbers.count(-1) == 0 for numbers in seen.values() if len(set(numbers)) == 1)


@pytest.mark.parametrize("how", ["slow", "silent"])
def test_a_slow_one(weir, server, canary, how):
    def reply(q):
        hold.wait(0.05 * SLOW if how == "slow" else 60)
        return answer()

    hold = threading.Event()
    late, good = server(reply), server()
    w = weir(proxied(0), backend=good)
    k = canary(w, proxied(1, f"upstream late {{ server {late}; }}").replace("proxy u", "proxy late"), "30%", "4s")
    stop = threading.Event()

    def work(ips):
        while not stop.is_set():
            for ip in ips:
                try:
                    fetch(w.http, bind=ip)
                except (OSError, EOFError, AssertionError):
                    return

    ts = [threading.Thread(target=work, args=(CLIENTS[i::60],), daemon=True) for i in range(60)]
    for t in ts:
        t.start()
    # where all is slow, what takes longer still is mostly not answered yet
    reason = "were not answered yet" if how == "silent" else "took longer than" if SLOW == 1 else \
        "took longer than|were not answered yet"
    reason = w.wait_log(reason, seconds=20)[0].group()
    stop.set()
    hold.set()
    rolled_back(w, k, reason)
    for t in ts:
        t.join(30)


def test_calls_of_grpc_that_fail(weir, canary):
    """With HTTP 200, and a status in the trailers."""
    grpc = pytest.importorskip("grpc")
    from kit import rpc

    good = rpc.Server({"/t.T/Unary": lambda message, context: message})
    bad = rpc.Server({"/t.T/Unary": lambda message, context: context.abort(grpc.StatusCode.INTERNAL, "no")})

    def conf(backend):
        return f"{LISTEN} upstream u {{ protocol h2c; server {backend}; }} host * {{ route / {{ proxy u; }} }}"

    w = weir(conf(good))
    k = canary(w, conf(bad), "50%", "3600s")
    statuses = set()
    for ip in SOME:
        c = h2.Client(w.http, bind=ip)
        stream = c.request("POST", "/t.T/Unary", {"content-type": "application/grpc", "te": "trailers"},
                           body=b"\0\0\0\0\1x")
        c.until(lambda: c.answer(stream).ended)
        statuses.add(dict(c.answer(stream).trailers or c.answer(stream).fields)["grpc-status"])
        c.close()
    assert statuses == {"0", "13"}
    rolled_back(w, k, "ended in errors")
    good.close()
    bad.close()


def test_a_request_under_way_ends_on_its_own(weir, server, canary):
    go = threading.Event()

    def reply(q):
        if q.target == "/slow":
            go.wait(30)
        return answer()

    s = server(reply)
    w = weir(proxied(0), backend=s)
    k = canary(w, proxied(1), "50%")
    chosen = {ip: int(fetch(w.http, bind=ip).get("x-number")) for ip in SOME[:20]}
    waiting = {ip: client(w.http, bind=ip).send(request(target="/slow")) for ip in chosen}
    until(lambda: len([q for q in s.requests if q.target == "/slow"]) == 20, "all to wait")
    w.configure(proxied(0))
    w.reload()
    k.wait(BACK)
    assert {int(fetch(w.http, bind=ip).get("x-number")) for ip in chosen} == {0}
    assert w.metric("weir_generations_alive") == 3
    go.set()
    for ip, c in waiting.items():
        r = c.response()
        assert (r.status, int(r.get("x-number"))) == (200, chosen[ip])
        assert c.send(request()).response().get("x-number") == "0"
        c.close()
    until(lambda: w.metric("weir_generations_alive") == 1, "the others to go")


SLEEPS = r"""
#include <weir/module.h>
static weir_rc woke(weir_task *t, const void *inst, void *ctx, void *arg)
{
        (void)inst, (void)ctx, (void)arg;
        return weir->respond(t, 200, WEIR_STR("7"));
}
static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        (void)inst, (void)ctx;
        return weir->timer(r, 1000000, woke, NULL);
}
WEIR_MODULE(.name = "sleeps", .version = "1", .on_request = hook);
"""


def test_a_suspended_function_ends_on_its_own(weir, canary):
    """Its code stays until then, and no longer."""
    w = weir(numbered(0))
    source = w.file("sleeps.c", SLEEPS)
    subprocess.run(["cc", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{TOP}/src/include", "-o",
                    str(w.dir / "sleeps.so"), str(source)], check=True)
    k = canary(w, f"module sleeps @dir@/sleeps.so; {LISTEN} host * {{ route / {{ function sleeps; respond 500; }} }}",
               "50%")
    waiting = [client(w.http, bind=ip).send(request()) for ip in SOME[:20]]
    until(lambda: [g["requests"] for g in w.status()["generations"] if g["number"] == 2] > [0], "some to wait")
    w.reload(numbered(3))
    k.wait(BACK)
    assert w.metric("weir_generations_alive") == 2
    assert {number_for(w, ip) for ip in SOME} == {3}
    assert {int(c.response().body) for c in waiting} == {0, 7}
    assert {int(c.send(request()).response().body) for c in waiting} == {3}
    w.wait_metric("weir_generations_alive", 1)
    assert w.status()["modules"] == []
    assert "sleeps" not in Path(f"/proc/{w.worker()}/maps").read_text()
    for c in waiting:
        c.close()


# ------------------------------------------------------------------ ended otherwise


def test_a_worker_dies(weir, canary):
    head = "workers 2; threads 2; "
    w = weir(head + numbered(0))
    w.deaths_expected = True
    k = canary(w, head + numbered(1), "50%")
    os.kill(w.status()["workers"][0]["pid"], signal.SIGKILL)
    rolled_back(w, k, "died", 2)
    until(lambda: len(w.status()["workers"]) == 2, "the worker to be replaced")
    assert {number_for(w, ip) for ip in SOME} == {0}
    w.reload(head + numbered(2))
    assert {number_for(w, ip) for ip in SOME} == {2}
    until(lambda: [x["generation"] for x in w.status()["workers"]] == [3, 3], "both to have it")


def test_a_function_that_crashes(weir, canary, failing):
    """Only the share saw it, and it is over with the first death."""
    crash = failing.replace("bad_error.so", "bad_null.so").replace("bad_error", "bad_null") % "fail_closed"
    out = re.search(r"module bad_null (\S+);", crash).group(1)
    subprocess.run(["cc", "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{TOP}/src/include", "-o",
                    out, str(TOP / "tests/modules/bad_null.c")], check=True)
    w = weir(numbered(0))
    w.deaths_expected = True
    k = canary(w, crash, "50%")
    for ip in SOME:
        try:
            fetch(w.http, "/crash", bind=ip)
        except (OSError, EOFError):
            break
    rolled_back(w, k, "died")
    until(lambda: {number_for(w, ip) for ip in SOME} == {0}, "the old one")


def test_another_reload(weir, canary):
    w = weir(numbered(0))
    k = canary(w, numbered(1), "50%")
    w.reload(numbered(2))
    rolled = k.wait(BACK, "another reload was asked for")
    assert "reload 2" in rolled
    assert {number_for(w, ip) for ip in SOME} == {2}
    k = canary(w, numbered(3), "50%")
    w.configure(numbered(4))
    w.send(signal.SIGHUP)
    k.wait(BACK, "another reload was asked for")
    until(lambda: {number_for(w, ip) for ip in SOME} == {4}, "the newest everywhere")
    first = canary(w, numbered(5), "50%")
    second = canary(w, numbered(6), "50%")
    first.wait(BACK, "another reload was asked for")
    assert {number_for(w, ip) for ip in SOME} == {4, 6}
    assert "refused" in canary(w, "nonsense;", begins=False).wait(REFUSED)
    second.wait(BACK)
    assert {number_for(w, ip) for ip in SOME} == {4}


@pytest.mark.parametrize("how", ["quit", "stop", "drain"])
def test_the_end_of_weir(weir, canary, how):
    w = weir(numbered(0))
    k = canary(w, numbered(1), "50%")
    with client(w.http, bind=SOME[0]) as c:
        c.send(request()).response()
        w.command("-s", how, check=True)
    k.wait(BACK, "drain" if how != "stop" else "stopping")
    if how == "drain":
        refused = canary(w, numbered(1), begins=False)
        refused.wait(REFUSED, "no canary while a drain is under way")
        w.reload(numbered(2))
        assert number_for(w, SOME[0]) == 2
    else:
        assert w.process.wait(15 * SLOW) == 0
        w.process = None
        w.judge()


def test_a_binary_upgrade_waits(weir, canary):
    w = weir(numbered(0))
    canary(w, numbered(1), "50%")
    w.send(signal.SIGUSR2)
    w.wait_log("upgrade: not while a reload is under way")
    assert {number_for(w, ip) for ip in SOME} == {0, 1}


@pytest.mark.parametrize("words,said", [
    (("-s", "reload", "--canary", "0"), "--canary 0"),
    (("-s", "reload", "--canary", "100%"), "--canary 100%"),
    (("-s", "reload", "--canary", "many"), "--canary many"),
    (("-s", "reload", "--canary", "5%", "--for", "1ms"), "--for 1ms"),
    (("-s", "reload", "--canary", "5%", "--tolerance", "2"), "--tolerance 2"),
    (("-s", "reload", "--for", "5s"), "--canary"),
    (("-s", "quit", "--canary", "5%"), "-s reload"),
    (("-s", "reload", "--canary"), "--canary"),
    (("-s", "reload", "--canarx", "1%"), "--canarx"),
])
def test_mistakes_on_the_command_line(weir, words, said):
    w = weir(numbered(0), start=False)
    done = w.command(*words)
    assert done.returncode == REFUSED and said in done.stderr.splitlines()[0]


# ------------------------------------------------------------------ what both share


def test_what_is_tried_does_not_configure_servers(weir, server, canary):
    """Checks that would take the server down are not made before they are in force."""
    s = server(lambda q: answer(status="500 No") if q.target == "/health" else answer())
    w = weir(proxied(0), backend=s)
    bad = proxied(1).replace("server @backend@;", "server @backend@; health_check path=/health interval=50ms fall=1;")
    k = canary(w, bad, "50%", "2s")
    for ip in SOME:
        assert fetch(w.http, bind=ip).status == 200
    assert not [q for q in s.requests if q.target == "/health"]
    k.wait(PROMOTED)
    until(lambda: [q for q in s.requests if q.target == "/health"], "the checks, now that they count")


def test_what_is_tried_ejects_nobody(weir, server, canary):
    go = threading.Event()

    def reply(q):
        go.wait(0.1)
        return answer()

    s = server(reply)
    eject = "server @backend@; eject failures=2 for=60s;"
    w = weir(proxied(0).replace("server @backend@;", eject), backend=s)
    hasty = proxied(1, route="timeout response=10ms; retry off;").replace("server @backend@;", eject)
    canary(w, hasty, "50%", "60s")
    seen = [fetch(w.http, bind=ip).status for ip in SOME[:20]]
    assert set(seen) == {200, 504}
    assert seen.index(504) < len(seen) - 1 - seen[::-1].index(200)
    w.wait_metric("weir_server_ejections_total", 0)


def test_a_changed_certificate_does_not_bring_it_back(weir, server, canary, ca):
    """What was rolled back is still in the files: only who asks for it gets it."""
    cert, key = ca.cert("a.test")

    def conf(n, status):
        return (f"watch_certificates on; {LISTEN} listen 127.0.0.1:@https@ tls {{ certificate @dir@/c.pem "
                f"key=@dir@/k.pem; }} host * {{ route / {{ respond {status} {n}; }} }}")

    w = weir(conf(0, 200), start=False, files={"c.pem": Path(cert).read_bytes(), "k.pem": Path(key).read_bytes()})
    w.start()
    k = canary(w, conf(1, 500), "50%", "1s")
    for ip in SOME:
        fetch(w.http, bind=ip)
    k.wait(BACK)
    cert, key = ca.cert("b.test")
    for name, path in (("k.pem", key), ("c.pem", cert)):
        shutil.copy(path, w.dir / "new")
        (w.dir / "new").rename(w.dir / name)
    w.wait_log("not reloaded: the configuration in the files is one that was rolled back", seconds=15)
    assert {number_for(w, ip) for ip in SOME} == {0}
    w.reload(conf(2, 200))
    assert {number_for(w, ip) for ip in SOME} == {2}


# ------------------------------------------------------------------ under load


def test_under_load(weir, server, canary, failing):
    """Canaries begin, are promoted and taken back: no request fails, and nobody sees the two in turns."""
    module = re.match(r"module bad_error \S+;", failing).group(0)

    def conf(n):
        bad = (module, "function bad_error on_error=fail_open;") if n % 2 == 0 and n else ("", "")
        return "workers 2; threads 2; " + proxied(n, bad[0], bad[1])

    w = weir(conf(0), backend=server())
    traffic = Traffic(w, CLIENTS[:24], 4)
    for n in range(1, 5):
        k = canary(w, conf(n), "50%", "1s" if n % 2 else "60s")
        k.wait(PROMOTED if n % 2 else BACK)
    asked = {ip: len(numbers) for ip, numbers in traffic.seen.items()}
    until(lambda: traffic.failed or all(len(traffic.seen[ip]) > n + 1 for ip, n in asked.items()), "one more request")
    seen = traffic.end()
    assert not traffic.failed, traffic.failed
    for ip, numbers in seen.items():
        steps = flips([0, *numbers])
        assert steps in ([1, 2, 1, 3, 4, 3], [1, 3, 4, 3], [1, 2, 1, 3], [1, 3]), (ip, steps)
    assert {4 in numbers for numbers in seen.values()} == {True, False}


def pss(w):
    total = 0
    for pid in [w.process.pid, *w.children()]:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            total += int(re.search(r"Pss:\s+(\d+)", f.read()).group(1))
    return total


@pytest.mark.alone
def test_twenty_canaries_leave_nothing(weir, server, canary):
    w = weir(proxied(0), backend=server())
    after5 = None
    for n in range(1, 21):
        k = canary(w, proxied(n), "50%", "1s" if n % 4 == 0 else "60s")
        for ip in CLIENTS[:30]:
            assert fetch(w.http, bind=ip).status == 200
        if n % 4:
            k.command.kill()
        else:
            k.wait(PROMOTED)
        if n == 5:
            after5 = pss(w)
    w.reload(proxied(99))
    until(lambda: w.metric("weir_generations_alive") == 1, "the others to go")
    assert w.status()["canary"]["state"] == "promoted"
    if SLOW == 1:  # a sanitizer keeps what was freed
        until(lambda: pss(w) <= after5 * 1.03, lambda: f"PSS {pss(w)} KiB to be within 3 % of {after5} KiB", 10)
