"""What is known of other nodes besides what is signed: where they are, whether they are there.

Facts expire at the push machine; here the last one stays, also while nobody tells anything. The
endpoints outlive the process (`Contact`). A path key does not: it is that of one run of one
process, and the peer may have begun anew meanwhile.
"""

from border0.control.member.state import Contact
from border0.control.push.client import MapClient
from border0.control.push.events import Seen, SoftChanged
from border0.control.push.messages import PathOffer

LIMIT = 100_000  # nodes


class Neighbours:
    """Soft facts by node id.

    :param contact: keeps the endpoints.
    """

    def __init__(self, machine: MapClient, contact: Contact) -> None:
        self._machine, self._contact = machine, contact
        self._seen: dict[str, Seen] = {}
        self._paths: dict[str, PathOffer] = {}
        self._moved: set[str] = set()

    def endpoints(self, node: str) -> list[str]:
        """Where a node can be reached, best first: as it is now, or was when we last heard."""
        return self._contact.endpoints.get(node, [])

    def path(self, node: str) -> PathOffer | None:
        """What came with the endpoints in this run."""
        return self._paths.get(node)

    def presence(self, node: str) -> Seen | None:
        """How a node's own connection was last seen."""
        return self._seen.get(node)

    def changed(self, event: SoftChanged, now: float) -> None:
        """A fact is another now."""
        node = event.node
        if event.kind == "presence":
            seen = self._machine.presence.get(node, now)
            if seen is not None and (node in self._seen or len(self._seen) < LIMIT):
                self._seen[node] = seen
            return
        where, known = self._machine.endpoints.get(node, now), self._contact.endpoints
        if where is None or (node not in known and len(known) >= LIMIT):
            return
        self._moved.add(node)
        known[node] = list(where)
        path = self._machine.paths.get(node, now)
        if path is None:
            self._paths.pop(node, None)
        else:
            self._paths[node] = path

    def take_moved(self) -> set[str]:
        """Which nodes told their endpoints since the last call."""
        moved, self._moved = self._moved, set()
        return moved

    def forget(self, node: str) -> None:
        """A node is not in the map any more."""
        self._seen.pop(node, None)
        self._paths.pop(node, None)
        self._moved.discard(node)
        self._contact.endpoints.pop(node, None)
