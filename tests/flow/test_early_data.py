"""TLS 1.3 early data: what is served before the handshake has ended, what has to wait, and that
nothing is taken twice."""
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from kit import HOST, SLOW, h2, need, until
from kit.raw import answer, client, fetch, request

LISTEN = """listen 127.0.0.1:@https@ tls {{ certificate {cert} key={key}; early_data on; {more} }}
"""


class Holder:
    """A proxy that lets the client hear nothing until may() is true: so all that it has sent by then,
    which is kept in .flight, is its first flight."""

    def __init__(self, port, may):
        self.may = may
        self.flight = b""
        self.held = True
        self.up = socket.create_connection((HOST, port))
        self.listener = socket.create_server((HOST, 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        self.down, _ = self.listener.accept()
        threading.Thread(target=self._copy, args=(self.down, self.up, lambda: None), daemon=True).start()
        self._copy(self.up, self.down, self._hold)

    def _hold(self):
        end = time.monotonic() + 2 * SLOW
        while self.held and not self.may() and time.monotonic() < end:
            time.sleep(0.01)
        self.held = False

    def _copy(self, a, b, before):
        try:
            while data := a.recv(65536):
                before()
                if self.held:
                    self.flight += data
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self):
        for s in self.listener, self.up, getattr(self, "down", self.up):
            s.close()


class Openssl:
    """openssl s_client: keeps its session in a file."""

    def __init__(self, w, ca, name="a.test", alpn=None):
        self.w, self.ca, self.name, self.alpn = w, ca, name, alpn
        self.session = w.dir / "session"
        self.flight = None

    def run(self, *more, data=b"", port=None):
        argv = [need("openssl"), "s_client", "-connect", f"{HOST}:{port or self.w.https}",
                "-servername", self.name, "-CAfile", str(self.ca.cert_file), "-verify_return_error",
                "-tls1_3", "-ign_eof", *more, *(["-alpn", self.alpn] if self.alpn else [])]
        p = subprocess.run(argv, input=data, capture_output=True, timeout=30 * SLOW)
        return p.stdout + p.stderr

    def ticket(self):
        """A fresh session, by an ordinary request."""
        data = request(fields=CLOSE, host=self.name)
        out = self.run("-sess_out", self.session, data=data if self.alpn != "h2" else h2_bytes() + BYE)
        assert b"HTTP/1.1 " in out or self.alpn == "h2", out
        return self

    def early(self, data, then=b"", hold=True):
        """Sends data as early data; then what comes in then.  hold: the handshake does not end before
        weir has answered a request, or two seconds have passed."""
        path = self.w.dir / "early"
        path.write_bytes(data)
        before = self.w.metric("weir_requests_total")
        holder = Holder(self.w.https,
                        lambda: not hold or self.w.metric("weir_requests_total") > before)
        try:
            out = self.run("-sess_in", self.session, "-early_data", path, data=then, port=holder.port)
        finally:
            holder.close()
        self.flight = holder.flight
        return out


CLOSE = {"connection": "close"}


@pytest.fixture
def early(weir, ca):
    """A weir with early data, and a client that has a ticket which the record covers."""
    def make(config, more="", top="", **values):
        cert, key = ca.cert("a.test", "b.test")
        w = weir(top + LISTEN.format(cert=cert, key=key, more=more) + config, **values)
        o = Openssl(w, ca)

        def ready():  # tickets of the second in which the record was made do not count
            o.ticket()
            return b"Early data was accepted" in o.early(request(fields=CLOSE), request(fields=CLOSE), hold=False)

        until(ready, lambda: f"early data to be accepted:\n{w.log()}", 30)
        return w, o.ticket()
    return make


PROXY = "upstream s { server %s; } host * { route /p { proxy s; } route / { respond 200; } }"
RESPOND = 'host * { route / { respond 200 "early=$tls_early_data\n"; } }'


def counted(w, result):
    return w.metric("weir_tls_early_data_total", result=result)


def test_a_safe_request_is_served_at_once(early):
    w, o = early(RESPOND)
    out = o.early(request(fields=CLOSE))
    assert b"Early data was accepted" in out and b"early=yes" in out
    assert counted(w, "accepted") >= 2
    assert b"early=no" in o.run("-sess_in", o.session, data=request(fields=CLOSE))


def test_what_may_not_come_twice_gets_425(early, server):
    s = server()
    w, o = early(PROXY % s)
    for data in (request("POST", "/p", CLOSE, b"x"), request("DELETE", "/p", CLOSE),
                 request("GET", "/p", CLOSE, b"body"), request("PUT", "/p", CLOSE, b""),
                 request("GET", "/p", {"transfer-encoding": "chunked", **CLOSE}) + b"1\r\nx\r\n0\r\n\r\n",
                 request("GET", "/p", {"connection": "upgrade", "upgrade": "websocket",
                                       "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
                                       "sec-websocket-version": "13"})):
        refused = counted(w, "too_early")
        out = o.early(data) if b"upgrade" not in data else o.early(data + request(fields=CLOSE))
        assert b"Early data was accepted" in out
        assert b"HTTP/1.1 425 Too Early" in out, out
        assert counted(w, "too_early") == refused + 1
        o.ticket()
    assert w.metric("weir_local_replies_total", reason="too_early") >= 5
    assert not s.requests
    # The same after the handshake is as ever.
    assert b"HTTP/1.1 200" in o.early(b"", request("POST", "/p", CLOSE, b"x"), hold=False)
    assert s.last().method == "POST"


def test_the_server_is_told(early, server):
    s = server()
    w, o = early(PROXY % s)
    assert b"HTTP/1.1 200" in o.early(request("GET", "/p", {"early-data": "0", **CLOSE}))
    assert s.last().all("early-data") == ["1"]
    o.run(data=request("GET", "/p", {"early-data": "1", **CLOSE}))
    assert "early-data" not in s.last() and len(s.requests) == 2  # it was not so


def test_a_trusted_proxys_word_passes(early, server, ca):
    s = server()
    w, o = early(PROXY % s,
                 top="trusted_proxies 127.0.0.0/8;")
    fetch(w.https, "/p", tls=ca.client(), fields={"early-data": "1"})
    assert s.last().get("early-data") == "1"
    o.early(request("GET", "/p", {"early-data": "1", **CLOSE}))
    assert s.last().all("early-data") == ["1"]


def test_a_servers_425_passes(early, server):
    s = server(lambda q: answer(status="425 Too Early" if "early-data" in q else "200 OK"))
    w, o = early(PROXY % s)
    assert b"HTTP/1.1 425" in o.early(request("GET", "/p", CLOSE))
    assert counted(w, "too_early") == 0 and len(s.requests) == 1


def test_a_head_that_ends_after_the_handshake(early, server):
    """Only a whole request is early: the rest of this one proves that the client is there."""
    s = server()
    w, o = early(PROXY % s)
    data = request("POST", "/p", CLOSE, b"whole")
    assert b"HTTP/1.1 200" in o.early(data[:30], data[30:], hold=False)
    assert s.last().body == b"whole" and "early-data" not in s.last()


def test_the_rest_of_the_connection_is_ordinary(early):
    w, o = early('host * { route / { respond 200 "early=$tls_early_data m=$method;"; } }')
    out = o.early(request() + request("POST", body=b"x"), request("POST", fields=CLOSE, body=b"y"))
    assert re.findall(rb"early=(\w+) m=(\w+);", out) == [(b"yes", b"GET"), (b"no", b"POST")]
    assert out.count(b" 425 ") == 1


def test_a_long_answer_before_the_end_of_the_handshake(early, server):
    """More than the socket takes at once."""
    s = server(answer(b"0123456789abcdef" * 40960))
    w, o = early(PROXY % s)
    assert o.early(request("GET", "/p", CLOSE)).count(b"0123456789abcdef") == 40960


def test_off_is_off(weir, ca):
    """Not offered; and what a client with an older ticket sends is dropped, not read."""
    cert, key = ca.cert("a.test")
    config = LISTEN.format(cert=cert, key=key, more="") + RESPOND
    w = weir(config.replace("early_data on;", ""))
    o = Openssl(w, ca).ticket()
    out = o.early(request(fields=CLOSE), request(fields=CLOSE), hold=False)
    assert b"Early data was accepted" not in out
    w.reload(config)
    until(lambda: b"was accepted" in o.ticket().early(request(fields=CLOSE), request(fields=CLOSE),
                                                      hold=False), "early data", 30)
    o.ticket()
    w.reload(config.replace("early_data on;", "early_data off;"))
    out = o.early(request("GET", "/early"), request(fields=CLOSE), hold=False)
    assert b"Early data was rejected" in out and b"early=no" in out and out.count(b"HTTP/1.1 200") == 1


def test_max(early):
    """No more than what the ticket allowed: the client knows, and weir ends who goes on."""
    w, o = early(RESPOND)
    config = w.conf.read_text()
    assert b"Max Early Data: 16384" in o.run("-sess_in", o.session, data=request(fields=CLOSE))
    w.reload(config.split("\n", 1)[1].replace("early_data on;", "early_data on max=1000;"))
    out = o.ticket().run("-sess_in", o.session, data=request(fields=CLOSE))
    assert b"Max Early Data: 1000" in out


# ------------------------------------------------------------------ replays

def replay(w, flight, times=1):
    """Sends the recorded bytes again and reads until weir has answered them somehow."""
    for _ in range(times):
        with client(w.https) as c:
            c.send(flight)
            c.read(100)  # a ServerHello: it has been looked at


def recorded(o, data):
    """The first flight of a client whose early data was taken."""
    out = o.ticket().early(data)
    assert b"Early data was accepted" in out, out
    assert o.flight[0] == 22 and len(o.flight) > 400
    return o.flight


@pytest.mark.parametrize("top", ["threads 1;", "threads 4;", "threads 2; workers 2;"])
def test_a_replay_is_not_taken(early, server, top):
    """Whichever loop or worker it comes to; the bytes themselves are fine, as the first time shows."""
    s = server()
    w, o = early(PROXY % s, top=top)
    flight = recorded(o, request("GET", "/p", CLOSE))
    assert len(s.requests) == 1
    accepted = counted(w, "accepted")
    replay(w, flight, 20)
    until(lambda: counted(w, "replayed") == 20, lambda: f"20 replays: {counted(w, 'replayed')}")
    assert counted(w, "accepted") == accepted and len(s.requests) == 1
    assert b"Early data was accepted" in o.ticket().early(request(fields=CLOSE))


def test_a_replay_after_a_reload(early, server):
    s = server()
    w, o = early(PROXY % s)
    flight = recorded(o, request("GET", "/p", CLOSE))
    w.reload(w.conf.read_text().split("\n", 1)[1] + "\n# another\n")
    replay(w, flight)
    until(lambda: counted(w, "replayed") == 1, "a replay to be seen")
    assert len(s.requests) == 1


def test_a_replay_after_a_crash(early, server):
    """The record belongs to the master."""
    s = server()
    w, o = early(PROXY % s)
    flight = recorded(o, request("GET", "/p", CLOSE))
    w.deaths_expected = True
    old = w.worker()
    os.kill(old, 9)
    until(lambda: w.children() and w.worker() != old, "another worker")
    until(lambda: w.get("/readyz").status == 200, "it to be ready")
    replay(w, flight)
    until(lambda: counted(w, "replayed") == 1, "a replay to be seen")
    assert len(s.requests) == 1


def test_a_replay_after_a_restart_with_the_same_keys(early, server):
    """The new record knows nothing of before, so tickets of before give no early data."""
    s = server()
    keys = os.urandom(80)
    w, o = early(PROXY % s, more="ticket_keys @dir@/keys;", files={"keys": keys})
    flight = recorded(o, request("GET", "/p", CLOSE))
    w.stop()
    w.start()
    replay(w, flight)
    until(lambda: counted(w, "rejected") == 1, "it to be rejected")
    assert counted(w, "accepted") == 0 and len(s.requests) == 1


def test_a_replay_after_an_upgrade(early, server):
    """The new weir has the keys and not the record."""
    s = server()
    w, o = early(PROXY % s)
    flight = recorded(o, request("GET", "/p", CLOSE))
    old = w.process.pid
    w.send(signal.SIGUSR2)
    until(lambda: int((w.dir / "weir.pid").read_text()) != old, "the new one to serve", 20)
    until(lambda: w.process.poll() is not None, "the old one to end", 20)
    replay(w, flight)
    until(lambda: counted(w, "rejected") == 1, "it to be rejected")
    assert len(s.requests) == 1
    os.kill(int((w.dir / "weir.pid").read_text()), signal.SIGTERM)
    until(lambda: not (w.dir / "weir.pid").exists(), "the new one to end", 20)
    w.process = None


def test_a_late_replay_is_stale(early, server):
    """What the record forgets is too old for OpenSSL: the two fit together."""
    s = server()
    w, o = early(PROXY % s)
    flight = recorded(o, request("GET", "/p", CLOSE))
    end = time.monotonic() + 18
    while time.monotonic() < end:
        replay(w, flight)
        time.sleep(1)
    assert len(s.requests) == 1
    assert counted(w, "replayed") >= 8 and counted(w, "rejected") >= 4


# ------------------------------------------------------------------ names

def test_a_ticket_of_one_name_is_not_early_for_another(early, ca):
    """b.test wants a certificate that a.test did not: nothing of the request is looked at."""
    w, o = early(f'''host b.test {{ tls {{ client_certificate required ca={ca.cert_file}; }}
                       route / {{ respond 200 "secret"; }} }} ''' + RESPOND)
    accepted = counted(w, "accepted")
    o.name = "b.test"
    out = o.early(request(fields=CLOSE, host="b.test"), hold=False)
    assert b"secret" not in out and b"HTTP/1.1" not in out and b"was accepted" not in out
    o.name = "a.test"  # nor is its host to be had by the name of the other
    out = o.ticket().early(request(fields=CLOSE, host="b.test"))
    assert b"Early data was accepted" in out and b"HTTP/1.1 421" in out and b"secret" not in out
    assert counted(w, "accepted") == accepted + 1


def test_client_certificates(early, ca):
    """A session that was opened with a certificate has it in early data too."""
    w, o = early('host * { route / { respond 200 "$tls_client_subject $tls_early_data;"; } }',
                 more=f"client_certificate optional ca={ca.cert_file};")
    cert, key = ca.cert("alice", client=True)
    o.run("-sess_out", o.session, "-cert", cert, "-key", key, data=request(fields=CLOSE))
    assert b"CN=alice yes;" in o.early(request(fields=CLOSE))


# ------------------------------------------------------------------ HTTP/2

def h2_bytes(*requests):
    out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2.frame(4)
    for i, (method, path) in enumerate(requests):
        out += h2.frame(1, 5, 2 * i + 1, h2.block(h2.head(method, path, scheme="https")))
    return out


BYE = h2.frame(7, 0, 0, bytes(8))


def test_http2(early, server):
    """Safe requests are served and marked, others get 425, all on one connection."""
    s = server()
    w, o = early(PROXY % s)
    o.alpn = "h2"
    out = o.ticket().early(h2_bytes(("GET", "/p/1"), ("DELETE", "/p/2"), ("HEAD", "/p/3")), BYE)
    assert b"Early data was accepted" in out and b"ALPN protocol: h2" in out, out
    assert counted(w, "too_early") == 1
    s.wait(2)
    assert sorted((r.target, r.get("early-data")) for r in s.requests) == [
        ("/p/1", "1"), ("/p/3", "1")]


def test_another_protocol_than_the_ticket_was_for(early):
    """Early data belongs to the protocol that was agreed on then."""
    w, o = early(RESPOND)
    o.alpn = "h2"
    o.ticket()
    w.reload(w.conf.read_text().split("\n", 1)[1].replace("early_data on;", "early_data on; protocols http/1.1;"))
    o.alpn = "h2,http/1.1"
    out = o.early(h2_bytes(("GET", "/")), request(fields=CLOSE), hold=False)
    assert b"Early data was rejected" in out and b"early=no" in out


# ------------------------------------------------------------------ the language

@pytest.mark.parametrize("listen,error", [
    ("{ early_data on; }", "makes no sense without tls"),
    ("tls { early_data maybe; %s }", "not on or off"),
    ("tls { early_data on max=2m; %s }", "max must be at most"),
    ("tls { early_data on; versions 1.2; %s }", "early_data needs versions 1.3"),
    ("tls { early_data on; early_data off; %s }", "given twice")])
def test_nonsense_is_refused(weir, ca, listen, error):
    cert, key = ca.cert("a.test")
    text = listen % f"certificate {cert} key={key};" if "%s" in listen else listen
    w = weir(f"listen 127.0.0.1:1 {text} host * {{ route / {{ respond 200; }} }}", start=False)
    done = w.command("-t")
    assert done.returncode == 1 and error in done.stderr and "^" in done.stderr, done.stderr
