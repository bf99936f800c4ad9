"""The PROXY protocol, in and out: what a header tells reaches templates and logs, what is wrong
ends the connection, and a server hears of each client on a connection that is this client's alone."""
import socket
import ssl
import threading

import pytest

from kit import h2, need, until
from kit import proxy_header as ph
from kit.raw import Stream, answer, client, fetch, request
from kit.services import Nginx, Service

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


# ------------------------------------------------------------------ out

def header_script(replies, take_tls=None):
    """A server that reads a header, records it in .heads, then answers requests (optionally in TLS)."""
    def script(stream):
        stream.header = ph.Header(stream)
        stream.server.heads.append(stream.header)
        if take_tls:
            assert not stream.buffer or stream.buffer[0] == 22
            stream.sock = memory_tls(stream, take_tls)
            stream.buffer = b""
        while True:
            message = stream.server.take(stream)
            message.header = stream.header
            stream.send(replies(message) if callable(replies) else replies)
    return script


class memory_tls:
    """TLS on a stream some bytes of which were read already."""

    def __init__(self, stream, ctx):
        self.sock, self.incoming, self.outgoing = stream.sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.incoming.write(stream.buffer)
        self.tls = ctx.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.run(self.tls.do_handshake)

    def run(self, call, *args):
        while True:
            try:
                return call(*args)
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                if not data:
                    raise EOFError("end in TLS")
                self.incoming.write(data)
            finally:
                self.flush()

    def flush(self):
        if self.outgoing.pending:
            self.sock.sendall(self.outgoing.read())

    def recv(self, size):
        return self.run(self.tls.read, size)

    def sendall(self, data):
        self.run(self.tls.write, data)

    def __getattr__(self, name):
        return getattr(self.sock, name)


@pytest.fixture
def told(server):
    """A scripted server that expects headers."""
    def make(replies=answer(), **more):
        s = server(script=header_script(replies, more.pop("take_tls", None)), **more)
        s.heads = []
        return s
    return make


def to(server, how, listen="listen 127.0.0.1:@http@;", more="", top=""):
    return f"""{top} upstream s {{ server {server}; proxy_protocol {how}; {more} }}
        {listen} host * {{ route / {{ proxy s; }} }}"""


def test_v1_out(weir, told, connect):
    s = told()
    w = weir(to(s, "v1"))
    c = connect(w.http)
    c.send(request())
    assert c.response().status == 200
    assert s.heads[0].raw == b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % (
        c.sock.getsockname()[1], w.http)


def test_v2_out(weir, told, connect):
    s = told()
    w = weir(to(s, "v2"))
    c = connect(w.http)
    c.send(request())
    assert c.response().status == 200
    h = s.heads[0]
    assert (h.version, h.command, h.family, h.tlvs) == (2, 1, ph.INET, {})
    assert (h.src, h.sport, h.dst, h.dport) == (
        "127.0.0.1", c.sock.getsockname()[1], "127.0.0.1", w.http)


@pytest.mark.parametrize("how", ["v1", "v2"])
def test_ipv6_out(weir, told, connect, how):
    s = told()
    w = weir(to(s, how, "listen [::1]:@http@;"))
    c = connect(w.http, host="::1")
    c.send(request())
    assert c.response().status == 200
    h, port = s.heads[0], c.sock.getsockname()[1]
    if how == "v1":
        assert h.words == ["PROXY", "TCP6", "::1", "::1", str(port), str(w.http)]
    else:
        assert (h.family, h.src, h.sport) == (ph.INET6, "::1", port)


def test_dual_stack_tells_ipv4(weir, told):
    s = told()
    w = weir(to(s, "v1", "listen [::]:@http@;"))
    assert fetch(w.http).status == 200
    assert s.heads[0].words[1:4] == ["TCP4", "127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize("how,want", [("v1", b"PROXY UNKNOWN\r\n"),
                                      ("v2", ph.SIGNATURE + b"\x21\0\0\0")])
