"""Lets a reactor count time by the monotonic clock.

Twisted's reactors count by the wall clock: when that is set back by an hour (a wrong clock that is
corrected, a machine that was suspended), no timer fires for an hour. What policies and statements
need of the wall clock they ask for by themselves.

Source: clock_gettime(2), CLOCK_MONOTONIC. Call it before the reactor runs.
"""

import time
from typing import Any


def steady(reactor: Any) -> None:
    """Count by `time.monotonic` from now on; calls that wait already keep their delays."""
    if reactor.seconds is time.monotonic:
        return
    shift = time.monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        call.time += shift
        call.seconds = time.monotonic
    reactor.seconds = time.monotonic
