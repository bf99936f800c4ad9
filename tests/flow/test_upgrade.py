"""A new binary takes over; sockets come from a service manager; what kills workers is put aside."""
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

from kit import SLOW, need, until
from kit.certs import openssl
from kit.ocsp import Responder, response
from kit.raw import fetch, request
from kit.weir import BINARY, TOP

CONF = """
%s
listen 127.0.0.1:@http@;
upstream u { server @backend@; }
host * { route /local { respond 200 "@word@"; } route / { proxy u; } }
"""


# What a service manager does between fork and exec.
HAND_OVER = """if True:
    import os, sys
    os.dup2(int(sys.argv[1]), 3)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
    os.execv(sys.argv[2], sys.argv[2:])
"""


def pid_of(w):
    text = (w.dir / "weir.pid").read_text().strip()
    return int(text) if text else 0


def end_new(w):
    """After an upgrade the kit's process is the old one; the new one is told by its socket."""
    pid = pid_of(w)
    assert w.command("-s", "stop").returncode == 0
    until(lambda: not os.path.exists(f"/proc/{pid}"), "the new one to end")
    w.process = None
    w.judge()


def test_upgrade_refuses_and_cuts_nothing(weir, server, connect):
    w = weir(CONF % "threads 2;", backend=server(), word="word")
    kept = connect(w.http)
    assert kept.send(request()).response().status == 200
    failed, stop = [], threading.Event()

    def knock():
        while not stop.is_set():
            try:
                assert fetch(w.http, "/local").status == 200
            except Exception as e:
                failed.append(e)

    t = threading.Thread(target=knock)
    t.start()
    old = w.process.pid
    w.send(signal.SIGUSR2)
    until(lambda: pid_of(w) not in (0, old), "the new one's pid")
    # The old one drains: an idle connection is closed, and then it ends.
    assert w.process.wait(10 * SLOW) == 0
    stop.set()
    t.join(5 * SLOW)
    assert not failed
    assert fetch(w.http, "/local").body == b"word"
    w.reload((CONF % "threads 2;").replace("@word@", "after"))
    assert fetch(w.http, "/local").body == b"after"
    end_new(w)


def test_a_failed_upgrade_changes_nothing(weir, server, connect):
    w = weir(CONF % "", backend=server(), word="word")
    kept = connect(w.http)
    assert kept.send(request()).response().status == 200
    old = w.process.pid
    w.configure("listen nonsense;")
    w.send(signal.SIGUSR2)
    w.wait_log("upgrade: the new one ended with status 1")
    assert pid_of(w) == old
    assert kept.send(request()).response().status == 200
    assert fetch(w.http, "/local").status == 200
    w.reload(CONF % "")
    w.send(signal.SIGUSR2)
    assert w.process.wait(10 * SLOW) == 0
    assert pid_of(w) != old
    end_new(w)


