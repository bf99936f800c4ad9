"""TLS parameters of hosts: chosen by the client's hello, and no way round them by Host."""
import ssl

import pytest

from kit import h2, raw
from kit.certs import Authority
from kit.raw import fetch, request

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
REFUSED = (ssl.SSLError, ConnectionError, EOFError)
ALL = ("open.test", "strict.test", "in.deep.test", "x.deep.test", "new.test")
SAYS = 'route / { respond 200 "$host|$client_certificate_subject"; }'


@pytest.fixture
def site(weir, ca):
    """open.test asks for nothing, strict.test and *.deep.test but in.deep.test for a certificate, new.test for TLS 1.3."""
    cert, special = ca.cert(*ALL), ca.cert("strict.test")
    strict = f"client_certificate required ca={ca.cert_file};"

    def make(more="", protocols=""):
        return weir(
            f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; {protocols} }} "
            "listen 127.0.0.1:@http@; "
            f"host strict.test {{ tls {{ certificate {special[0]} key={special[1]}; {strict} {more} }} {SAYS} }} "
            f"host *.deep.test {{ tls {{ {strict} }} {SAYS} }} host in.deep.test {{ {SAYS} }} "
            f"host new.test {{ tls {{ versions 1.3; protocols http/1.1; }} {SAYS} }} host * {{ {SAYS} }}")
    return make


def lax(ca, **more):
    ctx = ca.client(**more)
    ctx.check_hostname = False
    return ctx


@pytest.mark.parametrize("version", [V12, V13])
def test_by_name(site, connect, ca, version):
    w = site()
    mine = ca.cert("me.test", client=True)
    for name in ("strict.test", "STRICT.test", "x.deep.test", "y.x.deep.test"):
        with pytest.raises(REFUSED):
            fetch(w.https, host=name.lower(), name=name, tls=lax(ca, version=version))
        r = fetch(w.https, host=name.lower(), name=name, tls=lax(ca, cert=mine, version=version))
        assert r.body.decode() == f"{name.lower()}|CN=me.test"
    for name in ("open.test", "in.deep.test", "deep.test", "other.test"):
        assert fetch(w.https, host=name, tls=lax(ca, version=version)).body.decode() == f"{name}|"
    c = connect(w.https, tls=lax(ca, cert=mine, version=version), name="strict.test")
    assert [v for k, v in c.sock.getpeercert()["subjectAltName"]] == ["strict.test"]
    c = connect(w.https, tls=lax(ca, cert=mine, version=version), name="x.deep.test")
    assert len(c.sock.getpeercert()["subjectAltName"]) == len(ALL), "the listener's, for the block has none"


def test_versions_and_protocols(site, connect, ca):
    w = site()
    with pytest.raises(REFUSED):
        connect(w.https, tls=lax(ca, version=V12), name="new.test")
    c = connect(w.https, tls=lax(ca, alpn=["h2", "http/1.1"]), name="new.test")
    assert c.sock.version() == "TLSv1.3" and c.sock.selected_alpn_protocol() == "http/1.1"
    c = connect(w.https, tls=lax(ca, alpn=["h2", "http/1.1"], version=V12), name="open.test")
    assert c.sock.selected_alpn_protocol() == "h2"


def test_ciphers(site, connect, ca):
    w = site("ciphers ECDHE-ECDSA-AES256-GCM-SHA384; versions 1.2;")
    ctx = lax(ca, cert=ca.cert("me.test", client=True))
    c = connect(w.https, tls=ctx, name="strict.test")
    assert c.sock.cipher()[0] == "ECDHE-ECDSA-AES256-GCM-SHA384" and c.sock.version() == "TLSv1.2"


# The name in the hello, the host asked for, what comes of it with a certificate shown where it is asked for.
CROSSINGS = [
    ("open.test", "strict.test", 421), ("open.test", "x.deep.test", 421), ("open.test", "in.deep.test", 200),
    ("other.test", "STRICT.test", 421), (None, "strict.test", 421), (None, "open.test", 200),
    ("open.test", "strict.test:443", 421), ("open.test", "strict.test.", 421),
    ("strict.test", "open.test", 421), ("strict.test", "x.deep.test", 200), ("x.deep.test", "strict.test", 200),
    ("in.deep.test", "x.deep.test", 421), ("open.test", "new.test", 421), ("new.test", "open.test", 421),
]


