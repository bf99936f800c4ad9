"""health_check grpc: only a server that says SERVING is asked for anything else."""
import json
import threading

import pytest

from kit import SLOW, rpc, until
from kit.h2_peer import ErrorCodes, serve
from kit.raw import answer, fetch

grpc = pytest.importorskip("grpc")

CHECK = "/grpc.health.v1.Health/Check"
UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN = (bytes([8, n]) for n in range(4))
CONF = ("listen 127.0.0.1:@http@ {{ protocols h2c http/1.1; }} upstream u {{ server @a@; {} "
        "health_check grpc interval=50ms timeout=2s fall=2 rise=2 {}; }} host * {{ route / {{ proxy u; }} }}")
H2C = "protocol h2c;"


class Health:
    """Says .says of every service, and remembers which it was asked about."""

    def __init__(self, says=SERVING):
        self.says, self.asked = says, []

    def __call__(self, message, context):
        self.asked.append((message, context.time_remaining(), dict(context.invocation_metadata())))
        return self.says(context) if callable(self.says) else self.says


@pytest.fixture
def health():
    made = []

    def make(says=SERVING, **more):
        h = Health(says)
        h.server = rpc.Server({CHECK: h}, **more)
        made.append(h.server)
        return h

    yield make
    for s in made:
        s.close()


def up(w):
    values = [v for n, l, v in w.metrics() if n == "weir_server_up"]
    return bool(values[0]) if values else None


def shown(w):
    """What the status says of the only server: its state, and why its last check failed."""
    found = json.loads(fetch(w.admin, "/status").body)["upstreams"][0]["servers"][0]
    return found["state"], found.get("check")


def becomes_down(w, words):
    until(lambda: up(w) is False, "the server to be down")
    w.wait_log(r" is down: health check: " + words)
    until(lambda: shown(w)[0] == "down" and shown(w)[1] is not None, "the status to say so")


@pytest.mark.parametrize("service", ["", "a.B"])
def test_it_falls_and_rises(weir, health, service):
    h = health()
    w = weir(CONF.format(H2C, service and f"service={service}"), a=h.server)
    until(lambda: len(h.asked) >= 4, "four calls")
    assert up(w) and shown(w) == ("up", None)
    message, left, fields = h.asked[0]
    assert message == (bytes([0x0a, len(service)]) + service.encode() if service else b"")
    assert 0 < left <= 2.1 and fields["user-agent"] == "weir-health"
    h.says = NOT_SERVING
    becomes_down(w, "NOT_SERVING")
    assert shown(w) == ("down", "health check: NOT_SERVING")
    assert fetch(w.http).status == 503
    h.says = SERVING
    until(lambda: up(w), "the server to be up again")
    until(lambda: shown(w) == ("up", None), "the status to say so")


@pytest.mark.parametrize("says,words", [
    (UNKNOWN, "UNKNOWN"), (b"", "UNKNOWN"), (b"\x08\x63", "UNKNOWN"), (NOT_SERVING, "NOT_SERVING"),
    (SERVICE_UNKNOWN, "SERVICE_UNKNOWN"), (b"\x08", "the message is no HealthCheckResponse"),
    (b"nonsense", "the message is no HealthCheckResponse"),
    (lambda c: c.abort(grpc.StatusCode.NOT_FOUND, "no such service"), "grpc-status 5 NOT_FOUND: no such service"),
    (lambda c: c.abort(grpc.StatusCode.UNIMPLEMENTED, ""), "grpc-status 12 UNIMPLEMENTED"),
    (lambda c: c.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "late"), "grpc-status 4 DEADLINE_EXCEEDED: late"),
])
def test_whatever_is_not_serving_is_not_well(weir, health, says, words):
    w = weir(CONF.format(H2C, ""), a=health(says).server)
    becomes_down(w, words)


def test_a_server_without_the_service_is_not_well(weir):
    s = rpc.Server({})
    try:
        w = weir(CONF.format(H2C, ""), a=s)
        becomes_down(w, "grpc-status 12 UNIMPLEMENTED")
    finally:
        s.close()


