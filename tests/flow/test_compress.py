"""compress: what is negotiated, what is left alone, and that it is a stream."""
import ctypes
import ctypes.util
import gzip
import random
import threading
import zlib

import pytest

from kit import h2 as h2c
from kit import raw, until
from kit.raw import answer, fetch, request

WORDS = "the quick brown fox jumps over a lazy dog and back again until it is late".split()
TEXT = " ".join(random.Random(7).choice(WORDS) for _ in range(400_000)).encode()
TYPE = ("content-type", "text/html; charset=utf-8")


def library(name):
    path = ctypes.util.find_library(name)
    assert path, f"lib{name} is not there"
    return ctypes.CDLL(path)


def unbrotli(data):
    out, n = ctypes.create_string_buffer(len(TEXT) + 1000), ctypes.c_size_t(len(TEXT) + 1000)
    assert library("brotlidec").BrotliDecoderDecompress(ctypes.c_size_t(len(data)), data, ctypes.byref(n), out) == 1
    return out.raw[:n.value]


def unzstd(data):
    lib = library("zstd")
    lib.ZSTD_decompress.restype = ctypes.c_size_t
    out = ctypes.create_string_buffer(len(TEXT) + 1000)
    n = lib.ZSTD_decompress(out, ctypes.c_size_t(len(out)), data, ctypes.c_size_t(len(data)))
    assert not lib.ZSTD_isError(ctypes.c_size_t(n))
    return out.raw[:n]


DECODERS = {"gzip": gzip.decompress, "br": unbrotli, "zstd": unzstd}


@pytest.fixture
def world(weir, server):
    def make(reply=None, words="", script=None):
        s = server(script=script) if script else server(reply)
        w = weir(f"threads 1; module compress; listen 127.0.0.1:@http@ {{ protocols h2c http/1.1; }} upstream u {{ server @s@; }} "
                 f"host * {{ route / {{ function compress {words if '{' in words else 'name=c ' + words + ';'} proxy u; }} }}", s=s)
        w.server = s
        return w
    return make


@pytest.mark.parametrize("size", [0, 1, 2000, 65537, len(TEXT)])
@pytest.mark.parametrize("encoding", DECODERS)
@pytest.mark.parametrize("h2", [False, True], ids=["h1", "h2"])
def test_it_arrives_as_it_was(world, encoding, size, h2):
    body = TEXT[:size]
    w = world(answer(body, fields=[TYPE, ("ETag", '"1"')]), "min_length=0")
    if h2:
        c = h2c.Client(w.http)
        a = c.fetch(fields=[("accept-encoding", encoding)])
        assert a.ended
        fields, got = dict(a.fields), a.body
    else:
        r = fetch(w.http, fields={"accept-encoding": encoding})
        fields, got = dict(r.fields), r.body
    assert (fields["content-encoding"], fields["vary"], fields["etag"]) == (encoding, "Accept-Encoding", 'W/"1"')
    assert DECODERS[encoding](got) == body
    if size > 60000:
        assert len(got) < size / 3
        w.wait_metric("weir_compress_bytes_total", size, function="c", direction="in")
        w.wait_metric("weir_compress_bytes_total", len(got), function="c", direction="out")


def test_bytes_that_do_not_get_smaller(world):
    body = random.Random(1).randbytes(500_000)
    w = world(answer(body, fields=[TYPE]))
    for encoding, decode in (("gzip", gzip.decompress), ("br", unbrotli), ("zstd", unzstd)):
        assert decode(fetch(w.http, fields={"accept-encoding": encoding}).body) == body


@pytest.mark.parametrize("accept, encoding", [
    ("gzip, deflate, br, zstd", "zstd"), ("gzip;q=1.0, br;q=0.8", "gzip"), ("gzip;q=0", None), ("", None),
    ("*;q=0.1", "zstd"), ("br;q=0, *", "zstd"), ("GZIP", "gzip"), ("x-gzip", "gzip"), ("gzip;q=x", None),
    ("identity;q=0.5, gzip;q=0.2", None), ("deflate", None), ("gzip ; q=0.001", "gzip"), ("gzip;q=1.001", None),
])
def test_what_is_negotiated(world, accept, encoding):
    w = world(answer(TEXT[:5000], fields=[TYPE]))
    r = fetch(w.http, fields={"accept-encoding": accept})
    assert r.get("content-encoding") == encoding
    assert r.get("vary") == "Accept-Encoding"
    assert fetch(w.http).get("content-encoding") is None


@pytest.mark.parametrize("accepts, encoding", [
    (["gzip;q=0.5", "br;q=0.9"], "br"), (["zstd, br;q=0", "gzip, zstd;q=0"], "gzip"), (["", "gzip"], "gzip"), (["gzip", "*;q=0"], "gzip"),
])
def test_a_list_in_several_fields(world, accepts, encoding):
    w = world(answer(TEXT[:5000], fields=[TYPE]))
    r = fetch(w.http, fields=[("accept-encoding", a) for a in accepts])
    assert r.get("content-encoding") == encoding


