"""A kernel with TLS, where the machine's has none: see ktls.c."""
import subprocess
from pathlib import Path

from . import need

SOURCE = Path(__file__).with_name("ktls.c")
V12, V13 = 0x0303, 0x0304
AES128, AES256, CHACHA = 51, 52, 54  # as in linux/tls.h


def build(folder):
    """The library, made there."""
    library = folder / "ktls.so"
    subprocess.run([need("cc"), "-O1", "-g", "-shared", "-fPIC", "-o", library, SOURCE, "-lcrypto"], check=True)
    return library


class Kernel:
    """What a weir must be started with to have one, and what it was asked to do."""

    def __init__(self, library, folder, refuse=None, sndbuf=None):
        self.path = folder / "report"
        self.path.touch()
        self.path.chmod(0o666)
        self.env = {"LD_PRELOAD": str(library), "KTLS_REPORT": str(self.path)}
        if refuse:
            self.env["KTLS_REFUSE"] = str(refuse)
        if sndbuf:
            self.env["KTLS_SNDBUF"] = str(sndbuf)

    def lines(self, word):
        """The numbers behind word, of each line that begins with it."""
        return [tuple(map(int, rest)) for first, *rest in map(str.split, self.path.read_text().splitlines())
                if first == word]

    def keys(self):
        return self.lines("keys")

    def data(self):
        """Bytes of application data that it has encrypted."""
        return sum(n for n, in self.lines("data"))

    def controls(self, kind):
        return [n for k, n in self.lines("control") if k == kind]
