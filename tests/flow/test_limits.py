"""A limit exceeded has its exact status and a log line that names the setting, the limit and the size."""
import re

import pytest

from kit import raw
from kit.raw import answer, request

CONF = """
header max=2k fields=8 line=512;
body max=1k;
listen 127.0.0.1:@http@;
listen 127.0.0.1:@wide@ { header max=8k fields=20 line=4k; }
upstream u { server @backend@; }
host * {
    route /off { body max=off; proxy u; }
    route /less { body max=10; proxy u; }
    route / { proxy u; }
}
"""


@pytest.fixture(scope="module")
def w(weir_for_all, server_for_all):
    return weir_for_all(CONF, backend=server_for_all(lambda q: answer(str(len(q.body)).encode())))


def chunks(size):
    return b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)


MANY = [(f"x{i}", "y") for i in range(9)]
CHUNKED = {"transfer-encoding": "chunked"}

CASES = [
    ("request_line", request(target="/" + "a" * 600), 414, "header line", "512"),
    ("field_line", request(fields={"x": "y" * 600}), 431, "header line", "512"),
    ("head", request(fields=[(f"x{i}", "y" * 400) for i in range(6)]), 431, "header max", "2048"),
    ("fields", request(fields=MANY), 431, "header fields", "8"),
    ("length", request("POST", fields={"content-length": "1025"}), 413, "body max", "1024"),
    ("chunked", request("POST", fields=CHUNKED) + chunks(1025), 413, "body max", "1024"),
    ("chunk_size", request("POST", fields=CHUNKED) + b"ffffff\r\n", 413, "body max", "1024"),
    ("trailer_fields", request("POST", fields=CHUNKED) + b"0\r\n" + b"x: y\r\n" * 9 + b"\r\n", 431,
     "header fields", "8"),
    ("trailer_line", request("POST", fields=CHUNKED) + b"0\r\nx: " + b"y" * 600, 431, "header line", "512"),
    ("trailers", request("POST", fields=CHUNKED) + b"0\r\n" + (b"x: " + b"y" * 400 + b"\r\n") * 6, 431,
     "header max", "2048"),
    ("route", request("POST", "/less", body=b"x" * 11), 413, "body max", "10"),
]


@pytest.mark.parametrize("data,status,setting,limit", [c[1:] for c in CASES],
                         ids=[c[0] for c in CASES])
def test_exceeded(w, connect, data, status, setting, limit):
    lines = len(w.log().splitlines())
    hits = w.metric("weir_limit_hits_total", setting=setting)
    c = connect(w.http)
    c.send(data)
    assert c.response().status == status
    assert c.ended() in ("eof", "reset")
    w.wait_metric("weir_limit_hits_total", hits + 1, setting=setting)
    said = [x for x in w.log().splitlines()[lines:] if setting in x]
    assert len(said) == 1, w.log()
    numbers = re.search(r"\(limit (\d+), measured (\d+)\)", said[0])
    assert numbers, said
    assert numbers.group(1) == limit and int(numbers.group(2)) > int(limit), said


PASSING = [
    ("request_line", request(target="/" + "a" * 400)),
    ("field_line", request(fields={"x": "y" * 400})),
    ("fields", request(fields=MANY[:7])),
    ("length", request("POST", body=b"x" * 1024)),
    ("chunked", request("POST", fields=CHUNKED) + chunks(1024)),
    ("off", request("POST", "/off", body=b"x" * 100_000)),
    ("off_chunked", request("POST", "/off", fields=CHUNKED) + chunks(100_000)),
]


@pytest.mark.parametrize("data", [c[1] for c in PASSING], ids=[c[0] for c in PASSING])
def test_not_exceeded(w, connect, data):
    c = connect(w.http)
    assert c.send(data).response().status == 200


def test_a_listener_has_its_own(w, connect):
    c = connect(w.wide)
    assert c.send(request(target="/" + "a" * 3000)).response().status == 200
    assert c.send(request(fields=MANY)).response().status == 200


def test_a_head_without_end_is_refused_as_it_comes(w, connect):
    c = connect(w.http)
    c.send(b"GET / HTTP/1.1\r\nhost: a.test\r\nx: " + b"y" * 3000)
    assert c.response().status == 431


def test_a_line_without_end_is_refused_as_it_comes(w, connect):
    c = connect(w.http)
    c.send(b"GET /" + b"y" * 3000)
    assert c.response().status == 414


def test_max_connections(weir, server, connect):
    """Beyond the limit connections wait in the backlog; they are served when others have gone."""
    w = weir("max_connections 4; listen 127.0.0.1:@http@; upstream u { server @backend@; }"
             "host * { route / { proxy u; } }", backend=server())
    clients = [connect(w.http) for _ in range(4)]
    for c in clients:
        assert c.send(request()).response().status == 200
    late = connect(w.http)
    late.send(request())
    for c in clients:
        c.close()
    # Either it waited, or it was turned away in the moment it came; the next one must be served.
    try:
        assert late.response().status in (200, 503)
    except (EOFError, ConnectionError):
        pass
    assert raw.fetch(w.http).status == 200


@pytest.mark.alone
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_slow_side_costs_little_memory(weir, server, connect, direction):
    """64 MiB wait on one side while the other does not read: weir must not hold them."""
    import threading
    size = 64 << 20
    go = threading.Event()

    def script(c):
        q = c.head()
        if direction == "up":
            c.server.requests.append(q)
            go.wait(60)
            left = int(q.get("content-length"))
            while left:
                left -= len(c.read(min(left, 1 << 16)))
            c.send(answer(b"done"))
        else:
            c.server.requests.append(q)
            c.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
            for _ in range(size >> 16):
                c.send(b"x" * 65536)

    s = server(script=script)
    w = weir("body max=off; listen 127.0.0.1:@http@; upstream u { server @backend@; }"
             "host * { route / { proxy u; } }", backend=s)
    before = pss(w)
    c = connect(w.http, rcvbuf=65536)
    sender = None
    if direction == "up":
        c.send(request("POST", fields={"content-length": str(size)}))
        sender = threading.Thread(target=lambda: [c.send(b"x" * 65536) for _ in range(size >> 16)],
                                  daemon=True)
        sender.start()
        s.wait()
    else:
        c.send(request())
        c.head()
    quiet(w)
    grown = pss(w) - before
    go.set()
    if direction == "up":
        sender.join(60)
        assert c.response().body == b"done"
    else:
        left = size
        while left:
            left -= len(c.read(min(left, 1 << 20)))
    assert grown <= 2048, f"{grown} KiB more"


def pss(w):
    """Proportional set size of all processes of w, in KiB."""
    total = 0
    for pid in [w.process.pid, *w.children()]:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            total += int(re.search(r"Pss:\s+(\d+)", f.read()).group(1))
    return total


def quiet(w):
    """Waits until no more body bytes come in or go out."""
    import time
    last, since = None, time.monotonic()
    while time.monotonic() - since < 0.3:
        with open(f"/proc/{w.worker()}/stat") as f:
            now = f.read().split()[13:15]
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.02)
