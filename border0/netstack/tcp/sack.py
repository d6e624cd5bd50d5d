"""The sender's scoreboard: what the peer holds beyond the cumulative ACK.

Source: RFC 2018, RFC 6675 §3, §4 (IsLost as an edge: every hole below it is lost).
Positions are unwrapped sequence numbers, so plain comparison is right.
"""

_MAX_RANGES = 512
_DUP_THRESH = 3


class Scoreboard:
    """Disjoint sorted ranges [starts[i], ends[i]) that were selectively acknowledged."""

    __slots__ = ("ends", "sacked", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []
        self.sacked = 0

    def clear(self) -> None:
        """Forget everything (the receiver reneged, or the flow ends)."""
        self.starts.clear()
        self.ends.clear()
        self.sacked = 0

    def add(self, start: int, end: int) -> int:
        """Merge one block; return how many bytes were news (0 when full)."""
        starts, ends = self.starts, self.ends
        first = 0
        size = len(starts)
        while first < size and ends[first] < start:
            first += 1
        last = first
        known = 0
        low, high = start, end
        while last < size and starts[last] <= end:
            known += ends[last] - starts[last]
            if starts[last] < low:
                low = starts[last]
            if ends[last] > high:
                high = ends[last]
            last += 1
        if last == first and size >= _MAX_RANGES:
            return 0
        starts[first:last] = [low]
        ends[first:last] = [high]
        news = high - low - known
        self.sacked += news
        return news

    def advance(self, una: int) -> None:
        """Drop what lies below the cumulative ACK."""
        starts, ends = self.starts, self.ends
        gone = 0
        for start, end in zip(starts, ends, strict=True):
            if end <= una:
                gone += 1
                self.sacked -= end - start
            else:
                break
        if gone:
            del starts[:gone], ends[:gone]
        if starts and starts[0] < una:
            self.sacked -= una - starts[0]
            starts[0] = una

    def lost_edge(self, una: int, mss: int) -> int:
        """Return the position below which every hole counts as lost."""
        held = 0
        size = len(self.starts)
        for index in range(size - 1, -1, -1):
            held += self.ends[index] - self.starts[index]
            if size - index >= _DUP_THRESH or held > (_DUP_THRESH - 1) * mss:
                return self.starts[index]
        return una

    def unsacked(self, low: int, high: int) -> int:
        """Return how many bytes of [low, high) are holes."""
        if high <= low:
            return 0
        total = high - low
        for start, end in zip(self.starts, self.ends, strict=True):
            if start >= high:
                break
            if end > low:
                total -= min(end, high) - max(start, low)
        return total

    def hole(self, position: int, limit: int) -> tuple[int, int]:
        """Return the first hole at or after `position` and below `limit` (empty: start == end)."""
        for start, end in zip(self.starts, self.ends, strict=True):
            if position < start:
                return (position, min(start, limit)) if position < limit else (limit, limit)
            if position < end:
                position = end
        return (position, limit) if position < limit else (limit, limit)
