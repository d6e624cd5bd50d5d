"""What must hold of every route here: other organisations' ids, roles, and a store that fails."""

import uuid
from typing import Any

from border0.control.api.schema import Reference
from border0.control.routes import desk
from border0.control.routes.owned import TABLES, owns
from border0.control.store import policies, sessions, sockets, tokens
from border0.control.store.sessions import Session
from tests.control.routes.case import ACME, NOWHERE, OTHER, START, RoutesCase
from tests.support.rolematrix import cases, permitted


class Bounds(RoutesCase):
    async def of(self, org: str) -> dict[str, str]:
        """One object of each kind in an organisation."""
        by = "owner" if org == ACME else "other"
        connector = await self.new_connector(by=by)
        token = {"connector_id": connector, "name": "t"}
        session = str(uuid.uuid4())
        await self.change(lambda tx: sessions.report(tx, Session(session, START)), org=org)
        return {
            "connector": connector,
            "policy": await self.new_policy(by=by),
            "socket": await self.new_socket(by=by),
            "token": (await self.ok("POST", "/connector/token", token, by=by))["id"],
            "session": session,
        }

    async def test_ids_of_another_organisation(self) -> None:
        own, foreign = await self.of(ACME), await self.of(OTHER)
        before = await self.everything(OTHER)
        places = set()
        for case in list(cases(self.table, own.__getitem__, foreign.__getitem__)):
            if not case.foreign:
                continue
            self.now += 60  # for the limits
            places.add((case.route.name, case.foreign))
            path = case.path.removeprefix("/api/v1")
            status = 404 if case.foreign.startswith("path:") else 422
            await self.refused(status, case.route.method, path, case.body)
        self.assertEqual(
            places,
            {
                ("POST /socket", "body.connector_ids.item"),
                ("POST /socket", "body.policies.item"),
                ("PUT /socket/{socket:text}", "body.connector_ids.item"),
                ("PUT /socket/{socket:text}", "body.policies.item"),
                ("PUT /socket/{socket:text}/policy", "body.actions.item.id"),
                ("PUT /socket/{socket:text}/connectors", "body.connector_ids.item"),
                ("PUT /policy/{policy:text}/socket", "body.actions.item.id"),
                ("GET /connector/token", "query.connector"),
                ("POST /connector/token", "body.connector_id"),
                ("DELETE /connector/token/{id:token}", "path:id"),
                ("GET /session/{socket:text}/{session:session}", "path:session"),
                ("PUT /session/{socket:text}/{session:session}", "path:session"),
            },
        )
        # What a path names by id or name is looked up by the handler, and must not be found either.
        for path, body in (
            (f"/socket/{foreign['socket']}", {"description": "mine"}),
            (f"/socket/{foreign['socket']}/policy", {"actions": []}),
            (f"/socket/{foreign['socket']}/connectors", {"connector_ids": []}),
            (f"/policy/{foreign['policy']}", {"org_wide": True}),
            (f"/policy/{foreign['policy']}/socket", {"actions": []}),
            (f"/connector/{foreign['connector']}", {"locked": True}),
        ):
            await self.refused(404, "PUT", path, body)
        for noun in ("socket", "policy", "connector"):
            for method in ("GET", "DELETE"):
                await self.refused(404, method, f"/{noun}/{foreign[noun]}")
                unknown = await self.refused(404, method, f"/{noun}/{NOWHERE}")
                self.assertEqual(unknown, f"there is no such {noun}")
        id = foreign["policy"]
        for path in (f"/policy/{id}/socket", f"/policy/{id}/versions", f"/policy/{id}/versions/1"):
            await self.refused(404, "GET", path)
        await self.refused(404, "POST", f"/policy/{id}/revert", {"number": 1})
        self.assertEqual(await self.everything(OTHER), before)

    async def everything(self, org: str) -> list[Any]:
        def read(connection: Any) -> list[Any]:
            return [
                sockets.page(connection, org).items,
                policies.page(connection, org).items,
                [one.revoked for one in tokens.page(connection, org).items],
                [one.kill_asked for one in sessions.page(connection, org).items],
            ]

        found: list[Any] = await self.read(read)
        return found

    async def test_roles(self) -> None:
        own = await self.of(ACME)
        for case in list(cases(self.table, own.__getitem__, own.__getitem__)):
            if case.foreign:
                continue
            path = case.path.removeprefix("/api/v1")
            for role in ("member", "auditor", "admin", "owner"):
                self.now += 60
                response = await self.call(case.route.method, path, case.body, by=role)
                label = f"{role} {case.route.name} {response.raw!r}"
                if permitted(self.table, case.route, role):
                    self.assertNotIn(response.status, (401, 403, 500, 0), label)
                else:
                    self.assertEqual(response.status, 403, label)

    async def test_a_store_that_fails_is_no_empty_answer(self) -> None:
        own = await self.of(ACME)
        made = [case for case in cases(self.table, own.__getitem__, own.__getitem__)
                if not case.foreign]  # fmt: skip
        await self.store.close()
        valid = {
            "POST /socket": {"name": "x", "socket_type": "exit_node", "port": 1,
                             "upstream_configuration": {"exit_node_service_configuration": {}}},
            "PUT /socket/{socket:text}": {"description": "x"},
            "POST /policies": {"name": "x", "policy_data": {"permissions": {}}},
            "PUT /policy/{policy:text}": {"description": "x"},
            "POST /policies/explain": {"socket": "x", "email": "x"},
            "POST /connector/token": {"connector_id": own["connector"], "name": "x"},
            "PUT /session/{socket:text}/{session:session}": {"killed": True},
            "POST /relay": {"name": "x", "names": ["x"], "public_key": f"{'A' * 42}E="},
            "PUT /relay/{relay:text}": {"drain": True},
        }  # fmt: skip
        asks_no_store = ("GET /relays/ticket_keys",)
        for case in made:
            if case.route.name in asks_no_store:
                continue
            path = case.path.removeprefix("/api/v1")
            body = valid.get(case.route.name, case.body)
            if case.route.name.startswith("GET /policy/") or "/audit_events" in path:
                path = path.partition("?")[0].replace("/versions/x", "/versions/1")
            response = await self.call(case.route.method, path, body)
            self.assertEqual(response.status, 503, (case.route.name, response.raw))
            self.assertEqual(response.json()["status_code"], 503)

    async def test_a_change_and_its_event_are_one(self) -> None:
        """A change whose event cannot be written has not happened."""
        self.desk.record = None  # nobody else writes it
        self.patch(desk, "audit_line", lambda entry, tx: "no event")
        response = await self.call("POST", "/connector", {"name": "x"})
        self.assertGreaterEqual(response.status, 400)
        self.flushLoggedErrors()
        self.assertEqual((await self.ok("GET", "/connectors"))["items"], [])

    async def test_every_kind_is_looked_up(self) -> None:
        own = await self.of(ACME)
        asked = owns(self.desk)
        wanted = [Reference(kind, own.get(kind, NOWHERE), "x") for kind in TABLES]
        self.assertEqual(await asked(ACME, wanted), set(own.items()))
        self.assertEqual(await asked(OTHER, wanted), set())
        many = [Reference("socket", str(uuid.uuid4()), "x") for _ in range(1100)]
        self.assertEqual(
            await asked(ACME, [*many, Reference("socket", own["socket"], "x")]),
            {("socket", own["socket"])},
        )
