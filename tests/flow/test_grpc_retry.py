"""Calls that are sent again because of their grpc-status, and those that are not."""
import time

import pytest

from kit import SLOW, rpc, until
from kit.h2 import Client
from kit.h2_peer import ErrorCodes, Peer, serve
from kit.raw import fetch

grpc = pytest.importorskip("grpc")

GRPC = ("content-type", "application/grpc")
CALL = {"content-type": "application/grpc", "te": "trailers"}
ONE = b"\0\0\0\0\3abc"


def conf(retry, more=""):
    return ("threads 1; listen 127.0.0.1:@http@ { protocols h2c http/1.1; } upstream u { protocol h2c; server @a@ weight=1000; "
            f"server @b@; eject off; retry {retry}; {more} }} host * {{ timeout response_idle=5s; route / {{ proxy u; }} }}")


def end(p, a, *fields):
    p.h.send_headers(a.id, list(fields), end_stream=True)
    p.flush()


def only_trailers(status, *more):
    return lambda p, a: p.head(a, 200, [GRPC, ("grpc-status", str(status)), *more], end=True)


def late(status, *more, data=b""):
    """The head goes out by itself first."""
    def reply(p, a):
        p.head(a, 200, [GRPC, ("x-head", "a")])
        time.sleep(0.03)
        if data:
            p.data(a, data)
        end(p, a, ("grpc-status", str(status)), *more)
    return reply


def well(p, a):
    p.head(a, 200, [GRPC, ("x-head", "b")])
    p.data(a, bytes(a.body) or ONE)
    end(p, a, ("grpc-status", "0"))


@pytest.fixture
def two(weir, server):
    """Two servers, the first of which is asked first; a client, and what came of one call."""
    made = []

    def make(a, retry, b=well, more="", call=CALL, body=ONE):
        sa = server(script=a if isinstance(a, Script) else serve(a))
        sb = server(script=b if isinstance(b, Script) else serve(b))
        w = weir(conf(retry, more), a=sa, b=sb)
        c = Client(w.http)
        made.append(c)
        w.client, w.sa, w.sb = c, sa, sb
        if body is not None:
            w.answer = c.fetch("POST", "/t.T/M", call, body)
        return w

    yield make
    for c in made:
        c.close()


class Script:
    def __init__(self, f):
        self.f = f

    def __call__(self, c):
        self.f(c)


def status(a):
    return dict(a.trailers).get("grpc-status", a.get("grpc-status"))


def was_repeated(w):
    assert (len(w.sa.requests), len(w.sb.requests)) == (1, 1)
    assert status(w.answer) == "0" and w.answer.body == ONE and w.answer.get("x-head") == "b"
    assert bytes(w.sb.requests[0].body) == bytes(w.sa.requests[0].body) == ONE
    assert w.sa.requests[0].get("grpc-previous-rpc-attempts") is None
    assert w.sb.requests[0].get("grpc-previous-rpc-attempts") == "1"
    assert w.metric("weir_upstream_retries_total", upstream="u") == 1


NAMES = {1: "cancelled", 2: "unknown", 4: "deadline_exceeded", 8: "resource_exhausted", 10: "aborted", 13: "internal",
         14: "unavailable"}


@pytest.mark.parametrize("code", NAMES)
def test_each_status_has_its_name(two, code):
    was_repeated(two(only_trailers(code), f"on=grpc_{NAMES[code]}"))


def test_a_status_in_trailers(two):
    was_repeated(two(late(14), "on=grpc_unavailable"))


def test_other_statuses_are_answers(two):
    w = two(only_trailers(13), "on=grpc_unavailable,503")
    assert (status(w.answer), len(w.sb.requests)) == ("13", 0)
    w = two(late(5), "on=grpc_unavailable")
    assert (status(w.answer), w.answer.get("x-head"), len(w.sb.requests)) == ("5", "a", 0)
    assert w.answer.trailers


def test_nothing_is_repeated_where_it_was_not_asked_for(two):
    w = two(late(14), "attempts=3")
    assert (status(w.answer), len(w.sb.requests)) == ("14", 0)


def test_a_message_that_was_sent_on_is_final(two):
    w = two(late(14, data=ONE), "on=grpc_unavailable")
    assert (status(w.answer), w.answer.body, len(w.sb.requests)) == ("14", ONE, 0)


def test_the_last_answer_counts(two):
    w = two(late(14, ("grpc-message", "a")), "on=grpc_unavailable attempts=2", b=late(14, ("grpc-message", "b")))
    assert status(w.answer) == "14" and dict(w.answer.trailers)["grpc-message"] == "b"
    assert w.answer.get("x-head") == "a"  # both say so
    assert len(w.sa.requests) + len(w.sb.requests) == 2


