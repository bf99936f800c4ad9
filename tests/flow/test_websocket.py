"""WebSockets that are kept: PINGs of weir's to both ends, over HTTP/1.1 and HTTP/2."""
import time

import pytest

from kit import h2, h2_peer, until, ws

PROTOCOLS = ["http/1.1", "h2"]


@pytest.fixture
def h2c():
    made = []

    def make(*args, **more):
        made.append(h2.Client(*args, **more))
        return made[-1]

    yield make
    for c in made:
        c.close()


def conf(setting, upstream="server @backend@;"):
    return (f"listen 127.0.0.1:@http@ {{ protocols h2c http/1.1; }} upstream u {{ {upstream} }} "
            f"host * {{ {setting} route / {{ proxy u; }} }}")


@pytest.fixture
def client(connect, h2c):
    """The client's end of a WebSocket through weir."""

    def open_it(w, protocol):
        if protocol == "http/1.1":
            return ws.open_h1(connect(w.http), "/chat")
        return ws.open_h2(h2c(w.http), "/chat")

    return open_it


def echo_h2(c):
    """The server that gives all back, by an extended CONNECT of HTTP/2."""
    p = h2_peer.Peer(c, settings={h2_peer.SettingCodes.ENABLE_CONNECT_PROTOCOL: 1})
    a = p.request(whole=False)
    p.head(a)

    def take():
        p.until(lambda: a.body or a.ended or a.reset is not None)
        data = bytes(a.body)
        del a.body[:]
        return data

    c.server.end = end = ws.End(take, lambda data: p.data(a, data), False)
    while True:
        f = end.serve()
        end.send(f.opcode, f.payload)


@pytest.mark.parametrize("upstream", PROTOCOLS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_stays_open_while_both_ends_answer(weir, server, client, protocol, upstream):
    s = server(script=ws.echo() if upstream == "http/1.1" else echo_h2)
    w = weir(conf("timeout tunnel=500ms; websocket ping=100ms;",
                  f"server @backend@; protocol {'h2c' if upstream == 'h2' else upstream};"), backend=s)
    end = client(w, protocol)
    w.wait_metric("weir_tunnels", 1, upgrade="websocket", protocol=protocol)
    assert w.status()["websockets"] == {**dict.fromkeys(PROTOCOLS, 0), protocol: 1, "idle": 0}
    started = time.monotonic()
    while time.monotonic() - started < 1.5:  # thrice the timeout, in which nobody has anything to say
        f = end.next()
        assert (f.opcode, f.masked) == (ws.PING, False)
        end.send(ws.PONG, f.payload)
    end.send(ws.TEXT, b"still here")
    assert end.serve().payload == b"still here"
    assert end.count(ws.PONG) == s.end.count(ws.PONG) == 0, "answers to weir's PINGs are weir's"
    assert s.end.count(ws.PING) >= 5 and all(f.masked for f in s.end.seen)
    assert w.metric("weir_tunnels_idle_total") == 0


@pytest.mark.parametrize("dead", ["client", "server", "both"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_ends_when_an_end_does_not_answer(weir, server, client, protocol, dead):
    s = server(script=ws.echo(pongs=dead == "client"))
    w = weir(conf("timeout tunnel=500ms; websocket ping=100ms;"), backend=s)
    end = client(w, protocol)
    with pytest.raises((EOFError, ConnectionError)):
        end.serve(pongs=dead == "server")
    assert end.count(ws.PING) >= 2 and s.end.count(ws.PING) >= 2
    until(lambda: s.open == 0, "the server's connection to be closed")
    w.wait_metric("weir_tunnels_idle_total", 1, upgrade="websocket", protocol=protocol)
    w.wait_metric("weir_tunnels", 0)
    w.wait_metric("weir_upstream_requests_total", 1, result="1xx")
    assert w.status()["websockets"]["idle"] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_without_the_setting_nothing_is_added(weir, server, client, protocol):
    w = weir(conf("timeout tunnel=400ms;"), backend=server(script=ws.echo()))
    end = client(w, protocol)
    for payload in (b"a", b"weirmark"):
        end.send(ws.PONG, payload)
        assert end.next() == (ws.PONG, payload, False)
    with pytest.raises((EOFError, ConnectionError)):
        end.next()
    assert len(end.seen) == 2
    w.wait_metric("weir_tunnels_idle_total", 1, protocol=protocol)


BIG = bytes(range(256)) * 256


def slowly(put, data):
    """In eight pieces, each after a time in which a PING falls due."""
    for i in range(0, len(data), len(data) // 8):
        put(data[i:i + len(data) // 8])
        time.sleep(0.1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_ping_waits_for_the_end_of_a_frame_to_the_client(weir, server, client, protocol):
    def script(c):
        end = ws.accept(c)
        slowly(c.send, ws.frame(ws.BINARY, BIG))
        while True:
            f = end.serve()
            end.send(f.opcode, f.payload)

    s = server(script=script)
    w = weir(conf("timeout tunnel=20s; websocket ping=50ms;"), backend=s)
    end = client(w, protocol)
    assert end.next() == (ws.BINARY, BIG, False)
    assert end.next().opcode == ws.PING
    end.send(ws.TEXT, b"x")
    assert end.serve() == (ws.TEXT, b"x", False)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_ping_waits_for_the_end_of_a_frame_to_the_server(weir, server, client, protocol):
    s = server(script=ws.echo())
    w = weir(conf("timeout tunnel=20s; websocket ping=50ms;"), backend=s)
    end = client(w, protocol)
    slowly(end.put, ws.frame(ws.BINARY, BIG, end.key))
    assert end.serve() == (ws.BINARY, BIG, False)
    kinds = [f.opcode for f in s.end.seen]
    assert kinds.count(ws.BINARY) == 1 and set(kinds) == {ws.BINARY, ws.PING}
    until(lambda: s.end.seen[-1].opcode == ws.PING or end.serve(), "a PING behind the frame")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pings_of_the_ends_are_theirs(weir, server, client, protocol):
    def script(c):
        end = ws.accept(c)
        end.send(ws.PING, b"mine")
        f = end.serve()
        assert f[:2] == (ws.PONG, b"mine")
        end.send(ws.CLOSE, b"\x03\xe8")
        end.serve()

    s = server(script=script)
    w = weir(conf("timeout tunnel=1s; websocket ping=100ms;"), backend=s)
    end = client(w, protocol)
    f = end.serve()
    assert f[:2] == (ws.CLOSE, b"\x03\xe8")
    assert (ws.PING, b"mine", False) in end.seen
    with pytest.raises((EOFError, ConnectionError)):
        end.next()  # nothing follows a CLOSE
    w.wait_metric("weir_tunnels_idle_total", 1)
