"""TLS on both sides."""
import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from kit import SLOW, h2, raw, until
from kit.certs import Authority, openssl
from kit.raw import answer, fetch, request

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BODY = 'host * { route / { respond 200 "$tls_version|$tls_sni|$scheme"; } }'


def peer_name(c):
    return [v for k, v in c.sock.getpeercert()["subjectAltName"]]


def listener(*certs, more=""):
    lines = " ".join(f"certificate {c} key={k};" for c, k in certs)
    return f"listen 127.0.0.1:@https@ tls {{ {lines} {more} }} "


def test_certificates_by_sni(weir, connect, ca):
    w = weir(listener(ca.cert("first.test"), ca.cert("a.test", "b.test"), ca.cert("*.wild.test"),
                      ca.cert("x.wild.test")) + BODY)
    ctx = ca.client()
    ctx.check_hostname = False
    for name, wanted in [("a.test", "a.test"), ("b.test", "a.test"), ("B.TEST", "a.test"),
                         ("y.wild.test", "*.wild.test"), ("x.wild.test", "x.wild.test"),
                         ("z.y.wild.test", "first.test"), ("wild.test", "first.test"),
                         ("other.test", "first.test"), (None, "first.test")]:
        c = connect(w.https, tls=ctx, name=name)
        assert peer_name(c)[0] == wanted, name
    w.wait_metric("weir_tls_handshakes_total", 9, result="full")


@pytest.mark.parametrize("version,word", [(V12, "TLSv1.2"), (V13, "TLSv1.3")])
def test_requests(weir, server, connect, ca, version, word):
    s = server(answer(b"x" * 100_000))
    w = weir(listener(ca.cert("a.test")) + "upstream u { server @backend@; } host * { route / { proxy u; } }",
             backend=s)
    c = connect(w.https, tls=ca.client(version=version))
    assert c.sock.version() == word
    for _ in range(3):
        assert len(c.send(request()).response().body) == 100_000
    q = s.last()
    assert q.get("x-forwarded-proto") == "https"
    c.send(request("POST", body=b"y" * 300_000))
    assert c.response().status == 200
    assert len(s.last().body) == 300_000


def test_variables(weir, ca):
    w = weir(listener(ca.cert("a.test")) + BODY)
    version, sni, scheme = fetch(w.https, tls=ca.client()).body.decode().split("|")
    assert "1.3" in version
    assert (sni, scheme) == ("a.test", "https")


@pytest.mark.parametrize("versions,tried,works", [
    ("1.3", V12, False), ("1.2", V13, False), ("1.2 1.3", V12, True), ("1.3", V13, True)])
def test_versions(weir, connect, ca, versions, tried, works):
    w = weir(listener(ca.cert("a.test"), more=f"versions {versions};") + BODY)
    if works:
        assert connect(w.https, tls=ca.client(version=tried)).send(request()).response().status == 200
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(w.https, tls=ca.client(version=tried))
        until(lambda: w.metric("weir_tls_handshakes_total", result="failed") == 1, "the count")


def s_client(port, *args, talk="Q\n"):
    """The openssl command's client: (did it end well, all it said)."""
    with subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *args], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as p:
        if talk.startswith("R"):
            time.sleep(0.3 * SLOW)  # a command counts only when the handshake is over
        out, _ = p.communicate(talk, timeout=20 * SLOW)
    return p.returncode == 0, out


@pytest.mark.parametrize("args, alert", [
    (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], "protocol version"),
    (["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"], "handshake failure"),  # no forward secrecy
    (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"], "handshake failure"),  # CBC
])
def test_what_is_weak_is_refused(weir, ca, args, alert):
    w = weir(listener(ca.cert("a.test")) + BODY)
    well, said = s_client(w.https, *args)
    assert not well and alert in said
    assert s_client(w.https, "-tls1_2")[0]


