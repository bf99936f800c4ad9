"""What every server of HTTP/2 must take, and what its HPACK decoder must not: rules of RFC 9113 and RFC 7541, each
with the frames that ask for it.  Behind weir a server says what arrived, so that a field that was decoded wrongly
shows."""
import json

import pytest

from hpack import Decoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from kit import h2
from kit.h2 import ACK, END_HEADERS, END_STREAM
from kit.raw import answer

COMPRESSION_ERROR = 9
PADDED, WITH_PRIORITY = 8, 0x20
EOS = 256


# ---------------------------------------------------------------- frames

def get(stream=1, more=b"", before=b"", method="GET", flags=END_STREAM | END_HEADERS, path="/"):
    """HEADERS of a request: fields by literals that no table knows, then more."""
    return h2.frame(h2.HEADERS, flags, stream, before + h2.block(h2.head(method, path)) + more)


def post(stream=1, more=b""):
    return get(stream, more, method="POST", flags=END_HEADERS)


def data(body, flags=END_STREAM, stream=1):
    return h2.frame(h2.DATA, flags, stream, body)


def priority(stream, on=0, weight=255, exclusive=False):
    return h2.frame(h2.PRIORITY, 0, stream, (on | exclusive << 31).to_bytes(4, "big") + bytes([weight]))


def rst(stream, code=h2.CANCEL):
    return h2.frame(h2.RST, 0, stream, code.to_bytes(4, "big"))


def window(stream, n):
    return h2.frame(h2.WINDOW, 0, stream, n.to_bytes(4, "big"))


def settings(*pairs):
    return h2.frame(h2.SETTINGS, 0, 0, b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in pairs))


def split(*at, stream=1):
    """A request whose block is cut at these places: HEADERS and CONTINUATIONs."""
    block = h2.block(h2.head())
    parts = [block[a:b] for a, b in zip((0, *at), (*at, len(block)))]
    kinds = [h2.HEADERS] + [h2.CONTINUATION] * len(at)
    flags = [END_STREAM] + [0] * (len(at) - 1) + [END_HEADERS]
    return b"".join(h2.frame(k, f, stream, p) for k, f, p in zip(kinds, flags, parts))


# ---------------------------------------------------------------- HPACK by hand

def integer(value, bits, first=0):
    """RFC 7541 5.1, behind the bits of first."""
    top = (1 << bits) - 1
    if value < top:
        return bytes([first | value])
    out, value = bytes([first | top]), value - top
    while value >= 128:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def plain(s):
    return integer(len(s), 7) + s.encode()


