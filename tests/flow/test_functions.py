"""Functions in real requests: what the bundled ones do, modules built elsewhere, and modules that misbehave
at load and at work."""
import os
import pwd
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from kit import need, raw, until
from kit.raw import answer, fetch
from kit.weir import TOP

ZOO = TOP / "tests" / "modules"
FROZEN = TOP / "tests" / "abi" / "1.0"  # modules that know no newer header than that beside them


def build(source, out, cc=("cc", "-O1")):
    """A module as its author would build it: the public header, that beside it if there is one, and nothing else."""
    include = Path(source).parent if (Path(source).parent / "weir").is_dir() else TOP / "src" / "include"
    flags = re.match(r"/\* flags:([^\n]*)", Path(source).read_text())
    subprocess.run([*cc, "-std=c11", "-D_GNU_SOURCE", "-fPIC", "-shared", "-fvisibility=hidden",
                    f"-I{include}", *(flags.group(1).split() if flags else []),
                    "-o", str(out), str(source)], check=True)
    return out


@pytest.fixture(scope="session")
def zoo(tmp_path_factory):
    """bad("null") is the path of that misbehaving module; built once, where nobody else may write."""
    import tempfile
    folder = Path(tempfile.mkdtemp(prefix="zoo", dir=Path.home()))
    folder.chmod(0o755)
    made = {}

    def bad(name):
        if name not in made:
            made[name] = build(ZOO / f"bad_{name}.c", folder / f"bad_{name}.so")
        return made[name]

    yield bad
    shutil.rmtree(folder)


def one(path, name, words="", action="respond 200 ok;"):
    return (f"module {name} {path}; listen 127.0.0.1:@http@; "
            f"host * {{ route / {{ function {name} {words}; {action} }} }}")


# ---------------------------------------------------------------- headers


def test_headers_both_ways(weir, server):
    s = server(answer(b"x", fields=[("Server", "old"), ("Set-Cookie", "a=1; path=/app"), ("Set-Cookie", "b=2"),
                                    ("Location", "http://10.0.0.1:81/x?y")]))
    w = weir("""module headers; upstream u { server @backend@; } listen 127.0.0.1:@http@;
        host * {
            function headers { set response X-Order host; }
            route ~ '^/u/(?<id>\\d+)' {
                function headers {
                    set request X-User $id;
                    add request X-Twice 1;
                    add request X-Twice $arg_q;
                    remove request X-Gone;
                    remove response Server;
                    replace response Set-Cookie '; *path=/app' '; Path=/';
                    replace response Location '^http://[^/]+/(.*)$' https://$host/$1;
                    add response X-Order route;
                }
                proxy u;
            }
            route / { respond 200 plain; }
        }""", backend=s)
    r = fetch(w.http, "/u/42?q=7", fields={"x-gone": "1", "x-user": "forged"})
    q = s.last()
    assert q.all("x-user") == ["42"]
    assert q.all("x-twice") == ["1", "7"]
    assert "x-gone" not in q
    assert "server" not in r
    assert r.all("set-cookie") == ["a=1; Path=/", "b=2"]
    assert r.get("location") == "https://a.test/x?y"
    assert r.all("x-order") == ["host"], "response functions run in reverse: the host's last"
    assert fetch(w.http, "/").get("x-order") == "host"


def test_what_a_function_sets_cannot_be_nominated_away(weir, server):
    """Connection takes off what the client has sent, not what the server is told of the client."""
    s = server(answer(b"x", fields=[("Connection", "x-b"), ("X-B", "server's")]))
    w = weir("""module headers; upstream u { server @s@; } listen 127.0.0.1:@http@; host * { route / { function headers {
        set request X-User alice; add request X-Group staff; set response X-B ours; } proxy u; } }""", s=s)
    for user in ("forged", None):
        fields = [("Connection", "x-user, x-group, x-hop"), ("X-Group", "wheel"), ("X-Hop", "1")]
        r = fetch(w.http, fields=fields + ([("X-User", user)] if user else []))
        q = s.last()
        assert (q.all("x-user"), q.all("x-group"), "x-hop" in q) == (["alice"], ["staff"], False)
        assert r.all("x-b") == ["ours"]


