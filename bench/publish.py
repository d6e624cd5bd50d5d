"""Publish: how long a large organisation takes to be signed, loaded, and changed.

``python -m bench.publish [--devices 10000] [--sockets 1000] [--connectors 200] [--rounds 10]
[--quick]``: a store on SQLite and a publisher in this process. Each figure stands beside a limit
that nobody beats: the first start beside Ed25519 signatures of all statements alone, a restart
without changes beside reading the same rows, one policy edit (from its commit until the hub is
told) beside one empty commit.
"""

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import json
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, select
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from bench.report import Rounds
from border0.control.publish.publisher import Publisher
from border0.control.store import (
    attachments,
    connectors,
    devices,
    groups,
    organisations,
    policies,
    schema,
    sockets,
    statements,
    users,
)
from border0.control.store.store import Store
from border0.control.store.transaction import Tx
from border0.statements.envelope import message

GROUPS, BATCH = 40, 500
FIRST, RESTART, EDIT = "first start, s", "restart without changes, s", "a policy edit, ms"


def key_of(name: str) -> str:
    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


def document(group: str, number: int = 0) -> str:
    who = {"who": {"group": [group], "email": [f"round-{number}@example.org"]}}
    return json.dumps({"permissions": {"tls": {}}, "condition": who})


def id_of(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


class Filling:
    """Makes the organisation, one object by one, as the API does."""

    def __init__(self, store: Store, org: str) -> None:
        self.store, self.org = store, org

    async def many(self, count: int, make: Callable[[Tx, int], object]) -> None:
        """`make(tx, number)` for each number, some hundred in one change."""
        for begin in range(0, count, BATCH):
            numbers = range(begin, min(begin + BATCH, count))
            await self.store.change(
                lambda tx, numbers=numbers: [make(tx, n) for n in numbers] and None,
                org=self.org,
                actor="bench",
            )

    async def everything(self, device_count: int, socket_count: int, hosts: int) -> None:
        prefixes = {"services_v4": "100.126.0.0/16", "devices_v4": "100.64.0.0/12"}
        await self.store.change(
            lambda tx: organisations.create(tx, name="bench", **prefixes),
            org=self.org,
            actor="bench",
        )
        await self.many(GROUPS, self.group)
        await self.many(hosts, self.connector)
        await self.many(device_count, self.device)
        await self.many(socket_count, lambda tx, n: self.socket(tx, n, hosts))

    @staticmethod
    def group(tx: Tx, number: int) -> None:
        groups.create(tx, name=f"g{number}", id=id_of(f"g{number}"))
        text = document(f"g{number}")
        policies.create(tx, name=f"p{number}", text=text, id=id_of(f"p{number}"))

    @staticmethod
    def connector(tx: Tx, number: int) -> None:
        name = f"c{number}"
        key, id = key_of(name), id_of(name)
        connectors.create(tx, name=name, id=id, wireguard_key=key, machine_key=key)

    @staticmethod
    def device(tx: Tx, number: int) -> None:
        name, user = f"d{number}", id_of(f"u{number}")
        email = f"u{number}@example.org"
        users.create(tx, issuer="local", subject=user, id=user, email=email, name="", role="member")
        groups.add(tx, id_of(f"g{number % GROUPS}"), user)
        key = key_of(name)
        devices.create(
            tx, name=name, id=id_of(name), user_id=user, approved=True,
            wireguard_key=key, machine_key=key,
        )  # fmt: skip

    @staticmethod
    def socket(tx: Tx, number: int, hosts: int) -> None:
        id = id_of(f"s{number}")
        service = {"hostname": "192.0.2.5", "port": 443}
        upstream = {"tls_service_type": "standard", "standard_tls_service_configuration": service}
        configuration = {"service_type": "tls", "tls_service_configuration": upstream}
        sockets.create(
            tx, name=f"s{number}", id=id, socket_type="tls", port=443,
            upstream_configuration=configuration,
        )  # fmt: skip
        sockets.set_connectors(tx, id, None, [id_of(f"c{number % hosts}")])
        attachments.attach(tx, id, id_of(f"p{number % GROUPS}"))


class Measure:
    """One store, started again and again."""

    def __init__(self, reactor: Any, store: Store, org: str) -> None:
        self.reactor, self.store, self.org = reactor, store, org
        self.key, self.count = Ed25519PrivateKey.generate(), 0
        self.told: Deferred[float] = Deferred()

    async def start(self) -> tuple[Publisher, float]:
        """A publisher that has started, and the seconds that it took."""
        gc.collect()
        publisher = Publisher(self.store, self.org, self.key, self.reactor, time.time, self._told)
        begun = time.perf_counter()
        await publisher.start()
        return publisher, time.perf_counter() - begun

    def _told(self, changes: object) -> None:
        told, self.told = self.told, Deferred()
        told.callback(time.perf_counter())

    async def edit(self, publisher: Publisher, number: int) -> float:
        """Milliseconds from the commit of a new version until the hub is told."""
        text = document(f"g{number % GROUPS}", number + 1)
        policy, told = id_of(f"p{number % GROUPS}"), self.told
        unsubscribe = self.store.subscribe(
            lambda org, revision, entries: publisher.changed(entries)
        )
        await self.store.change(
            lambda tx: policies.edit(tx, policy, None, text), org=self.org, actor="bench"
        )
        begun = time.perf_counter()
        ended = await told
        unsubscribe()
        await publisher.settled()
        return (ended - begun) * 1000

    async def signing(self) -> float:
        """Seconds for as many signatures over the same bytes."""
        found = await self.store.read(lambda c: statements.live(c, self.org))
        self.count = len(found)
        covered = [message(one.type, one.payload) for one in found]
        begun = time.perf_counter()
        for each in covered:
            self.key.sign(each)
        return time.perf_counter() - begun

    async def reading(self) -> float:
        """Seconds to read every row that a start looks at, table by table."""
        tables = (
            *(schema.users, schema.memberships, schema.groups, schema.devices, schema.connectors),
            *(schema.sockets, schema.socket_connectors, schema.attachments, schema.policies),
            *(schema.policy_versions, schema.statements),
        )

        def read(connection: Connection) -> int:
            return sum(len(connection.execute(select(table)).all()) for table in tables)

        begun = time.perf_counter()
        await self.store.read(read)
        return time.perf_counter() - begun

    async def committing(self) -> float:
        """Milliseconds of a change that only raises the revision."""
        begun = time.perf_counter()
        await self.store.change(lambda tx: tx.revision, org=self.org, actor="bench")
        return (time.perf_counter() - begun) * 1000


def memory() -> float:
    """Megabytes that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


async def contest(reactor: Any, options: argparse.Namespace) -> Rounds:
    figures = Rounds()
    with tempfile.TemporaryDirectory() as folder:
        store = await Store.open(f"sqlite:///{folder}/control.db", reactor=reactor)
        org = str(uuid.uuid4())
        begun = time.perf_counter()
        await Filling(store, org).everything(options.devices, options.sockets, options.connectors)
        print(f"filled in {time.perf_counter() - begun:.0f} s", file=sys.stderr)
        measure = Measure(reactor, store, org)
        publisher, seconds = await measure.start()
        figures.add(FIRST, "border0", seconds)
        figures.add(FIRST, "limit", await measure.signing())
        print(f"{measure.count} statements, {memory():.0f} MB", file=sys.stderr)
        publisher.stop()
        for _ in range(options.restarts):
            del publisher
            publisher, seconds = await measure.start()
            figures.add(RESTART, "border0", seconds)
            figures.add(RESTART, "limit", await measure.reading())
            if _ < options.restarts - 1:
                publisher.stop()
        for number in range(options.rounds):
            figures.add(EDIT, "border0", await measure.edit(publisher, number))
            figures.add(EDIT, "limit", await measure.committing())
        publisher.stop()
        await store.close()
        print(f"{memory():.0f} MB at the end", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--sockets", type=int, default=1000)
    parser.add_argument("--connectors", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="does it run at all")
    options = parser.parse_args()
    if options.quick:
        options.devices, options.sockets, options.connectors = 200, 40, 10
        options.rounds, options.restarts = 2, 1

    def run(reactor: Any) -> Deferred[None]:
        async def work() -> None:
            found = await contest(reactor, options)
            print(found.table(("border0", "limit"), "border0", ["limit"]))

        return Deferred.fromCoroutine(work())

    react(run)


if __name__ == "__main__":
    main()
