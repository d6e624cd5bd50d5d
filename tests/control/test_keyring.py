"""Key files: made once, for nobody else to read, never replaced, never shown."""

import base64
import os
import pickle
import stat
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Thread

from twisted.trial.unittest import SynchronousTestCase

from border0.control.archive import PATTERNS
from border0.control.keyring import Keyring
from border0.errors import ConfigError

ORG = "11111111-1111-4111-8111-111111111111"


class Keys(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp())
        self.keyring = Keyring(self.folder)

    def test_made_once(self):
        key = self.keyring.server_key
        self.assertEqual(len(key), 32)
        self.assertEqual(self.keyring.server_key, key)
        again = Keyring(self.folder)
        self.assertEqual(again.server_key, key)
        signing = self.keyring.signing_key(ORG).private_bytes_raw()
        self.assertEqual(again.signing_key(ORG, create=False).private_bytes_raw(), signing)
        other = ORG.replace("1", "2")
        self.assertNotEqual(self.keyring.signing_key(other).private_bytes_raw(), signing)
        self.assertNotEqual(signing, key)
        names = {path.name for path in (self.folder / "keys").iterdir()}
        self.assertEqual(names, {"server.key", f"org-{ORG}.key", f"org-{other}.key"})

    def test_tickets_have_a_key_of_their_own(self):
        ticket = self.keyring.ticket_key(ORG).private_bytes_raw()
        self.assertEqual(Keyring(self.folder).ticket_key(ORG).private_bytes_raw(), ticket)
        self.assertNotEqual(self.keyring.signing_key(ORG).private_bytes_raw(), ticket)
        names = {path.name for path in (self.folder / "keys").iterdir()}
        self.assertEqual(names, {f"org-{ORG}.key", f"org-{ORG}.ticket.key"})
        for name in names:
            self.assertTrue(any(fnmatchcase(name, one) for one in PATTERNS["keys"]))
        self.assertRaises(ValueError, self.keyring.ticket_key, "../x")
        with self.assertRaises(ConfigError):
            self.keyring.ticket_key(ORG.replace("1", "2"), create=False)

    def test_for_nobody_else(self):
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        _ = self.keyring.server_key
        self.keyring.signing_key(ORG)
        self.assertEqual(stat.S_IMODE((self.folder / "keys").stat().st_mode), 0o700)
        for path in (self.folder / "keys").iterdir():
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        (self.folder / "keys/server.key").chmod(0o640)
        with self.assertRaises(ConfigError) as caught:
            _ = Keyring(self.folder).server_key
        self.assertIn("chmod 600", str(caught.exception))

    def test_a_broken_file_is_never_replaced(self):
        path = self.folder / "keys/server.key"
        path.parent.mkdir(parents=True)
        for content in (b"", b"canary", b"\xff\xfe", base64.b64encode(b"short canary")):
            path.write_bytes(content)
            path.chmod(0o600)
            with self.assertRaises(ConfigError) as caught:
                _ = self.keyring.server_key
            self.assertNotIn("canary", str(caught.exception))
            self.assertEqual(path.read_bytes(), content)

    def test_what_cannot_be_made(self):
        self.folder.write_text("a file")
        with self.assertRaises(ConfigError):
            _ = self.keyring.server_key
        with self.assertRaises(ConfigError):
            Keyring(Path(self.mktemp())).signing_key(ORG, create=False)

    def test_names(self):
        for wrong in ("", "../x", ORG.upper().replace("1", "A"), ORG + "\n", "org"):
            with self.assertRaises(ValueError):
                self.keyring.signing_key(wrong)

    def test_at_the_same_time(self):
        found = []
        rings = [Keyring(self.folder) for _ in range(8)]
        threads = [Thread(target=lambda ring=ring: found.append(ring.server_key)) for ring in rings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((len(found), len(set(found))), (8, 1))
        self.assertEqual(len(list((self.folder / "keys").iterdir())), 1)

    def test_never_shown(self):
        key = self.keyring.server_key
        shown = repr(self.keyring) + str(self.keyring) + repr(self.keyring.signing_key(ORG))
        for form in (repr(key), key.hex(), base64.b64encode(key).decode()):
            self.assertNotIn(form, shown)
        self.assertFalse(hasattr(self.keyring, "__dict__"))
        self.assertRaises(TypeError, pickle.dumps, self.keyring)
