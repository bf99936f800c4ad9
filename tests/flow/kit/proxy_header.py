"""PROXY protocol headers, made and read here without help."""
import socket
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
STREAM, DGRAM = 1, 2
UNSPEC, INET, INET6, UNIX = 0, 1, 2, 3
ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID, SSL, SSL_VERSION, SSL_CN, NETNS = (
    0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x21, 0x22, 0x30)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def tlv(kind, value=b""):
    return struct.pack(">BH", kind, len(value)) + value


def ssl_tlv(client=7, verify=0, version=None, cn=None):
    subs = b"".join(tlv(k, v) for k, v in ((SSL_VERSION, version), (SSL_CN, cn)) if v is not None)
    return tlv(SSL, struct.pack(">BI", client, verify) + subs)


def v2(tlvs=b"", src="192.0.2.7", dst="192.0.2.1", sport=4711, dport=80, command=1, family=None,
       transport=STREAM, addresses=None, checksum=False):
    if family is None:
        family = INET6 if ":" in src else INET
    if addresses is None:
        which = socket.AF_INET6 if family == INET6 else socket.AF_INET
        addresses = b"" if family == UNSPEC else (
            socket.inet_pton(which, src) + socket.inet_pton(which, dst)
            + struct.pack(">HH", sport, dport))
    if checksum:
        tlvs += tlv(CRC32C, b"\0\0\0\0")
    body = addresses + tlvs
    head = SIGNATURE + bytes([0x20 | command, family << 4 | transport]) + struct.pack(">H", len(body))
    out = head + body
    return out[:-4] + struct.pack(">I", crc32c(out)) if checksum else out


class Header:
    """What a receiver reads off the front of a stream."""

    def __init__(self, stream):
        start = stream.read(6)
        if start == b"PROXY ":
            self.version = 1
            self.raw = start + stream.read_until(b"\r\n")
            self.words = self.raw.decode().split()
            return
        self.version = 2
        self.raw = start + stream.read(10)
        assert self.raw[:12] == SIGNATURE, self.raw
        self.command, self.family = self.raw[12] & 0xF, self.raw[13] >> 4
        body = stream.read(struct.unpack(">H", self.raw[14:16])[0])
        self.raw += body
        size = {UNSPEC: 0, INET: 4, INET6: 16}[self.family]
        if size:
            which = socket.AF_INET if size == 4 else socket.AF_INET6
            self.src, self.dst = (socket.inet_ntop(which, body[i:i + size]) for i in (0, size))
            self.sport, self.dport = struct.unpack(">HH", body[2 * size:2 * size + 4])
            body = body[2 * size + 4:]
        self.tlvs = dict(self.values(body))

    @staticmethod
    def values(body):
        while body:
            kind, size = struct.unpack(">BH", body[:3])
            assert len(body) >= 3 + size, body
            yield kind, body[3:3 + size]
            body = body[3 + size:]

    def ssl(self):
        """(client bits, verify, {sub-type: value})"""
        value = self.tlvs[SSL]
        return (*struct.unpack(">BI", value[:5]), dict(self.values(value[5:])))
