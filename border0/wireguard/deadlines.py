"""Which peer wants its timers looked at next.

Source: our own; a heap whose entries may be stale, so that moving a deadline back costs nothing.
Does not: know what a deadline is for.
"""

from heapq import heapify, heappop, heappush

from border0.wireguard.peer import Peer
from border0.wireguard.timers import NEVER


class Deadlines:
    """An entry counts only while its time is the peer's `scheduled`."""

    __slots__ = ("_count", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Peer]] = []
        self._count = 0

    def note(self, peer: Peer) -> None:
        """Take over the peer's next deadline when it is earlier than the noted one."""
        deadline = peer.timers.next_deadline()
        if deadline < peer.scheduled:
            peer.scheduled = deadline
            self._count += 1  # breaks ties, since peers have no order
            heappush(self._heap, (deadline, self._count, peer))

    def next(self) -> float | None:
        """Return the earliest noted time; may be early, never late."""
        return self._heap[0][0] if self._heap else None

    def pop(self, now: float) -> Peer | None:
        """Return a peer whose noted time has come, None when there is none."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, peer = heappop(heap)
            if at == peer.scheduled:
                peer.scheduled = NEVER
                return peer
        return None

    def forget(self, peer: Peer) -> None:
        """Drop every entry of a removed peer."""
        self._heap = [entry for entry in self._heap if entry[2] is not peer]
        heapify(self._heap)
