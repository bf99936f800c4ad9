"""Random traffic over HTTP/2: streams with random bodies, resets, stalls and cut connections, before
servers of HTTP/1.1 and HTTP/2 that answer, refuse and reset at random, with reloads in between.  What
arrives whole must be what was sent; nothing may stay open.  WEIR_SEED repeats a run."""
import hashlib
import os
import random
import socket
import time

from h2.exceptions import StreamClosedError

from kit import until
from kit import h2
from kit.h2_peer import ErrorCodes, serve
from test_h2 import h2c

STEPS = 400
SIZES = (0, 1, 1000, 70000, 200000)  # of a server's own part of a body


def body_of(seed, size):
    return random.Random(seed).randbytes(size)


def send(p, a, data, end):
    """Peer.data, but for a stream that is reset meanwhile."""
    while data and a.reset is None:
        n = min(len(data), p.h.local_flow_control_window(a.id), p.h.max_outbound_frame_size)
        if n == 0:
            p.pump()
            continue
        p.h.send_data(a.id, data[:n])
        data = data[n:]
        p.flush()
    if end and a.reset is None:
        p.h.end_stream(a.id)
        p.flush()


def reply_h2(p, a):
    r = random.Random(a.path)
    fate = r.random()
    try:
        if a.reset is not None:
            return
        if fate < 0.05:
            p.reset(a, ErrorCodes.REFUSED_STREAM)
            return
        if fate < 0.10:
            p.head(a, 200)
            send(p, a, b"cut", False)
            p.reset(a)
            return
        if fate < 0.3 and not a.path.endswith("doomed"):
            p.head(a, 103, [("link", "</x>")])
        data = bytes(a.body) + body_of(a.path, r.choice(SIZES))
        p.head(a, 200, [("x-sum", hashlib.sha1(bytes(a.body)).hexdigest())])
        send(p, a, data, fate < 0.6)
        if fate >= 0.6 and a.reset is None:
            p.h.send_headers(a.id, [("x-end", "yes")], end_stream=True)
            p.flush()
    except StreamClosedError:
        pass


def reply_h1(q):
    r = random.Random(q.target)
    fate = r.random()
    data = q.body + body_of(q.target, r.choice(SIZES))
    head = f"HTTP/1.1 200 OK\r\nx-sum: {hashlib.sha1(q.body).hexdigest()}\r\n"
    if fate < 0.3 and not q.target.endswith("doomed"):
        head = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + head
    if fate < 0.6:
        return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data
    out = f"{head}transfer-encoding: chunked\r\n\r\n".encode()
    while data:
        n = r.randrange(1, 30000)
        out += b"%x\r\n" % len(data[:n]) + data[:n] + b"\r\n"
        data = data[n:]
    return out + b"0\r\nx-end: yes\r\n\r\n"


class Flight:
    """A request under way on a client."""

    def __init__(self, c, stream, path, body):
        self.c, self.id, self.path, self.rest, self.body = c, stream, path, body, body


class Traffic:
    def __init__(self, r, connect, port):
        self.r, self.connect, self.port = r, connect, port
        self.clients = [self.client() for _ in range(4)]
        self.flights, self.n, self.whole, self.cut = [], 0, 0, 0

    def client(self):
        c = self.connect(self.port, window=self.r.choice([1000, 65535, 1 << 20]))
        c.until(lambda: c.settings)
        return c

    def begin(self):
        c = self.r.choice(self.clients)
        self.n += 1
        path = f"/{self.r.choice('ab')}/{self.n}.{self.r.randrange(1 << 30)}"
        path += self.r.choice(["", "", "", "doomed"])  # python3-h2 takes no 103 on a stream it has reset
        body = body_of(path + "up", self.r.choice([0, 0, 0, 1, 5000, 20000, 100000]))
        head = {"content-length": str(len(body))} if body and self.r.random() < 0.5 else {}
        i = c.request("POST" if body else "GET", path, head, end=not body)
        self.flights.append(Flight(c, i, path, body))

    def push(self, f):
        """Some of its body, as far as the windows allow."""
        if not f.rest or f.c.answer(f.id).over:
            return
        n = min(f.c.h2.local_flow_control_window(f.id), f.c.h2.max_outbound_frame_size, len(f.rest))
        if n:
            f.c.h2.send_data(f.id, f.rest[:n], end_stream=n == len(f.rest))
            f.rest = f.rest[n:]
            f.c.flush()

    def reset(self, f):
        if not f.c.answer(f.id).over:
            f.c.h2.reset_stream(f.id, h2.CANCEL)
            f.c.flush()
            self.flights.remove(f)

    def doomed(self):
        return [f for f in self.flights if f.path.endswith("doomed")]

    def drop(self):
        """A connection ends in the middle of all it carries."""
        c = self.r.choice(self.clients)
        self.flights = [f for f in self.flights if f.c is not c]
        if self.r.random() < 0.5:
            c.sock.shutdown(socket.SHUT_WR)
        c.close()
        self.clients[self.clients.index(c)] = self.client()

    def take(self):
        for c in self.clients:
            c.sock.settimeout(0.001)
            try:
                assert c.take(), f"weir closed a connection: {c.goaways}"
            except TimeoutError:
                pass
        for f in [f for f in self.flights if f.c.answer(f.id).over]:
            self.flights.remove(f)
            self.judge(f, f.c.answer(f.id))

    def judge(self, f, a):
        if not a.ended or a.status != 200:
            assert a.reset is not None or a.status == 502, (f.path, a)
            self.cut += 1
            return
        assert f.rest == b""
        assert a.get("x-sum") == hashlib.sha1(f.body).hexdigest(), f.path
        own = a.body[len(f.body):]
        assert a.body[:len(f.body)] == f.body, f.path
        assert own == body_of(f.path, len(own)), f.path
        assert len(own) in SIZES, f.path
        assert not a.trailers or dict(a.trailers) == {"x-end": "yes"}
        self.whole += 1


def test_random_traffic(weir, server, h2c):
    seed = int(os.environ.get("WEIR_SEED", time.time_ns() % 1000000))
    print(f"WEIR_SEED={seed}")
    r = random.Random(seed)
    one, two = server(reply_h1), server(script=serve(reply_h2))
    conf = ("threads 1; listen 127.0.0.1:@http@ { protocols h2c; } body max=off; "
            "upstream one { server @one@; eject off; } upstream two { server @two@; protocol h2c; eject off; } "
            "host * { route /a/ { proxy one; } route /b/ { proxy two; } } ")
    w = weir(conf, one=one, two=two)
    t = Traffic(r, h2c, w.http)
    for step in range(STEPS):
        what = r.random()
        if what < 0.35 and len(t.flights) < 40:
            t.begin()
        elif what < 0.8 and t.flights:
            t.push(r.choice(t.flights))
        elif what < 0.85 and t.doomed():
            t.reset(r.choice(t.doomed()))
        elif what < 0.87:
            t.drop()
        elif what < 0.875:
            w.reload()
        if r.random() < 0.7:
            t.take()
    end = time.monotonic() + 20
    while t.flights:
        assert time.monotonic() < end, [(f.path, len(f.rest), f.c.answer(f.id)) for f in t.flights]
        for f in list(t.flights):
            t.push(f)
        t.take()
    assert t.whole > 20
    for c in t.clients:
        c.close()
    until(lambda: w.metric("weir_requests_open") == 0, "all requests to end")
    print(t.whole, "whole", t.cut, "cut")
