"""Certificates of clients: who is let in, what is known of them, and what servers are told."""
import base64
import datetime
import hashlib
import os
import ssl
import subprocess
from pathlib import Path

import pytest

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from kit import h2, raw, until
from kit.certs import Authority, openssl
from kit.raw import answer, fetch, request

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
REFUSED = (ssl.SSLError, ConnectionError, EOFError)


def listener(cert, more=""):
    return f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; {more} }} "


def show(*names):
    return 'host * { route / { respond 200 "' + "|".join("$client_certificate_" + n for n in names) + '"; } }'


class Revoking(Authority):
    """An authority with a database, so that it can take certificates back."""

    def __init__(self, name="revoking authority"):
        super().__init__(name)
        (self.dir / "index").write_text("")
        (self.dir / "number").write_text("01\n")
        (self.dir / "ca.conf").write_text(
            f"[ca]\ndefault_ca=it\n[it]\ndatabase={self.dir}/index\ncrlnumber={self.dir}/number\n"
            "default_md=sha256\ndefault_crl_days=30\n")

    def _ca(self, *args):
        openssl("ca", "-config", self.dir / "ca.conf", "-cert", self.cert_file, "-keyfile", self.key_file, *args)

    def crl(self, *revoked, expired=False):
        for cert in revoked:
            self._ca("-revoke", cert[0])
        out = self.dir / f"crl{len(list(self.dir.glob('crl*.pem')))}.pem"
        when = ["-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z"] if expired else []
        self._ca("-gencrl", "-out", out, *when)
        out.chmod(0o644)
        return out


def signed(ca, subject, ext="", path_ca=None):
    """A certificate with any subject and extensions; path_ca: it is a CA itself."""
    ca.count += 1
    stem = ca.dir / f"s{ca.count}"
    cert, key, csr, extfile = (f"{stem}.{e}" for e in ("pem", "key", "csr", "ext"))
    Path(extfile).write_text(("basicConstraints=critical,CA:TRUE\n" if path_ca else
                              "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n") + ext)
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8", "-subj", subject,
            "-keyout", key, "-out", csr)
    openssl("x509", "-req", "-in", csr, "-CA", ca.cert_file, "-CAkey", ca.key_file, "-CAcreateserial",
            "-days", 30, "-extfile", extfile, "-out", cert)
    for path in (cert, key):
        os.chmod(path, 0o644)
    return cert, key


def intermediate(ca, name):
    """An authority under another one; its leaves' files hold the chain."""
    child = Authority(name)
    cert, key = signed(ca, f"/CN={name}", path_ca=True)
    child.cert_file.write_bytes(Path(cert).read_bytes())
    child.key_file.write_bytes(Path(key).read_bytes())
    return child


def chained(leaf, *cas):
    path = Path(leaf[0] + ".chain")
    path.write_text(Path(leaf[0]).read_text() + "".join(c.cert_file.read_text() for c in cas))
    return str(path), leaf[1]


def refused(w, ctx):
    with pytest.raises(REFUSED):
        fetch(w.https, tls=ctx)


def test_a_bundle_of_authorities(weir, ca, tmp_path):
    """Each of them is believed, and their names are told to clients; another's certificate is refused, logged, counted."""
    other, stranger = Authority("other"), Authority("stranger")
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(ca.cert_file.read_text() + other.cert_file.read_text())
    w = weir(listener(ca.cert("a.test"), f"client_certificate required ca={bundle};") + show("subject"))
    assert fetch(w.https, tls=ca.client(ca.cert("one.test", client=True))).body == b"CN=one.test"
    assert fetch(w.https, tls=ca.client(other.cert("two.test", client=True))).body == b"CN=two.test"
    said = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{w.https}"], input=b"", timeout=20,
                          capture_output=True).stdout.decode()
    names = said[said.index("Acceptable client certificate CA names"):]
    assert "CN = weir test authority" in names and "CN = other" in names
    w.wait_metric("weir_client_certificate_refusals_total", 1, reason="no certificate")
    refused(w, ca.client(stranger.cert("three.test", client=True)))
    w.wait_metric("weir_client_certificate_refusals_total", 1, reason="unable to get local issuer certificate")
    w.wait_log(r"client 127\.0\.0\.1\] its certificate was refused: unable to get local issuer .*\(CN=three\.test\)")
    w.wait_log(r"client 127\.0\.0\.1\] it was refused: no certificate")


