"""rewrite_body: the same result however a body is cut into chunks."""
import random
import re

import pytest

from kit import raw
from kit.raw import answer, fetch, request
from test_compress import gzip

HTML = ("content-type", "text/html; charset=utf-8")


def chunks(body, sizes, kind="text/html"):
    out = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    while body:
        n = next(sizes)
        out += b"%x\r\n%s\r\n" % (len(body[:n]), body[:n])
        body = body[n:]
    return out + b"0\r\n\r\n"


@pytest.fixture
def world(weir, server):
    def make(rules, reply=None, script=None, before=""):
        s = server(script=script) if script else server(reply)
        w = weir(f"threads 1; module rewrite_body; module compress; listen 127.0.0.1:@http@; upstream u {{ server @s@; }} "
                 f"host * {{ route / {{ {before} function rewrite_body {{ {rules} }} proxy u; }} }}", s=s)
        w.server = s
        return w
    return make


def slowly(body, sizes):
    """Each piece in a chunk, and a read, of its own."""
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n")
        at = 0
        while at < len(body):
            n = next(sizes)
            c.send(b"%x\r\n%s\r\n" % (len(body[at:at + n]), body[at:at + n]))
            at += n
        c.send(b"0\r\n\r\n")
    return script


TEXT = (b"<p>abcabd</p> 12-34 aaab <!-- one\ntwo --> ababac x99 foobar barfoo\n" * 3000)

RULES = [
    ("replace abac X;", lambda b: b.replace(b"abac", b"X")),
    ("replace aab ''; replace aaab longer;", lambda b: re.sub(rb"aaab|aab", lambda m: b"longer" if m[0] == b"aaab" else b"", b)),
    ("regex '(\\d+)-(\\d+)' '$2/$1';", lambda b: re.sub(rb"(\d+)-(\d+)", rb"\2/\1", b)),
    ("regex '(?s)<!--.*?-->' '';", lambda b: re.sub(rb"(?s)<!--.*?-->", b"", b)),
    ("regex '(?<=foo)bar' '[$0]';", lambda b: re.sub(rb"(?<=foo)bar", rb"[bar]", b)),
    ("regex '\\bx\\d+\\b' '$$';", lambda b: re.sub(rb"\bx\d+\b", b"$", b)),
    ("regex '^<p>' START;", lambda b: re.sub(rb"^<p>", b"START", b)),
    ("regex 'foo\\n$' END;", lambda b: re.sub(rb"foo\n\Z", b"END", b)),
]


@pytest.mark.parametrize("rules, model", RULES, ids=[r[0][:20] for r in RULES])
@pytest.mark.parametrize("cut", [1, 7, 5000, 1 << 20])
def test_matches_do_not_depend_on_chunks(world, rules, model, cut):
    body = TEXT[:4000 if cut == 1 else 200_000]
    dice = random.Random(cut)
    w = world(rules, chunks(body, iter(lambda: dice.randint(1, cut), 0)) if cut > 7 else None,
              slowly(body, iter(lambda: dice.randint(1, cut), 0)) if cut <= 7 else None)
    assert fetch(w.http).body == model(body)


def test_what_grows_and_what_is_replaced_is_counted(world):
    w = world("replace . " + "y" * 1000 + ";", answer(b"." * 10_000, fields=[HTML]))
    assert fetch(w.http).body == b"y" * 10_000_000
    w.wait_metric("weir_rewrite_body_replaced_total", 10_000)


def test_longer_than_the_window(world):
    """It is not found, nothing is lost, and memory is bounded."""
    body = b"<" + b"x" * 100_000 + b"> <short>"
    w = world("regex '<[^>]*>' T; window 1k;", chunks(body, iter(lambda: 900, 0)))
    got = fetch(w.http).body
    assert got.endswith(b" T") and got.count(b"x") == 100_000


def test_parts_encodings_and_types(world):
    w = world("replace a b;", lambda q: answer(b"aaa", fields=[("content-type", q.get("x-type")), ("etag", '"1"')]))
    r = fetch(w.http, fields={"range": "bytes=0-1", "accept-encoding": "gzip", "x-type": "text/html"})
    assert r.body == b"bbb" and "etag" not in r
    q = w.server.last()
    assert "range" not in q and "accept-encoding" not in q
    assert fetch(w.http, fields={"x-type": "text/plain"}).body == b"aaa"


def test_compress_before_it(world):
    w = world("replace a b;", answer(b"a" * 5000, fields=[HTML]), before="function compress;")
    r = fetch(w.http, fields={"accept-encoding": "gzip"})
    assert r.get("content-encoding") == "gzip" and gzip.decompress(r.body) == b"b" * 5000


def test_requests(world):
    w = world("replace secret public; of request; types *;", lambda q: answer(q.body))
    r = fetch(w.http, method="POST", body=b"a secret", fields={"content-type": "text/plain"})
    assert r.body == b"a public"


def test_a_slow_reader(world):
    w = world("replace a " + "b" * 1000 + ";", answer(b"a" * 100_000, fields=[HTML]))
    with raw.client(w.http, rcvbuf=4096) as c:
        r = c.send(request()).head()
        assert "chunked" in r.get("transfer-encoding")
        c.read(1_000_000)
    w.wait_metric("weir_requests_open", 0)


@pytest.mark.parametrize("rules", ["", "regex '(' x;", "replace '' x;", "replace a;", "replace a b; window 1m;",
                                   "replace a b; of both;"])
def test_mistakes(weir, rules):
    w = weir(f"module rewrite_body; listen 127.0.0.1:1;\nhost * {{ route / {{ function rewrite_body {{\n{rules}\n}} "
             "respond 200; } }", start=False)
    done = w.command("-t")
    assert done.returncode == 1 and re.search(r"weir\.conf:\d+:\d+: ", done.stderr), done.stderr
