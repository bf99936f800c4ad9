"""Real clients against weir: curl, Python, Node and wrk."""
import http.client
import json
import re
import subprocess

import pytest

from kit import SLOW, need
from kit.raw import answer

CONF = """
listen 127.0.0.1:@http@;
listen 127.0.0.1:@https@ tls { certificate @cert@ key=@key@; }
upstream u { server @backend@; }
host * { body max=off; route / { proxy u; } }
"""

NODE = """
const http = require('http'), https = require('https'), fs = require('fs');
const [plain, tls, ca] = process.argv.slice(2);
const ask = (lib, options, body) => new Promise((done, fail) => {
  const q = lib.request({ host: '127.0.0.1', headers: { host: 'a.test' }, ...options }, (s) => {
    const parts = [];
    s.on('data', (d) => parts.push(d));
    s.on('end', () => done({ status: s.statusCode, body: Buffer.concat(parts).toString(),
                             trailers: s.trailers, reused: q.reusedSocket }));
  });
  q.on('error', fail);
  q.end(body);
});
(async () => {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  const out = [];
  for (let i = 0; i < 3; i++)
    out.push(await ask(http, { port: plain, agent, path: '/' + i, method: 'POST' }, 'b' + i));
  out.push(await ask(https, { port: tls, ca: fs.readFileSync(ca), servername: 'a.test' }));
  agent.destroy();
  const socket = await new Promise((done, fail) => {
    const q = http.request({ host: '127.0.0.1', port: plain, path: '/ws',
                             headers: { host: 'a.test', connection: 'Upgrade', upgrade: 'websocket' } });
    q.on('upgrade', (s, sock, head) => done(sock));
    q.on('error', fail);
    q.end();
  });
  socket.write('ping');
  out.push(await new Promise((done) => socket.once('data', (d) => done({ ws: d.toString() }))));
  socket.destroy();
  console.log(JSON.stringify(out));
})();
"""


def script(c):
    while True:
        q = c.server.take(c)
        if "upgrade" in q:
            c.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            while True:
                c.send(b"pong" if c.read(4) == b"ping" else b"????")
        reply = answer(f"{q.method} {q.target} {len(q.body)}".encode())
        c.send(reply[:reply.index(b"\r\n\r\n") + 4] if q.method == "HEAD" else reply)


@pytest.fixture(scope="module")
def w(weir_for_all, server_for_all, ca):
    cert, key = ca.cert("a.test")
    return weir_for_all(CONF, backend=server_for_all(script=script), cert=cert, key=key)


@pytest.mark.parametrize("arguments,wanted", [
    ([], "GET /x 0"),
    (["-I"], ""),
    (["-d", "abc"], "POST /x 3"),
    (["-T", "/etc/passwd"], "PUT /x"),
    (["-H", "Transfer-Encoding: chunked", "-d", "abcdef"], "POST /x 6"),
    (["-H", "Expect: 100-continue", "--expect100-timeout", "0.2", "-d", "abc"], "POST /x 3"),
    (["--http1.0", "--no-alpn"], "GET /x 0"),
    (["--path-as-is"], "GET /x 0"),
])
@pytest.mark.parametrize("tls", [False, True])
def test_curl(w, ca, arguments, wanted, tls):
    port = w.https if tls else w.http
    done = subprocess.run([need("curl"), "-sS", "--fail", "-m", "10", "--cacert", ca.cert_file,
                           "--resolve", f"a.test:{port}:127.0.0.1", *arguments,
                           f"http{'s' if tls else ''}://a.test:{port}/x"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert wanted in done.stdout


def test_python(w):
    c = http.client.HTTPConnection("127.0.0.1", w.http, timeout=10 * SLOW)
    for i in range(3):
        c.request("POST", f"/{i}", body=iter([b"a" * 1000, b"b" * 1000]), encode_chunked=True,
                  headers={"Host": "a.test", "Transfer-Encoding": "chunked"})
        assert c.getresponse().read() == b"POST /%d 2000" % i
    c.close()


def test_node(w, ca):
    path = w.file("client.js", NODE)
    done = subprocess.run([need("node"), path, str(w.http), str(w.https), ca.cert_file],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    *asked, socket = json.loads(done.stdout)
    assert [a["status"] for a in asked] == [200] * 4
    assert [a["body"] for a in asked] == ["POST /0 2", "POST /1 2", "POST /2 2", "GET / 0"]
    assert asked[1]["reused"] and asked[2]["reused"]
    assert socket == {"ws": "pong"}


@pytest.mark.parametrize("tls", [False, True])
def test_wrk(weir, nginx, ca, tls):
    cert, key = ca.cert("a.test")
    w = weir(CONF, backend=nginx(), cert=cert, key=key)
    url = f"https://127.0.0.1:{w.https}/hello" if tls else f"http://127.0.0.1:{w.http}/hello"
    done = subprocess.run([need("wrk"), "-t1", "-c32", "-d1s", url], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Socket errors" not in done.stdout and "Non-2xx" not in done.stdout, done.stdout
    count = int(re.search(r"(\d+) requests in", done.stdout).group(1))
    assert count > 100
    # wrk leaves off counting before its connections end.
    assert count <= w.metric("weir_requests_total") <= count + 64
