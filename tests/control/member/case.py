"""A plane and machines that join it, for tests of membership."""

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.trial.unittest import TestCase

from border0.control.member.follower import Follower
from border0.control.member.join import join
from border0.control.member.state import MemberState
from tests.control.push.stage import Waiter, forget_handshake_timers
from tests.support.plane import Plane, reactor

WIREGUARD = bytes(range(32))


class Member(TestCase):
    timeout = 60
    signers: dict[str, Any] = {}

    def setUp(self) -> Any:
        self.base = Path(self.mktemp())
        self.base.mkdir()
        self.folder = self.base / "control"
        self.addCleanup(forget_handshake_timers)
        self.waiter = Waiter()
        self.plane = Plane(self.base, **self.signers)
        return ensureDeferred(self.plane.start())

    def tearDown(self) -> Any:
        return ensureDeferred(self.plane.stop())

    async def joined(self, **more: Any) -> MemberState:
        options = {
            "url": self.plane.url,
            "ca": self.plane.authority.pin,
            "code": "b0i_good",
            "role": "connector",
            "name": "gate",
            "wireguard_key": WIREGUARD,
            "ssh_host_key": "",
            "folder": self.folder,
        }
        return await join(reactor, **{**options, **more})

    def follower(self, state: MemberState, **more: Any) -> Follower:
        self.commands: list[Any] = []
        follower = Follower(
            reactor,
            state,
            changed=more.pop("changed", lambda _: self.waiter([])),
            command=self.commands.append,
            uniform=lambda: 0.02,
            **more,
        )
        self.addCleanup(lambda: follower.running and follower.stopService())
        return follower

    async def following(self, **more: Any) -> Follower:
        """A follower that is in sync."""
        follower = self.follower(await self.joined(), **more)
        follower.startService()
        await self.waiter.until(lambda: follower.synced)
        return follower

    def pause(self, seconds: float) -> "Deferred[None]":
        done: Deferred[None] = Deferred()
        reactor.callLater(seconds, done.callback, None)
        return done
