"""Round-trip time and retransmission timeout.

Source: RFC 6298 §2, §5. The lower bound is 200 ms as in deployed stacks, not 1 s.
"""

MIN_RTO, MAX_RTO, INITIAL_RTO = 0.2, 60.0, 1.0


class RttEstimator:
    """SRTT, RTTVAR and RTO in seconds."""

    __slots__ = ("rto", "rttvar", "srtt")

    def __init__(self) -> None:
        self.srtt = 0.0
        self.rttvar = 0.0
        self.rto = INITIAL_RTO

    def sample(self, rtt: float) -> None:
        """Take one measurement (never of a retransmitted segment, Karn)."""
        if rtt < 0.0:
            return
        if self.srtt == 0.0:
            self.srtt = rtt or 1e-6
            self.rttvar = rtt / 2
        else:
            error = rtt - self.srtt
            self.rttvar += 0.25 * (abs(error) - self.rttvar)
            self.srtt += 0.125 * error
        self.recompute()

    def recompute(self) -> None:
        """Set the RTO without back-off."""
        if self.srtt:
            self.rto = min(MAX_RTO, max(MIN_RTO, self.srtt + max(0.005, 4 * self.rttvar)))
        else:
            self.rto = INITIAL_RTO

    def back_off(self) -> None:
        """Double the RTO (RFC 6298 §5.5)."""
        self.rto = min(MAX_RTO, self.rto * 2)
