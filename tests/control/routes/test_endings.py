"""Who is disabled or deleted is out at once, and nothing comes back with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from border0.control.api.routes import Table
from border0.control.routes import administration
from border0.control.routes.desk import Desk
from border0.control.signin.model import Grant
from border0.control.store import enrolment_keys, invites
from border0.control.store.errors import Refused
from border0.control.store.transaction import Tx
from tests.support.controlplane import ACME, PIN, URL, ControlPlane
from tests.support.signin import now_of
from tests.support.web import exchange

IAM = "/organizations/iam"


class Endings(ControlPlane):
    def register(self, table: Table, desk: Desk) -> None:
        administration.register(table, desk, tokens=self.tokens, base_url=URL, pin=PIN)

    def setUp(self) -> None:
        super().setUp()
        self.admin = self.users["admin@acme"]
        self.token = now_of(
            self.tokens.issue(
                kind="user", org=ACME, subject=self.admin, name="x", seconds=1e6, now=self.now()
            )
        )[0].reveal()
        self.cookie = now_of(
            self.sessions.begin(
                self.admin, ACME, self.now(), "192.0.2.7", stage="full", mfa=True, replaces=None
            )
        ).reveal()
        self.theirs = self.ok("POST", "/invites", {"kind": "connector"}, who=self.token)
        self.for_them = self.ok("POST", "/invites", {"kind": "device", "user": self.admin})
        body = {"name": "fleet", "tags": ["x"], "max_uses": None}
        self.key = self.ok("POST", "/enrolment_keys", body, who=self.token)
        self.other_key = self.ok("POST", "/enrolment_keys", body)
        grant = Grant(
            "d" * 64, "AAAA-BBBB", "key", "pc", "device", "192.0.2.1", self.now() + 500, 5.0
        )
        self.assertTrue(now_of(self.sign_in.add_grant(grant, self.now())))
        approved = grant._replace(state="approved", account=self.admin, org=ACME)
        self.assertTrue(now_of(self.sign_in.replace_grant(approved)))

    def by_cookie(self) -> int:
        headers = [("Cookie", f"__Host-border0={self.cookie}")]
        return exchange(self.site, "GET", "/api/v1/devices", headers=headers).status

    def by_token(self) -> int:
        return self.call("GET", "/devices", who=self.token).status

    def spend_invite(self, code: str, kind: str) -> str:
        return self.outcome(lambda tx: invites.consume(tx, code, kind, "x"))

    def spend_key(self, text: str) -> str:
        return self.outcome(lambda tx: enrolment_keys.consume(tx, text))

    def outcome(self, function: Callable[[Tx], Any]) -> str:
        try:
            self.write(function)
        except Refused as refused:
            return refused.reason
        return "good"

    def check_codes(self) -> None:
        self.assertEqual(self.spend_invite(self.theirs["code"], "connector"), "revoked")
        self.assertEqual(self.spend_invite(self.for_them["code"], "device"), "revoked")
        self.assertEqual(self.spend_key(self.key["key"]), "revoked")
        self.assertEqual(self.spend_key(self.other_key["key"]), "good")

    def test_disabled(self) -> None:
        self.assertEqual((self.by_cookie(), self.by_token()), (200, 200))
        found = self.ok("PUT", f"{IAM}/user/{self.admin}", {"disabled": True})
        self.assertEqual((found["disabled"], found["state"]), (True, "disabled"))
        self.assertEqual((self.by_cookie(), self.by_token()), (401, 401))
        self.assertEqual(
            self.last_event()["details"]["ended"],
            {
                "browser_sessions": 1,
                "device_grants": 1,
                "tokens": 1,
                "enrolment_keys": 1,
                "invites": 2,
            },
        )
        self.check_codes()
        self.ok("PUT", f"{IAM}/user/{self.admin}", {"disabled": False})
        self.assertEqual((self.by_cookie(), self.by_token()), (401, 401), "came back to life")
        self.assertIsNone(now_of(self.sign_in.grant_by_device("d" * 64)))

    def test_deleted(self) -> None:
        self.call("DELETE", f"{IAM}/user/{self.admin}", status=204)
        self.assertEqual((self.by_cookie(), self.by_token()), (401, 401))
        self.check_codes()

    def test_a_set_up_link_ends_too(self) -> None:
        made = self.ok("POST", f"{IAM}/users", {"email": "new@acme"})
        self.ok("PUT", f"{IAM}/user/new@acme", {"disabled": True})
        self.assertEqual(self.last_event()["details"]["ended"], {"setup_links": 1})
        self.refused(409, "POST", f"{IAM}/user/{made['id']}/setup_link")

    def test_a_lower_role_counts_at_once(self) -> None:
        self.ok("PUT", f"{IAM}/user/{self.admin}", {"role": "member"})
        self.assertEqual(self.by_token(), 200)
        self.refused(403, "GET", f"{IAM}/users", who=self.token)

    def test_others_keep_what_they_have(self) -> None:
        self.ok("PUT", f"{IAM}/user/member@acme", {"disabled": True})
        self.assertEqual((self.by_cookie(), self.by_token()), (200, 200))
        self.assertNotIn("ended", self.last_event()["details"])