def test_an_answer_that_is_not_of_grpc_is_left_alone(two):
    w = two(lambda p, a: p.answer(a, b"hello", fields=[("grpc-status", "14")]), "on=grpc_unavailable")
    assert (w.answer.body, len(w.sb.requests)) == (b"hello", 0)


def test_only_calls_of_grpc(two):
    w = two(only_trailers(14), "on=grpc_unavailable", call={"content-type": "text/plain"})
    assert (status(w.answer), len(w.sb.requests)) == ("14", 0)


def test_budget_and_attempts(two):
    w = two(only_trailers(14), "on=grpc_unavailable attempts=4 budget=100%", b=only_trailers(14))
    assert len(w.sa.requests) + len(w.sb.requests) == 4
    assert sorted(a.get("grpc-previous-rpc-attempts") or "0" for a in w.sa.requests + w.sb.requests) == list("0123")
    w = two(only_trailers(14), "on=grpc_unavailable budget=10%", b=only_trailers(14))
    for _ in range(60):
        assert status(w.client.fetch("POST", "/t.T/M", CALL, ONE)) == "14"
    assert w.metric("weir_upstream_retries_total", upstream="u") < 30
    assert w.metric("weir_limit_hits_total", setting="retry budget") > 0


def test_the_callers_own_attempts_count_on(two):
    w = two(only_trailers(14), "on=grpc_unavailable", call={**CALL, "grpc-previous-rpc-attempts": "2"})
    assert w.sa.requests[0].get("grpc-previous-rpc-attempts") == "2"
    assert w.sb.requests[0].get("grpc-previous-rpc-attempts") == "3"


@pytest.mark.parametrize("how", [only_trailers, late])
def test_pushback_is_heeded(two, how):
    began = time.monotonic()
    w = two(how(14, ("grpc-retry-pushback-ms", "300")), "on=grpc_unavailable")
    assert time.monotonic() - began >= 0.3
    was_repeated(w)


@pytest.mark.parametrize("value", ["-1", "soon", "", "1.5", "99999999999"])
def test_pushback_forbids(two, value):
    w = two(late(14, ("grpc-retry-pushback-ms", value)), "on=grpc_unavailable")
    assert (status(w.answer), len(w.sb.requests)) == ("14", 0)


def test_pushback_is_bounded(two):
    """By the caller's deadline, by the route's, and by the patience for an answer."""
    wait = ("grpc-retry-pushback-ms", "60000")
    for more, call in (("", {**CALL, "grpc-timeout": "30S"}), ("timeout request=30s;", CALL),
                       ("timeout response=30s;", CALL)):
        began = time.monotonic()
        w = two(only_trailers(14, wait), "on=grpc_unavailable", more=more, call=call)
        assert (status(w.answer), len(w.sb.requests)) == ("14", 0)
        assert time.monotonic() - began < 10 * SLOW


def test_who_waits_may_go(two):
    w = two(only_trailers(14, ("grpc-retry-pushback-ms", "30000")), "on=grpc_unavailable", body=None)
    stream = w.client.request("POST", "/t.T/M", CALL, ONE)
    until(lambda: w.metric("weir_upstream_retries_total", upstream="u") == 1, "the call to wait")
    w.client.h2.reset_stream(stream, 8)
    w.client.flush()
    until(lambda: w.metric("weir_requests_open") == 0, "the call to end")
    assert not w.sb.requests


def test_a_large_message_is_sent_again_up_to_the_bound(two):
    body = bytes(range(256)) * 400
    w = two(late(14), "on=grpc_unavailable replay=128k", body=body)
    assert status(w.answer) == "0" and w.answer.body == body
    w = two(late(14), "on=grpc_unavailable", body=body)
    assert (status(w.answer), len(w.sb.requests)) == ("14", 0)
    assert w.metric("weir_limit_hits_total", setting="retry replay") == 1
    w.wait_log(r"upstream u.*retry replay=65536")
    w = two(late(14), "on=grpc_unavailable replay=off", body=ONE)
    assert (status(w.answer), len(w.sb.requests)) == ("14", 0)


def test_a_stream_that_goes_on(two):
    """The client has more to send: what it has sent is sent again, and the rest follows."""
    def early(c):
        p = Peer(c)
        a = p.request(whole=False)
        p.until(lambda: a.body)
        only_trailers(14)(p, a)
        p.drain(2)

    w = two(Script(early), "on=grpc_unavailable", body=None)
    stream = w.client.request("POST", "/t.T/M", CALL, end=False)
    w.client.body(stream, ONE, end=False)
    until(lambda: w.sb.requests and bytes(w.sb.requests[0].body) == ONE, "the repetition")
    w.client.body(stream, ONE)
    r = w.client.response(stream)
    assert (status(r), r.body) == ("0", ONE + ONE)


