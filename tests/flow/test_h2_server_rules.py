"""Servers that break the rules of HTTP/2 (RFC 9113, RFC 7541), and some that only use them up: what weir, their
client, does to the connection or the stream, what its own client gets, and that the next request is served."""
import queue

import pytest

from kit import h2, h2_peer, raw, until
from kit.h2 import END_HEADERS, END_STREAM, block, frame
from kit.h2_peer import (ACK, CONTINUATION, DATA, GOAWAY, HEADERS, PING, PRIORITY, PUSH, RST_STREAM, SETTINGS,
                         WINDOW)

PROTOCOL, FLOW, CLOSED, SIZE, COMPRESSION = 1, 3, 5, 6, 9
END = END_STREAM | END_HEADERS
PADDED = 8
MAX_WINDOW = (1 << 31) - 1
UNKNOWN = 0x16
NONCE = b"nonce..."
ASK = frame(PING, 0, 0, NONCE)

OK = block([(":status", "200")])
MORE = block([("x-more", "x" * 100)])


# ---------------------------------------------------------------- frames: functions of the stream of the request

def joined(*parts):
    return lambda i: b"".join(p(i) if callable(p) else p for p in parts)


def on(kind, flags=0, payload=b""):
    """A frame on the stream of the request."""
    return lambda i: frame(kind, flags, i, payload)


def head(flags=END_HEADERS, payload=OK):
    return on(HEADERS, flags, payload)


def more(flags=END_HEADERS, payload=MORE):
    return on(CONTINUATION, flags, payload)


def data(body, flags=END_STREAM):
    return on(DATA, flags, body)


def setting(key, value):
    return frame(SETTINGS, 0, 0, key.to_bytes(2, "big") + value.to_bytes(4, "big"))


def number(n):
    return n.to_bytes(4, "big")


WHOLE = joined(head(), data(b"ok"))

# ---------------------------------------------------------------- one weir and one server for all

CONF = """listen 127.0.0.1:@http@; upstream u { server @s@; protocol h2c; retry off; eject off; }
host * { route / { proxy u; } }"""


class World:
    """The server answers /rule with what ask() says and a PING behind it.  Then it listens: to the end of the
    connection, or to the answer of the PING if the connection bears it all."""

    def __init__(self, weir, server):
        self.send = None
        self.extra = b""  # fields of the answer to /next
        self.peers = queue.Queue()
        self.server = server(script=self.script)
        self.weir = weir(CONF, s=self.server)

    def script(self, c):
        c.sock.settimeout(raw.TIMEOUT)
        p = h2_peer.Peer(c)
        p.over = False
        try:
            while True:
                a = p.request(whole=False)
                if a.path == "/rule":
                    self.rule(p, a)
                else:  # no case shares its connection with the next one
                    p.goaway(a.id)
                    p.raw(frame(HEADERS, END_HEADERS, a.id, OK + self.extra))
                    p.raw(frame(DATA, END_STREAM, a.id, b"from %d" % c.number))
        except TimeoutError:
            self.peers.put(p)  # a silence that lasts is seen by the test
            raise

    def rule(self, p, a):
        p.rule = a.id
        try:
            try:
                p.raw(self.send(a.id) + ASK)
            except OSError:
                pass  # what weir had to say is still there
            p.until(lambda: NONCE in p.pongs)
        except (EOFError, ConnectionError):
            p.over = True
            raise
        finally:
            self.peers.put(p)

    def ask(self, send, method="GET", body=b"", length=None):
        """What the client got (None: it was cut off), and the server's side of the connection."""
        self.send = send
        with raw.client(self.weir.http) as c:
            framing = [("content-length", str(length))] if length else []
            c.send(raw.request(method, "/rule", [("connection", "close"), *framing]) + body)
            try:
                got = c.response()
            except EOFError:
                got = None
        return got, self.peers.get(timeout=raw.TIMEOUT)

    def next(self):
        """The number of the server's connection that serves one more request."""
        r = raw.fetch(self.weir.http, "/next")
        assert r.status == 200
        return int(r.body.removeprefix(b"from "))