@pytest.mark.parametrize("version", [V12, V13])
def test_revoked(weir, version):
    ca = Revoking()
    good, bad = ca.cert("good.test", client=True), ca.cert("bad.test", client=True)
    before = ca.crl()
    text = "client_certificate required ca=%s crl=%s;"
    cert = ca.cert("a.test")
    w = weir(listener(cert, text % (ca.cert_file, before)) + show("subject"))
    ctx = ca.client(bad, version=version)
    kept = raw.client(w.https, tls=ctx)
    assert kept.send(request()).response().body == b"CN=bad.test"
    ticket = kept.sock.session
    w.reload(listener(cert, text % (ca.cert_file, ca.crl(bad))) + show("subject"))
    assert kept.send(request()).response().status == 421, "the connection went through another verification"
    kept.close()
    refused(w, ca.client(bad, version=version))
    w.wait_log(r"its certificate was refused: certificate revoked \(CN=bad\.test\)")
    with pytest.raises(REFUSED), raw.client(w.https, tls=ctx, session=ticket) as c:
        c.send(request()).response()
    assert fetch(w.https, tls=ca.client(good, version=version)).body == b"CN=good.test"
    w.reload(listener(cert, text % (ca.cert_file, ca.crl(expired=True))) + show("subject"))
    w.wait_log(r"weir\.conf:2:\d+: warning: \S+: the revocation list expired on 2020-02-01 00:00 UTC")
    refused(w, ca.client(good, version=version))
    w.wait_log(r"its certificate was refused: CRL has expired")
    w.wait_metric("weir_client_certificate_refusals_total", 1, reason="CRL has expired")


def test_several_lists_and_depth(weir, tmp_path):
    """One list of every CA of a chain is wanted; depth says how long a chain may be."""
    root = Revoking("root")
    middle = intermediate(root, "middle")
    lower = intermediate(middle, "lower")
    near = chained(middle.cert("near.test", client=True), middle)
    far = chained(lower.cert("far.test", client=True), lower, middle)
    cert = root.cert("a.test")
    text = f"client_certificate required ca={root.cert_file} %s;"
    w = weir(listener(cert, text % "depth=1") + show("subject", "issuer"))
    assert fetch(w.https, tls=root.client(near)).body == b"CN=near.test|CN=middle"
    refused(w, root.client(far))
    w.wait_log("its certificate was refused: certificate chain too long")
    w.reload(listener(cert, text % "depth=2") + show("subject"))
    assert fetch(w.https, tls=root.client(far)).body == b"CN=far.test"
    w.reload(listener(cert, text % f"crl={root.crl()}") + show("subject"))
    refused(w, root.client(near))
    w.wait_log("its certificate was refused: unable to get certificate CRL")
    (middle.dir / "index").write_text("")
    (middle.dir / "number").write_text("01\n")
    (middle.dir / "ca.conf").write_text((root.dir / "ca.conf").read_text().replace(str(root.dir), str(middle.dir)))
    both = tmp_path / "both.pem"
    both.write_text(root.crl().read_text() + Revoking.crl(_as(middle)).read_text())
    w.reload(listener(cert, text % f"crl={both}") + show("subject"))
    assert fetch(w.https, tls=root.client(near)).body == b"CN=near.test"


def _as(authority):
    authority.__class__ = Revoking
    return authority


@pytest.mark.parametrize("what, text, message", [
    ("crl", "no list", "no revocation list in PEM form"),
    ("crl", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "no revocation list in PEM form"),
    ("ca", "no certificate", "no CA certificate in PEM form"),
])
def test_garbage(weir, ca, what, text, message):
    files = {"ca": ca.cert_file.read_text(), "crl": "", **{what: text}}
    w = weir(listener(ca.cert("a.test"), "client_certificate required ca=@dir@/ca crl=@dir@/crl;") + show("subject"),
             files=files, start=False)
    done = w.command("-t")
    assert done.returncode == 1
    assert f"{w.dir}/{what}: {message}" in done.stderr and "weir.conf:2:" in done.stderr


