"""What the scenarios are made of: weir itself, raw sockets on both of its sides, real servers."""
import os
import random
import re
import shutil
import socket
import tempfile
import time

HOST = "127.0.0.1"

# Sanitizers make everything slower; every wait is stretched by this.
SLOW = float(os.environ.get("WEIR_FLOW_SLOW", "1"))

_given = set()
# Several processes may run scenarios side by side (pytest-xdist): each has ports of its own.
_PORTS = 2000
_FIRST = 15000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8 * _PORTS


def free_port():
    """A port below the ephemeral range, so that no outgoing connection can take it meanwhile."""
    while True:
        port = random.randrange(_FIRST, _FIRST + _PORTS)
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind((HOST, port))
            except OSError:
                continue
        _given.add(port)
        return port


def until(condition, what, seconds=5.0):
    """Waits until condition() is true and returns its value; fails with what it waited for."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            detail = what() if callable(what) else what
            raise AssertionError(f"waited {seconds * SLOW:g} s for: {detail}")
        time.sleep(0.005)


def temp_dir():
    """Short (unix socket paths are at most 107 bytes) and readable by the user weir drops to."""
    path = tempfile.mkdtemp(prefix="wf-", dir="/tmp")
    os.chmod(path, 0o755)
    return path


def need(program):
    """The path of a program that a scenario needs; without it the scenario is skipped, or fails
    where everything is meant to be there (WEIR_FLOW_STRICT)."""
    import pytest

    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path:
        return path
    if os.environ.get("WEIR_FLOW_STRICT"):
        pytest.fail(f"{program} is not installed")
    pytest.skip(f"{program} is not installed")


def one_line(text):
    return re.sub(r"\s+", " ", text).strip()
