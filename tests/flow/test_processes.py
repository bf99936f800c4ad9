"""Master, checker and workers: roles, privileges, deaths."""
import os
import pwd
import signal
import socket
import threading
import time

import pytest

from kit import SLOW, until
from kit.raw import client, fetch, request

CONF = """
%s
listen 127.0.0.1:@http@;
upstream u { server @backend@; }
host * { route /local { respond 200 local; } route / { proxy u; } }
"""


def status_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers(weir, server, workers):
    w = weir(CONF % f"workers {workers}; threads 2;", backend=server())
    until(lambda: len(w.children()) == workers, f"{workers} children")
    for pid in w.children():
        assert len(os.listdir(f"/proc/{pid}/task")) >= 3
    assert (w.dir / "weir.pid").read_text().strip() == str(w.process.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_privileges_are_dropped(weir, server):
    w = weir(CONF % "user nobody;", backend=server())
    nobody = pwd.getpwnam("nobody")
    for pid in w.children():
        s = status_of(pid)
        assert set(s["Uid"].split()) == {str(nobody.pw_uid)}
        assert set(s["Gid"].split()) == {str(nobody.pw_gid)}
        assert s.get("Groups", "").split() in ([], [str(nobody.pw_gid)])
        for caps in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(s[caps], 16) == 0, caps
        assert s["NoNewPrivs"] == "1"
    assert fetch(w.http).status == 200
    w.reload()
    assert fetch(w.http).status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to start as another user")
def test_unprivileged_start(weir, server):
    w = weir(CONF % "module headers;", backend=server(), user="nobody")
    assert fetch(w.http).status == 200
    assert w.reload().returncode == 0
    assert fetch(w.http).status == 200


@pytest.mark.alone
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_worker_serves_again(weir, server, number):
    """Within 200 ms, and no connection is refused meanwhile."""
    w = weir(CONF % "", backend=server())
    w.deaths_expected = True
    assert fetch(w.http, "/local").status == 200
    old = w.worker()
    refused, stop = [], threading.Event()

    def knock():
        while not stop.is_set():
            try:
                socket.create_connection(("127.0.0.1", w.http), 2).close()
            except ConnectionRefusedError as e:
                refused.append(e)

    t = threading.Thread(target=knock)
    t.start()
    os.kill(old, number)
    started = time.monotonic()
    with client(w.http) as c:
        served = time.monotonic()
        try:
            assert c.send(request(target="/local")).response().status == 200
            served = time.monotonic()
        except (EOFError, ConnectionError):
            # It was accepted by the one that died; the next one must not be.
            while fetch(w.http, "/local").status != 200:
                pass
            served = time.monotonic()
    stop.set()
    t.join(5 * SLOW)
    assert served - started < 0.2 * SLOW
    assert not refused
    until(lambda: old not in w.children(), "the old one to be gone")
    w.wait_deaths(1)
    assert w.wait_log(r"worker.*")


def test_counters_survive_a_death(weir, server):
    w = weir(CONF % "", backend=server())
    w.deaths_expected = True
    for _ in range(5):
        fetch(w.http)
    w.wait_metric("weir_requests_total", 5)
    os.kill(w.worker(), signal.SIGKILL)
    w.wait_deaths(1)
    assert fetch(w.http).status == 200
    w.wait_metric("weir_requests_total", 6)
    w.wait_metric("weir_requests", 0)


def test_one_of_two_workers_dies(weir, server, connect):
    """The connections of the other are not touched."""
    w = weir(CONF % "workers 2;", backend=server())
    w.deaths_expected = True
    clients = [connect(w.http) for _ in range(16)]
    for c in clients:
        assert c.send(request()).response().status == 200
    os.kill(w.worker(), signal.SIGKILL)
    until(lambda: len(w.children()) == 2 and w.metric("weir_worker_deaths_total") == 1, "a new worker")
    alive = 0
    for c in clients:
        try:
            alive += c.send(request()).response().status == 200
        except (EOFError, ConnectionError):
            pass
    assert 1 <= alive < 16
    assert fetch(w.http).status == 200


def test_many_deaths_are_paced(weir, server):
    w = weir(CONF % "", backend=server())
    w.deaths_expected = True
    for n in range(1, 6):
        os.kill(w.worker(), signal.SIGKILL)
        w.wait_deaths(n)
        until(lambda: serves(w), "weir to serve", 15)


def serves(w):
    try:
        return fetch(w.http, "/local").status == 200
    except (OSError, EOFError):
        return False


def test_a_death_then_a_reload(weir, server):
    w = weir(CONF % "", backend=server())
    w.deaths_expected = True
    w.reload((CONF % "").replace("local;", "reloaded;"))
    os.kill(w.worker(), signal.SIGKILL)
    until(lambda: serves(w), "weir to serve")
    assert fetch(w.http, "/local").body == b"reloaded"
    w.reload((CONF % "").replace("local;", "again;"))
    assert fetch(w.http, "/local").body == b"again"


def test_a_dead_master_leaves_no_worker(weir, server):
    w = weir(CONF % "", backend=server())
    pids = w.children()
    w.process.kill()
    w.process.wait()
    w.process = None
    until(lambda: not any(os.path.exists(f"/proc/{p}") and status_of(p)["State"][0] != "Z"
                          for p in pids), "the workers to end")


def test_notify(weir, server):
    """What systemd is told."""
    path = f"/tmp/wf-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(path)
        os.chmod(path, 0o777)
        s.settimeout(10)
        try:
            w = weir(CONF % "", backend=server(), env={"NOTIFY_SOCKET": path})
            said = s.recv(4096).decode()
            assert "READY=1" in said
            w.reload()
            said = ""
            while "READY=1" not in said:
                said += s.recv(4096).decode() + "\n"
            assert "RELOADING=1" in said and "MONOTONIC_USEC=" in said
            w.stop()
            said = s.recv(4096).decode()
            while "STOPPING=1" not in said:
                said = s.recv(4096).decode()
        finally:
            os.unlink(path)


def test_all_loops_take_connections(weir, server, connect):
    w = weir(CONF % "threads 2;", backend=server())
    clients = [connect(w.http) for _ in range(40)]
    for c in clients:
        assert c.send(request()).response().status == 200


def test_an_address_in_use_is_an_error_at_start(weir, server):
    w = weir((CONF % "").replace("127.0.0.1:@http@", "@backend@"), backend=server(), start=False)
    process = w.spawn()
    assert process.wait(10 * SLOW) == 1
    assert w.values["backend"].address in w.log()
    w.process = None


def test_detached(weir, server):
    import subprocess

    from kit.weir import BINARY

    w = weir(CONF % "", backend=server(), start=False)
    subprocess.run([str(BINARY), "-c", str(w.conf), "-d"], timeout=10 * SLOW, check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: serves(w), "weir to serve")
    assert w.command("-s", "quit").returncode == 0
    until(lambda: not serves(w), "weir to end")
