"""The recipes of weir-module(3): each builds without a warning, and its cases pass."""
import re
import subprocess

import pytest

from kit.weir import BINARY, TOP, Weir

MANUAL = TOP / "src" / "module" / "weir-module.3"
PLAIN = {r"\e": "\\", r"\-": "-", r"\(aq": "'", r"\(ga": "`", r"\(ha": "^", r"\(ti": "~", r"\&": "", r"\(dq": '"'}


def listings():
    """The texts between .nf and .fi below COOKBOOK, as a reader sees them."""
    text = MANUAL.read_text().split(".SH COOKBOOK\n")[1].split("\n.SH ")[0]
    for block in re.findall(r"^\.nf\n(.*?)^\.fi$", text, re.M | re.S):
        yield re.sub(r"\\(?:\(..|.)", lambda m: PLAIN[m.group(0)], block)


def named(listing):
    return re.search(r'WEIR_MODULE\(\.name = "(\w+)"', listing).group(1)


RECIPES = {named(text): text for text in listings() if "WEIR_MODULE(" in text}
FILES = {re.match(r"# weir module test (\w+)\.so", text).group(1): text for text in listings() if text.startswith("#")}


@pytest.fixture
def bench():
    w = Weir(start=False)

    def run(*words):
        return subprocess.run([str(BINARY), *map(str, words)], capture_output=True, text=True, cwd=w.dir,
                              env=w.environment())

    run.file = w.file
    yield run
    w.judge()
    w.clean()


def built(bench, name):
    source = bench.file(f"{name}.c", RECIPES[name])
    out = source.with_suffix(".so")
    subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared",
                    "-fvisibility=hidden", f"-I{TOP}/src/include", "-o", out, source], check=True)
    return out


def test_there_are_recipes():
    assert len(RECIPES) >= 10 and set(FILES) <= set(RECIPES) and FILES


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_recipe(bench, name):
    path = built(bench, name)
    done = bench("module", "check", path)
    assert done.returncode == 0, done.stdout
    done = bench("module", "test", path)
    assert done.returncode == 0, done.stdout
    if name in FILES:
        cases = bench.file(f"{name}.cases", FILES[name])
        done = bench("module", "test", path, cases)
        assert done.returncode == 0, done.stdout
