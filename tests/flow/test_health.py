"""Servers that fail are taken out, and come back by themselves."""
import pytest

from kit import until
from kit.raw import answer, fetch


class Sick:
    """Answers /health by .status and everything else with its name."""

    def __init__(self, name, status="200 OK"):
        self.name, self.status = name.encode(), status

    def __call__(self, q):
        if q.target == "/health":
            return answer(b"", self.status)
        return answer(self.name)


CHECK = ("listen 127.0.0.1:@http@; upstream u { server @a@; server @b@; "
         "health_check path=/health interval=50ms timeout=500ms fall=2 rise=2 %s; } "
         "host * { route / { proxy u; } }")


def up(w, s):
    """What the metric says; None as long as it says nothing."""
    values = [v for n, l, v in w.metrics() if n == "weir_server_up" and l["server"] == str(s)]
    return bool(values[0]) if values else None


def down(w, s):
    return up(w, s) is False


def test_fall_and_rise(weir, server):
    a, b = Sick("a"), Sick("b")
    sa, sb = server(a), server(b)
    w = weir(CHECK % "", a=sa, b=sb)
    assert {fetch(w.http).body for _ in range(4)} == {b"a", b"b"}
    a.status = "500 Broken"
    until(lambda: down(w, sa), "server a to be down")
    assert {fetch(w.http).body for _ in range(4)} == {b"b"}
    w.wait_log(str(sa) + r".* down")
    a.status = "204 No Content"
    until(lambda: up(w, sa), "server a to be up again")
    assert {fetch(w.http).body for _ in range(4)} == {b"a", b"b"}
    q = next(q for q in sb.requests if q.target == "/health")
    assert q.method == "GET" and "host" in q


@pytest.mark.parametrize("expect,status,healthy", [
    ("", "399 X", True), ("", "404 Not Found", False), ("expect=404", "404 Not Found", True),
    ("expect=200-299", "302 Found", False),
])
def test_expect(weir, server, expect, status, healthy):
    a = Sick("a", status)
    sa, sb = server(a), server(Sick("b"))
    w = weir(CHECK % expect, a=sa, b=sb)
    until(lambda: len([q for q in sa.requests if q.target == "/health"]) >= 4, "four probes")
    until(lambda: up(w, sa) is healthy, f"server a up: {healthy}")


def test_all_down_and_recovery(weir, server):
    a, b = Sick("a", "500 X"), Sick("b", "500 X")
    w = weir(CHECK % "", a=server(a), b=server(b))
    until(lambda: fetch(w.http).status == 503, "503")
    r = fetch(w.http)
    assert (r.status, int(r.get("retry-after")) >= 1) == (503, True)
    assert w.metric("weir_local_replies_total", reason="no_server") >= 1
    b.status = "200 OK"
    until(lambda: fetch(w.http).body == b"b", "recovery")


def test_a_probe_that_hangs_fails(weir, server):
    def script(c):
        c.server.take(c)
        c.read_all()

    sa = server(script=script)
    w = weir((CHECK % "").replace("timeout=500ms", "timeout=50ms"), a=sa, b=server(Sick("b")))
    until(lambda: down(w, sa), "server a to be down")


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/2 200\r\n",
                                  b"SSH-2.0-OpenSSH\r\n", b"x" * 10_000],
                         ids=["nothing", "half", "digits", "version", "ssh", "endless"])
def test_a_probe_that_is_answered_badly_fails(weir, server, said):
    def script(c):
        if c.server.take(c).target == "/health":
            c.send(said)  # and the end
        else:
            c.send(answer(b"a"))

    sa = server(script=script)
    w = weir(CHECK % "", a=sa, b=server(Sick("b")))
    until(lambda: down(w, sa), "server a to be down")
    assert {fetch(w.http).body for _ in range(4)} == {b"b"}


def test_ejections_back_off(weir, server):
    sa, sb = server(b"nonsense\r\n\r\n"), server(answer(b"b"))
    w = weir("threads 1; listen 127.0.0.1:@http@; upstream u { server @a@; server @b@; eject failures=1 for=100ms; "
             "retry attempts=1; } host * { route / { proxy u; } }", a=sa, b=sb)
    until(lambda: fetch(w.http) and len(sa.requests) >= 4, "four tries")
    gaps = [later.time - q.time for q, later in zip(sa.requests, sa.requests[1:])]
    assert gaps[0] >= 0.09 and gaps[1] >= 0.19 and gaps[2] >= 0.39, gaps


def test_ejection_and_return(weir, server):
    broken = [True]
    sa = server(lambda q: b"nonsense\r\n\r\n" if broken[0] else answer(b"a"))
    sb = server(answer(b"b"))
    w = weir("listen 127.0.0.1:@http@; upstream u { server @a@; server @b@; "
             "eject failures=2 for=300ms; retry attempts=1; } host * { route / { proxy u; } }",
             a=sa, b=sb)
    replies = [fetch(w.http).status for _ in range(10)]
    assert replies.count(502) == 2, replies
    assert w.metric("weir_server_ejections_total", upstream="u", server=str(sa)) == 1
    broken[0] = False
    until(lambda: fetch(w.http).body == b"a", "server a to be back")


def test_eject_off(weir, server):
    sa = server(b"nonsense\r\n\r\n")
    w = weir("listen 127.0.0.1:@http@; upstream u { server @a@; eject off; retry attempts=1; } "
             "host * { route / { proxy u; } }", a=sa)
    assert [fetch(w.http).status for _ in range(12)] == [502] * 12


def test_a_health_check_survives_a_reload(weir, server):
    a = Sick("a", "500 X")
    sa = server(a)
    w = weir(CHECK % "", a=sa, b=server(Sick("b")))
    until(lambda: down(w, sa), "server a to be down")
    w.reload()
    assert {fetch(w.http).body for _ in range(6)} == {b"b"}


@pytest.mark.parametrize("good", [True, False])
def test_a_check_speaks_tls_to_a_tls_server(weir, server, ca, good):
    s = server(Sick("a"), tls=ca.server(ca.cert("s.test")))
    name = "s.test" if good else "other.test"
    w = weir("listen 127.0.0.1:@http@; upstream u { server @a@; health_check path=/health interval=50ms fall=2; "
             f"tls ca={ca.cert_file} name={name}; }} host * {{ route / {{ proxy u; }} }}", a=s)
    if good:
        until(lambda: len(s.requests) >= 3, "three probes")
        assert up(w, s)
    else:
        until(lambda: not up(w, s), "the server to be down")
        w.wait_log(str(s) + r".* down: health check: TLS failed: \S+")


def test_a_check_takes_an_ejected_server_back(weir, server):
    """What checks say counts more than failures of the past: a server that fell and rose starts anew."""
    class Broken(Sick):
        def __call__(self, q):
            well = self.status.startswith("200") or q.target == "/health"
            return super().__call__(q) if well else b"nonsense\r\n\r\n"

    a = Broken("a", "500 Broken")
    sa = server(a)
    w = weir((CHECK % "; eject failures=1 for=10m; retry attempts=1").replace("fall=2", "fall=20"),
             a=sa, b=server(Sick("b")))
    until(lambda: fetch(w.http).status == 502, "a failure")
    w.wait_metric("weir_server_ejections_total", 1, upstream="u", server=str(sa))
    w.wait_log(str(sa) + r" is ejected for 600s after 1 failure: ")
    w.wait_log(str(sa) + r" is down: health check: status 500")
    a.status = "200 OK"
    until(lambda: {fetch(w.http).body for _ in range(4)} == {b"a", b"b"}, "server a to be back")
