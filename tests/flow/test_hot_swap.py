"""Modules change under load: two hundred times to and fro with requests suspended in Redis, installed files that
are overwritten and deleted at any moment, and modules that a reload must refuse."""
import os
import random
import re
import shutil
import signal
import threading
from pathlib import Path

import pytest

from kit import SLOW, raw, until
from kit.load import Load
from kit.raw import fetch, request
from test_functions import ZOO, build, zoo  # noqa: F401 (a fixture)
from test_reload_load import pss

# A sanitizer makes each some ten times as long.
RELOADS = int(os.environ.get("WEIR_FLOW_RELOADS", "200" if SLOW == 1 else "40"))
CONF = """
module swap @dir@/swap.so; threads 2;
listen 127.0.0.1:@http@;
redis store { server @redis@; timeout command=20s; }
redis held { server @held@; timeout command=10m; }
upstream u { server @backend@; retry off; }
host * { route / { function swap store=store held=held timeout=10m; proxy u; } }
"""
# Each hook and each completion puts its version's letter into the body twice.
GOOD = """local letter = headers["x-first"]
  return status == 200 and letter and headers["x-then"] == letter and #body == 16 and body == letter:rep(16)"""


class HeldRedis:
    """A Redis that answers GET when it is told to."""

    def __init__(self, server):
        self.lock = threading.Lock()
        self.waiting = []  # (stream, reply) in the order of their coming
        self.asked = 0
        self.server = server(script=self.serve)

    def serve(self, c):
        c.sock.settimeout(None)
        while True:
            words = []
            for _ in range(int(c.read_until(b"\r\n")[1:])):
                words.append(c.read(int(c.read_until(b"\r\n")[1:]) + 2)[:-2])
            get = words[0].upper() == b"GET"
            reply = b"$1\r\nx\r\n" if get else b"+PONG\r\n" if words[0].upper() == b"PING" else b"+OK\r\n"
            with self.lock:
                self.asked += get
                if get or any(s is c for s, _ in self.waiting):
                    self.waiting.append((c, reply))
                else:
                    c.send(reply)

    def release(self, n):
        with self.lock:
            for c, reply in self.waiting[:n]:
                c.send(reply)
            del self.waiting[:n]


@pytest.fixture
def swap(weir, server, nginx, redis, tmp_path):
    """A weir with version a installed; .builds are the files of both, .held is its slow Redis."""
    store = redis()
    store("SET", "swap", "x")
    held = HeldRedis(server)
    w = weir(CONF, start=False, backend=nginx(), redis=store, held=held.server)
    w.held = held
    w.builds = {}
    for letter in "ab":
        w.builds[letter] = w.dir / f"swap-{letter}.so"
        build(ZOO / "swap.c", w.builds[letter], ("cc", "-O1", f'-DLETTER="{letter}"'))
    install(w, "a")
    w.start()
    return w


def install(w, letter):
    shutil.copy(w.builds[letter], w.dir / "swap.so.new")
    (w.dir / "swap.so.new").rename(w.dir / "swap.so")


def load(w):
    return Load(f"http://127.0.0.1:{w.http}/hello", 128, GOOD, "POST", "what it asks for")


def mapped(w):
    """The images of the module in the workers: (worker, file)."""
    out = set()
    for pid in w.children():
        try:
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                name = re.search(r"\S*/\S*swap\S*\.so.*|/memfd:\S*swap\S*.*", line)
                if name:
                    out.add((pid, name.group(0)))
        except FileNotFoundError:  # a checker, which has ended
            pass
    return out


def alive(w):
    return [m["id"] for m in w.status()["modules"] if m["name"] == "swap"]


def copies(w):
    """The master's files behind these, where it can have such."""
    folders = {Path(name).parent for _, name in mapped(w) if "memfd" not in name}
    return [p for f in folders for p in f.glob(f"swap.*.{w.process.pid}-*.so")]


