"""This machine's own addresses, as other machines may reach them.

Source: Linux proc(5) /proc/net/fib_trie and /proc/net/if_inet6; elsewhere what the system would
send from (a connected UDP socket sends nothing).
"""

import re
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

LIMIT = 16  # what a node may report
# Documentation prefixes: nobody is there, and the default route leads to them.
_FAR = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_TRIE = Path("/proc/net/fib_trie")
_INET6 = Path("/proc/net/if_inet6")


def own_endpoints(port: int, loopback: bool) -> list[str]:
    """`address:port` for each address of this machine, that of the default route first.

    :param loopback: also 127.0.0.1; without any other address it is there anyway.
    """
    found = [one for one in dict.fromkeys(_addresses()) if _useful(one)]
    if loopback or not found:
        found = [IPv4Address("127.0.0.1"), *found[: LIMIT - 1]]
    return [f"[{one}]:{port}" if one.version == 6 else f"{one}:{port}" for one in found[:LIMIT]]


def _useful(address: IPv4Address | IPv6Address) -> bool:
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )


def _addresses() -> list[IPv4Address | IPv6Address]:
    found: list[IPv4Address | IPv6Address] = []
    for family, far in _FAR:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((far, 9))
                found.append(ip_address(probe.getsockname()[0]))
        except (OSError, ValueError):
            continue  # no route of this family
    local = re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", _read(_TRIE))
    found += [ip_address(text) for text in local]
    for line in _read(_INET6).splitlines():
        try:
            found.append(IPv6Address(bytes.fromhex(line.split()[0])))
        except (ValueError, IndexError):
            continue
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return ""
