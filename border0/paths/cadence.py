"""How often a way is asked: by how much the peer is used and what the way is for.

Source: RFC 4787 §4.3 and Linux nf_conntrack for how long a mapping lives.
Does not: send or keep state.
"""

from border0.paths.limits import (
    ACTIVE_FOR,
    COLD_AFTER,
    FOLLOW_UP,
    PROBE_ACTIVE,
    PROBE_IDLE,
    PROBE_IDLE_SPREAD,
    PROBE_IDLE_STANDBY,
    PROBE_SPARSE,
    PROBE_STANDBY,
    PROBE_TRIAL,
    PROBE_WATCH,
)
from border0.paths.path import DEAD, NEVER, Path

ACTIVE, IDLE, COLD = 2, 1, 0
LEAST_GAP = 0.05


def mode(quiet: float, hold: bool) -> int:
    """Return how much a peer is used; `quiet`: seconds since the last data."""
    if quiet < ACTIVE_FOR:
        return ACTIVE
    return IDLE if hold or quiet < COLD_AFTER else COLD


def ping_at(path: Path, used: int, challenges: bool, lost: bool, now: float) -> float:
    """Return when a path that answers, or did, is asked next.

    `challenges`: it may soon carry the data; `lost`: no path of the peer answers.
    """
    if used == COLD:
        return NEVER
    if path.hurried:
        return path.last_ping + LEAST_GAP
    return path.last_ping + _interval(path, used, challenges, lost, now)


def _interval(path: Path, used: int, challenges: bool, lost: bool, now: float) -> float:
    if path.state is DEAD:
        if lost and used == ACTIVE:
            return PROBE_ACTIVE
        return path.retry_after() if used == ACTIVE or lost else PROBE_IDLE_STANDBY
    if path.misses:
        return FOLLOW_UP
    if challenges:
        return PROBE_TRIAL if path.blemished else PROBE_WATCH
    if not path.in_use:
        return (PROBE_STANDBY if used == ACTIVE else PROBE_IDLE_STANDBY) * path.jitter
    if used == IDLE:
        return PROBE_IDLE + PROBE_IDLE_SPREAD * 5 * (path.jitter - 0.9)
    if path.suspicious(now):
        return PROBE_WATCH * path.jitter
    return (PROBE_SPARSE if path.data.sparse else PROBE_ACTIVE) * path.jitter
