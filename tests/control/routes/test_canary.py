"""Texts that open something are shown once: not stored, not logged, not in the audit."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import fail
from twisted.logger import globalLogPublisher

from border0.control.api.routes import Table
from border0.control.routes import administration
from border0.control.routes.desk import Desk
from border0.control.store.errors import Unavailable
from tests.support.controlplane import PIN, URL, ControlPlane
from tests.support.signin import now_of

IAM = "/organizations/iam"
ONCE = (
    (f"{IAM}/users", {"email": "new@acme"}, "setup_link"),
    (f"{IAM}/user/member@acme/setup_link", None, "setup_link"),
    (f"{IAM}/service_accounts/robot/tokens", {"name": "x"}, "token"),
    ("/tokens", {"name": "x"}, "token"),
    ("/enrolment_keys", {"name": "x", "tags": ["a"]}, "key"),
    ("/invites", {"kind": "connector"}, "code"),
)


class Canary(ControlPlane):
    def register(self, table: Table, desk: Desk) -> None:
        administration.register(table, desk, tokens=self.tokens, base_url=URL, pin=PIN)

    def setUp(self) -> None:
        super().setUp()
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)
        login = self.tokens.issue(
            kind="user",
            org=self.callers["owner@acme"].org,
            subject=self.users["owner@acme"],
            name="login",
            seconds=1e6,
            now=self.now(),
        )
        self.who: str = now_of(login)[0].reveal()

    def secret(self, made: Any, field: str) -> str:
        text: str = made[field]
        return text.partition("?link=")[2] or text

    def test_shown_once(self) -> None:
        secrets = []
        for path, body, field in ONCE:
            made = self.ok("POST", path, body, who=self.who)
            secrets.append(self.secret(made, field))
            self.assertGreater(len(secrets[-1]), 40)
        for path in (
            f"{IAM}/users",
            f"{IAM}/service_accounts/robot/tokens",
            "/tokens",
            "/enrolment_keys",
            "/invites",
        ):
            shown = self.call("GET", path, who=self.who, status=200).text
            for secret in secrets:
                self.assertNotIn(secret, shown)
        stored = b"".join(file.read_bytes() for file in self.folder.iterdir())
        said = json.dumps([self.events(), [repr(event) for event in self.logged]])
        for secret in (*secrets, self.who):
            self.assertNotIn(secret.encode(), stored)
            # The part that is random, in case a text is kept without its prefix.
            self.assertNotIn(secret[-40:].encode(), stored)
            self.assertNotIn(secret[-40:], said)

    def test_a_repeated_request_gets_no_second_text(self) -> None:
        for path, body, field in ONCE:
            headers = [("Idempotency-Key", f"once-{len(path)}-0123456789")]
            made = self.ok("POST", path, body, who=self.who, headers=headers)
            again = self.call("POST", path, body, who=self.who, headers=headers)
            self.assertEqual(again.status, 409, again.raw)
            self.assertNotIn(self.secret(made, field), again.text)

    def test_nothing_is_shown_that_was_not_stored(self) -> None:
        for path, body, _ in ONCE:
            before = self.events()

            def change(function: Any, **more: Any) -> Any:
                return fail(Unavailable("the disk is full"))

            self.patch(self.store, "change", change)
            response = self.call("POST", path, body, who="owner@acme")
            self.assertIn(response.status, (500, 503), path)
            self.assertEqual(set(response.json()), {"error", "error_message", "status_code"})
            self.assertEqual(self.events(), before)