def only_the_versions_alive(w):
    """What is mapped is at most one image of each version that a request or the configuration has."""
    def holds():
        images = mapped(w)
        assert not any(str(w.dir) in name for _, name in images), "the installed file itself"
        return 0 < len(images) <= len(alive(w)) and len(copies(w)) <= len(alive(w))

    until(holds, lambda: f"images {mapped(w)} of the versions {alive(w)}, copies {copies(w)}", 10)


def letters(r):
    return r.status, r.get("x-first"), r.get("x-then"), r.body.decode()


def all_of(letter):
    return 200, letter, letter, letter * 16


@pytest.mark.alone
def test_two_builds_to_and_fro(swap):
    w = swap
    held = []  # (its letter, its connection), two of each of the last two generations
    after20 = None
    with load(w) as wrk:
        until(lambda: w.metric("weir_connections") >= 128 and w.metric("weir_requests_total") > 1000, "the whole load")
        for n in range(1, RELOADS + 1):
            old, new = "ab"[(n - 1) % 2], "ab"[n % 2]
            for i in range(2):  # one in each hook, in turn
                c = raw.client(w.http)
                c.sock.settimeout(120 * SLOW)
                held.append((old, c.send(request("POST", f"/hello/{(2 * n + i) % 4}", body=b"held"))))
            until(lambda: w.held.asked == 2 * n, "two more to wait in Redis", 20)
            install(w, new)
            w.reload()
            assert letters(fetch(w.http, "/hello", "POST", body=b"x")) == all_of(new)
            if n % 10 == 0:
                only_the_versions_alive(w)
            if len(held) > 2:  # these have seen two reloads
                w.held.release(2)
                for letter, c in held[:2]:
                    assert letters(c.response()) == all_of(letter)
                    c.close()
                del held[:2]
            if n == 20:
                until(lambda: w.metric("weir_generations_alive") <= 2, "old generations to go", 20)
                after20 = pss(w)
        until(lambda: w.metric("weir_generations_alive") <= 2, "old generations to go", 20)
        if SLOW == 1:  # a sanitizer keeps what was freed
            until(lambda: pss(w) <= after20 * 1.02,
                  lambda: f"PSS {pss(w)} KiB to be within 2 % of {after20} KiB after the twentieth reload", 15)
        w.held.release(2)
        for letter, c in held:
            assert letters(c.response()) == all_of(letter)
            c.close()
        until(lambda: len(alive(w)) == 1, lambda: f"one version to be left, not {alive(w)}", 20)
        only_the_versions_alive(w)
        assert wrk.end() > 20 * RELOADS
    assert w.metric("weir_swap_mixed_total") == 0
    assert w.metric("weir_function_calls_total", result="error") == 0
    w.wait_metric("weir_generations_alive", 1)


# ---------------------------------------------------------------- the installed file


def spoil(w, chance):
    """One of the things that happen to files."""
    path = w.dir / "swap.so"
    data = w.builds[chance.choice("ab")].read_bytes()
    what = chance.choice(["delete", "empty", "cut", "garbage", "in place", "slowly", "renamed"])
    if what == "delete":
        path.unlink(missing_ok=True)
    elif what == "renamed":
        install(w, chance.choice("ab"))
    else:
        with open(path, "r+b" if path.exists() else "wb") as f:
            if what == "empty":
                f.truncate(0)
            elif what == "cut":
                f.truncate(chance.randrange(len(data)))
            elif what == "garbage":
                f.write(chance.randbytes(len(data)))
            elif what == "in place":
                f.write(data)
                f.truncate()
            else:
                f.truncate(0)
                for at in range(0, len(data), 1000):
                    f.write(data[at:at + 1000])
                    f.flush()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_installed_file_at_any_moment(swap, seed):
    """Whatever becomes of it, and when: what runs goes on, and a reload takes all of it or none."""
    w = swap
    chance = random.Random(seed)
    stop, spoilt = threading.Event(), []

    def spoil_on():
        try:
            while not stop.is_set():
                spoil(w, chance)
                stop.wait(chance.random() * 0.02)
        except Exception as error:  # noqa: BLE001 (any is a failure)
            spoilt.append(error)

    spoiler = threading.Thread(target=spoil_on)
    codes = []
    with load(w) as wrk:
        until(lambda: w.metric("weir_connections") >= 128 and w.metric("weir_requests_total") > 1000, "the whole load")
        spoiler.start()
        try:
            while len(codes) < RELOADS // 8 or {0, 1} - set(codes) and len(codes) < RELOADS:
                codes.append(w.command("-s", "reload").returncode)
        finally:
            stop.set()
            spoiler.join()
        assert not spoilt
        assert set(codes) == {0, 1}, "some are taken, some refused"
        for letter in "ab":
            install(w, letter)
            w.reload()
            assert letters(fetch(w.http, "/hello", "POST", body=b"x")) == all_of(letter)
            (w.dir / "swap.so").write_bytes(b"")
            (w.dir / "swap.so").unlink()
            assert letters(fetch(w.http, "/hello", "POST", body=b"x")) == all_of(letter)
        only_the_versions_alive(w)
        assert wrk.end() > 0
    assert w.metric("weir_worker_deaths_total") == 0
    assert w.metric("weir_swap_mixed_total") == 0


