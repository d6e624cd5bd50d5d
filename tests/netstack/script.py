"""Segment scripts: a hand-made peer that sends single segments and reads single answers."""

from __future__ import annotations

import random
import struct

from border0.netstack import ip
from border0.netstack.checksum import complement, pseudo, residue
from border0.netstack.stack import Stack
from border0.netstack.tcp.connection import Connection
from border0.netstack.tcp.segment import Options, parse_options

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
HOST, PEER = b"\x0a\x00\x00\x01", b"\x0a\x00\x00\x02"
HOST6, PEER6 = b"\xfd" + bytes(14) + b"\x01", b"\xfd" + bytes(14) + b"\x02"


class Segment:
    """One segment that the stack sent, taken apart and verified."""

    def __init__(self, packet: bytes) -> None:
        datagram = ip.parse(packet)
        body = datagram.payload
        total = pseudo(datagram.source, datagram.destination, ip.TCP) + len(body) + residue(body)
        assert total % 65535 == 0, "checksum"
        self.sport, self.dport, self.seq, self.ack, field, self.window = struct.unpack(
            ">HHIIHH", body[:16]
        )
        self.flags = field & 63
        header = (field >> 12) << 2
        self.options: Options = parse_options(body[20:header])
        self.data = body[header:]

    def __repr__(self) -> str:
        return f"<{self.flags:#x} seq={self.seq} ack={self.ack} wnd={self.window} {self.data!r}>"


def segment(
    source: bytes,
    destination: bytes,
    sport: int,
    dport: int,
    flags: int,
    seq: int,
    ack: int = 0,
    data: bytes = b"",
    window: int = 65535,
    options: bytes = b"",
) -> bytes:
    options += b"\x01" * (-len(options) % 4)
    field = ((5 + len(options) // 4) << 12) | flags
    head = struct.pack(
        ">HHIIHHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, field, window, 0, 0
    )
    body = head + options + data
    total = pseudo(source, destination, ip.TCP) + len(body) + residue(body)
    body = body[:16] + complement(total).to_bytes(2, "big") + body[18:]
    return ip.header(source, destination, ip.TCP, len(body)) + body


class Script:
    """A stack with a service that records, and the peer's half written by the test."""

    def __init__(
        self, *, mtu: int = 1380, accept: bool = True, v6: bool = False, window: int = 1 << 20
    ) -> None:
        self.now = 100.0
        self.accepting = accept
        self.host, self.peer = (HOST6, PEER6) if v6 else (HOST, PEER)
        self.connections: list[Connection] = []
        self.received: list[bytes] = []
        self.events: list[object] = []
        self.stack = Stack(
            mtu=mtu,
            random_bytes=random.Random(1).randbytes,
            is_local=lambda address: address in (HOST, HOST6),
            accept=self._accept,
            receive_window=window,
        )
        self.seq = 1000
        self.iss = 0

    def _accept(self, connection: Connection) -> bool:
        self.adopt(connection)
        return self.accepting

    def adopt(self, connection: Connection) -> None:
        self.connections.append(connection)
        connection.take = self.received.append
        connection.on_established = lambda: self.events.append("established")
        connection.on_eof = lambda: self.events.append("eof")
        connection.on_drain = lambda: self.events.append("drain")
        connection.on_closed = lambda reason: self.events.append(("closed", reason))

    @property
    def connection(self) -> Connection:
        return self.connections[-1]

    def packet(
        self, flags: int, seq: int, ack: int = 0, data: bytes = b"", **more: object
    ) -> bytes:
        return segment(self.peer, self.host, 5000, 80, flags, seq, ack, data, **more)  # type: ignore[arg-type]

    def send(
        self, flags: int, seq: int, ack: int = 0, data: bytes = b"", **more: object
    ) -> list[Segment]:
        """Send one segment (`seq`, `ack` relative to the streams' starts) and collect."""
        self.stack.receive([self.raw(flags, seq, ack, data, **more)], self.now)
        return self.out()

    def raw(self, flags: int, seq: int, ack: int = 0, data: bytes = b"", **more: object) -> bytes:
        return self.packet(flags, self.seq + seq, self.iss + ack, data, **more)

    def out(self) -> list[Segment]:
        found: list[Segment] = []
        while packets := self.stack.collect(64, self.now):
            found += [Segment(packet) for packet in packets if ip.parse(packet).protocol == ip.TCP]
        return found

    def after(self, seconds: float) -> list[Segment]:
        """Let time pass, deadline by deadline, and return what was sent."""
        until = self.now + seconds
        found: list[Segment] = []
        while True:
            deadline = self.stack.next_deadline()
            if deadline is None or deadline > until:
                break
            self.now = max(self.now, deadline)
            self.stack.expire(self.now)
            found += self.out()
        self.now = until
        return found

    def open(self, options: bytes = b"\x02\x04\x05\x00", window: int = 65535) -> Segment:
        """Three-way handshake; afterwards relative numbers start at 1 on both sides."""
        self.iss = 0
        (answer,) = self.send(SYN, 0, options=options, window=window)
        assert answer.flags == SYN | ACK, answer
        assert answer.ack == self.seq + 1
        self.iss = answer.seq
        assert self.send(ACK, 1, 1, window=window) == []
        return answer


SACK_SCALE = b"\x02\x04\x05\x00\x04\x02\x03\x03\x00"
STAMPS = b"\x02\x04\x05\x00\x04\x02\x08\x0a" + struct.pack(">II", 7000, 0) + b"\x03\x03\x07"


def stamp(value: int, echo: int = 0) -> bytes:
    return b"\x01\x01\x08\x0a" + struct.pack(">II", value, echo)


def sack(script: Script, *blocks: tuple[int, int]) -> bytes:
    words = [number + script.iss & 0xFFFFFFFF for block in blocks for number in block]
    return bytes((1, 1, 5, 2 + 8 * len(blocks))) + struct.pack(f">{len(words)}I", *words)
