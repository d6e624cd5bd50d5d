"""Records from the recorder's files to the control plane, over TLS, by a node that joined."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor

from border0.audit.adapters.store import RecordStore
from border0.audit.events import Actor
from border0.connector.delivery import Delivery
from border0.control.member.state import MemberState
from tests.control.member.case import Member
from tests.control.push.worlds import Shelf

ACTOR = Actor("alice@example.org", "laptop", "192.0.2.7")


class Delivered(Member):
    def service(self, follower: Any) -> Delivery:
        delivery = Delivery(reactor, self.base, follower.records, uniform=lambda: 0.02)
        delivery.startService()
        self.addCleanup(lambda: delivery.running and delivery.stopService())
        return delivery

    def arrived(self, shelf: Shelf) -> list[str]:
        return [json.loads(line)["reason"] for line in shelf.lines.values()]

    async def test_while_it_is_away_and_after_a_restart(self) -> None:
        store = RecordStore(self.base, reactor)
        shelf = Shelf()
        self.plane.hub.records = shelf.store
        store.audit("socket.refuse", actor=ACTOR, result="denied", reason="before it joined")
        state = await self.joined()
        follower = self.follower(state)
        delivery = self.service(follower)  # there is no connection yet
        await self.pause(0.3)
        follower.startService()
        await self.waiter.until(lambda: len(shelf.lines) == 1)

        store.audit("socket.refuse", actor=ACTOR, result="denied", reason="while it follows")
        await self.waiter.until(lambda: len(shelf.lines) == 2)
        shelf.mode = "fail"
        store.audit("socket.refuse", actor=ACTOR, result="denied", reason="while the disk is full")
        await self.waiter.until(lambda: delivery.trouble)
        self.assertEqual(delivery.trouble, "the disk is full")
        await delivery.stopService()
        await follower.stopService()

        store.audit("socket.refuse", actor=ACTOR, result="denied", reason="while nobody follows")
        await store.close()
        shelf.mode = "prompt"
        batches = shelf.batches
        again = self.follower(MemberState.open(self.folder))
        again.startService()
        self.service(again)
        await self.waiter.until(lambda: len(shelf.lines) == 4)
        self.assertEqual(shelf.batches, batches + 1)
        self.assertEqual(
            self.arrived(shelf),
            [
                "before it joined",
                "while it follows",
                "while the disk is full",
                "while nobody follows",
            ],
        )
