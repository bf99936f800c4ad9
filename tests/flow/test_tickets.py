"""Keys of session tickets: rotation, and machines that share them by a file or through Redis."""
import os
import pathlib
import ssl
import time

import pytest

from kit import SLOW, raw, until
from kit.raw import request

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BODY = ' host * { route / { respond 200 "x"; } }'


def listener(cert):
    return f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; }}"


def session_of(w, ctx, session=None):
    """(was it resumed, the session to resume) of one request."""
    with raw.client(w.https, tls=ctx, session=session) as c:
        assert c.send(request()).response().status == 200
        return c.sock.session_reused, c.sock.session


def resumes(w, ctx, session):
    return session_of(w, ctx, session)[0]


def rotations(w):
    return w.metric("weir_ticket_key_rotations_total")


# ------------------------------------------------------------- made by weir

@pytest.mark.parametrize("version", [V12, V13])
def test_own_keys_rotate(weir, ca, version):
    w = weir("threads 2; ticket_keys rotate=1s; " + listener(ca.cert("a.test")) + BODY)
    ctx = ca.client(version=version)
    _, session = session_of(w, ctx)
    begun = rotations(w)
    until(lambda: rotations(w) > begun, "a rotation")
    reused, renewed = session_of(w, ctx, session)
    assert reused  # under an old key
    assert w.metric("weir_ticket_key_age_seconds") <= 2 * SLOW
    until(lambda: rotations(w) >= begun + 4, "its key to go", 10)
    assert not resumes(w, ctx, session)
    del renewed


def test_a_ticket_of_an_old_key_is_renewed(weir, ca):
    w = weir("ticket_keys rotate=2s; " + listener(ca.cert("a.test")) + BODY)
    ctx = ca.client(version=V12)
    _, first = session_of(w, ctx)
    session, begun = first, rotations(w)
    for n in range(1, 6):
        until(lambda: rotations(w) >= begun + n, "a rotation", 10)
        reused, session = session_of(w, ctx, session)
        assert reused, n
    assert not resumes(w, ctx, first)


def test_a_reload_changes_the_period_and_keeps_the_keys(weir, ca):
    conf = "ticket_keys rotate=@period@; " + listener(ca.cert("a.test")) + BODY
    w = weir(conf, period="1h")
    ctx = ca.client()
    _, session = session_of(w, ctx)
    w.values["period"] = "1s"
    w.reload(conf)
    until(lambda: rotations(w) >= 1, "a rotation")
    assert resumes(w, ctx, session)


def test_other_ciphers_are_not_resumed_into(weir, ca):
    """A session that was made under what is not allowed any more begins anew."""
    cert = ca.cert("a.test")
    conf = f"listen 127.0.0.1:@https@ tls {{ certificate {cert[0]} key={cert[1]}; ciphers @ciphers@; }}" + BODY
    w = weir(conf, ciphers="ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
    ctx = ca.client(version=V12)
    _, session = session_of(w, ctx)
    assert resumes(w, ctx, session)
    w.values["ciphers"] = "ECDHE-ECDSA-AES256-GCM-SHA384"
    w.reload(conf)
    assert not resumes(w, ctx, session)


# ------------------------------------------------------------- by a file

def shared_file(weir, ca, content):
    """Two weirs that read one file."""
    cert = ca.cert("a.test")
    one = weir("ticket_keys @dir@/keys check=100ms; " + listener(cert) + BODY, files={"keys": content})
    two = weir(f"ticket_keys {one.dir}/keys check=100ms; " + listener(cert) + BODY)
    return one, two


def replace(path, content):
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o600)
    os.rename(new, path)


@pytest.mark.parametrize("version", [V12, V13])
def test_file(weir, ca, version):
    old, new, newest = (os.urandom(80) for _ in range(3))
    one, two = shared_file(weir, ca, old)
    ctx = ca.client(version=version)
    _, session = session_of(one, ctx)
    assert resumes(two, ctx, session)
    replace(one.dir / "keys", new + old)  # nobody is told
    for _ in range(20):  # whoever reads it first seals with it only when the other can open it
        _, fresh = session_of(one, ctx)
        assert resumes(two, ctx, fresh)
        _, fresh = session_of(two, ctx)
        assert resumes(one, ctx, fresh)
        time.sleep(0.02)
    for w in (one, two):
        w.wait_metric("weir_ticket_key_rotations_total", 1)
    assert resumes(two, ctx, session)
    _, renewed = session_of(one, ctx, session)
    replace(one.dir / "keys", newest + new)
    for w in (one, two):
        w.wait_metric("weir_ticket_key_rotations_total", 2)
        assert not resumes(w, ctx, session)
        assert resumes(w, ctx, renewed)
    assert one.metric("weir_ticket_key_failures_total") == 0


