"""Whatever a control plane sends as a socket's configuration: read or refused, and nothing is run,
read or dialled on this machine that its owner did not name."""

import builtins
import json
import os
import subprocess
from pathlib import Path
from random import Random
from types import SimpleNamespace
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from border0.connector.followed import read_socket
from border0.connector.local import LocalRules
from border0.errors import ConfigError
from border0.prefixes import read_network
from border0.processes import logs
from border0.tables import Table

NETWORK = {
    "services_v4": "100.126.0.0/24",
    "services_v6": "fd62:6f72:6465:7231::/64",
    "devices_v4": "100.64.0.0/16",
    "devices_v6": "fd62:6f72:6465:7230::/64",
}
PIECES = (
    None, True, -1, 0, 65536, 2**64, 1.5, "", " ", "a" * 100_000, "\0", "\x1b[2J\r\n", "\ud800",
    "\N{GRINNING FACE}", [], {}, [[]], {"": None}, "from:cmd:touch RAN", "from:env:HOME",
    "from:file:/etc/shadow", "from:file:../../etc/shadow", "from:file:secrets/../../etc/shadow",
    "from:", "from:file:", "from:nothing:x", "/etc/shadow", "127.0.0.1", "localhost", "::1",
    "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b:1::7f00:1", "::127.0.0.1",
    "connector_built_in_ssh_service", "connector_file_server", "aws_ssm", "docker_exec",
    ["from:cmd:touch RAN"], {"password": "from:cmd:touch RAN"}, "verify-full", "first-use",
)  # fmt: skip


def database():
    return {
        "service_type": "database",
        "database_service_configuration": {
            "database_service_type": "standard",
            "standard_database_service_configuration": {
                "protocol": "postgres",
                "hostname": "db.example.org",
                "port": 5432,
                "authentication_type": "username_and_password",
                "username_and_password_auth_configuration": {"username": "a", "password": "b"},
            },
        },
    }


def ssh():
    return {
        "service_type": "ssh",
        "ssh_service_configuration": {
            "ssh_service_type": "standard",
            "standard_ssh_service_configuration": {
                "hostname": "host.example.org",
                "port": 22,
                "ssh_authentication_type": "private_key",
                "private_key_auth_configuration": {"username": "a", "private_key": "b"},
            },
        },
    }


def files():
    return {
        "service_type": "http",
        "http_service_configuration": {
            "http_service_type": "connector_file_server",
            "connector_file_server_service_configuration": {"top_level_directory": "/etc"},
        },
    }


def places(value, found):
    """Every table and list inside."""
    if isinstance(value, dict | list):
        found.append(value)
        for inner in value.values() if isinstance(value, dict) else value:
            places(inner, found)
    return found


class Pushed(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.network = read_network(Table(dict(NETWORK), self.folder / "x", ""))
        self.rules = LocalRules(secrets=("env:SHOP_PW", "file:secrets/*.pw"), base=self.folder)

    def read(self, kind, raw):
        statement = SimpleNamespace(
            body={
                "id": "00000000-0000-4000-8000-000000000001",
                "name": "shop",
                "socket_type": kind,
                "port": 5432,
                "addresses": ["100.126.0.1"],
            }
        )
        return read_socket(statement, raw, self.rules, self.folder / "connector.toml", self.network)

    def guarded(self):
        """Running and opening anything is a failure of the test."""
        opened = builtins.open

        def no(*arguments, **_):
            raise AssertionError(f"{arguments[0]!r} was run or read")

        def only_ours(file, *arguments, **options):
            if str(file).startswith(("/etc", str(self.folder))):
                no(file)
            return opened(file, *arguments, **options)

        self.patch(subprocess, "run", no)
        self.patch(subprocess, "Popen", no)
        self.patch(os, "system", no)
        self.patch(Path, "open", no)
        self.patch(Path, "read_text", no)
        self.patch(Path, "read_bytes", no)
        self.patch(builtins, "open", only_ours)

    def test_mutations(self):
        self.guarded()
        random = Random(2026)
        served = 0
        for turn in range(4000):
            make = (database, ssh, files)[turn % 3]
            document = {
                "name": "shop",
                "socket_type": make()["service_type"],
                "port": 5432,
                "upstream_configuration": make(),
            }
            for _ in range(random.randrange(0, 4)):
                place = random.choice(places(document, []))
                piece = json.loads(json.dumps(random.choice(PIECES)))
                if isinstance(place, dict):
                    place[random.choice([*place, "new", "ca_certificate", "key"])] = piece
                else:
                    place.append(piece)
            with mock.patch.dict(os.environ, {"SHOP_PW": "x"}):
                try:
                    entry = self.read(document["socket_type"], json.dumps(document).encode())
                except ConfigError as error:
                    self.assertTrue(logs.printable(str(error)).isprintable())
                    continue
            served += 1
            host = getattr(entry.upstream, "host", "")
            self.assertTrue(host, document)
            self.assertNotIn(
                host, ("127.0.0.1", "localhost", "::1", "169.254.169.254", "::ffff:127.0.0.1",
                       "64:ff9b:1::7f00:1", "::127.0.0.1"),
            )  # fmt: skip
        self.assertGreater(served, 100)
        self.assertFalse(Path("RAN").exists())

    def test_forms_that_are_none(self):
        self.guarded()
        for raw in (
            b"", b"null", b"[]", b"0", b'"x"', b"{", b"[" * 200_000, b'{"a":' * 200_000, b"\xff",
            b'{"port": 1e999}', b'{"port": NaN}', b'{"port":' + b"1" * 6000 + b"}",
            b"{}" + b" " * 2_000_000, json.dumps({"name": "a" * 900_000}).encode(),
        ):  # fmt: skip
            self.assertRaises(ConfigError, self.read, "database", raw)