@pytest.fixture(scope="module")
def world(weir_for_all, server_for_all):
    return World(weir_for_all, server_for_all)


# ---------------------------------------------------------------- what weir must bear

# id: frames; with a list behind them, the PINGs that were answered.
FINE = {
    "9113 3.4: SETTINGS came first": WHOLE,
    "9113 4.1: a frame of an unknown type": joined(frame(UNKNOWN, 0, 0, bytes(8)), WHOLE),
    "9113 4.1: a frame of an unknown type on the stream": joined(head(), on(UNKNOWN, 0xff, bytes(8)), data(b"ok")),
    "9113 4.1: flags that mean nothing": (joined(frame(PING, 0x16, 0, b"flags..."), WHOLE), [b"flags..."]),
    "9113 4.1: the reserved bit": (joined(frame(PING, 0, 1 << 31, b"reserved"), WHOLE), [b"reserved"]),
    "9113 4.2: DATA of 2^14 octets": joined(head(), data(b"x" * 16384)),
    "9113 5.1: PRIORITY of the stream when it is closed": joined(WHOLE, on(PRIORITY, 0, bytes(5))),
    "9113 5.5: an extension's frame between HEADERS and DATA": joined(head(), frame(0xfe, 0, 0, b"x"), data(b"ok")),
    "9113 6.1: DATA with padding": joined(head(), data(b"\x03ok" + bytes(3), END_STREAM | PADDED)),
    "9113 6.2: HEADERS with padding": joined(head(END_HEADERS | PADDED, b"\x03" + OK + bytes(3)), data(b"ok")),
    "9113 6.5.2: an unknown setting": joined(setting(0xff, 1), WHOLE),
    "9113 6.5.3: SETTINGS are acknowledged": joined(setting(1, 4096), WHOLE),
    "9113 6.7: PING is answered": (joined(frame(PING, 0, 0, b"another."), WHOLE), [b"another."]),
    "9113 6.7: PING with ACK is not": joined(frame(PING, ACK, 0, b"unasked."), WHOLE),
    "9113 6.9: the connection's window grows to its end": joined(
        frame(WINDOW, 0, 0, number(MAX_WINDOW - 65535)), WHOLE),
    "9113 6.10: several CONTINUATIONs": joined(head(0), more(0), more(), data(b"ok")),
    "9113 6.10: an empty CONTINUATION": joined(head(0), more(0, b""), more(), data(b"ok")),
}
# On a stream that has ended well these may be a connection error of STREAM_CLOSED, or be passed over.
LATE = {
    "9113 5.1: DATA behind the end of the stream": joined(WHOLE, data(b"test")),
    "9113 5.1: HEADERS behind the end of the stream": joined(WHOLE, head(END)),
}

# The same behind the server's own RST_STREAM.
RESET = joined(head(), on(RST_STREAM, 0, number(8)))
LATE_RESET = {
    "9113 5.1: DATA behind RST_STREAM": joined(RESET, data(b"test")),
    "9113 5.1: HEADERS behind RST_STREAM": joined(RESET, head(END)),
}


def served_on(world, p):
    """The next request comes on the connection that bore it all, without a complaint of weir."""
    assert world.next() == p.c.number
    assert not p.goaways and not p.resets


@pytest.mark.parametrize("name", FINE)
def test_fine(world, name):
    send, pongs = FINE[name] if isinstance(FINE[name], tuple) else (FINE[name], [])
    got, p = world.ask(send)
    assert got.status == 200
    assert got.body == (b"x" * 16384 if "2^14" in name else b"ok")
    assert p.pongs == [*pongs, NONCE]
    served_on(world, p)
    assert p.acked == (2 if send(1)[3] == SETTINGS else 1)  # one is the acknowledgement of the first


