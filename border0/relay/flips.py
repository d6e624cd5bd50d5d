"""Notices a key that two clients hold: their connections replace each other again and again.

Does not: know who is right.
"""

from collections import OrderedDict, deque

from border0.relay.limits import FLIP_WINDOW, FLIPS, FLIPS_REMEMBERED

Name = tuple[str, bytes]


class Flips:
    """The times at which connections of a key were replaced, of the keys replaced last."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: OrderedDict[Name, deque[float]] = OrderedDict()

    def again(self, name: Name, now: float) -> bool:
        """It happened; return whether it happened more than four times within a minute."""
        times = self._times.setdefault(name, deque(maxlen=FLIPS + 1))
        self._times.move_to_end(name)
        if len(self._times) > FLIPS_REMEMBERED:
            self._times.popitem(last=False)
        times.append(now)
        return len(times) > FLIPS and now - times[0] < FLIP_WINDOW
