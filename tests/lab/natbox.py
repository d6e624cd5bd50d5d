"""Ready-made networks: the kinds of gateways by name, what theory expects of a pair, topologies.

    with NatBox(two_sites("port-restricted", "symmetric")) as box:   # a process of its own
        box.host("a").run(["ping", "-c", "1", STUN1])
        box.command(link="A", loss=0.3)          # see Lab.command for the orders
        box.command(nat="A", ext="203.0.113.77")  # a new public address in mid-transfer

The addresses of two_sites: clients a (behind gateway A) and b (behind B), three servers in the
open (STUN1, STUN2, STUN3), IPv4 and IPv6. Links are named after what is below them: "A", "B" (a
gateway's uplink), "a", "b", "s1" …
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from tests.lab.process import LabProcess
from tests.support.namespaces import Namespace

# What common gateways do (RFC 4787's words in nat.py). "linux" is masquerade with an INPUT chain
# that drops, "linux-accept" with one that accepts.
KINDS: dict[str, dict[str, Any]] = {
    "full-cone": {"mapping": "EIM", "filtering": "EIF", "alloc": "preserve"},
    "address-restricted": {"mapping": "EIM", "filtering": "ADF", "alloc": "preserve"},
    "port-restricted": {"mapping": "EIM", "filtering": "APDF", "alloc": "preserve"},
    "symmetric": {"mapping": "APDM", "filtering": "APDF", "alloc": "random"},
    "linux": {"mapping": "LINUX", "filtering": "APDF", "alloc": "preserve", "track": False},
    "linux-accept": {"mapping": "LINUX", "filtering": "APDF", "alloc": "preserve", "track": True},
}
MATRIX = ("full-cone", "address-restricted", "port-restricted", "symmetric")

EXT_A, EXT_B = "203.0.113.11", "203.0.113.12"
STUN1, STUN2, STUN3 = "203.0.113.1", "203.0.113.2", "203.0.113.3"
STUN1_V6, STUN2_V6, STUN3_V6 = "2001:db8::1", "2001:db8::2", "2001:db8::3"
A, B = "192.168.1.2", "192.168.2.2"
A_V6, B_V6 = "2001:db8:a::2", "2001:db8:b::2"

# A symmetric gateway shows each peer another port; who filters by port never hears from it.
NO_WAY = frozenset({frozenset({"symmetric"}), frozenset({"symmetric", "port-restricted"})})


def direct(kind_a: str, kind_b: str) -> bool:
    """Say whether hole punching can succeed between two kinds of MATRIX."""
    return frozenset({kind_a, kind_b}) not in NO_WAY


def gateway(kind: str, **settings: Any) -> dict[str, Any]:
    """The settings of a kind with all others back to normal, for `command(nat=…, **…)`."""
    normal = {"track": False, "hairpin": False, "refresh_in": True, "udp_timeout": 30.0}
    return {**normal, **KINDS[kind], **settings}


def _servers(ipv6: bool) -> dict[str, Any]:
    return {
        f"s{number}": {"addrs": [f"203.0.113.{number}", *([f"2001:db8::{number}"] * ipv6)]}
        for number in (1, 2, 3)
    }


def two_sites(kind_a: str, kind_b: str, *, ipv6: bool = True, delay: float = 0.0) -> dict[str, Any]:
    """One client behind each of two gateways, and three servers; `delay` in ms for each uplink."""
    v6 = {"A": "2001:db8:a::/48", "B": "2001:db8:b::/48"} if ipv6 else {"A": None, "B": None}
    return {
        "nats": {
            "A": {"ext": EXT_A, "v6": v6["A"], **gateway(kind_a)},
            "B": {"ext": EXT_B, "v6": v6["B"], **gateway(kind_b)},
        },
        "hosts": {
            "a": {"parent": "A", "addrs": [A, *([A_V6] * ipv6)]},
            "b": {"parent": "B", "addrs": [B, *([B_V6] * ipv6)]},
            **_servers(ipv6),
        },
        "links": {"A": {"delay": delay}, "B": {"delay": delay}},
    }


def one_gateway(kind: str = "port-restricted", *, hairpin: bool = False) -> dict[str, Any]:
    """Two clients a and b behind one gateway A, in networks that do not reach each other directly.

    b stands behind a second gateway B inside A (a carrier's): they meet only by A's hairpin.
    """
    return {
        "nats": {
            "A": {"ext": EXT_A, **gateway(kind, hairpin=hairpin)},
            "C": {"parent": "A", "ext": "100.64.0.3", **gateway("full-cone")},
            "B": {"parent": "A", "ext": "100.64.0.4", **gateway("full-cone")},
        },
        "hosts": {
            "a": {"parent": "C", "addrs": [A]},
            "b": {"parent": "B", "addrs": [B]},
            **_servers(False),
        },
    }


def same_lan(kind: str = "port-restricted", *, hairpin: bool = False) -> dict[str, Any]:
    """Two clients a (192.168.1.2) and b (192.168.1.3) on one LAN behind gateway A."""
    return {
        "nats": {"A": {"ext": EXT_A, "v6": "2001:db8:a::/48", **gateway(kind, hairpin=hairpin)}},
        "hosts": {
            "a": {"parent": "A", "addrs": [A, A_V6]},
            "b": {"parent": "A", "addrs": ["192.168.1.3", "2001:db8:a::3"]},
            **_servers(True),
        },
    }


def open_hosts(*, second_v4: bool = False) -> dict[str, Any]:
    """Two machines a and b without gateways, IPv4 and IPv6; b has a second IPv4 address if asked.

    `command(link="b", deny=["203.0.113.22"])` kills one address, the others live on.
    """
    second = ["203.0.113.23"] if second_v4 else []
    return {
        "hosts": {
            "a": {"addrs": ["203.0.113.21", A_V6]},
            "b": {"addrs": ["203.0.113.22", *second, B_V6]},
            **_servers(True),
        }
    }


class NatBox(LabProcess):
    """A network in a process of its own; its hosts are namespaces."""

    def __init__(self, topology: Mapping[str, Any]) -> None:
        self.topology = copy.deepcopy(dict(topology))
        super().__init__(self.topology)

    def host(self, name: str) -> Namespace:
        """A host's namespace: `inside()`, `run(…)`, `spawn(…)`."""
        return Namespace(self.namespaces[name], existing=True)

    def kind(self, name: str, kind: str, **settings: Any) -> None:
        """Make a gateway one of another kind that has just been switched on."""
        self.command(nat=name, flush=True, **gateway(kind, **settings))

    def reboot(self, name: str) -> None:
        """Let a gateway forget every mapping."""
        self.command(nat=name, flush=True)

    def stats(self) -> dict[str, Any]:
        """All counters: {"links": {name: [out, in]}, "nats": {name: …}}."""
        return self.command(stats=True)

    def __enter__(self) -> NatBox:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
