"""A stock WireGuard client for tests: Debian's wireguard-go and wg in a network namespace.

The namespace's kernel gives TCP, ping and psql; the connector under test is the other end. The
control sockets of wireguard-go live in one folder for all namespaces, so interface names are
unique. An initiator repeats a lost first message only after 5 s: let the server be bound first.
"""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from tests.support import children
from tests.support.namespaces import Namespace, unique

SERVICES = ("100.126.0.0/24", "fd62:6f72:6465:7231::/64")
CONTROL_SOCKETS = "/var/run/wireguard"


def new_key() -> tuple[str, str]:
    """Return a private and its public key in base64."""
    key = X25519PrivateKey.generate()
    private = key.private_bytes_raw()
    return base64.b64encode(private).decode(), base64.b64encode(
        key.public_key().public_bytes_raw()
    ).decode()


class WireGuardClient:
    """One device: its keys, its inner addresses and the running interface."""

    def __init__(
        self,
        namespace: Namespace,
        *,
        number: int = 2,
        preshared_key: str = "",
        mtu: int = 1380,
        keepalive: int = 0,
        listen_port: int = 0,
    ) -> None:
        self.namespace = namespace
        self.private_key, self.public_key = new_key()
        self.preshared_key, self.mtu, self.keepalive = preshared_key, mtu, keepalive
        self.listen_port = listen_port
        self.addresses = [f"100.64.0.{number}/32", f"fd62:6f72:6465:7230::{number:x}/128"]
        self.routes: Sequence[str] = SERVICES
        self.interface = unique("b0w")
        self.process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.mkstemp(prefix="border0-wg-")[1])
        self._server = ("", "")

    def start(self, server_key: str, endpoint: str) -> WireGuardClient:
        """Bring the interface up; ``endpoint`` is host:port, or "" to wait for the other side."""
        self._server = (server_key, endpoint)
        environment = {**os.environ, "LOG_LEVEL": os.environ.get("BORDER0_TEST_WG_LOG", "error")}
        self.process = self.namespace.spawn(
            ["wireguard-go", "-f", self.interface], output=self._log, environment=environment
        )
        control = Path(CONTROL_SOCKETS, self.interface + ".sock")
        children.wait_until(control.exists, 30, "wireguard-go is up: " + self._log.read_text())
        self.configure()
        for address in self.addresses:
            words = ["addr", "add", address, "dev", self.interface]
            self.namespace.ip(*words, *(["nodad"] if ":" in address else []))
        self.namespace.ip("link", "set", self.interface, "mtu", str(self.mtu), "up")
        for route in self.routes:
            family = ["-6"] if ":" in route else []
            self.namespace.ip(*family, "route", "add", route, "dev", self.interface)
        return self

    def configure(self) -> None:
        """Give wireguard-go keys, endpoint and allowed IPs anew; sessions it has are dropped."""
        key, endpoint = self._server
        lines = ["[Interface]", f"PrivateKey = {self.private_key}"]
        if self.listen_port:
            lines.append(f"ListenPort = {self.listen_port}")
        lines += ["[Peer]", f"PublicKey = {key}"]
        if endpoint:
            lines.append(f"Endpoint = {endpoint}")
        lines += ["AllowedIPs = " + ", ".join(self.routes)]
        if self.preshared_key:
            lines.append(f"PresharedKey = {self.preshared_key}")
        if self.keepalive:
            lines.append(f"PersistentKeepalive = {self.keepalive}")
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            self.wg("setconf", self.interface, file.name)

    def wg(self, *words: str) -> str:
        """Run the wg program inside; AssertionError with its complaint when it fails."""
        done = self.namespace.run(["wg", *words], timeout=10)
        if done.returncode:
            raise AssertionError(f"wg {' '.join(words)}: {done.stderr}")
        return done.stdout

    def last_handshake(self) -> int:
        """Return the Unix time of the newest handshake, 0 when there was none."""
        return int(self.wg("show", self.interface, "latest-handshakes").split()[-1])

    def transfer(self) -> tuple[int, int]:
        """Return the bytes received and sent by the tunnel."""
        words = self.wg("show", self.interface, "transfer").split()
        return int(words[-2]), int(words[-1])

    def run(self, argv: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
        """Run a program behind the tunnel until it ends."""
        return self.namespace.run(argv, **options)  # type: ignore[arg-type]

    def spawn(self, argv: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        """Start a program behind the tunnel."""
        return self.namespace.spawn(argv, **options)

    def halt(self) -> None:
        """End wireguard-go; the interface with its addresses and routes goes with it."""
        if self.process is not None:
            children.end(self.process)
            self.process = None
        Path(CONTROL_SOCKETS, self.interface + ".sock").unlink(missing_ok=True)

    def restart(self) -> None:
        """End wireguard-go and start it again with the same keys: all sessions are forgotten."""
        self.halt()
        self.start(*self._server)

    def move(self, namespace: Namespace) -> None:
        """Come back in another namespace: the machine was rebooted, its connections are unknown."""
        self.halt()
        self.namespace = namespace
        self.start(*self._server)

    def stop(self) -> None:
        """End everything; harmless when it never started."""
        self.halt()
        self._log.unlink(missing_ok=True)