def test_a_line_break_cannot_be_injected(weir):
    w = weir("module headers; listen 127.0.0.1:@http@; host * { route / { "
             "function headers { set response X-A $arg_a; } respond 200; } }")
    assert fetch(w.http, "/?a=fine").get("x-a") == "fine"
    r = fetch(w.http, "/?a=b%0d%0aSet-Cookie:%20c=1")
    assert "set-cookie" not in r and len(r.all("x-a")) <= 1


@pytest.mark.parametrize("line", ["set response Content-Length 1;", "set request Host x;",
                                  "set response 'X Y' 1;", "sett response X 1;", "set X 1;",
                                  "replace response X '(' y;", "replace response X 'a' $1;",
                                  "set response X $nothing;"])
def test_mistakes_in_a_functions_block(weir, line):
    w = weir("module headers; listen 127.0.0.1:1;\nhost * { route / { function headers {\n    " + line
             + "\n} respond 200; } }", start=False)
    done = w.command("-t")
    assert done.returncode == 1
    assert re.search(r"weir\.conf:4:\d+: ", done.stderr), done.stderr


# ---------------------------------------------------------------- modules built elsewhere


def test_the_template(weir, tmp_path):
    shutil.copytree(TOP / "contrib" / "module-template", tmp_path / "t")
    (tmp_path / "weir.pc").write_text(
        f"moduledir={tmp_path}/modules\nName: weir\nDescription: x\nVersion: 1\nCflags: -I{TOP}/src/include\n")
    env = {**os.environ, "PKG_CONFIG_PATH": str(tmp_path)}
    subprocess.run(["make", "-s", "install"], cwd=tmp_path / "t", env=env, check=True)
    w = weir(f"module example {tmp_path}/modules/example.so; listen 127.0.0.1:@http@; host * {{ route / {{ "
             "function example { host a.test alpha; } respond 200 $example_tenant; } }")
    assert fetch(w.http, host="a.test").body == b"alpha"
    assert fetch(w.http, host="b.test").status == 421
    w.wait_metric("weir_example_refused_total", 1)


STDIO = """
#include <weir/module.h>

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
@no_macros@
static weir_rc request(weir_req *r, const void *inst, void *ctx)
{
        char text[32];

        (void)inst;
        (void)ctx;
        snprintf(text, sizeof(text), "%s", "by libc");
        return weir->respond(r, 200, weir->format(r, "%d %s", 1, text));
}
WEIR_MODULE(.name = "stdio", .version = "1.0", .on_request = request);
"""


@pytest.mark.parametrize("compiler", ["cc", "clang"])
def test_no_call_is_a_macro_of_the_c_library(weir, zoo, compiler):
    """clang with _FORTIFY_SOURCE makes printf and its kin macros: a call of that name would not compile."""
    calls = re.findall(r"(?m)^weir_host\.(\w+) ", (FROZEN / "layout.txt").read_text())
    assert "format" in calls
    source = zoo("null").with_name("stdio.c")
    source.write_text(STDIO.replace("@no_macros@", "\n".join(
        f"#ifdef {name}\n#error {name} is a macro\n#endif" for name in calls)))
    cc = (need(compiler), "-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-Wall", "-Werror")
    path = build(source, source.with_name(f"stdio-{compiler}.so"), cc)
    w = weir(f"module stdio {path}; listen 127.0.0.1:@http@; host * {{ route / {{ function stdio; respond 500; }} }}")
    assert fetch(w.http).body == b"1 by libc"


# ---------------------------------------------------------------- what a function may do


