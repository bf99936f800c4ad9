"""OCSP stapling: what is read from a file, and what is fetched."""
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp as x_ocsp

from kit import SLOW, free_port, need, until
from kit.certs import openssl
from kit.ocsp import Responder, load, response
from kit.raw import answer, fetch

BODY = ' host * { route / { respond 200 "x"; } }'
QUICK = "ocsp_fetch timeout=1s retry=100ms; "


def listener(*certs, port="https", more=""):
    lines = " ".join(f"certificate {c} key={k} ocsp={o};" for c, k, o in certs)
    return f"listen 127.0.0.1:@{port}@ tls {{ {lines} {more} }} "


def stapled(port, name="a.test", *args):
    """What the openssl client says about the staple: "" when there was none."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", name, "-status", *args],
        input="Q\n", capture_output=True, text=True, timeout=20 * SLOW)
    assert "CONNECTED" in done.stdout, done.stdout + done.stderr
    assert "OCSP response" in done.stdout
    if "OCSP response: no response sent" in done.stdout:
        return ""
    return done.stdout


def is_good(port, name="a.test", *args):
    return "Cert Status: good" in stapled(port, name, *args)


def serial(text):
    return int(re.search(r"Serial Number: (\w+)", text).group(1), 16)


@pytest.fixture
def responder():
    made = []

    def make(*args):
        made.append(Responder(*args))
        return made[-1]

    yield make
    for r in made:
        r.close()
        assert not r.errors, r.errors


def fetched_cert(ca, r, *names, more=""):
    return ca.cert(*(names or ["a.test"]), chain=True, more=f"authorityInfoAccess=OCSP;URI:{r.url}\n{more}")


# ------------------------------------------------------------- from a file

@pytest.mark.parametrize("args", [["-tls1_2"], ["-tls1_3"]])
def test_file(weir, ca, args):
    cert, key = ca.cert("a.test", chain=True)
    w = weir(listener((cert, key, "@dir@/staple.der")) + BODY, files={"staple.der": response(ca, cert)})
    text = stapled(w.https, "a.test", *args)
    assert "OCSP Response Status: successful" in text and "Cert Status: good" in text
    assert serial(text) == load(cert).serial_number
    until(lambda: 3400 < w.metric("weir_ocsp_staple_expires_seconds", certificate=str(cert)) <= 3540,
          "the metric")
    assert fetch(w.https, tls=ca.client()).status == 200  # a client that does not ask


def test_file_made_by_the_openssl_command(weir, ca):
    cert, key = ca.cert("a.test", chain=True)
    index = Path(ca.dir) / "index.txt"
    index.write_text(f"V\t350101000000Z\t\t{load(cert).serial_number:X}\tunknown\t/CN=a.test\n")
    der = Path(ca.dir) / "made.der"
    openssl("ocsp", "-index", index, "-CA", ca.cert_file, "-rsigner", ca.cert_file, "-rkey", ca.key_file,
            "-issuer", ca.cert_file, "-cert", cert, "-ndays", "2", "-respout", der)
    w = weir(listener((cert, key, "@dir@/staple.der")) + BODY, files={"staple.der": der.read_bytes()})
    assert is_good(w.https)


def test_each_certificate_has_its_own(weir, ca):
    one, two, three = ca.cert("one.test", chain=True), ca.cert("two.test", chain=True), ca.cert("three.test")
    w = weir(listener((*one, "@dir@/one.der"), (*two, "@dir@/two.der"), (*three, "off")) + BODY,
             files={"one.der": response(ca, one[0]), "two.der": response(ca, two[0], digest=hashes.SHA256())})
    assert serial(stapled(w.https, "one.test")) == load(one[0]).serial_number
    assert serial(stapled(w.https, "two.test")) == load(two[0]).serial_number
    assert stapled(w.https, "three.test") == ""


def test_signed_by_a_delegate(weir, ca):
    cert, key = ca.cert("a.test", chain=True)
    delegate = ca.cert("ocsp.test", more="", chain=False)
    special = signer_cert(ca)
    w = weir(listener((cert, key, "@dir@/s.der")) + BODY, files={"s.der": response(ca, cert, signer=special)})
    assert is_good(w.https)
    w.file("s.der", response(ca, cert, signer=delegate))  # of the same authority, but not for this
    said = w.reload(ok=False)
    assert "not signed by the certificate's issuer" in said.stderr
    assert is_good(w.https)


def signer_cert(ca):
    """A certificate of the authority's that may sign OCSP responses."""
    stem = ca.dir / "delegate"
    Path(f"{stem}.ext").write_text("extendedKeyUsage=OCSPSigning\nbasicConstraints=CA:FALSE\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=delegate",
            "-keyout", f"{stem}.key", "-out", f"{stem}.csr")
    openssl("x509", "-req", "-in", f"{stem}.csr", "-CA", ca.cert_file, "-CAkey", ca.key_file,
            "-CAcreateserial", "-days", 30, "-extfile", f"{stem}.ext", "-out", f"{stem}.pem")
    return f"{stem}.pem", f"{stem}.key"


