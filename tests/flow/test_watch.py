"""Certificates and their like that change while weir runs: a reload of its own, and nothing lost."""
import os
import shutil
import ssl
import time
from pathlib import Path

import pytest

from kit import SLOW, raw, until
from kit.certs import openssl
from kit.raw import fetch, request

NAME = "weir_certificate_reloads_total"
BODY = 'host * { route / { respond 200 "hi"; } }'
LISTEN = "listen 127.0.0.1:@https@ tls {{ certificate {}/c.pem key={}/c.key; {} }} "
LONG_ENOUGH = 2.5  # for a change to be taken, were it one


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def put(cert, folder):
    """As an installer does: each written under another name, then renamed into its place."""
    for source, name in zip(cert, ("c.pem", "c.key")):
        new = Path(folder) / (name + ".new")
        shutil.copy(source, new)
        os.rename(new, Path(folder) / name)


def shown(port, ca):
    """The names in the certificate that a new client sees."""
    ctx = ca.client(verify=False)
    ctx.verify_mode = ssl.CERT_REQUIRED
    with raw.client(port, tls=ctx) as c:
        return [v for k, v in c.sock.getpeercert()["subjectAltName"]]


def wait_shown(w, ca, name, seconds=15):
    until(lambda: shown(w.https, ca) == [name], lambda: f"{name} to be served; the log:\n{w.log()}", seconds)


def result(w, ok, count):
    until(lambda: w.metric(NAME, result="ok" if ok else "failed") == count,
          lambda: f"{count} {ok}; the log:\n{w.log()}", 15)


@pytest.mark.parametrize("workers", [1, 2])
def test_renewed_by_rename(weir, connect, ca, folder, workers):
    """Nobody sends a signal, and no connection ends."""
    put(ca.cert("one.test"), folder)
    w = weir(f"workers {workers}; " + LISTEN.format(folder, folder, "") + BODY)
    c = connect(w.https, tls=ca.client(verify=False))
    assert c.send(request()).response().status == 200
    put(ca.cert("two.test"), folder)
    wait_shown(w, ca, "two.test")
    assert c.send(request()).response().status == 200, "the connection went on"
    result(w, True, 1)
    assert w.metric("weir_reloads_total", result="ok") == 1
    w.wait_log(r"\[certificates\] \S+/c\.pem has changed")
    w.wait_log(r"\[certificates\] \S+/c\.key has changed")


def test_in_place(weir, ca, folder):
    put(ca.cert("one.test"), folder)
    w = weir(LISTEN.format(folder, folder, "") + BODY)
    for source, name in zip(ca.cert("two.test"), ("c.key", "c.pem")):
        (folder / ("c.pem" if name == "c.key" else "c.key")).write_bytes(Path(source).read_bytes())
    wait_shown(w, ca, "two.test")


def test_as_certbot_does(weir, ca, folder):
    """A link to a file in another folder, put in the place of the old one."""
    (folder / "archive").mkdir()
    (folder / "live").mkdir()

    def issue(n, name):
        for source, kind in zip(ca.cert(name), ("pem", "key")):
            shutil.copy(source, folder / f"archive/c{n}.{kind}")
            link = folder / f"live/c.{kind}"
            link.unlink(missing_ok=True)
            link.symlink_to(f"../archive/c{n}.{kind}")

    issue(1, "one.test")
    w = weir(LISTEN.format(folder / "live", folder / "live", "") + BODY)
    issue(2, "two.test")
    wait_shown(w, ca, "two.test")
    issue(3, "three.test")
    wait_shown(w, ca, "three.test")
    shutil.copy(ca.cert("x.test")[0], folder / "archive/unrelated.pem")
    for source, kind in zip(ca.cert("four.test"), ("pem", "key")):  # within the folder that the link leads to
        shutil.copy(source, folder / f"archive/c3.{kind}")
    wait_shown(w, ca, "four.test")


