"""A UDP port that reads and writes batches, with the kernel's segmentation where it has any.

Source: Linux udp(7) UDP_SEGMENT and UDP_GRO; Linux include/uapi/linux/udp.h for the numbers.
Does not: know WireGuard beyond the shape of its datagrams; the receiver does.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.logger import Logger

from border0.wireguard.adapters.segments import all_wireguard, split

Address = tuple[Any, ...]

_SOL_UDP = 17
_UDP_SEGMENT = 103
_UDP_GRO = 104
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_PMTUDISC_WANT, _PMTUDISC_PROBE = 1, 3
_SO_RCVBUFFORCE = 33
_SO_SNDBUFFORCE = 32

_LARGEST = 65_535
_BATCH_DATAGRAMS = 64
_SOCKET_BUFFER = 8 << 20
# A burst of refusals (ICMP errors that Linux reports on the next call) must not hold the reactor.
_READ_ERRORS = 64

_segment_size = struct.Struct("=H").pack
_gro_size = struct.Struct("=i").unpack_from

# A datagram of this size goes whole over any way.
_ALWAYS_WHOLE = 512

# The kernel refuses segmentation for this device, route or size; single datagrams may go.
_NO_SEGMENTATION = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP})


class BatchPort(FileDescriptor):
    """One UDP socket, IPv4 and IPv6 where the system has both.

    `receiver` gets all WireGuard datagrams of one wake-up as (buffer, segment size, source);
    `other` gets every other datagram. `interface` is an address to bind ("" = all); `port` is
    the number asked for, and the bound one after `start` (0 = the system chooses).
    """

    short_way = True  # for a reactor that dispatches reads of relays itself

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        port: int,
        receiver: Callable[[list[tuple[bytes, int, Address]]], object],
        other: Callable[[bytes, Address], object] | None = None,
        interface: str = "",
    ) -> None:
        super().__init__(reactor)
        self.port = port
        self.family = socket.AF_UNSPEC
        self.segmentation_offload = False
        self.receive_offload = False
        self.dropped = 0  # datagrams that the system did not take
        # Hears of them: to whom, how many bytes of UDP at most, and the errno.
        self.refused: Callable[[Address, int, int], object] = lambda to, size, error: None
        self._interface = interface
        self._receiver = receiver
        self._other = other
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Bind and begin to read; OSError when the address cannot be bound."""
        opened = self._bind()
        opened.setblocking(False)
        self._grow_buffers(opened)
        self._detect_offload(opened)
        self._socket = opened
        self.port = opened.getsockname()[1]
        self.connected = 1
        FileDescriptor.startReading(self)

    def stop(self) -> None:
        """Stop reading and close the socket; again is harmless."""
        if self._socket is not None:
            FileDescriptor.stopReading(self)
            self.connected = 0
            self.disconnected = 1
            self._socket.close()
            self._socket = None

    def endpoint(self, host: str, port: int) -> Address:
        """Return the address tuple, as this socket reports sources, of a numeric host.

        ValueError when the host is no address of this socket's family.
        """
        if self.family == socket.AF_INET6 and ":" not in host:
            host = "::ffff:" + host
        try:
            found = socket.getaddrinfo(
                host, port, self.family, socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
            )
        except socket.gaierror as error:
            raise ValueError(f"{host} is no address for this socket") from error
        address: Address = found[0][4]
        return address

    # Opening

    def _bind(self) -> socket.socket:
        host = self._interface
        families: tuple[socket.AddressFamily, ...]
        if host:
            families = (socket.AF_INET6 if ":" in host else socket.AF_INET,)
        else:
            families = (socket.AF_INET6, socket.AF_INET)
        failure: OSError = OSError(errno.EAFNOSUPPORT, "no address family to bind")
        for family in families:
            opened: socket.socket | None = None
            try:
                opened = socket.socket(family, socket.SOCK_DGRAM)
                if family == socket.AF_INET6 and not host:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                opened.bind((host, self.port))
                self.family = family
                return opened
            except OSError as error:
                failure = error
                if opened is not None:
                    opened.close()
                if error.errno == errno.EADDRINUSE:
                    break
        raise failure

    def _grow_buffers(self, opened: socket.socket) -> None:
        # One slow turn of the reactor must not overflow the socket. FORCE needs privilege.
        for forced, plain in (
            (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
            (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
        ):
            try:
                if sys.platform != "linux":
                    raise OSError(errno.ENOPROTOOPT, "no forced buffer size")
                opened.setsockopt(socket.SOL_SOCKET, forced, _SOCKET_BUFFER)
            except OSError:
                try:
                    opened.setsockopt(socket.SOL_SOCKET, plain, _SOCKET_BUFFER)
                except OSError:
                    pass

    def _detect_offload(self, opened: socket.socket) -> None:
        if sys.platform != "linux":
            return
        try:
            opened.setsockopt(_SOL_UDP, _UDP_GRO, 1)
            self.receive_offload = True
        except OSError:
            pass
        try:
            opened.getsockopt(_SOL_UDP, _UDP_SEGMENT)
            self.segmentation_offload = True
        except OSError:
            pass

    # Reading

    def fileno(self) -> int:
        """Return the socket's number, -1 when it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """Return the name in log lines."""
        return "wireguard"

    def doRead(self) -> None:
        """Read until the socket is empty or 64 datagrams came, then tell the receiver once."""
        if self._socket is None:
            return
        batch: list[tuple[bytes, int, Address]] = []
        others: list[tuple[bytes, Address]] = []
        recvmsg = getattr(self._socket, "recvmsg", None)
        count = errors = 0
        while count < _BATCH_DATAGRAMS and errors < _READ_ERRORS:
            try:
                if recvmsg is None:
                    buffer, source = self._socket.recvfrom(_LARGEST)
                    size = len(buffer)
                else:
                    buffer, ancillary, _, source = recvmsg(_LARGEST, 64)
                    size = _gro_size(ancillary[0][2])[0] if ancillary else len(buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                errors += 1
                continue
            if not buffer:
                count += 1
                continue
            count += -(-len(buffer) // size)
            if all_wireguard(buffer, size):
                batch.append((buffer, size, source))
                continue
            for ours, part in split(buffer, size):
                if ours:
                    batch.append((part, size, source))
                else:
                    others.append((part, source))
        # A fault above must not make the reactor close the only socket.
        try:
            if batch:
                self._receiver(batch)
            if self._other is not None:
                for datagram, source in others:
                    self._other(datagram, source)
        except Exception:
            self._log.failure("a receiver of datagrams failed")

    # Writing

    def send(self, bursts: Sequence[tuple[Address, int, list[bytes]]]) -> None:
        """Send (to, segment size, buffers); what the system does not take at once is dropped."""
        if self._socket is None:
            return
        sendmsg = getattr(self._socket, "sendmsg", None)
        for address, size, buffers in bursts:
            if sendmsg is None:
                self._send_singly(address, size, buffers)
                continue
            single = len(buffers) <= 2 and sum(map(len, buffers)) <= size
            if not single and not self.segmentation_offload:
                self._send_singly(address, size, buffers)
                continue
            control = () if single else ((_SOL_UDP, _UDP_SEGMENT, _segment_size(size)),)
            try:
                sendmsg(buffers, control, 0, address)
            except OSError as error:
                if not single and error.errno in _NO_SEGMENTATION:
                    if error.errno == errno.EIO:
                        self.segmentation_offload = False
                    self._send_singly(address, size, buffers)
                else:
                    self._not_taken(address, size, error)

    def _send_singly(self, address: Address, size: int, buffers: list[bytes]) -> None:
        assert self._socket is not None
        joined = b"".join(buffers)
        sendto = self._socket.sendto
        for place in range(0, len(joined), size):
            try:
                sendto(joined[place : place + size], address)
            except OSError as error:
                self._not_taken(address, size, error)

    def send_whole(self, datagrams: Sequence[tuple[Address, bytes, int]]) -> None:
        """Send (to, datagram, hop limit or 0 for the usual) that no router here may fragment.

        A size that the way out of this machine does not take is told to `refused` as EMSGSIZE.
        """
        if self._socket is None:
            return
        large = sys.platform == "linux" and any(len(d) > _ALWAYS_WHOLE for _, d, _ in datagrams)
        if large:
            self._set_discovery(_PMTUDISC_PROBE)
        for address, datagram, hops in datagrams:
            try:
                if hops:
                    self._send_near(address, datagram, hops)
                else:
                    self._socket.sendto(datagram, address)
            except OSError as error:
                self._not_taken(address, len(datagram), error)
        if large:
            self._set_discovery(_PMTUDISC_WANT)

    def _set_discovery(self, mode: int) -> None:
        """Whether routers may fragment, and whether what the system believes of routes counts."""
        assert self._socket is not None
        options = [(socket.IPPROTO_IP, _IP_MTU_DISCOVER)]
        if self.family == socket.AF_INET6:
            options.append((socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER))
        for level, option in options:
            try:
                self._socket.setsockopt(level, option, mode)
            except OSError:
                pass  # then a router may fragment a probe, and a size is found that needs that

    def _send_near(self, address: Address, datagram: bytes, hops: int) -> None:
        """Send with a hop limit; raises OSError, also where the limit cannot be set."""
        assert self._socket is not None
        if ":" in address[0] and not address[0].startswith("::ffff:"):
            level, option = socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS
        else:
            level, option = socket.IPPROTO_IP, socket.IP_TTL
        usual = self._socket.getsockopt(level, option)
        self._socket.setsockopt(level, option, hops)
        try:
            self._socket.sendto(datagram, address)
        finally:
            self._socket.setsockopt(level, option, usual)

    def _not_taken(self, address: Address, size: int, error: OSError) -> None:
        self.dropped += 1
        try:
            self.refused(address, size, error.errno or 0)
        except Exception:
            self._log.failure("a refused datagram could not be told")

    def connectionLost(self, reason: Any) -> None:
        """Close; the reactor calls this when it shuts down."""
        self.stop()
        FileDescriptor.connectionLost(self, reason)