@pytest.mark.parametrize("name", [*LATE, *LATE_RESET])
def test_late(world, name):
    got, p = world.ask({**LATE, **LATE_RESET}[name])
    if name in LATE:
        assert got.status == 200 and got.body == b"ok"
    else:
        assert got is None or got.status == 502
    if p.over:
        assert p.goaways == [CLOSED]
        assert world.next() != p.c.number
    elif p.resets:
        assert p.resets == [(p.rule, CLOSED)]
        assert world.next() == p.c.number
    else:
        served_on(world, p)


def test_7541_2_3_2_late_headers_are_decoded(world):
    """A block that nobody waits for still changes the table that the next one is decoded by (9113 4.3)."""
    late = block([(":status", "200")]) + b"\x40\x06x-test\x03val"
    _, p = world.ask(joined(RESET, head(END, late)))
    world.extra = b"\xbe"
    try:
        r = raw.fetch(world.weir.http, "/next")
    finally:
        world.extra = b""
    assert r.get("x-test") == "val" and r.body == b"from %d" % p.c.number


def test_9113_5_1_data_on_its_way_to_streams_that_were_reset(weir, server, connect):
    """Many clients go at once.  What their server had under way for them is no flood, and its credit comes back."""
    many = 12
    windows = []

    def script(c):
        c.sock.settimeout(raw.TIMEOUT)
        p = h2_peer.Peer(c)
        asked = [p.request() for _ in range(many)]
        for a in asked:
            p.head(a)
            p.data(a, b"x")
        p.until(lambda: len(p.resets) == many)
        before = p.h.outbound_flow_control_window
        for a in asked:  # all that the windows of the streams had allowed
            p.raw(b"".join(frame(DATA, 0, a.id, b"x" * n) for n in (16384, 16384, 16384, 16383)))
        p.until(lambda: p.h.outbound_flow_control_window > before)
        windows.append(p.h.outbound_flow_control_window - before)
        p.answer(p.request(), b"from %d" % c.number)
        p.drain()

    w = weir(CONF, s=server(script=script))
    clients = [connect(w.http).send(raw.request()) for _ in range(many)]
    for c in clients:
        c.read_until(b"x\r\n")
    for c in clients:
        c.reset()
    until(lambda: windows, "credit of the connection")
    assert raw.fetch(w.http).body == b"from 1"
    assert w.metric("weir_connection_closes_total", reason="server_flood") == 0


def test_9113_5_1_data_without_end_for_a_stream_that_the_server_reset(world):
    before = world.weir.metric("weir_connection_closes_total", reason="server_flood")
    _, p = world.ask(joined(RESET, *[data(b"x" * 16384, 0)] * 40))
    assert p.over
    world.weir.wait_metric("weir_connection_closes_total", before + 1, reason="server_flood")
    assert world.next() != p.c.number


# ---------------------------------------------------------------- connection errors

