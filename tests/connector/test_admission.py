"""Who is let in and who may stay: entries, policies, places and times that change."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from border0.audit.adapters.store import RecordStore
from border0.connector.admission import Doorkeeper, Sessions, goes_on
from border0.connector.config import DeviceEntry, SocketEntry
from border0.connector.directory import Directory
from border0.connector.upstreams import TcpUpstream
from border0.policy.model import Policy
from border0.policy.parse import parse_policy
from border0.proxies.admission import Admission, Refusal

KEY = bytes(32)
ORG = "11111111-1111-4111-8111-111111111111"
NOON = 1_800_014_400.0  # 2027-01-15T12:00:00Z


def policy(name: str = "p", deny: bool = False, **condition: Any) -> Policy:
    data: dict[str, Any] = {"permissions": {"tls": {}}, "condition": condition}
    if deny:
        data["deny"] = {"ssh": {}}
    return parse_policy(name, data)


class Door(TestCase):
    def setUp(self) -> None:
        self.base = Path(self.mktemp())
        self.store = RecordStore(self.base, reactor, org=ORG)
        self.sessions = Sessions()
        self.place: tuple[str, float] | None = ("198.51.100.7", 0.0)
        self.time = NOON
        self.device = DeviceEntry(
            "laptop", KEY, None, ["100.64.0.2/32"], "alice@example.org", frozenset({"eng"}),
            id="d-1", user_id="u-1",
        )  # fmt: skip
        socket = SocketEntry(
            "db", "tls", [], 443, False, [], TcpUpstream("192.0.2.5", 443), id="s-1"
        )
        self.door = Doorkeeper(
            socket, [policy()], Directory([self.device]), self.store, lambda _: self.place,
            lambda: self.time, self.sessions, "c-1",
        )  # fmt: skip

    def enter(self) -> Admission | Refusal:
        return self.door(("100.64.0.2", 40000), "tls")

    def live(self) -> list[str]:
        """Reasons for which a session that was let in is stopped."""
        admission = self.enter()
        assert isinstance(admission, Admission), admission.reason
        reasons: list[str] = []
        admission.stop = reasons.append
        self.addCleanup(admission.ended)
        return reasons

    def entries(self, *devices: DeviceEntry) -> None:
        self.door.directory = Directory(devices)
        self.door.review()

    def changed(self, **members: Any) -> DeviceEntry:
        return replace(self.device, **members)

    async def lines(self) -> list[dict[str, Any]]:
        await self.store.close()
        (path,) = self.base.glob("audit/*.jsonl")
        return [json.loads(line) for line in path.read_text().splitlines()]

    async def test_records_name_the_organisation_and_the_ids(self) -> None:
        self.live()
        self.door.policies = []
        self.assertIsInstance(self.enter(), Refusal)
        started, refused = (await self.lines())[:2]
        for line in (started, refused):
            self.assertEqual(line["org"], ORG)
            self.assertEqual(line["actor"]["user"], "alice@example.org")
            found = {key: line[key] for key in line if key.endswith("_id")}
            self.assertEqual(
                found,
                {"user_id": "u-1", "device_id": "d-1", "socket_id": "s-1", "connector_id": "c-1"},
            )

    async def test_records_show_the_source_where_the_place_is_unknown(self) -> None:
        self.door.source = lambda _: ("203.0.113.5", 1.0)
        self.live()
        self.place = None
        self.live()
        self.door.source = lambda _: ("203.0.113.5", 601.0)
        self.live()
        starts = [line for line in await self.lines() if line["type"] == "session.start"]
        found = [line["actor"]["address"] for line in starts]
        self.assertEqual(found, ["198.51.100.7", "203.0.113.5", "100.64.0.2"])

    async def test_closed_lets_nobody_in_and_ends_sessions(self) -> None:
        reasons = self.live()
        self.sessions.closed = "no contact"
        self.door.review()
        self.assertEqual(reasons, ["no contact"])
        answer = self.enter()
        assert isinstance(answer, Refusal)
        self.assertEqual(answer.reason, "no contact")
        self.sessions.closed = ""
        self.door.socket.closed = "a policy is missing"
        answer = self.enter()
        assert isinstance(answer, Refusal)
        self.assertEqual(answer.reason, "a policy is missing")
        await self.store.close()

    async def test_what_may_change_and_what_not(self) -> None:
        reasons = self.live()
        self.entries(self.changed(groups=frozenset({"ops"}), name="old-laptop"))
        self.assertEqual(reasons, [])
        self.entries(self.changed(user="bob@example.org"))
        self.assertEqual(reasons, ["the device's entry has changed"])
        self.entries()
        self.assertEqual(reasons[1:], ["the device is not known any more"])
        await self.store.close()

    async def test_a_group_that_is_left_ends_the_session(self) -> None:
        self.door.policies = [policy(who={"group": ["eng"]})]
        reasons = self.live()
        self.entries(self.changed(groups=frozenset({"ops"})))
        self.assertEqual(len(reasons), 1)
        self.assertIn("condition.who.group", reasons[0])
        await self.store.close()

    async def test_an_address_and_a_time_that_change(self) -> None:
        self.door.policies = [policy(where={"allowed_ip": ["198.51.100.0/24"]})]
        self.assertTrue(self.door.conditional)
        reasons = self.live()
        self.door.review()
        self.assertEqual(reasons, [])
        self.place = ("203.0.113.9", 0.0)
        self.door.review()
        self.assertIn("condition.where.allowed_ip", reasons[0])
        self.place = None
        self.door.review()
        self.assertIn("unknown", reasons[1])
        self.door.policies = [policy(when={"time_of_day_before": "13:00 UTC"})]
        self.assertTrue(self.door.conditional)
        reasons = self.live()
        self.time = NOON + 3600.0
        self.door.review()
        self.assertIn("condition.when", reasons[0])
        self.door.policies = [policy()]
        self.assertFalse(self.door.conditional)
        await self.store.close()

    def test_which_policies_a_session_may_go_on_under(self) -> None:
        one, two, three = policy("one"), policy("two"), policy("three", deny=True)
        self.assertTrue(goes_on([one], [one]))
        self.assertTrue(goes_on([one], [one, two]))
        self.assertFalse(goes_on([one, two], [one]))
        self.assertFalse(goes_on([one], [one, three]))
        self.assertFalse(goes_on([one], [policy("one", who={"email": ["x"]})]))
        return self.store.close()
