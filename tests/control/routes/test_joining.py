"""Enrolment keys and invites: who may let which machine in, and what is shown once."""

from __future__ import annotations

from typing import Any

from border0.control.api.routes import Table
from border0.control.routes import enrolment_keys, invites
from border0.control.routes.desk import Desk
from border0.control.routes.joining import Address
from border0.control.store import enrolment_keys as key_rows
from border0.control.store import invites as invite_rows
from border0.control.store import users
from border0.control.store.errors import Refused
from border0.control.store.transaction import Tx
from tests.support.controlplane import ACME, OTHER, PIN, UNKNOWN, URL, ControlPlane


class Joining(ControlPlane):
    def register(self, table: Table, desk: Desk) -> None:
        address = Address(URL, PIN)
        enrolment_keys.register(table, desk, address=address)
        invites.register(table, desk, address=address)

    def key(self, **more: Any) -> Any:
        return self.ok("POST", "/enrolment_keys", {"name": "fleet", "tags": ["probe"], **more})

    def consume_key(self, text: str) -> Any:
        return self.write(lambda tx: key_rows.consume(tx, text))

    def consume_invite(self, text: str, kind: str = "device", org: str = ACME) -> Any:
        return self.write(lambda tx: invite_rows.consume(tx, text, kind, "somebody"), org)

    def refusal(self, function: Any, *arguments: Any) -> str:
        return self.assertRaises(Refused, function, *arguments).reason


class Keys(Joining):
    def test_a_key_s_life(self) -> None:
        made = self.key(max_uses=2, approved=True, expires_in_seconds=3600)
        self.assertEqual(made["command"], f"border0 node join {URL} {made['key']} --ca {PIN}")
        self.assertEqual((made["state"], made["uses"], made["max_uses"]), ("live", 0, 2))
        self.assertEqual(made["author"], self.users["owner@acme"])
        event = self.last_event()
        self.assertEqual(event["type"], "enrolment_key.create")
        self.assertEqual(event["target"], {"id": made["id"], "name": "fleet"})
        self.assertEqual(event["details"]["tags"], ["probe"])
        self.assertEqual(self.consume_key(made["key"]).tags, ["probe"])
        self.consume_key(made["key"])
        self.assertEqual(self.refusal(self.consume_key, made["key"]), "used")
        (listed,) = self.ok("GET", "/enrolment_keys")["items"]
        self.assertEqual((listed["state"], listed["uses"]), ("used", 2))
        self.assertNotIn("key", listed)

    def test_the_end_of_a_key(self) -> None:
        made = self.key(max_uses=None)
        self.call("DELETE", f"/enrolment_key/{made['id']}", status=204)
        self.assertEqual(self.last_event()["type"], "enrolment_key.revoke")
        self.assertEqual(self.refusal(self.consume_key, made["key"]), "revoked")
        short = self.key(expires_in_seconds=60)
        self.clock.advance(60)
        self.assertEqual(self.refusal(self.consume_key, short["key"]), "expired")
        states = [one["state"] for one in self.ok("GET", "/enrolment_keys")["items"]]
        self.assertEqual(states, ["revoked", "expired"])
        self.call("DELETE", f"/enrolment_key/{made['id']}", status=204)

    def test_values(self) -> None:
        for body in (
            {},
            {"name": "x"},
            {"name": "x", "role": "connector", "user": "member@acme"},
            {"name": "x", "role": "connector", "ephemeral": True},
            {"name": "x", "role": "relay", "tags": ["a"]},
            {"name": "x", "tags": ["a", "a"]},
            {"name": "x", "tags": ["a"], "max_uses": 0},
            {"name": "x", "tags": ["a"], "expires_in_seconds": 59},
            {"name": "x", "tags": ["a"], "expires_in_seconds": 91 * 86_400},
            {"name": "x", "user": "nobody@acme"},
            {"name": "x", "user": self.users["member@other"]},
            {"name": "x", "user": UNKNOWN},
            {"name": "x", "tags": ["a"], "key": "b0e_chosen"},
        ):
            self.refused(422, "POST", "/enrolment_keys", body)
        made = self.ok("POST", "/enrolment_keys", {"name": "c", "role": "connector"})
        self.assertIn("border0 connector join", made["command"])
        made = self.ok("POST", "/enrolment_keys", {"name": "m", "user": "MEMBER@acme"})
        self.assertEqual(made["user"], {"id": self.users["member@acme"], "email": "member@acme"})

    def test_nobody_lets_in_more_than_they_may(self) -> None:
        narrow = self.as_token("service@acme", "enrolment_key.write")
        for role in ("device", "connector"):
            body = {"name": "x", "role": role, "tags": ["a"]}
            self.refused(403, "POST", "/enrolment_keys", body, who=narrow)
        devices = self.as_token("service@acme", "enrolment_key.write", "device.write")
        body = {"name": "x", "tags": ["a"]}
        self.ok("POST", "/enrolment_keys", body, who=devices)
        self.refused(403, "POST", "/enrolment_keys", {**body, "approved": True}, who=devices)
        self.refused(403, "POST", "/enrolment_keys", {**body, "user": "member@acme"}, who=devices)
        # A device acts as its user: an admin lets in none as an owner.
        body["user"] = "owner@acme"
        text = self.refused(403, "POST", "/enrolment_keys", body, who="admin@acme")
        self.assertIn("owner", text)
        self.assertEqual(self.last_event()["result"], "denied")
        self.refused(403, "POST", "/enrolment_keys", body, who="service@acme")
        self.ok("POST", "/enrolment_keys", {**body, "user": "member@acme"}, who="admin@acme")
        self.ok("POST", "/enrolment_keys", {**body, "user": "admin@acme"}, who="admin@acme")

    def test_no_key_for_a_disabled_user(self) -> None:
        member = self.users["member@acme"]
        self.write(lambda tx: users.update(tx, member, None, disabled=True))
        text = self.refused(422, "POST", "/enrolment_keys", {"name": "x", "user": member})
        self.assertIn("disabled", text)

    def test_another_organisation_s(self) -> None:
        theirs = self.make("enrolment_key", OTHER)
        self.refused(404, "DELETE", f"/enrolment_key/{theirs}")
        self.assertEqual(self.ok("GET", "/enrolment_keys")["items"], [])
        made = self.key()

        def elsewhere(tx: Tx) -> Any:
            return key_rows.consume(tx, made["key"])

        self.assertEqual(self.refusal(self.write, elsewhere, OTHER), "unknown")