def test_a_call_that_hangs_fails(weir, health):
    go = threading.Event()
    h = health(lambda c: go.wait(10 * SLOW) and SERVING)
    w = weir(CONF.format(H2C, "").replace("timeout=2s", "timeout=100ms"), a=h.server)
    try:
        until(lambda: up(w) is False, "the server to be down")
        w.wait_log(r" is down: health check(: grpc-status 4 DEADLINE_EXCEEDED| timeout: no answer within 100 ms)")
    finally:
        go.set()


GRPC = ("content-type", "application/grpc")
ONE = b"\0\0\0\0\2\x08\1"


def trailers(p, a, *fields):
    p.h.send_headers(a.id, list(fields), end_stream=True)
    p.flush()


def says(head, data=b"", *end):
    """A scripted answer: fields of the head, DATA, trailers."""
    def reply(p, a):
        p.head(a, 200, head, end=not data and not end)
        if data:
            p.data(a, data, end=not end)
        if end:
            trailers(p, a, *end)
    return reply


@pytest.mark.parametrize("reply,words", [
    (says([GRPC], ONE, ("grpc-status", "0")), None),
    (says([GRPC], b"\0\0\0\0\4\x08\2\x08\1", ("grpc-status", "0")), None),
    (says([GRPC], ONE), "the answer has no grpc-status"),
    (says([GRPC], ONE, ("grpc-status", "x")), "the answer has no grpc-status"),
    (says([GRPC], ONE + ONE, ("grpc-status", "0")), "the message is no HealthCheckResponse"),
    (says([GRPC], b"\1" + ONE[1:], ("grpc-status", "0")), "the message is no HealthCheckResponse"),
    (says([GRPC], b"\0" * 5000, ("grpc-status", "0")), "the message is no HealthCheckResponse"),
    (says([GRPC, ("grpc-status", "0")]), "the message is no HealthCheckResponse"),
    (says([GRPC, ("grpc-status", "14"), ("grpc-message", "m" * 500)]), "grpc-status 14 UNAVAILABLE: m+"),
    (says([("content-type", "text/html")], b"hello"), r"the answer is not gRPC \(status 200\)"),
    (lambda p, a: p.answer(a, b"", 503), r"the answer is not gRPC \(status 503\)"),
    (lambda p, a: p.reset(a, ErrorCodes.INTERNAL_ERROR), "the answer is not HTTP/2"),
    (lambda p, a: (p.head(a, 200, [GRPC]), p.reset(a)), "the answer is not HTTP/2"),
], ids=range(13))
def test_broken_answers(weir, server, reply, words):
    s = server(script=serve(reply))
    w = weir(CONF.format(H2C, ""), a=s)
    if words:
        becomes_down(w, words)
        return
    until(lambda: len(s.requests) >= 4, "four calls")
    assert up(w)
    a = s.requests[0]
    assert (a.method, a.path, a.get("te"), a.get("grpc-timeout")) == ("POST", CHECK, "trailers", "2000m")
    assert bytes(a.body) == b"\0\0\0\0\0"


def test_a_server_of_http1_is_not_well(weir, server):
    w = weir(CONF.format(H2C, ""), a=server(answer()))
    becomes_down(w, "the (answer is not HTTP/2|server closed the connection)")


def test_over_tls(weir, health, ca):
    cert = ca.cert("a.test")
    h = health(cert=cert)
    w = weir(CONF.format(f"protocol h2; tls ca={ca.cert_file} name=a.test;", ""), a=h.server)
    until(lambda: len(h.asked) >= 4, "four calls")
    assert up(w)
    h.says = NOT_SERVING
    becomes_down(w, "NOT_SERVING")


def test_another_service_after_a_reload(weir, health):
    h = health()
    w = weir(CONF.format(H2C, "service=one"), a=h.server)
    until(lambda: h.asked, "a call")
    w.reload(CONF.format(H2C, "service=other"))
    until(lambda: h.asked[-1][0] == b"\x0a\x05other", "the other service to be asked about")
    assert up(w)
