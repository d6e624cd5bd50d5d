"""Channels between two legs in memory: order, windows, refusals, and a rogue on either side."""

from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.ssh import wire
from border0.proxies.ssh.adapters.end import CREDIT, WINDOW
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.wire import string, uint32
from tests.proxies.ssh.memory import Pair


def data(text, channel=0):
    return uint32(channel) + string(text)


class Order(SynchronousTestCase):
    def test_end_status_and_close_wait_for_the_data(self):
        pair = Pair()
        pair.open(window=4)
        pair.exec()
        pair.upstream(wire.CHANNEL_SUCCESS, uint32(0))
        pair.near_leg.take()
        pair.upstream(wire.CHANNEL_DATA, data(b"0123456789"))
        pair.upstream(wire.CHANNEL_EOF, uint32(0))
        status = uint32(0) + string(b"exit-status") + b"\0" + uint32(3)
        pair.upstream(wire.CHANNEL_REQUEST, status)
        pair.upstream(wire.CHANNEL_CLOSE, uint32(0))
        self.assertEqual(pair.near_leg.take(), [(wire.CHANNEL_DATA, uint32(7) + string(b"0123"))])
        pair.client(wire.CHANNEL_WINDOW_ADJUST, uint32(0) + uint32(100))
        self.assertEqual(
            [kind for kind, _ in pair.near_leg.take()],
            [
                wire.CHANNEL_DATA,
                wire.CHANNEL_EOF,
                wire.CHANNEL_REQUEST,
                wire.CHANNEL_CLOSE,
            ],
        )

    def test_an_exit_status_after_the_client_s_close(self):
        pair = Pair()
        pair.open()
        pair.exec()
        pair.upstream(wire.CHANNEL_SUCCESS, uint32(0))
        pair.near_leg.take()
        pair.client(wire.CHANNEL_CLOSE, uint32(0))
        self.assertEqual(pair.far_leg.take()[-1][0], wire.CHANNEL_CLOSE)
        self.assertEqual(pair.near_leg.take(), [])
        status = uint32(0) + string(b"exit-status") + b"\0" + uint32(3)
        pair.upstream(wire.CHANNEL_REQUEST, status)
        pair.upstream(wire.CHANNEL_CLOSE, uint32(0))
        self.assertEqual(
            [kind for kind, _ in pair.near_leg.take()], [wire.CHANNEL_REQUEST, wire.CHANNEL_CLOSE]
        )
        self.assertEqual(pair.session.channels, set())

    def test_the_window_is_opened_when_the_other_leg_took_the_bytes(self):
        pair = Pair()
        pair.open(window=CREDIT)
        pair.exec()
        piece = bytes(32768)
        for _ in range(WINDOW // 32768):
            pair.upstream(wire.CHANNEL_DATA, data(piece))
        adjusted = [p for k, p in pair.far_leg.take() if k == wire.CHANNEL_WINDOW_ADJUST]
        self.assertEqual(adjusted, [uint32(9) + uint32(CREDIT)])
        with self.assertRaises(ProtocolError):
            for _ in range(CREDIT // 32768 + 1):
                pair.upstream(wire.CHANNEL_DATA, data(piece))

    def test_a_full_transport_takes_no_bulk(self):
        pair = Pair()
        pair.open()
        pair.exec()
        pair.near_leg.take()
        pair.near_leg.full = True
        pair.upstream(wire.CHANNEL_DATA, data(b"x"))
        self.assertEqual(pair.near_leg.take(), [])
        pair.near_leg.full = False
        pair.near.drained()
        self.assertEqual(pair.near_leg.take(), [(wire.CHANNEL_DATA, uint32(7) + string(b"x"))])

    def test_answers_keep_the_order_of_requests(self):
        pair = Pair({"exec": {"commands": ["id"]}})
        pair.open()
        pair.client(wire.CHANNEL_REQUEST, uint32(0) + string(b"signal") + b"\1" + string(b"INT"))
        pair.client(wire.CHANNEL_REQUEST, uint32(0) + string(b"x11-req") + b"\1" + bytes(13))
        self.assertEqual(pair.near_leg.take(), [])  # the second waits for the first
        pair.upstream(wire.CHANNEL_SUCCESS, uint32(0))
        self.assertEqual(
            [kind for kind, _ in pair.near_leg.take()], [wire.CHANNEL_SUCCESS, wire.CHANNEL_FAILURE]
        )

    def test_global_requests_are_answered_in_order_and_never_granted(self):
        pair = Pair()
        for kind in (b"tcpip-forward", b"keepalive@openssh.com", b"nonsense"):
            pair.client(wire.GLOBAL_REQUEST, string(kind) + b"\1" + string(b"") + uint32(0))
        self.assertEqual(pair.near_leg.take(), [(wire.REQUEST_FAILURE, b"")] * 3)
        self.assertEqual(pair.far_leg.take(), [])


class Refused(SynchronousTestCase):
    def test_a_command(self):
        pair = Pair({"exec": {"commands": ["id"]}})
        pair.open()
        pair.exec(b"id; id")
        pair.factory.reactor.advance(1)
        kinds = [kind for kind, _ in pair.near_leg.take()]
        self.assertEqual(kinds, [wire.CHANNEL_EXTENDED_DATA, wire.CHANNEL_FAILURE])
        self.assertEqual(pair.far_leg.take(), [])
        pair.exec(b"id")
        self.assertEqual([kind for kind, _ in pair.far_leg.take()], [wire.CHANNEL_REQUEST])

    def test_a_second_program_on_one_channel(self):
        pair = Pair()
        pair.open()
        pair.exec()
        pair.far_leg.take()
        pair.exec()
        self.assertEqual(pair.far_leg.take(), [])

    def test_channels_that_no_policy_knows(self):
        pair = Pair()
        for kind in (b"x11", b"forwarded-tcpip", b"direct-streamlocal@openssh.com", b"tun@x", b"?"):
            fields = string(kind) + uint32(7) + uint32(100) + uint32(100)
            pair.client(wire.CHANNEL_OPEN, fields)
            ((sent, payload),) = pair.near_leg.take()
            self.assertEqual(sent, wire.CHANNEL_OPEN_FAILURE)
            self.assertEqual(payload[:8], uint32(7) + uint32(1))
        self.assertEqual(pair.near.ends, {})

    def test_no_more_sessions(self):
        pair = Pair()
        pair.client(wire.GLOBAL_REQUEST, string(b"no-more-sessions@openssh.com") + b"\0")
        fields = string(b"session") + uint32(7) + uint32(100) + uint32(100)
        pair.client(wire.CHANNEL_OPEN, fields)
        self.assertEqual(pair.near_leg.take()[0][0], wire.CHANNEL_OPEN_FAILURE)

    def test_too_many_channels(self):
        pair = Pair()
        for number in range(200):
            fields = string(b"session") + uint32(number) + uint32(100) + uint32(100)
            pair.client(wire.CHANNEL_OPEN, fields)
        refused = [k for k, _ in pair.near_leg.take() if k == wire.CHANNEL_OPEN_FAILURE]
        self.assertEqual(len(refused), 72)


class Rogue(SynchronousTestCase):
    def test_an_upstream_that_opens_channels(self):
        pair = Pair()
        for kind in (b"session", b"x11", b"forwarded-tcpip", b"auth-agent@openssh.com", b"?"):
            fields = string(kind) + uint32(3) + uint32(100) + uint32(100)
            pair.upstream(wire.CHANNEL_OPEN, fields)
            self.assertEqual(pair.far_leg.take()[0][0], wire.CHANNEL_OPEN_FAILURE)
        self.assertEqual(pair.near_leg.take(), [])

    def test_messages_that_no_one_can_mean(self):
        for kind, payload in (
            (wire.CHANNEL_DATA, data(b"x", 99)),
            (wire.CHANNEL_EOF, uint32(99)),
            (wire.CHANNEL_CLOSE, uint32(99)),
            (wire.CHANNEL_REQUEST, uint32(99) + string(b"x") + b"\0"),
            (wire.CHANNEL_SUCCESS, uint32(0)),
            (wire.CHANNEL_FAILURE, uint32(99)),
            (wire.CHANNEL_WINDOW_ADJUST, uint32(99) + uint32(1)),
            (wire.CHANNEL_WINDOW_ADJUST, uint32(0) + uint32(0xFFFFFFFF)),
            (wire.CHANNEL_OPEN_CONFIRMATION, uint32(0) + uint32(1) + uint32(1) + uint32(1)),
            (wire.CHANNEL_OPEN_FAILURE, uint32(0) + uint32(1) + string(b"") + string(b"")),
            (wire.CHANNEL_EXTENDED_DATA, uint32(0) + uint32(2) + string(b"x")),
            (wire.CHANNEL_DATA, uint32(0) + uint32(1 << 31) + b"x"),
            (wire.CHANNEL_DATA, b""),
            (wire.REQUEST_SUCCESS, b""),
            (wire.CHANNEL_OPEN, string(b"session") + uint32(1)),
            (wire.CHANNEL_OPEN, string(b"session") + uint32(1) + uint32(1) + uint32(0)),
        ):
            for side in ("client", "upstream"):
                pair = Pair()
                pair.open()
                with self.assertRaises(ProtocolError, msg=(kind, payload)):
                    getattr(pair, side)(kind, payload)

    def test_a_huge_window_is_fine(self):
        pair = Pair()
        pair.open(window=0xFFFFFFFF, packet=0xFFFFFFFF)
        pair.exec()
        pair.far_leg.take()
        pair.client(wire.CHANNEL_DATA, data(bytes(32768)))
        ((kind, payload),) = pair.far_leg.take()
        self.assertEqual((kind, len(payload)), (wire.CHANNEL_DATA, 32768 + 8))

    def test_data_and_requests_after_the_end(self):
        pair = Pair()
        pair.open()
        pair.exec()
        pair.upstream(wire.CHANNEL_EOF, uint32(0))
        with self.assertRaises(ProtocolError):
            pair.upstream(wire.CHANNEL_DATA, data(b"x"))
        pair.upstream(wire.CHANNEL_CLOSE, uint32(0))
        with self.assertRaises(ProtocolError):
            pair.upstream(wire.CHANNEL_CLOSE, uint32(0))

    def test_requests_without_end_are_bounded(self):
        pair = Pair()
        pair.open()
        with self.assertRaises(ProtocolError):
            for _ in range(2000):
                fields = uint32(0) + string(b"signal") + b"\1" + string(b"INT")
                pair.client(wire.CHANNEL_REQUEST, fields)

    def test_sftp_that_is_none_ends_the_session(self):
        pair = Pair()
        pair.open()
        fields = uint32(0) + string(b"subsystem") + b"\1" + string(b"sftp")
        pair.session.log.open_cast = lambda: None
        pair.client(wire.CHANNEL_REQUEST, fields)
        with self.assertRaises(ProtocolError):
            pair.client(wire.CHANNEL_DATA, data(b"\xff\xff\xff\xff\x03"))
