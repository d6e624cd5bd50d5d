"""Tests of the whole product in a network: machines that the tests of one network share.

A network is made with its machines by the first test that wants it and ends when another is
wanted. Each test begins with a network without trouble and with a connector and a node that know
nothing of what was before.
"""

from __future__ import annotations

import atexit
import copy
import functools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.lab.kernelnat import KernelSites
from tests.lab.natbox import NatBox, gateway
from tests.support import children
from tests.support.siteload import Copy, Shell
from tests.support.sites import SERVER, Path_, Sites

SOON = 30.0  # seconds for what should take two, on a busy machine
LATER = 90.0
FAR = 25.0  # ms to a server, and as much back
# What a COPY carries at least; with BORDER0_LONG tens of megabytes.
LEAST = 6_000_000 if os.environ.get("BORDER0_LONG", "") in ("", "0") else 30_000_000
KERNEL = "kernel"
_CALM: dict[str, Any] = {
    "delay": 0.0,
    "jitter": 0.0,
    "loss": 0.0,
    "burst": 1.0,
    "mtu": 65_535,
    "icmp": True,
    "down": False,
    "deny": [],
    "deny_first": [],
    "deny_size": 0,
    "only": [],
}


class _Current:
    """What runs now, and for which network it was made."""

    key: object = None
    sites: Sites | None = None

    @classmethod
    def end(cls) -> None:
        """End it, if there is any."""
        sites, cls.sites, cls.key = cls.sites, None, None
        if sites is not None:
            sites.close()
            sites.network.close()


atexit.register(_Current.end)


def ipv4_alone(topology: dict[str, Any]) -> dict[str, Any]:
    """The same network without any IPv6."""
    found = copy.deepcopy(topology)
    for nat in found.get("nats", {}).values():
        nat["v6"] = None
    for host in found["hosts"].values():
        host["addrs"] = [address for address in host["addrs"] if ":" not in address]
    return found


def far(topology: dict[str, Any]) -> dict[str, Any]:
    """The same network with servers, and relays on them, that are some way off.

    On a busy machine ways through two emulated gateways are slow: a relay next door would win.
    """
    servers = {name: {"delay": FAR} for name in topology["hosts"] if name.startswith("s")}
    return {**topology, "links": {**servers, **topology.get("links", {})}}


class SitesCase(SynchronousTestCase):
    """Tests with a control plane, a connector and a device."""

    timeout = 300
    sites: Sites

    def run(self, result: Any) -> Any:
        """Run; a test that failed shows the logs and leaves its machines to nobody."""
        before = self._faults(result)
        try:
            return super().run(result)
        finally:
            if self._faults(result) != before:
                if _Current.sites is not None:
                    print(f"\n{self.id()}\n{_Current.sites.tails()}", file=sys.stderr, flush=True)
                _Current.end()

    @staticmethod
    def _faults(result: Any) -> int:
        original = getattr(result, "_originalReporter", result)
        return sum(len(getattr(original, name, ())) for name in ("failures", "errors"))

    def at(
        self,
        topology: dict[str, Any] | str,
        address: str = SERVER,
        *,
        kinds: tuple[str, str] | None = None,
        swapped: bool = False,
    ) -> Sites:
        """The machines in this network (KERNEL: gateways of the real one), at rest.

        :param kinds: what gateways A and B are; they have just been switched on.
        """
        # What the real kernel tracks stays while its gateway does.
        key = (repr(topology), address, swapped, kinds if topology == KERNEL else None)
        fresh = _Current.key != key
        if fresh:
            _Current.end()
            network: NatBox | KernelSites
            network = NatBox(far(topology)) if isinstance(topology, dict) else KernelSites()
            try:
                self._kinds(network, kinds)
                sites = Sites(network, address, swapped=swapped).start()
            except BaseException:
                network.close()
                raise
            _Current.key, _Current.sites = key, sites
        assert _Current.sites is not None
        self.sites = _Current.sites
        if not fresh:
            self.sites.restart(functools.partial(self._anew, kinds))
        return self.sites

    def _anew(self, kinds: tuple[str, str] | None) -> None:
        self.calm()
        self._kinds(self.sites.network, kinds)

    @staticmethod
    def discard() -> None:
        """Leave the machines to nobody: what the test did to them lasts."""
        _Current.end()

    def calm(self) -> None:
        """Take all trouble from an emulated network."""
        if isinstance(self.sites.network, NatBox):
            box = self.sites.network
            for name in (*box.topology.get("nats", ()), *box.topology["hosts"]):
                box.command(link=name, **{**_CALM, **box.topology.get("links", {}).get(name, {})})

    @staticmethod
    def _kinds(network: NatBox | KernelSites, kinds: tuple[str, str] | None) -> None:
        for name, kind in zip("AB", kinds or (), strict=False):
            if isinstance(network, NatBox):
                ext = network.topology["nats"][name]["ext"]
                network.command(nat=name, ext=ext, **gateway(kind))
            else:
                network.kind(name, kind)

    # Paths

    def connected(self, method: str = "", seconds: float = SOON) -> Path_:
        """Let the device want something, and wait for a direct way."""
        self.sites.megabyte(4)
        return self.sites.wait_path(
            lambda path: path["method"].startswith(method), seconds, f"of {method or 'any kind'}"
        )

    def left(self, path: Path_, trouble: Callable[[], object], seconds: float = LATER) -> float:
        """Make trouble on the way in use; the seconds until the device uses another."""
        before = self.sites.peer()["switches"]
        began = time.time()
        trouble()
        self.sites.wait_path(
            lambda found: found["address"] != path["address"], seconds, f"not {path['address']}"
        )
        peer = self.sites.peer()
        self.assertGreater(peer["switches"], before)
        self.assertTrue(peer["last_reason"])
        return max(0.0, (peer["last_switch"] or began) - began)

    def tell(self, what: str, seconds: list[float]) -> None:
        """Print how long it took."""
        middle, worst = statistics.median(seconds), max(seconds)
        print(
            f"\n{what}: left after {middle:.1f} s (median of {len(seconds)}), at most {worst:.1f}",
            file=sys.stderr,
            flush=True,
        )

    # Work

    def work(self, megabytes_per_second: float = 2.0) -> Work:
        """An ssh session and a COPY at work: both are connected, and data flows."""
        work = Work(self.sites, megabytes_per_second)
        self.addCleanup(work.close)
        work.goes_on()
        return work


class Work:
    """An ssh session and a COPY, both under way."""

    def __init__(self, sites: Sites, megabytes_per_second: float = 2.0) -> None:
        self.shell: Shell = sites.shell()
        try:
            self.copy: Copy = sites.copy(megabytes_per_second)
        except BaseException:
            self.shell.close()
            raise

    def goes_on(self, seconds: float = LATER) -> None:
        """Wait until both have done more."""
        self.shell.goes_on(seconds=seconds)
        self.copy.goes_on(seconds=seconds)

    def programs(self) -> set[str]:
        """The names of all programs that both of them run now."""
        return children.programs(self.shell.child.pid) | children.programs(self.copy.child.pid)

    def unharmed(self, least: int = LEAST) -> None:
        """End both; nothing is lost or changed.

        :param least: the bytes that the COPY must have carried.
        """
        self.goes_on()
        self.copy.finish(least)
        self.shell.finish()

    def close(self) -> None:
        """End both however they are."""
        self.copy.close()
        self.shell.close()
