"""The real binary: writes its configuration, starts it, waits until it is ready, asks its admin
listener, reloads and stops it, and looks for what must never be in its log."""
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
from pathlib import Path

from . import SLOW, free_port, raw, temp_dir, until

TOP = Path(__file__).resolve().parents[3]
RACES = re.compile(r"WARNING: ThreadSanitizer.*")
REPORTS = re.compile(r"(ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|panic: ).*")


def build_dir():
    if os.environ.get("WEIR_BUILD"):
        return Path(os.environ["WEIR_BUILD"])
    for path in (TOP / "build", TOP):
        if (path / "weir").exists():
            return path
    return TOP / "build"


BUILD = build_dir()
BINARY = Path(os.environ.get("WEIR_BIN", BUILD / "weir"))
MODULES = Path(os.environ.get("WEIR_MODULES", BUILD / "modules" / ".libs"))

# What every scenario has unless it says otherwise itself.
PRELUDE = [
    ("error_log", "error_log stderr level=info;"),
    ("admin", "admin 127.0.0.1:@admin@;"),
    ("control", "control unix:@dir@/control.sock;"),
    ("pid_file", "pid_file @dir@/weir.pid;"),
    ("module_path", "module_path @modules@;"),
    ("threads", f"threads {os.environ.get('WEIR_FLOW_THREADS', '1')};"),
    ("shutdown_timeout", "shutdown_timeout 2s;"),
]


