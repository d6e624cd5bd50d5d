"""Groups and who is in them."""

from __future__ import annotations

from border0.control.api.routes import Table
from border0.control.routes import groups
from border0.control.routes.desk import Desk
from border0.control.store.errors import Unavailable
from tests.support.controlplane import ACME, OTHER, UNKNOWN, ControlPlane

IAM = "/organizations/iam"


class Groups(ControlPlane):
    def register(self, table: Table, desk: Desk) -> None:
        groups.register(table, desk)

    def test_a_group_s_life(self) -> None:
        alice, bob = self.make("user", name="alice"), self.make("user", name="bob")
        body = {"name": "Platform team", "description": "on call", "user_ids": [alice]}
        made = self.ok("POST", f"{IAM}/groups", body)
        self.assertEqual(
            (made["name"], made["description"], made["member_count"], made["version"]),
            ("Platform team", "on call", 1, 1),
        )
        self.assertEqual(made["members"], [{"id": alice, "email": "alice@example.org", "name": ""}])
        self.assertEqual(
            (self.last_event()["type"], self.last_event()["details"]),
            ("group.create", {"added": [alice], "dropped": []}),
        )
        shown = self.ok("GET", f"{IAM}/group/Platform%20team")
        self.assertEqual(shown, made)
        (listed,) = self.ok("GET", f"{IAM}/groups")["items"]
        self.assertNotIn("members", listed)
        self.assertEqual(listed["member_count"], 1)

        wanted = {"user_ids": [bob, self.users["member@acme"]]}
        changed = self.ok("PUT", f"{IAM}/group/{made['id']}/memberships", wanted)
        self.assertEqual(changed["member_count"], 2)
        self.assertEqual(
            self.last_event()["details"],
            {"added": sorted(wanted["user_ids"]), "dropped": [alice]},
        )
        kinds = {entry for announced in self.store.announced[-1:] for entry in announced.entries}
        self.assertIn(("membership", alice, "update"), kinds)

        renamed = self.ok("PUT", f"{IAM}/group/{made['id']}", {"name": "ops"})
        self.assertEqual((renamed["name"], renamed["description"]), ("ops", "on call"))
        self.assertEqual(
            self.last_event()["details"], {"from": {"name": "Platform team"}, "to": {"name": "ops"}}
        )
        self.call("DELETE", f"{IAM}/group/ops", status=204)
        self.assertEqual(self.last_event()["target"], {"id": made["id"], "name": "ops"})
        self.refused(404, "GET", f"{IAM}/group/ops")

    def test_names(self) -> None:
        for name in ("", " x", "x ", "a\nb", "a\u0000b", "x" * 64, UNKNOWN):
            self.refused(422, "POST", f"{IAM}/groups", {"name": name})
        self.ok("POST", f"{IAM}/groups", {"name": "ops"})
        text = self.refused(409, "POST", f"{IAM}/groups", {"name": "ops"})
        self.assertEqual(text, "this name is taken")
        self.ok("POST", f"{IAM}/groups", {"name": "Équipe 2"})

    def test_if_match_means_the_members_too(self) -> None:
        group = self.make("group", name="ops")
        version = self.call("GET", f"{IAM}/group/ops").header("etag")
        path = f"{IAM}/group/{group}/memberships"
        self.ok("PUT", path, {"user_ids": [self.users["admin@acme"]]})
        self.refused(412, "PUT", path, {"user_ids": []}, headers=[("If-Match", version)])
        self.assertEqual(self.ok("GET", f"{IAM}/group/ops")["member_count"], 1)

    def test_users_of_another_organisation(self) -> None:
        group, foreign = self.make("group", name="ops"), self.users["member@other"]
        text = self.refused(422, "PUT", f"{IAM}/group/{group}/memberships", {"user_ids": [foreign]})
        self.assertEqual(text, "user_ids[0]: there is no such user")
        self.refused(422, "POST", f"{IAM}/groups", {"name": "x", "user_ids": [foreign]})
        other = self.make("group", OTHER, "theirs")
        for method, value in (("GET", None), ("PUT", {"name": "mine"}), ("DELETE", None)):
            for name in (other, "theirs"):
                self.refused(404, method, f"{IAM}/group/{name}", value)
        self.refused(404, "PUT", f"{IAM}/group/{other}/memberships", {"user_ids": []})
        self.assertEqual(len(self.ok("GET", f"{IAM}/groups", who="owner@other")["items"]), 1)

    def test_pages(self) -> None:
        for number in range(5):
            self.make("group", ACME, f"group {number}")
        first = self.ok("GET", f"{IAM}/groups?limit=3")
        rest = self.ok("GET", f"{IAM}/groups?limit=3&cursor={first['next_cursor']}")
        names = [one["name"] for one in first["items"] + rest["items"]]
        self.assertEqual(names, [f"group {number}" for number in range(5)])
        self.assertNotIn("next_cursor", rest)
        self.refused(422, "GET", f"{IAM}/groups?cursor=nonsense")

    def test_a_store_that_fails_is_no_empty_list(self) -> None:
        self.store.broken = Unavailable("locked")
        self.refused(503, "GET", f"{IAM}/groups")
