"""Kernel TLS for sending, by a preloaded library that is the kernel: that it is the kernel that
encrypts, that nothing else does under the same keys, and what happens where there is none."""
import random
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from kit import HOST, SLOW, h2, ktls, need, raw, temp_dir, until
from kit.raw import answer, fetch, request
from test_early_data import CLOSE, Openssl

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
VERSIONS = pytest.mark.parametrize("version", [V12, V13])
MIB = random.Random(1).randbytes(1 << 20)
ALERT, HANDSHAKE = 21, 22
SMALL = 'host * { route / { respond 200 "$tls_version"; } }'
PROXY = "upstream u { server @backend@; } host * { route / { proxy u; } }"
LISTEN = """listen 127.0.0.1:@https@ tls {{ certificate {} key={}; kernel_tls {}; {} }}
"""


@pytest.fixture(scope="module")
def library():
    folder = Path(temp_dir())
    yield ktls.build(folder)
    shutil.rmtree(folder)


@pytest.fixture
def kernel(library):
    folder = Path(temp_dir())
    yield lambda **more: ktls.Kernel(library, folder, **more)
    shutil.rmtree(folder)


@pytest.fixture
def offload(weir, ca, kernel):
    """(weir, its kernel)"""
    def make(config=SMALL, more="", top="", refuse=None, sndbuf=None, mode="on", **values):
        k = kernel(refuse=refuse, sndbuf=sndbuf)
        return weir(top + LISTEN.format(*ca.cert("a.test"), mode, more) + config, env=k.env, **values), k
    return make


def counted(w, result):
    return w.metric("weir_tls_kernel_connections_total", result=result)


class Strict(raw.Stream):
    """A client to which an end without close_notify is an error."""

    def __init__(self, port, ctx, rcvbuf=None):
        sock = socket.socket()
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.connect((HOST, port))
        ctx.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        super().__init__(ctx.wrap_socket(sock, server_hostname="a.test", suppress_ragged_eofs=False))

    def slowly(self, pause=0.002):
        """All up to the end, a little at a time."""
        parts = []
        while data := self.sock.recv(1500):
            parts.append(data)
            if len(parts) % 50 == 0:
                time.sleep(pause)
        return b"".join(parts)


CIPHERS = [("1.2", "ECDHE-ECDSA-AES128-GCM-SHA256", (ktls.V12, ktls.AES128)),
           ("1.2", "ECDHE-ECDSA-AES256-GCM-SHA384", (ktls.V12, ktls.AES256)),
           ("1.2", "ECDHE-ECDSA-CHACHA20-POLY1305", (ktls.V12, ktls.CHACHA)),
           ("1.3", "TLS_AES_128_GCM_SHA256", (ktls.V13, ktls.AES128)),
           ("1.3", "TLS_AES_256_GCM_SHA384", (ktls.V13, ktls.AES256)),
           ("1.3", "TLS_CHACHA20_POLY1305_SHA256", (ktls.V13, ktls.CHACHA))]


@pytest.mark.parametrize("version,cipher,keys", CIPHERS)
@pytest.mark.parametrize("protocol", ["--http1.1", "--http2"])
def test_ciphers(offload, server, ca, version, cipher, keys, protocol):
    w, k = offload(PROXY, backend=server(answer(MIB)))
    which = "--tls13-ciphers" if version == "1.3" else "--ciphers"
    url = f"https://a.test:{w.https}/"
    done = subprocess.run([need("curl"), "-sS", protocol, which, cipher, f"--tlsv{version}", "--tls-max", version,
                           "--cacert", ca.cert_file, "--resolve", f"a.test:{w.https}:{HOST}",
                           url, url, url], capture_output=True, timeout=60 * SLOW)
    assert done.returncode == 0, done.stderr
    assert done.stdout == 3 * MIB
    until(lambda: k.controls(ALERT) == [2], "close_notify, which is the last that it reports")
    assert k.keys() == [keys]
    assert 3 * len(MIB) < k.data() < 3 * len(MIB) + 10_000
    # TLS 1.2: Finished; 1.3: two tickets, as the handshake is over when the keys change.
    assert len(k.controls(HANDSHAKE)) == (1 if version == "1.2" else 2)
    assert counted(w, "kernel") == 1 and counted(w, "user") == 0
    assert k.lines("lost") == []


@VERSIONS
def test_many_small_responses(offload, ca, version):
    w, k = offload()
    with Strict(w.https, ca.client(version=version)) as c:
        for _ in range(300):
            assert b"TLSv1." in c.send(request()).response().body
        for _ in range(20):
            c.send(request() * 30)
            for _ in range(30):
                assert c.response().status == 200
        assert c.send(request(fields=CLOSE)).response().status == 200
        assert c.ended() == "eof"
    assert counted(w, "kernel") == 1
    until(lambda: k.controls(ALERT) == [2], "close_notify")
    assert k.data() > 900 * 30


