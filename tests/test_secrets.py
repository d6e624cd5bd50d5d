"""Secrets hide themselves; references resolve or say why not, never with the value."""

import pickle
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.errors import ConfigError
from border0.secrets import Secret, resolve

CANARY = "canary-90aa"


class Secrets(SynchronousTestCase):
    def test_hidden(self) -> None:
        secret = Secret(CANARY)
        for text in (repr(secret), str(secret), f"{secret}", repr([secret]), repr({"a": secret})):
            self.assertNotIn(CANARY, text)
        self.assertRaises(TypeError, pickle.dumps, secret)
        self.assertEqual(secret.reveal(), CANARY)
        self.assertEqual(secret, Secret(CANARY))

    def test_references(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "pw").write_text(CANARY + "\n")
        for text in ("from:env:X", "from:file:pw", f"from:cmd:printf {CANARY}", CANARY):
            self.assertEqual(resolve(text, folder, {"X": CANARY}).reveal(), CANARY)

    def test_refusals(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "big").write_text("x" * 70000)
        for text, expected in (
            ("from:env:X", "not set"),
            ("from:file:absent", "No such file"),
            ("from:file:big", "larger than"),
            ("from:cmd:false", "status 1"),
            ("from:cmd:/no/such/program", "failed"),
            ("from:aws:ssm:x", "unknown kind"),
            ("from:env", "names nothing"),
        ):
            error = self.assertRaises(ConfigError, resolve, text, folder, {})
            self.assertIn(expected, str(error))
