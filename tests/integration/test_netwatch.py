"""A real Linux tells of addresses, links and routes that change, and of nothing else."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, reactor, task
from twisted.trial.unittest import TestCase

from border0.processes.netwatch import QUIET, NetWatch
from tests.support.counterparts import requires
from tests.support.namespaces import Namespace

CLOCK: Any = reactor
PATIENCE = 10.0


@requires("namespaces")
class RealChanges(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.space = Namespace()
        self.addCleanup(self.space.close)
        ip = self.space.ip
        ip("link", "add", "eth0", "type", "veth", "peer", "name", "far0")
        ip("link", "set", "far0", "up")
        ip("addr", "add", "198.18.7.1/24", "dev", "eth0")
        ip("-6", "addr", "add", "2001:db8:7::1/64", "dev", "eth0", "nodad")
        ip("link", "set", "eth0", "up")
        self.heard: defer.Deferred[None] | None = None
        self.watch = NetWatch(CLOCK, self.changed, ignored=["border0"])
        with self.space.inside():
            self.watch.startService()
        self.addCleanup(self.watch.stopService)
        self.assertTrue(self.watch.told)

    def changed(self) -> None:
        if self.heard is not None:
            heard, self.heard = self.heard, None
            heard.callback(None)

    def quiet(self) -> defer.Deferred[None]:
        """When what is on its way has been told: an interface's first seconds are restless."""

        async def wait() -> None:
            while True:
                words = self.watch.words
                await task.deferLater(CLOCK, 2 * QUIET)
                if words == self.watch.words and self.watch._telling is None:
                    return

        return defer.ensureDeferred(wait())

    async def told(self, *words: str) -> None:
        """That a command is told."""
        await self.quiet()
        self.heard = defer.Deferred()
        self.heard.addTimeout(PATIENCE, CLOCK)
        heard = self.heard
        self.space.ip(*words)
        try:
            await heard
        except defer.TimeoutError:
            self.fail(f"ip {' '.join(words)}: nothing was told")

    async def untold(self, *commands: tuple[str, ...]) -> None:
        """That commands are not told: the next real change is the first word since."""
        await self.quiet()
        before = self.watch.words
        for words in commands:
            self.space.ip(*words)
        await self.quiet()
        self.assertEqual(self.watch.words, before, commands)

    def test_what_is_told(self) -> Any:
        async def run() -> None:
            await self.told("addr", "add", "198.18.8.1/24", "dev", "eth0")
            await self.told("addr", "del", "198.18.8.1/24", "dev", "eth0")
            await self.told("-6", "addr", "add", "2001:db8:8::1/64", "dev", "eth0", "nodad")
            await self.told("route", "add", "default", "via", "198.18.7.254")
            await self.told("-6", "route", "add", "default", "via", "2001:db8:7::fe")
            await self.told("route", "replace", "default", "via", "198.18.7.253")
            await self.told("link", "set", "far0", "down")  # the cable
            await self.told("link", "set", "far0", "up")
            await self.told("link", "set", "eth0", "mtu", "1400")
            await self.told("link", "set", "eth0", "down")
            await self.told("link", "set", "eth0", "up")
            await self.told("link", "del", "eth0")

        return defer.ensureDeferred(run())

    def test_what_is_not_told(self) -> Any:
        async def run() -> None:
            await self.untold(
                ("tuntap", "add", "border0", "mode", "tun"),
                ("link", "set", "border0", "up"),
                ("addr", "add", "100.64.0.1/32", "dev", "border0"),
                ("-6", "addr", "add", "fd00:7::1/128", "dev", "border0", "nodad"),
                ("route", "add", "100.64.0.0/16", "dev", "border0"),
                ("-6", "route", "add", "fd00:7::/48", "dev", "border0"),
                ("link", "set", "border0", "mtu", "1280"),
                ("route", "del", "100.64.0.0/16", "dev", "border0"),
                ("link", "del", "border0"),
            )
            # Somebody's container comes and goes.
            await self.untold(
                ("link", "add", "veth1", "type", "veth", "peer", "name", "veth2"),
                ("link", "set", "veth1", "up"),
                ("link", "set", "veth2", "up"),
                ("link", "del", "veth1"),
            )
            # An address is given anew, as a router's advertisement does.
            await self.untold(
                ("addr", "change", "198.18.7.1/24", "dev", "eth0", "valid_lft", "900",
                 "preferred_lft", "800"),
            )  # fmt: skip
            await self.told("addr", "add", "198.18.8.1/24", "dev", "eth0")

        return defer.ensureDeferred(run())

    def test_more_than_the_kernel_keeps_for_us(self) -> Any:
        async def run() -> None:
            await self.quiet()
            port: Any = self.watch._port
            port.stopReading()
            before = self.watch.words
            batch = "".join(
                f"addr {verb} 198.18.{n >> 8}.{n & 255}/32 dev eth0\n"
                for n in range(2000, 6000)
                for verb in ("add", "del")
            )
            done = self.space.run(["ip", "-batch", "-"], input=batch.encode())
            self.assertEqual(done.returncode, 0, done.stderr)
            port.startReading()
            await self.quiet()
            self.assertGreater(port.overflows, 0)
            self.assertGreater(self.watch.words, before)
            await self.untold(
                ("addr", "change", "198.18.7.1/24", "dev", "eth0", "valid_lft", "900",
                 "preferred_lft", "800"),
            )  # fmt: skip
            await self.told("addr", "add", "198.18.8.1/24", "dev", "eth0")

        return defer.ensureDeferred(run())
