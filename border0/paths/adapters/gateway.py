"""Which router leads out, and our address towards it.

Source: proc(5) /proc/net/route (hexadecimal words in the machine's byte order, flags of route(8)).
Does not: watch for changes; only Linux says it in a file, elsewhere there is no answer and so no
port mapping.
"""

from __future__ import annotations

import ipaddress
import socket
import sys

_UP, _GATEWAY = 0x1, 0x2
_TABLE = "/proc/net/route"
_LARGEST = 1 << 20


def default_gateway(table: str, byteorder: str = sys.byteorder) -> str | None:
    """Return the router of the default route with the lowest metric, None when there is none."""
    best: tuple[int, str] | None = None
    for line in table.splitlines()[1:]:
        words = line.split()
        try:
            destination, router, flags = (int(word, 16) for word in words[1:4])
            metric, mask = int(words[6]), int(words[7], 16)
        except (IndexError, ValueError):
            continue
        if destination or mask or not router or flags & (_UP | _GATEWAY) != _UP | _GATEWAY:
            continue
        packed = router.to_bytes(4, "little" if byteorder == "little" else "big")
        if best is None or metric < best[0]:
            best = (metric, str(ipaddress.IPv4Address(packed)))
    return best[1] if best else None


def find_gateway() -> tuple[str, str] | None:
    """Return (router, our address towards it), None when there is no IPv4 router.

    Reads a file and asks the kernel for a route; sends nothing.
    """
    if sys.platform != "linux":
        return None
    try:
        with open(_TABLE, encoding="ascii") as file:
            router = default_gateway(file.read(_LARGEST))
        if router is None:
            return None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((router, 9))
            return router, probe.getsockname()[0]
    except (OSError, UnicodeError):
        return None