@pytest.mark.parametrize("order", ["ecdsa first", "rsa first"])
@pytest.mark.parametrize("where", ["listener", "host"])
def test_two_kinds_of_key(weir, ca, order, where):
    """Of two certificates for the same names the client's abilities choose, whatever was written first."""
    certs = [ca.cert("a.test", "b.test"), ca.cert("b.test", "a.test", rsa=True)]
    if order == "rsa first":
        certs.reverse()
    if where == "listener":
        w = weir(listener(*certs) + BODY)
    else:
        lines = " ".join(f"certificate {c} key={k};" for c, k in certs)
        w = weir(listener(ca.cert("other.test")) + f"host a.test b.test {{ tls {{ {lines} }} "
                 "route / { respond 204; } }")
    rsa, ecdsa = "rsaEncryption", "id-ecPublicKey"
    for args, kind in [(["-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256"], rsa),
                       (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], ecdsa),
                       (["-tls1_2", "-sigalgs", "RSA+SHA256"], rsa),
                       (["-tls1_2", "-sigalgs", "ECDSA+SHA256"], ecdsa),
                       (["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"], rsa),
                       (["-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256"], ecdsa)]:
        for name in ("a.test", "b.test"):
            well, said = s_client(w.https, "-servername", name, *args)
            assert well, (args, said)
            pem = said[said.index("-----BEGIN CERTIFICATE"):said.index("-----END CERTIFICATE")]
            shown = openssl("x509", "-noout", "-text", input=(pem + "-----END CERTIFICATE-----\n").encode()).decode()
            assert kind in shown and "DNS:a.test" in shown, (args, name)
    well, said = s_client(w.https, "-servername", "a.test", "-tls1_3", "-sigalgs", "ed25519")
    assert not well and "handshake failure" in said


def test_a_certificate_that_is_never_shown(weir, ca):
    """Said once, though a host inherits it; one of another kind of key, or with a name of its own, is shown."""
    first, again = ca.cert("a.test", "b.test"), ca.cert("b.test")
    rsa, more = ca.cert("b.test", "a.test", rsa=True), ca.cert("a.test", "c.test")
    w = weir(listener(first, rsa, again, more) + " host a.test { tls { versions 1.3; } route / { respond 200; } }" + BODY)
    w.wait_log(f"{again[0]} is never shown: certificates before it have all its names")
    assert w.log().count("is never shown") == 1


def test_no_renegotiation(weir, ca):
    w = weir(listener(ca.cert("a.test")) + BODY)
    assert "no renegotiation" in s_client(w.https, "-tls1_2", talk="R\n")[1]


def test_alpn(weir, connect, ca):
    w = weir(listener(ca.cert("a.test"), more="protocols http/1.1;") + BODY)
    assert connect(w.https, tls=ca.client(alpn=["h2", "http/1.1"])).sock.selected_alpn_protocol() == "http/1.1"
    assert connect(w.https, tls=ca.client()).sock.selected_alpn_protocol() is None
    with pytest.raises(ssl.SSLError):
        connect(w.https, tls=ca.client(alpn=["spdy/1"])).send(request()).response()


