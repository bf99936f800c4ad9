"""The example configurations are right, and the quickstart's does what its text says."""
import re

import pytest

from kit import free_port
from kit.raw import answer, fetch
from kit.weir import MODULES, TOP

EXAMPLES = sorted((TOP / "conf").glob("*.conf"))


def prepared(w, ca, text):
    """The example with certificates of our own; user weir need not exist here."""
    (w.dir / "certs").mkdir(exist_ok=True)
    for path in set(re.findall(r"certs/(\S+?)\.pem key=", text)):
        cert, key = ca.cert("localhost", "127.0.0.1")
        for source, kind in ((cert, "pem"), (key, "key")):
            (w.dir / "certs" / f"{path}.{kind}").write_bytes(open(source, "rb").read())
    (w.dir / "certs" / "ca.pem").write_bytes(ca.cert_file.read_bytes())
    text = re.sub(r"(?m)^user weir;", "user nobody;", text)
    return f"module_path {MODULES}; " + text.replace("/var/log/weir/", f"{w.dir}/")


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.stem for e in EXAMPLES])
def test_example_is_right(weir, ca, example):
    w = weir("", start=False)
    w.conf.write_text(prepared(w, ca, example.read_text()))
    done = w.command("-t")
    assert done.returncode == 0, done.stderr


def test_there_are_examples():
    assert {"quickstart", "minimal", "weir"} <= {e.stem for e in EXAMPLES}


def test_quickstart(weir, server, ca):
    text = (TOP / "conf" / "quickstart.conf").read_text()
    w = weir("", start=False)
    text = prepared(w, ca, text)
    services = [server(lambda q: answer(q.target.encode())) for _ in range(3)]
    for given, service in zip(("9101", "9102", "9103"), services):
        text = text.replace(f"127.0.0.1:{given}", str(service))
    for given, name in (("8080", "http"), ("8443", "https"), ("9901", "admin")):
        w.values[name] = free_port()
        text = text.replace(f"127.0.0.1:{given}", f"127.0.0.1:{w.values[name]}")
    w.conf.write_text(text)
    w.start()
    tls = {"tls": ca.client(), "host": "localhost"}
    assert fetch(w.https, "/", **tls).body == b"weir is running\n"
    assert fetch(w.https, "/hello/world", **tls).body == b"hello world, this is localhost over https\n"
    r = fetch(w.https, "/users/42/pets", **tls)
    assert (r.body, r.get("x-served-by")) == (b"/internal/users/42/pets", "weir")
    assert "server" not in r
    assert [q.get("x-user-id") for s in services[:2] for q in s.requests if q.target != "/healthz"] == ["42"]
    assert fetch(w.http, "/old/7", host="localhost").get("location") == "https://localhost:8443/users/7"
    seen = [fetch(w.https, "/orders", **tls).status for _ in range(8)]
    assert seen.count(200) in (5, 6, 7) and seen[-1] == 429
