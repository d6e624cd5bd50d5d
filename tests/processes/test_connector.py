"""The connector's services: their names and order, reload, health, and what stops."""

import json
import os
import signal
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, readBody

from border0.connector.config import load
from border0.errors import ConfigError
from border0.processes.connector import ConnectorProcess
from border0.processes.health import exposition, health_service, parse_listen

KEYS = [bytes([number]) * 31 + b"\x08" for number in (9, 10)]


def text(devices: int = 1, sockets: int = 2) -> str:
    from base64 import b64encode

    parts = ['[connector]\nname = "lab"\nlisten_port = 0\n']
    for number in range(devices):
        parts.append(
            f'[[device]]\nname = "d{number}"\nuser = "u{number}@example.org"\n'
            f'public_key = "{b64encode(KEYS[number]).decode()}"\n'
            f'addresses = ["100.64.0.{number + 2}/32"]\n'
        )
    for number in range(sockets):
        parts.append(
            f'[[socket]]\nname = "s{number}"\nsocket_type = "tls"\npolicies = ["all"]\n'
            f'private_network_ipv4 = "100.126.0.{number + 1}"\n'
            "[socket.upstream_configuration.tls_service_configuration"
            ".standard_tls_service_configuration]\n"
            'hostname = "127.0.0.1"\nport = 9\n'
        )
    return (
        "".join(parts) + '[[policy]]\nname = "all"\npolicy_data = { permissions = { tls = {} } }\n'
    )


class Connector(TestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp()) / "connector.toml"
        self.file.parent.mkdir()
        self.file.write_text(text())
        previous = signal.getsignal(signal.SIGHUP)
        self.addCleanup(signal.signal, signal.SIGHUP, previous)
        self.process = ConnectorProcess(reactor, load(self.file))

    async def started(self) -> ConnectorProcess:
        self.process.startService()
        self.addCleanup(self.process.stopService)
        return self.process

    def names(self, service: Any) -> list[str]:
        return [child.name for child in service]

    def test_names_and_order(self) -> None:
        order = ["audit", "policy", "tunnel", "dns", "proxies", "connector-socket"]
        self.assertEqual(self.names(self.process), order)
        self.assertEqual(self.names(self.process.connector), ["proxy:s0", "proxy:s1"])
        return self.process.stopService()

    def test_the_key_is_made_private_and_kept(self) -> Any:
        key = self.file.parent / "connector.key"
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        self.assertEqual((self.file.parent / "state").stat().st_mode & 0o777, 0o700)
        again = ConnectorProcess(reactor, load(self.file))
        self.assertEqual(again.device.public_key, self.process.device.public_key)
        os.chmod(key, 0o644)
        error = self.assertRaises(ConfigError, ConnectorProcess, reactor, load(self.file))
        self.assertIn("chmod 600", str(error))
        again.stopService()
        return self.process.stopService()

    def test_a_state_folder_has_one_process(self) -> Any:
        self.process.lock.take()
        again = ConnectorProcess(reactor, load(self.file))
        error = self.assertRaises(ConfigError, again.lock.take)
        self.assertIn("in use by another process", str(error))
        self.process.lock.give()
        again.lock.take()
        again.stopService()
        return self.process.stopService()

    def test_reload_adds_and_removes(self) -> Any:
        async def scenario() -> None:
            process = await self.started()
            self.file.write_text(text(devices=2, sockets=1))
            await process.reload()
            self.assertEqual(set(process.device.peers), set(KEYS))
            self.assertEqual(self.names(process.connector), ["proxy:s0"])
            self.file.write_text(text(devices=1, sockets=2))
            await process.reload()
            self.assertEqual(set(process.device.peers), {KEYS[0]})
            self.assertEqual(self.names(process.connector), ["proxy:s0", "proxy:s1"])

        return ensureDeferred(scenario())

    def test_a_wrong_file_changes_nothing(self) -> Any:
        async def scenario() -> None:
            process = await self.started()
            before = process.config
            self.file.write_text("[connector]\nnam = 'x'\n")
            await process.reload()
            self.assertIs(process.config, before)
            self.assertEqual(self.names(process.connector), ["proxy:s0", "proxy:s1"])

        return ensureDeferred(scenario())

    def test_it_listens_where_it_is_told(self) -> Any:
        async def scenario() -> None:
            self.file.write_text(
                text().replace("listen_port", 'listen_address = "127.0.0.1"\nlisten_port')
            )
            process = ConnectorProcess(reactor, load(self.file))
            process.startService()
            self.addCleanup(process.stopService)
            self.assertEqual(process.tunnel.udp.endpoint("127.0.0.1", 1), ("127.0.0.1", 1))
            self.assertGreater(process.tunnel.port, 0)
            await self.process.stopService()

        return ensureDeferred(scenario())

    def test_health(self) -> Any:
        async def scenario() -> None:
            process = await self.started()
            service: Any = health_service(reactor, "0", process.problems, process.metrics)
            service.startService()
            self.addCleanup(service.stopService)
            port = (await service._waitingForPort).getHost().port

            async def get(path: str) -> tuple[int, str]:
                url = f"http://127.0.0.1:{port}{path}".encode()
                response = await Agent(reactor).request(b"GET", url)
                return response.code, (await readBody(response)).decode()

            self.assertEqual(await get("/healthz"), (200, "ok\n"))
            self.assertEqual(await get("/readyz"), (200, "ready\n"))
            code, page = await get("/metrics")
            self.assertEqual(code, 200)
            self.assertIn('border0_wireguard_received_bytes_total{device="d0"} 0', page)
            self.assertIn("border0_sessions 0", page)
            process.connector.store.failure = "disk full"
            self.assertEqual((await get("/readyz"))[0], 503)

        return ensureDeferred(scenario())


class Exposition(TestCase):
    def test_labels_are_escaped(self) -> None:
        page = exposition([("a", "A.", "gauge", [({"x": 'b"\n\\'}, 1.5)])])
        self.assertEqual(page, '# HELP a A.\n# TYPE a gauge\na{x="b\\"\\n\\\\"} 1.5\n')

    def test_listen(self) -> None:
        self.assertEqual(parse_listen("9100"), ("127.0.0.1", 9100))
        self.assertEqual(parse_listen("[::1]:9100"), ("::1", 9100))
        for wrong in ("x", "1.2.3.4:99999", "host:1", ""):
            self.assertRaises(ConfigError, parse_listen, wrong)


class Logs(TestCase):
    def test_no_line_can_be_forged(self) -> None:
        from io import StringIO

        from twisted.logger import Logger

        from border0.processes.logs import observer

        for kind in ("text", "json"):
            out = StringIO()
            write = observer(kind, "info", out)
            log = Logger(namespace="x", observer=write)
            log.info("user {name}", name="a\nb\x1b[31m")
            log.debug("hidden")
            lines = out.getvalue().splitlines()
            self.assertEqual(len(lines), 1)
            self.assertNotIn("\x1b", lines[0])
            if kind == "json":
                self.assertEqual(json.loads(lines[0])["level"], "info")
