"""Real servers as found in the field: Redis, nginx, Node, Python; and a small name server."""
import collections
import os
import shutil
import signal
import socket
import struct
import subprocess
import threading
from pathlib import Path

from . import HOST, free_port, need, temp_dir, until

NODE = """
const http = require('http');
http.createServer((q, s) => {
  const parts = [];
  q.on('data', (d) => parts.push(d));
  q.on('end', () => {
    s.setHeader('x-node', process.version);
    s.end(JSON.stringify({ method: q.method, url: q.url, headers: q.headers,
                           body: Buffer.concat(parts).toString('latin1') }));
  });
}).listen(Number(process.argv[2]), '127.0.0.1');
"""

PYTHON = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class H(BaseHTTPRequestHandler):
    protocol_version = sys.argv[2]
    def do_GET(self):
        body = b'python ' + self.path.encode()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a):
        pass
ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()
"""

NGINX = """
worker_processes 1; daemon off; master_process off; pid {dir}/pid; error_log {dir}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  types {{ text/html html; }}
  server {{
    listen 127.0.0.1:{port}; root {dir}/root; keepalive_requests 100000;
    location /hello {{ return 200 "hello from nginx\\n"; }}
  }}
}}
"""


class Service:
    """A program that listens on self.port."""

    def __init__(self):
        self.dir = Path(temp_dir())
        self.port = free_port()
        self.process = None

    def __str__(self):
        return f"{HOST}:{self.port}"

    def argv(self):
        raise AssertionError("a Service says what it runs")

    def start(self):
        with open(self.dir / "out", "ab") as out:
            self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=out, cwd=self.dir)
        until(self.listens, lambda: f"{self.argv()[0]}: {(self.dir / 'out').read_text()}", 15)
        return self

    def listens(self):
        assert self.process.poll() is None, (self.dir / "out").read_text()
        try:
            socket.create_connection((HOST, self.port), 1).close()
            return True
        except OSError:
            return False

    def kill(self):
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def close(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Redis(Service):
    def __init__(self, *options):
        super().__init__()
        self.program = need("redis-server")
        self.options = options

    def argv(self):
        return [self.program, "--port", str(self.port), "--bind", HOST, "--save", "",
                "--appendonly", "no", "--dir", str(self.dir), *self.options]

    def __call__(self, *args, password=None):
        """One command over a connection of its own; the reply as Python values."""
        with socket.create_connection((HOST, self.port), 5) as s:
            f = s.makefile("rb")
            if password:
                self._send(s, ("AUTH", password))
                self._reply(f)
            self._send(s, args)
            return self._reply(f)

    @staticmethod
    def _send(s, args):
        parts = [str(a).encode() for a in args]
        s.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(p), p) for p in parts))

    def _reply(self, f):
        line = f.readline()
        kind, rest = line[:1], line[1:-2]
        if kind == b"+":
            return rest.decode()
        if kind == b"-":
            raise RuntimeError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return f.read(int(rest) + 2)[:-2].decode() if int(rest) >= 0 else None
        assert kind == b"*", line
        return [self._reply(f) for _ in range(int(rest))]


class Nginx(Service):
    def argv(self):
        (self.dir / "root").mkdir(exist_ok=True)
        os.chmod(self.dir, 0o777)
        (self.dir / "nginx.conf").write_text(NGINX.format(dir=self.dir, port=self.port))
        return [need("nginx"), "-c", str(self.dir / "nginx.conf"), "-p", str(self.dir)]

    def file(self, name, data):
        path = self.dir / "root" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)


class Nghttpd(Service):
    """Serves the files in its root, a folder of its own unless one is given, over HTTP/2; gives uploads back."""

    def __init__(self, cert=None, root=None):
        super().__init__()
        self.cert = cert
        self.root = root or self.dir / "root"
        self.root.mkdir(exist_ok=True)

    def argv(self):
        tls = [str(f) for f in reversed(self.cert)] if self.cert else []
        return [need("nghttpd"), "-d", str(self.root), "--echo-upload", *([] if tls else ["--no-tls"]), str(self.port), *tls]


class Node(Service):
    def argv(self):
        (self.dir / "server.js").write_text(NODE)
        return [need("node"), str(self.dir / "server.js"), str(self.port)]


class Python(Service):
    def __init__(self, protocol="HTTP/1.1"):
        super().__init__()
        self.protocol = protocol

    def argv(self):
        (self.dir / "server.py").write_text(PYTHON)
        return [need("python3"), str(self.dir / "server.py"), str(self.port), self.protocol]


class Names:
    """A name server for scenarios: .records has {name: ([address...], ttl)}, other names there are not."""

    def __init__(self):
        self.records = {}
        self.asked = collections.Counter()
        self.silent = False
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind((HOST, 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def __str__(self):
        return "%s:%d" % self.sock.getsockname()

    def _serve(self):
        while True:
            query, who = self.sock.recvfrom(4096)
            if not query:  # from close()
                return
            if not self.silent:
                self.sock.sendto(self._answer(query), who)

    def _answer(self, query):
        at, labels = 12, []
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        name, (kind,) = ".".join(labels).lower(), struct.unpack_from(">H", query, at + 1)
        addresses, ttl = self.records.get(name, ([], 0))
        self.asked[name] += kind == 1
        answers = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, ttl, 4) + socket.inet_aton(a)
                   for a in addresses if kind == 1]
        flags = 0x8180 | (0 if addresses else 3)
        return query[:2] + struct.pack(">HHHHH", flags, 1, len(answers), 0, 0) + query[12:at + 5] + b"".join(answers)

    def close(self):
        self.sock.sendto(b"", self.sock.getsockname())
