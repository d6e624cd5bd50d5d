"""The whole product in a network: a control plane, a connector with its services, a device.

    with NatBox(two_sites("linux", "symmetric")) as box:
        sites = Sites(box)  # b is the device, a the connector, s1 the control plane
        sites.start()
        sites.wait_path(lambda path: path["method"] == "udp4", 20)

The programs are `border0 quickstart`, `border0 connector start` and `border0 node start`, each in
its host's namespace. Who belongs to whom is arranged once in a test process, by the commands that
a person types; each network then starts with copies of those homes, as root.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from border0.errors import Border0Error
from border0.node.localapi import LocalAddress, ask
from tests.lab.kernelnat import KernelSites
from tests.lab.natbox import STUN1, STUN1_V6, NatBox, open_hosts
from tests.support import children
from tests.support.machines import PASSWORD, Machine
from tests.support.namespaces import Namespace
from tests.support.openssh import OpenSSHServer
from tests.support.postgres import PostgresServer
from tests.support.siteload import Copy, Shell, Source, Stream, exchange

SERVER, SERVER_V6 = STUN1, STUN1_V6
SSH_PORT, DATABASE_PORT, SOURCE_PORT, ECHO_PORT = 2222, 5432, 1900, 700
SERVICES = ("shop-db", "shell", "source", "echo")
COUNTERPARTS = ("namespaces", "tun", "postgresql-server", "psql", "ssh", "sshd", "sftp-server")
# A /run of its own: the machine's /run/border0 is for one node only.
PRIVATE_RUN = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
               'mount -t tmpfs none /run && exec "$@"', "sh"]  # fmt: skip
TAIL = 60
Path_ = dict[str, Any]


def printed(text: str, noun: str) -> list[str]:
    """The words of the `border0 NOUN join …` that a command printed, without the program."""
    line = next(line for line in text.splitlines() if f"border0 {noun} join" in line)
    words = shlex.split(line)
    return words[words.index(noun) :]


class Organisation:
    """Homes of the three machines that have joined, kept as copies; `address` is the server's."""

    def __init__(self, address: str = SERVER) -> None:
        self.address = address
        self.folder = Path(tempfile.mkdtemp(prefix="b0org-"))
        self.sshd = OpenSSHServer()
        self.sshd.port = SSH_PORT
        self.machines: list[Machine] = []
        try:
            with NatBox(open_hosts()) as box:
                self.machines = [
                    Machine(box.host(name), where)
                    for name, where in (("s1", address), ("a", ""), ("b", ""))
                ]
                self._arrange(*self.machines)
        except BaseException:
            self.close()
            raise

    def _arrange(self, hub: Machine, lab: Machine, device: Machine) -> None:
        control = start_control(hub)
        lab.said(*printed(hub.said("connector", "invite", "lab"), "connector"))
        file = lab.folder / "connector.toml"
        secrets = ["env:SHOP_PW", f"file:{self.sshd.user_key}"]
        ports = (SSH_PORT, DATABASE_PORT, SOURCE_PORT, ECHO_PORT)
        allow = [f"127.0.0.1:{port}" for port in ports]
        local = f"\n[local]\nallow = {json.dumps(allow)}\nsecrets = {json.dumps(secrets)}\n"
        file.write_text(file.read_text() + local)
        self._offer(hub)
        device.said(*printed(hub.said("device", "invite", "west"), "node"))
        with contextlib.suppress(AssertionError):  # whose inviter may approve is approved already
            hub.said("device", "approve", "west")
        serving = start_connector(lab)
        children.wait_until(lambda: "ssh-ed25519" in device.said("client", "hosts", "--json"),
                            60, "the connector's host key is in the map", interval=0.3)  # fmt: skip
        device.run("client", "stop")
        for child in (serving, control):
            children.end(child, signal.SIGTERM)
        for number, machine in enumerate(self.machines):
            shutil.copytree(machine.folder, self.folder / str(number), symlinks=True)

    def _offer(self, hub: Machine) -> None:
        databases = [{"database": "*", "allowed_query_types": ["ReadWrite"]}]
        data = {
            "permissions": {
                "database": {"allowed_databases": databases},
                "ssh": {},
                "tls": {},
            },
            "condition": {"who": {"email": [hub.told("whoami")["name"]]}},
        }
        policy, shell = hub.folder / "policy.json", hub.folder / "shell.json"
        policy.write_text(json.dumps(data))
        hub.said("policy", "add", "all", "--policy-file", str(policy))
        key = {
            "username_provider": "defined",
            "username": self.sshd.user,
            "private_key": f"from:file:{self.sshd.user_key}",
        }
        standard = {
            "hostname": "127.0.0.1",
            "port": SSH_PORT,
            "host_keys": [self.sshd.public_key],
            "ssh_authentication_type": "private_key",
            "private_key_auth_configuration": key,
        }
        upstream = {
            "service_type": "ssh",
            "ssh_service_configuration": {
                "ssh_service_type": "standard",
                "standard_ssh_service_configuration": standard,
            },
        }
        whole = {"socket_type": "ssh", "port": 22, "upstream_configuration": upstream}
        shell.write_text(json.dumps(whole))
        database = f"postgres://app@127.0.0.1:{DATABASE_PORT}/shop"
        for name, words in (
            ("shop-db", ("--upstream", database, "--password", "from:env:SHOP_PW")),
            ("shell", ("--file", str(shell))),
            ("source", ("--upstream", f"tcp://127.0.0.1:{SOURCE_PORT}")),
            ("echo", ("--upstream", f"tcp://127.0.0.1:{ECHO_PORT}")),
        ):
            hub.said("socket", "create", name, "--connector", "lab", "--policy", "all", *words)

    def restore(self, places: tuple[Namespace, ...]) -> tuple[Machine, ...]:
        """Put the machines into other namespaces, with the homes as they were."""
        for number, (machine, namespace) in enumerate(zip(self.machines, places, strict=True)):
            machine.namespace = namespace
            shutil.rmtree(machine.folder)
            shutil.copytree(self.folder / str(number), machine.folder, symlinks=True)
        return tuple(self.machines)

    def close(self) -> None:
        """Remove everything."""
        for machine in self.machines:
            machine.close()
        self.sshd.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@functools.cache