def test_who_waits_for_a_head_gets_it(two):
    """The client sends nothing more before it has the head, and the server ends nothing before that: no deadlock."""
    def talks(c):
        p = Peer(c)
        a = p.request(whole=False)
        p.head(a, 200, [GRPC])
        p.until(lambda: a.ended)
        end(p, a, ("grpc-status", "14"))
        p.drain(2)

    w = two(Script(talks), "on=grpc_unavailable", body=None)
    stream = w.client.request("POST", "/t.T/M", CALL, end=False)
    assert w.client.until(lambda: w.client.answer(stream).status == 200)
    w.client.body(stream, ONE)
    assert status(w.client.response(stream)) == "14"
    assert not w.sb.requests, "the head was sent on"


def test_a_held_head_is_not_yet_an_answer(two):
    """What breaks behind it is a failure like another, which another server may mend."""
    def breaks(p, a):
        p.head(a, 200, [GRPC])
        time.sleep(0.03)
        p.reset(a, ErrorCodes.INTERNAL_ERROR)

    was_repeated(two(breaks, "on=grpc_unavailable,reset non_idempotent=on"))
    w = two(breaks, "on=grpc_unavailable")
    assert (status(w.answer), len(w.sb.requests)) == ("14", 0), "weir's own: a POST was sent"


def test_silence_behind_a_held_head(two):
    w = two(lambda p, a: p.head(a, 200, [GRPC]), "on=grpc_unavailable", more="timeout response_idle=200ms;")
    assert status(w.answer) == "14"


def test_unavailable_counts_towards_ejection(weir, server):
    s = server(script=serve(only_trailers(14)))
    w = weir(conf("on=grpc_unavailable attempts=2").replace("eject off", "eject failures=2 for=1m")
             .replace("server @b@;", ""), a=s)
    c = Client(w.http)
    c.fetch("POST", "/t.T/M", CALL, ONE)
    assert w.metric("weir_server_ejections_total", upstream="u", server=str(s)) == 1
    c.close()


def test_over_http1_as_well(two):
    """A client of HTTP/1.1 in front changes nothing."""
    w = two(late(14), "on=grpc_unavailable", body=None)
    assert fetch(w.http, "/t.T/M", "POST", CALL, ONE).body == ONE


# ---------------------------------------------------------------- with the library


class Flaky:
    """Fails the first calls."""

    def __init__(self, fails, code=grpc.StatusCode.UNAVAILABLE, head=False):
        self.fails, self.code, self.head, self.seen = fails, code, head, []

    def before(self, context):
        self.seen.append(dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts"))
        if self.head:
            context.send_initial_metadata((("x-first", "1"),))
        if len(self.seen) <= self.fails:
            context.abort(self.code, "not now")

    def unary(self, message, context):
        self.before(context)
        return message[::-1]

    def down(self, message, context):
        self.before(context)
        for i in range(int(message)):
            yield b"%d" % i

    def up(self, messages, context):
        got = b"".join(messages)
        self.before(context)
        return got

    def both(self, messages, context):
        self.before(context)
        yield from messages


@pytest.mark.parametrize("head", [False, True])
def test_four_kinds_of_call(weir, head):
    flaky = Flaky(2, head=head)
    s = rpc.Server({"/t.T/Unary": flaky.unary, "/t.T/Down": (flaky.down, "unary_stream"),
                    "/t.T/Up": (flaky.up, "stream_unary"), "/t.T/Both": (flaky.both, "stream_stream")})
    try:
        w = weir(conf("attempts=3 on=grpc_unavailable budget=100%").replace("server @b@;", ""), a=s)
        with grpc.insecure_channel(f"127.0.0.1:{w.http}") as channel:
            def again():
                assert flaky.seen == [None, "1", "2"]
                flaky.seen.clear()

            big = b"x" * 30000
            assert channel.unary_unary("/t.T/Unary")(big + b"y", timeout=10 * SLOW) == b"y" + big
            again()
            assert list(channel.unary_stream("/t.T/Down")(b"50", timeout=10 * SLOW)) == [b"%d" % i for i in range(50)]
            again()
            assert channel.stream_unary("/t.T/Up")(iter([b"a", b"b", b"c"]), timeout=10 * SLOW) == b"abc"
            again()
            assert list(channel.stream_stream("/t.T/Both")(iter([b"a", b"b"]), timeout=10 * SLOW)) == [b"a", b"b"]
            again()
            flaky.code = grpc.StatusCode.INVALID_ARGUMENT
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/t.T/Unary")(b"a", timeout=10 * SLOW)
            assert (caught.value.code(), caught.value.details()) == (flaky.code, "not now")
            assert len(flaky.seen) == 1
    finally:
        s.close()
