"""weir module new, check and test: what a module's author sees, also of modules that crash and hang."""
import os
import re
import shutil
import subprocess
import time

import pytest

from kit import SLOW
from kit.weir import BINARY, TOP, Weir
from test_functions import build, zoo  # noqa: F401 (a fixture)


@pytest.fixture
def desk():
    """Runs weir in a folder of its own: desk("module", "new", "x"); desk.dir, desk.file(name, text), desk.module(name,
    text) builds one."""
    w = Weir(start=False)

    def run(*words):
        return subprocess.run([str(BINARY), *map(str, words)], capture_output=True, text=True, cwd=w.dir,
                              env=w.environment(), timeout=60 * SLOW)

    def module(name, text):
        return build(w.file(f"{name}.c", "#include <weir/module.h>\n" + text), w.dir / f"{name}.so")

    run.weir, run.dir, run.file, run.module = w, w.dir, w.file, module
    yield run
    w.judge()
    w.clean()


def make(folder, *words):
    return subprocess.run(["make", "-s", f"WEIR_INCLUDE={TOP}/src/include", f"WEIR={BINARY}", *words], cwd=folder,
                          capture_output=True, text=True)


# ---------------------------------------------------------------- new


def test_a_new_one_builds_and_passes(desk):
    done = desk("module", "new", "greet")
    assert done.returncode == 0 and done.stdout.endswith("cd greet && make && make test\n")
    folder = desk.dir / "greet"
    assert sorted(p.name for p in folder.iterdir()) == ["Makefile", "README.md", "greet.c", "greet.cases"]
    assert make(folder).returncode == 0
    done = make(folder, "test")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert re.match(r"greet 1\.0 \(greet\.so\): ABI 1\.\d+, content [0-9a-f]{12}, hooks on_request, 3 arguments, "
                    r"1 case, needs \d+ bytes of the host's table \(this weir has \d+\)$", lines[0])
    assert lines[-1] == "3 passed, 0 failed" and all(line.startswith("ok ") for line in lines[1:-1])


def test_the_template_itself_passes(desk):
    subprocess.run(["cp", "-r", TOP / "contrib" / "module-template", desk.dir / "t"], check=True)
    done = make(desk.dir / "t", "test")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_change_that_breaks_it_is_found(desk):
    desk("module", "new", "greet")
    source = desk.dir / "greet" / "greet.c"
    source.write_text(source.read_text().replace("421", "403"))
    done = make(desk.dir / "greet", "test")
    assert done.returncode != 0
    assert re.search(r'^FAILED a host of nobody: greet\.cases:\d+: wanted "respond 421", got "respond 403"$',
                     done.stdout, re.M), done.stdout


def test_new_in_another_folder(desk):
    done = desk("module", "new", "greet", desk.dir / "sub")
    assert done.returncode == 1 and "No such file or directory" in done.stderr
    (desk.dir / "sub").mkdir()
    assert desk("module", "new", "greet", desk.dir / "sub").returncode == 0
    assert (desk.dir / "sub" / "greet" / "greet.c").exists()


def test_what_is_there_is_left_alone(desk):
    (desk.dir / "greet").mkdir()
    (desk.dir / "greet" / "greet.c").write_text("mine")
    done = desk("module", "new", "greet")
    assert done.returncode == 1 and "greet: is there already" in done.stderr
    assert [p.name for p in (desk.dir / "greet").iterdir()] == ["greet.c"]
    assert (desk.dir / "greet" / "greet.c").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_cannot_be_written(desk):
    mine = shutil.copy(BINARY, desk.dir / "weir")  # the build may be where nobody can look
    done = subprocess.run([mine, "module", "new", "greet"], capture_output=True, text=True, cwd=desk.dir,
                          env=desk.weir.environment(), user="nobody", group="nogroup", extra_groups=[])
    assert done.returncode == 1 and "greet: Permission denied" in done.stderr
    assert not (desk.dir / "greet").exists()


@pytest.mark.parametrize("name", ["Greet", "9a", "a-b", "../a", "a/b", "x" * 65])
def test_names_that_cannot_be(desk, name):
    done = desk("module", "new", name)
    assert done.returncode == 1 and "a module's name is made of a-z, 0-9 and _" in done.stderr


# ---------------------------------------------------------------- check


