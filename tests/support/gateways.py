"""A client behind a real Linux gateway: three namespaces, nftables NAT, Debian's miniupnpd.

    client 192.168.77.2 -- 192.168.77.1 gateway 11.22.33.1 -- 11.22.33.2 outside

The outside range is one that miniupnpd takes for public (it refuses to map on documentation and
benchmark ranges); nothing leaves the namespaces.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from pathlib import Path

from tests.support import children
from tests.support.counterparts import find_program
from tests.support.namespaces import Namespace, ip, unique

CLIENT, GATEWAY = "192.168.77.2", "192.168.77.1"
WAN, OUTSIDE = "11.22.33.1", "11.22.33.2"

# The table that miniupnpd adds its rules to; what the client sends is translated.
RULES = """
table inet b0 {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "lan" accept
        jump upnp
    }
    chain upnp { }
    chain prerouting {
        type nat hook prerouting priority -100;
        jump upnp_pre
    }
    chain postrouting {
        type nat hook postrouting priority 100;
        jump upnp_post
        oifname "wan" masquerade
    }
    chain upnp_pre { }
    chain upnp_post { }
    chain input {
        type filter hook input priority 0; policy accept;
        jump refused
    }
    chain refused { }
}
"""
SETTINGS = """
ext_ifname=wan
listening_ip=lan
http_port=0
enable_upnp={upnp}
enable_natpmp={udp}
upnp_table_name=b0
upnp_nat_table_name=b0
upnp_forward_chain=upnp
upnp_nat_chain=upnp_pre
upnp_nat_postrouting_chain=upnp_post
secure_mode=yes
system_uptime=yes
uuid=7a3b1d10-9c1e-4f1e-8f6b-0b0bd0b0b0b0
min_lifetime=120
max_lifetime=86400
lease_file={folder}/leases
allow 1024-65535 192.168.77.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


class LinuxGateway:
    """The three namespaces; `daemon` starts and ends the port-mapping daemon."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._daemon: subprocess.Popen[bytes] | None = None
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="b0gw-")))
        self.client, self.gateway, self.outside = (self._namespace() for _ in range(3))
        self._join(self.client, "eth0", CLIENT, "lan", GATEWAY)
        self._join(self.outside, "eth0", OUTSIDE, "wan", WAN)
        self.client.ip("route", "add", "default", "via", GATEWAY)
        self.gateway.sysctl(net__ipv4__ip_forward="1")
        self.nft(RULES)

    def _namespace(self) -> Namespace:
        namespace = Namespace()
        self._stack.callback(namespace.close)
        return namespace

    def _join(self, end: Namespace, name: str, address: str, there: str, router: str) -> None:
        one, two = unique("b0g"), unique("b0h")
        ip("link", "add", one, "netns", end.name, "type", "veth",
           "peer", two, "netns", self.gateway.name)  # fmt: skip
        for space, link, new, own in (
            (end, one, name, address),
            (self.gateway, two, there, router),
        ):
            space.ip("link", "set", link, "name", new)
            space.ip("addr", "add", f"{own}/24", "dev", new)
            space.ip("link", "set", new, "up")

    def nft(self, text: str) -> None:
        """Run nft commands in the gateway."""
        done = self.gateway.run([find_program("nft") or "nft", "-f", "-"], input=text.encode())
        assert done.returncode == 0, done.stderr

    def rules(self) -> str:
        """Everything the gateway's packet filter has."""
        return self.gateway.run([find_program("nft") or "nft", "list", "ruleset"]).stdout

    def start(self, *, upnp: bool = True, udp: bool = True) -> None:
        """Start the daemon: UPnP, and PCP with NAT-PMP, or one of them."""
        settings = self.folder / "miniupnpd.conf"
        words = {"upnp": "yes" if upnp else "no", "udp": "yes" if udp else "no"}
        settings.write_text(SETTINGS.format(folder=self.folder, **words))
        program = find_program("miniupnpd") or "miniupnpd"
        pid = str(self.folder / "pid")
        self._daemon = self.gateway.spawn(
            [program, "-d", "-f", str(settings), "-P", pid], output=self.folder / "log"
        )
        children.wait_until(self._listens, 30, "the gateway's daemon")

    def _listens(self) -> bool:
        assert self._daemon is not None and self._daemon.poll() is None, self.log()
        with self.gateway.inside():
            table = Path("/proc/thread-self/net/udp").read_text()
        return ":076C " in table or ":14E7 " in table  # 1900, 5351

    def log(self) -> str:
        """What the daemon said."""
        return (self.folder / "log").read_text("utf-8", "replace")

    def stop(self) -> None:
        """End the daemon; its rules go with it."""
        if self._daemon is not None:
            children.end(self._daemon)
            self._daemon = None

    def reboot(self) -> None:
        """Lose every mapping and every connection, and start the daemon again."""
        self.stop()
        self.nft("flush chain inet b0 upnp; flush chain inet b0 upnp_pre; "
                 "flush chain inet b0 upnp_post")  # fmt: skip
        (self.folder / "leases").unlink(missing_ok=True)
        self.start()

    def close(self) -> None:
        """End everything."""
        self.stop()
        self._stack.close()