def organisation(address: str) -> Organisation:
    """The one of this test process that is reached at an address."""
    made = Organisation(address)
    atexit.register(made.close)
    return made


def start_control(hub: Machine) -> subprocess.Popen[bytes]:
    """Run the control plane at the server's address."""
    hub.log.unlink(missing_ok=True)
    child = hub.start("quickstart", "--listen", hub.address, "--no-demo")
    hub.wait_for("session ls", child)
    return child


def start_connector(lab: Machine) -> subprocess.Popen[bytes]:
    """Run the connector; what it logged before is kept beside."""
    lab.log.unlink(missing_ok=True)
    child = lab.start("connector", "start", SHOP_PW=PASSWORD)
    lab.wait_for("ready:", child)
    return child


def start_node(device: Machine, *words: str) -> subprocess.Popen[bytes]:
    """Run the device's node."""
    device.log.unlink(missing_ok=True)
    with open(device.log, "ab") as out:
        command = device.command("node", "start", *words)
        child = device.spawn([*PRIVATE_RUN, *command], stdout=out, stderr=out)
    device.wait_for("ready:", child)
    return child


class Sites:
    """The three machines at work in one network.

    :param network: a NatBox with the hosts a, b and s1, or KernelSites.
    :param address: where the control plane is; an IPv6 address where some have only that.
    :param swapped: a is the device and b the connector.
    """

    def __init__(
        self, network: NatBox | KernelSites, address: str = SERVER, *, swapped: bool = False
    ) -> None:
        self.network, self.address, self.swapped = network, address, swapped
        self._stack = contextlib.ExitStack()
        self.control: subprocess.Popen[bytes]
        self.connector: subprocess.Popen[bytes]
        self.node: subprocess.Popen[bytes]

    @property
    def box(self) -> NatBox:
        """The emulated network."""
        assert isinstance(self.network, NatBox)
        return self.network

    def start(self) -> Sites:
        """Start everything; returns when all three said that they are ready."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def _start(self) -> None:
        network = self.network
        if isinstance(network, NatBox):
            places = (network.host("s1"), network.host("a"), network.host("b"))
        else:
            places = (network.middle, network.a, network.b)
        if self.swapped:
            places = (places[0], places[2], places[1])
        arranged = organisation(self.address)
        self.hub, self.lab, self.device = arranged.restore(places)
        self.control = self._ends(start_control(self.hub))
        self._serve(places[1], arranged.sshd)
        self.connector = self._ends(start_connector(self.lab))
        self.node = self._ends(start_node(self.device))
        hosts = self.device.told("client", "hosts")
        listed = hosts if isinstance(hosts, list) else [hosts]
        self.services = {one["name"]: one for one in listed}

    def _serve(self, place: Namespace, sshd: OpenSSHServer) -> None:
        self.postgres = PostgresServer(namespace=place)
        self.postgres.port = DATABASE_PORT
        self._stack.callback(self.postgres.stop)
        self.postgres.start()
        self.postgres.create_role("app", PASSWORD, "LOGIN")
        self.postgres.create_database("shop", "app")
        (sshd.folder / "log").unlink(missing_ok=True)
        sshd.namespace = place
        sshd.start()
        assert sshd.process is not None
        self._stack.callback(children.end, sshd.process, signal.SIGKILL)
        self.source = Source(place, SOURCE_PORT, ECHO_PORT)
        self._stack.callback(self.source.close)

    def _ends(self, child: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        self._stack.callback(children.end, child, signal.SIGTERM, signal.SIGKILL)
        return child

    def restart(self, between: Callable[[], object] = lambda: None) -> None:
        """Start connector and node anew: nothing is remembered of the network as it was.

        :param between: done while neither runs.
        """
        children.end(self.node, signal.SIGKILL)
        children.end(self.connector, signal.SIGKILL)
        between()
        self.connector = self._ends(start_connector(self.lab))
        self.node = self._ends(start_node(self.device))

    def close(self) -> None:
        """End everything; the network is its maker's."""
        self._stack.close()

    # What the device says of its ways

    def ask(self, verb: str) -> dict[str, Any]:
        """A question to the node's socket.

        :raises TunnelError: it refused. NoAgent: it does not answer.
        """
        place = Path(f"/proc/{self.node.pid}/root/run/border0")
        connection, answer = ask(LocalAddress(place, name="node.sock"), {"verb": verb})
        connection.close()
        return answer

    def debug_peers(self) -> list[dict[str, Any]]:
        """What `border0 node debug peers --json` says."""
        found: list[dict[str, Any]] = self.ask("debug peers")["peers"]
        return found

    def peer(self) -> dict[str, Any]:
        """What the device knows of the connector; empty while it knows nothing."""
        return next((one for one in self.debug_peers() if one["alias"] == "lab"), {})

    def paths(self) -> list[Path_]:
        """All ways to the connector."""
        found: list[Path_] = self.peer().get("connections", [])
        return found

    def path(self) -> Path_ | None:
        """The way in use (`method`, `address`, …), None while there is none that answers."""
        return _in_use(self.peer())

    def wait_path(self, wanted: Callable[[Path_], object], seconds: float, what: str = "") -> Path_:
        """Wait until the way in use is a wanted one; return it."""
        found: list[Path_ | None] = []

        def there(peer: dict[str, Any]) -> bool:
            found[:] = [_in_use(peer)]
            return found[0] is not None and bool(wanted(found[0]))

        self.wait_peer(there, seconds, f"a path {what}")
        assert found[0] is not None
        return found[0]

    def wait_peer(
        self, wanted: Callable[[dict[str, Any]], object], seconds: float, what: str
    ) -> dict[str, Any]:
        """Wait until what the device knows of the connector is as wanted; return it."""
        deadline = time.monotonic() + seconds
        while True:
            peer = self.peer()
            if peer and wanted(peer):
                return peer
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"not within {seconds:g} s: {what}\n{json.dumps(peer, indent=1)}"
                )
            time.sleep(0.1)

    # Work

    def shell(self) -> Shell:
        """Begin an ssh session in which a counter goes to and fro."""
        words = self.device.command("client", "ssh", "root@shell", "cat")
        return Shell(self.device.spawn(words))

    def copy(self, megabytes_per_second: float = 2.0) -> Copy:
        """Begin a COPY into a new table, which goes on until it is finished."""
        return Copy(self.device, megabytes_per_second)

    def stream(self, megabytes_per_second: float = 1.0) -> Stream:
        """Begin a stream of bytes to a service that says them back."""
        words = self.device.command("client", "tcp", "echo", "--stdio")
        return Stream(self.device.spawn(words), megabytes_per_second)

    def megabyte(self, family: int) -> None:
        """Send 1 MiB to a service at its IPv4 or IPv6 address and get it back; 1 MiB from another.

        :raises AssertionError: something is missing or changed.
        """
        for name in ("source", "echo"):
            address = self.services[name][f"private_network_ipv{family}"]
            port = SOURCE_PORT if name == "source" else ECHO_PORT
            host = f"[{address}]:{port}" if family == 6 else f"{address}:{port}"
            exchange(self.device, host, self.source, back=name == "echo")

    def tails(self) -> str:
        """The ends of all logs."""
        found = []
        for name in ("hub", "lab", "device"):
            machine = getattr(self, name, None)
            if machine is not None and machine.log.exists():
                lines = machine.log.read_text(errors="replace").splitlines()[-TAIL:]
                found.append("\n".join([f"--- {name}", *lines]))
        with contextlib.suppress(Border0Error, OSError, AttributeError):
            found.append("--- peers\n" + json.dumps(self.debug_peers(), indent=1))
        return "\n".join(found)


def _in_use(peer: dict[str, Any]) -> Path_ | None:
    for one in peer.get("connections", ()):
        if one["active"] and one["state"] == "valid":
            found: Path_ = one
            return found
    return None
