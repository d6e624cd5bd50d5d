"""What waits for one destination: who comes next, and what is dropped.

Records of four standings, in this order: control (the relay's own), urgent (probes, WireGuard's
handshakes and cookies), data. Urgent records of one source take a turn each; data is served by
deficit round robin over its sources, so that a source that floods delays and loses its own.

Data older than CoDel's target for an interval is dropped from the front, more quickly the longer
it lasts; so is what is older than half a second, and, when the queue is full, the oldest half of
the source that has most. Urgent records are bounded by a rate for each source: what is above it
is data. So nobody gets before others by calling his flood urgent.

| bytes of the datagram | is |
|---|---|
| 01 00 00 00, length 148; 02 00 00 00, length 92; 03 00 00 00, length 64 | urgent |
| F1 50 54 01, length >= 37 | urgent |
| else | data |

Source: RFC 8289 §5 (CoDel), RFC 8290 §4 (one queue a flow, deficit round robin, drop the fattest).
Does not: know what a source is (a key of any kind), or send.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from math import sqrt

from border0.relay.frames import HEADER_SIZE, KEY_SIZE
from border0.relay.limits import (
    CODEL_INTERVAL,
    CODEL_TARGET,
    CONTROL_RECORDS,
    DATA_OLDEST,
    FLOW_KEPT,
    FLOWS,
    QUANTUM,
    QUEUE_BYTES,
    URGENT_BURST,
    URGENT_BYTES,
    URGENT_OLDEST,
    URGENT_RATE,
)

_HEAD = HEADER_SIZE + KEY_SIZE
_WIREGUARD_DATA = 4
_PROBE = b"\xf1\x50\x54\x01"
_LEAST_PROBE = 37
_HANDSHAKE = {
    b"\x01\0\0\0": _HEAD + 148,
    b"\x02\0\0\0": _HEAD + 92,
    b"\x03\0\0\0": _HEAD + 64,
}


def is_urgent(record: bytes) -> bool:
    """Whether the datagram of a SEND or RECV record goes before data."""
    mark = record[_HEAD : _HEAD + 4]
    if mark == _PROBE:
        return len(record) >= _HEAD + _LEAST_PROBE
    return _HANDSHAKE.get(mark) == len(record)


class Flow:
    """What one source has waiting, and CoDel's memory of it."""

    __slots__ = (
        "above_at", "count", "data", "deficit", "drop_next", "dropping", "key", "last", "queued",
        "size", "tokens", "tokens_at", "urgent",
    )  # fmt: skip

    def __init__(self, key: Hashable, now: float) -> None:
        self.key = key
        self.last = now
        self.data: deque[tuple[float, bytes]] = deque()
        self.urgent: deque[tuple[float, bytes]] = deque()
        self.size = 0  # bytes of data
        self.queued = False  # in the ring
        self.deficit = 0
        self.tokens = URGENT_BURST
        self.tokens_at = now
        self.above_at = 0.0
        self.drop_next = 0.0
        self.count = 0
        self.dropping = False

    def may_hurry(self, size: int, now: float) -> bool:
        """Whether an urgent record of this size is within the source's rate."""
        self.tokens += (now - self.tokens_at) * URGENT_RATE
        self.tokens_at = now
        if self.tokens > URGENT_BURST:
            self.tokens = URGENT_BURST
        if self.tokens < size:
            return False
        self.tokens -= size
        return True


