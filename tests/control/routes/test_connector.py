"""Connectors and their tokens over the API."""

from typing import Any

from border0.control.store import connectors, devices, tokens
from tests.control.routes.case import ACME, DAY, NOWHERE, START, RoutesCase


class Connectors(RoutesCase):
    async def test_a_life(self) -> None:
        body = {"name": "lab", "description": "the rack", "tags": ["prod", "eu:west"]}
        response = await self.call("POST", "/connector", body)
        self.assertEqual((response.status, response.header("etag")), (201, '"v1"'), response.raw)
        made = response.json()
        id = made["connector_id"]
        wanted = {
            "name": "lab",
            "description": "the rack",
            "tags": ["eu:west", "prod"],
            "online": False,
            "address": "",
            "joined": False,
            "approved": True,
            "locked": False,
            "wireguard_key": None,
            "socket_ids": [],
            "expires_at": None,
        }
        self.assertEqual({name: made[name] for name in wanted}, wanted)
        self.nodes.connected[ACME, id] = "192.0.2.1"
        socket = await self.new_socket(connector_ids=[id])
        for path in ("/connector/lab", f"/connector/{id}"):
            shown = await self.ok("GET", path, by="auditor")
            self.assertEqual((shown["online"], shown["address"]), (True, "192.0.2.1"))
            self.assertEqual(shown["socket_ids"], [socket])
        self.assertEqual(
            [c["name"] for c in (await self.ok("GET", "/connectors"))["items"]], ["lab"]
        )
        made = await self.ok(
            "PUT", "/connector/lab", {"name": "rack", "locked": True, "tags": []}, match='"v1"'
        )
        self.assertEqual((made["name"], made["locked"], made["version"]), ("rack", True, 2))
        await self.refused(412, "PUT", "/connector/rack", {"locked": False}, match='"v1"')
        await self.refused(412, "DELETE", "/connector/rack", match='"v1"')
        await self.ok("DELETE", "/connector/rack")
        await self.refused(404, "GET", f"/connector/{id}")
        self.assertEqual((await self.ok("GET", "/socket/shop-db"))["connector_ids"], [])
        (event,) = [e for e in await self.records("connector.update") if e["result"] == "ok"]
        self.assertEqual(event["details"], {"changed": ["name", "tags", "locked"]})
        self.assertEqual(len(await self.records("connector.create")), 1)

    async def test_pages(self) -> None:
        for number in range(3):
            await self.new_connector(f"c{number}")
        page = await self.ok("GET", "/connectors?limit=2")
        self.assertEqual([one["name"] for one in page["items"]], ["c0", "c1"])
        page = await self.ok("GET", f"/connectors?limit=2&cursor={page['next_cursor']}")
        self.assertEqual([one["name"] for one in page["items"]], ["c2"])

    async def test_wrong_values(self) -> None:
        await self.new_connector()
        for body in (
            {},
            {"name": "token"},
            {"name": NOWHERE},
            {"name": "A"},
            {"name": "x", "tags": ["Not A Tag"]},
            {"name": "x", "locked": True},
        ):
            await self.refused(422, "POST", "/connector", body)
        await self.refused(422, "PUT", "/connector/lab", {"name": "token"})
        await self.refused(409, "POST", "/connector", {"name": "lab"})

    async def test_tokens(self) -> None:
        id = await self.new_connector()
        other = await self.new_connector("two")
        response = await self.call(
            "POST", "/connector/token", {"connector_id": id, "name": "first"}
        )
        self.assertEqual(response.status, 201, response.raw)
        made = response.json()
        text = made.pop("token")
        self.assertTrue(text.startswith("b0t_"))
        self.assertEqual((made["connector_id"], made["name"]), (id, "first"))
        self.assertEqual(made["expires_at"], "2028-01-15T08:00:00.000000Z")
        found = await self.read(lambda c: tokens.verify(c, text, START))
        self.assertEqual((found.id, found.connector_id), (made["id"], id))
        self.now += 60
        body = {"connector_id": other, "name": "second", "expires_at": "2027-01-16T08:00:00Z"}
        second = await self.ok("POST", "/connector/token", body)
        listed = (await self.ok("GET", "/connector/token", by="auditor"))["items"]
        self.assertEqual([one["id"] for one in listed], [made["id"], second["id"]])
        listed = (await self.ok("GET", f"/connector/token?connector={other}"))["items"]
        self.assertEqual([one["name"] for one in listed], ["second"])
        self.assertNotIn("token", listed[0])
        await self.ok("DELETE", f"/connector/token/{made['id']}")
        listed = (await self.ok("GET", f"/connector/token?connector={id}"))["items"]
        self.assertEqual(listed[0]["revoked_at"], "2027-01-15T08:01:00.000000Z")
        (event,) = await self.records("connector_token.revoke")
        self.assertEqual(event["target"], {"id": made["id"], "connector_id": id})
        self.assertNotIn(text, repr(await self.records()))

    async def test_wrong_tokens(self) -> None:
        id = await self.new_connector()
        for body in (
            {"name": "x"},
            {"connector_id": NOWHERE, "name": "x"},
            {"connector_id": id, "name": "x", "expires_at": "2026-01-01T00:00:00Z"},
            {"connector_id": id, "name": "x", "expires_at": "tomorrow"},
        ):
            await self.refused(422, "POST", "/connector/token", body)
        await self.refused(
            403, "POST", "/connector/token", {"connector_id": id, "name": "x"}, by="auditor"
        )

        def of_a_device(tx: Any) -> str:
            device = devices.create(tx, name="d", wireguard_key="w", machine_key="m", tags=["t"])
            made, _ = tokens.issue(
                tx, kind="node", name="x", scopes=(), expires=START + DAY, device_id=device.id
            )
            return made.id

        foreign = await self.change(of_a_device)
        await self.refused(404, "DELETE", f"/connector/token/{foreign}")
        self.assertEqual((await self.ok("GET", "/connector/token"))["items"], [])
        found = await self.read(lambda c: tokens.get(c, ACME, foreign))
        self.assertIsNone(found.revoked)

    async def test_one_that_has_joined(self) -> None:
        id = await self.new_connector()
        await self.change(
            lambda tx: connectors.update(tx, id, None, wireguard_key="K", facts={"os": "linux"})
        )
        shown = await self.ok("GET", "/connector/lab")
        self.assertEqual(
            (shown["joined"], shown["wireguard_key"], shown["facts"]), (True, "K", {"os": "linux"})
        )