@pytest.fixture
def every(weir, zoo, redis):
    """A weir whose routes call the module that behaves."""
    path = build(FROZEN / "every_call.c", zoo("null").with_name("every_call.so"))
    return weir(f"threads 1; module every_call {path}; redis main {{ server {redis()}; timeout command=2s; }} "
                "listen 127.0.0.1:@http@; host * { route / { function every_call name=f store=main; "
                "respond 200 $every_call_seen; } }")


@pytest.mark.parametrize("path, body", [
    ("/plain", b"saw /plain"),
    ("/timer", b"timer done"),
    ("/redis", b"set=OK;get=v;"),
    ("/script", b"key arg 7"),
    ("/thread", b"from a thread"),
    ("/store", b"1 kept 0"),
    ("/headers", b"1 in all -4 -2"),
    ("/forms", b"617a az baad json 1"),
])
def test_calls_of_the_host(every, path, body):
    r = fetch(every.http, path, fields={"x-in": "in"})
    assert (r.status, r.body, r.get("x-seen")) == (200, body, "response")
    if path == "/headers":
        assert r.all("x-out") == ["in", "2"]


@pytest.fixture
def more(weir, zoo, redis, server, ca):
    """A weir whose routes call the other module that behaves; .main and .other are its servers."""
    path = build(FROZEN / "more_calls.c", zoo("null").with_name("more_calls.so"))
    main = server(answer(b"main", fields=[("X-Server", "1")]))
    other = server(answer(b"other"))
    cert, key = ca.cert("a.test")
    w = weir(f"""threads 2; module more_calls {path}; redis r {{ server {redis()}; timeout command=2s; }}
        upstream main {{ server @main@; }} upstream other {{ server @other@; }}
        listen 127.0.0.1:@http@; listen 127.0.0.1:@https@ tls {{ certificate {cert} key={key}; }}
        host * {{ route / {{ function more_calls name=f store=r other=other; proxy main; }} }}""",
             main=main, other=other)
    w.main, w.other_server = main, other
    return w


@pytest.mark.parametrize("target, body", [
    ("/commands", b"5 \"PONG\"\n3 0\n1 null\n5 \"OK\"\n3 3\n8 ERR\n6 [1,[\"a\",[]],null,\"b\"]\n"),
    ("/variables?q=a%20b&z", b"GET a.test /variables?q=a%20b&z q=a%20b&z a b 1 in own 0 -4 0 -6 -"),
    ("/peer", b"127.0.0.1 port http - - none"),
    ("/texts?q=7", b"127.0.0.1 7|10|a<bb-c><b-d>|f|{\"a\":[1.5,\"\xc3\xa4\"]}"),
    ("/digests", b'+/8= -_8 2 a%20b "\\"\\n" f7d8 1 1 0'),
    ("/keys", b"1 0 0 0"),
    ("/other", b"other"),
    ("/named", b"other"),
    ("/plain", b"main"),
])
def test_more_calls_of_the_host(more, target, body):
    r = fetch(more.http, target, fields={"x-in": "in", "cookie": "s=1"})
    assert (r.status, r.body, "x-server" in r) == (200, body, False)
    more.wait_metric("weir_more_calls_logged_total", 1, function="f")


def test_what_a_function_changes_is_sent(more):
    assert fetch(more.http, "/change?x=0", fields={"x-in": "in"}).body == b"main"
    q = more.main.last()
    assert (q.method, q.target, q.get("host"), "x-in" in q) == ("PUT", "/new?y=a%20b%26c", "h.example", False)
    assert fetch(more.http, "/status").status == 202


def test_facts_of_tls(more, ca):
    r = fetch(more.https, "/peer", tls=ca.client(), name="a.test")
    assert r.body == b"127.0.0.1 port https TLSv1.3 a.test cipher", r.body


def test_clocks(more):
    before = time.time()
    now, wall, left = (int(n) for n in fetch(more.http, "/clocks").body.split())
    assert before - 1 < wall / 1e6 < time.time() + 1 and left == 1
    assert int(fetch(more.http, "/clocks").body.split()[0]) >= now


