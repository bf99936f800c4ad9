"""HTTP/1 as strict as it must be on both sides: what is ambiguous is refused, never passed on."""
import pytest

from kit import until
from kit.raw import answer, fetch, request

CONF = """
listen 127.0.0.1:@http@;
upstream u { server @backend@; }
host * { route / { proxy u; } }
"""


@pytest.fixture(scope="module")
def s(server_for_all):
    return server_for_all()


@pytest.fixture(scope="module")
def w(weir_for_all, s):
    return weir_for_all(CONF, backend=s)


def head(*lines, start="POST /bad HTTP/1.1", host="host: a.test"):
    return b"\r\n".join(x if isinstance(x, bytes) else x.encode()
                        for x in [start, *([host] if host else []), *lines]) + b"\r\n\r\n"


def te(body, *more):
    return head("transfer-encoding: chunked", *more) + body


NEXT = b"GET /smuggled HTTP/1.1\r\nhost: a.test\r\n\r\n"
BODY = b"0\r\n\r\n" + NEXT

# name, bytes, status (one or several that are as good), reason (None: not looked at)
REQUESTS = [
    # the request line
    ("no_version", b"GET /\r\n\r\n", 400, None),
    ("old_version", head(start="GET / HTTP/0.9"), (400, 505), None),
    ("next_version", head(start="GET / HTTP/2.0"), 505, "version"),
    ("version_case", head(start="GET / http/1.1"), 400, "bad_request_line"),
    ("version_tail", head(start="GET / HTTP/1.1x"), 400, "bad_request_line"),
    ("version_digits", head(start="GET / HTTP/1.10"), 400, "bad_request_line"),
    ("two_spaces", head(start="GET  / HTTP/1.1"), 400, "bad_request_line"),
    ("tab", head(start="GET\t/ HTTP/1.1"), 400, "bad_request_line"),
    ("trailing_space", head(start="GET / HTTP/1.1 "), 400, "bad_request_line"),
    ("space_in_target", head(start="GET /a b HTTP/1.1"), 400, None),
    ("bad_method", head(start="G(T / HTTP/1.1"), 400, "bad_request_line"),
    ("no_method", head(start=" / HTTP/1.1"), 400, "bad_request_line"),
    ("no_target", head(start="GET HTTP/1.1"), 400, "bad_request_line"),
    ("control_in_target", head(start=b"GET /a\x01 HTTP/1.1"), 400, None),
    ("nul_in_target", head(start=b"GET /a\0 HTTP/1.1"), 400, None),
    ("delete_in_target", head(start=b"GET /a\x7f HTTP/1.1"), 400, None),
    ("relative_target", head(start="GET a HTTP/1.1"), 400, "bad_target"),
    ("fragment", head(start="GET /a#b HTTP/1.1"), 400, "bad_target"),
    ("empty_authority", head(start="GET http:///a HTTP/1.1"), 400, "bad_target"),
    ("userinfo", head(start="GET http://u@a.test/ HTTP/1.1"), 400, "bad_target"),
    ("star_for_get", head(start="GET * HTTP/1.1"), 400, "bad_target"),
    ("connect", head(start="CONNECT a.test:443 HTTP/1.1"), (400, 405, 501), None),
    ("tls_hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400, None),
    # Host
    ("no_host", head(host=None), 400, "bad_host"),
    ("two_hosts", head("host: b.test"), 400, "bad_host"),
    ("two_equal_hosts", head("host: a.test"), 400, "bad_host"),
    ("host_list", head(host="host: a.test, b.test"), 400, "bad_host"),
    ("host_space", head(host="host: a b"), 400, "bad_host"),
    ("host_path", head(host="host: a.test/x"), 400, "bad_host"),
    ("host_userinfo", head(host="host: u@a.test"), 400, "bad_host"),
    ("host_port", head(host="host: a.test:x"), 400, "bad_host"),
    ("host_port_large", head(host="host: a.test:65536"), 400, "bad_host"),
    # fields
    ("space_before_colon", head("x : y"), 400, "bad_field"),
    ("space_in_name", head("x y: z"), 400, "bad_field"),
    ("no_colon", head("xyz"), 400, "bad_field"),
    ("empty_name", head(": y"), 400, "bad_field"),
    ("folded", head("x: a", " b"), 400, "bad_field"),
    ("folded_first", b"GET / HTTP/1.1\r\n x: y\r\nhost: a.test\r\n\r\n", 400, "bad_field"),
    ("nul_in_value", head(b"x: a\0b"), 400, "bad_field"),
    ("control_in_value", head(b"x: a\x01b"), 400, "bad_field"),
    ("delete_in_value", head(b"x: a\x7fb"), 400, "bad_field"),
    ("bare_cr_in_value", head(b"x: a\rb"), 400, "bad_field"),
    ("bare_lf", b"GET / HTTP/1.1\nhost: a.test\n\n", 400, None),
    ("bare_lf_in_fields", head(b"x: a\ny: b"), 400, None),
    ("bad_name", head("x@y: z"), 400, "bad_field"),
    ("non_ascii_name", head(b"\xc3\xa4: z"), 400, "bad_field"),
    # framing
    ("length_and_chunked", head("content-length: 4", "transfer-encoding: chunked") + BODY, 400,
     "bad_framing"),
    ("chunked_and_length", head("transfer-encoding: chunked", "content-length: 4") + BODY, 400,
     "bad_framing"),
    ("two_lengths", head("content-length: 5", "content-length: 6") + BODY, 400, "bad_framing"),
    ("length_list", head("content-length: 5, 5") + b"12345", 400, "bad_framing"),
    ("length_plus", head("content-length: +5") + b"12345", 400, "bad_framing"),
    ("length_minus", head("content-length: -5") + b"12345", 400, "bad_framing"),
    ("length_hex", head("content-length: 0x5") + b"12345", 400, "bad_framing"),
    ("length_empty", head("content-length:") + b"12345", 400, "bad_framing"),
    ("length_space", head("content-length: 1 2") + b"12345", 400, "bad_framing"),
    ("length_overflow", head("content-length: 18446744073709551616"), 400, "bad_framing"),
    ("length_huge", head("content-length: " + "9" * 40), 400, "bad_framing"),
    ("te_in_1_0", head("transfer-encoding: chunked", start="POST / HTTP/1.0") + BODY, 400,
     "bad_framing"),
    ("te_twice", head("transfer-encoding: chunked, chunked") + BODY, 400, "bad_framing"),
    ("te_two_lines", head("transfer-encoding: chunked", "transfer-encoding: chunked") + BODY, 400,
     "bad_framing"),
    ("te_not_last", head("transfer-encoding: chunked, gzip") + BODY, (400, 501), None),
    ("te_gzip", head("transfer-encoding: gzip") + BODY, (400, 501), None),
    ("te_gzip_chunked", head("transfer-encoding: gzip, chunked") + BODY, 501, "transfer_coding"),
    ("te_identity", head("transfer-encoding: identity") + BODY, (400, 501), None),
    ("te_x", head("transfer-encoding: xchunked") + BODY, (400, 501), None),
    ("te_empty", head("transfer-encoding:") + BODY, 400, "bad_framing"),
    ("te_quoted", head('transfer-encoding: "chunked"') + BODY, (400, 501), None),
    ("te_parameter", head("transfer-encoding: chunked;q=1") + BODY, (400, 501), None),
    ("te_vertical_tab", head(b"transfer-encoding: \x0bchunked") + BODY, 400, None),
    ("te_space_name", head("transfer-encoding : chunked") + BODY, 400, "bad_field"),
    # chunks
    ("chunk_size", te(b"g\r\n"), 400, "bad_chunk"),
    ("chunk_size_empty", te(b"\r\n"), 400, "bad_chunk"),
    ("chunk_size_sign", te(b"+5\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_size_minus", te(b"-5\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_size_prefix", te(b"0x5\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_size_overflow", te(b"10000000000000005\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_size_space", te(b" 5\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_size_lf", te(b"5\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_size_cr", te(b"5\rhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_end", te(b"5\r\nhelloX\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_end_lf", te(b"5\r\nhello\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_ext_control", te(b"5;a=\x01\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_ext_lf", te(b"5;a\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("chunk_ext_long", te(b"5;" + b"a" * 70000 + b"\r\nhello\r\n0\r\n\r\n"), 400, "bad_chunk"),
    ("trailer_length", te(b"0\r\ncontent-length: 5\r\n\r\n"), 400, "bad_trailer"),
    ("trailer_te", te(b"0\r\ntransfer-encoding: chunked\r\n\r\n"), 400, "bad_trailer"),
    ("trailer_host", te(b"0\r\nhost: b\r\n\r\n"), 400, "bad_trailer"),
    ("trailer_fold", te(b"0\r\nx: a\r\n b\r\n\r\n"), 400, "bad_trailer"),
    ("trailer_no_colon", te(b"0\r\nabc\r\n\r\n"), 400, "bad_trailer"),
    ("trailer_nul", te(b"0\r\nx: \0\r\n\r\n"), 400, "bad_trailer"),
    # what is not known
    ("expectation", head("expect: 200-ok"), 417, "expectation"),
]


@pytest.mark.parametrize("data,status,reason", [c[1:] for c in REQUESTS],
                         ids=[c[0] for c in REQUESTS])
def test_bad_request(w, s, connect, data, status, reason):
    before = w.metric("weir_local_replies_total", reason=reason) if reason else 0
    c = connect(w.http)
    c.send(data + NEXT)
    r = c.response()
    assert r.status in (status if isinstance(status, tuple) else (status,)), r
    assert c.ended() in ("eof", "reset")
    assert not [q for q in s.requests if q.target == "/smuggled"]
    if reason:
        w.wait_metric("weir_local_replies_total", before + 1, reason=reason)


GOOD = [
    ("plain", head(start="GET /ok HTTP/1.1"), b""),
    ("empty_lines_first", b"\r\n" + head(start="GET /ok HTTP/1.1"), b""),
    ("obs_text", head(b"x: \xe4\xf6", start="GET /ok HTTP/1.1"), b""),
    ("empty_value", head("x:", start="GET /ok HTTP/1.1"), b""),
    ("white_space", head("x: \t y \t ", start="GET /ok HTTP/1.1"), b""),
    ("length_zeros", head("content-length: 005") + b"hello", b"hello"),
    ("te_case", head("Transfer-Encoding: CHUNKED") + b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("chunk_upper", te(b"A\r\n0123456789\r\n000\r\n\r\n"), b"0123456789"),
    ("chunk_ext", te(b"5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n"), b"hello"),
    ("method", head(start="X-!#$ /ok HTTP/1.1"), b""),
    ("host_v6", head(start="GET /ok HTTP/1.1", host="host: [::1]:80"), b""),
    ("host_empty_port", head(start="GET /ok HTTP/1.1", host="host: a.test:"), b""),
]


@pytest.mark.parametrize("data,body", [c[1:] for c in GOOD], ids=[c[0] for c in GOOD])
def test_good_request(w, s, connect, data, body):
    c = connect(w.http)
    assert c.send(data).response().status == 200
    assert s.last().body == body
    assert c.send(request()).response().status == 200


# ----------------------------------------------------------------- responses

def resp(*lines, start="HTTP/1.1 200 OK", body=b""):
    return b"\r\n".join(x if isinstance(x, bytes) else x.encode()
                        for x in [start, *lines]) + b"\r\n\r\n" + body


RESPONSES = [
    ("short_status", resp(start="HTTP/1.1 20 OK")),
    ("long_status", resp(start="HTTP/1.1 2000 OK")),
    ("word_status", resp(start="HTTP/1.1 abc OK")),
    ("low_status", resp(start="HTTP/1.1 099 OK")),
    ("no_space", resp(start="HTTP/1.1200 OK")),
    ("two_spaces", resp(start="HTTP/1.1  200 OK")),
    ("version", resp(start="HTTP/3.1 200 OK")),
    ("version_case", resp(start="http/1.1 200 OK")),
    ("protocol", resp(start="ICY 200 OK")),
    ("garbage", b"hello, world\r\n\r\n"),
    ("reason_control", resp(start=b"HTTP/1.1 200 O\x01K")),
    ("reason_nul", resp(start=b"HTTP/1.1 200 O\0K")),
    ("reason_cr", resp(start=b"HTTP/1.1 200 O\rK")),
    ("two_lengths", resp("content-length: 5", "content-length: 6", body=b"hello")),
    ("length_list", resp("content-length: 5, 6", body=b"hello")),
    ("length_sign", resp("content-length: +5", body=b"hello")),
    ("length_minus", resp("content-length: -5", body=b"hello")),
    ("length_overflow", resp("content-length: 99999999999999999999")),
    ("length_and_chunked", resp("content-length: 5", "transfer-encoding: chunked",
                                body=b"5\r\nhello\r\n0\r\n\r\n")),
    ("te_in_1_0", resp("transfer-encoding: chunked", start="HTTP/1.0 200 OK",
                       body=b"5\r\nhello\r\n0\r\n\r\n")),
    ("te_gzip", resp("transfer-encoding: gzip", body=b"x")),
    ("te_twice", resp("transfer-encoding: chunked, chunked", body=b"0\r\n\r\n")),
    ("space_before_colon", resp("content-length : 5", body=b"hello")),
    ("folded", resp("content-length: 0", "x: a", " b")),
    ("nul", resp("content-length: 0", b"x: a\0b")),
    ("bare_cr", resp("content-length: 0", b"x: a\rb")),
    ("bare_lf", resp("content-length: 0", b"x: a\ny: b")),
    ("no_colon", resp("content-length: 0", "xyz")),
    ("switch_unasked", resp("connection: upgrade", "upgrade: websocket",
                            start="HTTP/1.1 101 Switching Protocols")),
    ("interim_with_length", resp("content-length: 5", start="HTTP/1.1 100 Continue",
                                 body=b"hello" + answer())),
    ("interim_chunked", resp("transfer-encoding: chunked", start="HTTP/1.1 103 Early Hints",
                             body=b"0\r\n\r\n" + answer())),
    ("cut_head", b"HTTP/1.1 200 OK\r\ncontent-le"),
    ("nothing", b""),
]


class Script:
    """Sends .reply once for each connection, then closes."""
    reply = b""

    def __call__(self, c):
        c.server.take(c)
        c.send(self.reply)
        c.sock.shutdown(1)
        c.read_all()


@pytest.fixture(scope="module")
def script():
    return Script()


@pytest.fixture(scope="module")
def bad(weir_for_all, server_for_all, script):
    s = server_for_all(script=script)
    return weir_for_all("""
        listen 127.0.0.1:@http@;
        upstream u { server @backend@; eject off; keepalive off; }
        host * { route / { retry attempts=1; proxy u; } }""", backend=s)


@pytest.mark.parametrize("reply", [c[1] for c in RESPONSES], ids=[c[0] for c in RESPONSES])
def test_bad_response(bad, script, connect, reply):
    script.reply = reply
    c = connect(bad.http)
    r = c.send(request()).response()
    assert r.status == 502, r
    assert b"hello" not in r.body
    # The client's own connection is not at fault.
    script.reply = answer(b"fine")
    assert fetch(bad.http).body == b"fine"


CUT = [
    ("chunk_size", b"g\r\n"),
    ("chunk_end", b"2\r\nokX\r\n"),
    ("chunk_sign", b"+2\r\nok\r\n0\r\n\r\n"),
    ("trailer_length", b"2\r\nok\r\n0\r\ncontent-length: 1\r\n\r\n"),
    ("trailer_control", b"2\r\nok\r\n0\r\nx: \x01\r\n\r\n"),
    ("closed", b"2\r\nok\r\n"),
]


@pytest.mark.parametrize("body", [c[1] for c in CUT], ids=[c[0] for c in CUT])
def test_bad_response_body_is_cut(bad, script, connect, body):
    """The head may have gone already, or it is still time for a 502; never an end that looks well."""
    script.reply = resp("transfer-encoding: chunked", body=body)
    c = connect(bad.http)
    c.send(request())
    try:
        r = c.response()
    except (EOFError, ConnectionError):
        return
    assert r.status == 502, r


def test_surplus_bytes_end_the_connection(weir, server, connect):
    s = server(answer(b"ok") + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen")
    w = weir(CONF, backend=s)
    c = connect(w.http)
    for _ in range(3):
        assert c.send(request()).response().body == b"ok"
    assert s.accepted == 3


def test_response_head_too_large(weir, server):
    s = server(answer(fields={"x": "y" * 100_000}))
    w = weir(CONF, backend=s)
    assert fetch(w.http).status == 502
    w.wait_metric("weir_local_replies_total", 1, reason="response_header_max")


def test_equal_lengths_or_refusal(w, connect):
    """RFC 9110 8.6 allows one of both; the server must never see two."""
    c = connect(w.http)
    c.send(head("content-length: 2", "content-length: 2") + b"ok")
    assert c.response().status in (200, 400)


def test_refusal_is_not_lost_to_a_reset(w, connect):
    """What the client was still sending must not destroy the response on its way."""
    c = connect(w.http)
    c.send(head("content-length: 5", "content-length: 6"))
    try:
        c.send(b"x" * 300_000)
    except ConnectionError:
        pass
    assert c.response().status == 400
    until(lambda: w.metric("weir_requests") == 0, "the exchange to end")
