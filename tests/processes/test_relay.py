"""A relay's process: its files, its ports, and its end."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections import deque
from pathlib import Path
from typing import Any, ClassVar
from urllib.request import urlopen

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from border0.errors import ConfigError
from border0.keys import decode_key, encode_key
from border0.processes import memory, relay
from border0.processes.relay import Options, RelayProcess, open_files
from border0.processes.relayconfig import read
from border0.relay import codes
from border0.relay.ticket import Ticket, issue
from border0.statements import time_text
from border0.trust import first_contact
from tests.control.push.stage import Waiter, reactor
from tests.relay.relaystage import Node
from tests.relay.stage import NODE, ORG, SIGNER, raw
from tests.support import children
from tests.support.certificates import Authority
from tests.support.client import python_path
from tests.support.connector import TWISTD
from tests.support.stunask import ask
from tests.support.webproxies import free_port

PATIENCE = 60.0


def free_udp() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def key_file(*revoked: bytes) -> str:
    out = [
        {"public_key": encode_key(key), "until": time_text(time.time() + 3600)} for key in revoked
    ]
    return json.dumps({"keys": [{"key": encode_key(raw(SIGNER)), "orgs": [ORG]}], "revoked": out})


class ProcessCase(TestCase):
    timeout = 90
    limits: ClassVar[dict[str, int]] = {}

    def setUp(self) -> Any:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.file = self.folder / "relay.toml"
        self.keys = self.folder / "ticket-keys.json"
        self.keys.write_text(key_file())
        self.number, self.stun = free_port(), free_udp()
        self.waiter = Waiter()
        self.said: list[str] = []

    def table(self, **changes: Any) -> dict[str, Any]:
        relay = {
            "names": ["localhost", "127.0.0.1"],
            "listen": [f"127.0.0.1:{self.number}"],
            "state_dir": "state",
            "drain_seconds": 1,
            **changes,
        }
        limits = {"limits": self.limits} if self.limits else {}
        return {"relay": relay, "stun": {"listen": [f":{self.stun}"]}, **limits}

    def listen_to_the_log(self) -> None:
        def keep(event: Any) -> None:
            if event.get("log_namespace") == "border0.relay":
                self.said.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)

    def process(self, **changes: Any) -> RelayProcess:
        return RelayProcess(reactor, read(self.table(**changes), self.file))

    def opened(self, **changes: Any) -> RelayProcess:
        process = self.process(**changes)
        process.lock.take()
        process.startService()
        self.addCleanup(lambda: process.running and process.stopService())
        return process

    def node(self, process: RelayProcess, number: int, authority: bytes) -> Node:
        house: Any = process
        made = Node(
            house,
            number,
            port=self.number,
            public_key=process.key.public,
            id=process.id,
            authority=authority,
        )
        now = time.time()
        made.ticket = issue(
            Ticket(ORG, NODE, made.key.public, frozenset((process.id,)), now, now + 600), SIGNER
        )
        made.link.startService()
        self.addCleanup(lambda: made.link.running and made.link.stopService())
        return made

    async def exchange(self, one: Node, two: Node) -> None:
        await self.waiter.until(lambda: one.link.up and two.link.up)
        word = os.urandom(8)
        one.link.send(two.key.public, [word])
        await self.waiter.until(lambda: (one.key.public, word) in two.got)


class InProcess(ProcessCase):
    async def test_an_authority_of_its_own_and_stun(self) -> None:
        self.listen_to_the_log()
        process = self.opened()
        command = process.command()
        self.assertEqual(
            command,
            f"border0 relay add NAME --id {process.id} --key {encode_key(process.key.public)} "
            f"--host localhost --host 127.0.0.1 --port {self.number} --ca {process.pin}",
        )
        self.assertIn(f"ready: {command}", self.said)
        authority = await first_contact(reactor, "127.0.0.1", self.number, process.pin)
        one, two = (self.node(process, number, authority) for number in (1, 2))
        await self.exchange(one, two)
        report, local = await ask("127.0.0.1", ("127.0.0.1", self.stun))
        self.assertEqual([each.port for each in report.observations], [local])
        found = {name: samples for name, _, _, samples in process.metrics()}
        self.assertEqual(found["border0_relay_clients"], [({}, 2)])
        self.assertIn(({"outcome": "answered"}, 1.0), found["border0_stun_total"])
        self.assertEqual(process.problems(), [])
        id, key, pin = process.id, process.key.public, process.pin
        await process.stopService()
        self.assertEqual(process.problems(), ["it drains"])
        again = self.opened()
        self.assertEqual((again.id, again.key.public, again.pin), (id, key, pin))
        await self.waiter.until(lambda: one.losses and two.losses)
        for node in (one, two):
            node.link.at_once()
        await self.exchange(one, two)

    async def test_a_certificate_that_is_replaced_while_it_runs(self) -> None:
        self.listen_to_the_log()
        old, new = (Authority(self.made(name)) for name in ("old", "new"))
        chain, key = self.folder / "chain.pem", self.folder / "key.pem"

        def install(authority: Authority, *, only_chain: bool = False) -> None:
            made = authority.issue("relay", "localhost")
            chain.write_bytes(made[0].read_bytes())
            if not only_chain:
                key.write_bytes(made[1].read_bytes())

        install(old)
        process = self.opened(certificate=str(chain), private_key=str(key))
        self.assertEqual(process.pin, "")
        one = self.node(process, 1, old.certificate.read_bytes())
        await self.waiter.until(lambda: one.link.up)
        install(new, only_chain=True)
        process._watches[0].look()
        self.assertIn("do not belong together", self.said[-1])
        install(new)
        process._watches[0].look()
        self.assertEqual(self.said[-1], "certificate read again")
        two = self.node(process, 2, new.certificate.read_bytes())
        await self.exchange(one, two)

    async def test_ticket_keys_that_are_replaced_while_it_runs(self) -> None:
        self.listen_to_the_log()
        process = self.opened()
        authority = await first_contact(reactor, "127.0.0.1", self.number, process.pin)
        one, two = (self.node(process, number, authority) for number in (1, 2))
        await self.exchange(one, two)
        self.keys.write_text("{")
        process.reload()
        self.assertIn("ticket keys not changed", self.said[-1])
        self.keys.write_text(key_file(one.key.public))
        process.reload()
        await self.waiter.until(lambda: one.losses)
        self.assertEqual(one.losses[0].code, codes.REVOKED)
        self.assertTrue(two.link.up)
        one.link.at_once()
        await self.waiter.until(lambda: "revoked" in one.link.why)

    async def test_who_is_here_is_sent_away_before_the_end(self) -> None:
        process = self.opened()
        authority = await first_contact(reactor, "127.0.0.1", self.number, process.pin)
        one = self.node(process, 1, authority)
        await self.waiter.until(lambda: one.link.up)
        stopping = maybeDeferred(process.stopService)
        await self.waiter.until(lambda: one.events[-1].__class__.__name__ == "Drain")
        await stopping
        await self.waiter.until(lambda: one.losses)
        self.assertEqual(one.losses[0].code, codes.DRAINING)

    async def test_what_is_in_the_way(self) -> None:
        with socket.socket() as taken, socket.socket(type=socket.SOCK_DGRAM) as used:
            taken.bind(("127.0.0.1", self.number))
            taken.listen()
            process = self.process()
            self.assertRaises(CannotListenError, process.open)
            taken.close()
            used.bind(("127.0.0.1", self.stun))
            error = self.assertRaises(ConfigError, process.open)
            self.assertIn(f"stun.listen: UDP 127.0.0.1:{self.stun}: Address", str(error))
            self.assertEqual(process.ports, [])
            await process.relay.stop()
        self.keys.unlink()
        self.assertIn("relay ticket-keys", str(self.assertRaises(ConfigError, self.process)))
        self.keys.write_text("[]")
        self.assertIn(str(self.keys), str(self.assertRaises(ConfigError, self.process)))
        self.keys.write_text(key_file())
        for changes in ({"certificate": "no.pem", "private_key": "no.pem"},):
            self.assertIn("no.pem", str(self.assertRaises(ConfigError, self.process, **changes)))

    async def test_after_a_storm(self) -> None:
        process, trims = self.opened(), []
        self.patch(relay, "trim", lambda: trims.append(1))
        for joined, expected in ((199, 0), (398, 0), (598, 1), (600, 1)):
            process.relay.broker.totals["joined"] = joined
            process._after_a_storm()
            self.assertEqual(len(trims), expected)
        memory.trim()

    def test_open_files(self) -> None:
        before = open_files(1)
        self.assertGreaterEqual(open_files(before), before)

    def made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder


class Child(ProcessCase):
    """`twistd -n border0-relay`, as a user starts it."""

    def write(self, **changes: Any) -> None:
        lines = []
        for name, table in self.table(**changes).items():
            lines += [
                f"[{name}]",
                *(f"{key} = {json.dumps(value)}" for key, value in table.items()),
            ]
        self.file.write_text("\n".join(lines) + "\n")

    def argv(self, *more: str) -> list[str]:
        place = ["--pidfile=", "-n", "border0-relay", "--config", str(self.file)]
        return [TWISTD, *place, *more]

    def run_it(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*more),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": python_path()},
        )

    async def test_a_life(self) -> None:
        authority = Authority(self.folder)
        chain, key = authority.issue("relay", "localhost")
        metrics = free_port()
        self.write(certificate=str(chain), private_key=str(key))
        log = self.folder / "log"
        child = children.spawn(
            self.argv("--metrics-listen", f"127.0.0.1:{metrics}"),
            output=log,
            folder=self.folder,
            environment={**os.environ, "PYTHONPATH": python_path()},
        )
        self.addCleanup(children.end, child)
        await self.waiter.until(lambda: "ready: " in log.read_text(), PATIENCE)

        def fetch(url: str) -> tuple[int, bytes]:
            context = ssl.create_default_context(cafile=str(authority.certificate))
            with urlopen(url, context=context, timeout=20) as answer:
                return answer.status, answer.read()

        found = await deferToThread(fetch, f"https://localhost:{self.number}/healthz")
        self.assertEqual(found, (200, b"ok\n"))
        _, body = await deferToThread(fetch, f"http://127.0.0.1:{metrics}/metrics")
        self.assertIn(b"\nborder0_relay_clients 0\n", body)
        try:
            await deferToThread(fetch, f"https://localhost:{self.number}/metrics")
        except OSError as error:
            self.assertIn("404", str(error))
        else:
            self.fail("its metrics are public")
        child.send_signal(signal.SIGHUP)
        await self.waiter.until(lambda: "ticket keys read again" in log.read_text())
        self.assertIn("certificate read again", log.read_text())
        child.send_signal(signal.SIGTERM)
        self.assertIn(await deferToThread(child.wait, PATIENCE), (0, -signal.SIGTERM))
        self.assertNotIn("Traceback", log.read_text())

    async def test_ten_thousand_that_never_log_in(self) -> None:
        """Bounded in count and memory, a line of log for each kind, and who may gets in."""
        authority = Authority(self.folder)
        chain, key = authority.issue("relay", "localhost")
        waiting = 1024
        self.limits = {"waiting": waiting, "accepts_per_second": 100_000}
        self.write(certificate=str(chain), private_key=str(key))
        log = self.folder / "log"
        child = children.spawn(
            self.argv(), output=log, folder=self.folder,
            environment={**os.environ, "PYTHONPATH": python_path()},
        )  # fmt: skip
        self.addCleanup(children.end, child)
        await self.waiter.until(lambda: "ready: " in log.read_text(), PATIENCE)
        words = log.read_text().partition("ready: ")[2].split()
        house: Any = None
        honest = Node(
            house, 7, port=self.number, id=words[words.index("--id") + 1],
            public_key=decode_key(words[words.index("--key") + 1]),
            authority=authority.certificate.read_bytes(),
        )  # fmt: skip
        before = children.memory(child.pid)
        await deferToThread(self.crowd, 5_000)
        now, place = time.time(), frozenset((honest.link.place.id,))
        honest.ticket = issue(Ticket(ORG, NODE, honest.key.public, place, now, now + 600), SIGNER)
        honest.link.startService()
        self.addCleanup(lambda: honest.link.running and honest.link.stopService())
        await deferToThread(self.crowd, 5_000)
        await self.waiter.until(lambda: honest.link.up, PATIENCE)
        # So much for the TLS of each that may wait, and no more for any number of others.
        bound = 16 * 1024 * 1024 + waiting * 96 * 1024
        self.assertLessEqual(children.memory(child.pid, "VmHWM") - before, bound)
        lines = [line for line in log.read_text().splitlines() if "gave way" in line]
        self.assertTrue(0 < len(lines) < 50, lines)
        await honest.link.stopService()

    def crowd(self, count: int) -> None:
        """Connect so often, say nothing or little, and stay."""
        kept: deque[socket.socket] = deque(maxlen=2_000)
        for number in range(count):
            one = socket.socket()
            one.settimeout(20)
            one.bind((f"127.0.0.{2 + number % 8}", 0))
            one.connect(("127.0.0.1", self.number))
            if number % 2:
                one.send(b"\x16\x03\x01\x02\x00\x01")  # a TLS hello that goes no further
            if len(kept) == kept.maxlen:
                kept.popleft().close()
            kept.append(one)
        for one in kept:
            one.close()

    def test_what_cannot_start_is_one_line_and_a_status(self) -> None:
        self.write()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", self.number))
            taken.listen()
            done = self.run_it()
        self.assertEqual(done.returncode, 1)
        last = [line for line in done.stderr.splitlines() if line.startswith("border0-relay: ")]
        self.assertEqual(len(last), 1, done.stderr)
        self.assertIn(str(self.number), last[0])
        self.keys.unlink()
        done = self.run_it()
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1), done.stderr)

    def test_the_check_of_the_file(self) -> None:
        self.write()
        done = self.run_it("--validate")
        self.assertEqual(
            (done.returncode, done.stdout),
            (0, f"{self.file}: fine: localhost, 127.0.0.1 at 127.0.0.1:{self.number}, channel "
             f"binding tls-exporter, STUN at 127.0.0.1:{self.stun}\n"),
        )  # fmt: skip
        self.write(names=["relay.example.org"])
        done = self.run_it("--validate")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (1, 1))

    def test_help(self) -> None:
        self.assertIn("--config", str(Options()))