@VERSIONS
def test_uploads(offload, server, ca, version):
    s = server(answer(b"y" * 70_000))
    w, k = offload(PROXY, backend=s)
    with Strict(w.https, ca.client(version=version)) as c:
        for _ in range(3):
            c.send(request("POST", body=MIB))
            assert c.response().body == b"y" * 70_000
            assert s.last().body == MIB
    until(lambda: k.data() > 210_000, "the data")


@VERSIONS
@pytest.mark.parametrize("half", [False, True])
def test_a_slow_reader_gets_all(offload, server, ca, version, half):
    """A full socket; and an end that comes while it is full."""
    body = 8 * MIB
    w, k = offload(PROXY, backend=server(answer(body)))
    for _ in range(3):
        with Strict(w.https, ca.client(version=version), rcvbuf=4096) as c:
            c.send(request(fields=CLOSE))
            if half:  # FIN: there is nobody to wait for
                socket.socket.shutdown(c.sock, socket.SHUT_WR)
            until(lambda: k.lines("held"), "the socket to be full")
            assert c.slowly().partition(b"\r\n\r\n")[2] == body
    assert counted(w, "kernel") == 3
    assert k.lines("lost") == []
    until(lambda: w.metric("weir_connections") == 0, "the connections to be over")


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("close", [False, True])
def test_an_end_that_has_to_wait_for_room(offload, server, ca, half, close):
    """All of a response has been taken while TCP had room for all but the end of it: neither
    close_notify and FIN nor a close may lose that."""
    w, k = offload(PROXY, backend=server(lambda q: answer(MIB[:int(q.target[1:])])), sndbuf=65536)
    ctx, found = ca.client(version=V13), 0
    fits, full = 1000, 1_000_000
    while full - fits > 3:  # near the smallest that does not fit it is the last record that is held
        size = (fits + full) // 2
        data, held = k.data(), len(k.lines("held"))
        with Strict(w.https, ctx, rcvbuf=16384) as c:
            c.send(request(target=f"/{size}", fields=CLOSE if close else ()))
            until(lambda: k.data() >= data + size or len(k.lines("held")) > held, "TCP to be full, or not")
            if half:
                socket.socket.shutdown(c.sock, socket.SHUT_WR)
            time.sleep(0.05)  # in which it could be lost
            if len(k.lines("held")) == held:
                fits = size
            else:
                full = size
                found += k.data() >= data + size
            assert c.response().body == MIB[:size]
    assert found
    assert k.lines("lost") == []


def test_h2(offload, server, ca):
    w, k = offload(PROXY, backend=server(lambda q: answer(MIB[:100_000 + int(q.target[1:])])))
    c = h2.Client(w.https, tls=ca.client(alpn=["h2"]))
    streams = [c.request(path=f"/{n}") for n in range(40)]
    for n, stream in enumerate(streams):
        assert c.response(stream, 30).body == MIB[:100_000 + n]
    c.close()
    until(lambda: k.data() > 4_000_000, "the data")
    assert counted(w, "kernel") == 1
    c = h2.Client(w.https, tls=ca.client(alpn=["h2"]), rcvbuf=4096)  # and a slow one
    streams = [c.request(path=f"/{n}") for n in range(40)]
    time.sleep(0.3)
    for n, stream in enumerate(streams):
        assert c.response(stream, 60).body == MIB[:100_000 + n]
    c.close()


@VERSIONS
def test_resumption(offload, ca, version):
    w, k = offload()
    ctx, session = ca.client(version=version), None
    for n in range(4):
        with raw.client(w.https, tls=ctx, session=session) as c:
            assert c.send(request()).response().status == 200
            assert c.sock.session_reused == (n > 0)
            session = c.sock.session
    assert counted(w, "kernel") == 4 and len(k.keys()) == 4


def test_early_data(offload, ca):
    """Answered under the same keys before the handshake has ended, whose tickets come in between."""
    w, k = offload('host * { route / { respond 200 "early=$tls_early_data\n"; } }', more="early_data on;")
    o = Openssl(w, ca)

    def ready():
        o.ticket()
        return b"Early data was accepted" in o.early(request(fields=CLOSE), request(fields=CLOSE), hold=False)

    until(ready, lambda: f"early data to be accepted:\n{w.log()}", 30)
    out = o.ticket().early(request() * 2 + request(fields=CLOSE))
    assert out.count(b"early=yes") == 3, out
    assert b"early=no" in o.run("-sess_in", o.session, data=request(fields=CLOSE))
    assert counted(w, "kernel") == len(k.keys()) and counted(w, "user") == 0


def test_an_alert_after_the_keys(offload, ca):
    """TLS 1.3: what the client shows is judged when the kernel encrypts already."""
    w, k = offload(more=f"client_certificate required ca={ca.cert_file};")
    with pytest.raises(ssl.SSLError, match="(?i)certificate.required"):
        fetch(w.https, tls=ca.client(version=V13))
    until(lambda: k.controls(ALERT) == [2], "the alert")
    assert fetch(w.https, tls=ca.client(ca.cert("me", client=True), version=V13)).status == 200
    assert counted(w, "kernel") == 1


