"""Relays over the API: made, changed, removed, recorded; what no node could use is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

from border0.control.store import relays
from border0.statements import time_text
from tests.control.routes.case import ACME, NOWHERE, OTHER, START, RoutesCase

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(1, 33))).decode()
PIN = "sha256:" + "ab" * 32
BODY = {"name": "eu", "names": ["relay.example.org"], "public_key": KEY}


class Relays(RoutesCase):
    async def made(self, **more: Any) -> Any:
        return await self.ok("POST", "/relay", {**BODY, **more})

    async def test_made_shown_listed(self) -> None:
        made = await self.made()
        id = made["relay_id"]
        expected = {
            "relay_id": id, "name": "eu", "names": ["relay.example.org"], "port": 443,
            "path": "/relay", "region": "", "weight": 100, "drain": False, "public_key": KEY,
            "channel_binding": "tls-exporter", "ca": "", "version": 1,
        }  # fmt: skip
        self.assertEqual({name: made[name] for name in expected}, expected)
        for name in ("eu", id):
            self.assertEqual(await self.ok("GET", f"/relay/{name}"), made)
        full = {
            "name": "us", "names": ["R.Example.ORG.", "2001:DB8:0::1", "r.example.org"],
            "public_key": OTHER_KEY, "port": 8443, "path": "/", "region": "us-east", "weight": 0,
            "drain": True, "channel_binding": "none", "ca": PIN, "relay_id": NOWHERE,
        }  # fmt: skip
        other = await self.ok("POST", "/relay", full)
        self.assertEqual(other["names"], ["r.example.org", "2001:db8::1"])
        del full["names"]
        self.assertEqual({name: other[name] for name in full}, full)
        page = await self.ok("GET", "/relays")
        self.assertEqual(page["items"], [made, other])
        page = await self.ok("GET", "/relays?limit=1")
        page = await self.ok("GET", f"/relays?limit=1&cursor={page['next_cursor']}")
        self.assertEqual(page["items"], [other])
        self.assertEqual((await self.ok("GET", "/relays", by="other"))["items"], [])
        self.assertEqual((await self.ok("GET", "/relays", by="member"))["items"], [made, other])

    async def test_one_that_runs_in_this_process(self) -> None:
        made = await self.made()
        self.assertIsNone(made["live"])
        self.nodes.live = {made["relay_id"]: {"clients": 2, "datagrams": 30, "drops": 1}}
        shown = await self.ok("GET", "/relay/eu", by="member")
        self.assertEqual(shown["live"], {"clients": 2, "datagrams": 30, "drops": 1})
        self.assertEqual((await self.ok("GET", "/relays"))["items"], [shown])

    async def test_changed_and_removed(self) -> None:
        await self.made()
        tag = '"v1"'
        drained = await self.ok("PUT", "/relay/eu", {"drain": True}, match=tag)
        self.assertEqual((drained["drain"], drained["version"]), (True, 2))
        await self.refused(412, "PUT", "/relay/eu", {"drain": False}, match=tag)
        more = {"name": "europe", "names": ["::1"], "region": "eu", "ca": PIN}
        moved = await self.ok("PUT", "/relay/eu", more)
        self.assertEqual({name: moved[name] for name in more}, more)
        await self.ok("PUT", "/relay/europe", {"region": "", "ca": ""})
        await self.refused(404, "GET", "/relay/eu")
        await self.ok("DELETE", "/relay/europe")
        await self.refused(404, "DELETE", "/relay/europe")
        self.assertEqual((await self.read(lambda c: relays.page(c, ACME))).items, [])

    async def test_every_change_is_recorded(self) -> None:
        id = (await self.made())["relay_id"]
        await self.ok("PUT", "/relay/eu", {"drain": True, "weight": 100})
        await self.ok("DELETE", "/relay/eu")
        create, update, delete = [
            (await self.records(f"relay.{verb}"))[0] for verb in ("create", "update", "delete")
        ]
        for one in (create, update, delete):
            self.assertEqual((one["target"]["id"], one["target"]["name"]), (id, "eu"))
            self.assertEqual(one["actor"]["user"], "owner@acme.test")
        said = {"names": ["relay.example.org"], "port": 443, "public_key": KEY}
        self.assertEqual(create["details"], said)
        self.assertEqual(update["details"], {"from": {"drain": False}, "to": {"drain": True}})

    async def test_what_a_statement_cannot_say_is_refused(self) -> None:
        for member, values in {
            "name": ("", "EU", NOWHERE, "a" * 64),
            "names": ([], ["a b"], ["1.2.3"], ["*.a.b"], ["a.b:443"], [f"a{n}" for n in range(9)]),
            "public_key": ("", "x", "A" * 43 + "=", KEY[:-1]),
            "port": (0, 65536, "443"),
            "path": ("", "relay", "/a?b", "/../x"),
            "region": ("E U", "x" * 64),
            "weight": (-1, 1001),
            "channel_binding": ("", "tls-unique"),
            "ca": ("sha256:1", PIN.upper()),
        }.items():
            for value in values:
                text = await self.refused(422, "POST", "/relay", {**BODY, member: value})
                self.assertIn(member, text)
        await self.refused(422, "POST", "/relay", {**BODY, "relay_id": "x"})
        await self.made()
        for member, value in {"names": [], "public_key": "", "path": "", "region": "E U"}.items():
            await self.refused(422, "PUT", "/relay/eu", {member: value})

    async def test_names_and_keys_are_taken_once(self) -> None:
        await self.made()
        text = await self.refused(409, "POST", "/relay", {**BODY, "name": "us"})
        self.assertIn("public key is taken", text)
        text = await self.refused(409, "POST", "/relay", {**BODY, "public_key": OTHER_KEY})
        self.assertIn("name is taken", text)
        await self.ok("POST", "/relay", BODY, by="other")
        self.patch(relays, "LIMIT", 1)
        more = {**BODY, "name": "us", "public_key": OTHER_KEY}
        text = await self.refused(409, "POST", "/relay", more)
        self.assertIn("at most 1 relay", text)

    async def test_who_may(self) -> None:
        await self.made()
        for who in ("auditor", "member"):
            await self.refused(403, "POST", "/relay", BODY, by=who)
            await self.refused(403, "PUT", "/relay/eu", {"drain": True}, by=who)
            await self.refused(403, "DELETE", "/relay/eu", by=who)
        await self.refused(403, "GET", "/relays/ticket_keys", by="member")
        await self.ok("PUT", "/relay/eu", {"drain": True}, by="admin")
        await self.refused(404, "GET", "/relay/eu", by="other")

    async def test_the_keys_for_a_relay_that_runs_alone(self) -> None:
        self.nodes.out = {KEY: START + 60}
        found = await self.ok("GET", "/relays/ticket_keys", by="auditor")
        (key,) = self.nodes.ticket_keys(ACME)
        self.assertEqual(
            found,
            {
                "keys": [{"key": base64.b64encode(key).decode(), "orgs": [ACME]}],
                "revoked": [{"public_key": KEY, "until": time_text(START + 60)}],
            },
        )
        other = await self.ok("GET", "/relays/ticket_keys", by="other")
        self.assertEqual(other["keys"][0]["orgs"], [OTHER])
        self.assertNotIn(ACME, json.dumps(other["keys"]))
