"""A TUN device in a network namespace with a user-space stack behind it.

Linux's own TCP lives in the namespace, our stack answers for the other addresses. The pump can
lose and reorder packets, seeded. Nothing here sleeps: it waits for packets and deadlines.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

from border0.netstack.clamp import clamp
from border0.netstack.passing import pieces, refusal
from border0.netstack.stack import Stack
from border0.netstack.tcp.connection import Connection
from tests.support.namespaces import Namespace

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
OURS4, OURS6 = "10.77.0.1", "fd77::1"
THEIRS4, THEIRS6 = "10.77.0.2", "fd77::2"
LIMIT = 60.0


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


class LinuxPeer:
    """`stack` answers for OURS4/OURS6; sockets of the namespace are Linux's.

    With `path` there is a tunnel between them that carries so many bytes: Linux's packets are
    treated as a node's interface treats them, the stack's own are lost when they are larger.
    """

    def __init__(
        self,
        accept: Callable[[Connection], bool],
        *,
        mtu: int = 1380,
        loss: float = 0.0,
        reorder: float = 0.0,
        seed: int = 7,
        path: int = 0,
    ) -> None:
        self.path = self.told = path
        self.changes: list[tuple[int, int, bool]] = []  # (bytes moved, new path, told at once)
        self.moved = self.too_large = self.cut = self.refused = self.told_late = 0
        self.largest = [0, 0]  # to Linux, from Linux, since the last change
        self.loss, self.reorder = loss, reorder
        self.random = random.Random(seed)
        self.late: list[tuple[float, bool, bytes]] = []
        self.namespace = Namespace()
        try:
            self._open(mtu)
        except BaseException:
            self.namespace.close()
            raise
        self.stack = Stack(
            mtu=mtu,
            random_bytes=os.urandom,
            is_local={packed(OURS4), packed(OURS6)}.__contains__,
            accept=accept,
            path_mtu=lambda address: self.told or mtu,
        )

    def _open(self, mtu: int) -> None:
        namespace = self.namespace
        with namespace.inside():
            # The device belongs to the namespace in which the file was opened.
            self.tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            request = struct.pack("16sH22x", b"b0tun", _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(self.tun, _TUNSETIFF, request)
        namespace.ip("link", "set", "b0tun", "mtu", str(mtu), "up")
        namespace.ip("addr", "add", THEIRS4 + "/24", "dev", "b0tun")
        namespace.ip("-6", "addr", "add", THEIRS6 + "/64", "dev", "b0tun", "nodad")
        namespace.ip("link", "set", "b0tun", "txqueuelen", "5000")

    def close(self) -> None:
        os.close(self.tun)
        self.namespace.close()

    def _spoil(self, packets: list[bytes], inward: bool, now: float) -> list[bytes]:
        chance = self.random.random
        kept = []
        for packet in packets:
            if self.loss and chance() < self.loss:
                continue
            if self.reorder and chance() < self.reorder:
                self.late.append((now + 0.003, inward, packet))
            else:
                kept.append(packet)
        return kept

    def _read(self) -> list[bytes]:
        packets: list[bytes] = []
        while len(packets) < 64:
            try:
                packets.append(os.read(self.tun, 65535))
            except BlockingIOError:
                break
        return packets

    def _write(self, packets: list[bytes]) -> None:
        for packet in packets:
            try:
                os.write(self.tun, packet)
            except OSError:
                continue  # a full device queue is a loss like any other

    def change(self, path: int, told: bool = True) -> None:
        """The tunnel carries `path` from now on; the stack hears now or when packets were lost."""
        self.path, self.largest = path, [0, 0]
        if told:
            self.tell()

    def tell(self) -> None:
        """What the stack knows of the tunnel is what counts."""
        self.told = self.path
        for address in (THEIRS4, THEIRS6):
            self.stack.path_changed(packed(address), self.path, time.monotonic())

    def _to_stack(self, packets: list[bytes]) -> list[bytes]:
        """As the interface of a node does: clamped, cut, or refused."""
        found: list[bytes] = []
        for packet in packets:
            parts = pieces(packet, self.path)
            if not parts:
                self.refused += 1
                answer = refusal(packet, self.path)
                if answer is not None:
                    self._write([answer])
            elif len(parts) > 1:
                self.cut += 1
                found += parts
            else:
                found.append(clamp(packet, self.path))
        for packet in found:
            self._pass(1, packet)
        return found

    def _to_linux(self, packets: list[bytes]) -> list[bytes]:
        found = []
        for packet in packets:
            if len(packet) <= self.path:
                self._pass(0, packet)
                found.append(clamp(packet, self.path))
            elif len(packet) > self.told:
                raise AssertionError("the stack sends what it knows to be too large")
            else:
                self.too_large += 1
        if self.too_large and self.told != self.path:
            self.told_late += 1
            self.tell()
        return found

    def _pass(self, side: int, packet: bytes) -> None:
        self.moved += len(packet)
        self.largest[side] = max(self.largest[side], len(packet))

    def _due(self) -> None:
        while self.changes and self.moved >= self.changes[0][0]:
            _, path, told = self.changes.pop(0)
            self.change(path, told)

    def pump(self, done: Callable[[], bool], limit: float = LIMIT) -> None:
        """Move packets until `done()`; AssertionError after `limit` seconds."""
        stack, clock = self.stack, time.monotonic
        end = clock() + limit
        while not done():
            now = clock()
            if now > end:
                raise AssertionError("the exchange did not finish in time")
            wait = 0.02
            deadline = stack.next_deadline()
            if deadline is not None:
                wait = min(wait, max(0.0, deadline - now))
            if self.late:
                wait = min(wait, max(0.0, self.late[0][0] - now))
            select.select([self.tun], [], [], wait)
            now = clock()
            arrived = self._spoil(self._read(), True, now)
            if self.path:
                self._due()
                arrived = self._to_stack(arrived)
            while self.late and self.late[0][0] <= now:
                _, inward, packet = self.late.pop(0)
                if inward:
                    arrived.append(packet)
                else:
                    self._write([packet])
            if arrived:
                stack.receive(arrived, now)
            deadline = stack.next_deadline()
            if deadline is not None and deadline <= now:
                stack.expire(now)
            while packets := stack.collect(64, now):
                if self.path:
                    packets = self._to_linux(packets)
                self._write(self._spoil(packets, False, now))

    def run(self, client: Callable[[], object], limit: float = LIMIT) -> object:
        """Run `client` in a thread inside the namespace while packets move; return its result."""
        outcome: list[object] = []

        def body() -> None:
            try:
                with self.namespace.inside():
                    outcome.append(client())
            except BaseException as error:
                outcome.append(error)

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        self.pump(lambda: bool(outcome), limit)
        thread.join()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    def dial(self, port: int, address: str = OURS4, receive_buffer: int = 0) -> socket.socket:
        """Connect from Linux to our stack (call it inside `run`)."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        linux = socket.socket(family, socket.SOCK_STREAM)
        linux.settimeout(LIMIT)
        if receive_buffer:
            linux.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        linux.connect((address, port))
        return linux


def read_all(linux: socket.socket) -> bytes:
    """Read until end of file."""
    chunks = []
    while chunk := linux.recv(262144):
        chunks.append(chunk)
    return b"".join(chunks)
