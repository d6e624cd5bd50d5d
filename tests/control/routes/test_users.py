"""Users: invited, changed, disabled, deleted; and who may do that to whom."""

from __future__ import annotations

from typing import Any

from border0.control.api.routes import Table
from border0.control.routes import users
from border0.control.routes.desk import Desk
from border0.control.signin.links import link_digest
from border0.control.signin.model import Account, Factors
from border0.control.store import credentials, devices, groups
from border0.control.store import users as rows
from border0.secrets import Secret
from tests.support.controlplane import ACME, OTHER, URL, ControlPlane
from tests.support.signin import now_of

IAM = "/organizations/iam"


class Users(ControlPlane):
    def register(self, table: Table, desk: Desk) -> None:
        users.register(table, desk, base_url=URL)

    def user(self, name: str) -> Any:
        return self.ok("GET", f"{IAM}/user/{name}")

    def spend(self, link: str) -> Account | None:
        """Set a password with a link, as the page does."""
        value = link.partition("?link=")[2]
        found: Account | None = now_of(
            self.sign_in.create_owner(
                link_digest(value), self.now(), "ignored", "Alice", Factors(Secret("hash"))
            )
        )
        return found


class Making(Users):
    def test_an_invited_user(self) -> None:
        body = {"email": "Alice@Example.org", "name": "Alice"}
        made = self.ok("POST", f"{IAM}/users", body)
        self.assertTrue(made["setup_link"].startswith(f"{URL}/setup?link="), made)
        self.assertEqual(
            (made["email"], made["role"], made["state"], made["groups"]),
            ("alice@example.org", "member", "invited", []),
        )
        event = self.last_event()
        self.assertEqual(
            (event["type"], event["target"], event["details"]),
            (
                "user.create",
                {"id": made["id"], "email": "alice@example.org"},
                {"role": "member"},
            ),
        )
        account = self.spend(made["setup_link"])
        assert account is not None
        self.assertEqual((account.id, account.login), (made["id"], "alice@example.org"))
        self.assertEqual(self.user("ALICE@example.org")["state"], "active")
        self.assertIsNone(self.spend(made["setup_link"]), "a link worked twice")

    def test_a_link_again(self) -> None:
        made = self.ok("POST", f"{IAM}/users", {"email": "alice@example.org"})
        path = f"{IAM}/user/alice@example.org/setup_link"
        second = self.ok("POST", path)
        self.assertEqual(self.last_event()["type"], "user.invite")
        self.assertIsNone(self.spend(made["setup_link"]), "the earlier link works")
        self.assertIsNotNone(self.spend(second["setup_link"]))
        text = self.refused(409, "POST", path)
        self.assertEqual(text, "this user has a password")
        # A link for somebody above oneself would be a way up.
        self.refused(403, "POST", f"{IAM}/user/owner@acme/setup_link", who="admin@acme")
        self.refused(404, "POST", f"{IAM}/user/owner@other/setup_link")

    def test_values(self) -> None:
        for email in ("", "x", "@", "a b@c", "a@b\n", 'a"@b', "a@b@c", "x" * 200 + "@b"):
            self.refused(422, "POST", f"{IAM}/users", {"email": email})
        for more in ({"role": "root"}, {"name": "a\nb"}, {"disabled": True}, {"id": "x"}):
            self.refused(422, "POST", f"{IAM}/users", {"email": "a@b", **more})
        text = self.refused(409, "POST", f"{IAM}/users", {"email": "MEMBER@acme"})
        self.assertEqual(text, "this email is taken")
        self.ok("POST", f"{IAM}/users", {"email": "member@acme"}, who="owner@other")

    def test_who_makes_whom(self) -> None:
        number = 0
        for who, allowed in (
            ("owner@acme", {"owner", "admin", "auditor", "member"}),
            ("admin@acme", {"admin", "member"}),
            ("service@acme", {"member"}),
            (self.as_token("owner@acme", "user.write"), {"member"}),
            ("auditor@acme", set()),
            ("member@acme", set()),
        ):
            for role in rows.ROLES:
                number += 1
                body = {"email": f"user{number}@example.org", "role": role}
                status = 201 if role in allowed else 403
                with_role = self.call("POST", f"{IAM}/users", body, who=who)
                self.assertEqual(with_role.status, status, f"{who} makes {role}")

    def test_a_listing(self) -> None:
        member = self.users["member@acme"]
        group = self.make("group", name="ops")
        self.write(lambda tx: groups.add(tx, group, member))
        found = self.ok("GET", f"{IAM}/users")["items"]
        self.assertEqual({one["email"] for one in found}, {f"{role}@acme" for role in rows.ROLES})
        self.assertEqual(self.user("member@acme")["groups"], [{"id": group, "name": "ops"}])
        self.assertEqual(self.user(member)["email"], "member@acme")


