"""What the hub knows of nodes and tells their peers: where each is, and whether it is there.

Each fact gets the next stamp, so that the last report wins; all expire. The facts of a connected
node are renewed before that.

Not here: who is told (`server.Hub`), and what a fact is worth.
"""

from collections.abc import Iterable

from border0.control.push import messages as wire
from border0.control.push.messages import Key, PathOffer
from border0.control.push.session import View
from border0.control.push.softstate import SoftState

SOFT_TTL = 600.0
# Facts in one frame: 192 with the longest endpoints, each character of which JSON escapes, fit.
SOFT_FRAME = 192

_Where = tuple[list[str], PathOffer | None]
_Seen = tuple[bool, str, float]  # online, address, when last heard


class Facts:
    """Endpoints and presence by node id."""

    def __init__(self) -> None:
        self._stamp = 0
        self._endpoints: SoftState[_Where] = SoftState()
        self._presence: SoftState[_Seen] = SoftState()

    def known(self, node: str, now: float) -> bool:
        """Whether anything is to be told of a node: without having been here it tells nothing."""
        return self._presence.get(node, now) is not None

    def reported(self, node: str, endpoints: list[str], path: PathOffer | None, now: float) -> None:
        """A node told where it is."""
        self._stamp += 1
        self._endpoints.put(node, self._stamp, SOFT_TTL, (endpoints, path), now)

    def seen(self, node: str, online: bool, address: str, heard: float, now: float) -> None:
        """A node is or is not connected; it was heard of at `heard`."""
        self._stamp += 1
        self._presence.put(node, self._stamp, SOFT_TTL, (online, address, heard), now)

    def renew(self, node: str, address: str, heard: float, now: float) -> None:
        """A node is still connected."""
        self.seen(node, True, address, heard, now)
        if (where := self._endpoints.get(node, now)) is not None:
            self._endpoints.put(node, self._stamp, SOFT_TTL, where, now)

    def expire(self, now: float) -> None:
        """Forget what is past its time."""
        self._endpoints.expire(now)
        self._presence.expire(now)

    def frames(self, nodes: Iterable[str], view: View, now: float) -> list[bytes]:
        """What is known of those nodes that are in a map, one frame of each kind that has any.

        At most SOFT_FRAME nodes.
        """
        presence, endpoints = [], []
        for node in nodes:
            key: Key = ("node", node)
            if view.hash_of(key) is None:
                continue
            if (held := self._presence.held(node, now)) is not None:
                stamp, ttl, (online, address, heard) = held
                age = min(max(0.0, now - heard), 86400.0)
                presence.append(wire.PresenceFact(node, stamp, ttl, online, address, age))
            if (where := self._endpoints.held(node, now)) is not None:
                stamp, ttl, (told, path) = where
                endpoints.append(wire.EndpointsFact(node, stamp, ttl, told, path))
        frames = []
        if presence:
            frames.append(wire.encode(wire.Presence(presence)))
        if endpoints:
            frames.append(wire.encode(wire.Endpoints(endpoints)))
        return frames
