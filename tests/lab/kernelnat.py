"""Two sites behind gateways of the Linux kernel itself: namespaces, nftables, a router between.

    a 192.168.1.2 -- A 203.0.113.10 -- router and servers 203.0.113.1 to .3 -- B 203.0.113.14 -- b

The kinds are natbox.py's. What masquerade does (one entry for each 5-tuple, the port kept when it
can be) is the kernel's own; filtering is what the forward chain lets in. Delay needs natbox.
"""

from __future__ import annotations

import contextlib

from tests.support.counterparts import find_program
from tests.support.namespaces import Namespace, ip, unique

A, B = "192.168.1.2", "192.168.2.2"
EXT_A, EXT_B = "203.0.113.10", "203.0.113.14"
SERVERS = ("203.0.113.1", "203.0.113.2", "203.0.113.3")

_RULES = """
flush ruleset
table ip b0 {{
    set seen {{ type ipv4_addr; flags dynamic; timeout 1m; }}
    chain input {{
        type filter hook input priority 0; policy accept;
        ct state established,related accept
        {input}
    }}
    chain forward {{
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "lan" accept
        {forward}
    }}
    chain prerouting {{
        type nat hook prerouting priority -100;
        {prerouting}
    }}
    chain remember {{
        type filter hook postrouting priority 0;
        oifname "wan" update @seen {{ ip daddr }}
    }}
    chain postrouting {{
        type nat hook postrouting priority 100;
        oifname "wan" meta l4proto {{ tcp, udp }} masquerade {masquerade}
    }}
}}
"""
_DROP = 'iifname "wan" drop'
_DNAT = 'iifname "wan" meta l4proto udp dnat to {host}'
_KINDS = {
    "linux": {"input": _DROP},
    "linux-accept": {},
    "symmetric": {"input": _DROP, "masquerade": "random,fully-random"},
    "full-cone": {"input": _DROP, "prerouting": _DNAT, "forward": "ct status dnat accept"},
    "address-restricted": {
        "input": _DROP,
        "prerouting": _DNAT,
        "forward": "ct status dnat ip saddr @seen accept",
    },
}
KINDS = tuple(_KINDS)


class KernelSites:
    """The namespaces a, b, gateways["A"], gateways["B"] and middle (router and servers)."""

    def __init__(self, kind_a: str = "linux", kind_b: str = "linux") -> None:
        self._stack = contextlib.ExitStack()
        try:
            self._build(kind_a, kind_b)
        except BaseException:
            self.close()
            raise

    def _build(self, kind_a: str, kind_b: str) -> None:
        self.a, self.b, self.middle = (self._namespace() for _ in range(3))
        self.gateways = {"A": self._namespace(), "B": self._namespace()}
        self._hosts = {"A": A, "B": B}
        self.middle.sysctl(net__ipv4__ip_forward="1")
        for server in SERVERS:
            self.middle.ip("addr", "add", f"{server}/32", "dev", "lo")
        for name, client, ext in (("A", self.a, EXT_A), ("B", self.b, EXT_B)):
            gateway = self.gateways[name]
            router = ext.rpartition(".")[0] + f".{int(ext.rpartition('.')[2]) - 1}"
            lan = self._hosts[name].rpartition(".")[0] + ".1"
            self._join(client, "eth0", f"{self._hosts[name]}/24", gateway, "lan", f"{lan}/24")
            self._join(gateway, "wan", f"{ext}/30", self.middle, f"to{name}", f"{router}/30")
            client.ip("route", "add", "default", "via", lan)
            gateway.ip("route", "add", "default", "via", router)
            gateway.sysctl(net__ipv4__ip_forward="1")
        self.kind("A", kind_a)
        self.kind("B", kind_b)

    def _namespace(self) -> Namespace:
        namespace = Namespace()
        self._stack.callback(namespace.close)
        return namespace

    def _join(
        self, one: Namespace, name: str, own: str, two: Namespace, other: str, theirs: str
    ) -> None:
        first, second = unique("b0k"), unique("b0l")
        ip("link", "add", first, "netns", one.name, "type", "veth",
           "peer", second, "netns", two.name)  # fmt: skip
        for space, made, new, address in ((one, first, name, own), (two, second, other, theirs)):
            space.ip("link", "set", made, "name", new)
            space.ip("addr", "add", address, "dev", new)
            space.ip("link", "set", new, "up")

    def kind(self, name: str, kind: str) -> None:
        """Make a gateway one of another kind; its connections stay: use new ports."""
        words = {"input": "", "forward": "", "prerouting": "", "masquerade": "", **_KINDS[kind]}
        words["prerouting"] = words["prerouting"].format(host=self._hosts[name])
        rules = _RULES.format(**words).encode()
        nft = find_program("nft") or "nft"
        done = self.gateways[name].run([nft, "-f", "-"], input=rules)
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """Remove the namespaces."""
        self._stack.close()
