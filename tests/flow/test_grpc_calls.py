"""gRPC through weir with the library that people use, all four kinds of call, over HTTP/2 on both sides."""
import threading
import time
from concurrent import futures

import pytest

from kit import HOST, SLOW, until

grpc = pytest.importorskip("grpc")

CONF = """
listen 127.0.0.1:@http@ { protocols h2c http/1.1; }
listen 127.0.0.1:@https@ tls { certificate @cert@ key=@key@; protocols h2 http/1.1; }
upstream u { protocol h2c; server @backend@; }
upstream none { protocol h2c; server 127.0.0.1:1; }
host * {
    route /t.None/ { proxy none; }
    route /t.Number/ { respond 403 "generation %d"; }
    route / { timeout response_idle=10m client_body=10m; proxy u; }
}
"""


class Service(grpc.GenericRpcHandler):
    """Methods by name; messages are bytes."""

    def __init__(self):
        self.cancelled = threading.Event()
        self.deadline = None

    def __str__(self):
        return f"{HOST}:{self.port}"

    def service(self, details):
        name = details.method.rpartition("/")[2]
        make = {"Unary": grpc.unary_unary_rpc_method_handler, "Down": grpc.unary_stream_rpc_method_handler,
                "Up": grpc.stream_unary_rpc_method_handler, "Both": grpc.stream_stream_rpc_method_handler,
                "Fails": grpc.unary_unary_rpc_method_handler, "Hangs": grpc.unary_unary_rpc_method_handler}.get(name)
        return make(getattr(self, name.lower())) if make else None

    def unary(self, message, context):
        context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last", "2"), ("x-last-bin", b"\0\xff")))
        self.deadline = context.time_remaining()
        return message[::-1]

    def down(self, message, context):
        for i in range(int(message)):
            yield b"%d" % i

    def up(self, messages, context):
        return b"%d" % sum(len(m) for m in messages)

    def both(self, messages, context):
        for m in messages:
            yield b"<" + m + b">"

    def fails(self, message, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not so: 100 % \u00fc")

    def hangs(self, message, context):
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(10 * SLOW)
        return b""


@pytest.fixture
def service():
    made = Service()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((made,))
    made.port = server.add_insecure_port(f"{HOST}:0")
    server.start()
    yield made
    made.cancelled.set()
    server.stop(0).wait()


@pytest.fixture
def w(weir, service, ca):
    cert, key = ca.cert("a.test")
    return weir(CONF % 0, backend=service, cert=cert, key=key)


@pytest.fixture(params=["h2c", "h2"])
def channel(w, ca, request):
    options = [("grpc.ssl_target_name_override", "a.test"), ("grpc.use_local_subchannel_pool", 1)]
    if request.param == "h2c":
        c = grpc.insecure_channel(f"{HOST}:{w.http}", options=options)
    else:
        root = grpc.ssl_channel_credentials(ca.cert_file.read_bytes())
        c = grpc.secure_channel(f"{HOST}:{w.https}", root, options=options)
    yield c
    c.close()


def failure(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_four_kinds_of_call(w, service, channel):
    answer, call = channel.unary_unary("/t.T/Unary").with_call(b"abc", timeout=5 * SLOW)
    assert answer == b"cba"
    assert ("x-first", "1") in call.initial_metadata()
    assert ("x-last", "2") in call.trailing_metadata() and ("x-last-bin", b"\0\xff") in call.trailing_metadata()
    # The library rounds what it asks for up, by as much as 100 ms.
    assert 0 < service.deadline <= 5 * SLOW + 0.1, "the server is told how long the caller waits"
    assert list(channel.unary_stream("/t.T/Down")(b"500", timeout=10 * SLOW)) == [b"%d" % i for i in range(500)]
    assert channel.stream_unary("/t.T/Up")(iter([b"x" * 100000] * 50), timeout=20 * SLOW) == b"5000000"
    big = b"y" * 3000000
    assert channel.unary_unary("/t.T/Unary")(big, timeout=20 * SLOW) == big
    gate = threading.Semaphore(1)

    def messages():
        for i in range(100):
            assert gate.acquire(timeout=5 * SLOW)  # each goes out only when the one before has come back
            yield b"%d" % i

    for i, m in enumerate(channel.stream_stream("/t.T/Both")(messages(), timeout=20 * SLOW)):
        assert m == b"<%d>" % i
        gate.release()
    assert i == 99


def test_failures_keep_their_status(w, service, channel):
    e = failure(lambda: channel.unary_unary("/t.T/Fails")(b"", timeout=5 * SLOW))
    assert (e.code(), e.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "not so: 100 % \u00fc")
    e = failure(lambda: channel.unary_unary("/t.T/Unknown")(b"", timeout=5 * SLOW))
    assert e.code() == grpc.StatusCode.UNIMPLEMENTED
    e = failure(lambda: channel.unary_unary("/t.None/X")(b"", timeout=5 * SLOW))
    assert e.code() == grpc.StatusCode.UNAVAILABLE
    e = failure(lambda: channel.unary_unary("/t.Number/X")(b"", timeout=5 * SLOW))
    assert (e.code(), e.details()) == (grpc.StatusCode.PERMISSION_DENIED, "generation 0")


def test_a_caller_that_goes(w, service, channel):
    e = failure(lambda: channel.unary_unary("/t.T/Hangs")(b"", timeout=0.3 * SLOW))
    assert e.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.cancelled.wait(5 * SLOW), "the server hears of it"
    service.cancelled.clear()
    call = channel.unary_unary("/t.T/Hangs").future(b"", timeout=20 * SLOW)
    time.sleep(0.1)
    call.cancel()
    assert service.cancelled.wait(5 * SLOW)


def test_streams_through_a_hundred_reloads(w, service, channel):
    """None ends, none stalls; what is called anew has the newest configuration."""
    streams, reloads = (40, 100) if SLOW == 1 else (10, 10)
    ends = [threading.Event() for _ in range(streams)]
    turns = [threading.Semaphore(0) for _ in range(streams)]

    def messages(i):
        while turns[i].acquire() and not ends[i].is_set():
            yield b"m"

    calls = [channel.stream_stream("/t.T/Both")(messages(i)) for i in range(streams)]
    try:
        for n in range(1, reloads + 1):
            w.reload(CONF % n)
            for i in range(n % 10, streams, 10):
                turns[i].release()
                assert next(calls[i]) == b"<m>"
        e = failure(lambda: channel.unary_unary("/t.Number/X")(b"", timeout=5 * SLOW))
        assert e.details() == f"generation {reloads}"
        for i in range(streams):
            turns[i].release()
            assert next(calls[i]) == b"<m>"
    finally:
        for i in range(streams):
            ends[i].set()
            turns[i].release()
    for c in calls:
        assert list(c) == [] and c.code() == grpc.StatusCode.OK
    until(lambda: w.metric("weir_generations_alive") == 1, "the old configurations to go")