@pytest.mark.parametrize("name, host, status", CROSSINGS)
def test_host_of_another_policy(site, connect, ca, name, host, status):
    """Over HTTP/1 the connection stays good for its own name; an absolute target is no way round."""
    w = site()
    own = name or "open.test"
    c = connect(w.https, tls=lax(ca, cert=ca.cert("me.test", client=True)), name=name)
    for _ in range(2):
        assert c.send(request(host=host)).response().status == status
        assert c.send(request(target=f"https://{host}/", host=own)).response().status == status
        assert c.send(request("POST", host=host, body=b"x" * 1000)).response().status == status
        assert c.send(request(host=own)).response().status == 200
    refused = 0 if status == 200 else 6
    w.wait_metric("weir_local_replies_total", refused, reason="misdirected")


@pytest.mark.parametrize("name, host, status", [x for x in CROSSINGS if "new.test" not in x])
def test_coalesced(site, ca, name, host, status):
    """HTTP/2: a client that uses a connection for another name in the certificate (RFC 9113 9.1.1)."""
    w = site()
    c = h2.Client(w.https, tls=lax(ca, cert=ca.cert("me.test", client=True), alpn=["h2"]), name=name)
    own = name or "open.test"
    for _ in range(2):
        assert c.fetch(authority=host).status == status
        assert c.fetch(authority=None, fields=[("host", host)]).status == status
        assert c.fetch(authority=own).status == 200
        assert c.fetch("POST", authority=host, body=b"x" * 1000).status == status
    assert not c.goaways
    c.close()


def test_no_tls_at_all(site, ca):
    w = site()
    assert fetch(w.http, host="open.test").status == 200
    assert fetch(w.http, host="new.test").status == 200
    assert fetch(w.http, host="strict.test").status == 421


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("name, other", [("open.test", "strict.test"), ("other.test", "x.deep.test")])
def test_no_session_of_another_host(site, ca, version, name, other):
    w = site()
    ctx = lax(ca, version=version)
    with raw.client(w.https, tls=ctx, name=name) as c:
        assert c.send(request(host=name)).response().status == 200
        session = c.sock.session
    with raw.client(w.https, tls=ctx, name=name, session=session) as c:
        assert c.send(request(host=name)).response().status == 200 and c.sock.session_reused
    with pytest.raises(REFUSED), raw.client(w.https, tls=ctx, name=other, session=session) as c:
        c.send(request(host=other)).response()


@pytest.mark.parametrize("version", [V12, V13])
def test_resumed_where_a_certificate_is_asked_for(site, ca, version):
    w = site()
    ctx = lax(ca, cert=ca.cert("me.test", client=True), version=version)
    session = None
    for n in range(2):
        with raw.client(w.https, tls=ctx, name="strict.test", session=session) as c:
            assert c.send(request(host="strict.test")).response().body == b"strict.test|CN=me.test"
            assert c.sock.session_reused is (n == 1)
            session = c.sock.session


def test_a_reload_that_gives_a_host_a_policy(weir, connect, ca):
    """On a kept connection: 421, and it closes, for it fits its own name no more."""
    cert = ca.cert("a.test")
    conf = f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; }} "
    w = weir(conf + f"host a.test {{ {SAYS} }}")
    kept, other = connect(w.https, tls=ca.client()), connect(w.https, tls=lax(ca), name="b.test")
    assert kept.send(request()).response().status == 200
    w.reload(conf + f"host a.test {{ tls {{ client_certificate required ca={ca.cert_file}; }} {SAYS} }} "
             f"host * {{ {SAYS} }}")
    assert other.send(request(host="b.test")).response().status == 200
    assert other.send(request(host="a.test")).response().status == 421
    assert other.send(request(host="b.test")).response().status == 200
    assert kept.send(request()).response().status == 421
    assert kept.ended() == "eof"


