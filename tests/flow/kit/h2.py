"""An HTTP/2 client on a raw socket: h2 (python3-h2) where it behaves, frames by hand where not."""
import struct
import time

import h2.config
import h2.connection
import h2.events
import h2.settings

from . import SLOW, raw

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, ACK = 1, 4, 1
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
STREAM_CLOSED, FRAME_SIZE_ERROR, COMPRESSION_ERROR = 5, 6, 9
REFUSED, CANCEL, CALM = 7, 8, 11


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A field of a header block that uses neither tables nor Huffman."""
    name, value = (s.encode("latin-1") if isinstance(s, str) else s for s in (name, value))

    def text(s):
        if len(s) < 127:
            return bytes([len(s)]) + s
        n, out = len(s) - 127, b"\x7f"
        while n > 127:
            out, n = out + bytes([n & 127 | 128]), n >> 7
        return out + bytes([n]) + s

    return b"\x00" + text(name) + text(value)


def head(method="GET", path="/", fields=(), scheme="http", authority="a.test", **pseudo):
    out = [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]
    out += [(f":{k}", v) for k, v in pseudo.items()]
    return [f for f in out if f[1] is not None] + list(fields.items() if isinstance(fields, dict) else fields)


def block(fields):
    return b"".join(literal(n, v) for n, v in fields)


class Answer:
    """What came on a stream."""

    def __init__(self):
        self.status = None
        self.fields, self.trailers, self.interim = [], [], []
        self.body = b""
        self.ended = False
        self.reset = None

    def get(self, name, default=None):
        return dict(self.fields).get(name, default)

    @property
    def over(self):
        return self.ended or self.reset is not None

    def __repr__(self):
        return f"<{self.status} {self.fields} {self.body[:80]!r} ended={self.ended} reset={self.reset}>"


class Client:
    def __init__(self, port, tls=None, name="a.test", window=None, **more):
        self.stream = raw.client(port, tls=tls, name=name, **more)
        self.sock = self.stream.sock
        self.scheme = "https" if tls else "http"
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(
            client_side=True, header_encoding="utf-8", validate_outbound_headers=False,
            normalize_outbound_headers=False))
        self.answers = {}
        self.goaways = []
        self.pongs = self.acked = 0
        self.eof = False
        self.rest = b""
        self.credit = True  # give windows back as data comes
        self.settings = {}
        self.h2.initiate_connection()
        if window is None:
            self.h2.increment_flow_control_window(1 << 24)
        else:
            self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.flush()
        if window is not None:  # h2 counts by it once it was acknowledged
            self.until(lambda: self.acked >= 2)

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.sock.sendall(data)

    def send(self, data):
        self.sock.sendall(data)
        return self

    def answer(self, stream):
        return self.answers.setdefault(stream, Answer())

    def request(self, method="GET", path="/", fields=(), body=None, end=True, **pseudo):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, head(method, path, fields, self.scheme, **pseudo),
                             end_stream=end and body is None)
        self.flush()
        if body is not None:
            self.body(stream, body, end)
        self.answer(stream)
        return stream

    def body(self, stream, data, end=True):
        """Sends as the windows allow, taking what comes meanwhile."""
        while True:
            n = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(data))
            if n or not data:
                self.h2.send_data(stream, data[:n], end_stream=end and n == len(data))
                self.flush()
                data = data[n:]
                if not data:
                    return
                continue
            self.sock.settimeout(raw.TIMEOUT)
            if not self.take():
                raise EOFError(f"{len(data)} bytes of stream {stream} were not sent")

    def _event(self, e):
        kind = type(e).__name__
        if kind == "ResponseReceived":
            a = self.answer(e.stream_id)
            a.fields = [f for f in e.headers if f[0] != ":status"]
            a.status = int(dict(e.headers)[":status"])
        elif kind == "InformationalResponseReceived":
            self.answer(e.stream_id).interim.append(e.headers)
        elif kind == "DataReceived":
            self.answer(e.stream_id).body += e.data
            if self.credit and e.flow_controlled_length:
                self.h2.increment_flow_control_window(e.flow_controlled_length)
                if not self.answer(e.stream_id).ended:
                    try:
                        self.h2.increment_flow_control_window(e.flow_controlled_length, e.stream_id)
                    except h2.exceptions.StreamClosedError:
                        pass
        elif kind == "TrailersReceived":
            self.answer(e.stream_id).trailers = e.headers
        elif kind == "StreamEnded":
            self.answer(e.stream_id).ended = True
        elif kind == "StreamReset":
            self.answer(e.stream_id).reset = int(e.error_code)
        elif kind == "RemoteSettingsChanged":
            self.settings.update({int(k): v.new_value for k, v in e.changed_settings.items()})
        elif kind == "ConnectionTerminated":
            self.goaways.append((e.last_stream_id, int(e.error_code)))
            # To h2 this is the end; to the RFC it is not (RFC 9113 6.8).
            self.h2.state_machine.state = h2.connection.ConnectionState.CLIENT_OPEN
        elif kind == "SettingsAcknowledged":
            self.acked += 1
        elif kind == "PingAckReceived":
            self.pongs += 1

    def take(self):
        """What has come, waiting for something; False at the end."""
        try:
            data = self.sock.recv(65536)
        except (ConnectionError, OSError) as e:
            if isinstance(e, TimeoutError):
                raise
            data = b""
        if not data:
            self.eof = True
            return False
        self.rest += data
        while len(self.rest) >= 9 and len(self.rest) >= 9 + int.from_bytes(self.rest[:3], "big"):
            n = 9 + int.from_bytes(self.rest[:3], "big")
            one, self.rest = self.rest[:n], self.rest[n:]
            for e in self.h2.receive_data(one):
                self._event(e)
        try:
            self.flush()
        except OSError:
            pass
        return True

    def until(self, condition, seconds=5):
        end = time.monotonic() + seconds * SLOW
        while not condition():
            assert time.monotonic() < end, f"waited: {self.answers} {self.goaways}"
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            if not self.take():
                break
        return condition()

    def response(self, stream, seconds=5):
        self.until(lambda: self.answer(stream).over, seconds)
        return self.answer(stream)

    def fetch(self, *args, **more):
        return self.response(self.request(*args, **more))

    def ended(self, seconds=5):
        """Reads to the end of the connection."""
        self.until(lambda: self.eof, seconds)
        return self.eof

    def close(self):
        self.stream.close()


class Raw:
    """A client that only writes frames, and reads them as (type, flags, stream, payload)."""

    def __init__(self, port, tls=None, hello=True, **more):
        self.stream = raw.client(port, tls=tls, **more)
        self.sock = self.stream.sock
        self.rest = b""
        if hello:
            self.send(PREFACE + frame(SETTINGS) + frame(SETTINGS, ACK))

    def send(self, data):
        self.sock.sendall(data)
        return self

    def next(self, seconds=5):
        """The next frame; None at the end of the connection."""
        end = time.monotonic() + seconds * SLOW
        while len(self.rest) < 9 or len(self.rest) < 9 + int.from_bytes(self.rest[:3], "big"):
            self.sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                return None
            if not data:
                return None
            self.rest += data
        n = 9 + int.from_bytes(self.rest[:3], "big")
        one, self.rest = self.rest[:n], self.rest[n:]
        return one[3], one[4], int.from_bytes(one[5:9], "big") & 0x7fffffff, one[9:]

    def frames(self, wanted=None, seconds=5):
        """Reads until a frame of that type (or the end) has come; all that came."""
        out, end = [], time.monotonic() + seconds * SLOW
        while True:
            f = self.next(seconds)
            if f is None:
                return out
            out.append(f)
            if f[0] == wanted:
                return out
            assert time.monotonic() < end, f"waited: {out[-10:]}"

    def goaway(self, seconds=5):
        """The error code of the last GOAWAY before the end; None: there was none."""
        codes = [int.from_bytes(f[3][4:8], "big") for f in self.frames(None, seconds) if f[0] == GOAWAY]
        return codes[-1] if codes else None

    def close(self):
        self.stream.close()