class Weir:
    """One running weir.  In its configuration @NAME@ is a value given as NAME=, else a free port
    that is then w.NAME; @dir@ is its folder."""

    def __init__(self, config="", files=None, start=True, user=None, args=(), env=None, leaks=True, **values):
        self.dir = Path(temp_dir())
        self.values = {"dir": self.dir, "modules": MODULES, **values}
        self.user = user
        self.binary = BINARY
        if user:
            self._bring()
        self.args = list(args)
        self.env = env or {}
        self.leaks = leaks  # whether the sanitizer looks for them
        self.deaths_expected = False
        self.process = None
        self.conf = self.dir / "weir.conf"
        self.log_path = self.dir / "stderr"
        for name, text in (files or {}).items():
            self.file(name, text)
        self.configure(config)
        if user:
            self._give(user)
        if start:
            self.start()

    def __getattr__(self, name):
        value = self.__dict__.get("values", {}).get(name)
        if value is None:
            raise AttributeError(name)
        return value

    def file(self, name, text):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = self.expand(text) if isinstance(text, str) else text
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def expand(self, text):
        def value(match):
            name = match.group(1)
            if name not in self.values:
                self.values[name] = free_port()
            return str(self.values[name])

        return re.sub(r"@(\w+)@", value, text)

    def configure(self, config):
        lines = [line for name, line in PRELUDE
                 if not re.search(rf"(?m)(?:^|[;}}])\s*{name}\b", config)]
        if os.geteuid() == 0 and not self.user and not re.search(r"(?m)(?:^|[;}])\s*user\b", config):
            lines.append("user nobody;")
        # On one line, so that line numbers of the text stay what they are, plus one.
        self.conf.write_text(self.expand(" ".join(lines) + "\n" + config))

    def _bring(self):
        """The build may be where the user cannot look: program and modules come along."""
        self.binary = Path(shutil.copy(BINARY, self.dir / "weir"))
        self.values["modules"] = self.dir / "modules"
        self.values["modules"].mkdir()
        for module in Path(MODULES).glob("*.so"):
            shutil.copy(module, self.values["modules"])

    def _give(self, user):
        entry = pwd.getpwnam(user)
        for path in [self.dir, *self.dir.rglob("*")]:
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def environment(self):
        env = dict(os.environ)
        # Workers have no rights to the scenario's folder; what a sticky one holds nobody else can replace.
        reports = self.dir / "reports"
        reports.mkdir(exist_ok=True)
        reports.chmod(0o1777)
        common = f"log_path={reports}/sanitizer:log_exe_name=0"
        # A scenario may preload something of its own.
        env["ASAN_OPTIONS"] = (f"{common}:detect_leaks={int(self.leaks)}:abort_on_error=0:exitcode=66:"
                               "verify_asan_link_order=0")
        env["UBSAN_OPTIONS"] = f"{common}:print_stacktrace=1"
        supp = Path(__file__).resolve().parents[1] / "tsan.supp"
        env["TSAN_OPTIONS"] = f"{common}:suppressions={supp}:exitcode=66"
        env.update(self.env)
        return env

    def command(self, *args, conf=True, check=False):
        """Runs weir with other arguments (-t, -s reload) and returns the finished process."""
        argv = [str(self.binary), *(["-c", str(self.conf)] if conf else []), *args]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60 * SLOW,
                              env=self.environment(), cwd=self.dir, user=self.user,
                              group=self._group(), extra_groups=[] if self.user else None)
        if check:
            assert done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def _group(self):
        return pwd.getpwnam(self.user).pw_gid if self.user else None

    def spawn(self):
        log = open(self.log_path, "ab")
        self.process = subprocess.Popen(
            [str(self.binary), "-c", str(self.conf), *self.args], stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, env=self.environment(), cwd=self.dir, user=self.user,
            group=self._group(), extra_groups=[] if self.user else None)
        log.close()
        return self.process

    def start(self):
        assert BINARY.exists(), f"{BINARY} is not built (WEIR_BIN or WEIR_BUILD say where it is)"
        self.spawn()
        until(self._ready, lambda: f"weir to be ready; its log:\n{self.log()}", 10)
        return self

    def _ready(self):
        assert self.process.poll() is None, \
            f"weir ended with {self.process.returncode}:\n{self.log()}"
        if "admin" not in self.values:
            return True
        try:
            return raw.fetch(self.admin, "/readyz").status == 200
        except (OSError, EOFError):
            return False

    # ------------------------------------------------------------- asking

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_log(self, pattern, count=1, seconds=5):
        """The matches of pattern in the log, once there are count."""
        return until(lambda: (lambda m: m if len(m) >= count else None)(
            list(re.finditer(pattern, self.log()))),
            lambda: f"{pattern!r} ({count}) in the log:\n{self.log()}", seconds)

    def get(self, path):
        return raw.fetch(self.admin, path)

    def status(self):
        return json.loads(self.get("/status").body)

    def metrics(self):
        """[(name, {label: value}, number)]"""
        out = []
        for line in self.get("/metrics").body.decode().splitlines():
            if line.startswith("#") or not line:
                continue
            match = re.fullmatch(r'([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)', line)
            assert match, f"not a sample: {line!r}"
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
            out.append((match.group(1), labels, float(match.group(3))))
        return out

    def metric(self, name, **labels):
        """The sum of the samples of this name with these labels (0 without any)."""
        return sum(v for n, l, v in self.metrics()
                   if n == name and all(l.get(k) == str(w) for k, w in labels.items()))

    def wait_metric(self, name, value, **labels):
        until(lambda: self.metric(name, **labels) == value,
              lambda: f"{name}{labels} == {value}, it is {self.metric(name, **labels)}")

    def wait_deaths(self, count, seconds=5.0):
        """Until so many workers have died; the one that is asked may be the next."""
        def died():
            try:
                return self.metric("weir_worker_deaths_total") == count
            except (OSError, EOFError):
                return False

        until(died, f"death {count}", seconds)

    def children(self):
        """pid -> command name of the direct children of the master."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(p) for p in pids.split()]

    def workers(self):
        """Their pids; a checker, which may not have gone yet, is a child too."""
        if "admin" not in self.values:
            return self.children()
        try:
            return [w["pid"] for w in self.status()["workers"]]
        except (OSError, EOFError):
            return []

    def worker(self):
        return until(self.workers, "a worker process")[0]

    # ------------------------------------------------------------- acting

    @staticmethod
    def kill_by(client, target):
        """A request of which the client's worker dies; nobody must answer."""
        client.send(raw.request(target=target))
        try:
            answer = client.response()
        except (EOFError, ConnectionError):
            return
        raise AssertionError(f"{target} was answered: {answer}")

    def crash(self, target="/crash", times=1):
        """The same so many times, each until the death is known and another worker in that one's place."""
        self.deaths_expected = True
        workers = len(until(self.workers, "the workers"))
        for _ in range(times):
            deaths = self.metric("weir_worker_deaths_total")
            with raw.client(self.http) as c:
                self.kill_by(c, target)
            self.wait_deaths(deaths + 1)
            until(lambda: len(self.workers()) == workers, "another worker")

    def reload(self, config=None, ok=True):
        """weir -s reload with a new configuration, which must (not) be taken."""
        if config is not None:
            self.configure(config)
        done = self.command("-s", "reload")
        assert (done.returncode == 0) is ok, \
            f"reload ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{self.log()}"
        return done

    def send(self, number):
        self.process.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        """Ends it; it must end well."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            if not self.deaths_expected and "admin" in self.values:
                self._no_deaths()
            self.process.send_signal(number)
        try:
            code = self.process.wait(15 * SLOW)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"weir did not end on signal {number}:\n{self.log()}")
        self.process = None
        self.judge()
        assert code == 0, f"weir ended with {code}:\n{self.log()}"
        return code

    def _no_deaths(self):
        try:
            deaths = self.metric("weir_worker_deaths_total")
        except (OSError, EOFError):
            return
        assert deaths == 0, f"{deaths:g} workers died:\n{self.log()}"

    def judge(self):
        """Fails on anything that a sanitizer or a failed assertion left behind."""
        texts = [self.log()] + [p.read_text(errors="replace") for p in self.dir.glob("reports/sanitizer*")]
        for text in texts:
            # Who dies as expected is reported too, but for no race.
            match = (RACES if self.deaths_expected else REPORTS).search(text)
            assert not match, f"{match.group(0)}\n{text[-8000:]}"

    def kill(self):
        if self.process and self.process.poll() is None:
            children = self.children()
            self.process.kill()
            self.process.wait()
            for pid in children:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        self.process = None

    def clean(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)
