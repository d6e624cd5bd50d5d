"""What people see of the ways to a peer: a copy, in plain values.

Source: the columns of `border0 node debug peers`.
Does not: format; times stay seconds, loss a share.
"""

from __future__ import annotations

from border0.paths import address as addresses
from border0.paths.candidates import DISCOVERED, KIND_NAMES
from border0.paths.path import NEVER, Path
from border0.paths.pathset import PathSet


class PathStatus:
    """One way. `latest_reply` is monotonic seconds; None where nothing is known."""

    __slots__ = (
        "active",
        "address",
        "held",
        "kind",
        "latest_reply",
        "loss",
        "method",
        "mtu",
        "round_trip",
        "score",
        "state",
    )

    def __init__(self, path: Path, now: float) -> None:
        roaming = path.kind == DISCOVERED
        self.method = f"{path.method} (roaming)" if roaming else path.method
        self.address = str(path.endpoint) if path.address is None else addresses.text(path.address)
        self.kind = KIND_NAMES.get(path.kind, "relay")
        self.state = path.state
        self.round_trip = path.trip.smoothed
        self.loss = path.lost
        self.mtu = path.mtu.size if path.usable else None
        self.score = path.points if path.usable else 0.0
        self.latest_reply = None if path.last_reply == -NEVER else path.last_reply
        self.active = path.in_use
        self.held = max(0.0, path.held_until - now)  # seconds for which it is not chosen


class PeerStatus:
    """One peer; its ways by method and address. `last_switch` is monotonic seconds."""

    __slots__ = (
        "inner_mtu",
        "last_reason",
        "last_switch",
        "nat",
        "paths",
        "public_key",
        "refused",
        "switches",
    )

    def __init__(self, peer: PathSet, now: float) -> None:
        self.public_key = peer.public_key
        self.paths = [PathStatus(path, now) for path in peer.paths.values()]
        self.paths.sort(key=lambda path: (path.method, path.address))
        self.inner_mtu = peer.inner_mtu
        self.last_switch = None if peer.last_switch == -NEVER else peer.last_switch
        self.last_reason = peer.last_reason
        self.switches = peer.switches
        self.nat = peer.nat
        self.refused = peer.refused