# id: (what the server sends, the code of the GOAWAY); the response is not whole by then.  Some are errors of the
# stream to the RFC, which leaves it to the receiver to make more of them (9113 5.4.1).
BROKEN = {
    "9113 4.2: DATA above SETTINGS_MAX_FRAME_SIZE": (joined(head(), data(b"x" * 16385)), SIZE),
    "9113 4.2: HEADERS above SETTINGS_MAX_FRAME_SIZE": (
        head(END, OK + block([("x-long", "x" * 16384)])), SIZE),
    "9113 4.3: a block that cannot be decoded": (head(END, b"\x40"), COMPRESSION),
    "7541 2.3.3: an index beyond both tables": (head(END, OK + b"\xfe"), COMPRESSION),
    "7541 5.2: a string longer than the block": (head(END, OK + b"\x00\x06x-test\x05val"), COMPRESSION),
    "7541 6.1: the index zero": (head(END, OK + b"\x80"), COMPRESSION),
    "7541 6.3: a size update above the setting": (head(END, b"\x3f\xe2\x1f" + OK), COMPRESSION),
    "9113 5.1: DATA of an idle stream": (lambda i: frame(DATA, END_STREAM, 2, b"test"), PROTOCOL),
    "9113 5.1: RST_STREAM of an idle stream": (lambda i: frame(RST_STREAM, 0, 2, number(8)), PROTOCOL),
    "9113 5.1: WINDOW_UPDATE of an idle stream": (lambda i: frame(WINDOW, 0, 2, number(100)), PROTOCOL),
    "9113 5.1: CONTINUATION of an idle stream": (lambda i: frame(CONTINUATION, END_HEADERS, 2, OK), PROTOCOL),
    "9113 5.1: DATA of a stream that weir has not opened yet": (
        lambda i: frame(DATA, END_STREAM, i + 2, b"test"), PROTOCOL),
    "9113 5.1: RST_STREAM of a stream that weir has not opened yet": (
        lambda i: frame(RST_STREAM, 0, i + 2, number(8)), PROTOCOL),
    "9113 5.1: CONTINUATION behind RST_STREAM": (joined(RESET, more()), PROTOCOL),
    "9113 5.1.1: HEADERS of a stream that nobody opened": (lambda i: frame(HEADERS, END, 101, OK), PROTOCOL),
    "9113 5.1.1: HEADERS of a stream of the server's own": (lambda i: frame(HEADERS, END, 2, OK), PROTOCOL),
    "9113 5.4.1: PING on a stream": (lambda i: frame(PING, 0, 3, bytes(8)), PROTOCOL),
    "9113 6.1: DATA on stream 0": (lambda i: frame(DATA, END_STREAM, 0, b"test"), PROTOCOL),
    "9113 6.1: padding as long as the frame": (joined(head(), data(b"\x06Test", END_STREAM | PADDED)), PROTOCOL),
    "9113 6.2: HEADERS and PRIORITY before its CONTINUATION": (
        joined(head(0), on(PRIORITY, 0, bytes(5)), more()), PROTOCOL),
    "9113 6.2: HEADERS on stream 0": (lambda i: frame(HEADERS, END, 0, OK), PROTOCOL),
    "9113 6.2: padding as long as the block": (
        head(END | PADDED, bytes([len(OK) + 1]) + OK), PROTOCOL),
    "9113 6.3: PRIORITY on stream 0": (lambda i: frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL),
    "9113 6.4: RST_STREAM on stream 0": (lambda i: frame(RST_STREAM, 0, 0, number(8)), PROTOCOL),
    "9113 6.4: RST_STREAM of three octets": (on(RST_STREAM, 0, bytes(3)), SIZE),
    "9113 6.5: an acknowledgement with a payload": (lambda i: frame(SETTINGS, ACK, 0, b"\0"), SIZE),
    "9113 6.5: an acknowledgement with a setting": (lambda i: frame(SETTINGS, ACK, 0, bytes(6)), SIZE),
    "9113 6.5: SETTINGS on a stream": (on(SETTINGS, 0, b"\0\x03\0\0\0d"), PROTOCOL),
    "9113 6.5: SETTINGS of half a setting": (lambda i: frame(SETTINGS, 0, 0, bytes(3)), SIZE),
    "9113 6.5.2: a server that turns push on": (lambda i: setting(2, 1), PROTOCOL),
    "9113 6.5.2: a window above 2^31-1": (lambda i: setting(4, MAX_WINDOW + 1), FLOW),
    "9113 6.5.2: a frame size below 2^14": (lambda i: setting(5, 16383), PROTOCOL),
    "9113 6.5.2: a frame size above 2^24-1": (lambda i: setting(5, 1 << 24), PROTOCOL),
    "9113 6.6: PUSH_PROMISE where push is off": (on(PUSH, END_HEADERS, number(2) + block(h2.head())), PROTOCOL),
    "9113 6.7: PING on the stream of the request": (on(PING, 0, bytes(8)), PROTOCOL),
    "9113 6.7: PING of six octets": (lambda i: frame(PING, 0, 0, bytes(6)), SIZE),
    "9113 6.8: GOAWAY on a stream": (on(GOAWAY, 0, bytes(8)), PROTOCOL),
    "9113 6.9: a WINDOW_UPDATE of 0 for the connection": (lambda i: frame(WINDOW, 0, 0, number(0)), PROTOCOL),
    "9113 6.9: a WINDOW_UPDATE of 0 for the stream": (joined(head(), on(WINDOW, 0, number(0))), PROTOCOL),
    "9113 6.9: WINDOW_UPDATE of three octets": (lambda i: frame(WINDOW, 0, 0, b"\0\0\1"), SIZE),
    "9113 6.9.1: the connection's window above 2^31-1": (
        lambda i: frame(WINDOW, 0, 0, number(MAX_WINDOW)) * 2, FLOW),
    "9113 6.9.2: a first window that brings the stream's above 2^31-1": (
        joined(on(WINDOW, 0, number(MAX_WINDOW - 65535)), lambda i: setting(4, 65536)), FLOW),
    "9113 6.10: DATA where a CONTINUATION is due": (joined(head(0), more(0), data(b"test")), PROTOCOL),
    "9113 6.10: CONTINUATION of another stream": (
        lambda i: head(0)(i) + frame(CONTINUATION, END_HEADERS, i + 2, MORE), PROTOCOL),
    "9113 6.10: CONTINUATION on stream 0": (joined(head(0), frame(CONTINUATION, END_HEADERS, 0, MORE)), PROTOCOL),
    "9113 6.10: CONTINUATION behind HEADERS that are whole": (joined(head(), more()), PROTOCOL),
    "9113 6.10: CONTINUATION behind the last CONTINUATION": (joined(head(0), more(), more()), PROTOCOL),
    "9113 6.10: CONTINUATION behind DATA": (joined(head(), data(b"test", 0), more()), PROTOCOL),
    "9113 8.1: DATA before HEADERS": (data(b"test"), PROTOCOL),
}

