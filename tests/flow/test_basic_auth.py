"""Names and passwords: who gets in, what it costs, and that nobody else waits for it."""
import base64
import ctypes
import re
import time

import pytest

from kit import SLOW, raw, until
from kit.raw import answer, fetch

libcrypt = ctypes.CDLL("libcrypt.so.1")
libcrypt.crypt.restype = libcrypt.crypt_gensalt.restype = ctypes.c_char_p
libcrypt.crypt_gensalt.argtypes = [ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int]


def hashed(password, prefix="$5$", cost=1000):
    salt = libcrypt.crypt_gensalt(prefix.encode(), cost, None, 0)
    return libcrypt.crypt(password.encode(), salt).decode()


def basic(user, password, scheme="Basic"):
    return {"authorization": f"{scheme} " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def conf(words="", more="route / { respond 200 \"hello $basic_auth_user\"; }"):
    return (f"module basic_auth; listen 127.0.0.1:@http@; host * {{ route /open {{ respond 200 open; }} "
            f"route /in {{ function basic_auth name=f {{ users ${{file:users}}; {words} }} "
            f"respond 200 \"hello $basic_auth_user\"; }} {more} }}")


def slow(users="alice", cost=13):
    """Half a second and more for each."""
    return {"users": "".join(f"{u}:{hashed(u, '$2y$', cost)}\n" for u in users.split())}


def asked(w, r):
    assert (r.status, r.get("www-authenticate")) == (401, 'Basic realm="restricted", charset="UTF-8"')
    return r


@pytest.mark.parametrize("prefix, cost", [("$2y$", 5), ("$2b$", 4), ("$5$", 1000), ("$6$", 1000), ("$y$", 1)])
def test_who_gets_in(weir, prefix, cost):
    w = weir(conf(), {"users": f"# staff\n\nbob:{hashed('x', prefix, cost)}\nalice:{hashed('pä:ss', prefix, cost)}:note\r\n"})
    r = fetch(w.http, "/in", fields=basic("alice", "pä:ss"))
    assert (r.status, r.body) == (200, b"hello alice")
    assert fetch(w.http, "/in", fields=basic("bob", "x", scheme="bASIC")).body == b"hello bob"
    for user, password in (("alice", "x"), ("bob", ""), ("bob", "pä:ss"), ("carol", "x"), ("", "x"), ("alic", "pä:ss"),
                           ("bob", "x" * 600), ("bob", "x\0"), ("#", "x"), ("bob:x", "")):
        asked(w, fetch(w.http, "/in", fields=basic(user, password)))
    asked(w, fetch(w.http, "/in"))
    assert fetch(w.http, "/open").status == 200


@pytest.mark.parametrize("fields", [
    {"authorization": "Basic"}, {"authorization": "Basic "}, {"authorization": "Basic !!!!"},
    {"authorization": "Basic YWxpY2U="}, {"authorization": "Bearer YWxpY2U6YWxpY2U="},
    {"authorization": "Basic YWxpY2U6YWxpY2U"}, {"authorization": "YWxpY2U6YWxpY2U="},
    [("authorization", "Basic YWxpY2U6YWxpY2U="), ("authorization", "Basic YWxpY2U6YWxpY2U=")],
    {"authorization": "Basic " + "QUFB" * 2000},
])
def test_what_cannot_be_read(weir, fields):
    w = weir(conf(), {"users": f"alice:{hashed('alice')}"})
    asked(w, fetch(w.http, "/in", fields=fields))
    w.wait_metric("weir_basic_auth_total", 1, function="f", result="missing")


@pytest.mark.parametrize("forward", [False, True])
def test_the_server_and_the_password(weir, server, forward):
    s = server(answer())
    w = weir("upstream u { server @backend@; } module headers; " + conf(more=f"""route / {{
        function basic_auth {{ users ${{file:users}}; variable who; {'forward on;' if forward else ''} }}
        function headers {{ set request X-User $basic_auth_who; }} proxy u; }}"""),
        {"users": f"alice:{hashed('a')}"}, backend=s)
    assert fetch(w.http, fields={**basic("alice", "a"), "x-user": "root"}).status == 200
    assert s.last().all("x-user") == ["alice"]
    assert ("authorization" in s.last()) == forward


def test_what_was_right_is_believed_for_a_while(weir):
    w = weir(conf("ttl 1h;"), {"users": f"alice:{hashed('a')}\nbob:{hashed('b')}"})
    for _ in range(3):
        assert fetch(w.http, "/in", fields=basic("alice", "a")).status == 200
        asked(w, fetch(w.http, "/in", fields=basic("alice", "b")))
        asked(w, fetch(w.http, "/in", fields=basic("bob", "a")))
    for result, n in (("accepted", 1), ("cached", 2), ("refused", 6)):
        w.wait_metric("weir_basic_auth_total", n, function="f", result=result)
    w.file("users", f"alice:{hashed('new')}")
    w.reload()
    asked(w, fetch(w.http, "/in", fields=basic("alice", "a")))
    assert fetch(w.http, "/in", fields=basic("alice", "new")).status == 200
    w.reload(conf("ttl 0s;"))
    for _ in range(2):
        assert fetch(w.http, "/in", fields=basic("alice", "new")).status == 200
    w.wait_metric("weir_basic_auth_total", 2, function="f", result="cached")


def test_a_loop_goes_on_while_passwords_are_tried(weir, connect):
    w = weir(conf("threads 1; timeout 30s; max_bcrypt 12;"), slow(cost=12))
    waiting = [connect(w.http).send(raw.request(target="/in", fields=basic("alice", p))) for p in ("wrong", "alice")]
    served = 0
    while waiting[0].silent(0.001):
        assert fetch(w.http, "/open").status == 200
        served += 1
    assert served > 3, "a loop that hashes would have served one at most"
    assert [c.response().status for c in waiting] == [401, 200]


def test_too_many_at_once(weir, connect):
    w = weir(conf("threads 1; queue 2; timeout 30s;"), slow())
    waiting = []

    def one_more():
        waiting.append(connect(w.http).send(raw.request(target="/in", fields=basic("alice", f"{len(waiting)}"))))
        return w.metric("weir_basic_auth_total", function="f", result="busy") > 0

    until(one_more, "the queue to be full", 20)
    answers = [c.response() for c in waiting]
    seen = [r.status for r in answers]
    assert set(seen) == {401, 503} and seen.count(401) >= 2
    assert all(r.get("retry-after") == "1" for r in answers if r.status == 503)
    w.wait_metric("weir_basic_auth_total", seen.count(503), function="f", result="busy")
    assert fetch(w.http, "/in", fields=basic("alice", "alice")).status == 200


def test_clients_that_leave_cost_nothing_more(weir, connect):
    """Passwords of those who have gone are not tried: else a minute would pass here."""
    w = weir(conf("threads 1; queue 200; timeout 20s;"), slow(cost=12))
    gone = [connect(w.http).send(raw.request(target="/in", fields=basic("alice", f"{i}"))) for i in range(100)]
    fetch(w.http, "/open")
    for c in gone:
        c.reset()
    started = time.monotonic()
    until(lambda: fetch(w.http, "/in", fields=basic("alice", "alice")).status == 200, "a way in", 20)
    assert time.monotonic() - started < 10 * SLOW


def test_names_that_do_not_exist_cost_as_much(weir):
    w = weir(conf("timeout 30s;"), slow("alice bob", cost=10))

    def cost(user):
        started = time.monotonic()
        for i in range(4):
            asked(w, fetch(w.http, "/in", fields=basic(user, f"{i}")))
        return time.monotonic() - started

    known, unknown = cost("alice"), cost("carol")
    assert unknown > known / 3, (known, unknown)


def test_reload_and_end_while_passwords_are_tried(weir, connect):
    files = slow()
    w = weir(conf("timeout 30s;"), files)
    old = connect(w.http).send(raw.request(target="/in", fields=basic("alice", "alice")))
    fetch(w.http, "/open")
    w.file("users", f"alice:{hashed('other')}")
    w.reload()
    assert fetch(w.http, "/in", fields=basic("alice", "other")).status == 200
    assert old.response().body == b"hello alice", "it ends with what it began with"
    w.file("users", files["users"])
    w.reload()
    connect(w.http).send(raw.request(target="/in", fields=basic("alice", "alice")))
    fetch(w.http, "/open")
    w.stop()


def test_a_timeout(weir):
    w = weir(conf("timeout 50ms;"), slow())
    assert fetch(w.http, "/in", fields=basic("alice", "alice")).status == 503
    w.wait_metric("weir_local_replies_total", 1, reason="function_timeout")


GOOD = "alice:" + hashed("a") + "\n"
YESCRYPT = "$y${}$ac8pVaJ/qKDs9YWehiYko.$D1.b1sEUlkZuXZUZnQrbY.X2E1bej6ukO55JFtWFXs8"


@pytest.mark.parametrize("users, line, column, says", [
    (GOOD + "bob:secret\n", 2, 5, "is no bcrypt"),
    (GOOD + "\n#\nbob:\n", 4, 5, "is no bcrypt"),
    (GOOD + "bob\n", 2, 1, "is name:hash"),
    (GOOD + ":x\n", 2, 1, "is name:hash"),
    (GOOD + "bob:$apr1$abcdefgh$JYdSO9a/wpdGtMeAj9nq90\n", 2, 5, "htpasswd -B"),
    (GOOD + "bob:$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1\n", 2, 5, "is no bcrypt"),
    (GOOD + "bob:abNANd1rDfiNc\n", 2, 5, "is no bcrypt"),
    (GOOD + "bob:$6$abc$def\n", 2, 5, "not whole"),
    (GOOD + "bob:$2y$10$short\n", 2, 5, "not whole"),
    (GOOD + "bob:!" + hashed("a") + "\n", 2, 5, "is no bcrypt"),
    (GOOD + "bob:$2y$31$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW\n", 2, 5, "it has 31 as its cost, and max_bcrypt= is 13"),
    (GOOD + "bob:" + hashed("a").replace("rounds=1000", "rounds=99999999") + "\n", 2, 5,
     "it has 99999999 rounds, and max_rounds= is 1000000"),
    (GOOD + "bob:" + YESCRYPT.format("jFT") + "\n", 2, 5, "it has 1048576 KiB, and max_yescrypt= is 65536"),
    (GOOD + "bob:" + YESCRYPT.format("j9T/.") + "\n", 2, 5, "nobody can judge"),
    (GOOD + "bob:" + hashed("b") + "\n" + GOOD, 3, 1, "alice is there twice"),
    ("# nobody\n", 2, None, "it holds no user"),
], ids=lambda v: v if isinstance(v, str) and "$" not in v else "")
def test_mistakes_in_the_file(weir, users, line, column, says):
    w = weir(conf(), {"users": users}, start=False)
    done = w.command("-t")
    assert done.returncode == 1 and says in done.stderr
    if column:
        assert re.search(rf"users:{line}:{column}: ", done.stderr), done.stderr
    assert not any(line.partition(":")[2] in done.stderr for line in users.split() if len(line) > 9), "hashes are not shown"


@pytest.mark.parametrize("word, low, high, prefix, cost", [
    ("max_bcrypt", "4", "5", "$2y$", 5), ("max_rounds", "4999", "5000", "$6$", 5000), ("max_rounds", "4999", "5000", "$5$", 5000),
    ("max_rounds", "1000", "1001", "$5$", 1001), ("max_yescrypt", "1m", "2m", "$y$", 2),
])
def test_what_may_be_costly_can_be_said(weir, word, low, high, prefix, cost):
    w = weir(conf(f"{word} {low};"), {"users": f"alice:{hashed('a', prefix, cost)}\n"}, start=False)
    done = w.command("-t")
    assert done.returncode == 1 and f"{word}= is " in done.stderr and "users:1:7: " in done.stderr, done.stderr
    w.configure(conf(f"{word} {high};"))
    w.start()
    assert fetch(w.http, "/in", fields=basic("alice", "a")).status == 200


def test_a_file_that_became_costly_is_not_loaded(weir):
    w = weir(conf(), {"users": GOOD})
    w.file("users", GOOD + "bob:" + YESCRYPT.format("jFT") + "\n")
    done = w.reload(ok=False)
    assert re.search(r"users:2:5: .*max_yescrypt= is 65536", done.stdout + done.stderr + w.log())
    assert fetch(w.http, "/in", fields=basic("alice", "a")).status == 200


@pytest.mark.parametrize("users", ["bob:$7$CU..../....MPXlIonmm288y6f5Kb8Vl0$wD9NyvhKqZs9PeVgcOPZV..TkW/mSz2nIbj8ks4Yng5",
                                   "bob:_zzzzrasmBYk8r9AiWNc", "bob:$sha1$99999999$iHQ6ZOJkWOR5rSvqaOQ4$LN5gq.qfMuQVj0CVwDbe2SAkketP"])
def test_weak_is_md5_and_des_alone(weir, users):
    """The others say how long they take, and could say anything."""
    w = weir(conf("weak on;"), {"users": users + "\n"}, start=False)
    done = w.command("-t")
    assert done.returncode == 1 and "users:1:5: " in done.stderr and "is no bcrypt" in done.stderr, done.stderr


def test_weak_hashes_only_when_asked(weir):
    w = weir(conf("weak on;"), {"users": "md5:$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1\ndes:abNANd1rDfiNc\n"})
    for user in ("md5", "des"):
        assert fetch(w.http, "/in", fields=basic(user, "secret")).status == 200
        asked(w, fetch(w.http, "/in", fields=basic(user, "secres")))


def test_mistakes_in_the_words(weir):
    w = weir("", {"users": GOOD}, start=False)
    for words, says in (('realm "a\\nb";', "it holds a control character"),
                        ("threads 17;", "threads must be between 1 and 16"), ("max_bcrypt 3;", "max_bcrypt must be between"),
                        ("max_rounds 10;", "max_rounds must be between"), ("max_yescrypt 1k;", "max_yescrypt must be between"), ("ttl 2d;", "ttl must be between")):
        w.configure(conf(words))
        done = w.command("-t")
        assert done.returncode == 1 and says in done.stderr and re.search(r"weir\.conf:2:\d+: ", done.stderr)
