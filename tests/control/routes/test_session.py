"""Sessions, how they are ended, audit events and recordings over the API."""

import uuid
from typing import Any

from border0.control.store import recordings, sessions
from border0.control.store.recordings import Recording
from border0.control.store.sessions import Session
from tests.control.routes.case import ACME, NOWHERE, OTHER, START, RoutesCase


class Sessions(RoutesCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.connector = await self.new_connector()
        self.socket = await self.new_socket(connector_ids=[self.connector])

    async def session(self, org: str = ACME, **members: Any) -> str:
        id = str(uuid.uuid4())
        values = {
            "id": id,
            "started": self.now,
            "connector_id": self.connector,
            "socket_id": self.socket,
            "socket": "shop-db",
            "user_id": self.principals["member"].id,
            "user": "member@acme.test",
            "device": "laptop",
            "address": "192.0.2.7",
            "protocol": "database",
            **members,
        }
        await self.change(lambda tx: sessions.report(tx, Session(**values)), org=org)
        return id

    async def test_listed(self) -> None:
        first = await self.session(ended=START + 5, status="ok", bytes_in=3, bytes_out=4)
        self.now += 60
        second = await self.session(user="x@acme.test", user_id="", socket_id="", socket="gone")
        await self.session(OTHER)
        recording = Recording(str(uuid.uuid4()), first, START, self.connector, path="a/b")
        await self.change(lambda tx: recordings.report(tx, recording))
        listed = await self.ok("GET", "/sessions", by="auditor")
        self.assertEqual([one["session_id"] for one in listed["list"]], [second, first])
        shown = await self.ok("GET", f"/session/{self.socket}/{first}")
        self.assertEqual(shown, listed["list"][1])
        wanted = {
            "session_type": "database",
            "socket_id": self.socket,
            "socket_name": "shop-db",
            "user_email": "member@acme.test",
            "client_ip": "192.0.2.7",
            "start_time": "2027-01-15T08:00:00.000000Z",
            "end_time": "2027-01-15T08:00:05.000000Z",
            "live": False,
            "result": "success",
            "status": "ok",
            "bytes_in": 3,
            "bytes_out": 4,
            "killed": False,
            "killed_by": "",
            "recordings": [
                {"recording_id": recording.id, "start_time": "2027-01-15T08:00:00.000000Z"}
            ],
        }
        self.assertEqual({name: shown[name] for name in wanted}, wanted)
        member = self.principals["member"].id
        for query, found in (
            ("socket=shop-db", [first]),
            (f"socket={self.socket}", [first]),
            ("socket=gone", [second]),
            ("user=member@acme.test", [first]),
            (f"user={member}", [first]),
            ("live=true", [second]),
            ("live=false", [first]),
            ("live=true&user=member@acme.test", []),
        ):
            page = await self.ok("GET", f"/sessions?{query}")
            self.assertEqual([one["session_id"] for one in page["list"]], found, query)
        page = await self.ok("GET", "/sessions?limit=1")
        self.assertEqual(page["pagination"]["records_per_page"], 1)
        cursor = page["pagination"]["next_cursor"]
        page = await self.ok("GET", f"/sessions?limit=1&cursor={cursor}")
        self.assertEqual([one["session_id"] for one in page["list"]], [first])
        self.assertEqual(page["pagination"]["next_cursor"], "")
        for path in (f"/session/other/{first}", f"/session/shop-db/{NOWHERE}", "/session/x/y"):
            await self.refused(404, "GET", path)
        await self.refused(403, "GET", "/sessions", by="member")

    async def test_killed(self) -> None:
        id = await self.session()
        path = f"/session/shop-db/{id}"
        self.nodes.connected[ACME, self.connector] = "192.0.2.1"
        made = await self.ok("PUT", path, {"killed": True})
        self.assertEqual(made["kill"], {"ended": True, "detail": "it has ended"})
        self.assertEqual((made["killed"], made["killed_by"]), (True, "owner@acme.test"))
        reason = "ended by an administrator (owner@acme.test)"
        self.assertEqual(self.nodes.kills, [(ACME, self.connector, id, reason)])
        (event,) = await self.records("session.kill")
        self.assertEqual(
            (event["target"]["id"], event["result"], event["actor"]["user"]),
            (id, "ok", "owner@acme.test"),
        )
        self.nodes.outcome = False
        made = await self.ok("PUT", path, {"killed": True})
        self.assertFalse(made["kill"]["ended"])
        self.nodes.outcome = RuntimeError("gone")
        made = await self.ok("PUT", path, {"killed": True})
        self.assertIn("did not answer", made["kill"]["detail"])
        self.flushLoggedErrors(RuntimeError)

    async def test_killed_while_its_connector_is_away(self) -> None:
        id = await self.session()
        made = await self.ok("PUT", f"/session/{self.socket}/{id}", {"killed": True})
        self.assertEqual((made["killed"], made["kill"]["ended"]), (True, False))
        self.assertEqual(self.nodes.kills, [])
        waiting = await self.read(lambda c: sessions.to_kill(c, ACME, self.connector))
        self.assertEqual(waiting, [id])

    async def test_not_killed(self) -> None:
        ended = await self.session(ended=START + 1)
        foreign = await self.session(OTHER)
        id = await self.session()
        self.nodes.connected[ACME, self.connector] = "192.0.2.1"
        made = await self.ok("PUT", f"/session/shop-db/{ended}", {"killed": True})
        self.assertEqual((made["killed"], made["kill"]["detail"]), (False, "it had ended already"))
        await self.refused(404, "PUT", f"/session/shop-db/{foreign}", {"killed": True})
        await self.refused(404, "PUT", f"/session/other/{id}", {"killed": True})
        await self.refused(422, "PUT", f"/session/shop-db/{id}", {"killed": False})
        await self.refused(422, "PUT", f"/session/shop-db/{id}", {})
        await self.refused(403, "PUT", f"/session/shop-db/{id}", {"killed": True}, by="auditor")
        self.assertEqual(self.nodes.kills, [])


class Audit(RoutesCase):
    async def test_events(self) -> None:
        await self.new_connector()
        self.now += 60
        await self.new_connector("two", by="admin")
        await self.new_connector("theirs", by="other")
        self.now += 60
        await self.refused(403, "POST", "/connector", {"name": "x"}, by="auditor")
        found = (await self.ok("GET", "/audit_events", by="auditor"))["items"]
        self.assertEqual([one["result"] for one in found], ["denied", "ok", "ok"])
        self.assertEqual({one["type"] for one in found}, {"connector.create"})
        self.assertEqual(found[1]["target"]["name"], "two")
        self.assertEqual(found, await self.records())
        for query, count in (
            ("type=connector.create", 3),
            ("type=socket.create", 0),
            ("user=admin@acme.test", 1),
            ("result=denied", 1),
            ("since=2027-01-15T08:01:00Z", 2),
            ("until=2027-01-15T08:01:00Z", 1),
            ("since=2027-01-15T09:01:00%2B01:00&until=2027-01-15T08:02:00Z", 1),
        ):
            items = (await self.ok("GET", f"/audit_events?{query}"))["items"]
            self.assertEqual(len(items), count, query)
        page = await self.ok("GET", "/audit_events?limit=2")
        rest = await self.ok("GET", f"/audit_events?limit=2&cursor={page['next_cursor']}")
        self.assertEqual(page["items"] + rest["items"], found)
        for query in ("since=yesterday", "cursor=bm9wZQ", "usr=x"):
            await self.refused(422, "GET", f"/audit_events?{query}")
        await self.refused(403, "GET", "/audit_events", by="member")

    async def test_recordings(self) -> None:
        made = [
            Recording(str(uuid.uuid4()), session, START + n, "c", "cast", f"{n}.cast", 7, "ab")
            for n, session in enumerate(("one", "two"))
        ]
        for one in made:
            await self.change(lambda tx, one=one: recordings.report(tx, one))
        found = (await self.ok("GET", "/recordings", by="auditor"))["items"]
        self.assertEqual([one["session_id"] for one in found], ["two", "one"])
        self.assertEqual(
            found[1],
            {"recording_id": made[0].id, "session_id": "one", "connector_id": "c",
             "format": "cast", "path": "0.cast", "size": 7, "sha256": "ab",
             "start_time": "2027-01-15T08:00:00.000000Z"},
        )  # fmt: skip
        found = (await self.ok("GET", "/recordings?session=one"))["items"]
        self.assertEqual([one["path"] for one in found], ["0.cast"])
        await self.refused(403, "GET", "/recordings", by="admin")
        self.assertEqual((await self.ok("GET", "/recordings", by="other"))["items"], [])
