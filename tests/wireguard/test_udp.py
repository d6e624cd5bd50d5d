import errno
import socket
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest, TestCase

from border0.wireguard.adapters.udp import BatchPort
from tests.wireguard.link import ip_packet, make_device

DATA = b"\x04\0\0\0"


class Sink:
    """Collects until `count` WireGuard datagrams and `others` other ones have come."""

    def __init__(self, count: int, others: int = 0) -> None:
        self.count, self.others = count, others
        self.batches: list[list[Any]] = []
        self.datagrams: list[bytes] = []
        self.strangers: list[tuple[bytes, Any]] = []
        self.done: Deferred[None] = Deferred()

    def receive(self, batch: list[Any]) -> None:
        self.batches.append(batch)
        for buffer, size, _ in batch:
            for place in range(0, len(buffer), size):
                self.datagrams.append(buffer[place : place + size])
        self.check()

    def other(self, datagram: bytes, source: Any) -> None:
        self.strangers.append((datagram, source))
        self.check()

    def check(self) -> None:
        if len(self.datagrams) >= self.count and len(self.strangers) >= self.others:
            if not self.done.called:
                self.done.callback(None)


class PortTests(TestCase):
    timeout = 120
    interface = "127.0.0.1"

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor

    def port(self, sink: Sink, interface: str | None = None) -> BatchPort:
        port = BatchPort(
            self.reactor,
            0,
            sink.receive,
            sink.other,
            interface=self.interface if interface is None else interface,
        )
        try:
            port.start()
        except OSError as error:
            raise SkipTest(f"cannot bind {self.interface}: {error}") from error
        self.addCleanup(port.stop)
        return port

    def burst(self, count: int, size: int, last: int) -> list[bytes]:
        heads = [DATA + number.to_bytes(4, "little") for number in range(count)]
        buffers = []
        for head in heads[:-1]:
            buffers += [head, b"a" * (size - 8)]
        return [*buffers, heads[-1], b"z" * (last - 8)]

    async def exchange(self, offload: bool) -> None:
        sink = Sink(40)
        receiver, sender = self.port(sink), self.port(Sink(0))
        if not offload:
            sender.segmentation_offload = False
        buffers = self.burst(40, 1200, 500)
        to = receiver.endpoint(self.interface, receiver.port)
        sender.send([(to, 1200, buffers)])
        await sink.done
        joined = b"".join(buffers)
        self.assertEqual(
            sink.datagrams, [joined[place : place + 1200] for place in range(0, len(joined), 1200)]
        )
        for batch in sink.batches:
            for _, _, source in batch:
                self.assertEqual(source, sender.endpoint(self.interface, sender.port))

    async def test_burst(self) -> None:
        await self.exchange(True)

    async def test_without_offload(self) -> None:
        await self.exchange(False)

    async def test_others_are_told_apart_datagram_by_datagram(self) -> None:
        """A shorter datagram of another protocol may end the kernel's buffer."""
        sink = Sink(39, 1)
        receiver, sender = self.port(sink), self.port(Sink(0))
        buffers = self.burst(40, 1200, 20)
        buffers[-2:] = [b"\0\1\0\0" + b"s" * 16]
        sender.send([(receiver.endpoint(self.interface, receiver.port), 1200, buffers)])
        await sink.done
        self.assertEqual(len(sink.datagrams), 39)
        ((datagram, source),) = sink.strangers
        self.assertEqual(datagram, buffers[-1])
        self.assertEqual(source, sender.endpoint(self.interface, sender.port))

    async def test_refusals_are_ignored(self) -> None:
        sink = Sink(1)
        receiver, sender = self.port(sink), self.port(Sink(0))
        closed = socket.socket(receiver.family, socket.SOCK_DGRAM)
        closed.bind((self.interface, 0))
        gone = sender.endpoint(self.interface, closed.getsockname()[1])
        closed.close()
        to = receiver.endpoint(self.interface, receiver.port)
        for _ in range(3):
            sender.send([(gone, 100, [DATA + b"x" * 96])])
        sender.send([(to, 100, [DATA + b"y" * 96])])
        await sink.done

    async def test_a_failing_receiver_does_not_close_the_port(self) -> None:
        sink = Sink(2)
        real, failed = sink.receive, []

        def receive(batch: list[Any]) -> None:
            real(batch)
            if not failed:
                failed.append(batch)
                raise RuntimeError("a fault of ours")

        sink.receive = receive  # type: ignore[method-assign]
        receiver, sender = self.port(sink), self.port(Sink(0))
        to = receiver.endpoint(self.interface, receiver.port)
        sender.send([(to, 100, [DATA + b"x" * 96])])
        while not failed:
            turn: Deferred[None] = Deferred()
            self.reactor.callLater(0, turn.callback, None)  # type: ignore[attr-defined]
            await turn
        sender.send([(to, 100, [DATA + b"y" * 96])])
        await sink.done
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_two_devices(self) -> None:
        """The whole way: device, port, loopback, port, device."""
        now = 5.0
        got: list[bytes] = []
        done: Deferred[None] = Deferred()
        ends: dict[str, tuple[Any, BatchPort]] = {}

        def receiver(name: str) -> Any:
            def receive(batch: list[Any]) -> None:
                device, port = ends[name]
                for _, packets in device.receive(batch, now):
                    got.extend(packets)
                port.send(device.take_datagrams())
                if len(got) == 100 and not done.called:
                    done.callback(None)

            return receive

        for name, seed in (("left", 1), ("right", 2)):
            port = BatchPort(self.reactor, 0, receiver(name), interface=self.interface)
            try:
                port.start()
            except OSError as error:
                raise SkipTest(f"cannot bind {self.interface}: {error}") from error
            self.addCleanup(port.stop)
            ends[name] = make_device(seed), port
        left, right = ends["left"], ends["right"]
        left[0].add_peer(
            right[0].public_key,
            allowed_ips=["10.0.0.2/32"],
            endpoint=left[1].endpoint(self.interface, right[1].port),
        )
        right[0].add_peer(left[0].public_key, allowed_ips=["10.0.0.1/32"])
        packets = [ip_packet("10.0.0.1", "10.0.0.2", b"%04d" % n + b"b" * 1300) for n in range(100)]
        left[0].send(packets, now)
        left[1].send(left[0].take_datagrams())
        await done
        self.assertEqual(sorted(got), packets)


