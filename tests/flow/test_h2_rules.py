"""The rules of RFC 9113 for what a server makes of a client's frames, one case for each.

A case is a list of steps on a connection of its own that has exchanged SETTINGS and answered a PING:
bytes are sent, a function looks at what comes back.  Nothing passes by silence: every expectation
waits for a frame or for the end of the connection, and a wait that lasts too long fails.  What weir's
budgets against abuse end is ENHANCE_YOUR_CALM, which no case expects, and the file fails if one of
them was used up at all.

Where the RFC asks for a stream error the whole connection may end instead (5.4.2); the cases say
reset() where weir keeps the connection and failed() where it may do either."""
import struct

import hpack
import pytest

from kit import h2
from kit.h2 import (ACK, COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR,
                    FRAME_SIZE_ERROR, GOAWAY, HEADERS, NO_ERROR, PING, PRIORITY, PROTOCOL_ERROR, PUSH, REFUSED, RST,
                    SETTINGS, STREAM_CLOSED, WINDOW, frame)
from kit.raw import answer, client

PADDED, HAS_PRIORITY = 8, 32
UNKNOWN = 22
MAX_STREAMS = 8
FRAME_MAX = 16384
WINDOW_MAX = 2**31 - 1
MAX_CONCURRENT, INITIAL_WINDOW, MAX_FRAME, ENABLE_PUSH = 3, 4, 5, 2


# ---------------------------------------------------------------- what is sent

def word(n):
    return struct.pack(">I", n)


def head(stream=1, end=True, last=True, fields=None, **more):
    flags = END_STREAM * end | END_HEADERS * last
    return frame(HEADERS, flags, stream, h2.block(h2.head(**more) if fields is None else fields))


def post(stream=1, **more):
    """A request whose body is still to come."""
    return head(stream, end=False, method="POST", **more)


def held(stream=1):
    """A request that is complete, and is not answered."""
    return head(stream, path="/held")


def big(stream=1):
    return head(stream, path="/big")


def data(stream=1, body=b"test", end=True):
    return frame(DATA, END_STREAM * end, stream, body)


def more(stream=1, last=True):
    return frame(CONTINUATION, END_HEADERS * last, stream, h2.block([("x-more", "1")]))


def rst(stream=1, why=h2.CANCEL):
    return frame(RST, 0, stream, word(why))


def window(stream, n):
    return frame(WINDOW, 0, stream, word(n))


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", k, v) for k, v in pairs))


def priority(stream=1, parent=0):
    return frame(PRIORITY, 0, stream, word(parent) + b"\xff")


def ping(payload=b"01234567", flags=0, stream=0):
    return frame(PING, flags, stream, payload)


# ---------------------------------------------------------------- what comes back

class Connection(h2.Raw):
    """Ready for the case: each has sent its SETTINGS, taken the other's, and answered."""

    def __init__(self, port):
        super().__init__(port, hello=False)
        self.decoder = hpack.Decoder()
        self.statuses = {}
        self.send(h2.PREFACE + settings())
        kind, flags, stream, payload = self.next()
        assert (kind, flags, stream) == (SETTINGS, 0, 0), "the server's preface is its first frame"
        self.settings = dict(struct.unpack_from(">HI", payload, i) for i in range(0, len(payload), 6))
        self.send(frame(SETTINGS, ACK))
        acked(self)
        ponged(self)

    def next(self):
        """The next frame; (None, ...) at the end of the connection."""
        while len(self.rest) < 9 or len(self.rest) < 9 + int.from_bytes(self.rest[:3], "big"):
            try:
                chunk = self.sock.recv(65536)  # with a timeout: silence fails
            except ConnectionError:
                chunk = b""
            if not chunk:
                return None, 0, 0, b""
            self.rest += chunk
        n = 9 + int.from_bytes(self.rest[:3], "big")
        one, self.rest = self.rest[:n], self.rest[n:]
        kind, flags, stream, payload = one[3], one[4], int.from_bytes(one[5:9], "big"), one[9:]
        if kind == HEADERS:
            self.statuses[stream] = int(dict(self.decoder.decode(payload))[":status"])
        return kind, flags, stream, payload

    def until(self, wanted, *refused):
        """The first frame that wanted() takes.  Neither the end nor one of the kinds refused may come before."""
        while True:
            f = self.next()
            if wanted(*f):
                return f
            assert f[0] is not None, "the connection ended instead"
            assert f[0] not in refused, f"frame {f} instead"