def test_as_kubernetes_does(weir, ca, folder):
    """All files of a mounted secret change at once, by the swap of one link to a folder."""
    def publish(n, name):
        (folder / f"..v{n}").mkdir()
        put(ca.cert(name), folder / f"..v{n}")
        tmp = folder / "..data_tmp"
        tmp.symlink_to(f"..v{n}")
        os.rename(tmp, folder / "..data")
        if n > 1:
            shutil.rmtree(folder / f"..v{n - 1}")

    publish(1, "one.test")
    for name in ("c.pem", "c.key"):
        (folder / name).symlink_to(f"..data/{name}")
    w = weir(LISTEN.format(folder, folder, "") + BODY)
    for n, name in ((2, "two.test"), (3, "three.test")):
        publish(n, name)
        wait_shown(w, ca, name)
    result(w, True, 2)


def test_the_folder_itself_is_replaced(weir, ca, folder):
    live, new, old = folder / "live", folder / "new", folder / "old"
    live.mkdir()
    put(ca.cert("one.test"), live)
    w = weir(LISTEN.format(live, live, "") + BODY)
    new.mkdir()
    put(ca.cert("two.test"), new)
    os.rename(live, old)
    os.rename(new, live)
    wait_shown(w, ca, "two.test")
    put(ca.cert("three.test"), live)
    wait_shown(w, ca, "three.test")


def test_a_broken_key(weir, ca, folder):
    """Refused by name and reason, the old one served; then a good one is taken."""
    put(ca.cert("one.test"), folder)
    w = weir(LISTEN.format(folder, folder, "") + BODY)
    good = ca.cert("two.test")
    put((good[0], ca.cert("other.test")[1]), folder)
    result(w, False, 1)
    w.wait_log(r"weir\.conf:2:\d+: \S+/c\.key: the key does not belong to the certificate in \S+/c\.pem")
    w.wait_log(r"\[certificates\] what changed does not hold")
    assert shown(w.https, ca) == ["one.test"]
    (folder / "c.key").write_text("nonsense")
    result(w, False, 2)
    (folder / "c.key").unlink()
    result(w, False, 3)
    assert shown(w.https, ca) == ["one.test"]
    time.sleep(LONG_ENOUGH * SLOW)
    assert w.metric(NAME, result="failed") == 3, "what was refused is not tried again and again"
    put(good, folder)
    wait_shown(w, ca, "two.test")
    result(w, True, 1)


def test_what_did_not_change(weir, ca, folder):
    """Neither a touched file, nor the same content, nor another file of the folder reloads."""
    cert = ca.cert("one.test")
    put(cert, folder)
    w = weir(LISTEN.format(folder, folder, "") + BODY)
    put(cert, folder)
    os.utime(folder / "c.pem")
    (folder / "unrelated").write_text("x")
    w.reload()
    put(cert, folder)
    time.sleep(LONG_ENOUGH * SLOW)
    assert w.metric(NAME) == 0 and w.metric("weir_reloads_total") == 1
    put(ca.cert("two.test"), folder)
    w.reload()  # whoever reloads first has taken it
    time.sleep(LONG_ENOUGH * SLOW)
    assert shown(w.https, ca) == ["two.test"]
    assert w.metric(NAME) == 0 and w.metric("weir_reloads_total") == 2


def test_a_change_during_a_reload(weir, ca, folder):
    """What comes at any moment of a reload is served in the end."""
    put(ca.cert("n0.test"), folder)
    w = weir(LISTEN.format(folder, folder, "") + BODY)
    certs = [ca.cert(f"n{i}.test") for i in range(1, 9)]
    for cert in certs:
        put(cert, folder)
        w.send(1)  # HUP
        time.sleep(0.03 * SLOW)
    wait_shown(w, ca, "n8.test")
    w.send(1)
    put(certs[2], folder)
    wait_shown(w, ca, "n3.test")