def test_a_file_that_was_taken_out_seals_nothing_more(weir, ca):
    cert = ca.cert("a.test")
    w = weir("ticket_keys @dir@/keys; " + listener(cert) + BODY, files={"keys": os.urandom(80)})
    other = weir(f"ticket_keys {w.dir}/keys; " + listener(cert) + BODY)
    ctx = ca.client()
    _, session = session_of(w, ctx)
    assert resumes(other, ctx, session)
    w.reload(listener(cert) + BODY)
    reused, fresh = session_of(w, ctx, session)
    assert reused  # what was sealed before still opens
    assert not resumes(other, ctx, fresh)


def test_a_reload_that_a_certificate_began_lets_a_new_key_wait(weir, ca):
    """Only one who asked for the reload can know that the other machines have read the key."""
    cert, again, old, new = ca.cert("a.test"), ca.cert("a.test"), os.urandom(80), os.urandom(80)
    w = weir("ticket_keys @dir@/keys check=1h; " + listener(cert) + BODY, files={"keys": old})
    replace(w.dir / "keys", new + old)
    for have, take in zip(cert, again):
        with open(take, "rb") as f:
            replace(pathlib.Path(have), f.read())
    w.wait_log("a new key; it seals two checks from now")
    assert rotations(w) == 0
    w.reload()
    w.wait_log("another key seals")


def test_a_key_that_was_announced_seals_at_once(weir, ca):
    """The owner puts the next key behind the one in use, and later in front."""
    key, following = os.urandom(80), os.urandom(80)
    one, two = shared_file(weir, ca, key + following)
    replace(one.dir / "keys", following + key)
    one.wait_log("another key seals")
    assert "two checks from now" not in one.log()
    two.wait_metric("weir_ticket_key_rotations_total", 1)


def test_a_broken_file_changes_nothing(weir, ca):
    key = os.urandom(80)
    one, two = shared_file(weir, ca, key)
    ctx = ca.client()
    _, session = session_of(one, ctx)
    for content in (b"", b"x" * 79, os.urandom(81), os.urandom(6 * 80)):
        before = one.metric("weir_ticket_key_failures_total", source="file")
        replace(one.dir / "keys", content)
        until(lambda: one.metric("weir_ticket_key_failures_total", source="file") > before, "the failure")
        assert resumes(two, ctx, session)
    os.unlink(one.dir / "keys")
    one.wait_log("not 1 to 5 keys of 80 bytes; the last good keys go on")
    assert len(one.wait_log("the last good keys go on")) == 1  # said once
    before = one.metric("weir_ticket_key_failures_total", source="file")
    until(lambda: one.metric("weir_ticket_key_failures_total", source="file") > before, "the failure")
    assert resumes(one, ctx, session)
    replace(one.dir / "keys", os.urandom(80) + key)
    one.wait_metric("weir_ticket_key_rotations_total", 1)
    assert resumes(one, ctx, session)


def test_files_survive_a_worker(weir, ca):
    one, two = shared_file(weir, ca, os.urandom(80))
    ctx = ca.client()
    _, session = session_of(one, ctx)
    two.deaths_expected = True
    os.kill(two.worker(), 9)
    two.wait_deaths(1)
    assert resumes(two, ctx, session)


# ------------------------------------------------------------- through Redis

def shared_redis(weir, ca, r, rotate, more=""):
    cert = ca.cert("a.test")
    conf = (f"threads 2; redis main {{ server 127.0.0.1:{r.port}; timeout connect=1s command=1s; }} "
            f"ticket_keys redis=main rotate={rotate}{more}; " + listener(cert) + BODY)
    return weir(conf), weir(conf)


def have_keys(*all_of_them):
    """Each has taken the key of this period."""
    for w in all_of_them:
        until(lambda: rotations(w) >= 1, lambda: f"keys; {w.log()}")


@pytest.mark.parametrize("version", [V12, V13])
def test_redis(weir, ca, redis, version):
    r = redis()
    one, two = shared_redis(weir, ca, r, "1h")
    have_keys(one, two)
    ctx = ca.client(version=version)
    _, session = session_of(one, ctx)
    for _ in range(4):
        assert resumes(two, ctx, session)
    names = r("KEYS", "weir:ticket_key:*")
    assert len(names) == 2  # this period's and the next one's
    for name in names:
        assert len(r("GET", name)) == 160
        assert 4 * 3600_000 < r("PTTL", name) <= 7 * 3600_000