@pytest.mark.parametrize("make, words", [
    (lambda ca, cert: b"nothing", "this is no OCSP response"),
    (lambda ca, cert: response(ca, cert)[:-1], "this is no OCSP response"),
    (lambda ca, cert: response(ca, cert) + b"x", "this is no OCSP response"),
    (lambda ca, cert: response(ca, ca.cert("b.test")[0]), "the response is about another certificate"),
    (lambda ca, cert: response(ca, cert, "revoked"), "the certificate was revoked"),
    (lambda ca, cert: response(ca, cert, "unknown"), "does not know the certificate"),
    (lambda ca, cert: response(ca, cert, age=-7200), "the response is of the future"),
    (lambda ca, cert: response(ca, cert, signer=ca.cert("c.test")), "is not signed by"),
    (lambda ca, cert: x_ocsp.OCSPResponseBuilder.build_unsuccessful(
        x_ocsp.OCSPResponseStatus.TRY_LATER).public_bytes(hashes_der()), "gave an error instead"),
], ids=["garbage", "cut", "surplus", "other", "revoked", "unknown", "future", "signer", "declined"])
def test_files_that_are_refused(weir, ca, make, words):
    cert, key = ca.cert("a.test", chain=True)
    w = weir(listener((cert, key, "@dir@/s.der")) + BODY, files={"s.der": make(ca, cert)}, start=False)
    done = w.command("-t")
    assert done.returncode == 1
    assert re.search(r"weir.conf:2:\d+: [^\n]*s\.der: [^\n]*" + words, done.stderr), done.stderr


def hashes_der():
    from cryptography.hazmat.primitives.serialization import Encoding
    return Encoding.DER


def test_an_expired_file_is_a_warning(weir, ca):
    cert, key = ca.cert("a.test", chain=True)
    w = weir(listener((cert, key, "@dir@/s.der")) + BODY, files={"s.der": response(ca, cert, age=7200)}, start=False)
    done = w.command("-t")
    assert done.returncode == 0 and "warning: " in done.stderr and "the response has expired" in done.stderr
    w.start()
    assert stapled(w.https) == ""
    assert w.metric("weir_ocsp_staple_expires_seconds") == 0
    w.file("s.der", response(ca, cert))
    w.reload()
    assert is_good(w.https)


def test_a_file_expires_while_in_use(weir, ca):
    cert, key = ca.cert("a.test", chain=True)
    w = weir(listener((cert, key, "@dir@/s.der")) + BODY, files={"s.der": response(ca, cert, age=60, life=60 + 6 * SLOW)})
    assert is_good(w.https)
    until(lambda: stapled(w.https) == "", "the staple to go", 15)


