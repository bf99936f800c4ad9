"""The example configurations are right, and the quickstart's does what its text says."""
import os
import re
import secrets
import signal
import socket
import ssl
import threading
import time

import pytest

from kit import HOST, SLOW, free_port, until
from kit.raw import answer, fetch
from kit.weir import MODULES, TOP

EXAMPLES = sorted(e for e in (TOP / "conf").glob("*.conf")
                  if e.stem != "lua" or (MODULES / "lua.so").exists())  # configure --without-lua


def prepared(w, ca, text):
    """The example with certificates of our own; user weir need not exist here."""
    (w.dir / "certs").mkdir(exist_ok=True)
    for path in set(re.findall(r"certs/(\S+?)\.pem key=", text)):
        cert, key = ca.cert("localhost", "127.0.0.1")
        for source, kind in ((cert, "pem"), (key, "key")):
            (w.dir / "certs" / f"{path}.{kind}").write_bytes(open(source, "rb").read())
    (w.dir / "certs" / "ca.pem").write_bytes(ca.cert_file.read_bytes())
    w.file("htpasswd", "alice:$6$saltsalt$" + "x" * 86)  # whoever can say what this is of may come in
    w.file("jwks.json", '{"keys":[{"kty":"oct","k":"%s"}]}' % secrets.token_urlsafe(48))
    text = re.sub(r"(?m)^user weir;", "user nobody;", text)
    return f"module_path {MODULES}; " + text.replace("/var/log/weir/", f"{w.dir}/")


@pytest.mark.parametrize("example", EXAMPLES, ids=[e.stem for e in EXAMPLES])
def test_example_is_right(weir, ca, example):
    w = weir("", start=False)
    w.conf.write_text(prepared(w, ca, example.read_text()))
    done = w.command("-t")
    assert done.returncode == 0, done.stderr
    assert " error [" not in done.stderr, "a check that passes is quiet"


def test_there_are_examples():
    assert {"quickstart", "minimal", "weir"} <= {e.stem for e in EXAMPLES}


def quickstart(weir, server, ca):
    """weir with conf/quickstart.conf, but for ports; and its three services."""
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
    return w, services


def test_quickstart(weir, server, ca):
    w, services = quickstart(weir, server, ca)
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


def serves(w, https, **how):
    try:
        return fetch(w.https if https else w.http, "/", **how).status == 200
    except (EOFError, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        return False  # it was accepted by the one that died


def knock(port, refused, stop):
    while not stop.is_set():
        try:
            socket.create_connection((HOST, port), 2).close()
        except ConnectionResetError:
            pass  # accepted, and its worker died before we looked
        except ConnectionRefusedError as e:
            refused.append(e)


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_quickstart_worker_is_killed(weir, server, ca, number):
    """The next one serves within 200 ms, over TLS and in plain, and no connection is refused."""
    w, _ = quickstart(weir, server, ca)
    w.deaths_expected = True
    how = {"tls": ca.client(), "host": "localhost"}
    assert serves(w, True, **how)
    old, refused, stop = w.worker(), [], threading.Event()
    knockers = [threading.Thread(target=knock, args=(port, refused, stop)) for port in (w.http, w.https)]
    for k in knockers:
        k.start()
    os.kill(old, number)
    killed = time.monotonic()
    while not serves(w, True, **how):
        assert time.monotonic() - killed < 5 * SLOW
    took = time.monotonic() - killed
    assert serves(w, False, host="localhost")
    until(lambda: w.metric("weir_worker_deaths_total") == 1, lambda: f"the death of {old}, now {w.children()}:\n{w.log()}")
    stop.set()
    for k in knockers:
        k.join(5 * SLOW)
    until(lambda: old not in w.children(), "the dead one to be gone")
    assert not refused
    print(f"served {1000 * took:.0f} ms after the signal")
    assert took < 0.2 * SLOW
