"""A way to a peer by a relay, as an endpoint: WireGuard and probes go there as to an address.

Whose datagram the relay says one is decides nothing but where an answer goes; see `relaying`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from border0.processes.relaysite import RelaySite


class RelayWay:
    """One for each relay and key; compared by identity. `str` names the relay, for people."""

    __slots__ = ("key", "site")

    def __init__(self, site: "RelaySite", key: bytes) -> None:
        self.site, self.key = site, key

    def __str__(self) -> str:
        return self.site.entry.name

    def __repr__(self) -> str:  # WireGuard counts handshakes of each source by it
        return f"relay {self.site.entry.id} {self.key.hex()}"


def split(size: int, buffers: list[bytes]) -> list[bytes]:
    """The datagrams of a burst: each `size` bytes, the last perhaps fewer."""
    joined = b"".join(buffers)
    if len(joined) <= size:
        return [joined]
    return [joined[start : start + size] for start in range(0, len(joined), size)]