def test_mistakes_and_warnings(weir, ca):
    alone, key = ca.cert("a.test")
    w = weir(listener((alone, key, "fetch")) + BODY, start=False)
    done = w.command("-t")
    assert done.returncode == 1 and "needs the certificate of the issuer" in done.stderr
    cert, key = ca.cert("a.test", chain=True)
    w.configure(listener((cert, key, "fetch")) + BODY)
    done = w.command("-t")
    assert done.returncode == 0 and "names no OCSP responder with an http address" in done.stderr
    must, key = ca.cert("a.test", chain=True, more="tlsfeature=status_request")
    w.configure(listener((must, key, "off")) + BODY)
    done = w.command("-t")
    assert done.returncode == 0 and "(must-staple)" in done.stderr
    w.file("s.der", response(ca, must))
    w.configure(listener((must, key, "@dir@/s.der")) + BODY)
    assert "must-staple" not in w.command("-t").stderr
    assert "ocsp=" + str(w.dir / "s.der") in w.command("-T").stdout


# ------------------------------------------------------------- fetched

def test_fetch(weir, ca, responder):
    r = responder()
    cert, key = fetched_cert(ca, r)
    r.give = response(ca, cert)
    w = weir("workers 2; threads 2; " + QUICK + listener((cert, key, "fetch")) + BODY)
    until(lambda: is_good(w.https), "the staple")
    for _ in range(8):  # every loop of both workers has it
        assert is_good(w.https)
    assert is_good(w.https, "a.test", "-tls1_2")
    w.wait_metric("weir_ocsp_fetches_total", 1, result="good")
    until(lambda: 3400 < w.metric("weir_ocsp_staple_expires_seconds", certificate=str(cert)) <= 3540, "the metric")
    q = r.last()
    assert (q.method, q.target) == ("POST", "/ocsp")
    assert q.get("host") == r.address and q.get("content-type") == "application/ocsp-request"
    asked = x_ocsp.load_der_ocsp_request(q.body)
    assert asked.serial_number == load(cert).serial_number
    assert len(r.requests) == 1


