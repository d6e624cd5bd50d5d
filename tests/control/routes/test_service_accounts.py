"""Service accounts and their tokens."""

from __future__ import annotations

from typing import Any

from border0.control.api.principals import PERMISSIONS
from border0.control.api.routes import Table
from border0.control.routes import account_tokens, own_tokens, service_accounts, users
from border0.control.routes.desk import Desk
from border0.control.routes.giving import SERVICE_ROLES
from tests.support.controlplane import OTHER, START, UNKNOWN, URL, ControlPlane

ROOT = "/organizations/iam/service_accounts"


class AccountCase(ControlPlane):
    def register(self, table: Table, desk: Desk) -> None:
        users.register(table, desk, base_url=URL)
        service_accounts.register(table, desk)
        account_tokens.register(table, desk, tokens=self.tokens)
        own_tokens.register(table, desk, tokens=self.tokens)

    def account(self, name: str = "ci", role: str = "admin", **more: Any) -> Any:
        return self.ok("POST", ROOT, {"name": name, "role": role, **more})

    def issue(self, name: str = "ci", **body: Any) -> Any:
        return self.ok("POST", f"{ROOT}/{name}/tokens", {"name": "pipeline", **body})

    def works(self, token: str) -> bool:
        return self.call("GET", ROOT, who=token).status == 200


class Accounts(AccountCase):
    def test_roles_are_permissions(self) -> None:
        for role, scopes in SERVICE_ROLES.items():
            self.assertLessEqual(scopes, set(PERMISSIONS), role)
            for scope in scopes:
                self.assertIn("service", PERMISSIONS[scope], f"{role}: {scope}")

    def test_an_account_s_life(self) -> None:
        made = self.account(description="builds")
        self.assertEqual(
            (made["name"], made["description"], made["role"], made["active"]),
            ("ci", "builds", "admin", True),
        )
        self.assertEqual(
            (self.last_event()["type"], self.last_event()["target"]["name"]),
            ("service_account.create", "ci"),
        )
        self.assertEqual(self.ok("GET", f"{ROOT}/ci"), made)
        self.assertEqual(self.ok("GET", f"{ROOT}/{made['service_account_id']}"), made)
        listed = self.ok("GET", ROOT)
        self.assertEqual(
            (listed["items"], [one["name"] for one in listed["list"]]), (2, ["ci", "robot"])
        )
        changed = self.ok("PUT", f"{ROOT}/ci", {"description": "", "name": "build"})
        self.assertEqual((changed["name"], changed["version"]), ("build", 2))
        self.refused(412, "PUT", f"{ROOT}/build", {}, headers=[("If-Match", '"v1"')])
        self.call("DELETE", f"{ROOT}/build", status=204)
        self.refused(404, "GET", f"{ROOT}/build")

    def test_values(self) -> None:
        for body in (
            {},
            {"name": "Upper"},
            {"name": UNKNOWN},
            {"name": "x", "role": "owner"},
            {"name": "x", "active": False},
        ):
            self.refused(422, "POST", ROOT, body)
        self.refused(409, "POST", ROOT, {"name": "robot"})
        self.refused(404, "GET", f"{ROOT}/nobody")

    def test_another_organisation_s(self) -> None:
        theirs = self.make("service_account", OTHER, "theirs")
        for name in (theirs, "theirs"):
            for method, value in (("GET", None), ("PUT", {"active": False}), ("DELETE", None)):
                self.refused(404, method, f"{ROOT}/{name}", value)
            self.refused(404, "GET", f"{ROOT}/{name}/tokens")
            self.refused(404, "POST", f"{ROOT}/{name}/tokens", {"name": "x"})

    def test_a_service_account_makes_none_of_its_kind(self) -> None:
        self.refused(403, "POST", ROOT, {"name": "x", "role": "client"}, who="service@acme")
        self.refused(403, "POST", f"{ROOT}/robot/tokens", {"name": "x"}, who="service@acme")

    def test_nobody_gives_a_role_beyond_themself(self) -> None:
        narrow = self.as_token("owner@acme", "service_account.write", *SERVICE_ROLES["client"])
        self.ok("POST", ROOT, {"name": "a", "role": "client"}, who=narrow)
        for role in ("read_only", "member", "admin"):
            self.refused(403, "POST", ROOT, {"name": "b", "role": role}, who=narrow)
            self.refused(403, "PUT", f"{ROOT}/a", {"role": role}, who=narrow)

    def test_a_lower_role_ends_tokens_that_may_more(self) -> None:
        self.account()
        high, low = self.issue(), self.issue(scopes=["service_account.read"])
        self.ok("PUT", f"{ROOT}/ci", {"role": "read_only"})
        self.assertEqual(self.last_event()["details"]["ended"], {"tokens": 1})
        self.assertFalse(self.works(high["token"]))
        self.assertTrue(self.works(low["token"]))

    def test_one_that_is_not_active_is_out_for_good(self) -> None:
        self.account()
        token = self.issue()["token"]
        self.assertTrue(self.works(token))
        self.assertFalse(self.ok("PUT", f"{ROOT}/ci", {"active": False})["active"])
        self.assertFalse(self.works(token))
        self.refused(409, "POST", f"{ROOT}/ci/tokens", {"name": "x"})
        self.ok("PUT", f"{ROOT}/ci", {"active": True})
        self.assertFalse(self.works(token))
        token = self.issue()["token"]
        self.call("DELETE", f"{ROOT}/ci", status=204)
        self.assertFalse(self.works(token))


