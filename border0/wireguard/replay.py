"""The replay window of one session: which counters were seen, exactly.

Source: WireGuard paper §5.4.6; RFC 6479 for the purpose. Not RFC 6479's bitmap: the set of holes
costs nothing while packets arrive in order.
Does not: authenticate; a counter may come here only from a message that did.
"""

from border0.wireguard.limits import REJECT_AFTER_MESSAGES, REPLAY_WINDOW

# Holes that fell out of the window are cleared when the set has grown this far, so that one
# clearing pays for many insertions.
_CLEAR_AT = REPLAY_WINDOW + REPLAY_WINDOW // 2


class ReplayWindow:
    """`expected` is one above the highest counter seen, `holes` the missing ones below it."""

    __slots__ = ("expected", "holes")

    def __init__(self) -> None:
        self.expected = 0
        self.holes: set[int] = set()

    def accept(self, counter: int) -> bool:
        """Note an authenticated counter; False when it was seen, is too old, or is too high."""
        expected = self.expected
        if counter >= REJECT_AFTER_MESSAGES:
            return False
        if counter == expected:
            self.expected = counter + 1
            return True
        if counter < expected:
            if counter < expected - REPLAY_WINDOW or counter not in self.holes:
                return False
            self.holes.remove(counter)
            return True
        self.expected = counter + 1
        low = counter + 1 - REPLAY_WINDOW
        if low >= expected:
            self.holes = set(range(low, counter))
            return True
        self.holes.update(range(expected, counter))
        if len(self.holes) > _CLEAR_AT:
            self.holes = {hole for hole in self.holes if hole >= low}
        return True