def test_a_unix_client(weir, told, how, want):
    s = told()
    w = weir(to(s, how, "listen unix:@dir@/in;"))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(w.dir / "in"))
        c = Stream(sock)
        c.send(request())
        assert c.response().status == 200
    assert s.heads[0].raw == want


def test_what_came_in_goes_out(weir, told, connect):
    """Who the client was and where it came to, as its own PROXY header said."""
    s = told()
    w = weir(to(s, "v2", LISTEN))
    c = connect(w.http)
    c.send(ph.v2(src="2001:db8::9", dst="2001:db8::1", sport=1, dport=2) + request())
    assert c.response().status == 200
    h = s.heads[0]
    assert (h.src, h.sport, h.dst, h.dport) == ("2001:db8::9", 1, "2001:db8::1", 2)


def test_trusted_proxies_settle_the_client(weir, told, connect):
    """Two clients behind one trusted proxy, on one connection: each has its own to the server."""
    s = told()
    w = weir(to(s, "v1", top="trusted_proxies 127.0.0.0/8;"))
    c = connect(w.http)
    for who in "192.0.2.1", "192.0.2.2", "192.0.2.1", "2001:db8::1":
        c.send(request(fields={"x-forwarded-for": who}))
        assert c.response().status == 200
    assert [(r.header.words[2], r.conn) for r in s.requests] == [
        ("192.0.2.1", 1), ("192.0.2.2", 2), ("192.0.2.1", 1), ("2001:db8::1", 3)]
    assert s.heads[2].words[3:] == ["::ffff:127.0.0.1", "0", str(w.http)]


def test_a_connection_is_one_clients(weir, told, connect):
    """A client's requests share a connection to the server; nobody else's ever come on it."""
    s = told()
    w = weir(to(s, "v2"))
    clients = [connect(w.http) for _ in range(4)]
    for _ in range(3):
        for c in clients:
            c.send(request())
            assert c.response().status == 200
    assert s.accepted == 4
    for r in s.requests:
        assert r.header.sport == clients[r.conn - 1].sock.getsockname()[1]
    assert [r.conn for r in s.requests] == [1, 2, 3, 4] * 3


def test_those_that_left_make_room(weir, told, connect):
    s = told()
    w = weir(to(s, "v2", more="keepalive 2;"))
    for _ in range(5):
        assert fetch(w.http).status == 200
    c = connect(w.http)
    for _ in range(2):
        c.send(request())
        assert c.response().status == 200
    assert s.accepted == 6 and s.requests[-1].conn == s.requests[-2].conn == 6
    assert w.metric("weir_connection_closes_total", reason="pool_full") == 4


def test_values_out(weir, told, ca):
    """What the client's TLS said; a resumed session still tells of the certificate."""
    cert, key = ca.cert("a.test")
    s = told()
    w = weir(to(s, "v2 tlvs=authority,alpn,unique_id,ssl", f"""listen 127.0.0.1:@https@ tls {{
        certificate {cert} key={key}; client_certificate optional ca={ca.cert_file}; }}"""))
    ctx = ca.client(ca.cert("alice", client=True), alpn=["http/1.1"], version=ssl.TLSVersion.TLSv1_2)
    session = None
    for _ in range(2):
        with client(w.https, tls=ctx, session=session) as c:
            for _ in range(2):
                c.send(request())
                assert c.response().status == 200
            session, reused = c.sock.session, c.sock.session_reused
    assert reused
    assert len(s.heads) == 4  # each request has an identifier of its own
    for h, r in zip(s.heads, s.requests):
        assert h.tlvs[ph.AUTHORITY] == b"a.test" and h.tlvs[ph.ALPN] == b"http/1.1"
        assert h.tlvs[ph.UNIQUE_ID].decode() == r.get("x-request-id")
    said = {ph.SSL_VERSION: b"TLSv1.2", ph.SSL_CN: b"alice"}
    assert s.heads[0].ssl() == (7, 0, said) and s.heads[3].ssl() == (5, 0, said)
    plain = ca.client()
    assert fetch(w.https, tls=plain).status == 200
    assert s.heads[4].ssl() == (1, 1, {ph.SSL_VERSION: b"TLSv1.3"})
    assert ph.ALPN not in s.heads[4].tlvs


