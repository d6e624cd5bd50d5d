"""What a relay's file may say, and what is said of its mistakes."""

from __future__ import annotations

import tomllib
import uuid
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.errors import ConfigError
from border0.processes.relayconfig import RelayConfig, load, own_id, read
from border0.relay.limits import RATES

LEAST = 'names = ["198.51.100.7"]\n'


class FileCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.file = self.folder / "relay.toml"

    def read(self, text: str, more: str = "") -> RelayConfig:
        data: dict[str, Any] = tomllib.loads(f"[relay]\n{text}\n{more}")
        return read(data, self.file)


class Fine(FileCase):
    def test_the_least(self) -> None:
        config = self.read(LEAST)
        self.assertEqual(config.listen, [("0.0.0.0", 443), ("::", 443)])
        self.assertEqual(config.stun, [("::", 3478)])
        self.assertEqual((config.path, config.channel_binding), ("/relay", "tls-exporter"))
        self.assertEqual(config.ticket_keys.name, "ticket-keys.json")
        self.assertEqual((config.clients, config.org_rate), (20_000, None))
        self.assertEqual(config.rates, RATES)

    def test_everything(self) -> None:
        config = self.read(
            'id = "fra-1"\nnames = ["Relay.Example.ORG.", "[2001:db8::1]"]\n'
            'listen = ["192.0.2.1:443", "[2001:db8::1]:8443"]\nstate_dir = "state"\n'
            'certificate = "chain.pem"\nprivate_key = "key.pem"\nticket_keys = "keys.json"\n'
            'path = "/"\norigins = ["https://app.example.org", "http://localhost:8000"]\n'
            'trusted_proxies = ["192.0.2.0/24"]\nplain_listen = ["192.0.2.1:8080"]\n'
            'channel_binding = "none"\ndrain_seconds = 30',
            "[limits]\nclients = 5\nwaiting = 16\naccepts_per_second = 10\n"
            "org_bytes_per_second = 1000000\n[limits.rates]\nlow = 20000\nhuge = 1000000000\n"
            '[stun]\nlisten = [":3478", ":443", "192.0.2.9:3478"]',
        )
        self.assertEqual(config.names, ["relay.example.org", "2001:db8::1"])
        self.assertEqual(
            config.stun,
            [("192.0.2.1", 3478), ("2001:db8::1", 3478), ("192.0.2.1", 443),
             ("2001:db8::1", 443), ("192.0.2.9", 3478)],
        )  # fmt: skip
        assert config.org_rate is not None
        self.assertEqual(config.org_rate.rate, 1e6)
        self.assertEqual(config.rates["low"].rate, 20_000.0)
        self.assertEqual(config.rates["high"], RATES["high"])
        self.assertEqual(config.rates["huge"].burst, 320_000_000.0)

    def test_behind_a_proxy_only(self) -> None:
        config = self.read(
            'names = ["relay.example.org"]\nplain_listen = ["127.0.0.1:8080"]\n'
            'channel_binding = "none"'
        )
        self.assertEqual(config.listen, [])
        self.assertEqual(config.stun, [("::", 3478)])

    def test_an_id_is_made_once(self) -> None:
        config = self.read(f'{LEAST}state_dir = "."')
        first = own_id(config)
        self.assertEqual(str(uuid.UUID(first)), first)
        self.assertEqual(own_id(config), first)
        config.id = "given"
        self.assertEqual(own_id(config), "given")
        config.id = ""
        (self.folder / "relay-id").write_text("Not One")
        self.assertIn("holds no id", str(self.assertRaises(ConfigError, own_id, config)))


class Mistakes(FileCase):
    def test_each_is_told_with_its_place(self) -> None:
        plain = 'plain_listen = ["127.0.0.1:80"]\n'
        for text, more, why in (
            ("", "", "relay: the key 'names' is missing"),
            ("names = []", "", "relay.names: give the names"),
            ('names = ["a:443"]', "", "relay.names: 'a:443'"),
            ('names = ["https://a"]', "", "relay.names"),
            ('names = ["ü.example"]', "", "relay.names"),
            ('names = ["relay.example.org"]', "", "give certificate and private_key"),
            (LEAST + 'certificate = "a"', "", "relay.certificate: give certificate and"),
            (LEAST + 'id = "A b"', "", "relay.id"),
            (LEAST + 'path = "relay"', "", "relay.path"),
            (LEAST + 'path = "/healthz"', "", "relay.path"),
            (LEAST + "listen = []", "", "relay.listen: give at least one address"),
            (LEAST + 'listen = [":443"]', "", "write ADDRESS:PORT"),
            (LEAST + 'listen = ["host:443"]', "", "relay.listen"),
            (LEAST + 'listen = ["0.0.0.0:65536"]', "", "relay.listen"),
            (LEAST + 'listen = ["0.0.0.0:1", "0.0.0.0:1"]', "", "given twice"),
            (LEAST + 'channel_binding = "off"', "", "relay.channel_binding"),
            (LEAST + plain, "", "relay.plain_listen: a proxy that ends TLS"),
            (LEAST + 'channel_binding = "none"\nplain_listen = ["0.0.0.0:80"]', "", "loopback"),
            (LEAST + 'origins = ["example.org"]', "", "relay.origins"),
            (LEAST + 'origins = ["*"]', "", "relay.origins"),
            (LEAST + 'trusted_proxies = ["x"]', "", "relay.trusted_proxies"),
            (LEAST + 'originn = ["x"]', "", "did you mean 'origins'?"),
            (LEAST, "[limits]\nclients = 0", "limits.clients"),
            (LEAST, "[limits]\nclient = 9", "did you mean 'clients'?"),
            (LEAST, "[limits.rates]\nstandard = 1", "limits.rates.standard"),
            (LEAST, '[limits.rates]\n"A B" = 100000', "limits.rates.A B"),
            (LEAST, '[stun]\nlisten = ["3478"]', "stun.listen: '3478': write :PORT"),
            (LEAST, "[extra]", "unknown key 'extra'"),
        ):
            with self.assertRaises(ConfigError, msg=(text, more)) as caught:
                self.read(text, more)
            error = str(caught.exception)
            self.assertIn(why, error, text)
            self.assertTrue(error.startswith(str(self.file)))

    def test_no_file(self) -> None:
        self.assertIn("--config", str(self.assertRaises(ConfigError, load, self.file)))