def test_listeners_that_are_gone(weir, connect, ca):
    """A connection of a listener that was removed reaches no host that wants a certificate."""
    cert = ca.cert("a.test")
    first = f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; }} "
    second = f"listen 127.0.0.1:@second@ tls {{ certificate {cert[0]} key={cert[1]}; }} "
    hosts = f"host a.test {{ tls {{ client_certificate required ca={ca.cert_file}; }} {SAYS} }} host * {{ {SAYS} }}"
    w = weir(first + second + hosts)
    c = connect(w.https, tls=lax(ca), name="b.test")
    assert c.send(request(host="b.test")).response().status == 200
    w.reload(second + hosts)
    assert c.send(request(host="b.test")).response().status == 200
    assert c.send(request(host="a.test")).response().status == 421


def test_another_authority_for_a_host(weir, ca):
    """Who is believed for one host is not for the other, nor by a session."""
    others = Authority("others")
    cert = ca.cert("a.test", "b.test")
    asks = "tls {{ client_certificate required ca={}; }}".format
    w = weir(f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; }} "
             f"host a.test {{ {asks(ca.cert_file)} {SAYS} }} host b.test {{ {asks(others.cert_file)} {SAYS} }}")
    for authority, good, bad in ((ca, "a.test", "b.test"), (others, "b.test", "a.test")):
        ctx = ca.client(authority.cert("me.test", client=True))
        with raw.client(w.https, tls=ctx, name=good) as c:
            assert c.send(request(host=good)).response().status == 200
            assert c.send(request(host=bad)).response().status == 421
            session = c.sock.session
        for ticket in (None, session):
            with pytest.raises(REFUSED), raw.client(w.https, tls=ctx, name=bad, session=ticket) as c:
                c.send(request(host=bad)).response()


def test_forward_of_a_host(weir, server, ca):
    """forward= of the host's own block counts, of the listener where the host says nothing of clients."""
    cert, s = ca.cert("a.test", "b.test"), server()
    asks = f"client_certificate optional ca={ca.cert_file}"
    w = weir(f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; {asks} forward=on; }} "
             "upstream u { server @backend@; } "
             f"host a.test {{ tls {{ {asks}; }} route / {{ proxy u; }} }} "
             "host b.test { tls { versions 1.3; } route / { proxy u; } }", backend=s)
    ctx = ca.client(ca.cert("me.test", client=True))
    for host in ("a.test", "b.test"):
        assert fetch(w.https, host=host, tls=ctx).status == 200
        assert (s.last().get("client-cert") is not None) is (host == "b.test")


@pytest.mark.parametrize("text, message", [
    ("host * { tls { versions 1.3; } route / { respond 204; } }", "tls has no place in host *"),
    ("host a.test { tls; route / { respond 204; } }", "tls needs a block"),
    ("host a.test { tls { hosts b.test; } route / { respond 204; } }", "hosts does not belong in the tls block of a host"),
    ("host a.test { tls { protocols h2c; } route / { respond 204; } }", "h2c is without tls"),
    ("host a.test { tls { client_certificate required; } route / { respond 204; } }", "needs ca=FILE"),
    ("host a.test { tls { ciphers NONSENSE; } route / { respond 204; } }", "ciphers: no such cipher"),
])
def test_mistakes(weir, ca, text, message):
    cert = ca.cert("a.test")
    w = weir(f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; }}\n{text}", start=False)
    done = w.command("-t")
    assert done.returncode == 1 and message in done.stderr and "weir.conf:3:" in done.stderr, done.stderr


def test_a_block_without_effect(weir, ca):
    cert = ca.cert("a.test")
    w = weir(f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; hosts b.test; }} "
             "listen 127.0.0.1:@http@;\nhost a.test { tls { versions 1.3; } route / { respond 204; } }\n"
             "host b.test { route / { respond 204; } }", start=False)
    done = w.command("-t")
    assert done.returncode == 0 and "no listen with tls serves the host" in done.stderr
