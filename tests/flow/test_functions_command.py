"""weir functions: what it says of modules and their functions, and the end of a quarantine by hand."""
import concurrent.futures
import hashlib
import json
import shutil
import threading

from kit import raw, until
from kit.raw import fetch
from test_functions import build, one, zoo  # noqa: F401 (a fixture)


def listed(w):
    """{module: its row}, {function: its row}"""
    said = json.loads(w.command("functions", "--json", check=True).stdout)
    return {m["name"]: m for m in said["modules"]}, {f["name"]: f for f in said["functions"]}


def content(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def module(w, name, source):
    return build(w.file(f"{name}.c", "#include <weir/module.h>\n" + source), w.dir / f"{name}.so")


MIXED = """
static weir_rc late(weir_task *t, const void *i, void *c, void *arg)
{ (void)t, (void)i, (void)c, (void)arg; return WEIR_CONTINUE; }
static weir_rc hook(weir_req *r, const void *i, void *c)
{
        weir_str path;
        (void)i, (void)c;
        weir->var_get(r, WEIR_STR("path"), &path);
        if (weir_eq(path, WEIR_STR("/error")))
                return WEIR_ERROR;
        if (weir_eq(path, WEIR_STR("/late")))
                return weir->timer(r, 60000000, late, NULL);
        return weir_eq(path, WEIR_STR("/no")) ? weir->respond(r, 403, WEIR_STR("no")) : WEIR_CONTINUE;
}
WEIR_MODULE(.name = "mixed", .version = "%s", .on_request = hook);
"""


# ---------------------------------------------------------------- what is listed


def test_calls_errors_timeouts_and_time(weir):
    w = weir("module headers; listen 127.0.0.1:@http@; host * { route / { respond 200 ok; } }")
    path = module(w, "mixed", MIXED % "1.0")
    w.reload(f"module headers; module mixed {path}; listen 127.0.0.1:@http@; host * {{ route / {{ "
             "function mixed name=f timeout=50ms; function headers name=h { set response X 1; } "
             "respond 200 ok; } }")
    for target, status in (("/", 200), ("/no", 403), ("/error", 503), ("/late", 503), ("/", 200)):
        assert fetch(w.http, target).status in (status, 504)
    modules, functions = listed(w)
    assert modules["mixed"] == {"name": "mixed", "version": "1.0", "id": content(path), "file": str(path),
                                "pinned": False, "generations": 1, "requests": 0, "strikes": 0,
                                "quarantined": False}
    f = functions["f"]
    assert (f["module"], f["id"]) == ("mixed", content(path))
    assert (f["calls"], f["answers"], f["errors"], f["timeouts"]) == (5, 1, 1, 1)
    assert 0 < f["measured"] <= 10 and 0 < f["mean_us"] < 1e6 and 1 <= f["p50_us"] <= f["p99_us"]
    assert functions["h"]["module"] == "headers" and functions["h"]["errors"] == 0
    text = w.command("functions", check=True).stdout
    assert text.splitlines()[0].split() == ["MODULE", "VERSION", "CONTENT", "GENERATIONS", "REQUESTS", "STRIKES",
                                            "STATE"]
    (row,) = [line.split() for line in text.splitlines() if line.startswith("f ")]
    assert row[:6] == ["f", "mixed", content(path), "5", "1", "1"]
    assert w.metric("weir_function_duration_seconds_count", function="f") == f["measured"]


def test_versions_alive_and_their_requests(weir):
    """A request keeps its version: both are listed until it has ended, in /status too."""
    w = weir("listen 127.0.0.1:@http@; host * { route / { respond 200 ok; } }")
    conf = (f"module mixed {w.dir}/mixed.so; listen 127.0.0.1:@http@; host * {{ route / {{ "
            "function mixed name=f timeout=30s; respond 200 ok; } }")
    first = content(module(w, "mixed", MIXED % "1.0"))
    w.reload(conf)
    with raw.client(w.http) as held:
        held.send(raw.request(target="/late"))
        until(lambda: w.metric("weir_requests") == 1, "the request to be held")
        (w.dir / "mixed.so").unlink()
        second = content(module(w, "mixed", MIXED % "2.0"))
        w.reload(conf)

        def versions(rows):
            return {m["id"]: (m["version"], m["generations"], m["requests"]) for m in rows if m["name"] == "mixed"}

        both = {first: ("1.0", 1, 1), second: ("2.0", 1, 0)}
        until(lambda: versions(w.status()["modules"]) == both, lambda: f"{both}, not {w.status()['modules']}")
        assert versions(json.loads(w.command("functions", "--json").stdout)["modules"]) == both
        text = w.command("functions", check=True).stdout
        assert [line.split()[1:5] for line in text.splitlines() if line.startswith("mixed ")] in (
            [["1.0", first, "1", "1"], ["2.0", second, "1", "0"]],
            [["2.0", second, "1", "0"], ["1.0", first, "1", "1"]])
        held.reset()
    until(lambda: versions(w.status()["modules"]) == {second: ("2.0", 1, 0)}, "the first version to go")


def test_numbers_are_those_of_all_workers(weir, zoo):  # noqa: F811
    w = weir("workers 2; " + one(zoo("null"), "bad_null", "name=f"))
    for _ in range(20):
        assert fetch(w.http).status == 200
    modules, functions = listed(w)
    assert functions["f"]["calls"] == 20
    assert modules["bad_null"]["generations"] == 1


def test_more_than_an_answer_holds(weir):
    routes = "".join(f"route /r{i} {{ function headers name=function_number_{i} {{ set response X {i}; }} respond 200; }} "
                     for i in range(1500))
    w = weir(f"module headers; listen 127.0.0.1:@http@; host * {{ {routes} }}")
    said = json.loads(w.command("functions", "--json", check=True).stdout)
    assert len(said["functions"]) + said["functions_left_out"] == 1500 and len(said["functions"]) > 200
    assert w.command("functions", check=True).stdout.splitlines()[-1].endswith("the admin listener has all")
    assert len(w.status()["functions"]) == 1500


def test_without_functions(weir):
    w = weir("listen 127.0.0.1:@http@; host * { route / { respond 200 ok; } }")
    assert listed(w) == ({}, {})
    assert len(w.command("functions", check=True).stdout.splitlines()) == 3


def test_nobody_is_there(weir):
    w = weir("listen 127.0.0.1:@http@; host * { route / { respond 200 ok; } }", start=False)
    done = w.command("functions")
    assert done.returncode == 1 and "control.sock" in done.stderr


# ---------------------------------------------------------------- quarantine


def test_clear_ends_a_quarantine_at_once(weir, zoo):  # noqa: F811
    w = weir(one(zoo("null"), "bad_null", "name=f"))
    assert fetch(w.http).status == 200
    w.crash(times=2)
    modules, _ = listed(w)
    assert (modules["bad_null"]["strikes"], modules["bad_null"]["quarantined"]) == (2, False)
    w.crash()
    until(lambda: fetch(w.http).status == 503, "the quarantine")
    modules, functions = listed(w)
    assert (modules["bad_null"]["strikes"], modules["bad_null"]["quarantined"]) == (3, True)
    assert functions["f"]["quarantined"] >= 1
    assert "quarantined" in w.command("functions").stdout
    assert w.status()["modules"][0]["quarantined"] is True
    reloads = w.metric("weir_reloads_total")
    with raw.client(w.http) as kept:
        assert kept.send(raw.request()).response().status == 503
        done = w.command("functions", "clear", "bad_null")
        assert (done.returncode, done.stdout) == (0, "module bad_null serves again\n")
        assert kept.send(raw.request()).response().status == 200, "at once, on an open connection too"
    assert fetch(w.http).status == 200
    assert w.metric("weir_reloads_total") == reloads, "no file was read again"
    modules, _ = listed(w)
    assert (modules["bad_null"]["strikes"], modules["bad_null"]["quarantined"]) == (0, False)
    w.wait_log("module bad_null: its quarantine was ended by hand")
    # The history is gone too: it takes another three.
    w.crash()
    assert fetch(w.http).status == 200


def test_clear_does_not_read_what_is_on_disk(weir, zoo):  # noqa: F811
    """The files may have changed, or have gone: the configuration in force is what is built again."""
    w = weir("listen 127.0.0.1:@http@; host * { route / { respond 200 ok; } }")
    path = shutil.copy(zoo("null"), w.dir / "bad_null.so")
    w.reload(one(path, "bad_null", "name=f"))
    w.crash(times=3)
    until(lambda: fetch(w.http).status == 503, "the quarantine")
    path.unlink()
    w.configure("this is no configuration")
    assert w.command("functions", "clear", "bad_null", check=True).stdout == "module bad_null serves again\n"
    assert fetch(w.http).status == 200


def test_a_canary_is_not_disturbed(weir, zoo):  # noqa: F811
    w = weir(one(zoo("null"), "bad_null", "name=f"))
    w.configure(one(zoo("null"), "bad_null", "name=f", "respond 200 new;"))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        canary = pool.submit(w.command, "-s", "reload", "--canary", "50%", "--for", "60s")
        w.wait_log("canary.*of the clients")
        done = w.command("functions", "clear", "bad_null")
        assert done.returncode == 1 and done.stderr.startswith("a canary is under way")
        assert w.status()["canary"]["state"] == "running"
        modules, _ = listed(w)
        assert modules["bad_null"]["generations"] == 2, "one content, used by both"
        w.reload()  # which ends it
        assert canary.result().returncode == 2


def test_clear_what_is_not_quarantined(weir, zoo):  # noqa: F811
    w = weir(one(zoo("null"), "bad_null", "name=f"))
    done = w.command("functions", "clear", "bad_null")
    assert (done.returncode, done.stderr) == (1, "module bad_null is not quarantined\n")
    done = w.command("functions", "clear", "bad_nul")
    assert done.returncode == 1
    assert done.stderr == 'there is no module bad_nul (did you mean "bad_null"?)\n'
    done = w.command("functions", "clear", "other")
    assert (done.returncode, done.stderr) == (1, "there is no module other\n")


def test_clear_in_all_workers_under_load(weir, zoo):  # noqa: F811
    """Requests of other routes, on open connections, see nothing of it."""
    w = weir(f"workers 2; module bad_null {zoo('null')}; listen 127.0.0.1:@http@; "
             "host * { route /f { function bad_null name=f; respond 200 f; } "
             "route /crash { function bad_null name=c; respond 200; } route / { respond 200 ok; } }")
    w.crash(times=3)
    until(lambda: fetch(w.http, "/f").status == 503, "the quarantine")
    clients = [raw.client(w.http) for _ in range(8)]
    stop, failed = threading.Event(), []

    def ask(client):
        while not stop.is_set():
            try:
                assert client.send(raw.request()).response().body == b"ok"
            except Exception as error:  # noqa: BLE001 (any is a failure)
                failed.append(error)
                return

    threads = [threading.Thread(target=ask, args=(c,)) for c in clients]
    for t in threads:
        t.start()
    assert w.command("functions", "clear", "bad_null", check=True).stdout == "module bad_null serves again\n"
    assert {fetch(w.http, "/f").status for _ in range(20)} == {200}
    stop.set()
    for t in threads:
        t.join()
    for c in clients:
        c.close()
    assert not failed


def test_clear_while_a_reload_is_under_way(weir, zoo):  # noqa: F811
    """Both happen, and both are answered."""
    w = weir(one(zoo("null"), "bad_null", "name=f"))
    w.crash(times=3)
    until(lambda: fetch(w.http).status == 503, "the quarantine")
    slow = module(w, "slow", """#include <unistd.h>
        __attribute__((constructor)) static void wait(void) { usleep(700000); }
        WEIR_MODULE(.name = "slow", .version = "1");""")
    w.configure(f"module slow {slow}; " + one(zoo("null"), "bad_null", "name=f", "respond 200 new;"))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        reload = pool.submit(w.command, "-s", "reload")
        w.wait_log(r"\[weir\] reload 2")
        clear = w.command("functions", "clear", "bad_null")
        assert (clear.returncode, clear.stdout) == (0, "module bad_null serves again\n")
        assert reload.result().returncode == 0, reload.result().stderr
    assert fetch(w.http).body == b"new"


# ---------------------------------------------------------------- a self-test before each activation


def test_a_self_test_that_crashes_costs_the_reload(weir):
    w = weir("listen 127.0.0.1:@http@; host * { route / { respond 200 good; } }")
    path = module(w, "tester", """
        static weir_rc hook(weir_req *r, const void *i, void *c)
        { (void)r, (void)i, (void)c; __builtin_trap(); }
        static const weir_case cases[] = {{ .name = "one", .expect = "continue" }};
        WEIR_MODULE(.name = "tester", .version = "1", WEIR_CASES(cases), .on_request = hook);""")
    w.deaths_expected = True
    said = w.reload(f"module tester {path}; listen 127.0.0.1:@http@; host * {{ route / {{ function tester; "
                    "respond 200 bad; } }", ok=False)
    assert "the check ended without a verdict" in said.stderr and "tester" in said.stderr
    assert fetch(w.http).body == b"good"
    assert w.metric("weir_worker_deaths_total") == 0
