"""Sealed second factors: opened by the same key for the same user, and by nothing else."""

import os

from twisted.trial.unittest import SynchronousTestCase

from border0.control.signin.sealing import Seal, SealError
from border0.secrets import Secret

SECRET = Secret("CANARYCANARYCANARYCANARYCANARYCA")


class Seals(SynchronousTestCase):
    def setUp(self):
        self.seal = Seal(bytes(range(32)))
        self.sealed = self.seal.seal("user", SECRET, os.urandom)

    def test_there_and_back(self):
        self.assertEqual(self.seal.open("user", self.sealed), SECRET)
        self.assertEqual(Seal(bytes(range(32))).open("user", self.sealed), SECRET)
        self.assertNotIn(b"CANARY", self.sealed)
        self.assertNotEqual(self.sealed, self.seal.seal("user", SECRET, os.urandom))

    def test_layout(self):
        sealed = self.seal.seal("user", SECRET, lambda size: b"\x07" * size)
        self.assertEqual(sealed[:13], b"\x01" + b"\x07" * 12)
        self.assertEqual(len(sealed), 13 + 32 + 16)

    def refused(self, user, sealed, seal=None):
        with self.assertRaises(SealError) as caught:
            (seal or self.seal).open(user, sealed)
        self.assertNotIn("CANARY", str(caught.exception))

    def test_another_key_or_user(self):
        self.refused("user", self.sealed, Seal(bytes(32)))
        for user in ("", "use", "user2", "User"):
            self.refused(user, self.sealed)

    def test_damage(self):
        for place in range(len(self.sealed)):
            changed = bytearray(self.sealed)
            changed[place] ^= 1
            self.refused("user", bytes(changed))
        for length in range(len(self.sealed)):
            self.refused("user", self.sealed[:length])
        self.refused("user", self.sealed + b"\0")

    def test_short_keys(self):
        self.assertRaises(ValueError, Seal, bytes(31))

    def test_never_shown(self):
        self.assertNotIn(repr(bytes(range(32))), repr(self.seal))
        self.assertFalse(hasattr(self.seal, "__dict__"))
