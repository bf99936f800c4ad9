"""Fixtures of the scenarios.  Each makes things on demand and takes them away again; weir itself is
looked at when it goes: a crash, a sanitizer's report or a bad exit fails the scenario."""
import contextlib
import shutil

import pytest

from kit import certs, raw, services
from kit.weir import Weir


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: it measures, so nothing else runs beside it")


class Maker:
    """Calls make(...) any number of times; unmakes everything in reverse order at the end."""

    def __init__(self, make, unmake):
        self.make, self.unmake, self.made = make, unmake, []

    def __call__(self, *args, **more):
        thing = self.make(*args, **more)
        self.made.append(thing)
        return thing

    def end(self):
        with contextlib.ExitStack() as stack:
            for thing in self.made:
                stack.callback(self.unmake, thing)


def finish_weir(w):
    try:
        w.stop()
    finally:
        w.clean()


def finish_server(server):
    server.close()
    assert not server.errors, f"the scripted server failed: {server.errors}"


def making(make, unmake, scope="function"):
    @pytest.fixture(scope=scope)
    def fixture():
        maker = Maker(make, unmake)
        yield maker
        maker.end()

    return fixture


def make_weir(*args, **more):
    """A weir that did not start leaves nothing behind."""
    start = more.pop("start", True)
    w = Weir(*args, start=False, **more)
    if start:
        try:
            w.start()
        except BaseException:
            w.clean()
            raise
    return w


weir = making(make_weir, finish_weir)
weir_for_all = making(make_weir, finish_weir, "module")
server = making(raw.Server, finish_server)
server_for_all = making(raw.Server, finish_server, "module")
connect = making(raw.client, lambda c: c.close())
names = making(services.Names, lambda n: n.close())
redis = making(lambda *a: services.Redis(*a).start(), lambda s: s.close())
nginx = making(lambda: services.Nginx().start(), lambda s: s.close())
node = making(lambda: services.Node().start(), lambda s: s.close())
python = making(lambda *a: services.Python(*a).start(), lambda s: s.close())


@pytest.fixture(scope="session")
def ca():
    authority = certs.Authority()
    yield authority
    shutil.rmtree(authority.dir, ignore_errors=True)
