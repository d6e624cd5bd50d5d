import random

from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard import xchacha
from border0.wireguard.cookie import CookieChecker, CookieJar
from border0.wireguard.errors import ProtocolError
from border0.wireguard.load import LoadMeter, SourceLimiter, source_bytes
from border0.wireguard.messages import pack_initiation

MESSAGE = pack_initiation(9, b"e" * 32, b"s" * 48, b"t" * 28)
PUBLIC = b"p" * 32


class XChaChaTests(SynchronousTestCase):
    """Vectors of draft-irtf-cfrg-xchacha-03."""

    def test_hchacha20(self) -> None:
        """Section 2.2.1."""
        key = bytes(range(32))
        nonce = bytes.fromhex("000000090000004a0000000031415927")
        self.assertEqual(
            xchacha.hchacha20(key, nonce).hex(),
            "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc",
        )

    def test_aead(self) -> None:
        """Appendix A.3.1."""
        text = (
            b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
            b"future, sunscreen would be it."
        )
        box = xchacha.seal(
            bytes(range(0x80, 0xA0)),
            bytes(range(0x40, 0x58)),
            text,
            bytes.fromhex("50515253c0c1c2c3c4c5c6c7"),
        )
        self.assertEqual(box[:16].hex(), "bd6d179d3e83d43b9576579493c0e939")
        self.assertEqual(box[-16:].hex(), "c0875924c1c7987947deafd8780acf49")

    def test_changed_box(self) -> None:
        box = xchacha.seal(b"k" * 32, b"n" * 24, b"text", b"ad")
        self.assertEqual(xchacha.open_box(b"k" * 32, b"n" * 24, box, b"ad"), b"text")
        with self.assertRaises(ProtocolError):
            xchacha.open_box(b"k" * 32, b"n" * 24, box, b"da")


class CookieTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.checker = CookieChecker(PUBLIC, random.Random(1).randbytes)
        self.jar = CookieJar(PUBLIC)

    def learn(self, now: float) -> bytes:
        message = self.jar.add_macs(MESSAGE, now)
        reply = self.checker.reply(message, b"here", now)
        self.jar.take_reply(reply, now)
        return reply

    def test_mac1(self) -> None:
        message = self.jar.add_macs(MESSAGE, 0.0)
        self.assertTrue(self.checker.mac1_valid(message))
        self.assertFalse(self.checker.mac1_valid(message[:4] + b"\xff" + message[5:]))
        self.assertFalse(CookieChecker(b"q" * 32, bytes).mac1_valid(message))

    def test_no_cookie_no_mac2(self) -> None:
        message = self.jar.add_macs(MESSAGE, 0.0)
        self.assertEqual(message[-16:], bytes(16))
        self.assertFalse(self.checker.mac2_valid(message, b"here", 0.0))

    def test_cookie_is_bound_to_the_source(self) -> None:
        self.learn(0.0)
        message = self.jar.add_macs(MESSAGE, 1.0)
        self.assertTrue(self.checker.mac2_valid(message, b"here", 1.0))
        self.assertFalse(self.checker.mac2_valid(message, b"there", 1.0))

    def test_secret_changes_and_cookie_ages(self) -> None:
        self.learn(0.0)
        fresh = self.jar.add_macs(MESSAGE, 114.9)
        self.assertTrue(self.checker.mac2_valid(fresh, b"here", 119.9))
        self.assertFalse(self.checker.mac2_valid(fresh, b"here", 120.0))
        self.assertEqual(self.jar.add_macs(MESSAGE, 115.0)[-16:], bytes(16))
        self.checker.reply(fresh, b"here", 121.0)
        self.assertFalse(self.checker.mac2_valid(fresh, b"here", 121.0))

    def test_a_reply_counts_once_and_only_for_its_question(self) -> None:
        with self.assertRaises(ProtocolError):
            self.jar.take_reply(bytes(64), 0.0)
        reply = self.learn(0.0)
        with self.assertRaises(ProtocolError):
            self.jar.take_reply(reply, 1.0)
        self.jar.add_macs(pack_initiation(8, b"f" * 32, b"s" * 48, b"t" * 28), 1.0)
        with self.assertRaises(ProtocolError):
            self.jar.take_reply(reply, 1.0)


class LoadTests(SynchronousTestCase):
    def test_meter(self) -> None:
        meter = LoadMeter(rate=10.0, burst=3.0)
        self.assertEqual([meter.under_load(100.0) for _ in range(4)], [False] * 3 + [True])
        self.assertTrue(meter.under_load(100.9))
        self.assertFalse(meter.under_load(102.0))

    def test_limiter_by_network(self) -> None:
        limiter = SourceLimiter()
        first, second = source_bytes(("10.0.0.1", 1)), source_bytes(("10.0.0.1", 2))
        self.assertEqual([limiter.allow(first, 0.0) for _ in range(3)], [True] * 3)
        self.assertEqual([limiter.allow(second, 0.0) for _ in range(3)], [True, True, False])
        self.assertTrue(limiter.allow(source_bytes(("10.0.0.2", 1)), 0.0))
        self.assertTrue(limiter.allow(first, 0.06))
        self.assertFalse(limiter.allow(first, 0.06))

    def test_limiter_is_bounded(self) -> None:
        limiter = SourceLimiter()
        answers = [
            limiter.allow(number.to_bytes(4, "big") + b"\0\1", 0.0) for number in range(9000)
        ]
        self.assertEqual(sum(answers), 8192)
        self.assertTrue(limiter.allow(b"\xff" * 4 + b"\0\1", 2.0))

    def test_source_bytes(self) -> None:
        self.assertEqual(source_bytes(("1.2.3.4", 258)), b"\1\2\3\4\1\2")
        self.assertEqual(source_bytes(("::ffff:1.2.3.4", 258, 0, 0)), b"\1\2\3\4\1\2")
        self.assertEqual(len(source_bytes(("fe80::1%eth0", 1, 0, 2))), 18)
        self.assertNotEqual(source_bytes(("relay", b"k")), source_bytes(("relay", b"l")))
