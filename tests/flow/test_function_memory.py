"""What a request's functions may take: memory= of each, request_memory of all, whatever call they take it by."""
import re
from pathlib import Path

import pytest

from kit import raw, until
from kit.raw import answer, fetch, request
from test_functions import FROZEN, build, zoo  # noqa: F401 (a fixture)

CONF = """
threads 1; request_memory 256k;
module hungry @module@; redis r { server @redis@; } listen 127.0.0.1:@http@;
upstream u { server @backend@; }
host * {
    route /own { function hungry name=own store=r memory=64k; proxy u; }
    route /open { function hungry name=open store=r memory=64k on_error=fail_open; proxy u; }
    route /all { function hungry name=all store=r; proxy u; }
    route /two { function hungry name=first store=r memory=64k on_error=fail_open;
                 function hungry name=second store=r memory=32k on_error=fail_open; proxy u; }
}
"""
CALLS = ["alloc", "dup", "format", "encode", "decode", "expand", "replace", "json", "local", "redis", "variable", "timer"]


@pytest.fixture
def hungry(weir, server, redis, zoo):  # noqa: F811
    store = redis()
    store("SET", "large", "x" * 5000)
    path = build(FROZEN / "hungry.c", zoo("null").with_name("hungry.so"))
    return weir(CONF, module=path, redis=store, backend=server(answer(b"x" * 1000)))


def ask(w, path, by):
    return fetch(w.http, f"{path}?by={by}&long={'%61' * 500}", fields={"x-long": "l" * 1000})


@pytest.mark.parametrize("by", CALLS)
def test_each_call_has_the_bound(hungry, by):
    w = hungry
    got = {}
    for path, name, most, status in (("/own", "own", 65536, 503), ("/all", "all", 262144, 503),
                                     ("/open", "open", 65536, 200)):
        for _ in range(3):  # nothing is kept of the ones before
            assert ask(w, path, by).status == status
        assert w.metric("weir_hungry_refused_total", function=name) == 3, (path, by)
        got[name] = w.metric("weir_hungry_got", function=name)
        assert 0 < got[name] <= most, (path, by, got)
    assert got["own"] == got["open"]
    assert got["all"] > got["own"]
    if by not in ("json", "replace", "timer"):  # which take more than what is counted here
        assert got["own"] > 16384
    assert ask(w, "/two", by).status == 200
    assert w.metric("weir_hungry_got", function="first") == got["own"]
    if by != "timer":  # where the second gets what the first has given back
        assert 0 < w.metric("weir_hungry_got", function="second") <= 32768
    assert w.metric("weir_worker_deaths_total") == 0


def rss(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()).group(1))


@pytest.mark.alone
def test_many_hungry_ones_at_once(weir, server, zoo, connect):  # noqa: F811
    """All of them have what they may have, and keep it while their upstream is silent."""
    silent = server(script=lambda c: (c.server.take(c), c.read_all()))
    path = build(FROZEN / "hungry.c", zoo("null").with_name("hungry.so"))
    w = weir(f"threads 1; request_memory 256k; module hungry {path}; listen 127.0.0.1:@http@; upstream u {{ server {silent}; }} "
             "host * { route / { function hungry on_error=fail_open; proxy u; } }")
    before = rss(w.worker())
    clients = [connect(w.http).send(request(target="/?by=alloc")) for _ in range(100)]
    silent.wait(100)
    assert rss(w.worker()) - before < 100 * (256 + 128) + 20000
    for c in clients:
        c.reset()
    w.wait_metric("weir_requests_open", 0)
    with raw.client(w.http) as c:
        c.send(request(target="/?by=alloc"))
        silent.wait(101)
    until(lambda: w.metric("weir_function_calls_total", result="error") == 101, "all to be counted")
