from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.device import Device
from border0.wireguard.events import EndpointChanged, HandshakeCompleted, NoPeer
from border0.wireguard.limits import QUEUED_PACKETS
from tests.wireguard.link import Link, RisingClock, ip_packet, make_device


class HandshakeTests(SynchronousTestCase):
    def test_data_both_ways(self) -> None:
        link = Link()
        self.assertTrue(link.exchange(link.left))
        self.assertEqual(link.kinds(link.left), [1, 4])
        self.assertEqual(link.kinds(link.right), [2])
        self.assertTrue(link.exchange(link.right))
        for size in (0, 1, 15, 16, 17, 1359, 1360):
            self.assertTrue(link.exchange(link.left, b"y" * size), size)
            self.assertTrue(link.exchange(link.right, b"z" * size), size)
        (completed,) = link.left.saw(HandshakeCompleted)
        self.assertTrue(completed.initiator)
        (completed,) = link.right.saw(HandshakeCompleted)
        self.assertFalse(completed.initiator or completed.unexpected)
        self.assertEqual(link.left.peer.last_handshake, link.now)
        self.assertEqual(link.right.peer.last_authenticated, link.now)
        self.assertEqual(link.left.peer.tx_bytes, link.right.peer.rx_bytes)
        self.assertEqual(link.left.peer.rx_bytes, link.right.peer.tx_bytes)

    def test_preshared_key(self) -> None:
        link = Link(left_psk=b"\x05" * 32, right_psk=b"\x05" * 32)
        self.assertTrue(link.exchange(link.left))

    def test_other_preshared_key_is_silence(self) -> None:
        link = Link(left_psk=b"\x05" * 32, right_psk=b"\x06" * 32)
        self.assertFalse(link.exchange(link.left))
        self.assertEqual(link.right.saw(HandshakeCompleted), [])
        self.assertEqual(link.left.saw(HandshakeCompleted), [])
        # The responder answers, since the key proves nothing before; then nothing follows.
        self.assertEqual(link.kinds(link.left), [1])

    def test_unknown_key_is_silence(self) -> None:
        link = Link()
        link.right.device.remove_peer(link.left.device.public_key)
        self.assertFalse(link.exchange(link.left))
        self.assertEqual(link.kinds(link.right), [])

    def test_both_initiate_at_once(self) -> None:
        link = Link(right_knows=True)
        first, second = link.send(link.left), link.send(link.right)
        link.settle()
        self.assertEqual(link.right.delivered, [first])
        self.assertEqual(link.left.delivered, [second])
        self.assertTrue(link.exchange(link.left))
        self.assertTrue(link.exchange(link.right))

    def test_responder_sends_under_the_new_key_only_after_it_is_confirmed(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.now += 10.0
        old = link.right.peer.current
        link.left.device.start_handshake(link.left.peer, link.now)
        (initiation,) = link.left.emitted()
        link.right.take([initiation], link.left.endpoint, link.now)
        (response,) = link.right.emitted()
        self.assertIs(link.right.peer.current, old)
        self.assertIsNotNone(link.right.peer.next)
        packet = link.send(link.right)
        (datagram,) = link.right.emitted()
        self.assertEqual(link.left.take([datagram], link.right.endpoint, link.now), [packet])
        # Now the confirmation: previous, current and next have moved by one.
        new = link.right.peer.next
        link.left.take([response], link.right.endpoint, link.now)
        link.settle()
        self.assertIs(link.right.peer.current, new)
        self.assertIs(link.right.peer.previous, old)
        self.assertIsNone(link.right.peer.next)

    def test_data_under_the_previous_key_still_arrives(self) -> None:
        link = Link()
        link.exchange(link.left)
        late = link.send(link.left)
        (datagram,) = link.left.emitted()
        link.now += 10.0
        link.left.device.start_handshake(link.left.peer, link.now)
        link.settle()
        self.assertEqual(link.right.take([datagram], link.left.endpoint, link.now), [late])

    def test_replayed_initiation(self) -> None:
        link = Link()
        link.exchange(link.left)
        initiation = link.wire[0][1]
        link.now += 1.0
        link.right.take([initiation], ("203.0.113.9", 9), link.now)
        self.assertEqual(link.right.emitted(), [])
        self.assertEqual(link.right.peer.endpoint, link.left.endpoint)
        self.assertTrue(link.exchange(link.right))

    def test_replayed_response(self) -> None:
        link = Link()
        link.exchange(link.left)
        response = link.wire[1][1]
        link.left.take([response], ("203.0.113.9", 9), link.now)
        self.assertEqual(link.left.emitted(), [])
        self.assertEqual(link.left.peer.endpoint, link.right.endpoint)

    def test_replayed_data(self) -> None:
        link = Link()
        link.exchange(link.left)
        data = link.wire[-1][1]
        self.assertEqual(link.right.take([data], ("203.0.113.9", 9), link.now), [])
        self.assertEqual(link.right.peer.endpoint, link.left.endpoint)

    def test_a_peer_initiates_at_most_20_times_a_second(self) -> None:
        clock = RisingClock()
        right = make_device(2)
        right.add_peer(make_device(1).public_key)
        answered = 0
        for step in range(100):
            # A fresh device each time, since one alone waits 5 seconds.
            left = make_device(1, clock=clock)
            peer = left.add_peer(right.public_key, endpoint="right")
            left.start_handshake(peer, 0.0)
            (_, size, buffers) = left.take_datagrams()[0]
            right.receive([(b"".join(buffers), size, "left")], 1.0 + step / 100)
            answered += len(right.take_datagrams())
        self.assertTrue(16 <= answered <= 20, answered)

    def test_a_restarted_peer_just_works(self) -> None:
        link = Link()
        link.exchange(link.left)
        clock = RisingClock(1000)
        fresh = make_device(1, clock=clock)
        self.assertEqual(fresh.public_key, link.left.device.public_key)
        link.left.device = fresh
        link.left.peer = fresh.add_peer(
            link.right.device.public_key,
            allowed_ips=["10.0.0.2/32"],
            endpoint=link.right.endpoint,
        )
        link.now += 20.0
        link.right.events.clear()
        self.assertTrue(link.exchange(link.left))
        self.assertTrue(link.exchange(link.right))
        (completed,) = link.right.saw(HandshakeCompleted)
        self.assertTrue(completed.unexpected)

    def test_an_older_timestamp_is_refused(self) -> None:
        link = Link()
        link.exchange(link.left)
        fresh = make_device(1, clock=RisingClock(0))
        peer = fresh.add_peer(link.right.device.public_key, endpoint="right")
        fresh.start_handshake(peer, link.now)
        (_, size, buffers) = fresh.take_datagrams()[0]
        link.right.device.receive([(b"".join(buffers), size, "left")], link.now + 1)
        self.assertEqual(link.right.emitted(), [])

    def test_indices_are_unique(self) -> None:
        # A source that repeats itself: the table draws until the index is free.
        drawn = iter([b"\x01\0\0\0", b"\x01\0\0\0", b"\x01\0\0\0", b"\x02\0\0\0"] * 2)
        device = Device(
            b"\x01" * 32,
            random_bytes=lambda size: next(drawn) if size == 4 else bytes([7]) * size,
            timestamp=RisingClock(),
        )
        for number in (2, 3):
            peer = device.add_peer(make_device(number).public_key, endpoint=number)
            device.start_handshake(peer, 0.0)
        first, second = (buffers[0][4:8] for _, _, buffers in device.take_datagrams())
        self.assertNotEqual(first, second)


class RoutingTests(SynchronousTestCase):
    def test_foreign_source_is_dropped(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.left.device.send([ip_packet("10.0.0.77", "10.0.0.2")], link.now)
        link.left.device.send([ip_packet("fd00::77", "fd00::2")], link.now)
        good = ip_packet("fd00::1", "fd00::2")
        link.left.device.send([good], link.now)
        link.right.delivered.clear()
        link.settle()
        self.assertEqual(link.right.delivered, [good])

    def test_no_peer_for_the_destination(self) -> None:
        link = Link()
        stray = [ip_packet("10.0.0.1", "10.9.9.9"), b"", b"\x45", b"\x00" * 40]
        link.left.device.send(stray, link.now)
        (event,) = link.left.saw(NoPeer)
        self.assertEqual(event.packets, stray)
        self.assertEqual(link.left.emitted(), [])

    def test_no_endpoint_yet(self) -> None:
        link = Link()
        packet = link.send(link.right)
        (event,) = link.right.saw(NoPeer)
        self.assertEqual(event.packets, [packet])

    def test_malformed_inner_packets(self) -> None:
        link = Link()
        link.exchange(link.left)
        head = ip_packet("10.0.0.1", "10.0.0.2", b"")
        bad = [
            head[:2] + b"\x00\x13" + head[4:],  # total length below the header
            head[:2] + b"\x05\x00" + head[4:],  # total length beyond the packet
            b"\x65" + head[1:],  # IPv6 by its version, too short for it
            b"\x15" + head[1:],
        ]
        link.right.delivered.clear()
        for packet in bad:
            session = link.left.peer.current
            assert session is not None
            link.left.device._seal(link.left.peer, session, [packet], link.now)
        link.settle()
        self.assertEqual(link.right.delivered, [])
        self.assertTrue(link.exchange(link.left))

    def test_prefixes_move_between_peers(self) -> None:
        device = make_device(1)
        first = device.add_peer(make_device(2).public_key, allowed_ips=["10.0.0.0/8", "fd00::/8"])
        second = device.add_peer(make_device(3).public_key, allowed_ips=["10.0.0.0/8"])
        self.assertEqual(first.allowed_ips, ("fd00::/8",))
        self.assertEqual(second.allowed_ips, ("10.0.0.0/8",))
        device.set_allowed_ips(second, [])
        self.assertEqual(second.allowed_ips, ())

    def test_roaming(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.right.events.clear()
        link.left.endpoint = ("198.51.100.7", 7)
        self.assertTrue(link.exchange(link.left))
        (event,) = link.right.saw(EndpointChanged)
        self.assertIs(event.peer, link.right.peer)
        link.send(link.right)
        ((to, _, _),) = link.right.device.take_datagrams()
        self.assertEqual(to, ("198.51.100.7", 7))

    def test_neighbours_in_a_batch_keep_order_and_the_last_source_counts(self) -> None:
        link = Link()
        link.exchange(link.left)
        packets = [ip_packet("10.0.0.1", "10.0.0.2", b"%03d" % n) for n in range(6)]
        batch = []
        for packet, host in zip(packets, "aabbba", strict=True):
            link.left.device.send([packet], link.now)
            ((_, size, buffers),) = link.left.device.take_datagrams()
            batch.append((b"".join(buffers), size, (host, 1)))
        batch[2:2] = [(b"", 0, ("b", 1)), (bytes(batch[0][1]), batch[0][1], ("evil", 1))]
        batch.insert(0, batch[0])  # twice: the second is a replay
        batch.append((batch[0][0], batch[0][1], ("evil", 1)))  # so is this
        ((peer, inner),) = link.right.device.receive(batch, link.now)
        self.assertEqual(inner, packets)
        self.assertEqual(peer.endpoint, ("a", 1))

    def test_the_queue_is_bounded_and_drops_the_oldest(self) -> None:
        link = Link()
        packets = [ip_packet("10.0.0.1", "10.0.0.2", b"%03d" % n) for n in range(300)]
        for packet in packets:
            link.left.device.send([packet], link.now)
        link.settle()
        self.assertEqual(link.right.delivered, packets[-QUEUED_PACKETS:])

    def test_several_peers_in_one_call(self) -> None:
        hub = make_device(9)
        spokes = []
        for number in (1, 2, 3):
            spoke = make_device(number)
            spoke.add_peer(hub.public_key, allowed_ips=["10.0.0.0/24"], endpoint="hub")
            hub.add_peer(
                spoke.public_key, allowed_ips=[f"10.0.0.{number}/32"], endpoint=f"spoke{number}"
            )
            spokes.append(spoke)
        packets = [ip_packet("10.0.0.9", f"10.0.0.{1 + n % 3}", b"%d" % n) for n in range(9)]
        hub.send(packets, 1.0)
        got: dict[str, list[bytes]] = {}
        for _ in range(3):
            for to, size, buffers in hub.take_datagrams():
                spoke = spokes[int(str(to)[-1]) - 1]
                for _, inner in spoke.receive([(b"".join(buffers), size, "hub")], 1.0):
                    got.setdefault(str(to), []).extend(inner)
                for _, size, buffers in spoke.take_datagrams():
                    hub.receive([(b"".join(buffers), size, to)], 1.0)
        for number in (1, 2, 3):
            self.assertEqual(got[f"spoke{number}"], packets[number - 1 :: 3])


class PeerTableTests(SynchronousTestCase):
    def test_refused_keys(self) -> None:
        device = make_device(1)
        known = make_device(2).public_key
        device.add_peer(known)
        for key in (known, device.public_key, bytes(32), b"\x01" + bytes(31), b"short"):
            with self.assertRaises(ValueError):
                device.add_peer(key)
        with self.assertRaises(ValueError):
            device.add_peer(make_device(3).public_key, preshared_key=b"short")
        with self.assertRaises(ValueError):
            device.add_peer(make_device(3).public_key, allowed_ips=["10.0.0.0/99"])
        for interval in (-1.0, 0.5):
            with self.assertRaises(ValueError):
                device.add_peer(make_device(3).public_key, persistent_keepalive=interval)
        self.assertEqual(list(device.peers), [known])

    def test_removing(self) -> None:
        link = Link(keepalive=5.0)
        link.exchange(link.left)
        link.left.device.remove_peer(link.right.device.public_key)
        self.assertIsNone(link.left.device.next_deadline())
        self.assertEqual(link.left.device._indices.sessions, {})
        link.send(link.left)
        self.assertEqual(link.left.emitted(), [])
        self.assertFalse(link.exchange(link.right))
        with self.assertRaises(ValueError):
            link.left.device.remove_peer(link.right.device.public_key)