def code(f):
    """Of a RST_STREAM or GOAWAY frame."""
    at = 4 if f[0] == GOAWAY else 0
    return int.from_bytes(f[3][at:at + 4], "big")


def goaway(*codes, last=None):
    """GOAWAY with one of the codes, and then the end of the connection."""
    def expect(c):
        said = []
        while (f := c.next())[0] is not None:
            if f[0] == GOAWAY:
                said.append((code(f), int.from_bytes(f[3][:4], "big")))
        assert said and said[-1][0] in codes, f"the GOAWAY frames were {said}, not {codes}"
        assert last is None or said[-1][1] == last
    return expect


def reset(*codes, stream=1):
    """RST_STREAM with one of the codes, and the connection goes on."""
    def expect(c):
        f = c.until(lambda kind, *_: kind == RST, GOAWAY)
        assert f[2] == stream and code(f) in codes, f
        ponged(c)
    return expect


def failed(*codes, stream=1):
    """An error of the stream or of the connection."""
    def expect(c):
        f = c.until(lambda kind, *_: kind in (RST, GOAWAY))
        assert f[2] == (stream if f[0] == RST else 0) and code(f) in codes, f
        if f[0] == RST:
            ponged(c)
        else:
            while c.next()[0] is not None:
                pass
    return expect


def answered(stream=1, status=200):
    """A response to its end."""
    def expect(c):
        c.until(lambda kind, flags, i, _: i == stream and kind in (HEADERS, DATA) and flags & END_STREAM, GOAWAY, RST)
        assert c.statuses[stream] == status
    return expect


def begun(stream=1):
    return lambda c: c.until(lambda kind, flags, i, _: kind == HEADERS and i == stream, GOAWAY, RST, DATA)


def sent(n, stream=1):
    """A DATA frame of so many bytes that does not end the stream."""
    def expect(c):
        _, flags, i, payload = c.until(lambda kind, *_: kind == DATA, GOAWAY, RST)
        assert (i, len(payload), flags & END_STREAM) == (stream, n, 0)
    return expect


def acked(c):
    c.until(lambda kind, flags, *_: kind == SETTINGS and flags & ACK, GOAWAY, RST)


def ponged(c, *refused, payload=b"\0still..", send=True):
    if send:
        c.send(ping(payload))
    _, flags, stream, got = c.until(lambda kind, *_: kind == PING, GOAWAY, *refused)
    assert (flags, stream, got) == (ACK, 0, payload)


def pong(payload=b"01234567"):
    """The answer to the PING that the case itself sent."""
    return lambda c: ponged(c, RST, payload=payload, send=False)


def lives(c):
    """No error, and the connection answers."""
    ponged(c, RST)


def quiet(c):
    """The same without DATA.  Twice: an answer may overtake what was due before it."""
    ponged(c, RST, DATA)
    ponged(c, RST, DATA)


def closed(c):
    """The end without an error."""
    while (f := c.next())[0] is not None:
        assert f[0] != GOAWAY or code(f) == NO_ERROR


def tolerated(c):
    """What only RFC 7540 forbids: RFC 9113 5.3.2 has done away with dependencies, so that nothing need come of
    it but may: the request is answered, or there is an error."""
    f = c.until(lambda kind, flags, i, _: kind in (RST, GOAWAY) or i == 1 and flags & END_STREAM)
    assert f[0] not in (RST, GOAWAY) or code(f) == PROTOCOL_ERROR