def test_no_tls_has_no_values(weir, told):
    s = told()
    w = weir(to(s, "v2 tlvs=authority,alpn,ssl"))
    assert fetch(w.http).status == 200
    assert s.heads[0].tlvs == {}


@pytest.mark.parametrize("how", ["v1", "v2"])
def test_before_tls_to_the_server(weir, told, connect, ca, how):
    s = told(take_tls=ca.server(ca.cert("s.test")))
    w = weir(to(s, how, more=f"tls ca={ca.cert_file} name=s.test;"))
    c = connect(w.http)
    for _ in range(2):
        c.send(request())
        assert c.response().status == 200
    assert s.accepted == 1
    sport = s.heads[0].words[4] if how == "v1" else s.heads[0].sport
    assert int(sport) == c.sock.getsockname()[1]


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("how,want", [("v1", b"PROXY UNKNOWN\r\n"),
                                      ("v2", ph.SIGNATURE + b"\x20\0\0\0")])
def test_health_checks_are_weirs_own(weir, told, ca, how, want, tls):
    s = told(take_tls=ca.server(ca.cert("s.test")) if tls else None)
    w = weir(to(s, how, more="health_check path=/h interval=50ms;"
                + (f"tls ca={ca.cert_file} name=s.test;" if tls else "")))
    s.wait(2)
    assert s.requests[0].target == "/h" and s.heads[0].raw == want
    assert w.metric("weir_server_up", upstream="s") == 1


def test_a_retry_has_a_header_of_its_own(weir, told, server):
    """Both after a refused status and after a kept connection that was closed."""
    bad, good = told(answer(status="503 No")), told()
    w = weir(f"""upstream s {{ server {bad}; server {good}; proxy_protocol v1; eject off;
        retry attempts=2 on=503 budget=100%; }}
        listen 127.0.0.1:@http@; host * {{ route / {{ proxy s; }} }}""")
    for _ in range(4):
        assert fetch(w.http).status == 200
    assert len(bad.heads) == len(bad.requests) > 0 and len(good.heads) == len(good.requests) == 4
    assert {h.raw for h in bad.heads} <= {h.raw for h in good.heads}

    def closing(stream):
        ph.Header(stream)
        stream.server.take(stream)
        stream.send(answer())

    once = server(script=closing)
    w.reload(to(once, "v1"))
    with client(w.http) as c:
        for n in range(3):
            c.send(request())
            assert c.response().status == 200
            until(lambda: once.open == 0, "the server to close")
    assert len(once.requests) == once.accepted == 3


def test_a_reload_changes_what_is_said(weir, told, connect):
    s = told()
    w = weir(to(s, "v1"))
    c = connect(w.http)
    for how in "v1", "v2", "v2 tlvs=unique_id", "v2 tlvs=unique_id":
        w.reload(to(s, how))
        c.send(request())
        assert c.response().status == 200
    assert [h.version for h in s.heads] == [1, 2, 2, 2]
    assert [ph.UNIQUE_ID in h.tlvs for h in s.heads[1:]] == [False, True, True]


def test_h2_clients_are_told_too(weir, told):
    s = told()
    w = weir(to(s, "v1", "listen 127.0.0.1:@http@ { protocols h2c; }"))
    c = h2.Client(w.http)
    try:
        many = [c.request(path=f"/{i}") for i in range(5)]
        assert all(c.response(i).status == 200 for i in many)
        assert c.fetch().status == 200  # on one that is kept
        port = str(c.sock.getsockname()[1])
    finally:
        c.close()
    assert {h.words[4] for h in s.heads} == {port} and s.accepted <= 5