def test_a_file_that_is_written_while_it_is_read(swap):
    """Parts of two builds may well load: they are not tried."""
    w = swap
    path, stop = w.dir / "swap.so", threading.Event()
    with open(path, "r+b") as f:
        f.truncate(60 << 20)  # so that reading it takes its time

    def write_on():
        with open(path, "r+b", buffering=0) as f:
            while not stop.is_set():
                f.seek(-1, os.SEEK_END)
                f.write(b"\0")

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        assert "swap.so: it was changed while it was read" in w.reload(ok=False).stderr
    finally:
        stop.set()
        writer.join()
    assert letters(fetch(w.http, "/hello", "POST", body=b"x")) == all_of("a")
    w.reload()
    assert letters(fetch(w.http, "/hello", "POST", body=b"x")) == all_of("a")


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("name", ["create", "case", "noentry", "abi", "abort", "exit", "load_abort"])
def test_a_bad_build_by_signal(weir, zoo, name):  # noqa: F811
    """Installed over the good one, which goes on serving, under load and in requests that it has suspended."""
    folder = zoo("null").parent
    path = folder / "installed.so"
    source = folder / f"good_{name}.c"
    source.write_text(f"""#include <weir/module.h>
        static weir_rc late(weir_task *r, const void *i, void *c, void *a)
        {{ (void)i, (void)c, (void)a; return weir->respond(r, 200, WEIR_STR("good")); }}
        static weir_rc hook(weir_req *r, const void *i, void *c)
        {{ (void)i, (void)c; return weir->timer(r, 300000, late, NULL); }}
        WEIR_MODULE(.name = "bad_{name}", .version = "1", .on_request = hook);""")
    shutil.copy(build(source, folder / f"good_{name}.so"), path)
    w = weir(f"module bad_{name} {path}; listen 127.0.0.1:@http@; host * {{ route /f {{ function bad_{name}; "
             "respond 500; } route / { respond 200 other; } }", leaks=name != "exit")
    with Load(f"http://127.0.0.1:{w.http}/f", 32, 'return status == 200 and body == "good"') as suspended, \
            Load(f"http://127.0.0.1:{w.http}/", 8, "return status == 200") as others:
        until(lambda: w.metric("weir_requests") >= 32, "the load to begin")
        for n, replace in enumerate([lambda: path.write_bytes(zoo(name).read_bytes()),
                                     lambda: shutil.copy(zoo(name), path)], 2):
            replace()
            w.send(signal.SIGHUP)
            w.wait_log(rf"configuration {n} was refused", seconds=20)
            ended = w.metric("weir_function_calls_total") + 64
            until(lambda: w.metric("weir_function_calls_total") > ended, "those to end", 10)
        assert suspended.end() > 0 and others.end() > 0
    assert fetch(w.http, "/f").body == b"good"
    assert len(w.status()["generations"]) == 1
    assert w.metric("weir_worker_deaths_total") == 0
    shutil.copy(folder / f"good_{name}.so", path)
    w.reload()
    assert fetch(w.http, "/f").body == b"good"