def size_is_default(c):
    assert c.settings.get(MAX_FRAME, FRAME_MAX) == FRAME_MAX


def too_many_streams(c):
    """One more than was announced, none of which ends."""
    assert c.settings[MAX_CONCURRENT] == MAX_STREAMS
    c.send(b"".join(held(i) for i in range(1, 2 * MAX_STREAMS, 2)))
    lives(c)
    c.send(held(2 * MAX_STREAMS + 1))


# ---------------------------------------------------------------- the rules

FRAMES = {
    "4.1 a frame of unknown type is ignored": [frame(UNKNOWN, 0, 0, bytes(8)), ping(), pong()],
    "4.1 flags without a meaning are ignored": [ping(flags=0x16), pong()],
    "4.1 the reserved bit of the stream id is ignored": [ping(stream=1 << 31), pong()],
    "4.2 a frame of 2^14 bytes is taken": [size_is_default, post() + data(body=bytes(FRAME_MAX)), answered()],
    "4.2 a larger DATA frame is refused": [size_is_default, post() + data(body=bytes(FRAME_MAX + 1)),
                                           failed(FRAME_SIZE_ERROR)],
    "4.2 a larger HEADERS frame ends the connection": [
        size_is_default, head(fields=[("x", "y" * FRAME_MAX)]), goaway(FRAME_SIZE_ERROR)],
    "4.3 a field block that cannot be decoded": [
        frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x40"), goaway(COMPRESSION_ERROR)],
    "4.3 table size updates before the fields are taken": [
        frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x20\x3f\xe1\x1f" + h2.block(h2.head())), answered()],
    "4.3 a table size update behind fields": [
        frame(HEADERS, END_STREAM | END_HEADERS, 1, h2.block(h2.head()) + b"\x20\x3f\xe1\x1f"),
        goaway(COMPRESSION_ERROR)],
    "4.3 PRIORITY inside a field block": [post(last=False) + priority() + more(), goaway(PROTOCOL_ERROR)],
    "4.3 another stream's HEADERS inside a field block": [
        post(last=False) + head(3) + more(), goaway(PROTOCOL_ERROR)],
}

STREAMS = {
    "5.1 idle: DATA": [data(), goaway(PROTOCOL_ERROR)],
    "5.1 idle: RST_STREAM": [rst(), goaway(PROTOCOL_ERROR)],
    "5.1 idle: WINDOW_UPDATE": [window(1, 100), goaway(PROTOCOL_ERROR)],
    "5.1 idle: CONTINUATION": [frame(CONTINUATION, END_HEADERS, 1, h2.block(h2.head())), goaway(PROTOCOL_ERROR)],
    "5.1 half-closed: DATA": [held(), lives, data(), failed(STREAM_CLOSED)],
    "5.1 half-closed: HEADERS": [held(), lives, head(), failed(STREAM_CLOSED)],
    "5.1 half-closed: CONTINUATION": [held(), lives, more(), failed(STREAM_CLOSED, PROTOCOL_ERROR)],
    "5.1 half-closed: WINDOW_UPDATE and PRIORITY are taken": [
        settings((INITIAL_WINDOW, 0)), acked, big(), begun(), priority() + window(1, 1), sent(1), quiet],
    "5.1 reset by the client: DATA": [post(), lives, rst(), lives, data(), failed(STREAM_CLOSED)],
    "5.1 reset by the client: DATA at once": [post() + rst() + data(), failed(STREAM_CLOSED)],
    "5.1 reset by the client: HEADERS": [post(), lives, rst(), lives, head(), failed(STREAM_CLOSED)],
    "5.1 reset by the client: HEADERS at once": [post() + rst() + head(), failed(STREAM_CLOSED)],
    "5.1 reset by the client: CONTINUATION": [post() + rst() + more(), failed(STREAM_CLOSED, PROTOCOL_ERROR)],
    "5.1 closed by both: DATA": [head(), answered(), data(), goaway(STREAM_CLOSED)],
    "5.1 closed by both: HEADERS": [head(), answered(), head(), goaway(STREAM_CLOSED)],
    "5.1 closed by both: CONTINUATION": [head(), answered(), more(), goaway(STREAM_CLOSED, PROTOCOL_ERROR)],
    "5.1 closed by both: what crosses the end is ignored": [
        head(), answered(), window(1, 1) + rst() + priority(), lives],
    "5.1 reset by the server: what was under way is dropped": [
        post(fields=h2.head("POST", fields={"te": "gzip"})) + data(end=False) + data(), reset(PROTOCOL_ERROR),
        head(3), answered(3)],
    "5.1.1 a client's stream has an odd id": [head(2), goaway(PROTOCOL_ERROR)],
    "5.1.1 a new stream has a greater id": [head(5) + head(3), goaway(PROTOCOL_ERROR)],
    "5.1.1 a new stream has a greater id, also when the last has ended": [
        head(5), answered(5), head(3), goaway(PROTOCOL_ERROR)],
    "5.1.1 an id is used once": [held(5), lives, head(5), failed(STREAM_CLOSED, stream=5)],
    "5.1.2 more streams than were announced": [
        too_many_streams, failed(PROTOCOL_ERROR, REFUSED, stream=2 * MAX_STREAMS + 1)],
    "5.3.1 HEADERS that depend on themselves": [
        frame(HEADERS, END_STREAM | END_HEADERS | HAS_PRIORITY, 1, word(1) + b"\xff" + h2.block(h2.head())), tolerated],
    "5.3.1 PRIORITY that depends on itself": [priority(1, parent=1) + head(), tolerated],
    "5.4.1 an error of the connection closes it": [ping(stream=3), goaway(PROTOCOL_ERROR)],
    "5.4.1 GOAWAY names the last stream": [head(), answered(), ping(stream=3), goaway(PROTOCOL_ERROR, last=1)],
    "5.5 an unknown frame on a stream is ignored": [
        post() + frame(UNKNOWN, 0xff, 1, bytes(8)) + data(), answered(), lives],
    "5.5 an unknown frame inside a field block": [
        head(last=False) + frame(UNKNOWN, 0, 0, bytes(8)), goaway(PROTOCOL_ERROR)],
}

DEFINITIONS = {
    "6.1 DATA belongs to a stream": [data(0), goaway(PROTOCOL_ERROR)],
    "6.1 DATA behind END_STREAM": [head(method="POST", path="/held"), lives, data(), failed(STREAM_CLOSED)],
    "6.1 DATA with more padding than payload": [
        post(fields=h2.head("POST", fields={"content-length": "4"})) + frame(DATA, END_STREAM | PADDED, 1, b"\x06test"),
        goaway(PROTOCOL_ERROR)],
    "6.1 padding is taken off": [
        post(fields=h2.head("POST", fields={"content-length": "4"})) +
        frame(DATA, END_STREAM | PADDED, 1, b"\x03test\0\0\0"), answered()],
    "6.2 HEADERS without END_HEADERS, then PRIORITY": [post(last=False) + priority(), goaway(PROTOCOL_ERROR)],
    "6.2 HEADERS without END_HEADERS, then another stream's": [head(last=False) + head(3), goaway(PROTOCOL_ERROR)],
    "6.2 HEADERS belong to a stream": [head(0), goaway(PROTOCOL_ERROR)],
    "6.2 HEADERS with more padding than payload": [
        frame(HEADERS, END_STREAM | END_HEADERS | PADDED, 1,
              bytes([len(h2.block(h2.head())) + 1]) + h2.block(h2.head())), failed(PROTOCOL_ERROR)],
    "6.3 PRIORITY belongs to a stream": [priority(0), goaway(PROTOCOL_ERROR)],
    "6.3 PRIORITY of another length than 5": [
        held() + frame(PRIORITY, 0, 1, word(1 << 31 | 1)), failed(FRAME_SIZE_ERROR)],
    "6.3 PRIORITY leaves an idle stream idle": [priority(3) + head(1), answered(1), head(3), answered(3)],
    "6.4 RST_STREAM belongs to a stream": [rst(0), goaway(PROTOCOL_ERROR)],
    "6.4 RST_STREAM on an idle stream": [head(), answered(), rst(3), goaway(PROTOCOL_ERROR)],
    "6.4 RST_STREAM of another length than 4": [held() + frame(RST, 0, 1, bytes(3)), goaway(FRAME_SIZE_ERROR)],
    "6.5 an acknowledgement has no payload": [frame(SETTINGS, ACK, 0, b"\0"), goaway(FRAME_SIZE_ERROR)],
    "6.5 SETTINGS belong to no stream": [frame(SETTINGS, 0, 1, struct.pack(">HI", 3, 100)), goaway(PROTOCOL_ERROR)],
    "6.5 SETTINGS of a length that six does not divide": [
        frame(SETTINGS, 0, 0, struct.pack(">HIH", 3, 100, 2)), goaway(FRAME_SIZE_ERROR)],
    "6.5.2 ENABLE_PUSH other than 0 and 1": [settings((ENABLE_PUSH, 2)), goaway(PROTOCOL_ERROR)],
    "6.5.2 INITIAL_WINDOW_SIZE above 2^31-1": [settings((INITIAL_WINDOW, 2**31)), goaway(FLOW_CONTROL_ERROR)],
    "6.5.2 MAX_FRAME_SIZE below 2^14": [settings((MAX_FRAME, FRAME_MAX - 1)), goaway(PROTOCOL_ERROR)],
    "6.5.2 MAX_FRAME_SIZE above 2^24-1": [settings((MAX_FRAME, 2**24)), goaway(PROTOCOL_ERROR)],
    "6.5.2 an unknown setting is ignored": [settings((0xff, 1)), acked, lives],
    "6.5.3 of a setting that comes twice the last counts": [
        settings((INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1)), acked, big(), sent(1), quiet],
    "6.5.3 SETTINGS are acknowledged": [settings((ENABLE_PUSH, 0)), acked],
    "6.7 PING is answered with its payload": [ping(b"a ping.."), pong(b"a ping..")],
    "6.7 an answer to PING is not answered": [ping(b"no reply", ACK) + ping(b"do reply"), pong(b"do reply"), lives],
    "6.7 PING belongs to no stream": [ping(stream=1), goaway(PROTOCOL_ERROR)],
    "6.7 PING of another length than 8": [ping(bytes(6)), goaway(FRAME_SIZE_ERROR)],
    "6.8 GOAWAY belongs to no stream": [frame(GOAWAY, 0, 1, bytes(8)), goaway(PROTOCOL_ERROR)],
    "6.9 WINDOW_UPDATE of the connection by 0": [window(0, 0), goaway(PROTOCOL_ERROR)],
    "6.9 WINDOW_UPDATE of a stream by 0": [post() + window(1, 0), failed(PROTOCOL_ERROR)],
    "6.9 WINDOW_UPDATE of another length than 4": [frame(WINDOW, 0, 0, bytes([0, 0, 1])), goaway(FRAME_SIZE_ERROR)],
    "6.9.1 no more is sent than a window allows": [
        settings((INITIAL_WINDOW, 1)), acked, big(), sent(1), quiet, window(1, 5), sent(5), quiet],
    "6.9.1 the connection's window above 2^31-1": [window(0, WINDOW_MAX) * 2, goaway(FLOW_CONTROL_ERROR)],
    "6.9.1 a stream's window above 2^31-1": [post() + window(1, WINDOW_MAX) * 2, reset(FLOW_CONTROL_ERROR)],
    "6.9.2 a new initial window holds for open streams": [
        settings((INITIAL_WINDOW, 0)), acked, big(), begun(), quiet, settings((INITIAL_WINDOW, 1)), sent(1), quiet],
    "6.9.2 a window may become negative": [
        settings((INITIAL_WINDOW, 3)), acked, big(), sent(3), settings((INITIAL_WINDOW, 2)), acked, window(1, 2),
        sent(1), quiet],
    "6.9.2 a negative window stays shut until it is positive": [
        settings((INITIAL_WINDOW, 3)), acked, big(), sent(3), settings((INITIAL_WINDOW, 1)), acked, window(1, 2),
        quiet, window(1, 4), sent(4), quiet],
    "6.9.2 an initial window above 2^31-1 with a stream open": [
        held(), lives, settings((INITIAL_WINDOW, 2**31)), goaway(FLOW_CONTROL_ERROR)],
    "6.9.2 an initial window that brings a stream's above 2^31-1": [
        post() + window(1, WINDOW_MAX - 65535), lives, settings((INITIAL_WINDOW, 65536)), goaway(FLOW_CONTROL_ERROR)],
    "6.9.2 an initial window that brings a stream's to 2^31-1": [
        post() + window(1, WINDOW_MAX - 65536), lives, settings((INITIAL_WINDOW, 65536)), acked, lives],
    "6.10 a field block in many frames": [head(last=False) + more(last=False) + more(), answered()],
    "6.10 CONTINUATION without END_HEADERS, then DATA": [
        post(last=False) + more(last=False) + data(), goaway(PROTOCOL_ERROR)],
    "6.10 CONTINUATION belongs to a stream": [head(last=False) + more(0), goaway(PROTOCOL_ERROR)],
    "6.10 CONTINUATION behind HEADERS with END_HEADERS": [held() + more(), goaway(PROTOCOL_ERROR)],
    "6.10 CONTINUATION behind the last CONTINUATION": [
        head(last=False, path="/held") + more() + more(), goaway(PROTOCOL_ERROR)],
    "6.10 CONTINUATION behind DATA": [post() + data(end=False) + more(), goaway(PROTOCOL_ERROR)],
    "6.10 DATA inside a field block, then CONTINUATION": [
        post(last=False) + data() + more(last=False) + more(), goaway(PROTOCOL_ERROR)],
    "7 GOAWAY with an unknown code is a GOAWAY": [frame(GOAWAY, 0, 0, word(0) + word(0xff)), closed],
    "7 RST_STREAM with an unknown code is a RST_STREAM": [post() + rst(why=0xff), lives, head(3), answered(3)],
}

MALFORMED = reset(PROTOCOL_ERROR)
ONE_BYTE = h2.head("POST", fields={"content-length": "1"})

MESSAGES = {
    "8.1 trailers without END_STREAM": [
        post() + data(end=False) + head(end=False, fields=[("x-test", "1")]), MALFORMED],
    "8.1 trailers with END_STREAM are taken": [
        post() + data(end=False) + head(fields=[("x-test", "1")]), answered()],
    "8.1.2 a name in upper case": [head(fields=h2.head(fields={"X-Test": "1"})), MALFORMED],
    "8.1.2.1 an unknown pseudo-field": [head(test="1"), MALFORMED],
    "8.1.2.1 a pseudo-field of responses": [head(status="200"), MALFORMED],
    "8.1.2.1 a pseudo-field in trailers": [
        post() + data(end=False) + head(fields=[(":method", "POST")]), MALFORMED],
    "8.1.2.1 a pseudo-field in trailers without END_STREAM": [
        post() + data(end=False) + head(end=False, fields=[(":method", "POST")]), MALFORMED],
    "8.1.2.1 a pseudo-field behind a field": [head(fields=[("x-test", "1")] + h2.head()), MALFORMED],
    "8.1.2.2 a field of the connection": [head(fields=h2.head(fields={"connection": "keep-alive"})), MALFORMED],
    "8.1.2.2 TE other than trailers": [
        head(fields=h2.head(fields={"trailers": "test", "te": "trailers, deflate"})), MALFORMED],
    "8.1.2.2 TE: trailers is taken": [head(fields=h2.head(fields={"te": "trailers"})), answered()],
    "8.1.2.3 an empty path": [head(path=""), MALFORMED],
    "8.1.2.3 no method": [head(method=None), MALFORMED],
    "8.1.2.3 neither method nor scheme": [head(method=None, scheme=None), MALFORMED],
    "8.1.2.3 no scheme": [head(scheme=None), MALFORMED],
    "8.1.2.3 no path": [head(path=None), MALFORMED],
    "8.1.2.3 the method twice": [head(fields=h2.head() + [(":method", "GET")]), MALFORMED],
    "8.1.2.3 the scheme twice": [head(fields=h2.head() + [(":scheme", "http")]), MALFORMED],
    "8.1.2.3 the path twice": [head(fields=h2.head() + [(":path", "/")]), MALFORMED],
    "8.1.2.6 a body longer than its content-length": [post(fields=ONE_BYTE) + data(), MALFORMED],
    "8.1.2.6 a body in frames longer than its content-length": [
        post(fields=ONE_BYTE) + data(end=False) + data(), MALFORMED],
    "8.1.2.6 a body shorter than its content-length": [post(fields=ONE_BYTE) + data(body=b""), MALFORMED],
    "8.2 a client's PUSH_PROMISE": [
        held() + frame(PUSH, END_HEADERS, 1, word(3) + h2.block(h2.head())), goaway(PROTOCOL_ERROR)],
}

CASES = {**FRAMES, **STREAMS, **DEFINITIONS, **MESSAGES}


@pytest.fixture(scope="module")
def rules(weir_for_all, server_for_all):
    def script(stream):
        while True:
            q = stream.server.take(stream)
            if q.target == "/held":
                stream.ended()  # weir gives up first
                return
            stream.send(answer(bytes(100_000) if q.target == "/big" else b"%d bytes" % len(q.body)))

    s = server_for_all(script=script)
    w = weir_for_all("listen 127.0.0.1:@http@ { protocols h2c; http2 max_streams=%d; } "
                     "listen 127.0.0.1:@both@ { protocols h2c http/1.1; } "
                     "upstream u { server @backend@; } host * { route / { proxy u; } }" % MAX_STREAMS, backend=s)
    yield w
    assert w.metric("weir_limit_hits_total") == 0, "a budget decided a case"


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES.keys())
def test_rule(rules, steps):
    assert callable(steps[-1]), "a case ends with what it expects"
    c = Connection(rules.http)
    try:
        for step in steps:
            if callable(step):
                step(c)
            else:
                c.send(step)
    finally:
        c.close()


def test_preface(rules):
    """3.4: the server's SETTINGS come first, whatever the client's hold, and do not wait for the rest of it."""
    c = h2.Raw(rules.http, hello=False)
    c.send(h2.PREFACE + settings((INITIAL_WINDOW, 65535)))
    assert c.frames(SETTINGS)[0][:3] == (SETTINGS, 0, 0)
    c.close()


@pytest.mark.parametrize("port", ["http", "both"], ids=["only h2c", "beside http/1.1"])
@pytest.mark.parametrize("junk", [b"NO SUCH PREFACE\r\n\r\n", h2.PREFACE[:-4] + b"XX\r\n", h2.PREFACE + ping()],
                         ids=["another", "another end", "no SETTINGS"])
def test_bad_preface(rules, port, junk):
    """3.4: an invalid preface closes the connection, with an error in the language that may be understood."""
    with client(getattr(rules, port)) as c:
        c.send(junk)
        said = c.read_all()  # to the end
    assert b"HTTP/1.1 2" not in said
    if junk.startswith(h2.PREFACE):
        payload = said.partition(frame(GOAWAY)[3:])[2]
        assert payload[4:8] == word(PROTOCOL_ERROR)