def test_unix_server(weir, told, connect):
    s = told()
    w = weir(to("unix:@dir@/s", "v1", LISTEN), start=False)
    s.stop_listening()
    s.listener = socket.socket(socket.AF_UNIX)
    s.listener.bind(str(w.dir / "s"))
    (w.dir / "s").chmod(0o777)
    s.listener.listen()
    threading.Thread(target=serve_unix, args=(s, s.listener), daemon=True).start()
    w.start()
    c = connect(w.http)
    c.send(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n" + request())
    assert c.response().status == 200
    assert s.heads[0].raw == b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n"


def serve_unix(s, listener):
    sock, _ = listener.accept()
    stream = Stream(sock)
    stream.number, stream.server = 1, s
    try:
        s.script(stream)
    except (EOFError, ConnectionError):
        pass


# ------------------------------------------------------------------ receivers of others' making

class NginxReceiver(Nginx):
    def argv(self):
        argv = super().argv()
        conf = self.dir / "nginx.conf"
        conf.write_text(conf.read_text().replace(f":{self.port};", f":{self.port} proxy_protocol;")
                        .replace("location /hello { return 200 \"hello from nginx\\n\"; }",
                                 'location / { return 200 "$proxy_protocol_addr '
                                 '$proxy_protocol_port $proxy_protocol_server_port"; }'))
        return argv


class HaproxyReceiver(Service):
    def argv(self):
        (self.dir / "haproxy.cfg").write_text(f"""
            defaults
                mode http
                timeout connect 5s
                timeout client 30s
                timeout server 30s
            frontend f
                bind 127.0.0.1:{self.port} accept-proxy
                http-request return status 200 content-type text/plain lf-string \
"%[src] %[src_port] %[dst_port]|%[fc_pp_authority]|%[fc_pp_unique_id]|%[fc_rcvd_proxy]"\n""")
        return [need("haproxy"), "-db", "-f", str(self.dir / "haproxy.cfg")]


@pytest.fixture
def receiver():
    made = []

    def make(kind):
        made.append(kind().start())
        return made[-1]
    yield make
    for service in made:
        service.close()


@pytest.mark.parametrize("kind", [NginxReceiver, HaproxyReceiver])
@pytest.mark.parametrize("how", ["v1", "v2", "v2 tlvs=authority,alpn,ssl,unique_id"])
def test_others_understand(weir, receiver, connect, kind, how):
    r = receiver(kind)
    w = weir(to(r, how, LISTEN, more="health_check path=/ interval=100ms;"))
    c = connect(w.http)
    c.send(ph.v2(src="2001:db8::9", dst="2001:db8::1", sport=1234, dport=5678) + request())
    assert c.response().body.decode().startswith("2001:db8::9 1234 5678")
    c = connect(w.http)
    c.send(ph.v2() + request())
    assert c.response().body.decode().startswith("192.0.2.7 4711 80")
    c = connect(w.http)
    c.send(b"PROXY UNKNOWN\r\n" + request())
    assert c.response().body.decode().startswith("127.0.0.1 ")


def test_haproxy_reads_the_values(weir, receiver, ca):
    r = receiver(HaproxyReceiver)
    cert, key = ca.cert("a.test")
    w = weir(to(r, "v2 tlvs=authority,unique_id", f"""listen 127.0.0.1:@https@ tls {{
        certificate {cert} key={key}; }}""", top="trusted_proxies 127.0.0.0/8;"))
    body = fetch(w.https, tls=ca.client(), fields={"x-request-id": "id-1"}).body
    assert body.decode().split("|")[1:3] == ["a.test", "id-1"]


@pytest.mark.parametrize("how,error", [
    ("v3", "not off, v1 or v2"), ("v1 tlvs=ssl", "tlvs= needs v2"),
    ("v2 tlvs=athority", 'did you mean "authority"'), ("v2 tlsv=ssl", 'did you mean "tlvs"'),
    ("v2; protocol h2c", "many clients'")])
def test_nonsense_is_refused(weir, how, error):
    w = weir(to("127.0.0.1:1", how), start=False)
    done = w.command("-t")
    assert done.returncode == 1 and error in done.stderr and "^" in done.stderr
