"""A thousand streams of gRPC on few connections, held through a hundred reloads: none is closed, none stalls."""
import asyncio
import re
import time
from pathlib import Path

import pytest

from kit import HOST, SLOW

grpc = pytest.importorskip("grpc")
aio = pytest.importorskip("grpc.aio")

STREAMS, RELOADS, CHANNELS = (1000, 100, 4) if SLOW == 1 else (200, 10, 2)
CONF = """
threads 2;
listen 127.0.0.1:@http@ { protocols h2c http/1.1; http2 max_streams=300; }
upstream u { protocol h2c; server @backend@; }
host * {
    route /t.Number/ { respond 403 "generation %d"; }
    route / { timeout response_idle=10m client_body=10m; proxy u; }
}
"""


class Echo(grpc.GenericRpcHandler):
    def __init__(self):
        self.open = 0

    def service(self, details):
        return grpc.stream_stream_rpc_method_handler(self.both)

    async def both(self, messages, context):
        self.open += 1
        try:
            async for m in messages:
                yield b"<" + m + b">"
        finally:
            self.open -= 1


def memory(w):
    """Resident memory of the worker, in KiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{w.worker()}/status").read_text()).group(1))


async def turn(calls, message):
    """Each says something and hears it back."""
    async def one(call):
        await call.write(message)
        assert await call.read() == b"<" + message + b">"

    await asyncio.gather(*(one(c) for c in calls))


async def generation(channel):
    with pytest.raises(grpc.RpcError) as caught:
        await channel.unary_unary("/t.Number/X")(b"", timeout=10 * SLOW)
    return caught.value.details()


async def scenario(make):
    echo = Echo()
    server = aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((echo,))
    port = server.add_insecure_port(f"{HOST}:0")
    await server.start()
    w = await asyncio.to_thread(make, CONF % 0, backend=f"{HOST}:{port}")
    channels = [aio.insecure_channel(f"{HOST}:{w.http}", options=[("grpc.use_local_subchannel_pool", 1)])
                for _ in range(CHANNELS)]
    calls = [channels[i % CHANNELS].stream_stream("/t.T/Both")() for i in range(STREAMS)]
    await asyncio.wait_for(turn(calls, b"first"), 60 * SLOW)
    assert echo.open == STREAMS
    opened, worker = memory(w), w.worker()
    listener = f"{HOST}:{w.http}"
    accepted = w.metric("weir_connections_total", listener=listener)
    assert accepted == CHANNELS
    for n in range(1, RELOADS + 1):
        done = asyncio.create_task(asyncio.to_thread(w.reload, CONF % n))
        await asyncio.wait_for(turn(calls[n % 20::20], b"%d" % n), 20 * SLOW)  # while it happens
        await done
    assert await generation(channels[0]) == f"generation {RELOADS}"
    await asyncio.wait_for(turn(calls, b"last"), 60 * SLOW)
    assert echo.open == STREAMS and not any(c.done() for c in calls)
    grown = memory(w) - opened
    assert w.worker() == worker and w.metric("weir_generations_alive") == 2, "theirs, and the newest"
    assert w.metric("weir_connections_total", listener=listener) == accepted
    assert w.metric("weir_upstream_retries_total", upstream="u") == 0
    for c in calls:
        await c.done_writing()
    ends = await asyncio.wait_for(asyncio.gather(*(c.read() for c in calls)), 60 * SLOW)
    assert ends == [aio.EOF] * STREAMS
    assert {await c.code() for c in calls} == {grpc.StatusCode.OK}
    for c in channels:
        await c.close()
    await server.stop(0)
    end = time.monotonic() + 10 * SLOW
    while w.metric("weir_generations_alive") != 1:
        assert time.monotonic() < end, "the old configurations go"
        await asyncio.sleep(0.02)
    return opened, grown


def test_a_thousand_streams_through_a_hundred_reloads(weir):
    opened, grown = asyncio.run(scenario(weir))
    print(f"{STREAMS} streams: {opened} KiB, {RELOADS} reloads: {grown} KiB more")
    if SLOW == 1:
        assert grown < 64 << 10, "KiB"