class Port6Tests(PortTests):
    interface = "::1"


class DualStackTests(TestCase):
    timeout = 120

    async def test_one_port_takes_both_families(self) -> None:
        from twisted.internet import reactor

        sink = Sink(2)
        port = BatchPort(reactor, 0, sink.receive)
        port.start()
        self.addCleanup(port.stop)
        if port.family != socket.AF_INET6:
            raise SkipTest("this machine has no IPv6")
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_DGRAM) as sender:
                sender.bind((host, 0))
                sender.sendto(DATA + bytes(28), (host, port.port))
                expected = port.endpoint(host, sender.getsockname()[1])
                while not sink.batches or sink.batches[-1][-1][2] != expected:
                    turn: Deferred[None] = Deferred()
                    reactor.callLater(0, turn.callback, None)  # type: ignore[attr-defined]
                    await turn
        await sink.done
        with self.assertRaises(ValueError):
            port.endpoint("host.example", 1)

    def test_a_taken_port_is_an_error(self) -> None:
        from twisted.internet import reactor

        first = BatchPort(reactor, 0, lambda batch: None)
        first.start()
        self.addCleanup(first.stop)
        second = BatchPort(reactor, first.port, lambda batch: None)
        with self.assertRaises(OSError) as caught:
            second.start()
        self.assertEqual(caught.exception.errno, errno.EADDRINUSE)

    def test_other_platforms(self) -> None:
        from twisted.internet import reactor

        for platform in ("darwin", "win32"):
            self.patch(sys, "platform", platform)
            port = BatchPort(reactor, 0, lambda batch: None, interface="127.0.0.1")
            port.start()
            self.assertFalse(port.receive_offload or port.segmentation_offload)
            port.stop()
            port.stop()


class FakeSocket:
    """Fails `sendmsg` as told; takes what `sendto` gives."""

    def __init__(self, failure: int) -> None:
        self.failure = failure
        self.sent: list[bytes] = []
        self.calls = 0

    def sendmsg(self, buffers: list[bytes], control: Any, flags: int, address: Any) -> int:
        self.calls += 1
        raise OSError(self.failure, "told to fail")

    def sendto(self, datagram: bytes, address: Any) -> int:
        self.sent.append(datagram)
        return len(datagram)


class FallbackTests(TestCase):
    def attempt(self, failure: int) -> tuple[BatchPort, FakeSocket]:
        fake = FakeSocket(failure)
        port = BatchPort(None, 0, lambda batch: None)
        port._socket = fake  # type: ignore[assignment]
        port.segmentation_offload = True
        port.send([(("x", 1), 100, [b"a" * 100, b"b" * 100, b"c" * 50])])
        return port, fake

    def test_a_device_without_checksums_turns_segmentation_off(self) -> None:
        port, fake = self.attempt(errno.EIO)
        self.assertEqual([len(datagram) for datagram in fake.sent], [100, 100, 50])
        self.assertFalse(port.segmentation_offload)

    def test_a_route_that_refuses_one_burst(self) -> None:
        for failure in (errno.EINVAL, errno.EMSGSIZE):
            port, fake = self.attempt(failure)
            self.assertEqual(len(fake.sent), 3)
            self.assertTrue(port.segmentation_offload)

    def test_a_full_queue_drops(self) -> None:
        for failure in (errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.ENETUNREACH):
            port, fake = self.attempt(failure)
            self.assertEqual((fake.sent, port.dropped), ([], 1))