def test_sockets_from_systemd(weir, server):
    """LISTEN_FDS: the address is taken from the given socket, which is not bound again."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(64)
        w = weir(CONF % "threads 2;", backend=server(), word="word", http=s.getsockname()[1], start=False)
        with open(w.log_path, "ab") as log:
            w.process = subprocess.Popen(
                [sys.executable, "-c", HAND_OVER, str(s.fileno()), str(BINARY), "-c", str(w.conf)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[s.fileno()],
                env=w.environment(), cwd=w.dir)
        until(w._ready, lambda: f"weir to be ready:\n{w.log()}", 10)
    for _ in range(8):
        assert fetch(w.http, "/local").body == b"word"
    w.reload()
    assert fetch(w.http, "/local").body == b"word"


def crasher(w, crashes):
    cc = need("cc")
    source = w.file("crasher.c", """
        #include <weir/module.h>
        static weir_rc on_request(weir_req *r, const void *i, void *c)
        { (void)i; (void)c; if (%d) __builtin_trap(); return weir->respond(r, 200, WEIR_STR("ok")); }
        WEIR_MODULE(.name = "crasher", .version = "1.0", .on_request = on_request);
        """ % crashes)
    made = w.dir / "made.so"
    subprocess.run([cc, "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden", f"-I{TOP}/src/include",
                    "-o", made, source], check=True)
    shutil.copy(made, w.dir / "crasher.so.new")
    (w.dir / "crasher.so.new").rename(w.dir / "crasher.so")


CRASHING = ("workers @workers@; module crasher @dir@/crasher.so; listen 127.0.0.1:@http@; "
            "upstream u { server @backend@; } "
            "host * { route /bad { function crasher; proxy u; } route / { proxy u; } }")


def status(w, target):
    try:
        return fetch(w.http, target).status
    except (OSError, EOFError):
        return None


def test_quarantine(weir, server):
    """Three deaths in a function within a minute: its uses answer 503, everything else goes on."""
    w = weir(CRASHING, backend=server(), workers="1", start=False)
    crasher(w, 1)
    w.start()

    w.crash("/bad", 3)
    assert w.metric("weir_function_strikes_total", module="crasher") == 3
    w.wait_log("crasher .*quarantined")
    assert status(w, "/bad") == 503
    assert status(w, "/") == 200
    assert w.metric("weir_worker_deaths_total") == 3
    # The same content stays where it is; another one starts anew.
    w.reload()
    assert status(w, "/bad") == 503
    crasher(w, 0)
    w.reload()
    assert fetch(w.http, "/bad").body == b"ok"


@pytest.mark.parametrize("workers", [1, 2])
def test_the_version_before_a_quarantined_one_comes_back(weir, server, workers):
    w = weir(CRASHING, backend=server(), workers=str(workers), start=False)
    crasher(w, 0)
    w.start()
    assert fetch(w.http, "/bad").body == b"ok"
    crasher(w, 1)
    w.reload()
    w.reload()  # changes nothing, and what came before stays known
    w.crash("/bad", 3)
    w.wait_log("crasher .*quarantined")
    w.wait_log("module crasher: the version before it .* comes back")
    w.wait_log("configuration 4 is in force")  # in the other worker too, which had the bad one
    until(lambda: status(w, "/bad") == 200, "the version before to serve")
    for _ in range(20):
        assert fetch(w.http, "/bad").body == b"ok"
    assert w.metric("weir_worker_deaths_total") == 3
    # Whoever asks for what is on disk gets it, and it counts anew.
    w.reload()
    w.crash("/bad")


def test_a_quarantine_holds_for_all_workers(weir, server):
    w = weir(CRASHING, backend=server(), workers="2", start=False)
    crasher(w, 1)
    w.start()
    w.crash("/bad", 3)
    w.wait_log("in force after .*: the same, built again")
    assert {status(w, "/bad") for _ in range(20)} == {503}
    w.wait_log(r"function crasher .*\] on_request is not called: the module is quarantined")
    assert w.metric("weir_worker_deaths_total") == 3


@pytest.mark.parametrize("before", [False, True], ids=["built again", "put back"])
def test_a_quarantine_leaves_a_drain_alone(weir, server, before):
    """What a quarantine brings about, elsewhere and in place of the version, is a reload; and that would end it."""
    w = weir("drain_delay 600s; " + CRASHING, backend=server(), workers="2", start=False)
    crasher(w, not before)
    w.start()
    if before:
        crasher(w, 1)
        w.reload()
    number = 2 if before else 1
    drain = subprocess.Popen([w.binary, "-c", w.conf, "-s", "drain"], stderr=subprocess.PIPE, text=True)
    try:
        w.wait_log("draining")
        until(lambda: w.get("/readyz").status == 503, "the drain to be announced")
        w.crash("/bad", 3)
        w.wait_log("crasher .*quarantined")
        until(lambda: f"configuration {number}\nworkers 2 of 2" in w.command("-s", "status").stdout, "both workers")
        assert "\ndraining\n" in w.command("-s", "status").stdout
        assert w.get("/readyz").status == 503
        # The next number, so there was none between; and then the quarantine holds everywhere.
        w.reload(CRASHING)
        w.wait_log(f"configuration {number + 1} is in force")
        until(lambda: w.get("/readyz").status == 200, "the drain to end")
        assert {status(w, "/bad") for _ in range(20)} == {503}
        assert not re.search("built again|comes back", w.log())
        # The listeners were never closed, which that command waited for.
        assert "a reload has ended the drain" in drain.communicate(timeout=10 * SLOW)[1]
        assert drain.returncode == 1
    finally:
        drain.kill()
        drain.wait()


def test_nothing_else_goes_back_with_a_quarantined_version(weir, server):
    w = weir(CRASHING, backend=server(), workers="1", start=False)
    crasher(w, 0)
    w.start()
    crasher(w, 1)
    w.reload(CRASHING + " # changed")
    w.crash("/bad", 3)
    w.wait_log("crasher .*quarantined")
    assert status(w, "/bad") == 503  # its policy serves
    assert not re.search("comes back", w.log())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes copies")
def test_copies_of_modules_come_and_go(weir, server):
    """A named private copy while a module is in use, none after the end."""
    conf = ("module crasher @dir@/crasher.so; listen 127.0.0.1:@http@; upstream u { server @backend@; } "
            "host * { route / { function crasher; proxy u; } } # %d")
    w = weir(conf % 0, backend=server(), start=False)
    crasher(w, 0)
    w.start()

    def copies():
        maps = open(f"/proc/{w.worker()}/maps").read()
        return {line.split()[-1] for line in maps.splitlines() if "/crasher." in line}

    (first,) = copies()
    assert str(w.process.pid) in first
    if not first.startswith("/memfd"):
        assert os.stat(first).st_mode & 0o777 == 0o440
    w.reload(conf % 1)
    assert copies() == {first}
    # Another content: a copy of its own, and the first goes with the generation that used it.
    source = (w.dir / "crasher.c").read_text().replace('"1.0"', '"1.1"')
    (w.dir / "crasher.c").write_text(source)
    subprocess.run([need("cc"), "-std=c11", "-fPIC", "-shared", "-fvisibility=hidden",
                    f"-I{TOP}/src/include", "-o", w.dir / "made.so", w.dir / "crasher.c"], check=True)
    (w.dir / "made.so").rename(w.dir / "crasher.so")
    w.reload(conf % 2)
    until(lambda: first not in copies() and len(copies()) == 1, "the first copy to be unmapped")
    until(lambda: not os.path.exists(first), "its file to be gone")
    (second,) = copies()
    w.stop()
    assert not os.path.exists(second)


def test_tickets_outlive_an_upgrade(weir, ca, connect):
    cert = ca.cert("a.test")
    w = weir(f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; }} "
             "host * { route / { respond 200; } }")
    context = ca.client()
    first = connect(w.https, tls=context)
    assert first.send(request()).response().status == 200
    session = first.sock.session
    w.send(signal.SIGUSR2)
    assert w.process.wait(10 * SLOW) == 0
    with socket.create_connection(("127.0.0.1", w.https), 5) as plain:
        with context.wrap_socket(plain, server_hostname="a.test", session=session) as s:
            assert s.session_reused
    end_new(w)


def test_staples_outlive_an_upgrade(weir, ca):
    """The first handshake with the new one has a response, though the responder has gone meanwhile."""
    r = Responder()
    cert, key = ca.cert("a.test", chain=True, more=f"authorityInfoAccess=OCSP;URI:{r.url}")
    r.give = response(ca, cert)
    w = weir(f"listen 127.0.0.1:@https@ tls {{ certificate {cert} key={key} ocsp=fetch; }} "
             "host * { route / { respond 200; } }")

    def is_good():
        return b"Cert Status: good" in openssl("s_client", "-connect", f"127.0.0.1:{w.https}", "-servername", "a.test",
                                               "-status", input=b"Q\n", timeout=20)

    until(is_good, "the staple")
    r.close()
    w.send(signal.SIGUSR2)
    assert w.process.wait(20) == 0
    good = is_good()
    end_new(w)
    assert good and not r.errors, r.errors
