"""A program that commits until it is killed, and prints what was acknowledged.

Usage: child.py URL ORGANISATION. Prints the name of each group once its change was answered.
"""

import itertools
import sys

from twisted.internet import reactor

from border0.control.store import Store, groups, organisations

WIDTH = 16


def begin(store):
    org = sys.argv[2]
    numbers = itertools.count()

    def again(_=None):
        name = f"g{next(numbers):06}"
        # Each waits for its own answer; several are under way, so that groups have many members.
        done = store.change(lambda tx: groups.create(tx, name=name).name, org=org, actor="child")
        done.addCallback(lambda written: print(written, flush=True))
        done.addCallback(again)

    made = store.change(lambda tx: organisations.create(tx, name="acme"), org=org, actor="child")
    made.addCallback(lambda _: [again() for _ in range(WIDTH)])


Store.open(sys.argv[1]).addCallback(begin)
reactor.run()
