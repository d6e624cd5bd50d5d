"""Which relay a node prefers, by round-trip times that it measured, and which is its second.

A round is one measurement of all relays. Once chosen, a relay stays until another was better by
10 ms and by 20 % in three rounds in a row, or until it does not answer, drains, or is taken away.

Source: our own numbers. Does not: measure, connect, or know what a relay is.
"""

from collections.abc import Container, Mapping

from border0.relay.limits import BETTER_BY, BETTER_ROUNDS, BETTER_SHARE


class Choice:
    """`home` and `second` are ids, None while there is none; another one than `home`."""

    __slots__ = ("_better", "home", "second")

    def __init__(self) -> None:
        self.home: str | None = None
        self.second: str | None = None
        self._better: dict[str, int] = {}  # rounds in a row, by the challenger's id

    @property
    def chosen(self) -> list[str]:
        """The ids, the preferred one first."""
        return [one for one in (self.home, self.second) if one is not None]

    def keep(self, known: Container[str]) -> None:
        """Forget a relay that is not among these."""
        if self.second not in known:
            self.second = None
        if self.home not in known:
            self.home, self.second = self.second, None

    def round(self, measured: Mapping[str, float]) -> bool:
        """Take the seconds to each relay that answered and may be chosen; whether others are."""
        before = self.home, self.second
        order = sorted(measured, key=lambda one: (measured[one], one))
        home = self.home
        if not order:
            self._better.clear()
            return False  # nothing answers: it is our own network, most likely
        if home not in measured:
            home = self.second if self.second in measured else order[0]
            self._better.clear()
        assert home is not None
        home = self._challenged(home, order[0], measured)
        others = [one for one in order if one != home]
        second = self.second if self.second in others else None
        if self.home in others and self.home != home:
            second = self.home
        elif others and (second is None or better(measured[others[0]], measured[second])):
            second = others[0]
        self.home, self.second = home, second
        return (home, second) != before

    def _challenged(self, home: str, best: str, measured: Mapping[str, float]) -> str:
        if best == home or not better(measured[best], measured[home]):
            self._better.clear()
            return home
        rounds = self._better.get(best, 0) + 1
        self._better = {best: rounds}
        if rounds < BETTER_ROUNDS:
            return home
        self._better.clear()
        return best


def better(one: float, other: float) -> bool:
    """Whether `one` is so much less than `other` (seconds) that a change is worth its while."""
    return one <= other - BETTER_BY and one <= other * (1.0 - BETTER_SHARE)
