"""Raw sockets on both sides: every byte that is sent is written in the test, every byte that
arrives can be looked at.  The reader here is deliberately simple and strict."""
import socket
import ssl
import struct
import threading
import time

from . import HOST, SLOW, until

TIMEOUT = 5 * SLOW


class Message:
    """A parsed head with its body; raw holds the head's exact bytes."""

    def __init__(self, raw):
        self.raw = raw
        lines = raw[:-4].split(b"\r\n")
        self.line = lines[0].decode("latin-1")
        self.fields = []
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            self.fields.append((name.decode("latin-1").lower(), value.strip().decode("latin-1")))
        self.body = b""
        self.raw_body = b""
        self.trailers = []
        self.interim = []
        self.conn = None

    @property
    def status(self):
        return int(self.line.split(" ")[1])

    @property
    def target(self):
        return self.line.split(" ")[1]

    @property
    def method(self):
        return self.line.split(" ")[0]

    def all(self, name):
        return [v for n, v in self.fields if n == name.lower()]

    def get(self, name, default=None):
        values = self.all(name)
        return ", ".join(values) if values else default

    def __contains__(self, name):
        return bool(self.all(name))

    def __repr__(self):
        return f"<{self.line!r} {self.fields} {self.body[:80]!r}>"


class Stream:
    """A socket with a read buffer."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""
        sock.settimeout(TIMEOUT)

    def send(self, data):
        self.sock.sendall(data)
        return self

    def fill(self):
        data = self.sock.recv(65536)
        self.buffer += data
        return len(data)

    def read(self, size):
        while len(self.buffer) < size:
            if not self.fill():
                raise EOFError(f"end after {self.buffer!r}, {size} bytes wanted")
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def read_until(self, mark):
        while mark not in self.buffer:
            if not self.fill():
                raise EOFError(f"end after {self.buffer[-300:]!r}, {mark!r} wanted")
        at = self.buffer.index(mark) + len(mark)
        data, self.buffer = self.buffer[:at], self.buffer[at:]
        return data

    def read_all(self):
        """Everything up to the end; a reset raises."""
        while self.fill():
            pass
        data, self.buffer = self.buffer, b""
        return data

    def head(self):
        return Message(self.read_until(b"\r\n\r\n"))

    def chunked(self, message):
        while True:
            line = self.read_until(b"\r\n")
            message.raw_body += line
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            data = self.read(size + 2)
            assert data.endswith(b"\r\n"), data
            message.raw_body += data
            message.body += data[:-2]
        while True:
            line = self.read_until(b"\r\n")
            message.raw_body += line
            if line == b"\r\n":
                return
            name, _, value = line.partition(b":")
            message.trailers.append((name.decode().lower(), value.strip().decode()))

    def framed_body(self, message):
        if "chunked" in message.get("transfer-encoding", ""):
            self.chunked(message)
        elif "content-length" in message:
            message.body = message.raw_body = self.read(int(message.get("content-length")))
        else:
            return False
        return True

    def request(self):
        """A whole request as a server sees it."""
        message = self.head()
        self.framed_body(message)
        return message

    def response(self, method="GET"):
        """A whole final response; interim ones are in its .interim."""
        interim = []
        while True:
            message = self.head()
            if message.status >= 200 or message.status == 101:
                break
            interim.append(message)
        message.interim = interim
        if method == "HEAD" or message.status in (101, 204, 304):
            return message
        if not self.framed_body(message):
            message.body = message.raw_body = self.read_all()
        return message

    def silent(self, seconds):
        """True if nothing at all arrives for so long."""
        self.sock.settimeout(seconds)
        try:
            return not self.buffer and bool(self.fill()) and False
        except (TimeoutError, socket.timeout):
            return True
        finally:
            self.sock.settimeout(TIMEOUT)

    def ended(self):
        """How the peer ended the connection: 'eof' or 'reset'; bytes before that fail."""
        try:
            rest = self.read_all()
        except (ConnectionResetError, BrokenPipeError):
            return "reset"
        except ssl.SSLError:
            return "reset"
        assert rest == b"", f"bytes before the end: {rest!r}"
        return "eof"

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self):
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self):
        try:
            self.sock.close()
        except OSError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def client(port, tls=None, name="a.test", host=HOST, rcvbuf=None, session=None, bind=None):
    """A connection to weir; tls is an ssl.SSLContext."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if rcvbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
    if bind:
        sock.bind((bind, 0))
    sock.settimeout(TIMEOUT)
    try:
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            sock = tls.wrap_socket(sock, server_hostname=name, session=session)
    except BaseException:
        sock.close()
        raise
    return Stream(sock)