@pytest.mark.parametrize("data", [request(), b"G", b"POST /x HTTP/1.0\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n",
                                  b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
                         ids=["get", "one byte", "post", "half", "http2"])
def test_plain_http_on_a_tls_port(weir, connect, ca, data):
    w = weir("timeout client_head=1s; " + listener(ca.cert("a.test")) + BODY)
    c = connect(w.https).send(data)
    r = c.response()
    assert r.status == 400 and b"HTTPS" in r.body
    w.wait_metric("weir_connection_closes_total", 1, reason="http_on_tls")


def test_garbage_instead_of_a_hello(weir, connect, ca):
    w = weir(listener(ca.cert("a.test")) + BODY)
    c = connect(w.https)
    c.send(b"\x16\x03\x01\x00\x05hello" * 10)
    try:
        c.read_all()
    except ConnectionError:
        pass
    assert fetch(w.https, tls=ca.client()).status == 200


def hello(ca):
    """The bytes of a client's first flight."""
    out = ssl.MemoryBIO()
    half = ca.client().wrap_bio(ssl.MemoryBIO(), out, server_hostname="a.test")
    with pytest.raises(ssl.SSLWantReadError):
        half.do_handshake()
    return out.read()


def give_up(c):
    c.half_close()
    try:
        c.read_all()
    except ConnectionError:
        pass


def test_a_hello_in_pieces_and_broken_ones(weir, connect, ca):
    w = weir(listener(ca.cert("a.test")) + BODY)
    good = hello(ca)
    c = connect(w.https)
    for byte in good:
        c.send(bytes([byte]))
    assert c.read(1) == b"\x16"
    give_up(c)
    for cut in (1, 4, 5, 43, 100, len(good) - 1):
        give_up(connect(w.https).send(good[:cut]))
    for seed in range(60):
        dice = random.Random(seed)
        bad = bytearray(good)
        for _ in range(dice.randrange(1, 6)):
            bad[dice.randrange(5, len(bad))] = dice.randrange(256)
        give_up(connect(w.https).send(bytes(bad)))
    assert fetch(w.https, tls=ca.client()).status == 200


@pytest.mark.parametrize("drip", [False, True])
def test_a_handshake_that_does_not_come(weir, connect, ca, drip):
    w = weir("timeout client_head=200ms; " + listener(ca.cert("a.test")) + BODY)
    c = connect(w.https)
    started = time.monotonic()
    try:
        for byte in hello(ca) if drip else b"":
            c.send(bytes([byte]))
            time.sleep(0.01)
    except ConnectionError:
        pass
    assert c.ended() in ("eof", "reset")
    assert time.monotonic() - started < 2 * SLOW
    until(lambda: w.metric("weir_connection_closes_total", reason="tls_timeout") == 1, "the reason")


@pytest.mark.parametrize("mode", ["required", "optional"])
def test_client_certificate(weir, ca, mode):
    w = weir(listener(ca.cert("a.test"), more=f"client_certificate {mode} ca={ca.cert_file};")
             + 'host * { route / { respond 200 "$tls_client_subject"; } }')
    mine = ca.cert("client-1.test", client=True)
    assert b"client-1.test" in fetch(w.https, tls=ca.client(mine)).body
    stranger = Authority("stranger").cert("client-2.test", client=True)
    for cert in (None, stranger):
        if mode == "optional" and cert is None:
            assert fetch(w.https, tls=ca.client()).body == b""
            continue
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            fetch(w.https, tls=ca.client(cert))


def session_of(port, ctx, name="a.test", session=None):
    """(was it resumed, the session to resume) of one request."""
    with raw.client(port, tls=ctx, name=name, session=session) as c:
        assert c.send(request(host=name)).response().status == 200
        return c.sock.session_reused, c.sock.session


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("workers", [1, 2])
def test_resumption(weir, ca, version, workers):
    """By any loop of any worker, after a reload and after a worker was replaced."""
    conf = (f"workers {workers}; threads 2; " + listener(ca.cert("a.test")) + BODY)
    w = weir(conf)
    w.deaths_expected = True
    ctx = ca.client(version=version)
    _, session = session_of(w.https, ctx)
    for _ in range(8):
        reused, _ = session_of(w.https, ctx, session=session)
        assert reused
    w.reload(conf + " # changed")
    assert session_of(w.https, ctx, session=session)[0]
    for pid in w.children():
        os.kill(pid, signal.SIGKILL)
    w.wait_deaths(workers)
    assert session_of(w.https, ctx, session=session)[0]
    w.wait_metric("weir_tls_handshakes_total", 10, result="resumed")


@pytest.mark.parametrize("version", [V12, V13])
def test_ticket_keys_are_shared_by_machines(weir, ca, version):
    """Tickets of an old key open until it leaves the file; the newest is the first."""
    old, new = os.urandom(80), os.urandom(80)
    conf = "threads 2; " + listener(ca.cert("a.test"), more="ticket_keys @dir@/keys;") + BODY
    one, two = (weir(conf, files={"keys": old}) for _ in range(2))
    ctx = ca.client(version=version)
    _, session = session_of(one.https, ctx)
    assert session_of(two.https, ctx, session=session)[0]
    two.file("keys", new + old)
    two.reload()
    reused, renewed = session_of(two.https, ctx, session=session)
    assert reused
    assert not session_of(one.https, ctx, session=renewed)[0], "the new ticket is of the new key"
    two.file("keys", new)
    two.reload()
    assert not session_of(two.https, ctx, session=session)[0]
    assert session_of(two.https, ctx, session=renewed)[0]


SUBJECT = 'host * { route / { respond 200 "$tls_client_subject"; } }'


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("before", ["off", "optional", "others"])
@pytest.mark.parametrize("where", ["listener", "reload"])
def test_no_session_of_another_policy(weir, ca, version, before, where):
    """A ticket got where nobody asks for a certificate, or others are believed, opens nothing where ours is required."""
    others = Authority("others")
    asks = {"off": "", "optional": f"client_certificate optional ca={ca.cert_file};",
            "others": f"client_certificate required ca={others.cert_file};"}[before]
    cert = ca.cert("a.test")
    strict = f"client_certificate required ca={ca.cert_file};"
    lax = listener(cert, more=asks)
    w = weir(lax + listener(cert, more=strict).replace("@https@", "@strict@") + SUBJECT)
    ctx = ca.client(others.cert("c.test", client=True) if before == "others" else None, version=version)
    _, session = session_of(w.https, ctx)
    reused, session = session_of(w.https, ctx, session=session)
    assert reused
    if where == "reload":
        w.reload(listener(cert, more=strict) + SUBJECT)
    with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
        session_of(w.https if where == "reload" else w.strict, ctx, session=session)


@pytest.mark.parametrize("version", [V12, V13])
def test_a_resumed_session_knows_the_certificate(weir, ca, version):
    w = weir(listener(ca.cert("a.test"), more=f"client_certificate required ca={ca.cert_file};") + SUBJECT)
    ctx = ca.client(ca.cert("c.test", client=True), version=version)
    with raw.client(w.https, tls=ctx) as c:
        first = c.send(request()).response().body
        session = c.sock.session
    with raw.client(w.https, tls=ctx, session=session) as c:
        assert c.send(request()).response().body == first and b"c.test" in first
        assert c.sock.session_reused


def test_a_reload_that_asks_for_a_certificate(weir, connect, ca):
    """421 on a connection that went through another verification."""
    conf = listener(ca.cert("a.test")) + BODY
    w = weir(conf)
    c = connect(w.https, tls=ca.client())
    assert c.send(request()).response().status == 200
    w.reload(listener(ca.cert("a.test"), more=f"client_certificate required ca={ca.cert_file};") + BODY)
    r = c.send(request()).response()
    assert r.status == 421
    assert c.ended() == "eof"


@pytest.mark.parametrize("before,after,shows", [("off", "optional", False), ("optional", "off", False),
                                                ("optional", "off", True), ("required", "optional", True)])
@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_a_reload_that_asks_for_no_certificate_ends_nothing(weir, connect, ca, before, after, shows, protocol):
    """Who has shown none is served, and asked by its next connection; what was shown before is believed no more."""
    other = Authority("other")

    def conf(mode, who):
        return listener(ca.cert("a.test"), more="" if mode == "off" else f"client_certificate {mode} ca={who.cert_file};") + BODY

    w = weir(conf(before, ca))
    ctx = ca.client(ca.cert("c.test", client=True) if shows else None)
    if protocol == "h2":
        ctx.set_alpn_protocols(["h2"])
        c = h2.Client(w.https, tls=ctx)
        assert c.fetch().status == 200
        w.reload(conf(after, other))
        assert c.fetch().status == (421 if shows else 200)
        c.until(lambda: c.goaways)
        assert c.ended()
        return
    c = connect(w.https, tls=ctx)
    assert c.send(request()).response().status == 200
    w.reload(conf(after, other))
    r = c.send(request()).response()
    assert (r.status, r.get("connection")) == (421 if shows else 200, "close")
    assert c.ended() == "eof"


def test_half_close(weir, server, connect, ca):
    def reply(q):
        time.sleep(0.2)
        return answer(b"late")

    w = weir(listener(ca.cert("a.test")) + "upstream u { server @backend@; } host * { route / { proxy u; } }",
             backend=server(reply))
    c = connect(w.https, tls=ca.client(version=V12))
    c.send(request())
    with socket.socket(fileno=os.dup(c.sock.fileno())) as below:
        below.shutdown(socket.SHUT_WR)
    assert c.response().body == b"late"


@pytest.mark.parametrize("how,status", [("leaves", 499), ("has said all", 200), ("is cut", 200)])
def test_the_log_tells_of_a_connection_that_is_over(weir, server, connect, ca, how, status):
    asked, go = threading.Event(), threading.Event()

    def script(c):
        c.request()
        asked.set()
        go.wait(5 * SLOW)
        c.send(answer(b"the whole")[:-5] if how == "is cut" else answer(b"late"))

    s = server(script=script)
    w = weir("access_log @dir@/access.log format=json;" + listener(ca.cert("a.test"))
             + "upstream u { server @backend@; } host * { route / { proxy u; } }", backend=s)
    c = connect(w.https, tls=ca.client(version=V12))
    c.send(request())
    assert asked.wait(5 * SLOW)
    if how == "leaves":
        c.reset()
    elif how == "has said all":
        with socket.socket(fileno=os.dup(c.sock.fileno())) as below:
            below.shutdown(socket.SHUT_WR)
    if how != "leaves":
        go.set()
    log = w.dir / "access.log"
    until(lambda: log.exists() and log.read_text().endswith("\n"), "the line")
    go.set()
    said = json.loads(log.read_text())
    assert (said["status"], said["tls_version"], said["tls_sni"]) == (status, "TLSv1.2", "a.test")


# ----------------------------------------------------------------- expiry

def not_after(cert):
    return ssl.cert_time_to_seconds(openssl("x509", "-in", cert, "-noout", "-enddate").decode().strip().split("=")[1])


def test_days_to_expiry(weir, ca):
    """Of every certificate, by who shows it; those that have gone are told no more."""
    long, short, own = ca.cert("a.test", days=100), ca.cert("b.test", days=20), ca.cert("c.test", days=50)
    hosts = f"host c.test {{ tls {{ certificate {own[0]} key={own[1]}; }} route / {{ respond 204; }} }}"
    w = weir("workers 2; " + listener(long, short) + hosts)
    at = f"127.0.0.1:{w.https}"
    name = "weir_tls_certificate_expiry_seconds"
    for labels, cert in [({"listener": at, "certificate": long[0]}, long),
                         ({"listener": at, "certificate": short[0]}, short),
                         ({"host": "c.test", "certificate": own[0]}, own)]:
        w.wait_metric(name, not_after(cert[0]), **labels)
    shown = w.status()["certificates"]
    assert [(c.get("listener") or c["host"], c["file"], c["expires"]) for c in shown] == [
        (at, long[0], not_after(long[0])), (at, short[0], not_after(short[0])), ("c.test", own[0], not_after(own[0]))]
    for c, days in zip(shown, (100, 20, 50)):
        assert c["days_left"] in (days - 1, days)  # the second in which it was made may not be over
    w.reload(listener(long) + BODY)
    until(lambda: {l["certificate"] for n, l, v in w.metrics() if n == name} == {long[0]}, "the others to be gone")
    assert w.metric(name) == not_after(long[0])


@pytest.mark.parametrize("days, said", [(-1, r"the certificate expired on \d{4}-\d\d-\d\d \d\d:\d\d UTC"),
                                        (1, "the certificate expires in (0 days|1 day), on "),
                                        (13, "expires in 1[23] days, on"), (16, None)])
def test_a_certificate_that_expires_soon(weir, ca, days, said):
    """A warning, at its place, of -t and of a reload; weir serves all the same."""
    cert = ca.cert("a.test", days=days)
    again = listener(cert).replace("@https@", "@other@")
    w = weir("\n" + listener(cert) + again + BODY)
    for text in (w.command("-t", check=True).stderr, w.reload().stdout + w.log()):
        assert ("warning" in text) is (said is not None), text
        if said:
            assert re.search(rf"weir\.conf:3:\d+: warning: {re.escape(cert[0])}: .*{said}", text)
    assert w.command("-t").stderr.count("warning: ") == (said is not None), "once, though it is named twice"
    assert fetch(w.https, tls=ca.client(verify=False)).status == 200


# ----------------------------------------------------------------- upstream

def upstream(tls):
    return f"listen 127.0.0.1:@http@; upstream u {{ server @backend@; {tls} retry attempts=1; }} host * {{ route / {{ proxy u; }} }}"


def test_upstream_is_verified(weir, server, ca):
    s = server(tls=ca.server(ca.cert("s.test")))
    w = weir("threads 1; " + upstream(f"tls ca={ca.cert_file} name=s.test;"), backend=s)
    for _ in range(3):
        assert fetch(w.http).status == 200
    assert s.accepted == 1


@pytest.mark.parametrize("how", ["name", "authority", "expired", "plain"])
def test_upstream_is_refused(weir, server, ca, how):
    other = Authority("another")
    cert = {"name": lambda: ca.cert("wrong.test"), "authority": lambda: other.cert("s.test"),
            "expired": lambda: expired(ca), "plain": lambda: None}[how]()
    s = server(tls=ca.server(cert)) if cert else server(script=lambda c: (c.read(1), c.send(answer())))
    w = weir(upstream(f"tls ca={ca.cert_file} name=s.test;"), backend=s)
    assert fetch(w.http).status == 502
    w.wait_metric("weir_local_replies_total", 1, reason="upstream_tls")
    assert s.requests == []


def expired(ca):
    cert, key = ca.cert("s.test")
    request_file = cert.replace(".pem", ".csr")
    openssl("x509", "-req", "-in", request_file, "-CA", ca.cert_file, "-CAkey", ca.key_file,
            "-CAcreateserial", "-extfile", cert.replace(".pem", ".ext"), "-days", "-1", "-out", cert)
    return cert, key


def test_upstream_verify_off(weir, server, ca):
    s = server(tls=ca.server(Authority("another").cert("wrong.test")))
    w = weir(upstream("tls verify=off;"), backend=s)
    assert fetch(w.http).status == 200


def test_upstream_sni_and_client_certificate(weir, server, ca):
    names = []
    ctx = ca.server(ca.cert("s.test"), client_ca=True)
    ctx.sni_callback = lambda sock, name, c: names.append(name)
    s = server(tls=ctx)
    cert, key = ca.cert("weir.test", client=True)
    w = weir(upstream(f"tls ca={ca.cert_file} name=s.test certificate={cert} key={key};"), backend=s)
    assert fetch(w.http).status == 200
    assert names == ["s.test"]


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_upstream_that_misses_a_client_certificate_says_so(weir, server, ca, version, protocol):
    """With TLS 1.3 its alert comes after our side of the handshake is over."""
    ctx = ca.server(ca.cert("s.test"), client_ca=True)
    ctx.maximum_version = version
    ctx.set_alpn_protocols([protocol])
    s = server(tls=ctx)
    w = weir(upstream(f"protocol {protocol}; tls ca={ca.cert_file} name=s.test; eject off;"), backend=s)
    assert fetch(w.http).status == 502
    w.wait_metric("weir_local_replies_total", 1, reason="upstream_tls")
    w.wait_log(r"warn  \[upstream \w+\] server 127.0.0.1:\d+: TLS to the server failed: .*alert")
    assert s.requests == []


def test_upstream_needs_the_systems_trust_unless_told_otherwise(weir, server, ca):
    s = server(tls=ca.server(ca.cert("s.test")))
    w = weir(upstream("tls name=s.test;"), backend=s)
    assert fetch(w.http).status == 502
    w.wait_metric("weir_local_replies_total", 1, reason="upstream_tls")
    assert s.requests == []


@pytest.mark.parametrize("name, status", [("127.0.0.1", 200), ("s.test", 502)])
def test_upstream_address_is_verified_as_one(weir, server, ca, name, status):
    s = server(tls=ca.server(ca.cert(name)))
    w = weir(upstream(f"tls ca={ca.cert_file};"), backend=s)
    assert fetch(w.http).status == status


def test_upstream_sessions_are_resumed(weir, server, ca):
    resumed = []

    def script(c):
        c.server.take(c)
        resumed.append(c.sock.session_reused)
        c.send(answer(fields={"connection": "close"}))

    w = weir("threads 1; " + upstream(f"tls ca={ca.cert_file} name=s.test;"),
             backend=server(script=script, tls=ca.server(ca.cert("s.test"))))
    for _ in range(3):
        assert fetch(w.http).status == 200
    assert resumed == [False, True, True]


def test_upstream_handshake_that_hangs(weir, server, ca):
    s = server(script=lambda c: c.read_all())
    w = weir(upstream(f"tls ca={ca.cert_file} name=s.test; timeout connect=200ms;"), backend=s)
    assert fetch(w.http).status == 504
    w.wait_metric("weir_local_replies_total", 1, reason="connect")


@pytest.mark.parametrize("version", [V12, V13])
def test_upstream_that_is_cut_looks_cut(weir, server, connect, ca, version):
    """Where only the end of the connection ends the body, an end without close_notify is none."""
    def script(c):
        c.server.take(c)
        c.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        with socket.socket(fileno=os.dup(c.sock.fileno())) as below:
            below.shutdown(socket.SHUT_RDWR)

    ctx = ca.server(ca.cert("s.test"))
    ctx.maximum_version = version
    w = weir(upstream(f"tls ca={ca.cert_file} name=s.test;"), backend=server(script=script, tls=ctx))
    with pytest.raises((EOFError, ConnectionError)):
        connect(w.http).send(request()).response()


def test_curl(weir, ca):
    from kit import need

    w = weir(listener(ca.cert("a.test")) + BODY)
    done = subprocess.run([need("curl"), "-sS", "--fail", "--cacert", ca.cert_file, "--resolve",
                           f"a.test:{w.https}:127.0.0.1", f"https://a.test:{w.https}/"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("|a.test|https")
