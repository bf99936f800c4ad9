"""The interface that lasts: what modules were once built against is still there, and they still load.

tests/abi/MAJOR.MINOR has, for each interface that was released, the header as it was, the layout that
test_layout compares, and modules built against that header, with which the other scenarios work.  Nothing in
such a folder changes any more.  A new minor gets a folder of its own, with the line of its header below."""
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from kit.weir import BINARY, TOP
from test_functions import FROZEN, build

HEADER = TOP / "src" / "include" / "weir" / "module.h"
RELEASED = {"1.0": "8e2ef08c1b549d70f3fa15ff797a34c41592a867a3ef32f0e2afcf49eebc618c"}
FIXTURES = sorted(path.stem for path in FROZEN.glob("*.c"))


def words(text):
    """Without comments, and one space where there were any."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S).replace("\\\n", " ")
    return re.sub(r"\s+", " ", text)


def interface(path):
    """What a header promises: the fields of its structs in order, its constants, other types, macros."""
    text = path.read_text()
    plain = words(text)
    structs = {name: [field.strip() for field in body.split(";") if field.strip()]
               for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", plain)}
    constants = {}
    for body in re.findall(r"\benum \{(.*?)\}", plain):
        for one in body.split(","):
            if one.strip():
                name, value = (part.strip() for part in one.split("="))
                constants[name] = value
    macros = set(re.findall(r"^#define (\w+(?:\([^)]*\))?)", text.replace("\\\n", " "), re.M))
    types = set(re.findall(r"typedef (?!struct \w+ \{)[^;{]*;", plain))
    inlines = set(re.findall(r"static inline ([^{;]*?\))", plain))
    return structs, constants, types, macros, inlines


def test_a_released_header_stays_as_it_was():
    for minor, digest in RELEASED.items():
        header = TOP / "tests" / "abi" / minor / "weir" / "module.h"
        assert hashlib.sha256(header.read_bytes()).hexdigest() == digest, minor
    assert {path.name for path in (TOP / "tests" / "abi").iterdir() if path.is_dir()} == set(RELEASED)


@pytest.mark.parametrize("minor", RELEASED)
def test_the_header_only_grows(minor):
    old = interface(TOP / "tests" / "abi" / minor / "weir" / "module.h")
    new = interface(HEADER)
    assert len(old[0]) >= 12 and len(old[1]) >= 70 and len(old[3]) >= 40 and old[2] and old[4]
    assert any("upstream_set" in field for field in old[0]["weir_host"])
    for name, fields in old[0].items():
        assert new[0][name][:len(fields)] == fields, name
    for name in ("weir_str", "weir_kv", "weir_list", "weir_text", "weir_rate"):
        assert new[0][name] == old[0][name], f"{name} has no size, so it cannot grow"
    for name, value in old[1].items():
        assert new[1][name] == value, name
    assert old[2] <= new[2], old[2] - new[2]
    assert old[4] <= new[4], old[4] - new[4]
    assert {re.sub(r"\(.*", "", m) for m in old[3]} <= {re.sub(r"\(.*", "", m) for m in new[3]}


def test_a_header_that_shrinks_is_seen(tmp_path):
    """What the test above would say of each kind of broken promise."""
    old = interface(HEADER)
    text = HEADER.read_text()
    for before, after, kind in (
            ("        weir_rc  (*respond)(weir_req *, int32_t status, weir_str body);\n", "", 0),
            ("int32_t status, weir_str body)", "int64_t status, weir_str body)", 0),
            ("WEIR_T_FIELD    = 2,", "WEIR_T_FIELD    = 22,", 1),
            ("typedef int32_t weir_rc;", "typedef int64_t weir_rc;", 2),
            ("#define WEIR_HAS(fn)", "#define WEIR_HAD(fn)", 3),
            ("static inline int weir_eq(weir_str a,", "static inline int weir_eq(const weir_str *a,", 4)):
        assert text.count(before) == 1, before
        changed = tmp_path / "module.h"
        changed.write_text(text.replace(before, after))
        new = interface(changed)
        assert [a == b for a, b in zip(old, new)] == [i != kind for i in range(5)], before


@pytest.fixture(scope="module")
def folder():
    path = Path(tempfile.mkdtemp(prefix="abi", dir=Path.home()))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_there_are_fixtures():
    assert len(FIXTURES) >= 9
    used = "".join(path.read_text() for path in FROZEN.glob("*.c"))
    table = [re.search(r"\(\*(\w+)\)\(", field) for field in interface(FROZEN / "weir" / "module.h")[0]["weir_host"]]
    unused = [call.group(1) for call in table if call and f"weir->{call.group(1)}(" not in used]
    assert unused == [], "a host call that no frozen module makes"


@pytest.mark.parametrize("name", FIXTURES)
def test_a_module_of_then_loads(folder, name):
    """weir module check loads it and runs its cases; what it does in requests, other scenarios see."""
    path = build(FROZEN / f"{name}.c", folder / f"{name}.so")
    said = subprocess.run([str(BINARY), "module", "check", str(path)], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0 and "ABI 1.0" in said.stdout, said.stdout + said.stderr
