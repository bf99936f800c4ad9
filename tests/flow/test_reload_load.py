"""A hundred reloads while everything is in use: nothing fails, nothing is closed, nothing is kept."""
import re
import shutil
import subprocess

import pytest

from kit import SLOW, need, raw, until
from kit.load import Load
from kit.raw import request
from kit.weir import TOP

RELOADS = 100
MODULE = r"""
#include <weir/module.h>
static weir_rc on_response(weir_req *r, const void *i, void *c)
{
        (void)i, (void)c;
        return weir->header_set(r, WEIR_RESPONSE, WEIR_STR("x-module"), WEIR_STR("%d")) ? WEIR_ERROR
                                                                                       : WEIR_CONTINUE;
}
WEIR_MODULE(.name = "number", .version = "1.0", .on_response = on_response);
"""
CONF = """
module headers;
module number @dir@/number.so;
listen 127.0.0.1:@http@;
listen 127.0.0.1:@https@ tls { certificate @cert@ key=@key@; }
upstream u { server @backend@; }
upstream streams { server @streams@; }
host * {
    function headers { set response X-Number %d; }
    function number;
    route /stream { timeout tunnel=10m response_idle=10m client_send=10m; proxy streams; }
    route / { proxy u; }
}
"""
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
DOWNLOAD = 1 << 24


def streams(c):
    q = c.server.take(c)
    c.sock.settimeout(600)
    if "upgrade" in q:
        c.send(SWITCH)
        while True:
            c.send(c.read(1))
    c.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % DOWNLOAD)
    for _ in range(DOWNLOAD >> 16):
        c.send(b"d" * 65536)


def pss(w):
    total = 0
    for pid in [w.process.pid, *w.children()]:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            total += int(re.search(r"Pss:\s+(\d+)", f.read()).group(1))
    return total


class Streams:
    """A WebSocket and a download that is read slowly."""

    def __init__(self, w, ctx):
        self.socket = raw.client(w.https, tls=ctx)
        self.socket.send(request(target="/stream", fields={"connection": "upgrade", "upgrade": "websocket"}))
        assert self.socket.response().status == 101
        self.download = raw.client(w.http, rcvbuf=65536)
        self.download.send(request(target="/stream"))
        assert self.download.head().status == 200

    def use(self):
        self.socket.send(b"x")
        assert self.socket.read(1) == b"x"
        assert self.download.read(1000) == b"d" * 1000

    def close(self):
        self.socket.close()
        self.download.close()


@pytest.fixture
def parts(weir, server, nginx, ca):
    cc = need("cc")
    cert, key = ca.cert("a.test")
    n = nginx()
    w = weir(CONF % 0, start=False, backend=n, streams=server(script=streams), cert=cert, key=key)
    for i in range(RELOADS // 10 + 1):
        source = w.file("number.c", MODULE % i)
        subprocess.run([cc, "-std=c11", "-O1", "-fPIC", "-shared", "-fvisibility=hidden",
                        f"-I{TOP}/src/include", "-o", w.dir / f"number{i}.so", source], check=True)
    shutil.copy(w.dir / "number0.so", w.dir / "number.so")
    w.start()
    return w


@pytest.mark.alone
def test_a_hundred_reloads(parts, ca):
    w = parts
    ctx = ca.client()
    load = Load(f"https://127.0.0.1:{w.https}/hello", 32, "return status == 200")
    until(lambda: w.metric("weir_connections") >= 32 and w.metric("weir_requests_total") > 1000, "the whole load")
    opened = [Streams(w, ctx)]
    watch = raw.client(w.http)
    numbers, modules = set(), set()
    after20 = None
    try:
        for n in range(1, RELOADS + 1):
            if n % 10 == 0:
                shutil.copy(w.dir / f"number{n // 10}.so", w.dir / "new.so")
                (w.dir / "new.so").rename(w.dir / "number.so")
            w.reload(CONF % n)
            r = watch.send(request(target="/hello")).response()
            assert r.status == 200
            numbers.add(int(r.get("x-number")))
            modules.add(int(r.get("x-module")))
            if n == 20:  # what is opened from here on is closed again before the second look
                kept = list(opened)
                until(lambda: w.metric("weir_generations_alive") <= len(opened) + 1, "old generations to go")
                after20 = pss(w)
            if n % 10 == 0:
                for s in opened:
                    s.use()
                opened.append(Streams(w, ctx))
        assert numbers == set(range(1, RELOADS + 1))
        assert modules == set(range(RELOADS // 10 + 1))
        for s in opened:
            s.use()
        for s in opened[len(kept):]:
            s.close()
        until(lambda: w.metric("weir_generations_alive") <= len(kept) + 1, "old generations to go", 20)
        if SLOW == 1:  # a sanitizer keeps what was freed
            until(lambda: pss(w) <= after20 * 1.02,
                  lambda: f"PSS {pss(w)} KiB to be within 2 % of {after20} KiB after the twentieth reload", 10)
        for s in kept:
            s.use()
        assert load.end() > 1000
    finally:
        load.close()
        for s in opened:
            s.close()
        watch.close()
    w.wait_metric("weir_worker_deaths_total", 0)
    until(lambda: w.metric("weir_generations_alive") == 1, "only the newest to be left")
