"""OCSP: responses with any content, and a responder that gives what it is told to."""
import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from . import raw

STATES = {"good": ocsp.OCSPCertStatus.GOOD, "revoked": ocsp.OCSPCertStatus.REVOKED,
          "unknown": ocsp.OCSPCertStatus.UNKNOWN}


def load(path):
    return x509.load_pem_x509_certificate(open(path, "rb").read())


def response(ca, cert, state="good", age=60, life=3600, signer=None, digest=None, pad=0):
    """A response in DER about the certificate in the file cert: made age seconds ago, good for life
    seconds from then (None: it does not say).  signer: (certificate, key) files other than ca's."""
    now = datetime.datetime.utcnow().replace(microsecond=0)
    this = now - datetime.timedelta(seconds=age)
    until = None if life is None else this + datetime.timedelta(seconds=life)
    issuer = load(ca.cert_file)
    signer_cert, signer_key = signer or (ca.cert_file, ca.key_file)
    revoked = now if state == "revoked" else None
    b = ocsp.OCSPResponseBuilder().add_response(
        load(cert), issuer, digest or hashes.SHA1(), STATES[state], this, until, revoked, None)
    b = b.responder_id(ocsp.OCSPResponderEncoding.HASH, load(signer_cert))
    if signer:
        b = b.certificates([load(signer_cert)])
    if pad:
        b = b.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x" * pad), False)
    key = serialization.load_pem_private_key(open(signer_key, "rb").read(), None)
    return b.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


class Responder(raw.Server):
    """An HTTP server whose .give is what it answers with: DER, a function of the request that makes
    it, or None for silence.  .cert: the certificate it is about, for url()."""

    def __init__(self, give=None):
        self.give = give
        super().__init__(script=self._respond)

    @property
    def url(self):
        return f"http://{self.address}/ocsp"

    def _respond(self, stream):
        message = self.take(stream)
        give = self.give(message) if callable(self.give) else self.give
        if give is None:
            stream.read_all()
        elif give.startswith(b"HTTP/"):
            stream.send(give)
        else:
            stream.send(raw.answer(give, fields={"content-type": "application/ocsp-response"}))
