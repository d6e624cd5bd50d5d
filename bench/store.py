"""Commits and reads per second of the control plane's store, through its Twisted face.

Usage: python -m bench.store sqlite|postgresql [--folder DIR] [--seconds N]. Each change makes one
row, raises the organisation's revision and writes one row of the change table. PostgreSQL is a
temporary server on this machine that syncs every commit (fsync and synchronous_commit on).
"""

import argparse
import itertools
import tempfile
import time
import uuid
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import react

from border0.control.store import Store, groups, organisations

WIDTHS = (1, 16, 256)


async def rate(seconds, width, step):
    """How often `step(number)` is answered in a second, with `width` of them under way."""
    numbers = itertools.count()
    end = time.monotonic() + seconds

    async def one():
        while time.monotonic() < end:
            await step(next(numbers))

    started = time.monotonic()
    await gatherResults([Deferred.fromCoroutine(one()) for _ in range(width)])
    return next(numbers) / (time.monotonic() - started)


async def measure(url, seconds):
    """Print one line for each width."""
    store = await Store.open(url)
    org = str(uuid.uuid4())
    await store.change(lambda tx: organisations.create(tx, name="bench"), org=org, actor="bench")
    for width in WIDTHS:

        def change(number, width=width):
            name = f"{width}-{number}"
            return store.change(lambda tx: groups.create(tx, name=name).id, org=org, actor="bench")

        print(
            f"{width:4} under way: {await rate(seconds, width, change):8.0f} changes/s", flush=True
        )
    some = await store.read(lambda c: groups.page(c, org, limit=1).items[0].id)
    for width in (1, 16):
        reads = await rate(seconds, width, lambda _: store.read(lambda c: groups.get(c, org, some)))
        print(f"{width:4} under way: {reads:8.0f} reads/s", flush=True)
    await store.close()


def main(reactor, kind, folder, seconds):
    """Run on one kind of database."""
    if kind == "sqlite":
        place = Path(tempfile.mkdtemp(prefix="border0-bench-", dir=folder))
        return Deferred.fromCoroutine(measure(f"sqlite:///{place}/control.db", seconds))
    from tests.support.postgres import PostgresServer

    durable = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
    server = PostgresServer(auth="trust", settings=durable).start()
    url = f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    done = Deferred.fromCoroutine(measure(url, seconds))

    def stop(value):
        server.stop()
        return value

    return done.addBoth(stop)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=("sqlite", "postgresql"))
    parser.add_argument("--folder", help="where the SQLite file is made")
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    react(main, (given.kind, given.folder, given.seconds))
