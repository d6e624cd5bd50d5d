"""Devices: everybody's for those who look after them, one's own for members."""

from __future__ import annotations

from typing import Any

from border0.control.api.routes import Table
from border0.control.routes import devices
from border0.control.routes.desk import Desk
from tests.support.controlplane import OTHER, START, ControlPlane


class Devices(ControlPlane):
    def register(self, table: Table, desk: Desk) -> None:
        devices.register(table, desk)

    def setUp(self) -> None:
        super().setUp()
        member = self.users["member@acme"]
        self.mine: str = self.write(lambda tx: self.make_device(tx, "laptop", member)).id
        self.tagged = self.make("device", name="probe")

    def shown(self, name: str, who: str = "owner@acme") -> Any:
        return self.ok("GET", f"/device/{name}", who=who)

    def test_what_is_shown(self) -> None:
        self.nodes.addresses[self.mine] = "192.0.2.9"
        found = self.shown("laptop")
        self.assertEqual(found, self.shown(self.mine))
        self.assertEqual(
            (found["user"], found["online"], found["address"], found["approved"]),
            ({"id": self.users["member@acme"], "email": "member@acme"}, True, "192.0.2.9", False),
        )
        self.assertEqual(len(found["addresses"]), 2)
        self.assertNotIn("machine_key", found)
        other = self.shown("probe")
        self.assertEqual((other["user"], other["tags"], other["online"]), (None, ["lab"], False))
        names = [one["name"] for one in self.ok("GET", "/devices")["items"]]
        self.assertEqual(names, ["laptop", "probe"])
        for user in ("member@acme", self.users["member@acme"]):
            (one,) = self.ok("GET", f"/devices?user={user}")["items"]
            self.assertEqual(one["id"], self.mine)
        self.refused(422, "GET", "/devices?user=nobody@acme")

    def test_changes_and_their_events(self) -> None:
        self.ok("POST", "/device/laptop/approve")
        event = self.last_event()
        self.assertEqual(
            (event["type"], event["result"], event["target"], event["details"]),
            (
                "device.approve",
                "ok",
                {"id": self.mine, "name": "laptop"},
                {"from": {"approved": False}, "to": {"approved": True}},
            ),
        )
        body = {"name": "old-laptop", "locked": True, "tags": ["spare"], "expires_at": START + 500}
        body["expires_at"] = int(START + 500)
        found = self.ok("PUT", f"/device/{self.mine}", body)
        self.assertEqual(
            (found["name"], found["locked"], found["tags"], found["approved"]),
            ("old-laptop", True, ["spare"], True),
        )
        self.assertEqual(found["expires_at"], "2027-01-15T08:08:20.000000Z")
        again = self.ok("PUT", f"/device/{self.mine}", {"expires_at": "2027-01-15T09:08:20+01:00"})
        self.assertEqual(again["expires_at"], found["expires_at"])
        self.assertIsNone(
            self.ok("PUT", f"/device/{self.mine}", {"expires_at": None})["expires_at"]
        )
        self.call("DELETE", f"/device/{self.mine}", status=204)
        self.assertEqual(self.last_event()["type"], "device.delete")
        self.refused(404, "GET", f"/device/{self.mine}")

    def test_bad_values(self) -> None:
        for body in (
            {"name": "Upper"},
            {"name": self.tagged},
            {"expires_at": "tomorrow"},
            {"expires_at": "2027-01-15T08:08:20"},
            {"expires_at": -1},
            {"expires_at": 10**15},
            {"tags": ["a b"]},
            {"wireguard_key": "x"},
        ):
            self.refused(422, "PUT", "/device/probe", body)
        self.refused(422, "PUT", "/device/probe", {"tags": []})
        self.refused(409, "PUT", "/device/probe", {"name": "laptop"})
        self.refused(412, "PUT", "/device/probe", {"locked": True}, headers=[("If-Match", '"v7"')])
        self.refused(412, "DELETE", "/device/probe", headers=[("If-Match", '"v7"')])

    def test_a_member_has_their_own_only(self) -> None:
        who = "member@acme"
        (one,) = self.ok("GET", "/devices", who=who)["items"]
        self.assertEqual(one["id"], self.mine)
        (one,) = self.ok("GET", "/devices?user=owner@acme", who=who)["items"]
        self.assertEqual(one["id"], self.mine, "the filter widened what a member sees")
        for method, value in (("GET", None), ("PUT", {"name": "x"}), ("DELETE", None)):
            for name in ("probe", self.tagged):
                text = self.refused(404, method, f"/device/{name}", value, who=who)
                self.assertEqual(text, "there is no such device")
        for body in (
            {"approved": True},
            {"name": "x", "approved": True},
            {"locked": False},
            {"tags": ["admin"]},
            {"expires_at": None},
        ):
            self.refused(403, "PUT", "/device/laptop", body, who=who)
            self.assertEqual(self.last_event()["result"], "denied")
        self.refused(403, "POST", "/device/laptop/approve", who=who)
        self.assertFalse(self.shown("laptop")["approved"])
        self.assertEqual(self.ok("PUT", "/device/laptop", {"name": "pc"}, who=who)["name"], "pc")
        self.assertEqual(self.last_event()["actor"]["user"], who)
        self.call("DELETE", "/device/pc", who=who, status=204)

    def test_a_lock_is_not_got_rid_of(self) -> None:
        self.ok("PUT", "/device/laptop", {"locked": True})
        text = self.refused(403, "DELETE", "/device/laptop", who="member@acme")
        self.assertIn("locked", text)
        self.call("DELETE", "/device/laptop", status=204)

    def test_an_auditor_sees_all_and_changes_own(self) -> None:
        self.assertEqual(len(self.ok("GET", "/devices", who="auditor@acme")["items"]), 2)
        self.refused(404, "PUT", "/device/laptop", {"name": "x"}, who="auditor@acme")

    def test_approving_takes_its_own_permission(self) -> None:
        narrow = self.as_token("service@acme", "device.write")
        self.refused(403, "PUT", "/device/probe", {"approved": True}, who=narrow)
        self.ok("PUT", "/device/probe", {"locked": True}, who=narrow)
        self.refused(403, "POST", "/device/probe/approve", who=narrow)

    def test_another_organisation_s(self) -> None:
        theirs = self.make("device", OTHER, "theirs")
        for name in (theirs, "theirs"):
            for method, value in (("GET", None), ("PUT", {"name": "x"}), ("DELETE", None)):
                self.refused(404, method, f"/device/{name}", value)
            self.refused(404, "POST", f"/device/{name}/approve")
        self.assertEqual(self.shown("theirs", "owner@other")["name"], "theirs")
        self.refused(422, "GET", f"/devices?user={self.users['member@other']}")