@pytest.mark.parametrize("name,said", [
    ("noentry", "does not export weir_module_entry"),
    ("abi", r"was built for ABI 2\.0, this weir has 1\.\d+"),
    ("load_abort", r": signal 6 \(Aborted\) while loading"),
    ("load_hang", ": did not end within 10 s while loading"),
    ("execstack", "executable stack"),
    ("signal", r"calls signal\(\)"),
    ("case", 'its case "answers" failed: wanted "respond 200", got "continue"'),
])
def test_check_says_why_not(desk, zoo, name, said):  # noqa: F811
    begin = time.monotonic()
    done = desk("module", "check", zoo(name))
    assert done.returncode == 1
    assert re.fullmatch(rf"{re.escape(str(zoo(name)))}.*{said}.*\n", done.stdout), done.stdout
    assert time.monotonic() - begin < 30 * SLOW


def test_check_of_what_is_no_module(desk):
    path = desk.file("text.so", "not an ELF\n")
    done = desk("module", "check", path)
    assert (done.returncode, done.stdout) == (1, f"{path} is not an ELF file\n")
    done = desk("module", "check", "nothing.so")
    assert (done.returncode, done.stdout) == (1, "nothing.so: No such file or directory\n")
    done = desk("module", "check", desk.dir)
    assert (done.returncode, done.stdout) == (1, f"{desk.dir}: Is a directory\n")


def test_check_says_what_stays_in_memory(desk, zoo):  # noqa: F811
    done = desk("module", "check", zoo("nodelete"))
    assert done.returncode == 0 and "stays in memory when it is replaced: it is marked nodelete" in done.stdout


def test_an_exit_while_loading_is_not_success(desk):
    path = desk.module("leaver", """#include <stdlib.h>
        __attribute__((constructor)) static void leave(void) { _Exit(0); }
        WEIR_MODULE(.name = "leaver", .version = "1");""")
    done = desk("module", "check", path)
    assert (done.returncode, done.stdout) == (1, f"{path}: exit status 0 while loading\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="about root's rights")
def test_what_is_tried_has_no_rights(desk):
    path = desk.module("rootless", """#include <stdlib.h>
        #include <unistd.h>
        __attribute__((constructor)) static void look(void) { if (geteuid() == 0 || getegid() == 0) _Exit(7); }
        WEIR_MODULE(.name = "rootless", .version = "1");""")
    done = desk("module", "check", path)
    assert done.returncode == 0, done.stdout


# ---------------------------------------------------------------- test

HOOK = """
#include <stdio.h>
static weir_rc on_get(weir_task *t, const void *i, void *c, const weir_value *v, void *arg)
{
        (void)i, (void)c, (void)arg;
        if (v->type == WEIR_V_STRING)
                weir->header_set(t, WEIR_REQUEST, WEIR_STR("x-got"), v->str);
        return v->type == WEIR_V_FAIL ? WEIR_ERROR : WEIR_CONTINUE;
}
struct conf { weir_redis *store; int64_t ttl; };
static const weir_arg args[] = {
        WEIR_ARG(struct conf, store, REDIS, 0, "main", "x"), WEIR_ARG(struct conf, ttl, TIME, 0, "5s", "x")};
static weir_rc hook(weir_req *r, const void *inst, void *ctx)
{
        const struct conf *conf = inst;
        weir_str path, seen;

        (void)ctx;
        weir->var_get(r, WEIR_STR("path"), &path);
        if (weir_eq(path, WEIR_STR("/crash"))) {
                fprintf(stderr, "about to crash\\n");
                *(volatile int *)0 = 1;
        }
        while (weir_eq(path, WEIR_STR("/hang")))
                ;
        if (weir_eq(path, WEIR_STR("/no")))
                return weir->respond(r, 403, WEIR_STR("no\\n"));
        if (weir->local_get(r, WEIR_STR("seen"), &seen))
                return weir->respond(r, 429, WEIR_STR("again\\n"));
        weir->local_set(r, WEIR_STR("seen"), WEIR_STR("1"), conf->ttl);
        return weir->redis(r, conf->store, on_get, NULL, WEIR_ARGV(WEIR_STR("GET"), path));
}
static const weir_case cases[] = {
        { .name = "own", .request = "GET /no HTTP/1.1\\nhost: a\\n\\n", .expect = "respond 403" }};
WEIR_MODULE(.name = "m", .version = "1", WEIR_ARGS(struct conf, args), WEIR_CASES(cases), .on_request = hook);
"""

CASES = """# All kinds of endings.
case answered
redis $value
request
    GET /key HTTP/1.1
    host: a
expect
    continue
    req x-got: value
    redis GET /key

case crashes
request GET /crash HTTP/1.1
    host: a
expect continue

case time passes
config ttl=10s
redis _
    ~
request
    GET /a HTTP/1.1
    host: a
expect continue
wait 9s
request
    GET /a HTTP/1.1
    host: a
expect
    respond 429
    body again
wait 2s
request
    GET /a HTTP/1.1
    host: a
expect error

case wrong
request GET /no HTTP/1.1
    host: a
expect
    respond 403
    res x-none: 1

case misspelt configuration
config {
    tll 5s;
}
expect continue
"""


def test_cases_of_a_file(desk):
    desk.weir.deaths_expected = True
    path, cases = desk.module("m", HOOK), desk.file("m.cases", CASES)
    done = desk("module", "test", path.name, cases.name)
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if not line.startswith("    ")]
    assert said == [
        "ok answered",
        "FAILED crashes: m.cases:12: signal 11 (Segmentation fault) in on_request",
        "ok time passes",
        'FAILED wrong: m.cases:43: wanted "res x-none: 1", got "res -x-none"; the verdict was "respond 403"',
        "FAILED misspelt configuration: m.cases:47: its configuration was refused:",
        "2 passed, 3 failed",
    ], done.stdout
    assert "    about to crash\n" in done.stdout
    assert 'no parameter "tll" (did you mean "ttl"?)' in done.stdout


