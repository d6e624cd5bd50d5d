"""A TUN device: IP packets of this machine's programs, in batches (Linux).

Source: Linux Documentation/networking/tuntap.rst; include/uapi/linux/if_tun.h for the numbers.

struct ifreq
| offset | size | name |
|---|---|---|
| 0 | 16 | interface name, NUL-padded |
| 16 | 2 | flags (native order) |

No offloads: each read is one packet, whose checksums the kernel has filled in. The device goes away
with its file descriptor, however the process ends. Addresses and routes are `netlink`'s.
"""

import errno
import os
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor

from border0.errors import Border0Error

_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_TUN_EXCL = 0x0001, 0x1000, 0x8000
_request = struct.Struct("=16sH22x")
_LARGEST = 65_535
_BATCH_PACKETS = 64
NAME_BYTES = 15


class TunPort(FileDescriptor):
    """One TUN device; `receiver` gets the packets of one wake-up.

    :param name: of the interface, which must not exist.
    """

    short_way = True  # for a reactor that dispatches reads of relays itself

    def __init__(self, reactor: Any, name: str, receiver: Callable[[list[bytes]], object]) -> None:
        super().__init__(reactor)
        self.name = name
        self.dropped = 0  # packets that the kernel did not take
        self.lost: Callable[[], object] = lambda: None  # called when the device is gone
        self._receiver = receiver
        self._file = -1

    def open(self) -> None:
        """Make the device.

        :raises Border0Error: it cannot be made; the text says why.
        """
        import fcntl

        raw = os.fsencode(self.name)
        if not raw or len(raw) > NAME_BYTES or b"/" in raw or raw in (b".", b".."):
            raise Border0Error(f"{self.name!r} is no name for an interface")
        try:
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Border0Error(
                f"/dev/net/tun: {error.strerror}; an interface needs root and the tun module"
            ) from None
        try:
            flags = _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL
            fcntl.ioctl(file, _TUNSETIFF, _request.pack(raw, flags))
            fcntl.ioctl(file, _TUNSETOFFLOAD, 0)
        except OSError as error:
            os.close(file)
            if error.errno == errno.EBUSY:
                raise Border0Error(
                    f"an interface {self.name} exists already: choose another with --interface NAME"
                ) from None
            why = "needs root" if error.errno == errno.EPERM else error.strerror
            raise Border0Error(f"the interface {self.name} cannot be made: {why}") from None
        self._file = file

    def start(self) -> None:
        """Begin to read."""
        self.connected = 1
        FileDescriptor.startReading(self)

    def stop(self) -> None:
        """Remove the device; again is harmless."""
        if self.connected:
            FileDescriptor.stopReading(self)
            self.connected = 0
            self.disconnected = 1
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def fileno(self) -> int:
        """What the reactor watches."""
        return self._file

    def doRead(self) -> None:
        """Read until it would block, or a batch is full."""
        file, read = self._file, os.read
        packets: list[bytes] = []
        try:
            while len(packets) < _BATCH_PACKETS:
                packets.append(read(file, _LARGEST))
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EBADFD, errno.EINTR):  # EIO: it is down
                raise
        if packets:
            self._receiver(packets)

    def send(self, packets: list[bytes]) -> None:
        """Hand packets to the kernel; what it does not take is counted."""
        file, write = self._file, os.write
        if file < 0:
            return
        for packet in packets:
            try:
                write(file, packet)
            except OSError:
                self.dropped += 1

    def connectionLost(self, reason: Any = None) -> None:
        """Somebody removed the device, or the reactor ends."""
        there = self._file >= 0
        self.stop()
        if there:
            self.lost()