class Changing(Users):
    def change(self, who: str, target: str, **body: Any) -> int:
        return self.call("PUT", f"{IAM}/user/{target}", body, who=who).status

    def test_a_change_and_its_event(self) -> None:
        body = {"name": "Max", "role": "auditor"}
        found = self.ok("PUT", f"{IAM}/user/member@acme", body)
        self.assertEqual((found["name"], found["role"], found["version"]), ("Max", "auditor", 2))
        event = self.last_event()
        self.assertEqual(
            (event["type"], event["details"]),
            ("user.update", {"from": {"name": "", "role": "member"}, "to": body}),
        )
        old = [("If-Match", '"v1"')]
        self.refused(412, "PUT", f"{IAM}/user/{found['id']}", {}, headers=old)
        self.assertEqual(self.change("owner@acme", "owner@other", name="x"), 404)
        self.assertEqual(self.change("owner@acme", self.users["owner@other"], name="x"), 404)
        self.assertEqual(self.change("owner@acme", "member@acme", password="x"), 422)

    def test_a_new_email_is_the_new_login(self) -> None:
        made = self.ok("POST", f"{IAM}/users", {"email": "alice@example.org"})
        self.spend(made["setup_link"])
        self.assertEqual(self.change("owner@acme", made["id"], email="MEMBER@acme"), 409)
        self.assertEqual(self.change("owner@acme", made["id"], email="Alice@example.net"), 200)
        self.assertIsNone(now_of(self.sign_in.find_login("alice@example.org")))
        account = now_of(self.sign_in.find_login("alice@example.net"))
        self.assertEqual(account.id, made["id"])
        # A login is one person's on the whole server.
        other = self.write(
            lambda tx: rows.create(tx, issuer="local", subject="x", email="x@other"), OTHER
        )
        self.write(
            lambda tx: credentials.set_up(
                tx,
                other.id,
                login="x@other",
                password_hash="h",
                totp_secret=None,
                totp_step=0,
                recovery_hashes=[],
            ),
            OTHER,
        )
        self.assertEqual(self.change("owner@acme", made["id"], email="x@other"), 409)
        self.assertEqual(self.user(made["id"])["email"], "alice@example.net")

    def test_only_an_owner_changes_roles(self) -> None:
        for who in ("admin@acme", "service@acme", self.as_token("owner@acme", "user.write")):
            for role in ("owner", "admin", "auditor"):
                self.assertEqual(self.change(who, "member@acme", role=role), 403, who)
            self.assertEqual(self.change(who, "member@acme", role="member", name="x"), 200, who)
        self.assertEqual(self.change("admin@acme", "admin@acme", role="owner"), 403)
        self.assertEqual(self.last_event()["result"], "denied")
        self.assertEqual(self.user("admin@acme")["role"], "admin")

    def test_only_an_owner_touches_an_owner(self) -> None:
        self.ok("POST", f"{IAM}/users", {"email": "second@acme", "role": "owner"})
        for who in ("admin@acme", "service@acme"):
            for body in ({"disabled": True}, {"email": "mine@acme"}, {"role": "member"}):
                self.assertEqual(self.change(who, "second@acme", **body), 403, who)
            self.refused(403, "DELETE", f"{IAM}/user/second@acme", who=who)
        self.assertEqual(self.change("owner@acme", "second@acme", disabled=True), 200)

    def test_the_last_owner_stays(self) -> None:
        for body in ({"role": "admin"}, {"disabled": True}):
            text = self.refused(409, "PUT", f"{IAM}/user/owner@acme", body)
            self.assertIn("last owner", text)
        self.refused(409, "DELETE", f"{IAM}/user/owner@acme")
        second = self.ok("POST", f"{IAM}/users", {"email": "second@acme", "role": "owner"})
        self.assertEqual(self.change("owner@acme", "second@acme", disabled=True), 200)
        # One who is disabled does not count.
        self.assertEqual(self.change("owner@acme", "owner@acme", role="member"), 409)
        self.assertEqual(self.change("owner@acme", "second@acme", disabled=False), 200)
        self.assertEqual(self.change("owner@acme", "owner@acme", role="member"), 200)
        self.assertEqual(self.read(lambda c: rows.owners(c, ACME)), [second["id"]])

    def test_deleting(self) -> None:
        member = self.users["member@acme"]
        device = self.write(lambda tx: self.make_device(tx, "laptop", member))
        text = self.refused(409, "DELETE", f"{IAM}/user/member@acme")
        self.assertIn("devices", text)
        self.write(lambda tx: devices.remove(tx, device.id))
        self.call("DELETE", f"{IAM}/user/{member}", status=204)
        self.assertEqual(
            (self.last_event()["type"], self.last_event()["target"]["email"]),
            ("user.delete", "member@acme"),
        )
        self.refused(404, "GET", f"{IAM}/user/member@acme")
        self.refused(404, "DELETE", f"{IAM}/user/member@other")