class Invites(Joining):
    def test_a_connector_s_invite(self) -> None:
        made = self.ok("POST", "/invites", {"kind": "connector", "name": "rack-1"})
        self.assertEqual(made["command"], f"border0 connector join {URL} {made['code']} --ca {PIN}")
        self.assertEqual((made["user"], made["name"], made["state"]), (None, "rack-1", "live"))
        event = self.last_event()
        self.assertEqual((event["type"], event["target"]["kind"]), ("invite.create", "connector"))
        self.assertEqual(self.refusal(self.consume_invite, made["code"]), "unknown")
        invite = self.consume_invite(made["code"], "connector")
        self.assertEqual(invite.payload, {"name": "rack-1", "user_id": "", "approved": True})
        self.assertEqual(self.refusal(self.consume_invite, made["code"], "connector"), "used")
        self.assertEqual(self.ok("GET", "/invites")["items"][0]["state"], "used")

    def test_a_device_s_invite(self) -> None:
        made = self.ok("POST", "/invites", {"kind": "device"})
        self.assertEqual(made["user"]["email"], "owner@acme")
        self.assertIn(f"border0 node join {URL} b0i_", made["command"])
        self.clock.advance(900)
        self.assertEqual(self.refusal(self.consume_invite, made["code"]), "expired")
        made = self.ok("POST", "/invites", {"kind": "device", "user": "member@acme"})
        payload = self.consume_invite(made["code"]).payload
        self.assertEqual(
            payload, {"name": "", "user_id": self.users["member@acme"], "approved": True}
        )

    def test_values(self) -> None:
        for body in (
            {},
            {"kind": "user"},
            {"kind": "setup"},
            {"kind": "connector", "user": "member@acme"},
            {"kind": "device", "name": "Upper"},
            {"kind": "device", "name": UNKNOWN},
            {"kind": "device", "user": "nobody@acme"},
            {"kind": "device", "user": self.users["owner@other"]},
            {"kind": "device", "expires_in_seconds": 8 * 86_400},
            {"kind": "device", "payload": {"approved": True}},
        ):
            self.refused(422, "POST", "/invites", body)
        text = self.refused(422, "POST", "/invites", {"kind": "device"}, who="service@acme")
        self.assertIn("service account", text)

    def test_a_member_invites_devices_of_their_own(self) -> None:
        who = "member@acme"
        made = self.ok("POST", "/invites", {"kind": "device"}, who=who)
        self.assertEqual(made["user"]["email"], who)
        theirs = self.ok("POST", "/invites", {"kind": "device", "user": who})
        for body in ({"kind": "connector"}, {"kind": "device", "user": "admin@acme"}):
            self.refused(403, "POST", "/invites", body, who=who)
        listed = self.ok("GET", "/invites", who=who)["items"]
        self.assertEqual([one["id"] for one in listed], [made["id"]])
        self.refused(404, "DELETE", f"/invite/{theirs['id']}", who=who)
        self.call("DELETE", f"/invite/{made['id']}", who=who, status=204)
        self.assertEqual(self.refusal(self.consume_invite, made["code"]), "revoked")
        made = self.ok("POST", "/invites", {"kind": "device"}, who=who)
        self.assertFalse(self.consume_invite(made["code"]).payload["approved"])

    def test_nobody_lets_in_more_than_they_may(self) -> None:
        narrow = self.as_token("service@acme", "invite.write")
        self.refused(403, "POST", "/invites", {"kind": "connector"}, who=narrow)
        self.refused(403, "POST", "/invites", {"kind": "device", "user": "member@acme"}, who=narrow)
        body = {"kind": "device", "user": "owner@acme"}
        self.refused(403, "POST", "/invites", body, who="admin@acme")
        self.refused(403, "POST", "/invites", {"kind": "connector"}, who="auditor@acme")

    def test_others_of_the_kind_stay_hidden(self) -> None:
        def change(tx: Tx) -> str:
            return invite_rows.issue(tx, kind="setup", expires=tx.now + 60)[0].id

        setup = self.write(change)
        self.assertEqual(self.ok("GET", "/invites")["items"], [])
        self.refused(404, "DELETE", f"/invite/{setup}")
        self.refused(404, "DELETE", f"/invite/{self.make('invite', OTHER)}")

    def test_the_code_is_bound_to_its_organisation(self) -> None:
        made = self.ok("POST", "/invites", {"kind": "connector"})
        swapped = made["code"].replace(ACME.replace("-", ""), OTHER.replace("-", ""))
        for org in (ACME, OTHER):
            text = self.refusal(self.consume_invite, swapped, "connector", org)
            self.assertEqual(text, "unknown")
