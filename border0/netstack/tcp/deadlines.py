"""Many deadlines behind one: objects in 5 ms slots.

Arming earlier moves an object in O(1); arming later does nothing (whoever is called too early
looks at its own deadlines and arms again), so an ACK that restarts a retransmission timer costs
nothing here. Memory is bounded by one entry per object and one per slot ahead.
"""

from heapq import heappop, heappush

from border0.netstack.tcp.tcb import Tcb

SLOTS_PER_SECOND = 200.0


class Deadlines:
    """Which flow wants to be looked at when."""

    __slots__ = ("_heap", "_slots")

    def __init__(self) -> None:
        self._heap: list[int] = []
        self._slots: dict[int, set[Tcb] | None] = {}

    def arm(self, tcb: Tcb, deadline: float) -> None:
        """Look at `tcb` at `deadline` (seconds monotonic) or earlier."""
        slot = int(deadline * SLOTS_PER_SECOND) + 1
        old = tcb.timer_slot
        if old:
            if old <= slot:
                return
            self._remove(tcb, old)
        tcb.timer_slot = slot
        if slot in self._slots:
            bucket = self._slots[slot]
            if bucket is None:
                self._slots[slot] = {tcb}
            else:
                bucket.add(tcb)
        else:
            self._slots[slot] = {tcb}
            heappush(self._heap, slot)

    def disarm(self, tcb: Tcb) -> None:
        """Forget `tcb`."""
        if tcb.timer_slot:
            self._remove(tcb, tcb.timer_slot)
            tcb.timer_slot = 0

    def _remove(self, tcb: Tcb, slot: int) -> None:
        bucket = self._slots.get(slot)
        if bucket is not None:
            bucket.discard(tcb)
            if not bucket:
                self._slots[slot] = None

    def next_deadline(self) -> float | None:
        """Return the earliest moment at which `due` may return something."""
        heap = self._heap
        while heap:
            if self._slots[heap[0]]:
                return heap[0] / SLOTS_PER_SECOND
            del self._slots[heappop(heap)]
        return None

    def due(self, now: float) -> list[Tcb]:
        """Return, and disarm, every flow whose slot has come."""
        heap = self._heap
        found: list[Tcb] = []
        # next_deadline() divides; compare the same way, or a caller who comes exactly then waits.
        while heap and heap[0] / SLOTS_PER_SECOND <= now:
            bucket = self._slots.pop(heappop(heap))
            if bucket:
                for tcb in bucket:
                    tcb.timer_slot = 0
                    found.append(tcb)
        return found