def request(method="GET", target="/", fields=(), body=None, host="a.test", version="1.1"):
    """The bytes of an ordinary request."""
    lines = [f"{method} {target} HTTP/{version}"]
    if host is not None:
        lines.append(f"host: {host}")
    lines += [f"{n}: {v}" for n, v in (fields.items() if isinstance(fields, dict) else fields)]
    if body is not None:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + (body or b"")


def fetch(port, target="/", method="GET", fields=(), body=None, host="a.test", tls=None, name=None,
          **more):
    """One request on a connection of its own."""
    with client(port, tls=tls, name=name or host.split(":")[0], **more) as c:
        fields = list(fields.items() if isinstance(fields, dict) else fields)
        c.send(request(method, target, fields + [("connection", "close")], body, host))
        return c.response(method)


def answer(body=b"ok", status="200 OK", fields=()):
    """The bytes of an ordinary response."""
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
    lines += [f"{n}: {v}" for n, v in (fields.items() if isinstance(fields, dict) else fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Server:
    """A scripted server.  What it does with a connection is either bytes (sent after each request),
    a function of a request (returns the bytes), or script=f, which gets the Stream and does all."""

    def __init__(self, reply=answer(), script=None, backlog=128, tls=None, port=0, host=HOST):
        self.reply = reply
        self.script = script
        self.tls = tls
        self.requests = []
        self.streams = []
        self.errors = []
        self.accepted = 0
        self.open = 0
        self.lock = threading.Lock()
        self.host = host
        self.port = port
        self.backlog = backlog
        self.listener = None
        self.start()

    @property
    def address(self):
        return f"{self.host}:{self.port}"

    __str__ = address.fget

    def start(self):
        self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((self.host, self.port))
        self.port = self.listener.getsockname()[1]
        self.listener.listen(self.backlog)
        threading.Thread(target=self._accept, args=(self.listener,), daemon=True).start()
        return self

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        with self.lock:
            self.accepted += 1
            self.open += 1
            number = self.accepted
        stream = None
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls:
                sock = self.tls.wrap_socket(sock, server_side=True)
            stream = Stream(sock)
            stream.number = number
            stream.server = self
            stream.sock.settimeout(60)
            self.streams.append(stream)
            if self.script:
                self.script(stream)
            else:
                self._answer(stream)
        except (EOFError, ConnectionError, ssl.SSLError, TimeoutError):
            pass
        except OSError as e:
            if e.errno != 9:
                self.errors.append(e)
        except Exception as e:  # shown by the fixture at the end
            self.errors.append(e)
        finally:
            (stream or sock).close()
            with self.lock:
                self.open -= 1

    def take(self, stream):
        """Reads a request on the stream and records it."""
        message = stream.request()
        message.conn = stream.number
        message.time = time.monotonic()
        self.requests.append(message)
        return message

    def _answer(self, stream):
        while True:
            message = self.take(stream)
            reply = self.reply(message) if callable(self.reply) else self.reply
            if message.method == "HEAD":
                reply = reply[: reply.index(b"\r\n\r\n") + 4]
            stream.send(reply)

    def wait(self, count=1):
        """The requests, once there are so many."""
        until(lambda: len(self.requests) >= count,
              lambda: f"{count} requests at the server, {len(self.requests)} came: {self.requests}")
        return self.requests

    def last(self):
        return self.wait()[-1]

    def stop_listening(self):
        if self.listener is not None:
            try:
                self.listener.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self.listener.close()
            self.listener = None

    def close(self):
        self.stop_listening()
        for stream in self.streams:
            try:
                stream.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            stream.close()
