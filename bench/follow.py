"""Follow: what a change of the organisation costs a connector with many devices.

``python -m bench.follow [--devices 5000] [--rounds 10] [--quick]``: a connector process, not
started, whose follower is handed maps as its connection would hand them: the first whole map, then
one change in each round (a device comes, a policy is edited in turns). The figure is how long the
reactor stands still: believe, save, rebuild, apply. The limit of the first map is Ed25519
verification of its statements alone, that of a change writing as many bytes to the disk (fsync) as
the saved ledger has.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from bench.report import Rounds
from border0.connector.config import load
from border0.connector.membership import FOLDER
from border0.control.member.state import LEDGER_FILE, MemberState, load_machine_key, make_folder
from border0.control.push import maphash
from border0.control.push.events import Applied
from border0.control.push.messages import Key
from border0.prefixes import read_network
from border0.processes.connector import ConnectorProcess
from border0.statements import Ledger, Statement
from border0.statements.envelope import message
from border0.tables import Table
from tests.support.organisation import Organisation, identifier

CONNECTOR, SOCKETS, USERS = identifier("gate"), 40, 500
FILE = """\
[connector]
name = "gate"
listen_port = 0
[control]
url = "https://control.border0.internal:8443"
ca = "sha256:{pin}"
"""
NETWORK = {
    "services_v4": "100.126.0.0/20",
    "services_v6": "fd62:6f72:6465:7231::/64",
    "devices_v4": "100.64.0.0/12",
    "devices_v6": "fd62:6f72:6465:7230::/64",
}
POLICY = {"permissions": {"tls": {}}, "condition": {"who": {"email": ["u1@example.org"]}}}


class World:
    """The organisation, and the connector that follows it."""

    def __init__(self, folder: Path, devices: int) -> None:
        self.org = Organisation(now=time.time())
        self.configurations: dict[Key, tuple[str, bytes]] = {}
        self.count = 0
        for number in range(min(USERS, devices)):
            self.org.membership(f"u{number}")
        for _ in range(devices):
            self.device()
        for number in range(SOCKETS):
            self._socket(number)
        self.policy("u1")
        self._join(folder)
        self.process = ConnectorProcess(reactor, load(folder / "connector.toml"))
        assert self.process.control is not None and self.process.control.follower is not None
        self.follower = self.process.control.follower
        self.follower.running = True
        self.process.control.running = True

    def device(self) -> None:
        """One device more."""
        self.count = number = self.count + 1
        four = ip_address("100.64.0.0") + number
        six = ip_address("fd62:6f72:6465:7230::") + number
        self.org.node(
            f"d{number}", owner=identifier(f"u{number % USERS}"), addresses=[str(four), str(six)]
        )

    def policy(self, user: str) -> None:
        """Another version of the policy of all sockets."""
        who = {"who": {"email": [f"{user}@example.org"]}}
        self.org.policy("all", json.dumps({**POLICY, "condition": who}))

    def _socket(self, number: int) -> None:
        service = {"hostname": "192.0.2.5", "port": 443}
        upstream = {"tls_service_type": "standard", "standard_tls_service_configuration": service}
        configuration = {
            "socket_type": "tls",
            "upstream_configuration": {
                "service_type": "tls",
                "tls_service_configuration": upstream,
            },
        }
        text = json.dumps(configuration).encode()
        name, id = f"s{number}", identifier(f"s{number}")
        digest = sha256(text).hexdigest()
        self.configurations["configuration", id] = (digest, text)
        self.org.publish(
            "socket",
            id,
            name=name,
            addresses=[str(ip_address("100.126.0.1") + number)],
            port=443,
            socket_type="tls",
            connectors=[CONNECTOR],
            configuration_hash=digest,
        )
        self.org.attach(name, "all")

    def _join(self, folder: Path) -> None:
        pin = "0" * 64
        make_folder(folder / "state" / FOLDER)
        (folder / "connector.toml").write_text(FILE.format(pin=pin))
        state = MemberState(
            folder / "state" / FOLDER,
            url="https://control.border0.internal:8443",
            ca="",
            org=self.org.id,
            org_name="acme",
            node=CONNECTOR,
            name="gate",
            role="connector",
            network=read_network(Table(NETWORK, folder, "")),
            machine_key=load_machine_key(folder / "state" / FOLDER, create=True),
        )
        state.save_node()
        state.save_ledger(Ledger(self.org.id, self.org.signers))
        self.ledger_file = folder / "state" / FOLDER / LEDGER_FILE

    def deliver(self, full: bool) -> tuple[float, float]:
        """Hand over what changed; how long the reactor stood still, and its CPU time (seconds)."""
        self.org.revision += 1
        head = self.org.head()
        wanted = {**self.org.live, ("head", self.org.id): head}
        held = self.follower.machine.map
        puts = {
            key: (one.hash, one.encode())
            for key, one in wanted.items()
            if full or held.entries.get(key, ("",))[0] != one.hash
        }
        if full:
            puts |= self.configurations
        sums = {**{key: entry[0] for key, entry in held.entries.items()}}
        sums |= {key: entry[0] for key, entry in puts.items()}
        text = maphash.text(maphash.fingerprint(sums))
        begun, used = time.perf_counter(), time.thread_time()
        done = held.apply(head.body["revision"], text, puts, (), full=full)
        assert done is not None
        self.follower._happened([Applied(held.revision, full, *done)])
        took = time.perf_counter() - begun, time.thread_time() - used
        assert not self.follower.refused, self.follower.refused
        return took


def verification(org: Organisation) -> float:
    """Seconds that Ed25519 alone takes for all statements."""
    key = org.key.public_key()
    todo = [(one.signatures[0][1], message(one.type, one.payload)) for one in org.live.values()]
    begun = time.perf_counter()
    for signature, covered in todo:
        key.verify(signature, covered)
    return time.perf_counter() - begun


def writing(file: Path) -> float:
    """Seconds to write as many bytes as a file has, synced."""
    data, beside = file.read_bytes(), file.with_suffix(".bench")
    begun = time.perf_counter()
    with beside.open("wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    seconds = time.perf_counter() - begun
    beside.unlink()
    return seconds


def reading(raw: list[bytes]) -> float:
    """Seconds to parse all envelopes and payloads as statements, nothing believed."""
    begun = time.perf_counter()
    for each in raw:
        Statement.from_json(each).body  # noqa: B018 (parsing is the point)
    return time.perf_counter() - begun


def contest(devices: int, rounds: int, profile: str) -> Rounds:
    """The first map once, then the changes."""
    figures = Rounds()
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name), devices)
        profiler = cProfile.Profile()
        call: Callable[..., Any] = profiler.runcall if profile else lambda f, *a: f(*a)
        first = call(world.deliver, True) if profile == "first" else world.deliver(True)
        figures.add("first map, ms", "border0", first[0] * 1000)
        figures.add("first map, ms", "limit", verification(world.org) * 1000)
        figures.add("first map, CPU ms", "border0", first[1] * 1000)
        raw = [one.encode() for one in world.org.live.values()]
        print(f"parsing alone: {reading(raw) * 1000:.0f} ms")
        for number in range(rounds):
            if number % 2:
                world.policy(f"u{number}")
            else:
                world.device()
            measure = "a policy edited, ms" if number % 2 else "one device more, ms"
            took = call(world.deliver, False) if profile == "change" else world.deliver(False)
            figures.add(measure, "border0", took[0] * 1000)
            figures.add(f"{measure.removesuffix(', ms')}, CPU ms", "border0", took[1] * 1000)
            figures.add(measure, "limit", writing(world.ledger_file) * 1000)
        if profile:
            profiler.print_stats("tottime")
        size = world.ledger_file.stat().st_size
        print(f"{devices} devices, {SOCKETS} sockets; the ledger has {size / 1e6:.1f} MB")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="does it run at all")
    parser.add_argument("--profile", choices=("first", "change"), default="")
    options = parser.parse_args()
    devices, rounds = (100, 2) if options.quick else (options.devices, options.rounds)
    table = contest(devices, rounds, options.profile).table(
        ("border0", "limit"), "border0", ["limit"]
    )
    print(table)


if __name__ == "__main__":
    main()
