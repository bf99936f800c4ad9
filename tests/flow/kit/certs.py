"""A certification authority of the test run's own, made with the openssl command."""
import os
import ssl
import subprocess
from pathlib import Path

from . import temp_dir


def openssl(*args, **more):
    done = subprocess.run(["openssl", *map(str, args)], capture_output=True, **more)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Authority:
    def __init__(self, name="weir test authority"):
        self.dir = Path(temp_dir())
        self.cert_file = self.dir / "ca.pem"
        self.key_file = self.dir / "ca.key"
        self.count = 0
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", 30, "-subj", f"/CN={name}", "-keyout", self.key_file,
                "-out", self.cert_file)

    def cert(self, *names, days=30, client=False, more="", chain=False, rsa=False):
        """(certificate, key) files for these DNS names or addresses; more: extensions as openssl
        writes them; chain: the authority's certificate follows in the file."""
        self.count += 1
        stem = self.dir / f"c{self.count}"
        cert, key, csr, ext = (f"{stem}.{e}" for e in ("pem", "key", "csr", "ext"))
        alt = ",".join(("IP:" if n[0].isdigit() else "DNS:") + n for n in names)
        use = "clientAuth" if client else "serverAuth,clientAuth"
        Path(ext).write_text(f"subjectAltName={alt}\nextendedKeyUsage={use}\n"
                             f"basicConstraints=CA:FALSE\n{more}\n")
        kind = ["rsa:2048"] if rsa else ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        openssl("req", "-newkey", *kind, "-nodes", "-subj", f"/CN={names[0]}", "-keyout", key, "-out", csr)
        openssl("x509", "-req", "-in", csr, "-CA", self.cert_file, "-CAkey", self.key_file,
                "-CAcreateserial", "-days", days, "-extfile", ext, "-out", cert)
        if chain:
            Path(cert).write_text(Path(cert).read_text() + self.cert_file.read_text())
        for path in (cert, key):
            os.chmod(path, 0o644)
        return cert, key

    def client(self, cert=None, verify=True, alpn=None, version=None):
        """A client's context that trusts this authority; cert is what cert() gave."""
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ctx.load_verify_locations(self.cert_file)
        if not verify:
            ctx.check_hostname = False
            ctx.verify_mode = ssl.CERT_NONE
        if cert:
            ctx.load_cert_chain(*cert)
        if alpn:
            ctx.set_alpn_protocols(alpn)
        if version:
            ctx.minimum_version = ctx.maximum_version = version
        return ctx

    def server(self, cert, client_ca=False):
        """A server's context, for scripted upstreams."""
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ctx.load_cert_chain(*cert)
        if client_ca:
            ctx.load_verify_locations(self.cert_file)
            ctx.verify_mode = ssl.CERT_REQUIRED
        return ctx
