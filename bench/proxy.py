"""The PostgreSQL proxy without tunnel and stack: kernel sockets, real policy, real records.

``python -m bench.proxy PORT WRITE_PORT UPSTREAM_PORT STATE_DIR [lean]``: PORT grants ReadOnly,
WRITE_PORT ReadWrite; both classify and record every statement. ``lean`` chooses the lean reactor.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from border0.audit.adapters.store import RecordStore
from border0.connector.admission import Doorkeeper, Sessions
from border0.connector.config import DeviceEntry, SocketEntry
from border0.connector.directory import Directory
from border0.policy.parse import parse_policy
from border0.policy.sql.adapter import ParserProcess
from border0.policy.sql.cache import StatementCache
from border0.policy.sql.gate import StatementGate
from border0.processes.memory import settle
from border0.proxies.adapters import writethrough
from border0.proxies.postgres.adapters.factory import PostgresFactory
from border0.proxies.postgres.cancel import CancelRegistry
from border0.proxies.postgres.upstream import PostgresUpstream

EVERYBODY = DeviceEntry("bench", bytes(32), None, ["127.0.0.1/32"], "bench", frozenset())


def main() -> None:
    """Listen on both ports until killed."""
    if sys.argv[5:] == ["lean"]:
        from border0.processes import lean

        lean.install()
    from twisted.internet import reactor

    ports, upstream_port, state = sys.argv[1:3], int(sys.argv[3]), Path(sys.argv[4])
    upstream = PostgresUpstream("127.0.0.1", upstream_port, "postgres", tls_mode="disable")
    store = RecordStore(state, reactor)  # type: ignore[arg-type]
    cache, parser = StatementCache(), ParserProcess(reactor)
    for port, kind in zip(ports, ("ReadOnly", "ReadWrite"), strict=True):
        rule = {"database": "*", "allowed_query_types": [kind]}
        policy = parse_policy(
            f"bench-{kind.lower()}", {"permissions": {"database": {"allowed_databases": [rule]}}}
        )
        entry = SocketEntry(kind.lower(), "database", [], int(port), True, [policy.name], upstream)
        admit = Doorkeeper(
            entry,
            [policy],
            Directory([EVERYBODY]),
            store,
            lambda key: ("127.0.0.1", 0.0),
            time.time,
            Sessions(),
        )
        factory = PostgresFactory(
            upstream,
            admit,
            lambda grant: StatementGate(grant, cache, parser.submit),
            reactor,
            CancelRegistry(os.urandom),
        )
        writethrough.listen(reactor, int(port), factory, interface="127.0.0.1")
    settle()
    reactor.run()


if __name__ == "__main__":
    main()