def test_background_work_of_each_loop(more):
    until(lambda: more.metric("weir_more_calls_ticks_total", function="f") > 20, "both loops to go on")
    more.reload()
    n = more.metric("weir_more_calls_ticks_total", function="f")
    until(lambda: more.metric("weir_more_calls_ticks_total", function="f") > n + 20, "the new ones to go on")
    until(lambda: len(more.status()["generations"]) == 1, "the old ones to end")


def test_a_mistake_at_its_place(more):
    text = more.conf.read_text().replace("other=other", "other=other\nrefuse=on")
    assert "refuse=on" in text
    more.conf.write_text(text)
    done = more.command("-t")
    assert done.returncode == 1
    assert re.search(r"weir\.conf:\d+:8: .*as you wish", done.stderr), done.stderr


def test_a_function_is_observed(every):
    first = [int(n) for n in fetch(every.http, "/observe").body.split()]
    assert first[0] == 1001, "what belongs to the loop"
    until(lambda: int(fetch(every.http, "/observe").body.split()[1]) > first[1] + 3,
          "the periodic job of the control thread to show in the cell")
    w = every
    calls = int(fetch(w.http, "/observe").body.split()[0]) - 1000
    assert w.metric("weir_every_call_calls_total", function="f", kind="any") == 2 * calls
    assert w.metric("weir_every_call_level", function="f") == 5
    assert w.metric("weir_every_call_size_bucket", function="f", le="1") == 0
    assert w.metric("weir_every_call_size_bucket", function="f", le="10") == calls
    w.wait_log(r"\[function every_call f \(weir\.conf:2\) request \w+\] a line of its own")
    w.wait_log(re.escape(r'] said\x0aso plain=/a-b:1 a_name="two words" empty="" odd="\"\\\x0a"'))


def test_a_loop_goes_on_while_functions_wait(every, connect):
    waiting = [connect(every.http).send(raw.request(target="/timer")) for _ in range(20)]
    for _ in range(20):
        assert fetch(every.http, "/plain").status == 200
    assert {c.response().body for c in waiting} == {b"timer done"}
    gone = connect(every.http).send(raw.request(target="/timer"))
    gone.reset()
    assert fetch(every.http, "/thread").body == b"from a thread"


NUMBER = """
#include <weir/module.h>
static weir_rc late(weir_task *r, const void *i, void *c, void *a)
{ (void)i; (void)c; (void)a; return weir->respond(r, 200, WEIR_STR("%d")); }
static weir_rc on_request(weir_req *r, const void *i, void *c)
{ (void)i; (void)c; return weir->timer(r, 1000000, late, NULL); }
WEIR_MODULE(.name = "number", .version = "1.0", .on_request = on_request);
"""


def test_a_generation_keeps_its_own_code(weir, zoo, connect):
    """Whether the file was replaced, overwritten or cut: who waits in old code ends in it."""
    source, path = zoo("null").with_name("number.c"), zoo("null").with_name("number.so")

    def make(n):
        source.write_text(NUMBER % n)
        return build(source, path.with_name(f"number-{n}.so"))

    shutil.copy(make(1), path)
    w = weir(one(path, "number"))
    old = connect(w.http).send(raw.request())
    fetch(w.http)  # the first one is in its hook by now
    path.write_bytes(make(2).read_bytes())  # in place
    w.reload()
    new = connect(w.http).send(raw.request())
    os.truncate(path, 0)
    assert old.response().body == b"1"
    assert new.response().body == b"2"
    w.reload(ok=False)
    assert fetch(w.http).body == b"2"


# ---------------------------------------------------------------- misbehaving at load


