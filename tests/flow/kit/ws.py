"""Ends of a WebSocket (RFC 6455), by hand: frames over whatever carries the bytes."""
import collections

from . import raw

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

Frame = collections.namedtuple("Frame", "opcode payload masked")

UPGRADE = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
           "sec-websocket-version": "13"}
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"


def masked(payload, key):
    return bytes(b ^ key[i % 4] for i, b in enumerate(payload))


def frame(opcode, payload=b"", key=None, final=True):
    n, mask = len(payload), 0x80 if key else 0
    head = bytes([opcode | (0x80 if final else 0)])
    if n < 126:
        head += bytes([mask | n])
    elif n < 65536:
        head += bytes([mask | 126]) + n.to_bytes(2, "big")
    else:
        head += bytes([mask | 127]) + n.to_bytes(8, "big")
    return head + (key + masked(payload, key) if key else payload)


class End:
    """take() gives more bytes (b"" at the end), put(bytes) sends.  A client masks what it sends."""

    def __init__(self, take, put, client):
        self.take, self.put = take, put
        self.key = b"\x37\xfa\x21\x3d" if client else None
        self.buffer = b""
        self.seen = []  # all frames that came

    def send(self, opcode, payload=b""):
        self.put(frame(opcode, payload, self.key))

    def _read(self, n):
        while len(self.buffer) < n:
            more = self.take()
            if not more:
                raise EOFError
            self.buffer += more
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def next(self):
        a, b = self._read(2)
        n = b & 127
        if n >= 126:
            n = int.from_bytes(self._read(2 if n == 126 else 8), "big")
        key = self._read(4) if b & 128 else None
        payload = self._read(n)
        self.seen.append(Frame(a & 15, masked(payload, key) if key else payload, bool(key)))
        return self.seen[-1]

    def serve(self, pongs=True):
        """The next frame that is no PING; those are answered, or not."""
        while True:
            f = self.next()
            if f.opcode != PING:
                return f
            if pongs:
                self.send(PONG, f.payload)

    def count(self, opcode):
        return sum(f.opcode == opcode for f in self.seen)


def over_stream(stream, client):
    """Over a kit Stream, from its 101 on."""

    def take():
        if not stream.buffer:
            stream.fill()
        data, stream.buffer = stream.buffer, b""
        return data

    return End(take, stream.send, client)


def over_h2(c, stream):
    """A client's, over a stream of kit's h2 client."""
    answer = c.answer(stream)

    def take():
        c.until(lambda: answer.body or answer.over or c.eof)
        data, answer.body = answer.body, b""
        return data

    return End(take, lambda data: c.body(stream, data, end=False), True)


def open_h1(stream, path, host="a.test"):
    """The client's end, once the server has said yes."""
    status = stream.send(raw.request("GET", path, UPGRADE, host=host)).response().status
    assert status == 101, status
    return over_stream(stream, True)


def open_h2(c, path, **pseudo):
    """The same by an extended CONNECT (RFC 8441)."""
    c.until(lambda: c.settings)
    stream = c.request("CONNECT", path, {"sec-websocket-version": "13"}, end=False, protocol="websocket", **pseudo)
    c.until(lambda: c.answer(stream).status)
    assert c.answer(stream).status == 200, c.answer(stream)
    return over_h2(c, stream)


def accept(c):
    """A server's end, on what kit's server gives to a script; it is that server's .end too."""
    c.server.take(c)
    c.send(SWITCH)
    c.server.end = over_stream(c, False)
    return c.server.end


def echo(pongs=True):
    """A script for kit's server that gives all back."""
    def script(c):
        end = accept(c)
        while True:
            f = end.serve(pongs)
            end.send(f.opcode, f.payload)

    return script