def test_a_responder_of_the_openssl_command(weir, ca):
    need("openssl")
    port = free_port()
    cert, key = ca.cert("a.test", chain=True, more=f"authorityInfoAccess=OCSP;URI:http://localhost:{port}")
    index = Path(ca.dir) / "index2.txt"
    index.write_text(f"V\t350101000000Z\t\t{load(cert).serial_number:X}\tunknown\t/CN=a.test\n")
    with subprocess.Popen(["openssl", "ocsp", "-port", str(port), "-index", index, "-CA", ca.cert_file,
                           "-rsigner", ca.cert_file, "-rkey", ca.key_file, "-ndays", "1"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        try:
            w = weir(QUICK + listener((cert, key, "fetch")) + BODY)  # localhost: through the resolver
            until(lambda: is_good(w.https), lambda: f"the staple; {w.log()}", 10)
        finally:
            p.kill()


def test_refresh_at_half_of_its_life(weir, ca, responder):
    r = responder()
    cert, key = fetched_cert(ca, r)
    r.give = lambda q: response(ca, cert, age=2, life=8 if len(r.requests) == 1 else 36000)
    w = weir(QUICK + listener((cert, key, "fetch")) + BODY)
    until(lambda: is_good(w.https), "the staple")
    first = r.wait(1)[0].time
    second = r.wait(2)[1].time
    assert 0.5 < second - first < 6
    w.wait_metric("weir_ocsp_fetches_total", 2, result="good")
    until(lambda: w.metric("weir_ocsp_staple_expires_seconds") > 30000, "the metric")


FAILURES = {
    "revoked": lambda ca, cert: response(ca, cert, "revoked"),
    "unknown": lambda ca, cert: response(ca, cert, "unknown"),
    "expired": lambda ca, cert: response(ca, cert, age=7200),
    "future": lambda ca, cert: response(ca, cert, age=-7200),
    "broken": lambda ca, cert: b"garbage",
    "forged": lambda ca, cert: response(ca, cert, signer=ca.cert("c.test")),
    "foreign": lambda ca, cert: response(ca, ca.cert("d.test")[0]),
    "too_large": lambda ca, cert: response(ca, cert, pad=70000),
    "timeout": lambda ca, cert: None,
    "http": lambda ca, cert: answer(b"", status="503 Busy"),
    "closed": lambda ca, cert: b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\nabc",
}


@pytest.mark.parametrize("result", FAILURES)
def test_failures_and_recovery(weir, ca, responder, result):
    r = responder()
    cert, key = fetched_cert(ca, r)
    r.give = FAILURES[result](ca, cert)
    w = weir(QUICK + listener((cert, key, "fetch")) + BODY)
    until(lambda: w.metric("weir_ocsp_fetches_total", result=result) >= 1, lambda: f"the failure; {w.log()}")
    w.wait_log(rf"\[ocsp {re.escape(str(cert))}\] {r.address}: .*clients get none; next try in")
    assert stapled(w.https) == ""
    assert fetch(w.https, tls=ca.client()).status == 200
    r.give = response(ca, cert)
    until(lambda: is_good(w.https), lambda: f"the staple; {w.log()}", 10)


def test_the_last_good_one_stays_until_it_expires(weir, ca, responder):
    r = responder()
    cert, key = fetched_cert(ca, r)
    life = 10 * SLOW
    r.give = lambda q: response(ca, cert, age=2, life=2 + life) if len(r.requests) == 1 \
        else response(ca, cert, "revoked")
    w = weir(QUICK + listener((cert, key, "fetch")) + BODY)
    until(lambda: is_good(w.https), "the staple")
    until(lambda: w.metric("weir_ocsp_fetches_total", result="revoked") >= 1, "the refusal", life)
    w.wait_log("the certificate was revoked; the one in use counts for another")
    assert is_good(w.https)
    until(lambda: stapled(w.https) == "", "the staple to go", 2 * life)
    until(lambda: w.metric("weir_ocsp_staple_expires_seconds") == 0, "the metric")


def test_a_responder_that_is_gone_comes_back(weir, ca, responder):
    r = responder()
    cert, key = fetched_cert(ca, r)
    r.give = response(ca, cert)
    r.stop_listening()
    w = weir(QUICK + listener((cert, key, "fetch")) + BODY)
    until(lambda: w.metric("weir_ocsp_fetches_total", result="connect") >= 2, "two tries")
    r.start()
    until(lambda: is_good(w.https), "the staple", 10)


def test_names_that_do_not_resolve(weir, ca, names):
    n = names()
    cert, key = ca.cert("a.test", chain=True, more="authorityInfoAccess=OCSP;URI:http://ocsp.nowhere.test/x")
    w = weir(f"resolver {n}; " + QUICK + listener((cert, key, "fetch")) + BODY)
    until(lambda: w.metric("weir_ocsp_fetches_total", result="dns") >= 1, lambda: f"the failure; {w.log()}")
    n.silent = True
    until(lambda: w.metric("weir_ocsp_fetches_total", result="timeout") >= 1, lambda: f"the failure; {w.log()}", 10)


def test_what_was_fetched_survives(weir, ca, responder):
    r = responder()
    cert, key = fetched_cert(ca, r)
    r.give = response(ca, cert)
    config = QUICK + listener((cert, key, "fetch")) + BODY
    w = weir(config)
    until(lambda: is_good(w.https), "the staple")
    r.stop_listening()
    w.reload(config.replace('"x"', '"y"'))
    assert is_good(w.https)
    pid = w.status()["workers"][0]["pid"]
    w.deaths_expected = True
    os.kill(pid, signal.SIGKILL)
    w.wait_deaths(1)
    for _ in range(3):
        assert is_good(w.https)  # the first handshakes of the new worker
    assert len(r.requests) == 1


def test_a_certificate_that_changes_is_asked_for_anew(weir, ca, responder):
    r = responder()
    one, two = fetched_cert(ca, r), fetched_cert(ca, r)
    made = {load(c[0]).serial_number: response(ca, c[0]) for c in (one, two)}
    r.give = lambda q: made[x_ocsp.load_der_ocsp_request(q.body).serial_number]
    w = weir(QUICK + listener((*one, "fetch")) + BODY)
    until(lambda: is_good(w.https), "the staple")
    w.reload(QUICK + listener((*two, "fetch")) + BODY)
    until(lambda: is_good(w.https), "the other staple")
    assert serial(stapled(w.https)) == load(two[0]).serial_number
    assert w.metric("weir_ocsp_staple_expires_seconds", certificate=str(one[0])) == 0
    w.reload(QUICK + listener((*one, "fetch")) + BODY)
    assert serial(stapled(w.https)) == load(one[0]).serial_number  # its place was kept
    w.reload(QUICK + listener((*one, "off")) + BODY)
    assert stapled(w.https) == ""
    until(lambda: len(w.children()) == 1, "the fetcher's end")


def test_the_fetcher_has_no_rights_and_is_replaced(weir, ca, responder):
    if os.geteuid() != 0:
        pytest.skip("only root can drop rights")
    r = responder()
    cert, key = fetched_cert(ca, r)
    r.give = response(ca, cert)
    w = weir(QUICK + listener((cert, key, "fetch")) + BODY)
    until(lambda: is_good(w.https), "the staple")
    worker = w.status()["workers"][0]["pid"]
    (fetcher,) = set(w.children()) - {worker}
    status = Path(f"/proc/{fetcher}/status").read_text()
    assert not re.search(r"^Uid:\s+0\b", status, re.M) and re.search(r"^CapEff:\s+0+$", status, re.M)
    os.kill(fetcher, signal.SIGKILL)
    w.wait_log(r"\[fetcher\] it ended with signal 9; a new one follows")
    assert is_good(w.https)
    until(lambda: len(w.children()) == 2, "the new one", 10)
    assert is_good(w.https)
    w.process.kill()  # without a master it does not stay
    w.process.wait()
    until(lambda: not Path(f"/proc/{w.process.pid}").exists(), "the end")
    w.deaths_expected = True
    w.process = None


def test_a_host_of_its_own(weir, ca, responder):
    """Certificates in a host's tls block are no different."""
    r = responder()
    one, two, three = fetched_cert(ca, r, "a.test"), fetched_cert(ca, r, "b.test"), ca.cert("c.test", chain=True)
    made = {load(c[0]).serial_number: response(ca, c[0]) for c in (one, two)}
    r.give = lambda q: made[x_ocsp.load_der_ocsp_request(q.body).serial_number]
    hosts = "".join(f"host {n} {{ tls {{ certificate {c[0]} key={c[1]} ocsp={o}; }} route / {{ respond 200; }} }} "
                    for n, c, o in (("b.test", two, "fetch"), ("c.test", three, "@dir@/three.der")))
    w = weir(QUICK + listener((*one, "fetch")) + hosts + BODY, files={"three.der": response(ca, three[0])})
    for name, cert in (("a.test", one), ("b.test", two), ("c.test", three)):
        until(lambda: is_good(w.https, name), f"the staple of {name}")
        assert serial(stapled(w.https, name)) == load(cert[0]).serial_number


def test_must_staple_without_a_response(weir, ca, responder):
    r = responder(b"garbage")
    cert, key = fetched_cert(ca, r, more="tlsfeature=status_request")
    w = weir(QUICK + listener((cert, key, "fetch")) + BODY)
    w.wait_log("clients get none, though the certificate is must-staple")


def test_several_are_fetched_at_once(weir, ca, responder):
    silent, r = responder(), responder()
    certs = [fetched_cert(ca, silent, "slow.test")] + [fetched_cert(ca, r, f"n{i}.test") for i in range(4)]
    made = {load(c[0]).serial_number: response(ca, c[0]) for c in certs}
    r.give = lambda q: made[x_ocsp.load_der_ocsp_request(q.body).serial_number]
    w = weir("ocsp_fetch timeout=20s; " + listener(*[(*c, "fetch") for c in certs])
             + listener((*certs[1], "fetch"), port="other") + BODY)
    for i in range(4):
        until(lambda: is_good(w.https, f"n{i}.test"), f"staple {i}")
    assert is_good(w.other, "n0.test")
    assert len(r.requests) == 4
    assert stapled(w.https, "slow.test") == ""