VALUES = show("verified", "subject", "issuer", "serial", "san", "fingerprint", "expires")


def expected(cert):
    der = ssl.PEM_cert_to_DER_cert(Path(cert[0]).read_text())
    serial = openssl("x509", "-in", cert[0], "-noout", "-serial").decode().strip().split("=")[1]
    end = openssl("x509", "-in", cert[0], "-noout", "-enddate", "-dateopt", "iso_8601").decode().strip().split("=")[1]
    return serial, hashlib.sha256(der).hexdigest(), end.replace(" ", "T")


@pytest.mark.parametrize("version", [V12, V13])
def test_variables(weir, ca, version):
    """Over HTTP/1, after a resumed session, and empty without a certificate."""
    cert = signed(ca, "/O=Example/CN=alice", "subjectAltName=DNS:a.example,URI:spiffe://b/c,email:d@e.example,"
                  "IP:10.0.0.1,IP:2001:db8::1\n")
    serial, sha, end = expected(cert)
    wanted = f"yes|CN=alice,O=Example|CN=weir test authority|{serial}|" \
             f"DNS:a.example,URI:spiffe://b/c,email:d@e.example,IP:10.0.0.1,IP:2001:db8::1|{sha}|{end}"
    w = weir(listener(ca.cert("a.test"), f"client_certificate optional ca={ca.cert_file};") + VALUES)
    ctx = ca.client(cert, version=version)
    with raw.client(w.https, tls=ctx) as c:
        for _ in range(2):
            assert c.send(request()).response().body.decode() == wanted
        session = c.sock.session
    with raw.client(w.https, tls=ctx, session=session) as c:
        assert c.send(request()).response().body.decode() == wanted
        assert c.sock.session_reused
    assert fetch(w.https, tls=ca.client(version=version)).body == b"||||||"


def test_hostile_texts(weir, server, ca):
    """No byte of a certificate ends a line, a field or an element of a list."""
    cert = signed(ca, "/CN=eve\r\nX-Admin: yes\x01é,O=x",
                  "subjectAltName=@alt\n[alt]\nURI.1=spiffe://eve\\,URI:spiffe://admin\n")
    s = server(answer())
    w = weir(listener(ca.cert("a.test"), f"client_certificate required ca={ca.cert_file} forward=on;")
             + "log_format f '$client_certificate_subject $client_certificate_san'; access_log @dir@/log format=f; "
             "module headers; upstream u { server @backend@; } host * { route / { proxy u; "
             "function headers { set request X-Subject $client_certificate_subject; "
             "set request X-San $client_certificate_san; } } }", backend=s)
    assert fetch(w.https, tls=ca.client(cert)).status == 200
    q = s.last()
    assert q.get("x-admin") is None
    assert q.get("x-subject") == r"CN=eve\0D\0AX-Admin: yes\01\C3\A9\,O=x"
    assert q.get("x-san") == r"URI:spiffe://eve\2CURI:spiffe://admin"
    line = until(lambda: (w.dir / "log").read_text(), "the line")
    assert line.count("\n") == 1 and r"CN=eve\x5c0D\x5c0AX-Admin: yes\x5c01" in line