class AccountTokens(AccountCase):
    def setUp(self) -> None:
        super().setUp()
        self.account()

    def test_a_token_s_life(self) -> None:
        made = self.issue(scopes=["service_account.read", "service_account.read"])
        self.assertTrue(made["token"].startswith("b0s_"))
        self.assertEqual(made["scopes"], ["service_account.read"])
        event = self.last_event()
        self.assertEqual(
            (event["type"], event["target"]["name"], event["target"]["token"]),
            ("token.create", "ci", made["id"]),
        )
        self.assertTrue(self.works(made["token"]))
        self.refused(403, "GET", "/tokens", who=made["token"])
        listed = self.ok("GET", f"{ROOT}/ci/tokens")
        self.assertEqual(listed["items"], 1)
        (one,) = listed["list"]
        self.assertEqual(
            (one["token_id"], one["name"], one["service_account"], one["revoked"]),
            (made["id"], "pipeline", "ci", False),
        )
        self.assertIsNotNone(one["last_used_at"])
        self.assertEqual(self.ok("GET", f"{ROOT}/ci")["last_seen_at"], one["last_used_at"])
        self.call("DELETE", f"{ROOT}/ci/tokens/{made['id']}", status=204)
        self.assertEqual(self.last_event()["type"], "token.revoke")
        self.assertFalse(self.works(made["token"]))
        self.assertTrue(self.ok("GET", f"{ROOT}/ci/tokens")["list"][0]["revoked"])

    def test_its_end(self) -> None:
        made = self.issue(expires_at=int(START + 100))
        self.assertEqual(made["expires_at"], "2027-01-15T08:01:40.000000Z")
        self.assertTrue(self.works(made["token"]))
        self.clock.advance(100)
        self.assertFalse(self.works(made["token"]))
        for moment in (int(START), int(START + 400 * 86_400), "soon", -5):
            self.refused(422, "POST", f"{ROOT}/ci/tokens", {"name": "x", "expires_at": moment})

    def test_only_from_its_networks(self) -> None:
        made = self.issue(networks=["198.51.100.0/24"])
        self.assertFalse(self.works(made["token"]))
        made = self.issue(networks=["198.51.100.0/24", "192.0.2.7"])
        self.assertTrue(self.works(made["token"]))
        self.refused(422, "POST", f"{ROOT}/ci/tokens", {"name": "x", "networks": ["10/8/8"]})

    def test_nobody_gives_more_than_they_have(self) -> None:
        path = f"{ROOT}/ci/tokens"
        for scope in ("organisation.write", "role.write", "recording.read", "device.own"):
            text = self.refused(403, "POST", path, {"name": "x", "scopes": [scope]})
            self.assertIn(scope, text)
        self.refused(422, "POST", path, {"name": "x", "scopes": ["all"]})
        self.refused(422, "POST", path, {"name": "x", "scopes": []})
        narrow = self.as_token("admin@acme", "token.write", "socket.read")
        self.refused(403, "POST", path, {"name": "x"}, who=narrow)
        self.refused(403, "POST", path, {"name": "x", "scopes": ["socket.write"]}, who=narrow)
        self.ok("POST", path, {"name": "x", "scopes": ["socket.read"]}, who=narrow)
        self.account("kiosk", "client")
        body = {"name": "x", "scopes": ["socket.write"]}
        text = self.refused(403, "POST", f"{ROOT}/kiosk/tokens", body)
        self.assertIn("client", text)
        made = self.ok("POST", f"{ROOT}/kiosk/tokens", {"name": "x"})
        self.assertEqual(made["scopes"], ["organisation.read", "socket.use"])

    def test_a_token_of_another_account(self) -> None:
        made = self.issue()
        self.account("other")
        theirs = self.make("token", OTHER)
        for name, token in (("other", made["id"]), ("ci", theirs), ("ci", UNKNOWN), ("ci", "x")):
            self.refused(404, "DELETE", f"{ROOT}/{name}/tokens/{token}")
        self.assertTrue(self.works(made["token"]))
