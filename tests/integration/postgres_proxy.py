"""The PostgreSQL proxy alone, as a process of its own on loopback.

`python -m tests.integration.postgres_proxy JSON` prints its port and serves until SIGTERM: real
policy, real records, kernel sockets on both sides. `ProxyProcess` starts and reads it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

READ = {
    "permissions": {
        "database": {"allowed_databases": [{"database": "*", "allowed_query_types": ["ReadOnly"]}]}
    }
}
WRITE = {
    "permissions": {
        "database": {"allowed_databases": [{"database": "*", "allowed_query_types": ["ReadWrite"]}]}
    }
}
EVERYTHING = {"permissions": {"database": {}}}


def serve(settings: dict[str, Any]) -> None:
    from twisted.internet import reactor

    from border0.audit.adapters.store import RecordStore
    from border0.audit.events import Actor
    from border0.policy.model import Subject
    from border0.policy.parse import parse_policy
    from border0.policy.sql.adapter import ParserProcess
    from border0.policy.sql.gate import StatementCache, StatementGate
    from border0.proxies.adapters import writethrough
    from border0.proxies.admission import Admission, Refusal
    from border0.proxies.postgres.adapter import PostgresFactory, PostgresUpstream
    from border0.proxies.postgres.cancel import CancelRegistry
    from border0.secrets import Secret

    loop: Any = reactor
    upstream = dict(settings["upstream"])
    for name in ("password", "key"):
        if upstream.get(name):
            upstream[name] = Secret(upstream[name])
    policies = [parse_policy(name, data) for name, data in settings["policies"].items()]
    store = RecordStore(settings["state"], loop)
    cache, parser = StatementCache(), ParserProcess(loop)
    logs: list[Any] = []

    def recorder_fails() -> None:
        for log in logs:
            if log.on_failure:
                log.on_failure("the disk is full")

    signal.signal(signal.SIGUSR1, lambda *_: loop.callFromThread(recorder_fails))

    def admit(remote: tuple[str, int], protocol: str) -> Admission | Refusal:
        if settings.get("refuse"):
            return Refusal("office", "condition.where", "only from the office")
        actor = Actor("alice@example.org", "laptop", remote[0])
        log = store.open_session(
            actor=actor, socket="shop-db", recorded=settings.get("recorded", True)
        )
        log.start(protocol=protocol)
        logs.append(log)
        subject = Subject("alice@example.org", device="laptop")
        return Admission(subject, "laptop", policies, log, "shop-db", settings.get("seconds"))

    factory = PostgresFactory(
        PostgresUpstream(**upstream),
        admit,
        lambda grant: StatementGate(grant, cache, parser.submit),
        loop,
        CancelRegistry(os.urandom),
        identify=lambda remote: "anybody" if settings.get("one_identity") else remote[0],
    )
    port = writethrough.listen(loop, 0, factory, interface=settings.get("interface", "127.0.0.1"))
    loop.addSystemEventTrigger("before", "shutdown", factory.stop)
    loop.addSystemEventTrigger("before", "shutdown", parser.stop)
    loop.addSystemEventTrigger("before", "shutdown", store.close)
    address: Any = port.getHost()
    print(address.port, flush=True)
    loop.run()


class ProxyProcess:
    """A running proxy; `policies` maps a name to policy data."""

    def __init__(self, upstream: dict[str, Any], policies: dict[str, Any], **more: Any) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="border0-pg-proxy-"))
        settings = {"upstream": upstream, "policies": policies, "state": str(self.state), **more}
        self.errors = (self.state / "errors").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.postgres_proxy", json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError((self.state / "errors").read_text())
        self.port = int(line)

    def recorder_fails(self) -> None:
        """Let the recorder of every session fail now."""
        self.process.send_signal(signal.SIGUSR1)

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        """The recorded lines, sessions in the order of their start."""
        found = []
        for path in sorted(self.state.glob("recordings/*/*/*/*.jsonl")):
            text = path.read_text()
            found += [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [record for record in found if not kind or record["type"] == kind]

    def everything(self) -> str:
        """All that the proxy has written to disk or its standard error."""
        paths = [path for path in self.state.rglob("*") if path.is_file()]
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def stop(self, keep: bool = False) -> None:
        """Stop it and wait until its records are written."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
        if not keep:
            if self.process.stdout is not None:
                self.process.stdout.close()
            self.errors.close()
            shutil.rmtree(self.state, ignore_errors=True)


if __name__ == "__main__":
    from twisted.logger import globalLogBeginner, textFileLogObserver

    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
    serve(json.loads(sys.argv[1]))