def test_a_case_that_hangs_is_ended(desk):
    path = desk.module("m", HOOK)
    desk.file("m.cases", "case hangs\nrequest GET /hang HTTP/1.1\n    host: a\nexpect continue\n"
                         "case goes on\nrequest GET /no HTTP/1.1\n    host: a\nexpect respond 403\n")
    done = desk("module", "test", path.name, "m.cases")
    assert done.stdout == ("FAILED hangs: m.cases:1: did not end within 10 s in on_request\n"
                           "ok goes on\n1 passed, 1 failed\n")
    assert done.returncode == 1


def test_the_modules_own_cases(desk, zoo):  # noqa: F811
    done = desk("module", "test", desk.module("m", HOOK))
    assert (done.returncode, done.stdout) == (0, "ok own\n1 passed, 0 failed\n")
    done = desk("module", "test", zoo("null"))
    assert done.returncode == 1 and "has no cases of its own" in done.stderr


def test_a_module_that_cannot_be_loaded_fails_once(desk, zoo):  # noqa: F811
    cases = desk.file("m.cases", CASES)
    done = desk("module", "test", zoo("load_abort"), cases)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if not line.startswith("    ")]
    assert lines == [f"FAILED {zoo('load_abort')}: signal 6 (Aborted) while loading", "0 passed, 5 failed"]


def test_mistakes_in_a_file_of_cases(desk):
    path = desk.module("m", HOOK)
    desk.file("m.cases", "case a\nexpct continue\n")
    done = desk("module", "test", path, "m.cases")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith('m.cases:2:1: "expct" is no section of a case')
    assert '(did you mean "expect"?)' in done.stderr
    done = desk("module", "test", path, "none.cases")
    assert done.returncode == 1 and "none.cases: No such file or directory" in done.stderr


# ---------------------------------------------------------------- what the bundled ones say


@pytest.mark.parametrize("name", ["headers", "ratelimit"])
def test_bundled_modules(desk, name):
    path = Weir(start=False).values["modules"] / f"{name}.so"
    assert desk("module", "check", path).returncode == 0
    done = desk("module", "test", path)
    assert done.returncode == 0 and done.stdout.endswith(" passed, 0 failed\n"), done.stdout


@pytest.mark.parametrize("words,said", [
    ("modul check x", 'did you mean "module"?'),
    ("module chekc x", 'did you mean "check"?'),
    ("module check", "module check: wants a FILE.so"),
    ("module new", "module new: wants a NAME"),
    ("functions claer x", 'did you mean "clear"?'),
])
def test_words_that_are_not_understood(desk, words, said):
    done = desk(*words.split())
    assert done.returncode == 1 and said in done.stderr and "usage: weir" in done.stderr
