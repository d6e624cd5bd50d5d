import itertools

from twisted.trial.unittest import SynchronousTestCase

from border0.paths.punch import NOTHING, OPENER, PROBE, Punch


def schedule(punch: Punch, until: float) -> list[tuple[float, int]]:
    out = []
    while (at := punch.next_deadline()) <= until:
        out.append((round(at, 3), punch.take(at)))
    return out


class PunchTests(SynchronousTestCase):
    def test_opener_wait_burst(self) -> None:
        punch = Punch(True, 0.0, 0.25)
        self.assertTrue(punch.fresh)
        self.assertEqual(
            schedule(punch, 2.0),
            [
                (0.0, OPENER),
                (0.25, PROBE),
                (0.3, PROBE),
                (0.35, PROBE),
                (0.45, PROBE),
                (0.65, PROBE),
                (1.05, PROBE),
            ],
        )
        self.assertEqual(punch.take(2.0), NOTHING)
        self.assertFalse(punch.fresh)

    def test_rests_grow_to_a_minute(self) -> None:
        punch = Punch(False, 0.0)
        found = schedule(punch, 400.0)
        times = [at for at, _ in found][6:]
        gaps = [round(b - a) for a, b in itertools.pairwise(times)]
        self.assertEqual(times[0], 2.8)
        self.assertEqual(gaps[:5], [4, 8, 16, 35, 60])
        self.assertEqual(set(gaps[5:]), {60})
        self.assertEqual({what for _, what in found}, {PROBE})

    def test_each_later_try_has_its_opener(self) -> None:
        found = schedule(Punch(True, 0.0), 60.0)[7:]
        self.assertEqual([what for _, what in found], [OPENER, PROBE] * (len(found) // 2))

    def test_the_peer_came_through(self) -> None:
        punch = Punch(True, 0.0)
        schedule(punch, 50.0)
        punch.heard(50.0)
        self.assertEqual(schedule(punch, 50.06), [(50.0, PROBE), (50.05, PROBE)])

    def test_postponed(self) -> None:
        punch = Punch(False, 0.0)
        punch.postpone(3.0)
        self.assertEqual((punch.take(2.9), punch.take(3.0)), (NOTHING, PROBE))