def test_redis_rotation(weir, ca, redis):
    r = redis()
    one, two = shared_redis(weir, ca, r, "2s")
    have_keys(one, two)
    ctx = ca.client(version=V12)
    _, session = session_of(one, ctx)
    first, begun, begun_two, n = session, rotations(one), rotations(two), 0
    while rotations(one) < begun + 3:  # at every moment what one gives opens the other
        n += 1
        from_, to = (one, two) if n % 2 else (two, one)
        _, fresh = session_of(from_, ctx)
        assert resumes(to, ctx, fresh)
        reused, session = session_of(to, ctx, session)
        assert reused
        time.sleep(0.02)
    until(lambda: rotations(one) >= begun + 4 and rotations(two) >= begun_two + 4, "four rotations", 10)
    assert not resumes(two, ctx, first)
    assert one.metric("weir_ticket_key_failures_total") == 0, one.log()


def test_redis_gone(weir, ca, redis):
    r = redis()
    one, two = shared_redis(weir, ca, r, "2s")
    have_keys(one, two)
    ctx = ca.client(version=V12)
    _, session = session_of(one, ctx)
    begun = rotations(one)
    r.kill()
    one.wait_log("the keys that are known go on")
    until(lambda: one.metric("weir_ticket_key_failures_total", source="redis") > 0, "the count")
    assert resumes(two, ctx, session)
    until(lambda: rotations(one) >= begun + 1 and rotations(two) >= begun + 1, "the key that was known ahead", 10)
    one.reload()  # a new fetcher, without a Redis: nothing is lost
    _, fresh = session_of(one, ctx)
    assert resumes(two, ctx, fresh)
    last = rotations(one)
    end = time.monotonic() + 5  # two periods and more
    while time.monotonic() < end:
        _, session = session_of(one, ctx)
        assert resumes(two, ctx, session)
        time.sleep(0.1)
    assert rotations(one) == last
    r.start()
    one.wait_log("keys are read again")
    until(lambda: rotations(one) > last and rotations(two) > last, "rotation to go on", 15)
    _, session = session_of(two, ctx)
    assert resumes(one, ctx, session)


def test_redis_that_was_emptied(weir, ca, redis):
    """Who is there puts back what it knows, so that a newcomer gets the same keys."""
    r = redis()
    one, two = shared_redis(weir, ca, r, "8s")
    have_keys(one, two)
    # Each looks every second: within a period, and not at its end, both know this key and the next one.
    until(lambda: 2 < time.time() % 8 < 4, "the middle of a period", 9)
    before = {n: r("GET", n) for n in r("KEYS", "weir:*")}
    r("FLUSHALL")
    until(lambda: len(r("KEYS", "weir:*")) >= 2, "the keys to be back", 10)
    same = {n: r("GET", n) for n in r("KEYS", "weir:*") if n in before}
    assert same and all(before[n] == v for n, v in same.items())


def test_redis_with_nonsense(weir, ca, redis):
    r = redis()
    now = int(time.time() * 1000)
    start = now - now % 3600_000
    r("SET", f"other:ticket_key:{start}", "nonsense")
    one, two = shared_redis(weir, ca, r, "1h", more=" prefix=other")
    one.wait_log("what is there is no key of weir's; the keys that are known go on")
    ctx = ca.client()
    _, session = session_of(one, ctx)
    assert resumes(one, ctx, session)


def test_redis_that_only_reads(weir, ca, redis):
    """Said once, though every look finds it so, and the keys that are there are taken."""
    r = redis()
    one, two = shared_redis(weir, ca, r, "4s")
    have_keys(one, two)
    r("REPLICAOF", "127.0.0.1", "1")
    until(lambda: one.metric("weir_ticket_key_failures_total", source="redis") >= 4, "failures", 10)
    assert len(one.wait_log("the server refuses to keep a key: READONLY")) == 1
    ctx = ca.client()
    _, session = session_of(one, ctx)
    assert resumes(two, ctx, session)


def test_mistakes(weir, ca):
    cert = ca.cert("a.test")
    w = weir("""
redis main { server 127.0.0.1:1; }
ticket_keys redis=mian;
""" + listener(cert) + BODY, start=False)
    done = w.command("-t")
    assert done.returncode == 1
    assert "weir.conf:4:19: there is no redis mian (did you mean \"main\"?)" in done.stderr
    w.file("short", "x" * 79)
    w.configure("ticket_keys @dir@/short;" + listener(cert) + BODY)
    done = w.command("-t")
    assert done.returncode == 1 and "short: not one to five keys of 80 bytes" in done.stderr
