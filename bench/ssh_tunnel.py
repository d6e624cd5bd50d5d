"""SSH through the tunnel: `border0 client ssh` against OpenSSH over Debian's wireguard-go.

Two namespaces and a veth pair, one sshd for both. Theirs is wireguard-go at both ends with the
kernel's TCP. Ours is OpenSSH on `border0 client tcp NAME --stdio`, the user-space client, a
connector process and its SSH proxy with policy and records. Both tunnels are up before the rounds.
"""

from __future__ import annotations

import contextlib
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.dataplane import BUFFERS
from bench.report import Rounds, Verdicts
from bench.ssh_contestant import BULK, ECHO, LOGIN, Contestant, one_round
from tests.support.client import ADDRESSES, ClientHome, service, stranger
from tests.support.connector import TWISTD, ConnectorProcess, device, policy
from tests.support.namespaces import Namespace, veth
from tests.support.openssh import OpenSSHServer, options
from tests.support.tunnel import WireGuardClient

NEEDS = ("namespaces", "tun", "wg", "wireguard-go", "ssh", "sshd", "sftp-server")
WIREGUARD_GO, OURS = "wireguard-go", "border0"
SERVER, CLIENT, PORT = "100.125.0.1", "100.64.0.3", 2222
FLOOR, AIM = 0.5, 1.0


class OverWireGuardGo(Contestant):
    """OpenSSH in the client's namespace; its kernel sees the tunnel."""

    def __init__(self, namespace: Namespace, sshd: OpenSSHServer) -> None:
        given = options(PORT, "/dev/null", f"IdentityFile={sshd.user_key}", "Compression=no")
        super().__init__(WIREGUARD_GO, f"{sshd.user}@{SERVER}", given)
        self.namespace = namespace

    def spawn(self, argv: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        return self.namespace.spawn(argv, **streams)


class OverClient(Contestant):
    """OpenSSH below `border0 client ssh`, or scp with the same ProxyCommand; no root."""

    def __init__(self, namespace: Namespace, home: ClientHome) -> None:
        self.namespace, self.home = namespace, home
        self.program, self.user = stranger()
        proxy = f"ProxyCommand={shlex.join(self._client('tcp', 'shell', '--stdio'))}"
        super().__init__(OURS, "alice@shell", options(22, "/dev/null", proxy, "Compression=no"))
        # Compiled modules are kept, as an installed product has them.
        self.environment = home.environment(PYTHONPYCACHEPREFIX=str(home.folder / "compiled"))
        del self.environment["PYTHONDONTWRITEBYTECODE"]

    def _client(self, *words: str) -> list[str]:
        return [self.program, "-P", "-m", "border0.cli.main", "client", *words]

    def ssh(self, *command: str) -> list[str]:
        given = ["-F", "/dev/null", "-o", "IdentityFile=/dev/null", "-o", "IdentitiesOnly=yes"]
        given += ["-o", "Compression=no", "-o", "LogLevel=ERROR"]
        return [*self._client("ssh", self.target), *given, *command]

    def spawn(self, argv: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        return self.namespace.spawn(
            argv, user=self.user, environment=self.environment, folder=self.home.folder, **streams
        )


class Course:
    """Both ways to the same sshd."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.server, self.near = Namespace(), Namespace()
        for namespace in (self.server, self.near):
            stack.callback(namespace.close)
            namespace.sysctl(**BUFFERS)
        outside, _ = veth(self.server, self.near, 1)
        self._wireguard_go(stack, outside)
        self.sshd = OpenSSHServer(namespace=self.server, options=(f"ListenAddress {SERVER}",))
        stack.callback(self.sshd.stop)
        self.sshd.port = PORT
        self.sshd.start()
        home = self._border0(stack, outside)
        self.contestants = [
            OverWireGuardGo(self.near, self.sshd),
            OverClient(self.near, home),
        ]
        for one in self.contestants:
            one.login()

    def _wireguard_go(self, stack: contextlib.ExitStack, outside: str) -> None:
        ours = WireGuardClient(self.server, listen_port=51820)
        theirs = WireGuardClient(self.near, number=3)
        ours.addresses, ours.routes = [f"{SERVER}/32"], [f"{CLIENT}/32"]
        theirs.addresses, theirs.routes = [f"{CLIENT}/32"], ["100.125.0.0/24"]
        for end in (ours, theirs):
            stack.callback(end.stop)
        ours.start(theirs.public_key, "")
        theirs.start(ours.public_key, f"{outside}:51820")

    def _border0(self, stack: contextlib.ExitStack, outside: str) -> ClientHome:
        home = ClientHome()
        stack.callback(home.close)
        connector = ConnectorProcess(
            self.server,
            {
                "device": [device("alice-laptop", home.public_key, ADDRESSES)],
                "policy": [policy("all", {"ssh": {}})],
                "socket": [self._socket()],
            },
            program=(TWISTD, "--reactor=border0"),  # as border0 connector start
        )
        stack.callback(connector.stop)
        connector.start()
        keys = [
            " ".join(line.partition("SSH host key ")[2].split()[:2])
            for line in connector.log().splitlines()
            if "SSH host key " in line
        ]
        shell = service("shell", 1, 22, "ssh", host_keys=keys)
        return home.write(connector.public_key, f"{outside}:32442", [shell])

    def _socket(self) -> dict[str, Any]:
        standard = {
            "hostname": "127.0.0.1",
            "port": PORT,
            "ssh_authentication_type": "private_key",
            "private_key_auth_configuration": {
                "username": self.sshd.user,
                "private_key": f"from:file:{self.sshd.user_key}",
            },
            "host_keys": [self.sshd.public_key],
        }
        return {
            "name": "shell",
            "socket_type": "ssh",
            "private_network_ipv4": "100.126.0.1",
            "private_network_ipv6": "fd62:6f72:6465:7231::1",
            "recording_enabled": True,
            "policies": ["all"],
            "upstream_configuration": {
                "service_type": "ssh",
                "ssh_service_configuration": {
                    "ssh_service_type": "standard",
                    "standard_ssh_service_configuration": standard,
                },
            },
        }


def contest(source: Path, folder: Path, number: int, keys: int, verdicts: Verdicts) -> None:
    """Run the rounds, print the table and judge the ratios."""
    rounds = Rounds()
    with contextlib.ExitStack() as stack:
        course = Course(stack)
        for each in range(number):
            order = course.contestants if each % 2 else course.contestants[::-1]
            one_round(rounds, order, BULK, source, folder, keys)
    print("through the tunnel (bulk in MB/s)")
    print(rounds.table([WIREGUARD_GO, OURS], OURS, [WIREGUARD_GO]))
    for measure in BULK:
        ratio = rounds.ratio(measure, OURS, WIREGUARD_GO)
        verdicts.at_least(f"{measure}, of wireguard-go", ratio, FLOOR, AIM)
    for measure in (LOGIN, ECHO):
        # Times: half as fast is twice as long.
        name = measure.removesuffix(" ms")
        ratio = rounds.ratio(measure, WIREGUARD_GO, OURS)
        verdicts.at_least(f"{name}, speed of wireguard-go's", ratio, FLOOR, AIM)
    verdicts.complete(rounds)