@pytest.mark.parametrize("forward", ["on", "off"])
@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("with_cert", [False, True])
def test_client_cert_field(weir, server, ca, forward, trusted, with_cert):
    s = server(answer())
    w = weir(("trusted_proxies 127.0.0.1; " if trusted else "")
             + listener(ca.cert("a.test"), f"client_certificate optional ca={ca.cert_file} forward={forward};")
             + "upstream u { server @backend@; } host * { route / { proxy u; } }", backend=s)
    cert = ca.cert("c.test", client=True)
    mine = ":" + base64.b64encode(ssl.PEM_cert_to_DER_cert(Path(cert[0]).read_text())).decode() + ":"
    ctx = ca.client(cert if with_cert else None)
    own = mine if with_cert and forward == "on" else None
    fetch(w.https, tls=ctx)
    assert s.last().get("client-cert") == own
    said = [("Client-Cert", ":AAAA:"), ("cLIENT-cERT", ":BBBB:"), ("Client-Cert-Chain", ":CCCC:"),
            ("Connection", "client-cert")]
    for fields in (said[:3], said):
        with raw.client(w.https, tls=ctx) as c:
            assert c.send(request(fields=fields)).response().status == 200
        q = s.last()
        nominated = len(fields) == 4
        if trusted and not nominated:
            assert q.get("client-cert").startswith(":AAAA:") and q.get("client-cert-chain") == ":CCCC:"
        else:
            assert q.get("client-cert") == own
            assert q.get("client-cert-chain") is None


def test_over_http2(weir, server, ca):
    s = server(answer())
    w = weir(listener(ca.cert("a.test"), f"client_certificate required ca={ca.cert_file} forward=on;")
             + "module headers; upstream u { server @backend@; } host * { route / { proxy u; "
             "function headers { set request X-Subject $client_certificate_subject; } } }", backend=s)
    cert = ca.cert("c.test", client=True)
    c = h2.Client(w.https, tls=ca.client(cert, alpn=["h2"]))
    assert c.fetch(fields=[("client-cert", ":AAAA:")]).status == 200
    c.close()
    q = s.last()
    assert q.get("x-subject") == "CN=c.test"
    assert base64.b64decode(q.get("client-cert").strip(":")) == ssl.PEM_cert_to_DER_cert(Path(cert[0]).read_text())


def soon(ca, what):
    """((certificate, key) of a client, a CRL), of which one ends within seconds."""
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    day, end = datetime.timedelta(days=1), now + datetime.timedelta(seconds=4)
    issuer = x509.load_pem_x509_certificate(ca.cert_file.read_bytes())
    signer = serialization.load_pem_private_key(ca.key_file.read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "soon.test")])
    cert = (x509.CertificateBuilder().subject_name(name).issuer_name(issuer.subject).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - day)
            .not_valid_after(end if what == "certificate" else now + day).sign(signer, hashes.SHA256()))
    crl = (x509.CertificateRevocationListBuilder().issuer_name(issuer.subject).last_update(now - day)
           .next_update(end if what == "crl" else now + day).sign(signer, hashes.SHA256()))
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    files = [ca.dir / f"soon.{e}" for e in ("pem", "key", "crl")]
    for f, text in zip(files, (cert.public_bytes(pem), crl.public_bytes(pem), crl.public_bytes(pem))):
        f.write_bytes(text)
    files[1].write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    for f in files:
        f.chmod(0o644)
    return files[:2], files[2]


@pytest.mark.parametrize("version", [V12, V13])
@pytest.mark.parametrize("what", ["certificate", "crl"])
@pytest.mark.parametrize("where", ["listener", "host"])
def test_a_ticket_does_not_outlive_the_certificate(weir, version, what, where):
    """Nor the list it was looked up in, however often it is renewed."""
    ca = Authority()
    cert, crl = soon(ca, what)
    asks = f"client_certificate required ca={ca.cert_file} crl={crl};"
    own = where == "host"
    w = weir(listener(ca.cert("a.test"), "" if own else asks) +
             f"host a.test {{ {'tls { ' + asks + ' }' if own else ''} route / {{ respond 200; }} }}")
    ctx = ca.client(cert, version=version)
    last = [None]

    def resumes():
        with raw.client(w.https, tls=ctx, session=last[0]) as c:
            assert c.send(request()).response().status == 200
            last[0] = c.sock.session
            return c.sock.session_reused

    def is_refused():
        try:
            resumes()
        except REFUSED:
            return True
        return False

    resumes()
    assert resumes()
    until(is_refused, "the ticket to be refused")
    w.wait_metric("weir_client_certificate_refusals_total", 1,
                  reason="certificate has expired" if what == "certificate" else "CRL has expired")
