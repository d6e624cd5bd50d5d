"""The addresses of this machine at which devices may find its WireGuard port.

The one from which packets would leave towards the control plane comes first. On Linux
`/proc/net/fib_trie` and `/proc/net/if_inet6` list all others. Addresses that others see (behind a
NAT) are not known here.
"""

import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from border0.tables import Address, Network

MAXIMUM = 16
_TRIE = re.compile(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL")
_PROC = Path("/proc/net")


def local_endpoints(
    port: int, *, towards: str, loopback: bool, listen: str = "", without: Iterable[Network] = ()
) -> list[str]:
    """`address:port` texts, best first, at most 16.

    :param towards: the control plane's host.
    :param loopback: whether the control plane is on this machine: then 127.0.0.1 comes first.
    :param listen: the one address that the port is bound to, "" = all.
    :param without: prefixes of the tunnel itself.
    """
    if listen:
        return [_text(ip_address(listen), port)]
    found = towards_addresses(towards) + listed()
    inside = list(without)
    good = [
        each
        for each in dict.fromkeys(found)
        if not (each.is_loopback or each.is_link_local or each.is_multicast or each.is_unspecified)
        and not any(each.version == one.version and each in one for one in inside)
    ]
    good.sort(key=lambda each: each.version)
    if loopback or not good:
        good.insert(0, ip_address("127.0.0.1"))
    return [_text(each, port) for each in good[:MAXIMUM]]


def listed(folder: Path = _PROC) -> list[Address]:
    """What Linux lists; empty elsewhere."""
    found: list[Address] = []
    try:
        found += [
            ip_address(text) for text in _TRIE.findall((folder / "fib_trie").read_text("ascii"))
        ]
        for line in (folder / "if_inet6").read_text("ascii").splitlines():
            found.append(ip_address(bytes.fromhex(line.split()[0])))
    except (OSError, ValueError, IndexError):
        pass
    return found


def towards_addresses(host: str) -> list[Address]:
    """Where packets to an IP address would leave from; nothing is sent. A name is not looked up."""
    found: list[Address] = []
    for family, probe in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            known = ip_address(host)
            target = host if (known.version == 6) == (family == socket.AF_INET6) else probe
        except ValueError:
            target = probe
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as prober:
                prober.connect((target, 9))
                found.append(ip_address(prober.getsockname()[0].partition("%")[0]))
        except OSError:
            continue  # no such family or no route
    return found


def _text(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
