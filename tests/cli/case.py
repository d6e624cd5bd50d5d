"""Commands in this process, with a home of their own and a fake control plane."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from border0.cli import account
from border0.cli.main import main
from border0.secrets import Secret
from tests.support.fakeapi import FakeApi

TOKEN = "b0u_" + "0" * 32 + "_" + "a" * 52
VARIABLES = ("BORDER0_BASE_URL", "BORDER0_AUTH_TOKEN", "BORDER0_CA", "VISUAL", "EDITOR")


class Done:
    """What a command did."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def objects(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class Commands(SynchronousTestCase):
    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.home = self.base / "home"
        self.home.mkdir(parents=True, mode=0o700)
        environment = {"BORDER0_HOME": str(self.home), "TZ": "Etc/GMT-2", "COLUMNS": "100"}
        kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        patch = mock.patch.dict(os.environ, {**kept, **environment}, clear=True)
        patch.start()
        self.addCleanup(time.tzset)
        self.addCleanup(patch.stop)
        time.tzset()

    def serve(self, **options: Any) -> FakeApi:
        api = FakeApi(self.base / "ca", **options)
        self.addCleanup(api.stop)
        return api

    def sign_in(self, api: FakeApi, **more: Any) -> None:
        authority = api.authority.certificate.decode()
        fields = {"url": api.url, "ca": api.pin, "authority": authority, "token": Secret(TOKEN)}
        account.save(self.home, account.Account(**{**fields, "org_name": "acme", **more}))

    def run_(self, *arguments: str, text: str = "", terminal: bool = False) -> Done:
        """Run a command; whatever happens, no token is in what it says, and no traceback."""
        out, err = io.StringIO(), io.StringIO()
        source = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")
        source.isatty = lambda: terminal  # type: ignore[method-assign]
        streams = contextlib.ExitStack()
        streams.enter_context(contextlib.redirect_stdout(out))
        streams.enter_context(contextlib.redirect_stderr(err))
        streams.enter_context(mock.patch("sys.stdin", source))
        with streams:
            try:
                status = main(list(arguments))
            except SystemExit as end:
                status = int(end.code or 0)
        done = Done(status, out.getvalue(), err.getvalue())
        self.assertNotIn(TOKEN, done.out + done.err)
        self.assertNotIn("Traceback", done.err)
        if "--json" not in arguments:
            for line in done.lines:
                self.assertTrue(line.isprintable(), line)
        return done

    def ask(self, *arguments: str, **options: Any) -> Done:
        """Run a command that must succeed; its lines fit a terminal."""
        done = self.run_(*arguments, **options)
        self.assertEqual(done.status, 0, done.err)
        if "--json" not in arguments:
            self.assertEqual([line for line in done.lines if len(line) > 100], [])
        return done

    def fails(self, *arguments: str, status: int = 1, says: str = "", **options: Any) -> Done:
        """Run a command that must fail with one line."""
        done = self.run_(*arguments, **options)
        self.assertEqual(done.status, status, done.err)
        self.assertIn(says, done.err)
        self.assertTrue(done.err.strip().splitlines()[-1].startswith("border0: "), done.err)
        return done
