"""What arrived: the receiver's windows and counts, the sender's judgement of them.

Source: RFC 3611 §4.1 for the idea of a receipt map; our own otherwise.
Does not: send. Numbers of data messages count modulo 2^32.
"""

from collections import deque
from math import exp

from border0.paths.limits import (
    ANSWER_TAKEN,
    DATA_DEAD,
    DATA_DEAD_FEW,
    DATA_DEAD_SECONDS,
    DATA_LEAST,
    DATA_MEMORY,
    DATA_MEMORY_SHORT,
    OUTSTANDING,
    PROBE_GAIN,
    PROBES_COUNTED,
    PROBES_LOST,
    REMOTE_PATHS,
    SOURCES,
)

_MAP_BITS = 64
_MAP = (1 << _MAP_BITS) - 1
_MODULUS = 1 << 32


class PingWindows:
    """The receiver's side: which PINGs came, for each path number of the peer's."""

    __slots__ = ("_paths",)

    def __init__(self) -> None:
        self._paths: dict[int, tuple[int, int]] = {}  # path: (newest, map that includes it)

    def note(self, path: int, sequence: int) -> int:
        """Note a PING and return the map of the 64 before it."""
        newest, bits = self._paths.pop(path, (0, 0))
        if sequence > newest:
            ahead = sequence - newest
            bits = (bits << ahead | 1) & (_MAP << 1 | 1) if ahead <= _MAP_BITS else 1
            newest = sequence
        elif newest - sequence <= _MAP_BITS:
            bits |= 1 << newest - sequence
        if len(self._paths) >= REMOTE_PATHS:
            del self._paths[next(iter(self._paths))]  # the one that was silent the longest
        self._paths[path] = (newest, bits)
        return bits >> newest - sequence + 1 & _MAP


class DataCounts:
    """The receiver's side: authenticated data messages, for each source of a peer's."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[object, int] = {}

    def add(self, source: object, packets: int) -> None:
        """Count; of more than 32 sources the oldest is forgotten."""
        counts = self._counts
        if source not in counts and len(counts) >= SOURCES:
            del counts[next(iter(counts))]
        counts[source] = counts.get(source, 0) + packets

    def of(self, source: object) -> int:
        """Return the count as the wire has it."""
        return self._counts.get(source, 0) % _MODULUS


class ProbeReceipts:
    """The sender's side for one path: which PINGs were lost on their way to the peer.

    `loss` is 0 to 1: the worse of a slow average and, when three or more are missing, the share
    of the last 16. An answer that is lost on its way back is no loss: a later map shows the PING.
    """

    __slots__ = ("_average", "_pending", "last_loss", "recent")

    def __init__(self) -> None:
        self._pending: dict[int, float] = {}
        self._average = 0.0
        self.last_loss = -float("inf")
        self.recent: deque[bool] = deque(maxlen=PROBES_COUNTED)  # True: lost

    def sent(self, sequence: int, now: float) -> None:
        """Note a PING that counts."""
        if len(self._pending) >= OUTSTANDING:
            del self._pending[next(iter(self._pending))]
        self._pending[sequence] = now

    def answered(self, sequence: int, got: int, grace: float, now: float) -> None:
        """Take a PONG's map. A PING missing in it is lost once it is older than `grace` seconds."""
        for earlier, sent in list(self._pending.items()):
            behind = sequence - earlier - 1
            if earlier == sequence or (0 <= behind < _MAP_BITS and got >> behind & 1):
                self._settle(earlier, False, now)
            elif behind >= 0 and now - sent > grace:
                self._settle(earlier, True, now)

    def expire(self, now: float) -> None:
        """Give up the PINGs that nothing was heard about."""
        for earlier, sent in list(self._pending.items()):
            if now - sent <= ANSWER_TAKEN:
                break
            self._settle(earlier, True, now)

    def _settle(self, sequence: int, lost: bool, now: float) -> None:
        if lost:
            self.last_loss = now
        del self._pending[sequence]
        self.recent.append(lost)
        self._average += (lost - self._average) * PROBE_GAIN

    @property
    def lost_recently(self) -> int:
        """How many of the last 16 were lost."""
        return sum(self.recent)

    @property
    def loss(self) -> float:
        """The share lost, 0 to 1."""
        lost = self.lost_recently
        if lost < PROBES_LOST:
            return self._average
        return max(self._average, lost / len(self.recent))

    def revive(self) -> None:
        """The path answers again, or for the first time: what went before says nothing."""
        self._pending.clear()
        self.recent.clear()

    def delay(self, seconds: float) -> None:
        """Shift what is open: we were not run for this long."""
        for sequence in self._pending:
            self._pending[sequence] += seconds