class Queue:
    """One destination's. `drops` counts datagrams, `size` bytes of data, urgent ones apart."""

    __slots__ = ("_ring", "_swept", "_urgent", "_urgent_size", "control", "drops", "flows", "size")

    def __init__(self) -> None:
        self.control: deque[bytes] = deque()
        self.flows: dict[Hashable, Flow] = {}
        self.size = 0
        self.drops = 0
        self._ring: deque[Flow] = deque()
        self._urgent: deque[Flow] = deque()
        self._urgent_size = 0
        self._swept = 0.0

    def __bool__(self) -> bool:
        return bool(self.control or self._urgent or self._ring)

    def tell(self, record: bytes) -> bool:
        """Queue a control record; False if so many wait that it is left out."""
        if len(self.control) >= CONTROL_RECORDS:
            return False
        self.control.append(record)
        return True

    def put(self, source: Hashable, records: Sequence[bytes], now: float) -> None:
        """Queue records of one source, each with at least one byte of a datagram."""
        flow = self.flows.get(source)
        if flow is None:
            flow = self._flow(source, now)
        flow.last = now
        data = flow.data
        size = 0
        for record in records:
            if record[_HEAD] != _WIREGUARD_DATA and is_urgent(record):
                length = len(record)
                fits = self._urgent_size + length <= URGENT_BYTES
                if fits and flow.may_hurry(length, now):
                    if not flow.urgent:
                        self._urgent.append(flow)
                    flow.urgent.append((now, record))
                    self._urgent_size += length
                    continue
            data.append((now, record))
            size += len(record)
        if size:
            flow.size += size
            self.size += size
            if not flow.queued:
                flow.queued = True
                self._ring.append(flow)
            if self.size > QUEUE_BYTES:
                self._shed()

    def take(self, limit: int, now: float) -> list[bytes]:
        """The next records: about `limit` bytes, at most one record more; empty for none."""
        taken: list[bytes] = []
        control = self.control
        while control and limit > 0:
            record = control.popleft()
            taken.append(record)
            limit -= len(record)
        if self._urgent:
            limit = self._take_urgent(taken, limit, now)
        ring = self._ring
        if not ring:
            return taken
        if self.size <= limit and self.delay(now) < CODEL_TARGET:
            self._take_all(taken)
            return taken
        while ring:
            flow = ring[0]
            if flow.deficit <= 0:
                flow.deficit += QUANTUM
                ring.rotate(-1)
                continue
            if taken and flow.data and len(flow.data[0][1]) > limit:
                break
            found = self._next(flow, now)
            if found is None:
                ring.popleft()
                flow.queued = False
                flow.deficit = 0
                continue
            size = len(found)
            taken.append(found)
            limit -= size
            flow.deficit -= size
        return taken

    def delay(self, now: float) -> float:
        """How long the oldest data has waited, in seconds."""
        oldest = now
        for flow in self._ring:
            if flow.data and flow.data[0][0] < oldest:
                oldest = flow.data[0][0]
        return now - oldest

    def sources(self, now: float) -> list[Hashable]:
        """Who sent something lately."""
        return [flow.key for flow in self.flows.values() if now - flow.last < FLOW_KEPT]

    def sweep(self, now: float) -> None:
        """Forget sources that have nothing waiting and were silent."""
        self._swept = now
        for flow in [
            flow
            for flow in self.flows.values()
            if not flow.queued and not flow.urgent and now - flow.last >= FLOW_KEPT
        ]:
            del self.flows[flow.key]

    def _flow(self, source: Hashable, now: float) -> Flow:
        if len(self.flows) >= FLOWS and now - self._swept >= 1.0:
            self.sweep(now)
        if len(self.flows) >= FLOWS:
            # The rest share one: it is not worth memory to tell so many apart.
            source = None
            if source in self.flows:
                return self.flows[source]
        flow = self.flows[source] = Flow(source, now)
        return flow

    def _take_urgent(self, taken: list[bytes], limit: int, now: float) -> int:
        ring = self._urgent
        while ring and limit > 0:
            flow = ring.popleft()
            at, record = flow.urgent.popleft()
            size = len(record)
            self._urgent_size -= size
            if flow.urgent:
                ring.append(flow)
            if now - at > URGENT_OLDEST:
                self.drops += 1
                continue
            taken.append(record)
            limit -= size
        return limit

    def _take_all(self, taken: list[bytes]) -> None:
        for flow in self._ring:
            taken += [record for _, record in flow.data]
            flow.data.clear()
            flow.size = 0
            flow.queued = flow.dropping = False
            flow.deficit = 0
            flow.above_at = 0.0
        self._ring.clear()
        self.size = 0

    def _pop(self, flow: Flow) -> tuple[float, bytes]:
        at, record = flow.data.popleft()
        size = len(record)
        flow.size -= size
        self.size -= size
        return at, record

    def _next(self, flow: Flow, now: float) -> bytes | None:
        """The flow's next record that CoDel lets through. Source: RFC 8289 §5.4, §5.5."""
        while flow.data:
            at, record = self._pop(flow)
            waited = now - at
            if waited < CODEL_TARGET or not flow.data:
                # The last one is let through: without a successor, there is no standing queue.
                flow.above_at = 0.0
                flow.dropping = False
                if waited < DATA_OLDEST:
                    return record
                self.drops += 1
                continue
            if waited >= DATA_OLDEST:
                self.drops += 1
                continue
            if not flow.above_at:
                flow.above_at = now + CODEL_INTERVAL
                return record
            if now < flow.above_at:
                return record
            if not flow.dropping:
                flow.dropping = True
                # What was learnt a short while ago still holds.
                recent = now - flow.drop_next < 8 * CODEL_INTERVAL
                flow.count = flow.count - 2 if recent and flow.count > 2 else 1
                flow.drop_next = now + CODEL_INTERVAL / sqrt(flow.count)
            elif now >= flow.drop_next:
                flow.count += 1
                flow.drop_next += CODEL_INTERVAL / sqrt(flow.count)
            else:
                return record
            self.drops += 1
        return None

    def _shed(self) -> None:
        """Drop the oldest half of the source that has most: a quarter of the queue's at most."""
        while self.size > QUEUE_BYTES:
            fattest = max(self._ring, key=_size)
            goal = max(fattest.size // 2, fattest.size - QUEUE_BYTES // 4)
            while fattest.size > goal and fattest.data:
                self._pop(fattest)
                self.drops += 1


def _size(flow: Flow) -> int:
    return flow.size
