"""Revoke: from the change to the cut, against the limit of one second.

``python -m bench.revoke [--rounds 20] [--quick]``: a live session goes from `border0 client tcp`
through the tunnel and a connector that follows a control plane, all real processes on loopback. In
each round one thing ends it; the time runs from the API's request, and from its answer, until the
client's own connection has ended. A client obeys by itself when it hears that its device is out;
so those two events are measured again with a client that was killed, at the service: there it is
the connector alone that cuts.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable

from bench.report import Verdicts
from bench.revoke_stage import DEVICE, SERVICE, USER, Stage

LIMIT = 1.0  # seconds
DEAF = ", deaf"
EVENTS = (
    *("policy edit", "user disabled", "session kill", "device locked", "device removed"),
    *(f"device locked{DEAF}", f"device removed{DEAF}"),
)


def measure(stage: Stage, event: str) -> tuple[float, float]:
    """One round: seconds from the request until the answer, and until the cut."""
    ask = stage.api.ask
    session = stage.session()
    person, device = f"/organizations/iam/user/{USER}", f"/device/{DEVICE}"
    name, deaf, _ = event.partition(DEAF)
    id = stage.live(session) if name == "session kill" else ""
    calls: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "policy edit": (lambda: stage.policy(False), lambda: stage.policy(True)),
        "user disabled": (
            lambda: ask("PUT", person, {"disabled": True}),
            lambda: ask("PUT", person, {"disabled": False}),
        ),
        "session kill": (
            lambda: ask("PUT", f"/session/{SERVICE}/{id}", {"killed": True}),
            lambda: None,
        ),
        "device locked": (
            lambda: ask("PUT", device, {"locked": True}),
            lambda: (ask("PUT", device, {"locked": False}), stage.forward()),
        ),
        "device removed": (lambda: ask("DELETE", device), stage.join),
    }
    end, restore = calls[name]
    if deaf:
        stage.deafen()
        session.ended()
    ask("GET", device)  # the API's connection is open
    asked = time.monotonic()
    end()
    answered = time.monotonic()
    over = stage.echo.cut.get(timeout=30)
    if not deaf:
        over = session.ended()
    restore()
    return answered - asked, over - asked


def contest(rounds: int) -> dict[str, list[tuple[float, float]]]:
    """All rounds of all events, taking turns."""
    found: dict[str, list[tuple[float, float]]] = {event: [] for event in EVENTS}
    with contextlib.ExitStack() as stack:
        stage = Stage(stack)
        for number in range(rounds):
            for event in EVENTS:
                found[event].append(measure(stage, event))
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
    return found


def report(found: dict[str, list[tuple[float, float]]], verdicts: Verdicts) -> None:
    """One line for each event, times in ms, and the slowest round's ratio to the limit."""
    heads = ("from the request, ms", "answer", "cut", "p99", "max", "max/limit")
    print("".join(head.ljust(22) if n == 0 else head.rjust(11) for n, head in enumerate(heads)))
    for event, rounds in found.items():
        cuts = sorted(cut for _, cut in rounds)
        answer = statistics.median(answer for answer, _ in rounds)
        p99 = cuts[min(len(cuts) - 1, int(len(cuts) * 0.99))]
        figures = (answer, statistics.median(cuts), p99, cuts[-1])
        cells = "".join(f"{figure * 1000:11.0f}" for figure in figures)
        print(f"{event:22}{cells}{cuts[-1] / LIMIT:11.2f}")
    for event, rounds in found.items():
        slowest = max(cut for _, cut in rounds)
        verdicts.at_most(f"{event}: slowest of {len(rounds)}, s", slowest, LIMIT, 0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="does it run at all")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a floor is missed")
    options = parser.parse_args()
    verdicts = Verdicts()
    report(contest(1 if options.quick else options.rounds), verdicts)
    verdicts.exit(options.strict)


if __name__ == "__main__":
    main()
