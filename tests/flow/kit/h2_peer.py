"""Scripted servers of HTTP/2.  python3-h2 keeps the state of the connection; what it would refuse to
send goes out with frame() or raw bytes."""
import time

from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.errors import ErrorCodes
from h2.events import (DataReceived, RequestReceived, StreamEnded, StreamReset, TrailersReceived,
                       WindowUpdated)
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes, Settings

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4

__all__ = ["DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH", "PING", "GOAWAY", "WINDOW",
           "CONTINUATION", "END_STREAM", "ACK", "END_HEADERS", "ErrorCodes", "SettingCodes", "Peer",
           "frame", "serve", "StreamReset", "WindowUpdated"]


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Asked:
    """A request as it came."""

    def __init__(self, stream, fields, conn):
        self.id = stream
        self.fields = [(n.lower(), v) for n, v in fields]
        self.body = bytearray()
        self.trailers = []
        self.ended = False
        self.reset = None
        self.conn = conn

    def get(self, name, default=None):
        return next((v for n, v in self.fields if n == name), default)

    method = property(lambda self: self.get(":method"))
    path = property(lambda self: self.get(":path"))


class Peer:
    """The server's side of the connection on a kit Stream; settings: what it says at first."""

    def __init__(self, c, settings=None, window=None, start=True):
        self.c = c
        self.take = True  # what is received is given back as credit
        self.asked = {}
        self.new = []
        self.resets = []
        self.goaways = []
        self.pings = self.acked = 0
        self.pongs = []
        self.h = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1",
                                              validate_outbound_headers=False,
                                              normalize_outbound_headers=False))
        values = {SettingCodes.MAX_CONCURRENT_STREAMS: 100}
        values.update(settings or {})
        if window is not None:
            values[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.h.local_settings = Settings(client=False, initial_values=values)
        if start:
            self.h.initiate_connection()
            self.flush()

    def flush(self):
        data = self.h.data_to_send()
        if data:
            self.c.send(data)

    def raw(self, data):
        self.flush()
        self.c.send(data)

    def pump(self):
        """Takes what comes next from the socket."""
        data = self.c.sock.recv(65536)
        if not data:
            raise EOFError
        for e in self.h.receive_data(data):
            self.event(e)
        self.flush()

    def event(self, e):
        if isinstance(e, RequestReceived):
            a = self.asked[e.stream_id] = Asked(e.stream_id, e.headers, self.c.number)
            self.new.append(a)
            self.c.server.requests.append(a)
        elif isinstance(e, DataReceived):
            if e.stream_id in self.asked:
                self.asked[e.stream_id].body += e.data
            if self.take and e.flow_controlled_length:
                try:
                    self.h.acknowledge_received_data(e.flow_controlled_length, e.stream_id)
                except StreamClosedError:
                    pass
        elif isinstance(e, TrailersReceived):
            self.asked[e.stream_id].trailers = e.headers
        elif isinstance(e, StreamEnded):
            self.asked[e.stream_id].ended = True
        elif isinstance(e, StreamReset):
            self.resets.append((e.stream_id, e.error_code))
            if e.stream_id in self.asked:
                self.asked[e.stream_id].reset = e.error_code
        elif type(e).__name__ == "PingReceived":
            self.pings += 1
        elif type(e).__name__ == "PingAckReceived":
            self.pongs.append(e.ping_data)
        elif type(e).__name__ == "SettingsAcknowledged":
            self.acked += 1
        elif type(e).__name__ == "ConnectionTerminated":
            self.goaways.append(int(e.error_code))
            # To h2 this is the end; to the RFC it is not (RFC 9113 6.8).
            self.h.state_machine.state = ConnectionState.SERVER_OPEN

    def until(self, condition):
        while not condition():
            self.pump()

    def request(self, whole=True):
        """The next request, with its body."""
        self.until(lambda: self.new)
        a = self.new.pop(0)
        if whole:
            self.until(lambda: a.ended or a.reset is not None)
        return a

    def head(self, a, status=200, fields=(), end=False):
        self.h.send_headers(a.id, [(":status", str(status)), *fields], end_stream=end)
        self.flush()

    def data(self, a, data, end=False):
        """All of it, as the window allows."""
        while data:
            n = min(len(data), self.h.local_flow_control_window(a.id), self.h.max_outbound_frame_size)
            if n == 0:
                self.pump()
                continue
            self.h.send_data(a.id, data[:n], end_stream=end and n == len(data))
            data = data[n:]
            self.flush()

    def answer(self, a, body=b"ok", status=200, fields=()):
        body = bytes(body)
        self.head(a, status, [*fields, ("content-length", str(len(body)))], end=not body)
        self.data(a, body, end=True)

    def fields(self, a, *fields, flags=END_HEADERS):
        """HEADERS as they are, without anybody's judgement."""
        block = self.h.encoder.encode(list(fields), huffman=False)
        self.raw(frame(HEADERS, flags, a.id, block))

    def reset(self, a, code=ErrorCodes.CANCEL):
        self.h.reset_stream(a.id, code)
        self.flush()

    def goaway(self, last, code=0):
        self.raw(frame(GOAWAY, 0, 0, last.to_bytes(4, "big") + code.to_bytes(4, "big")))

    def drain(self, seconds=0.5):
        """Takes what comes until the peer ends, or the time has passed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.c.sock.settimeout(max(0.01, end - time.monotonic()))
            try:
                self.pump()
            except TimeoutError:
                return
            except (EOFError, OSError):
                return


def serve(reply=None, **more):
    """A script for kit's Server: every request is answered, by reply(peer, asked) if there is one."""

    def script(c):
        p = Peer(c, **more)
        while True:
            a = p.request()
            if a.reset is not None:
                continue
            if reply:
                reply(p, a)
            else:
                p.answer(a, a.body or b"ok")

    return script
