"""Congestion control behind a small interface; NewReno.

Source: RFC 5681 §3.1 (slow start, congestion avoidance), §3.2; RFC 6928 (initial window 10);
RFC 3465 (byte counting, without its limit of 2 SMSS: we are acknowledged once per batch);
RFC 7661 §4.1 in spirit (no growth while the application does not fill the window).
Recovery itself (what to send again) is `sender`'s business.
"""

MAX_WINDOW = 8 << 20


class NewReno:
    """The congestion window of one flow, in bytes."""

    __slots__ = ("_credit", "cwnd", "mss", "ssthresh")

    def __init__(self, mss: int) -> None:
        self.mss = mss
        self.cwnd = 10 * mss
        self.ssthresh = 1 << 30
        self._credit = 0

    def on_ack(self, acked: int, flight: int) -> None:
        """Grow after `acked` new bytes; `flight` is what was outstanding before this ACK."""
        cwnd = self.cwnd
        if flight + flight < cwnd or cwnd >= MAX_WINDOW:
            return
        if cwnd < self.ssthresh:
            self.cwnd = cwnd + acked
            return
        self._credit += acked
        if self._credit >= cwnd:
            self._credit -= cwnd
            self.cwnd = cwnd + self.mss

    def on_loss(self, flight: int) -> None:
        """Halve once per window: fast recovery begins."""
        self.ssthresh = max(flight // 2, 2 * self.mss)
        self.cwnd = self.ssthresh
        self._credit = 0

    def on_timeout(self, flight: int, first: bool) -> None:
        """Fall back to one segment; `first` is False when the same data timed out before."""
        if first:
            self.ssthresh = max(flight // 2, 2 * self.mss)
        self.cwnd = self.mss
        self._credit = 0

    def on_recovered(self, flight: int) -> None:
        """Recovery is over: deflate so that no burst follows (RFC 6582 §3.2 step 3)."""
        self.cwnd = max(self.mss * 2, min(self.ssthresh, flight + 10 * self.mss))

    def on_idle(self) -> None:
        """Restart after an idle RTO (RFC 5681 §4.1)."""
        self.cwnd = min(self.cwnd, 10 * self.mss)