class DataReceipts:
    """The sender's side for one path: what the peer counted against what we sent.

    A PONG tells what had come when its PING came; we remember what we had sent when we sent that
    PING. Between two PONGs both differences are of the same data. `loss` is None while too little
    was sent to say.
    """

    __slots__ = (
        "_at",
        "_base",
        "_lost",
        "_lost_lately",
        "_sent",
        "_sent_lately",
        "_stuck",
        "_stuck_since",
        "last_loss",
        "total",
    )

    def __init__(self) -> None:
        self.total = 0  # data messages sent this way
        self._base: tuple[int, int] | None = None  # (sent, got) of the newest receipt
        self._sent = self._sent_lately = 0.0
        self._lost = self._lost_lately = 0.0
        self._at = 0.0
        self.last_loss = -float("inf")
        self._stuck = 0
        self._stuck_since: float | None = None

    def answered(self, sent: int, got: int, sent_at: float, now: float) -> None:
        """Take a receipt: `sent` of ours when the PING left at `sent_at`, `got` at the peer."""
        base = self._base
        if base is None:
            self._base = (sent, got)
            self._at = now
            return
        share = sent - base[0]
        if share < 0:
            return  # an older receipt that came late
        came = (got - base[1]) % _MODULUS
        if came >= _MODULUS // 2:
            came = 0  # the peer has forgotten this source and counts anew
        self._base = (sent, got)
        if not share:
            return
        # Negative when data that a PING overtook came after it: then it was no loss before.
        lost = share - came
        fade = exp((self._at - now) / DATA_MEMORY)
        self._sent = self._sent * fade + share
        self._lost = max(0.0, self._lost * fade + lost)
        fade = exp((self._at - now) / DATA_MEMORY_SHORT)
        self._sent_lately = self._sent_lately * fade + share
        self._lost_lately = max(0.0, self._lost_lately * fade + lost)
        if self._lost_lately >= 2.0:
            self.last_loss = now
        self._at = now
        if came:
            self._stuck = 0
            self._stuck_since = None
        else:
            self._stuck += share
            if self._stuck_since is None:
                self._stuck_since = sent_at

    @property
    def loss(self) -> float | None:
        """The share lost, 0 to 1, lately or in the longer run; None when too little was sent."""
        if self._sent < DATA_LEAST:
            return None
        share = self._lost / self._sent
        if self._sent_lately >= DATA_LEAST:
            share = max(share, self._lost_lately / self._sent_lately)
        return share

    @property
    def sparse(self) -> bool:
        """Whether so little was sent lately that a loss would not be seen soon."""
        return self._sent_lately < DATA_LEAST

    def dead(self, now: float) -> bool:
        """Tell whether nothing of what was sent arrives, although probes do."""
        if self._stuck >= DATA_DEAD:
            return True
        since = self._stuck_since
        return (
            self._stuck >= DATA_DEAD_FEW and since is not None and now - since >= DATA_DEAD_SECONDS
        )

    @property
    def stuck(self) -> int:
        """How many in a row did not arrive, as far as receipts tell."""
        return self._stuck

    def forget(self) -> None:
        """Start anew: the data goes another way now, or comes back."""
        self._base = None
        self._stuck = 0
        self._stuck_since = None
        self._sent = self._lost = self._sent_lately = self._lost_lately = 0.0
