"""Which connector a service is at, with a given clock."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.node.choice import ASK_AGAIN, DEAD, FRESH, NEVER, PATIENCE, QUIET, Choice

NOW = 1000.0


class Deciding(SynchronousTestCase):
    def setUp(self) -> None:
        self.choice = Choice()
        self.choice.follow({"db": ["a", "b"], "one": ["a"]}, NOW)

    def answered(self, name: str, now: float, round_trip: float) -> None:
        self.choice.observe(name, now, NEVER, round_trip)

    def both(self, now: float = NOW) -> None:
        self.answered("a", now, 0.020)
        self.answered("b", now, 0.100)

    def test_the_first_connection_asks_everybody_and_takes_who_answers(self) -> None:
        self.assertEqual(self.choice.prepare("db", False, NOW).ask, {"a", "b"})
        self.assertFalse(self.choice.ready("db", NOW))
        self.answered("b", NOW + 0.1, 0.1)
        self.assertTrue(self.choice.settle("db", NOW + 0.1))
        self.assertEqual(self.choice.at("db"), "b")
        self.assertTrue(self.choice.ready("db", NOW + 0.1))

    def test_a_single_connector_is_never_a_question(self) -> None:
        self.assertEqual(self.choice.prepare("one", False, NOW), (set(), []))
        self.assertTrue(self.choice.ready("one", NOW))
        self.choice.gave_up("a")
        self.assertEqual(self.choice.review(["one"], {"one": NOW}, NOW + 100), (set(), []))
        self.assertEqual(self.choice.at("nothing"), "")

    def test_an_unused_service_goes_to_the_faster_one(self) -> None:
        self.answered("b", NOW, 0.100)
        self.choice.settle("db", NOW)
        self.answered("a", NOW + 1, 0.020)
        self.assertEqual(self.choice.prepare("db", True, NOW + 2).moved, [])
        self.assertEqual(self.choice.prepare("db", False, NOW + 2).moved, ["db"])
        self.assertEqual(self.choice.at("db"), "a")

    def test_a_little_faster_is_no_reason(self) -> None:
        self.both()
        self.assertEqual(self.choice.at("db"), "a")
        self.choice.observe("b", NOW, NEVER, 0.018)
        self.assertEqual(self.choice.prepare("db", False, NOW), (set(), []))

    def test_in_use_it_moves_when_the_connector_is_dead_and_another_answered_since(self) -> None:
        self.both()
        self.choice.observe("a", NOW, NOW + 1, 0.020)
        for now in (NOW + 2, NOW + 1 + QUIET - 0.1):
            self.assertEqual(self.choice.review(["db"], {}, now), (set(), []))
        self.assertEqual(self.choice.review(["db"], {}, NOW + 1 + QUIET), ({"b"}, []))
        # b says nothing either: it may be our own way out
        self.assertEqual(self.choice.review(["db"], {}, NOW + 1 + DEAD).moved, [])
        self.answered("b", NOW + 2 + DEAD, 0.1)
        self.assertEqual(self.choice.review(["db"], {}, NOW + 2 + DEAD).moved, ["db"])
        self.assertEqual(self.choice.at("db"), "b")
        # it does not go back while b lives
        self.answered("a", NOW + 30, 0.02)
        self.assertEqual(self.choice.review(["db"], {}, NOW + 30).moved, [])

    def test_an_answer_in_time_ends_the_doubt(self) -> None:
        self.both()
        self.choice.observe("a", NOW, NOW + 1, 0.020)
        self.choice.review(["db"], {}, NOW + 1 + QUIET)
        self.answered("b", NOW + 13, 0.1)
        self.choice.observe("a", NOW + 14, NEVER, 0.020)
        self.assertEqual(self.choice.review(["db"], {}, NOW + 1 + DEAD).moved, [])

    def test_a_connection_that_waits_moves_sooner(self) -> None:
        self.both()
        # owed from before: only what the new connection waited counts
        self.choice.observe("a", NOW, NOW + 1, 0.020)
        began = NOW + 6
        self.assertEqual(self.choice.review([], {"db": began}, began + 1), (set(), []))
        self.assertEqual(self.choice.review([], {"db": began}, began + PATIENCE).ask, {"b"})
        self.answered("b", began + PATIENCE + 0.1, 0.1)
        self.assertEqual(self.choice.review([], {"db": began}, began + 2.2).moved, ["db"])

    def test_in_use_a_connection_that_waits_only_asks_sooner(self) -> None:
        self.both()
        self.choice.observe("a", NOW, NOW + 1, 0.020)
        waiting = {"db": NOW + 1}
        self.assertEqual(self.choice.review(["db"], waiting, NOW + 1 + PATIENCE).ask, {"b"})
        self.answered("b", NOW + 4, 0.1)
        self.assertEqual(self.choice.review(["db"], waiting, NOW + DEAD).moved, [])
        self.assertEqual(self.choice.review(["db"], waiting, NOW + 1 + DEAD).moved, ["db"])

    def test_who_was_just_asked_is_not_asked_again(self) -> None:
        self.both()
        self.choice.observe("a", NOW, NOW + 1, 0.020)
        ask = [self.choice.review(["db"], {}, NOW + at).ask for at in (20, 21, 20 + ASK_AGAIN)]
        self.assertEqual(ask, [{"b"}, set(), {"b"}])

    def test_a_handshake_that_gave_up(self) -> None:
        self.both()
        self.choice.gave_up("a")
        self.assertFalse(self.choice.ready("db", NOW))
        self.assertEqual(self.choice.review(["db"], {}, NOW + 1).moved, ["db"])
        self.answered("a", NOW + 2, 0.01)
        self.assertTrue(self.choice.heard_since("a", NOW + 2))

    def test_what_was_heard_long_ago_is_asked_anew(self) -> None:
        self.both()
        later = NOW + FRESH + 1
        self.assertEqual(self.choice.prepare("db", False, later).ask, {"a", "b"})
        self.assertFalse(self.choice.ready("db", later))

    def test_a_connector_that_is_taken_away(self) -> None:
        self.both()
        self.assertEqual(self.choice.follow({"db": ["b"], "one": ["c"]}, NOW), ["db", "one"])
        self.assertEqual((self.choice.at("db"), self.choice.at("one")), ("b", "c"))
        self.assertEqual(self.choice.follow({"db": ["b", "d"], "one": []}, NOW), [])
        self.assertEqual((self.choice.at("db"), self.choice.at("one")), ("b", ""))
        self.choice.observe("a", NOW, NEVER, 0.1)
        self.choice.gave_up("a")  # nobody's any more: nothing happens


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["hear", "owe", "gave_up", "review", "prepare"]),
        st.sampled_from(["a", "b", "c"]),
        st.floats(0.1, 30),
    ),
    max_size=60,
)


class Histories(SynchronousTestCase):
    @settings(derandomize=True, database=None, deadline=None, max_examples=200)
    @given(EVENTS)
    def test_a_service_in_use_leaves_only_the_dead_for_the_living(self, events: object) -> None:
        choice = Choice()
        choice.follow({"db": ["a", "b", "c"]}, NOW)
        heard = dict.fromkeys("abc", -NEVER)
        owes = dict.fromkeys("abc", NEVER)
        gave_up: set[str] = set()
        now = NOW
        for what, name, after in events:  # type: ignore[attr-defined]
            now += after
            before = choice.at("db")
            if what == "hear":
                heard[name], owes[name] = now, NEVER
                gave_up.discard(name)
                choice.observe(name, now, NEVER, after / 100)
            elif what == "owe":
                owes[name] = min(owes[name], now)
                choice.observe(name, heard[name], owes[name], None)
            elif what == "gave_up":
                gave_up.add(name)
                choice.gave_up(name)
            elif what == "review":
                choice.review(["db"], {}, now)
                if (after := choice.at("db")) != before:
                    self.assertTrue(before in gave_up or now - owes[before] >= DEAD)
                    self.assertTrue(before in gave_up or heard[after] >= owes[before])
                    self.assertLess(now - heard[after], FRESH + 1)
            else:
                choice.prepare("db", True, now)
                if (after := choice.at("db")) != before:
                    self.assertLess(now - heard[after], FRESH + 1)
            self.assertIn(choice.at("db"), "abc")
