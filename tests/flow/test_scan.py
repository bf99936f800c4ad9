"""testssl.sh against the default configuration."""
import json
import subprocess

from kit import HOST, need

# What the service behind weir says, not weir.
OF_THE_SERVICE = " ".join(f'set response {name} "{value}";' for name, value in {
    "Strict-Transport-Security": "max-age=31536000", "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY", "Content-Security-Policy": "default-src",
}.items())
CONF = """
    module headers; listen 127.0.0.1:@https@ tls { certificate %s key=%s; }
    host * { function headers { %s } route / { respond 200 hello; } }"""


def test_no_finding_above_low(weir, ca):
    revocation = "crlDistributionPoints=URI:http://crl.test/ca.crl\nauthorityInfoAccess=OCSP;URI:http://ocsp.test/"
    pair = ca.cert("localhost", days=200, more=revocation)
    w = weir(CONF % (*pair, OF_THE_SERVICE))
    out = ca.dir / "scan.json"
    done = subprocess.run([need("testssl"), "--jsonfile", str(out), "--add-ca", str(ca.cert_file), "--quiet",
                           "--color", "0", "--nodns", "none", "--ip", HOST, "--warnings", "off",
                           f"https://localhost:{w.https}"], capture_output=True, text=True, timeout=500)
    found = json.loads(out.read_text())
    assert len(found) > 100, done.stdout + done.stderr
    bad = [(f["severity"], f["id"], f["finding"]) for f in found
           if f["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")]
    assert not bad, done.stdout
    assert {"TLS1_2", "TLS1_3", "ALPN_HTTP2"} <= {f["id"] for f in found if f["severity"] == "OK"}
