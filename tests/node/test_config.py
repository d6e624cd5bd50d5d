"""client.toml: what is read, and what a mistake says."""

import copy
from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.errors import ConfigError
from border0.node.config import ClientConfig, load, read
from border0.node.localapi import UnknownName, split_port
from border0.node.names import find

KEYS = [b64encode(bytes([n]) * 32).decode() for n in (9, 10)]
EXAMPLE: dict[str, Any] = {
    "device": {
        "name": "laptop",
        "addresses": ["100.64.0.2/32", "fd62:6f72:6465:7230::2/128"],
        "user": "alice@example.org",
    },
    "connector": [{"name": "lab", "public_key": KEYS[0], "endpoint": "host.example:32442"}],
    "socket": [
        {
            "name": "shop-db",
            "socket_type": "database",
            "protocol": "postgres",
            "private_network_ipv4": "100.126.0.1",
            "private_network_ipv6": "fd62:6f72:6465:7231::1",
        },
        {"name": "six", "socket_type": "ssh", "private_network_ipv6": "fd62:6f72:6465:7231::2"},
    ],
}
FILE = Path("/x/client.toml")


def example(**changes: Any) -> ClientConfig:
    """The example with some tables replaced."""
    return read({**copy.deepcopy(EXAMPLE), **changes}, FILE)


class Reading(SynchronousTestCase):
    def test_defaults(self) -> None:
        config = example()
        self.assertEqual(config.private_key_file, Path("/x/keys/client.key"))
        self.assertEqual([one.port for one in config.services], [5432, 22])
        self.assertEqual([one.connectors for one in config.services], [["lab"], ["lab"]])
        self.assertEqual(config.preshared_key(config.connectors[0]), bytes(32))
        self.assertEqual(
            config.allowed_ips(config.connectors[0], {}),
            ["100.126.0.0/24", "fd62:6f72:6465:7231::/64"],
        )

    def test_several_connectors_have_their_services_addresses(self) -> None:
        second = {"name": "two", "public_key": KEYS[1], "endpoint": "[::1]:1"}
        sockets = copy.deepcopy(EXAMPLE["socket"])
        sockets[0]["connector"], sockets[1]["connector"] = "lab", "two"
        config = example(connector=[*EXAMPLE["connector"], second], socket=sockets)
        self.assertEqual(config.connectors[1].endpoints, [("::1", 1)])
        at = {"shop-db": "lab", "six": "two"}
        self.assertEqual(config.allowed_ips(config.connectors[1], at), ["fd62:6f72:6465:7231::2"])
        self.assertEqual(find(config, "six").connectors[0].name, "two")

    def wrong(self, text: str, **changes: Any) -> None:
        error = self.assertRaises(ConfigError, example, **changes)
        self.assertIn(text, str(error))
        self.assertIn("/x/client.toml", str(error))

    def test_mistakes_say_where_and_what(self) -> None:
        device, lab = EXAMPLE["device"], EXAMPLE["connector"][0]
        shop = EXAMPLE["socket"][0]
        self.wrong("did you mean 'addresses'?", device={**device, "adresses": []})
        self.wrong("single addresses", device={**device, "addresses": ["100.64.0.0/24"]})
        self.wrong("inside 100.64.0.0/16", device={**device, "addresses": ["10.0.0.1/32"]})
        self.wrong("at least one [[connector]]", connector=[])
        self.wrong("a WireGuard public key", connector=[{**lab, "public_key": "x"}])
        for endpoint in ("host", "host:", "host:0", "host:x", "::1:5", "[host]:1", "-a:1", "a b:1"):
            self.wrong("endpoint", connector=[{**lab, "endpoint": endpoint}])
        self.wrong("is not known", socket=[{**shop, "socket_type": "tcp"}])
        self.wrong(
            "outside the service range", socket=[{**shop, "private_network_ipv4": "1.2.3.4"}]
        )
        self.wrong("no connector 'lap'; did you mean 'lab'?", socket=[{**shop, "connector": "lap"}])
        self.wrong("belongs to both", socket=[shop, {**shop, "name": "other"}])
        self.wrong("the socket name shop-db is given twice", socket=[shop, shop])
        self.wrong("a tls socket needs a port", socket=[
            {"name": "x", "socket_type": "tls", "private_network_ipv4": "100.126.0.9"}
        ])  # fmt: skip
        self.wrong(
            "is not a host key", socket=[{**shop, "host_keys": ["ssh-ed25519 AAAA\n* ssh-rsa B"]}]
        )

    def test_a_missing_file(self) -> None:
        error = self.assertRaises(ConfigError, load, Path("/nowhere/client.toml"))
        self.assertIn("--home DIR", str(error))

    def test_a_preshared_key_that_is_not_there(self) -> None:
        lab = {**EXAMPLE["connector"][0], "preshared_key": "from:env:BORDER0_TEST_ABSENT"}
        config = example(connector=[lab])
        error = self.assertRaises(ConfigError, config.preshared_key, config.connectors[0])
        self.assertIn('[[connector]] "lab".preshared_key', str(error))


class Names(SynchronousTestCase):
    def test_find(self) -> None:
        config = example()
        for name in ("shop-db", "SHOP-DB", "shop-db.local.border0.internal.", "100.126.0.1"):
            target = find(config, name)
            self.assertEqual((target.host, target.port), ("100.126.0.1", 5432), name)
            self.assertEqual(target.source, "100.64.0.2")
        self.assertEqual(find(config, "six").source, "fd62:6f72:6465:7230::2")
        self.assertEqual(find(config, "shop-db", 99).port, 99)
        self.assertEqual(find(config, "100.126.0.200", 99).port, 99)

    def test_what_leads_nowhere(self) -> None:
        config = example()
        for name, text in (
            ("shop", "did you mean 'shop-db'?"),
            ("a.b.c.border0.internal", "SOCKET.ORGANISATION"),
            ("10.0.0.1", "no service address"),
            ("100.126.0.200", "say which port"),
        ):
            self.assertIn(text, str(self.assertRaises(UnknownName, find, config, name)))
        four = example(device={**EXAMPLE["device"], "addresses": ["100.64.0.2/32"]})
        self.assertIn("family", str(self.assertRaises(UnknownName, find, four, "six")))

    def test_ports(self) -> None:
        for text, wanted in (
            ("a", ("a", None)),
            ("a:1", ("a", 1)),
            ("fd62::1", ("fd62::1", None)),
            ("[fd62::1]", ("fd62::1", None)),
            ("[fd62::1]:2", ("fd62::1", 2)),
        ):
            self.assertEqual(split_port(text), wanted)
        for text in ("a:", "a:0", "a:65536", "a:x", "[fd62::1", "[fd62::1]x", "[fd62::1]:"):
            self.assertRaises(UnknownName, split_port, text)
