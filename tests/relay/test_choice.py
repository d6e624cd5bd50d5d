"""Which relay is preferred: hysteresis, what is lost, what is taken away."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from border0.relay.choice import Choice, better


class Choosing(SynchronousTestCase):
    def chosen(self, *rounds: dict[str, float]) -> list[str]:
        self.choice = Choice()
        for one in rounds:
            self.choice.round({id: ms / 1000 for id, ms in one.items()})
        return self.choice.chosen

    def test_the_nearest_and_the_next(self) -> None:
        self.assertEqual(self.chosen({"a": 30, "b": 10, "c": 20}), ["b", "c"])
        self.assertEqual(self.chosen({"a": 30}), ["a"])
        self.assertEqual(self.chosen({}), [])
        self.assertEqual(self.chosen({"b": 10, "a": 10}), ["a", "b"])

    def test_better_is_both_ten_milliseconds_and_a_fifth(self) -> None:
        for one, other, wanted in (
            (0.010, 0.020, True), (0.011, 0.020, False), (0.001, 0.0109, False),
            (0.090, 0.100, False), (0.080, 0.100, True), (0.081, 0.100, False),
        ):  # fmt: skip
            self.assertIs(better(one, other), wanted, (one, other))

    def test_three_rounds_in_a_row(self) -> None:
        start, now = {"a": 20, "b": 60}, {"a": 60, "b": 20}
        self.assertEqual(self.chosen(start, now, now), ["a", "b"])
        self.assertEqual(self.chosen(start, now, now, now), ["b", "a"])
        self.assertEqual(self.chosen(start, now, now, start, now, now), ["a", "b"])

    def test_another_challenger_begins_anew(self) -> None:
        start = {"a": 20, "b": 60, "c": 60}
        b, c = {"a": 60, "b": 20, "c": 60}, {"a": 60, "b": 60, "c": 20}
        self.assertEqual(self.chosen(start, b, b, c)[0], "a")
        self.assertEqual(self.chosen(start, b, b, c, c, c)[0], "c")

    def test_what_does_not_answer_is_replaced_at_once(self) -> None:
        start = {"a": 20, "b": 40, "c": 60}
        self.assertEqual(self.chosen(start, {"b": 40, "c": 60}), ["b", "c"])
        self.assertEqual(self.chosen(start, {"c": 60}), ["c"])
        self.assertEqual(self.chosen(start, {"a": 20, "c": 60}), ["a", "c"])

    def test_nothing_answers_and_nothing_changes(self) -> None:
        self.assertEqual(self.chosen({"a": 20, "b": 40}, {}), ["a", "b"])

    def test_the_second_is_kept_while_none_is_clearly_better(self) -> None:
        start = {"a": 20, "b": 40, "c": 41}
        self.assertEqual(self.chosen(start, {"a": 20, "b": 41, "c": 40}), ["a", "b"])
        self.assertEqual(self.chosen(start, {"a": 20, "b": 60, "c": 40}), ["a", "c"])

    def test_what_is_taken_away(self) -> None:
        self.chosen({"a": 20, "b": 40})
        self.choice.keep({"b", "c"})
        self.assertEqual(self.choice.chosen, ["b"])
        self.choice.keep({"c"})
        self.assertEqual(self.choice.chosen, [])