@pytest.mark.parametrize("vary, now", [
    (["Origin"], ["Origin", "Accept-Encoding"]), (["Origin, accept-encoding"], ["Origin, accept-encoding"]),
    (["Origin", "Accept-Encoding ,X"], ["Origin", "Accept-Encoding ,X"]), (["*"], ["*"]),
    (["X-Accept-Encoding"], ["X-Accept-Encoding", "Accept-Encoding"]),
], ids=str)
def test_vary_is_said_once(world, vary, now):
    w = world(answer(TEXT[:5000], fields=[TYPE, *(("Vary", v) for v in vary)]))
    assert fetch(w.http, fields={"accept-encoding": "gzip"}).all("vary") == now


@pytest.mark.parametrize("status, fields, method", [
    ("200 OK", [("content-type", "image/png")], "GET"), ("200 OK", [], "GET"),
    ("200 OK", [TYPE, ("content-encoding", "gzip")], "GET"),
    ("200 OK", [TYPE, ("cache-control", "max-age=1, No-Transform")], "GET"),
    ("206 Partial Content", [TYPE, ("content-range", "bytes 0-4999/9000")], "GET"),
    ("200 OK", [TYPE], "HEAD"),
])
def test_what_is_left_alone(world, status, fields, method):
    w = world(answer(TEXT[:5000], status, fields))
    r = fetch(w.http, method=method, fields={"accept-encoding": "gzip"})
    assert r.get("content-encoding") == dict(fields).get("content-encoding")
    assert r.get("content-length") == "5000"
    assert r.body == (b"" if method == "HEAD" else TEXT[:5000])


def test_short_ones_and_other_types(world):
    w = world(lambda q: answer(TEXT[:int(q.get("x-n"))], fields=[("content-type", q.get("x-type"))]),
              '{ encodings gzip; min_length 2k; types "text/plain" "application/*+json"; level 9; }')

    def encoding(n, kind, accept="br, gzip"):
        return fetch(w.http, fields={"accept-encoding": accept, "x-n": str(n), "x-type": kind}).get("content-encoding")

    assert encoding(2048, "text/plain") == "gzip"
    assert encoding(2047, "text/plain") is None
    assert encoding(3000, "text/html") is None
    assert encoding(3000, "Application/Problem+JSON") == "gzip"
    assert encoding(3000, "text/plain", "br") is None


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_events_come_as_they_are_sent(world, connect, encoding):
    """Each one, before the next is sent."""
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            line = c.server.events.pop(0) if c.server.events else None
            if line is None:
                if c.server.over:
                    c.send(b"0\r\n\r\n")
                    return
                c.server.tick.wait(0.01)
                continue
            c.send(b"%x\r\n%s\r\n" % (len(line), line))

    w = world(script=script)
    w.server.events, w.server.over, w.server.tick = [], False, threading.Event()
    c = connect(w.http).send(request(fields=[("accept-encoding", encoding)]))
    assert c.head().get("content-encoding") == encoding
    z, got, all_bytes = zlib.decompressobj(31), b"", b""
    for i in range(5):
        event = b"data: %d\n\n" % i
        w.server.events.append(event)
        before = len(all_bytes)
        if encoding == "gzip":
            while not got.endswith(event):
                n = int(c.read_until(b"\r\n"), 16)
                got += z.decompress(c.read(n + 2)[:-2])
        else:
            while len(all_bytes) == before:
                n = int(c.read_until(b"\r\n"), 16)
                all_bytes += c.read(n + 2)[:-2]
    w.server.over = True
    if encoding == "gzip":
        assert got == b"".join(b"data: %d\n\n" % i for i in range(5))


def test_a_cut_response_looks_cut(world, connect):
    w = world(script=lambda c: (c.server.take(c), c.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n"
                                                        b"content-length: 100000\r\n\r\n" + TEXT[:50000])))
    c = connect(w.http).send(request(fields=[("accept-encoding", "gzip")]))
    r = c.head()
    if r.status == 200:
        with pytest.raises((EOFError, ConnectionError)):
            c.chunked(r)
    else:
        assert r.status == 502


def test_slow_readers_and_those_who_go(world, connect):
    w = world(answer(random.Random(1).randbytes(4_000_000), fields=[TYPE]))
    for encoding in DECODERS:
        for _ in range(3):
            c = raw.client(w.http, rcvbuf=4096)
            c.send(request(fields=[("accept-encoding", encoding)]))
            assert c.head().status == 200
            c.read(20000)
            c.reset()
    until(lambda: w.metric("weir_requests_open") == 0, "no request to be open")


@pytest.mark.parametrize("words", ["encodings=deflate", "level=10", "level=0", "min_length=x"])
def test_mistakes(weir, words):
    w = weir(f"module compress; listen 127.0.0.1:1; host * {{ route / {{ function compress {words}; respond 200; }} }}",
             start=False)
    assert w.command("-t").returncode == 1
