"""Two devices in memory, a clock that the test moves, and a wire that the test may bend."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from ipaddress import ip_address
from typing import Any

from border0.wireguard.device import Device
from border0.wireguard.events import Event
from border0.wireguard.peer import Peer

Datagram = bytes


class RisingClock:
    """TAI64N-like labels that rise by one."""

    def __init__(self, start: int = 1) -> None:
        self.value = start

    def __call__(self) -> bytes:
        self.value += 1
        return self.value.to_bytes(12, "big")


def make_device(seed: int, private: bytes | None = None, clock: Any = None) -> Device:
    source = random.Random(seed)
    return Device(
        private or source.randbytes(32),
        random_bytes=source.randbytes,
        timestamp=clock or RisingClock(),
    )


def ip_packet(source: str, destination: str, body: bytes = b"x" * 40) -> bytes:
    """An IP packet that only needs to be right where WireGuard looks."""
    left, right = ip_address(source).packed, ip_address(destination).packed
    if len(left) == 4:
        return b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + bytes(8) + left + right + body
    return b"\x60\0\0\0" + len(body).to_bytes(2, "big") + b"\x11\x40" + left + right + body


def datagrams_of(bursts: list[tuple[Hashable, int, list[bytes]]]) -> list[Datagram]:
    """The single datagrams of what a device wants to send, with the promises checked."""
    result = []
    for _, size, buffers in bursts:
        joined = b"".join(buffers)
        assert joined
        assert len(joined) <= 65_000
        cut = [joined[place : place + size] for place in range(0, len(joined), size)]
        assert len(cut) <= 64
        result += cut
    return result


class Side:
    """One end: its device, its name as the other end's endpoint, what it got."""

    def __init__(self, device: Device, endpoint: Hashable, address: str) -> None:
        self.device = device
        self.endpoint = endpoint
        self.address = address
        self.peer: Peer
        self.delivered: list[bytes] = []
        self.events: list[Event] = []

    def emitted(self) -> list[Datagram]:
        return datagrams_of(self.device.take_datagrams())

    def take(self, datagrams: list[Datagram], source: Hashable, now: float) -> list[bytes]:
        got: list[bytes] = []
        for datagram in datagrams:
            for _, packets in self.device.receive([(datagram, len(datagram), source)], now):
                got += packets
        self.delivered += got
        self.events += self.device.take_events()
        return got

    def saw(self, kind: type[Event]) -> list[Any]:
        self.events += self.device.take_events()
        return [event for event in self.events if isinstance(event, kind)]


class Link:
    """`left` knows `right`'s endpoint; `right` learns `left`'s."""

    def __init__(
        self,
        *,
        left_psk: bytes = bytes(32),
        right_psk: bytes = bytes(32),
        keepalive: float = 0.0,
        right_knows: bool = False,
    ) -> None:
        self.now = 1000.0
        self.left = Side(make_device(1), ("192.0.2.1", 1), "10.0.0.1")
        self.right = Side(make_device(2), ("192.0.2.2", 2), "10.0.0.2")
        self.left.peer = self.left.device.add_peer(
            self.right.device.public_key,
            preshared_key=left_psk,
            allowed_ips=["10.0.0.2/32", "fd00::2/128"],
            endpoint=self.right.endpoint,
            persistent_keepalive=keepalive,
        )
        self.right.peer = self.right.device.add_peer(
            self.left.device.public_key,
            preshared_key=right_psk,
            allowed_ips=["10.0.0.1/32", "fd00::1/128"],
            endpoint=self.left.endpoint if right_knows else None,
        )
        # (sender, datagram) of all that crossed; `bend` may drop or change.
        self.wire: list[tuple[Side, Datagram]] = []
        self.bend: Callable[[Side, Datagram], Datagram | None] = lambda side, datagram: datagram

    def other(self, side: Side) -> Side:
        return self.right if side is self.left else self.left

    def settle(self) -> None:
        """Carry datagrams both ways until none is left."""
        for _ in range(1000):
            moved = False
            for side in (self.left, self.right):
                for datagram in side.emitted():
                    moved = True
                    self.wire.append((side, datagram))
                    bent = self.bend(side, datagram)
                    if bent is not None:
                        self.other(side).take([bent], side.endpoint, self.now)
            if not moved:
                return
        raise AssertionError("the two devices never fall silent")

    def send(self, side: Side, body: bytes = b"x" * 40) -> bytes:
        packet = ip_packet(side.address, self.other(side).address, body)
        side.device.send([packet], self.now)
        return packet

    def exchange(self, side: Side, body: bytes = b"x" * 40) -> bool:
        """Send one packet; tell whether it arrived, whole."""
        packet = self.send(side, body)
        before = len(self.other(side).delivered)
        self.settle()
        return self.other(side).delivered[before:] == [packet]

    def run(self, seconds: float, *, each: Callable[[], None] | None = None) -> None:
        """Let time pass: every deadline at its time, and `each` once a second."""
        end = self.now + seconds
        tick = self.now + 1.0
        while True:
            moments = [
                at
                for side in (self.left, self.right)
                if (at := side.device.next_deadline()) is not None
            ]
            at = max(self.now, min([*moments, tick, end]))
            self.now = at
            for side in (self.left, self.right):
                side.device.expire(at)
            self.settle()
            if at >= tick:
                tick = at + 1.0
                if each is not None:
                    each()
                    self.settle()
            if at >= end:
                return

    def kinds(self, side: Side) -> list[int]:
        return [datagram[0] for sender, datagram in self.wire if sender is side]
