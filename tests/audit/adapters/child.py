"""A program that records a statement every millisecond until it is killed.

Usage: child.py STATE_DIR. Prints the session's id, then the number of each statement once written
to the log; a test kills it and compares.
"""

import sys
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.task import LoopingCall

from border0.audit.adapters.store import RecordStore
from border0.audit.events import Actor

reactor: Any = any_reactor


def main() -> None:
    store = RecordStore(sys.argv[1], reactor)
    log = store.open_session(actor=Actor("a", "b", "c"), socket="db", recorded=True)
    log.start()
    print(log.id, flush=True)
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        at = reactor.seconds()
        log.query(
            f'"{count}"',
            "read",
            "[]",
            at=at,
            duration_ms=0,
            rows=0,
            status="ok",
            decision="denied" if count % 50 == 0 else "allowed",
        )
        print(count, at, flush=True)

    LoopingCall(step).start(0.001)
    reactor.run()


if __name__ == "__main__":
    main()
