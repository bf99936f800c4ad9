"""Every timeout has its own reason, status and counter."""
import select
import socket
import time

import pytest

from kit import SLOW, until
from kit.raw import answer, fetch, request


def conf(where="", action="proxy u;", top=""):
    return (f"{top} listen 127.0.0.1:@http@; upstream u {{ server @backend@; retry attempts=1; {where} }} "
            f"host * {{ route / {{ {action} }} }}")


def replies(w, reason):
    return w.metric("weir_local_replies_total", reason=reason)


def closed(w, reason, result):
    """Connections were closed for this reason, and the server's part in it was counted as that."""
    until(lambda: w.metric("weir_connection_closes_total", reason=reason) >= 1, "the reason")
    w.wait_metric("weir_upstream_requests_total", 1, upstream="u", result=result)
    assert w.metric("weir_upstream_requests_total") == 1


def silent(c):
    c.server.take(c)
    c.read_all()


def test_response(weir, server):
    w = weir(conf("timeout response=200ms;"), backend=server(script=silent))
    started = time.monotonic()
    assert fetch(w.http).status == 504
    assert 0.19 < time.monotonic() - started < 2 * SLOW
    assert replies(w, "response") == 1


def test_response_dripping_head(weir, server):
    def script(c):
        c.server.take(c)
        for byte in answer():
            c.send(bytes([byte]))
            time.sleep(0.05)

    w = weir(conf("timeout response=300ms;"), backend=server(script=script))
    assert fetch(w.http).status == 504


@pytest.mark.parametrize("place", ["top", "host", "upstream", "route"])
def test_settings_merge(weir, server, place):
    """The nearest one wins: route, then upstream, then host, then top."""
    at = {p: "timeout response=20s;" for p in ("top", "host", "upstream", "route")}
    at[place] = "timeout response=150ms;"
    for nearer in ("route", "upstream", "host", "top"):
        if nearer == place:
            break
        at[nearer] = ""
    w = weir(f"{at['top']} listen 127.0.0.1:@http@; upstream u {{ server @backend@; {at['upstream']} }} "
             f"host * {{ {at['host']} route / {{ {at['route']} proxy u; }} }}",
             backend=server(script=silent))
    assert fetch(w.http).status == 504


def test_response_idle(weir, server, connect):
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
        c.read_all()

    s = server(script=script)
    w = weir(conf("timeout response_idle=200ms;"), backend=s)
    c = connect(w.http)
    c.send(request())
    with pytest.raises((EOFError, ConnectionError)):
        c.response()
    until(lambda: s.open == 0, "the server's connection to be closed")
    closed(w, "response_idle", result="timeout")


def test_connect(weir):
    """A listener whose backlog is full: the kernel drops what comes."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(4):
        f = socket.socket()
        f.setblocking(False)
        f.connect_ex(full.getsockname())
        fillers.append(f)
    w = weir(conf("timeout connect=200ms;"), backend="127.0.0.1:%d" % full.getsockname()[1])
    started = time.monotonic()
    assert fetch(w.http).status == 504
    assert time.monotonic() - started < 2 * SLOW
    assert replies(w, "connect") == 1
    for f in (full, *fillers):
        f.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: a"])
def test_client_head(weir, connect, sent):
    w = weir("timeout client_head=200ms client_idle=200ms; listen 127.0.0.1:@http@; "
             "host * { route / { respond 200; } }")
    c = connect(w.http)
    if sent:
        c.send(sent)
        assert c.response().status == 408
    assert c.ended() == "eof"
    if sent:
        assert replies(w, "client_head") == 1


def test_client_head_is_for_all_of_it(weir, connect):
    w = weir("timeout client_head=300ms; listen 127.0.0.1:@http@; host * { route / { respond 200; } }")
    c = connect(w.http)
    started = time.monotonic()
    for byte in request(fields={"x": "y" * 1000}):
        c.send(bytes([byte]))
        if select.select([c.sock], [], [], 0.02)[0]:
            break
    assert 0.28 < time.monotonic() - started < 2 * SLOW
    assert c.response().status == 408
    assert replies(w, "client_head") == 1


def test_client_idle(weir, server, connect):
    w = weir(conf(top="timeout client_idle=200ms;"), backend=server())
    c = connect(w.http)
    assert c.send(request()).response().status == 200
    assert c.ended() == "eof"
    until(lambda: w.metric("weir_connection_closes_total", reason="client_idle") == 1, "the reason")


def test_client_body(weir, server, connect):
    s = server(script=silent)
    w = weir(conf(top="timeout client_body=200ms;"), backend=s)
    c = connect(w.http)
    c.send(request("POST", fields={"content-length": "10"}) + b"half")
    assert c.response().status == 408
    assert replies(w, "client_body") == 1
    until(lambda: s.open == 0, "the server's connection to be closed")


def test_client_send(weir, server, connect):
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        while True:
            c.send(b"x" * 65536)

    s = server(script=script)
    w = weir(conf(top="timeout client_send=300ms;"), backend=s)
    c = connect(w.http, rcvbuf=4096)
    c.send(request())
    until(lambda: w.metric("weir_connection_closes_total", reason="client_send") >= 1,
          "the connection to be closed")
    until(lambda: s.open == 0, "the server's connection to be closed")
    with pytest.raises(ConnectionResetError):  # an end would leave megabytes in the kernel, to be sent for minutes
        while c.sock.recv(65536):
            pass


def test_idle_pool(weir, server):
    s = server()
    w = weir(conf("timeout idle=200ms;"), backend=s)
    assert fetch(w.http).status == 200
    until(lambda: s.open == 0, "the pooled connection to be closed")
    closed(w, "idle", result="2xx")
    assert fetch(w.http).status == 200
    assert s.accepted == 2


def test_request(weir, server, connect):
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
        for _ in range(100):
            c.send(b"x")
            time.sleep(0.03)

    w = weir(conf("timeout request=300ms;"), backend=server(script=script))
    c = connect(w.http)
    c.send(request())
    started = time.monotonic()
    with pytest.raises((EOFError, ConnectionError)):
        c.response()
    assert time.monotonic() - started < 2 * SLOW
    closed(w, "request", result="timeout")


def test_request_before_the_head(weir, server):
    w = weir(conf("timeout request=200ms;"), backend=server(script=silent))
    assert fetch(w.http).status == 504
    assert replies(w, "request") == 1


def test_tunnel(weir, server, connect):
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
        while True:
            c.send(c.read(1))

    s = server(script=script)
    w = weir(conf("timeout tunnel=300ms;"), backend=s)
    c = connect(w.http)
    c.send(request(fields={"connection": "upgrade", "upgrade": "x"}))
    assert c.response().status == 101
    for _ in range(5):
        c.send(b"a")
        assert c.read(1) == b"a"
        time.sleep(0.1)
    assert c.ended() in ("eof", "reset")
    until(lambda: s.open == 0, "the server's connection to be closed")
    closed(w, "tunnel", result="1xx")


def test_off(weir, server):
    def reply(q):
        time.sleep(0.3)
        return answer()

    w = weir(conf("timeout response=off request=off;"), backend=server(reply))
    assert fetch(w.http).status == 200
