"""The SSH proxy alone, as a process of its own on loopback.

`python -m tests.integration.ssh_proxy JSON` prints its port and serves until SIGTERM: real policy,
real records, kernel sockets on both sides. `ProxyProcess` starts and reads it.
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

EVERYTHING = {"permissions": {"ssh": {}}}


def serve(settings: dict[str, Any]) -> None:
    from twisted.internet import reactor

    from border0.audit.adapters.store import RecordStore
    from border0.audit.events import Actor
    from border0.policy.model import Subject
    from border0.policy.parse import parse_policy
    from border0.proxies.adapters import writethrough
    from border0.proxies.admission import Admission, Refusal
    from border0.proxies.ssh.adapters.factory import SshFactory
    from border0.proxies.ssh.adapters.hostkeys import HostKeys, KnownHosts
    from border0.proxies.ssh.upstream import BuiltinSSH, SSHUpstream, read_host_key
    from border0.secrets import Secret

    loop: Any = reactor
    if "rekey_bytes" in settings:
        from border0.proxies.ssh.adapters import transport

        transport.REKEY_BYTES = settings["rekey_bytes"]
    upstream: Any = BuiltinSSH()
    if settings["upstream"] is not None:
        fields = dict(settings["upstream"])
        for name in ("password", "private_key"):
            if fields.get(name):
                fields[name] = Secret(fields[name])
        fields["host_keys"] = tuple(map(read_host_key, fields.get("host_keys", ())))
        upstream = SSHUpstream(**fields)
    policies = [parse_policy(name, data) for name, data in settings["policies"].items()]
    state = Path(settings["state"])
    store = RecordStore(state, loop)

    def admit(remote: tuple[str, int], protocol: str) -> Admission | Refusal:
        if settings.get("refuse"):
            return Refusal("office", "condition.where", "only from the office")
        actor = Actor("alice@example.org", "laptop", remote[0])
        log = store.open_session(
            actor=actor, socket="shop-ssh", recorded=settings.get("recorded", True)
        )
        log.start(protocol=protocol)
        if settings.get("recorder_fails"):
            loop.callLater(1, lambda: log.on_failure and log.on_failure("the disk is full"))
        subject = Subject("alice@example.org", device="laptop")
        return Admission(subject, "laptop", policies, log, "shop-ssh", settings.get("seconds"))

    factory = SshFactory(
        upstream,
        admit,
        loop,
        HostKeys(state / "ssh"),
        KnownHosts(state / "ssh" / "known_hosts.json"),
        login_seconds=settings.get("login_seconds", 30.0),
    )
    port = writethrough.listen(loop, 0, factory, interface="127.0.0.1")
    loop.addSystemEventTrigger("before", "shutdown", factory.stop)
    loop.addSystemEventTrigger("before", "shutdown", store.close)
    address: Any = port.getHost()
    print(address.port, flush=True)
    loop.run()


class ProxyProcess:
    """A running proxy; `policies` maps a name to policy data; no upstream means the built-in."""

    def __init__(
        self, upstream: dict[str, Any] | None, policies: dict[str, Any], **more: Any
    ) -> None:
        self.state = Path(more.pop("state", None) or tempfile.mkdtemp(prefix="border0-ssh-proxy-"))
        environment = {**os.environ, **more.pop("environment", {})}
        settings = {"upstream": upstream, "policies": policies, "state": str(self.state), **more}
        self.errors = (self.state / "errors").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.ssh_proxy", json.dumps(settings)],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError((self.state / "errors").read_text())
        self.port = int(line)

    def records(self, kind: str = "") -> list[dict[str, Any]]:
        """The recorded lines, sessions in the order of their start."""
        found = []
        for path in sorted(self.state.glob("recordings/*/*/*/*.jsonl")):
            text = path.read_text()
            found += [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
        return [record for record in found if not kind or record["type"] == kind]

    def casts(self) -> list[Path]:
        """The terminal recordings, oldest first."""
        return sorted(self.state.glob("recordings/*/*/*/*.cast"))

    def audit(self) -> list[dict[str, Any]]:
        """The audit stream."""
        found = []
        for path in sorted(self.state.glob("audit/*.jsonl")):
            found += [json.loads(line) for line in path.read_text().splitlines()]
        return found

    def everything(self) -> str:
        """All that the proxy has written to disk or its standard error, host keys left out."""
        paths = [p for p in self.state.rglob("*") if p.is_file() and p.parent.name != "ssh"]
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def rss(self) -> int:
        """Resident memory in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the process is gone")

    def stop(self, *, keep: bool = False) -> None:
        """End it; its state goes too unless it is kept."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.errors.close()
        if not keep:
            shutil.rmtree(self.state, ignore_errors=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
