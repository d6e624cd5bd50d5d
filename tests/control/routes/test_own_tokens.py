"""API tokens: a user's own, and everybody's for those who look after them."""

from __future__ import annotations

from typing import Any

from tests.control.routes.test_service_accounts import AccountCase
from tests.support.controlplane import OTHER, UNKNOWN
from tests.support.signin import now_of


class OwnTokens(AccountCase):
    def own(self, who: str = "owner@acme", **body: Any) -> str:
        """A token as signing in makes one."""
        self.clock.advance(1)
        principal = self.callers[who]
        made = self.tokens.issue(
            kind="user",
            org=principal.org,
            subject=principal.id,
            name="login",
            seconds=body.get("seconds", 1000.0),
            now=self.now(),
            scopes=body.get("scopes"),
        )
        text: str = now_of(made)[0].reveal()
        return text

    def test_a_token_s_life(self) -> None:
        login = self.own("member@acme")
        made = self.ok("POST", "/tokens", {"name": "script"}, who=login)
        self.assertTrue(made["token"].startswith("b0u_"))
        self.assertEqual(
            (made["kind"], made["scopes"], made["owner"]["name"]), ("user", None, "member@acme")
        )
        self.assertEqual(self.last_event()["type"], "token.create")
        listed = self.ok("GET", "/tokens", who=made["token"])["items"]
        self.assertEqual([one["name"] for one in listed], ["login", "script"])
        self.assertEqual([one["current"] for one in listed], [False, True])
        self.assertEqual({one["owner"]["name"] for one in listed}, {"member@acme"})
        self.call("DELETE", "/token/current", who=made["token"], status=204)
        self.assertEqual(self.last_event()["target"], {"token": made["id"]})
        self.refused(401, "GET", "/tokens", who=made["token"])
        self.ok("GET", "/tokens", who=login)

    def test_everybody_s(self) -> None:
        self.account()
        self.issue()
        self.own("member@acme")
        found = self.ok("GET", "/tokens")["items"]
        self.assertEqual(
            [(one["kind"], one["owner"]["name"]) for one in found],
            [("service", "ci"), ("user", "member@acme")],
        )
        (one,) = self.ok("GET", "/tokens?user=member@acme")["items"]
        self.call("DELETE", f"/token/{one['id']}", who="admin@acme", status=204)
        self.refused(422, "GET", "/tokens?user=member@other")
        (one,) = self.ok("GET", "/tokens?service_account=ci")["items"]
        self.assertEqual(one["owner"]["name"], "ci")
        self.refused(422, "GET", "/tokens?service_account=nobody")
        (one,) = self.ok("GET", f"/tokens?service_account={one['owner']['id']}")["items"]
        self.assertEqual(
            self.ok("GET", "/tokens?service_account=robot", who="member@acme")["items"], []
        )

    def test_a_member_sees_and_ends_their_own(self) -> None:
        self.account()
        service = self.issue()
        self.own("admin@acme")
        self.assertEqual(self.ok("GET", "/tokens", who="member@acme")["items"], [])
        self.assertEqual(self.ok("GET", "/tokens?user=admin@acme", who="member@acme")["items"], [])
        theirs = self.make("token", OTHER)
        for token in (service["id"], theirs, UNKNOWN, "x"):
            self.refused(404, "DELETE", f"/token/{token}", who="member@acme")
        self.refused(404, "DELETE", f"/token/{theirs}")
        self.refused(403, "POST", "/tokens", {"name": "x"}, who="service@acme")

    def test_no_more_than_the_token_it_is_made_with(self) -> None:
        login = self.own("admin@acme", scopes=["token.own", "socket.read"])
        made = self.ok("POST", "/tokens", {"name": "same"}, who=login)
        self.assertEqual(made["scopes"], ["socket.read", "token.own"])
        body = {"name": "more", "scopes": ["socket.write"]}
        self.refused(403, "POST", "/tokens", body, who=login)
        self.refused(422, "POST", "/tokens", {**body, "scopes": ["root"]}, who=login)
        made = self.ok("POST", "/tokens", {**body, "scopes": ["socket.read"]}, who=login)
        self.assertEqual(made["scopes"], ["socket.read"])
        self.refused(403, "POST", "/tokens", {"name": "x"}, who=made["token"])

    def test_no_longer_than_the_token_it_is_made_with(self) -> None:
        login = self.own(seconds=1000.0)
        longer = self.ok(
            "POST", "/tokens", {"name": "x", "expires_in_seconds": 90 * 86_400}, who=login
        )
        self.ok("POST", "/tokens", {"name": "x", "expires_in_seconds": 500}, who=login)
        made = self.ok("POST", "/tokens", {"name": "x"}, who=login)
        self.clock.advance(1000)
        for token in (login, made["token"], longer["token"]):
            self.refused(401, "GET", "/tokens", who=token)
