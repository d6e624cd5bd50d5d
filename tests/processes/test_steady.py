"""A wall clock that is set back stops no timer."""

import time

from twisted.internet.selectreactor import SelectReactor
from twisted.trial.unittest import SynchronousTestCase

from border0.processes.steady import steady


class Steady(SynchronousTestCase):
    def test_timers_do_not_see_the_wall_clock(self):
        reactor = SelectReactor()
        self.addCleanup(reactor.removeAll)
        wall = [time.time()]
        reactor.seconds = lambda: wall[0]
        fired = []
        reactor.callLater(0.0, fired.append, "waited already")
        steady(reactor)
        steady(reactor)
        reactor.callLater(0.0, fired.append, "new")
        wall[0] -= 3600.0
        until = time.monotonic() + 10.0
        while len(fired) < 2 and time.monotonic() < until:
            reactor.iterate(0.01)
        self.assertEqual(["waited already", "new"], sorted(fired, reverse=True))