# The response is whole: the client gets it.
BROKEN_LATER = {
    "9113 5.1: CONTINUATION behind the end of the stream": (joined(WHOLE, more()), PROTOCOL),
    "9113 6.3: PRIORITY of four octets": (joined(WHOLE, on(PRIORITY, 0, b"\x80\0\0\1")), SIZE),
    "9113 6.4: RST_STREAM of three octets behind the end": (joined(WHOLE, on(RST_STREAM, 0, bytes(3))), SIZE),
}


@pytest.mark.parametrize("name", [*BROKEN, *BROKEN_LATER])
def test_broken(world, name):
    send, code = {**BROKEN, **BROKEN_LATER}[name]
    before = world.weir.metric("weir_connection_closes_total", reason="upstream_protocol")
    got, p = world.ask(send)
    assert p.goaways == [code]
    assert p.over and not p.pongs
    if name in BROKEN_LATER:
        assert got.status == 200 and got.body == b"ok"
    else:
        assert got is None or got.status == 502
    # A rule was broken, not a budget exceeded.  (The client's connection, if it is cut, ends for the same reason.)
    until(lambda: world.weir.metric("weir_connection_closes_total", reason="upstream_protocol") > before, "the reason")
    assert world.next() != p.c.number


def test_9113_5_1_data_of_a_half_closed_stream(world):
    """The server has ended its answer and weir has not ended its request: the stream still has a state."""
    got, p = world.ask(joined(head(END), data(b"test")), "POST", b"half", 8)
    assert p.goaways == [CLOSED] and p.over
    assert got is None or got.status in (200, 502)
    assert world.next() != p.c.number


# ---------------------------------------------------------------- stream errors

FAILED = {
    "9113 6.9.1: the stream's window above 2^31-1": (
        joined(head(), on(WINDOW, 0, number(MAX_WINDOW)), on(WINDOW, 0, number(MAX_WINDOW))), FLOW),
    "9113 8.1.1: a response without a status": (head(END, MORE), PROTOCOL),
}


@pytest.mark.parametrize("send,code", FAILED.values(), ids=FAILED.keys())
def test_stream_fails(world, send, code):
    got, p = world.ask(send)
    assert not p.over and not p.goaways
    assert got is None or got.status == 502
    assert world.next() == p.c.number  # by then weir has said what it had to say
    assert p.resets == [(p.rule, code)]