@pytest.mark.parametrize("name, says", [
    ("execstack", "asks for an executable stack"),
    ("signal", "calls signal()"),
    ("key", "calls pthread_key_create()"),
    ("abi", "was built for ABI 2.0"),
    ("noentry", "does not export weir_module_entry"),
    ("create", "this will not do"),
    ("case", 'case "answers" failed'),
    ("abort", ""),
    ("exit", ""),
    ("load_abort", ""),
])
def test_refused_at_load(weir, zoo, name, says):
    good = "listen 127.0.0.1:@http@; host * { route / { respond 200 good; } }"
    w = weir(good, leaks=name != "exit")  # it ends the checker in the middle of its work
    done = w.reload(one(zoo(name), f"bad_{name}"), ok=False)
    assert says in done.stdout + done.stderr + w.log()
    assert fetch(w.http).body == b"good"
    w.reload(good)
    assert fetch(w.http).body == b"good"


def test_a_loop_that_cannot_be_prepared_aborts_the_reload(weir, zoo):
    w = weir("listen 127.0.0.1:@http@; host * { route / { respond 200 good; } }")
    w.reload(one(zoo("loop_init"), "bad_loop_init"), ok=False)
    assert fetch(w.http).body == b"good"


def test_a_module_that_anybody_can_write(weir, zoo, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only a weir that was started as root looks at this")
    path = zoo("nodelete").with_name("writable.so")
    shutil.copy(zoo("nodelete"), path)
    path.chmod(0o666)
    w = weir(one(path, "bad_nodelete"), start=False)
    done = w.command("-t")
    assert done.returncode == 1 and f"{path} can be written by anybody" in done.stderr
    path.chmod(0o664)
    os.chown(path, 0, 54321)
    done = w.command("-t")
    assert done.returncode == 1 and f"{path} can be written by group 54321" in done.stderr


def test_a_module_of_somebody_else(weir, zoo):
    """Whoever owns it could put other code there: at a reload too, and before any of it has run."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = zoo("nodelete").with_name("foreign.so")
    shutil.copy(zoo("nodelete"), path)
    os.chown(path, 54321, 0)
    w = weir("listen 127.0.0.1:@http@; host * { route / { respond 200 good; } }")
    said = w.reload(one(path, "bad_nodelete"), ok=False).stderr
    assert f"module bad_nodelete: {path} belongs to uid 54321: it must belong to root" in said
    assert re.search(r"weir\.conf:\d+:\d+: ", said) and "^" in said, "where it is named"
    assert fetch(w.http).body == b"good"
    path.chmod(0o600)
    os.chown(path, pwd.getpwnam("nobody").pw_uid, 0)  # whom weir runs as: it can do no more than before
    w.reload(one(path, "bad_nodelete"))


# ---------------------------------------------------------------- misbehaving at work


@pytest.mark.parametrize("name, reason", [
    ("error", "function_error"),
    ("suspend", "function_error"),
    ("respond", "function_error"),
    ("memory", "function_error"),
    ("wait", "function_timeout"),
])
def test_fails_closed_or_open(weir, zoo, name, reason):
    w = weir(one(zoo(name), f"bad_{name}", "name=f timeout=100ms memory=64k"))
    assert fetch(w.http).status == 503
    w.wait_metric("weir_local_replies_total", 1, reason=reason)
    w.reload(one(zoo(name), f"bad_{name}", "name=f timeout=100ms memory=64k on_error=fail_open"))
    r = fetch(w.http)
    assert (r.status, r.body) == (200, b"ok")
    w.wait_metric("weir_function_calls_total", 2, function="f",
                  result="timeout" if reason == "function_timeout" else "error")


def test_a_failed_response_function(weir, zoo, server):
    s = server(answer(b"secret" * 10000))
    text = (f"module headers; module bad_error_response {zoo('error_response')}; upstream u {{ server @backend@; }} "
            "listen 127.0.0.1:@http@; host * { function headers { set response X-Host 1; } route / { "
            "function bad_error_response; proxy u; } }")
    w = weir(text, backend=s)
    r = fetch(w.http)
    assert r.status == 503 and b"secret" not in r.body
    assert r.get("x-host") == "1", "the functions before it still see what is sent"


def test_too_slow_is_counted(weir, zoo):
    w = weir(one(zoo("slow"), "bad_slow", "name=f budget=5ms"))
    assert fetch(w.http).status == 200
    w.wait_metric("weir_function_over_budget_total", 1, function="f")
    w.wait_log(r"bad_slow.*on_request on route / ran for \d+ us, budget= is 5000 us")


@pytest.mark.parametrize("name", ["null", "stack"])
def test_a_crash_names_the_function_and_the_third_is_the_last(weir, zoo, name):
    w = weir(one(zoo(name), f"bad_{name}", "name=f"))
    w.crash(times=3)
    w.wait_log(rf"bad_{name}.*quarantined")
    until(lambda: fetch(w.http).status == 503, "the quarantined function to fail closed")
    w.wait_metric("weir_function_strikes_total", 3, module=f"bad_{name}")


def test_pinned_ones_are_served_and_said_to_stay(weir, zoo):
    w = weir(one(zoo("nodelete"), "bad_nodelete"))
    assert fetch(w.http).status == 200
    w.wait_log("it is marked nodelete")
    w.reload("listen 127.0.0.1:@http@; host * { route / { respond 200 other; } }")
    until(lambda: fetch(w.http).body == b"other", "the new configuration")


def test_a_function_chooses_the_server(weir, server, zoo):
    """As long as that one is up; otherwise, or if there is none of that name, the policy does."""
    path = build(FROZEN / "choose.c", zoo("null").with_name("choose.so"))
    servers = [server(answer(b"%d" % n)) for n in range(3)]
    lines = " ".join(f"server {s};" for s in servers)
    w = weir(f"""module choose {path}; listen 127.0.0.1:@http@; upstream u {{ {lines} }}
        host * {{ route / {{ function choose server=$header_want; proxy u; }} }}""")

    def who(want):
        r = fetch(w.http, fields={"want": want} if want else {})
        assert r.status == 200
        return r.body

    for n, s in enumerate(servers):
        assert {who(str(s)) for _ in range(6)} == {b"%d" % n}
    assert {who("") for _ in range(6)} == {b"0", b"1", b"2"}
    assert {who("127.0.0.9:1") for _ in range(6)} == {b"0", b"1", b"2"}
    assert w.command("server", "u", str(servers[1]), "down").returncode == 0
    assert {who(str(servers[1])) for _ in range(6)} == {b"0", b"2"}
    assert fetch(w.http, fields={"want": "a b"}).status == 503


@pytest.mark.parametrize("chosen", ["by the route", "by a function"])
def test_an_upstreams_settings_hold_whoever_chose_it(weir, server, zoo, chosen):
    """Error pages are laid over each other status by status, its timeout is the nearest one's."""
    path = build(FROZEN / "choose.c", zoo("null").with_name("choose.so"))
    silent = server(script=lambda c: (c.server.take(c), c.read_all()))
    w = weir(f"""module choose {path}; listen 127.0.0.1:@http@; error_page 502 503 504 text=top; timeout response=20s;
        upstream other {{ server {server()}; }}
        upstream u {{ server @backend@; retry off; eject off; timeout response=100ms; error_page 502 504 text=upstream; }}
        host * {{ error_page 502 503 text=host;
            route / {{ {"" if chosen == "by the route" else "function choose to=u;"}
                error_page 502 text=route; proxy {"u" if chosen == "by the route" else "other"}; }} }}""", backend=silent)
    r = fetch(w.http)
    assert (r.status, r.body) == (504, b"upstream")
    silent.stop_listening()
    r = fetch(w.http)
    assert (r.status, r.body) == (502, b"route")
    assert w.command("server", "u", silent.address, "down").returncode == 0
    r = fetch(w.http)
    assert (r.status, r.body) == (503, b"host")
