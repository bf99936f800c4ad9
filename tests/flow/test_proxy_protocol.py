"""The PROXY protocol, in and out: what a header tells reaches templates and logs, what is wrong
ends the connection, and a server hears of each client on a connection that is this client's alone."""
import json

import pytest

from kit import proxy_header as ph
from kit import until
from kit.raw import fetch, request

LISTEN = "listen 127.0.0.1:@http@ proxy_protocol;"


def says(template):
    return LISTEN + ' host * { route / { respond 200 "%s"; } }' % template


# ------------------------------------------------------------------ in

NAMES = "authority alpn unique_id ssl_version ssl_cn ssl_verified tlv_0xe0 tlv_0x30".split()
ALL = "|".join(f"${{proxy_protocol_{n}}}" for n in NAMES)


def test_values_are_variables(weir, connect):
    """They hold for each request of the connection, in answers, in fields and in the log."""
    w = weir(f"""log_format own "$client_ip {ALL}"; access_log @dir@/access.log format=own;
        """ + says(ALL), files={"access.log": ""})
    c = connect(w.http)
    tlvs = (ph.tlv(ph.AUTHORITY, b"a.example") + ph.tlv(ph.ALPN, b"h2") + ph.tlv(ph.NOOP, b"\0" * 9)
            + ph.tlv(ph.UNIQUE_ID, b"\x01\r\nid%") + ph.ssl_tlv(7, 0, b"TLSv1.3", "Jörg".encode())
            + ph.tlv(0xE0, b"\xff\0") + ph.tlv(ph.NETNS, b"blue"))
    want = b"a.example|h2|%01%0D%0Aid%25|TLSv1.3|J%C3%B6rg|yes|%FF%00|blue"
    c.send(ph.v2(tlvs, checksum=True) + request())
    assert c.response().body == want
    c.send(request())
    assert c.response().body == want
    line = b"192.0.2.7 " + want
    until(lambda: (w.dir / "access.log").read_bytes().count(line) == 2, "two lines in the log")


@pytest.mark.parametrize("ssl,want", [
    (ph.ssl_tlv(7, 1, b"TLSv1.2", b"eve"), b"||||TLSv1.2|eve|no||"),
    (ph.ssl_tlv(1, 0, b"TLSv1.2"), b"||||TLSv1.2||no||"),
    (ph.ssl_tlv(0, 0), b"||||||||"), (b"", b"||||||||")])
def test_certificates_that_are_not_verified(weir, connect, ssl, want):
    w = weir(says("|" + ALL))
    c = connect(w.http)
    c.send(ph.v2(ssl) + request())
    assert c.response().body == want


@pytest.mark.parametrize("header,client", [
    (ph.v2(src="2001:db8::7", dst="::1"), b"2001:db8::7 4711"),
    (ph.v2(command=0, tlvs=b"not looked at"), b"127.0.0.1 "),
    (ph.v2(family=ph.UNSPEC, transport=0, tlvs=b"nor this"), b"127.0.0.1 "),
    (ph.v2(family=ph.UNIX, addresses=b"/tmp/a".ljust(216, b"\0")), b"unix: "),
    (ph.v2(transport=ph.DGRAM), b"127.0.0.1 "),
    (b"PROXY UNKNOWN\r\n", b"127.0.0.1 "),
])
def test_who_the_client_is(weir, connect, header, client):
    w = weir(says("$client_ip $client_port"))
    c = connect(w.http)
    for i in range(len(header)):  # however it drips
        c.send(header[i:i + 1])
    c.send(request())
    assert c.response().body.startswith(client)


def test_a_unix_client_is_not_the_proxy(weir, connect, server):
    """The proxy is trusted, what connected to it is not: its X-Forwarded-For says nothing."""
    s = server()
    w = weir(f"""trusted_proxies 127.0.0.0/8; upstream s {{ server {s}; }}
        {LISTEN} host * {{ route / {{ proxy s; }} }}""")
    c = connect(w.http)
    c.send(ph.v2(family=ph.UNIX, addresses=bytes(216))
           + request(fields={"x-forwarded-for": "192.0.2.99"}))
    assert c.response().status == 200
    assert s.last().get("x-forwarded-for") == "unix:"


SUMMED = ph.v2(ph.tlv(0xE0, b"x"), checksum=True)


@pytest.mark.parametrize("header", [
    SUMMED[:-1] + bytes([SUMMED[-1] ^ 1]), SUMMED.replace(b"x", b"y"),
    ph.v2(ph.tlv(ph.CRC32C, b"\0\0\0")), ph.v2(b"\xe0\0\5x"), ph.v2(b"\xe0\0"),
    ph.v2(ph.tlv(ph.UNIQUE_ID, b"x" * 129)), ph.v2(ph.tlv(ph.AUTHORITY, b"x" * 256)),
    ph.v2(ph.tlv(ph.SSL, b"\1\0\0\0")), ph.v2(ph.tlv(ph.SSL, b"\1\0\0\0\0\x21\0\x09x")),
    ph.v2(ph.tlv(0xE0, b"x" * 4096)), ph.v2(family=ph.UNIX), ph.v2(command=2)],
    ids=range(12))
def test_wrong_headers_end_the_connection(weir, connect, header):
    w = weir(says("no"))
    c = connect(w.http)
    c.send(header + request())
    assert c.ended() in ("eof", "reset")
    assert w.metric("weir_connection_closes_total", reason="proxy_protocol") == 1


def test_before_tls(weir, connect, ca):
    cert, key = ca.cert("a.test")
    w = weir(f"""listen 127.0.0.1:@https@ tls proxy_protocol {{ certificate {cert} key={key}; }}
        host * {{ route / {{ respond 200 "$client_ip $proxy_protocol_authority $tls_sni"; }} }}""")
    c = connect(w.https)
    c.send(ph.v2(ph.tlv(ph.AUTHORITY, b"b.example")))
    c.sock = ca.client().wrap_socket(c.sock, server_hostname="a.test")
    c.send(request())
    assert c.response().body == b"192.0.2.7 b.example a.test"


@pytest.mark.parametrize("name", ["proxy_protocol_tlv_0xgg", "proxy_protocol_tlv_e0",
                                  "proxy_protocol_tlv_0x1", "proxy_protocol_nonsense"])
def test_unknown_names(weir, name):
    w = weir(says("$" + name), start=False)
    done = w.command("-t")
    assert done.returncode == 1 and f"unknown variable ${name}" in done.stderr