@pytest.mark.parametrize("mode", ["on", "off"])
def test_a_cut_response_looks_cut(offload, server, ca, mode):
    """Where only the end of the connection ends the body, there is no close_notify."""
    go = threading.Event()

    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf")
        go.wait(10 * SLOW)
        c.reset()

    w, k = offload(PROXY, backend=server(script=script), mode=mode)
    with Strict(w.https, ca.client()) as c:
        c.send(request(version="1.0"))
        assert c.read_until(b"half")
        go.set()
        with pytest.raises((ssl.SSLError, ConnectionError), match="(?i)eof|reset"):
            c.fill()
    assert k.controls(ALERT) == []


def test_new_keys(offload, ca):
    """A client may change its own; those of weir cannot be changed, which ends the connection."""
    w, k = offload()
    argv = [need("openssl"), "s_client", "-connect", f"{HOST}:{w.https}", "-servername", "a.test", "-tls1_3",
            "-CAfile", str(ca.cert_file)]
    heard = w.dir / "heard"
    with open(heard, "wb") as out:
        p = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=out, stderr=out)

    def say(text):
        p.stdin.write(text)
        p.stdin.flush()

    def hears(what, count=1):
        until(lambda: heard.read_bytes().count(what) == count, lambda: heard.read_bytes()[-3000:].decode())

    try:
        say(request())
        hears(b"HTTP/1.1 200 OK")
        say(b"k\n")
        hears(b"KEYUPDATE")
        say(request())
        hears(b"HTTP/1.1 200 OK", 2)
        before = k.data()
        say(b"K\n")
        hears(b"alert internal error")
        assert p.wait(10 * SLOW) != 0
    finally:
        p.kill()
        p.wait()
        p.stdin.close()
    assert k.data() == before
    assert fetch(w.https, tls=ca.client()).status == 200


def test_shutdown(offload, server, ca):
    """Idle connections get close_notify; one in the middle of a response gets the rest of it first."""
    w, k = offload(PROXY, backend=server(answer(4 * MIB)), top="shutdown_timeout 20s; ")
    idle = Strict(w.https, ca.client())
    assert len(idle.send(request()).response().body) == len(4 * MIB)
    busy = Strict(w.https, ca.client(), rcvbuf=4096)
    busy.send(request())
    until(lambda: k.lines("held"), "the socket to be full")
    w.send(signal.SIGTERM)
    assert idle.ended() == "eof"
    assert busy.slowly().partition(b"\r\n\r\n")[2] == 4 * MIB
    assert w.process.wait(20 * SLOW) == 0
    assert k.lines("lost") == []


def test_a_cipher_that_the_kernel_refuses(offload, ca):
    w, k = offload(refuse=ktls.AES128)
    ctx = ca.client(version=V12)
    for cipher in "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384":
        ctx.set_ciphers(cipher)
        with Strict(w.https, ctx) as c:
            assert c.send(request(fields=CLOSE)).response().body == b"TLSv1.2"
            assert c.ended() == "eof"
    assert counted(w, "kernel") == 1 and counted(w, "user") == 1
    assert k.keys() == [(ktls.V12, ktls.AES256)]
    w.wait_log(r"kernel_tls is on but the kernel does not take it \(Invalid argument\): weir encrypts")


def test_off_is_off(offload, ca):
    w, k = offload(mode="off")
    assert fetch(w.https, tls=ca.client()).status == 200
    assert k.path.read_text() == ""
    assert counted(w, "kernel") == 0 and counted(w, "user") == 0


def kernel_has_it():
    with socket.create_server((HOST, 0)) as s, socket.create_connection(s.getsockname()) as c:
        try:
            c.setsockopt(socket.IPPROTO_TCP, 31, b"tls")  # TCP_ULP
        except OSError:
            return False
        return True


@VERSIONS
def test_this_machines_kernel(weir, server, ca, version):
    """Where it has TLS it encrypts; where it has none weir does, and says so once."""
    body = 4 * MIB
    w = weir(LISTEN.format(*ca.cert("a.test"), "on", "") + PROXY, backend=server(answer(body)))
    for _ in range(5):
        with Strict(w.https, ca.client(version=version), rcvbuf=4096) as c:
            c.send(request(fields=CLOSE))
            assert c.slowly(0).partition(b"\r\n\r\n")[2] == body
    there = kernel_has_it()
    assert counted(w, "kernel" if there else "user") == 5
    assert counted(w, "user" if there else "kernel") == 0
    said = r"kernel_tls is on but the kernel does not take it \(No such file or directory; " \
           r"is its module tls loaded\? modprobe tls\)"
    if not there:
        w.wait_log(said)
    assert len(list(w.wait_log(said, 0))) == (0 if there else 1)
