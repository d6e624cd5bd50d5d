"""Passwords and codes by themselves."""

import os

import pyotp
from argon2 import PasswordHasher
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from border0.control.api.errors import ApiError
from border0.control.signin.model import Factors
from border0.control.signin.passwords import Passwords, objection
from border0.control.signin.totp import (
    link,
    matching_step,
    recovery_codes,
    recovery_digest,
    secret_from,
)
from border0.secrets import Secret

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Threads(TestCase):
    def setUp(self) -> None:
        self.passwords = Passwords(reactor, CHEAP, queue=3)  # type: ignore[arg-type]
        self.passwords.start()
        self.addCleanup(self.passwords.stop)

    async def check(self) -> None:
        stored = await self.passwords.hash(Secret("correct horse\u212b"))
        self.assertTrue(stored.reveal().startswith("$argon2id$"))
        self.assertTrue(await self.passwords.verify(stored, Secret("correct horse\u00c5")))
        for wrong in ("correct horse", "", "correct horse\u212b "):
            self.assertFalse(await self.passwords.verify(stored, Secret(wrong)))
        for broken in (Secret(""), Secret("$argon2id$v=19$m=8"), Secret("plain"), None):
            self.assertFalse(
                await self.passwords.verify(broken, Secret("nobody has this password"))
            )
        self.assertFalse(self.passwords.is_outdated(stored))
        other = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
        self.assertTrue(self.passwords.is_outdated(Secret(other.hash("x"))))

    def test_hashes(self) -> Deferred[None]:
        return ensureDeferred(self.check())

    async def crowd(self) -> None:
        waiting = [ensureDeferred(self.passwords.hash(Secret("x" * 12))) for _ in range(5)]
        with self.assertRaises(ApiError) as caught:
            await self.passwords.hash(Secret("x" * 12))
        self.assertEqual(caught.exception.status, 503)
        for one in waiting:
            await one
        await self.passwords.hash(Secret("x" * 12))

    def test_the_queue_is_bounded(self) -> Deferred[None]:
        return ensureDeferred(self.crowd())

    def test_the_defaults_are_strong(self) -> None:
        found = Passwords(reactor)._hasher  # type: ignore[arg-type]
        self.assertGreaterEqual(found.memory_cost, 64 * 1024)
        self.assertGreaterEqual(found.time_cost, 3)
        self.assertEqual(found.type.name, "ID")


class Rules(SynchronousTestCase):
    def test_new_passwords(self) -> None:
        for bad in ("", "short", "aaaaaaaaaaaaaaaa", "x" * 257 + "abcdef", "alice@example.org"):
            self.assertTrue(objection(bad, "alice@example.org"), bad)
        self.assertEqual(objection("four words are good", "alice@example.org"), "")


class Codes(SynchronousTestCase):
    secret = Secret("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")  # RFC 6238, appendix B: "1234…90"

    def test_vectors(self) -> None:
        # the last six digits of RFC 6238's eight
        for now, code in ((59, "287082"), (1111111109, "081804"), (1234567890, "005924")):
            self.assertEqual(matching_step(self.secret, code, now, 0), now // 30)

    def test_window_and_replay(self) -> None:
        totp = pyotp.TOTP(self.secret.reveal())
        code = totp.generate_otp(100)
        for step, good in ((98, False), (99, True), (100, True), (101, True), (102, False)):
            self.assertEqual(matching_step(self.secret, code, step * 30.0, 0) is not None, good)
        self.assertIsNone(matching_step(self.secret, code, 3000.0, 100))
        self.assertIsNone(matching_step(self.secret, code, 3000.0, 101))

    def test_garbage(self) -> None:
        for code in ("", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "-12345", "1e5000"):
            self.assertIsNone(matching_step(self.secret, code, 59.0, 0), code)
        self.assertEqual(matching_step(self.secret, " 287 082 ", 59.0, 0), 1)

    def test_recovery_codes(self) -> None:
        codes = recovery_codes(os.urandom)
        self.assertEqual(len({code.reveal() for code in codes}), 10)
        text = codes[0].reveal()
        self.assertEqual(recovery_digest(text), recovery_digest(text.replace("-", " ").upper()))
        self.assertEqual(recovery_digest(text[:-1]), "")
        self.assertEqual(recovery_digest("123456"), "")
        self.assertNotIn(text, repr(codes))

    def test_secrets_hide(self) -> None:
        secret = secret_from(bytes(range(20)))
        factors = Factors(Secret("$argon2id$canary"), secret, 1, ("digest",))
        self.assertNotIn("canary", repr(factors))
        self.assertNotIn(secret.reveal(), repr(factors))
        self.assertTrue(link(secret, "a@b", "border0").startswith("otpauth://totp/"))
