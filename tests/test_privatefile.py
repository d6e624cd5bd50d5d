"""A private file is replaced whole or not at all, and never open to others."""

import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0 import privatefile


class Replacing(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "host.key"

    def only(self, content: bytes) -> None:
        """The folder has this one file, of mode 0600."""
        self.assertEqual(os.listdir(self.folder), ["host.key"])
        self.assertEqual(self.path.read_bytes(), content)
        if os.name == "posix":
            self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_new_and_again(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        privatefile.replace(self.path, b"one")
        self.only(b"one")
        self.path.chmod(0o644)
        privatefile.replace(self.path, b"two", sync=True)
        self.only(b"two")

    def test_what_an_interrupted_write_left(self) -> None:
        left = self.folder / "host.key.new"
        left.write_bytes(b"half of a much longer file")
        left.chmod(0o644)
        privatefile.replace(self.path, b"one")
        self.only(b"one")

    def test_a_link_in_the_way_is_not_followed(self) -> None:
        target = self.folder / "elsewhere"
        (self.folder / "host.key.new").symlink_to(target)
        privatefile.replace(self.path, b"one")
        self.only(b"one")

    def test_a_failure_leaves_the_old_one_alone(self) -> None:
        privatefile.replace(self.path, b"one")

        def fail(*_: object) -> None:
            raise OSError(28, "No space left on device")

        for name in ("fsync", "replace"):
            patched = self.patch(os, name, fail)
            with self.assertRaises(OSError):
                privatefile.replace(self.path, b"two", sync=True)
            patched.restore()
            self.only(b"one")
        with self.assertRaises(FileNotFoundError):
            privatefile.replace(self.folder / "nowhere" / "x", b"two")

    def test_it_is_on_the_disk_before_it_has_the_name(self) -> None:
        seen: list[str] = []
        sync, replace = os.fsync, os.replace
        self.patch(os, "fsync", lambda handle: (seen.append("fsync"), sync(handle))[1])
        self.patch(os, "replace", lambda *paths: (seen.append("replace"), replace(*paths))[1])
        privatefile.replace(self.path, b"one", sync=True)
        self.assertEqual(seen, ["fsync", "replace"])
        privatefile.replace(self.path, b"two")
        self.assertEqual(seen, ["fsync", "replace", "replace"])
