"""gRPC as weir itself speaks it: its own answers, and the caller's deadline."""
import time

from kit import SLOW
from kit.raw import answer, fetch

GRPC = {"content-type": "application/grpc", "te": "trailers"}
CONF = """
module ratelimit;
listen 127.0.0.1:@http@;
upstream u { server @backend@; }
upstream none { server 127.0.0.1:1; retry attempts=1; }
host * {
    timeout response=5s;
    route /none { proxy none; }
    route /limited { function ratelimit rate=1/m burst=1 key=$client_ip store=local; proxy u; }
    route = /denied { respond 403 "not for you: 100 %\\n"; }
    route = /fine { respond 200 "fine"; }
    route /slow { proxy u; }
    route /bounded { timeout request=300ms; proxy u; }
}
"""


def status(r):
    assert r.status == 200 and r.body == b"" and r.get("content-type") == "application/grpc"
    return int(r.get("grpc-status")), r.get("grpc-message")


def call(w, path, **fields):
    return fetch(w.http, path, "POST", fields={**GRPC, **fields}, body=b"\0\0\0\0\0")


def test_own_answers(weir, server):
    w = weir(CONF, backend=server())
    code, text = status(call(w, "/none/x"))
    assert code == 14 and text
    code, text = status(call(w, "/nowhere"))
    assert code == 12 and text.startswith("404 Not Found")
    assert status(call(w, "/denied")) == (7, "not for you: 100 %25")
    assert fetch(w.http, "/denied").status == 403, "others see the status itself"
    assert call(w, "/fine").body == b"fine"
    assert call(w, "/limited").get("grpc-status") is None
    r = call(w, "/limited")
    assert status(r)[0] == 8 and int(r.get("retry-after")) > 0
    assert fetch(w.http, "/limited").status == 429
    assert w.metric("weir_local_replies_total", reason="no_route") == 1


def test_the_callers_deadline(weir, server):
    def script(c):
        c.server.take(c)
        c.read(1)  # until the client is gone

    w = weir(CONF, backend=server(script=script))
    began = time.monotonic()
    assert status(call(w, "/slow", **{"grpc-timeout": "200m"}))[0] == 4
    assert status(call(w, "/bounded", **{"grpc-timeout": "4S"}))[0] == 4, "the route's is the shorter"
    assert time.monotonic() - began < 3 * SLOW
    assert fetch(w.http, "/bounded", fields={"grpc-timeout": "1n"}).status == 504


def test_a_deadline_that_is_met(weir, server):
    w = weir(CONF, backend=server(lambda q: answer(b"x")))
    assert call(w, "/slow", **{"grpc-timeout": "10S"}).body == b"x"
    assert call(w, "/slow", **{"grpc-timeout": "nonsense"}).body == b"x"
