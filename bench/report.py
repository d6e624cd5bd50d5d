"""Medians and ratios of interleaved rounds, and the table that shows them."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence


class Rounds:
    """The figures of each contestant, round by round: ``rounds[measure][contestant]``."""

    def __init__(self) -> None:
        self.figures: dict[str, dict[str, list[float]]] = {}

    def add(self, measure: str, contestant: str, figure: float) -> None:
        """Note one figure of the current round."""
        self.figures.setdefault(measure, {}).setdefault(contestant, []).append(figure)

    def fail(self, measure: str, contestant: str, error: Exception) -> None:
        """Note and tell that the current round has no figure, so that later rounds stay pairs."""
        print(f"{contestant}: {measure}: {error}", file=sys.stderr)
        self.add(measure, contestant, math.nan)

    def failures(self) -> list[str]:
        """Return one line for each measure that a contestant failed in some round."""
        return [
            f"{contestant}: {measure}: {count} of {len(figures)} rounds failed"
            for measure, contestants in self.figures.items()
            for contestant, figures in contestants.items()
            if (count := sum(map(math.isnan, figures)))
        ]

    def median(self, measure: str, contestant: str) -> float:
        """Return the median of a contestant's rounds; not a number when there are none."""
        return _median(self.figures.get(measure, {}).get(contestant, []))

    def ratio(self, measure: str, ours: str, theirs: str) -> float:
        """Return the median of the ratios round by round."""
        pairs = zip(
            self.figures.get(measure, {}).get(ours, []),
            self.figures.get(measure, {}).get(theirs, []),
            strict=False,
        )
        return _median([one / other for one, other in pairs if other])

    def difference(self, measure: str, ours: str, theirs: str) -> float:
        """Return the median of the differences round by round."""
        pairs = zip(
            self.figures.get(measure, {}).get(ours, []),
            self.figures.get(measure, {}).get(theirs, []),
            strict=False,
        )
        return _median([one - other for one, other in pairs])

    def table(self, contestants: Sequence[str], ours: str, against: Sequence[str]) -> str:
        """Render medians, and our ratio to each of the others."""
        heads = ["", *contestants, *(f"{ours}/{other}" for other in against)]
        rows = [heads]
        for measure in self.figures:
            row = [measure]
            row += [_number(self.median(measure, name)) for name in contestants]
            row += [f"{self.ratio(measure, ours, other):.2f}" for other in against]
            rows.append([cell.replace("nan", "-") for cell in row])
        widths = [max(len(row[n]) for row in rows) for n in range(len(heads))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if n == 0 else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in rows
        )


def _median(figures: Sequence[float]) -> float:
    known = [figure for figure in figures if not math.isnan(figure)]
    return statistics.median(known) if known else math.nan


def _number(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.2f}"


class Verdicts:
    """Floors and aims: what was reached, and whether every floor held."""

    def __init__(self) -> None:
        self.held = True

    def at_least(self, what: str, figure: float, floor: float, aim: float) -> None:
        """Judge a figure that should be high."""
        self._judge(what, figure, floor, aim, figure >= floor, figure >= aim, ">=")

    def at_most(self, what: str, figure: float, floor: float, aim: float) -> None:
        """Judge a figure that should be low."""
        self._judge(what, figure, floor, aim, figure <= floor, figure <= aim, "<=")

    def _judge(
        self, what: str, figure: float, floor: float, aim: float, held: bool, met: bool, sign: str
    ) -> None:
        word = "aim met" if met else "floor held" if held else "FLOOR MISSED"
        print(f"{what}: {figure:.2f}  floor {sign} {floor:g}, aim {sign} {aim:g}: {word}")
        self.held = self.held and held

    def complete(self, rounds: Rounds) -> None:
        """Judge that every round gave its figures: a median hides those that failed."""
        for line in rounds.failures():
            print(f"{line}: FLOOR MISSED")
            self.held = False

    def exit(self, strict: bool) -> None:
        """End the program: status 1 when a floor was missed and somebody asked to be strict."""
        sys.exit(1 if strict and not self.held else 0)