def huffman(symbols, pad="1", octets=0):
    """A coded string of characters and numbers; pad fills the last octet and so many more."""
    bits = ""
    for s in symbols:
        s = s if isinstance(s, int) else ord(s)
        bits += f"{REQUEST_CODES[s]:0{REQUEST_CODES_LENGTH[s]}b}"
    bits += pad * (-len(bits) % 8 + 8 * octets)
    return integer(len(bits) // 8, 7, 0x80) + int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


def indexed(i):
    return integer(i, 7, 0x80)


KINDS = {"6.2.1: with indexing": (6, 0x40), "6.2.2: without indexing": (4, 0), "6.2.3: never indexed": (4, 0x10)}
INDEXING, WITHOUT, NEVER = KINDS.values()
USER_AGENT, FIRST_DYNAMIC = 58, 62


def field(kind, name, value, text=plain):
    """A literal; its name is an index or a string."""
    bits, first = kind
    start = integer(name, bits, first) if isinstance(name, int) else integer(0, bits, first) + text(name)
    return start + text(value)


def size(n):
    return integer(n, 5, 0x20)


# ---------------------------------------------------------------- one weir for all

@pytest.fixture(scope="module")
def backend(server_for_all):
    return server_for_all(lambda q: answer(json.dumps(
        {"method": q.method, "target": q.target, "body": q.body.decode(), "trailers": q.trailers,
         **{n: v for n, v in q.fields if n in ("user-agent", "x-test", "host")}}).encode()))


@pytest.fixture(scope="module")
def w(weir_for_all, backend):
    return weir_for_all("listen 127.0.0.1:@http@ { protocols h2c; } upstream u { server @backend@; } "
                        "host * { route / { proxy u; } }", backend=backend)


class Talk(h2.Raw):
    """A connection after both sides' SETTINGS were acknowledged, as much as this side can know."""

    def __init__(self, port, **more):
        super().__init__(port, **more)
        self.fields = Decoder()
        self.got = {}

    def settled(self):
        while self.one()[:2] != (h2.SETTINGS, ACK):
            pass
        return self

    def one(self):
        """The next frame; the end of the connection fails."""
        f = self.next()
        assert f is not None, f"the connection has ended: {self.got}"
        assert f[0] != h2.GOAWAY, f"GOAWAY: {f}"
        kind, _, stream, payload = f
        if stream:
            head, body = self.got.setdefault(stream, ([], []))
            if kind == h2.HEADERS:
                head += self.fields.decode(payload)
            if kind == h2.DATA:
                body.append(payload)
        return f

    def until(self, kind, stream=0, flags=0):
        while True:
            f = self.one()
            if f[0] == kind and f[2] == stream and f[1] & flags == flags:
                return f

    def answered(self, stream):
        """(status, body) once the stream has ended well."""
        while True:
            kind, flags, at, payload = self.one()
            assert not (kind == h2.RST and at == stream), f"RST_STREAM {payload}"
            if at == stream and kind in (h2.HEADERS, h2.DATA) and flags & END_STREAM:
                head, body = self.got[stream]
                return int(dict(head)[":status"]), b"".join(body)

    def alive(self, stream=101):
        """A PING is answered with what it carried, and a request as well."""
        self.send(h2.frame(h2.PING, 0, 0, b"nonce..%d" % (stream % 10)))
        assert self.until(h2.PING)[1:] == (ACK, 0, b"nonce..%d" % (stream % 10))
        self.send(get(stream))
        assert self.answered(stream)[0] == 200


@pytest.fixture
def talk(w):
    made = []

    def connect(settled=True, **more):
        made.append(Talk(w.http, **more))
        return made[-1].settled() if settled else made[-1]

    yield connect
    for c in made:
        c.close()
    assert w.metric("weir_limit_hits_total") == 0  # a rule was kept, not a budget exceeded


# ---------------------------------------------------------------- taken

# id: (what is sent, what arrived behind weir, of stream 1 unless it says another)
TAKEN = {
    "9113 5.1: PRIORITY of an idle stream": (priority(1) + get(), {}),
    "9113 5.1: PRIORITY of a stream that the client has closed": (get() + priority(1), {}),
    "9113 6.1: DATA": (post() + data(b"test"), {"body": "test"}),
    "9113 6.1: several DATA": (post() + data(b"te", 0) + data(b"st"), {"body": "test"}),
    "9113 6.1: DATA with padding": (post() + data(b"\x06test" + bytes(6), END_STREAM | PADDED), {"body": "test"}),
    "9113 6.1: DATA that is all padding": (post() + data(b"\x06" + bytes(6), PADDED) + data(b"test"), {"body": "test"}),
    "9113 6.2: HEADERS": (get(), {"host": "a.test"}),
    "9113 6.2: HEADERS with padding": (
        get(before=b"\x08", more=bytes(8), flags=END_STREAM | END_HEADERS | PADDED), {"host": "a.test"}),
    "9113 6.2: HEADERS with a priority": (
        get(before=b"\0\0\0\0\xff", flags=END_STREAM | END_HEADERS | WITH_PRIORITY), {"host": "a.test"}),
    "9113 6.2: HEADERS with padding and a priority": (
        get(before=b"\x08\0\0\0\0\xff", more=bytes(8), flags=END_STREAM | END_HEADERS | PADDED | WITH_PRIORITY),
        {"host": "a.test"}),
    "9113 6.3: PRIORITY of the smallest weight": (priority(1, weight=0) + get(), {}),
    "9113 6.3: PRIORITY of the largest weight": (priority(1, weight=255) + get(), {}),
    "9113 6.3: PRIORITY that depends on another stream": (priority(3, on=1, weight=0) + get(), {}),
    "9113 6.3: PRIORITY that excludes others": (priority(1, weight=0, exclusive=True) + get(), {}),
    "9113 6.3: PRIORITY of a higher stream does not close lower ones": (priority(3) + get(), {}),
    "9113 6.4: RST_STREAM of an open stream": (post() + rst(1) + get(3), {"stream": 3}),
    "9113 6.9: WINDOW_UPDATE of the connection": (window(0, 1) + get(), {}),
    "9113 6.9: WINDOW_UPDATE of a stream": (get() + window(1, 1), {}),
    "9113 6.10: a CONTINUATION": (split(5), {"host": "a.test"}),
    "9113 6.10: several CONTINUATIONs": (split(5, 10), {"host": "a.test"}),
    "9113 6.10: an empty CONTINUATION in between": (split(5, 5, 10), {"host": "a.test"}),
    "9113 8.1: GET": (get(path="/p?q"), {"method": "GET", "target": "/p?q"}),
    "9113 8.1: HEAD": (get(method="HEAD"), None),
    "9113 8.1: POST": (post() + data(b"test"), {"method": "POST", "body": "test"}),
    "9113 8.1: POST with trailers": (
        post(more=h2.literal("trailer", "x-t")) + data(b"test", 0)
        + h2.frame(h2.HEADERS, END_STREAM | END_HEADERS, 1, h2.literal("x-t", "ok")),
        {"body": "test", "trailers": [["x-t", "ok"]]}),
    "7541 6.1: a field of the static table": (get(more=indexed(USER_AGENT)), {"user-agent": ""}),
    "7541 6.1: a field of the dynamic table": (
        get(more=field(INDEXING, "x-test", "val") + indexed(FIRST_DYNAMIC)), {"x-test": "val"}),
    "7541 2.3.2: the dynamic table outlives the request": (
        get(more=field(INDEXING, "x-test", "val")) + get(3, indexed(FIRST_DYNAMIC)), {"stream": 3, "x-test": "val"}),
    "7541 2.3.3: the newest entry has the lowest index": (
        get(more=field(INDEXING, "x-old", "1") + field(INDEXING, "x-test", "val")) + get(3, indexed(FIRST_DYNAMIC)),
        {"stream": 3, "x-test": "val"}),
    "7541 4.4: a field larger than the table empties it and still counts": (
        get(more=field(INDEXING, "x-test", "v" * 5000)), {"x-test": "v" * 5000}),
    "7541 6.3: a size update": (get(before=size(0)), {"host": "a.test"}),
    "7541 4.2: two size updates": (get(before=size(0) + size(4096)), {"host": "a.test"}),
    "7541 4.3: a table that was emptied and opened again works": (
        get(before=size(0) + size(4096), more=field(INDEXING, "x-test", "val")) + get(3, indexed(FIRST_DYNAMIC)),
        {"stream": 3, "x-test": "val"}),
    "7541 5.1: an integer may end in octets of zeros": (
        get(more=b"\x0f" + bytes([USER_AGENT - 15 | 128, 0x80, 0]) + plain("val")), {"user-agent": "val"}),
    "7541 5.2: an empty string in Huffman's code": (get(more=field(WITHOUT, "x-test", "", huffman)), {"x-test": ""}),
}

for kind, bits in KINDS.items():
    for how, text in ("plain", plain), ("Huffman", huffman):
        TAKEN[f"7541 {kind}, name of the table, {how}"] = (
            get(more=field(bits, USER_AGENT, "val", text)), {"user-agent": "val"})
        TAKEN[f"7541 {kind}, new name, {how}"] = (get(more=field(bits, "x-test", "val", text)), {"x-test": "val"})


@pytest.mark.parametrize("sent,wanted", TAKEN.values(), ids=TAKEN.keys())
def test_taken(talk, sent, wanted):
    c = talk()
    c.send(sent)
    stream = (wanted or {}).get("stream", 1)
    status, body = c.answered(stream)
    assert status == 200
    if wanted is None:
        assert body == b""
    else:
        arrived = json.loads(body)
        assert {k: arrived.get(k) for k in wanted if k != "stream"} == {k: wanted[k] for k in wanted if k != "stream"}
    c.alive()


# ---------------------------------------------------------------- refused

def bad(more=b"", before=b"", stream=1):
    return get(stream, more, before, path="/bad")


LONG = field(INDEXING, "x-test", "val")

# What makes of the block a decoding error: the connection ends with COMPRESSION_ERROR (RFC 9113 4.3).
REFUSED = {
    "7541 2.3.3: an index beyond both tables": bad(indexed(126)),
    "7541 2.3.3: the index after the last of the static table, with nothing in the dynamic one": bad(indexed(62)),
    "7541 2.3.3: a name's index beyond both tables": bad(field(INDEXING, 126, "val")),
    "7541 2.3.3: a name's index beyond both tables, without indexing": bad(field(WITHOUT, 126, "val")),
    "7541 6.2.2: without indexing leaves the table as it was": (
        get(more=field(WITHOUT, "x-test", "val")) + bad(indexed(FIRST_DYNAMIC), stream=3)),
    "7541 6.2.3: never indexed leaves the table as it was": (
        get(more=field(NEVER, "x-test", "val")) + bad(indexed(FIRST_DYNAMIC), stream=3)),
    "7541 4.2: a size update at the end of a block": bad(size(1)),
    "7541 4.2: a size update between fields": bad(size(1) + field(WITHOUT, "x-test", "val")),
    "7541 4.3: a size update evicts what was there": (
        get(more=field(INDEXING, "x-test", "val")) + bad(indexed(FIRST_DYNAMIC), size(0) + size(4096), 3)),
    "7541 4.4: a field larger than the table leaves nothing in it": (
        get(more=LONG + field(INDEXING, "x-b", "v" * 5000)) + bad(indexed(FIRST_DYNAMIC), stream=3)),
    "7541 5.1: an integer larger than any index": bad(b"\xff" + b"\xff" * 8 + b"\x7f"),
    "7541 5.1: an integer without an end": bad(b"\xff\x80"),
    "7541 5.2: a string longer than the block": bad(b"\x00\x06x-test\x05val"),
    "7541 5.2: a literal without its strings": bad(b"\x40"),
    "7541 5.2: padding of more than seven bits": bad(b"\x00" + huffman("x-test") + huffman("test", octets=1)),
    "7541 5.2: padding of zeros": bad(b"\x00" + huffman("x-test") + huffman("test", pad="0")),
    "7541 5.2: EOS in the string": bad(b"\x00" + huffman("x-test") + huffman(["t", EOS, "e"])),
    "7541 6.1: the index zero": bad(indexed(0)),
    "7541 6.3: a size update above the setting": bad(before=size(4097)),
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
def test_refused(talk, backend, sent):
    c = talk()
    c.send(sent)
    assert c.goaway() == COMPRESSION_ERROR  # and the connection has ended
    assert not [q for q in backend.requests if q.target == "/bad"]
    talk().alive()


# ---------------------------------------------------------------- dialogues

def test_9113_3_4_the_first_frame_is_settings(talk):
    c = talk(settled=False, hello=False)
    c.send(h2.PREFACE + settings((4, 65535)))
    kind, flags, stream, _ = c.one()
    assert (kind, flags, stream) == (h2.SETTINGS, 0, 0)
    c.settled().alive()


def test_9113_5_1_window_update_and_priority_of_a_half_closed_stream(talk):
    c = talk()
    c.send(settings((4, 0)) + get())
    c.until(h2.HEADERS, 1)
    for _ in range(2):  # one octet of credit, one of the body
        c.send(priority(1) + window(1, 1))
        assert len(c.until(h2.DATA, 1)[3]) == 1
    c.send(window(1, 10000))
    assert c.answered(1)[0] == 200
    c.send(settings((4, 65535)))
    c.alive()


def test_9113_5_1_rst_stream_of_a_half_closed_stream(talk):
    c = talk()
    c.send(settings((4, 0)) + get())
    c.until(h2.HEADERS, 1)
    c.send(rst(1) + settings((4, 65535)))
    c.alive()
    assert c.got[1][1] == []


def test_9113_5_1_priority_of_a_closed_stream(talk):
    c = talk()
    c.send(get())
    assert c.answered(1)[0] == 200
    c.send(priority(1))
    c.alive()


def test_9113_6_5_settings_are_acknowledged(talk):
    c = talk()
    c.send(settings((1, 4096), (2, 1), (3, 100), (4, 65535), (5, 16384), (6, 100)))
    assert c.until(h2.SETTINGS, 0, ACK)[3] == b""
    c.alive()


def test_9113_6_7_ping_is_answered_with_its_payload(talk):
    c = talk()
    c.send(h2.frame(h2.PING, 0, 0, b"\x00\xffabcd\x01\x02"))
    assert c.until(h2.PING)[1:] == (ACK, 0, b"\x00\xffabcd\x01\x02")
    c.alive()


def test_9113_6_8_goaway_ends_an_idle_connection(talk):
    c = talk()
    c.send(h2.frame(h2.GOAWAY, 0, 0, bytes(8) + b"debug"))
    assert c.goaway() in (None, h2.NO_ERROR)  # and the connection has ended
    talk().alive()


def test_9113_6_8_goaway_leaves_the_streams_their_answers(talk):
    c = talk()
    c.send(settings((4, 0)) + get())
    c.until(h2.HEADERS, 1)
    c.send(h2.frame(h2.GOAWAY, 0, 0, bytes(8)) + window(1, 10000))
    assert c.answered(1)[0] == 200
    assert c.goaway() in (None, h2.NO_ERROR)


def test_7541_4_2_a_smaller_table_is_signaled_first(talk):
    """The rule for the encoder: the first block after the setting was acknowledged begins with a size update."""
    c = talk()
    c.send(get())
    assert c.answered(1)[0] == 200
    c.send(settings((1, 0)))
    c.until(h2.SETTINGS, 0, ACK)
    c.fields.max_allowed_table_size = 0
    c.send(get(3))
    assert c.until(h2.HEADERS, 3)[3][:1] == size(0)
    c.alive()