@pytest.mark.parametrize("delay", [0, 0.03, 0.06, 0.1, 0.15, 0.2])
def test_a_change_while_it_starts(weir, ca, folder, delay):
    """Between the reading of the files and the beginning of the watch nothing is lost either."""
    cert = ca.cert("one.test")
    put(cert, folder)
    two = folder / "two.pem"
    (folder / "ext").write_text("subjectAltName=DNS:two.test\n")
    openssl("x509", "-req", "-in", cert[0].replace(".pem", ".csr"), "-CA", ca.cert_file, "-CAkey", ca.key_file,
            "-CAcreateserial", "-days", 30, "-extfile", folder / "ext", "-out", two)
    w = weir(LISTEN.format(folder, folder, "") + BODY, start=False)
    w.spawn()
    time.sleep(delay * SLOW)
    os.rename(two, folder / "c.pem")
    until(w._ready, "weir to be ready", 10)
    wait_shown(w, ca, "two.test")


@pytest.mark.parametrize("what", ["ca", "crl", "host", "upstream"])
def test_everything_that_is_renewed(weir, server, ca, folder, what):
    """CAs, revocation lists, hosts' certificates, and those for servers."""
    from test_client_certificate import REFUSED, Revoking

    put(ca.cert("one.test"), folder)
    other = Revoking("other")
    (folder / "ca.pem").write_bytes(Path(ca.cert_file).read_bytes())
    mine = other.cert("me.test", client=True)
    if what in ("ca", "crl"):
        if what == "crl":
            (folder / "ca.pem").write_bytes(other.cert_file.read_bytes())
            (folder / "list.pem").write_bytes(other.crl().read_bytes())
        more = f"client_certificate required ca={folder}/ca.pem" + (f" crl={folder}/list.pem;" if what == "crl" else ";")
        w = weir(LISTEN.format(folder, folder, more) + BODY)

        def let_in():
            try:
                return fetch(w.https, tls=ca.client(mine, verify=False)).status == 200
            except REFUSED:
                return False

        assert let_in() is (what == "crl")
        new, source = (("list.pem", other.crl(mine)) if what == "crl" else ("ca.pem", other.cert_file))
        shutil.copy(source, folder / "tmp")
        os.rename(folder / "tmp", folder / new)
        until(lambda: let_in() is (what == "ca"), lambda: f"the new {what}:\n{w.log()}", 15)
    elif what == "host":
        default = ca.cert("default.test")
        w = weir(f"listen 127.0.0.1:@https@ tls {{ certificate {default[0]} key={default[1]}; }} "
                 f"host a.test {{ tls {{ certificate {folder}/c.pem key={folder}/c.key; }} route / {{ respond 204; }} }}")
        assert shown(w.https, ca) == ["one.test"]
        put(ca.cert("two.test"), folder)
        wait_shown(w, ca, "two.test")
    else:
        s = server(tls=other.server(other.cert("s.test")))
        w = weir(f"listen 127.0.0.1:@http@; upstream u {{ server @backend@; tls ca={folder}/ca.pem name=s.test; eject off; }} "
                 "host * { route / { proxy u; } }", backend=s)
        assert fetch(w.http).status == 502
        shutil.copy(other.cert_file, folder / "ca.pem")
        until(lambda: fetch(w.http).status == 200, lambda: f"the new CA:\n{w.log()}", 15)


def test_off(weir, ca, folder):
    put(ca.cert("one.test"), folder)
    w = weir("watch_certificates off; " + LISTEN.format(folder, folder, "") + BODY)
    put(ca.cert("two.test"), folder)
    time.sleep(LONG_ENOUGH * SLOW)
    assert shown(w.https, ca) == ["one.test"] and w.metric("weir_reloads_total") == 0
    w.reload(LISTEN.format(folder, folder, "") + BODY)
    put(ca.cert("three.test"), folder)
    wait_shown(w, ca, "three.test")


def test_a_drain_is_not_ended(weir, ca, folder):
    """By a change: only who asked for the drain ends it."""
    put(ca.cert("one.test"), folder)
    w = weir(LISTEN.format(folder, folder, "") + BODY)
    w.command("-s", "drain", check=True)
    put(ca.cert("two.test"), folder)
    time.sleep(LONG_ENOUGH * SLOW)
    assert w.get("/readyz").status == 503 and w.metric("weir_reloads_total") == 0
    w.reload()
    wait_shown(w, ca, "two.test")
