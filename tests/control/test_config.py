"""The control plane's file: what `[stun]` means, and what is said of mistakes."""

from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.control.config import ControlConfig, StunConfig, read
from border0.errors import ConfigError

HERE = "198.51.100.7"


class Stun(SynchronousTestCase):
    def read(self, stun: Any, **control: Any) -> ControlConfig:
        table = {"url": f"https://{HERE}:8443", "listen": ["0.0.0.0:8443"], **control}
        data = {"control": table} if stun is None else {"control": table, "stun": stun}
        return read(data, Path("control.toml"))

    def stun(self, stun: Any, **control: Any) -> tuple[list[tuple[str, int]], list[str]]:
        found = self.read(stun, **control).stun
        return found.places, found.told

    def refused(self, expected: str, stun: Any, **control: Any) -> None:
        error = self.assertRaises(ConfigError, self.read, stun, **control)
        self.assertIn("control.toml: stun", str(error))
        self.assertIn(expected, str(error))
        self.assertNotIn("\n", str(error))

    def test_without_the_table_nothing_is_answered_and_nobody_told(self) -> None:
        self.assertEqual(self.read(None).stun, StunConfig([], []))

    def test_the_table_alone_means_the_usual_ports_where_control_listens(self) -> None:
        both = [("0.0.0.0", 3478), ("0.0.0.0", 3479)]
        self.assertEqual(self.stun({}), (both, [":3478", ":3479"]))
        places, told = self.stun({}, listen=["192.0.2.1:8443", "[2001:db8::1]:8443"])
        self.assertEqual(
            places,
            [(host, port) for port in (3478, 3479) for host in ("192.0.2.1", "2001:db8::1")],
        )
        self.assertEqual(told, [":3478", ":3479"])
        places, _ = self.stun({}, listen=["0.0.0.0:8443", "[::]:8443"])
        self.assertEqual(places, [("::", 3478), ("::", 3479)], "which takes IPv4 too")
        places, _ = self.stun({}, listen=["0.0.0.0:8443", "0.0.0.0:443"])
        self.assertEqual(places, both)

    def test_other_addresses_are_told_by_themselves(self) -> None:
        places, told = self.stun(
            {"listen": [":3478", f"{HERE}:3479", "198.51.100.8:3478", "0.0.0.0:3480"]}
        )
        self.assertEqual(
            places,
            [("0.0.0.0", 3478), (HERE, 3479), ("198.51.100.8", 3478), ("0.0.0.0", 3480)],
        )
        self.assertEqual(told, [":3478", ":3479", "198.51.100.8:3478", ":3480"])

    def test_servers_of_others(self) -> None:
        servers = ["stun.example.org:3478", "[2001:db8::9]:1", "192.0.2.9:65535"]
        self.assertEqual(self.stun({"listen": [], "servers": servers}), ([], servers))
        _, told = self.stun({"servers": [*servers, servers[0]]})
        self.assertEqual(told, [":3478", ":3479", *servers])

    def test_a_plane_for_this_machine_alone(self) -> None:
        alone = {"url": "https://127.0.0.1:8443", "listen": ["127.0.0.1:8443"]}
        self.assertEqual(self.stun({"listen": [":7"]}, **alone), ([("127.0.0.1", 7)], [":7"]))

    def test_mistakes(self) -> None:
        for text in (
            "3478", ":0", ":65536", "", "stun.example.org:3478", "2001:db8::1:3478", "[::1]",
            "1.2.3:4", ":3478 ", "udp:3478",
        ):  # fmt: skip
            self.refused("stun.listen: ", {"listen": [text]})
            self.refused("ADDRESS:PORT", {"listen": [text]})
        self.refused("stun.listen: expected a list", {"listen": ":3478"})
        self.refused("stun.listen", {"listen": [3478]})
        self.refused("did you mean 'servers'?", {"server": ["a:1"]})
        for text in (":3478", "stun.example.org", "a b:1", "https://a:1", "a:99999"):
            self.refused("write HOST:PORT", {"servers": [text]})
        self.refused("0.0.0.0:3478 is given twice", {"listen": [":3478", "0.0.0.0:3478"]})
        self.refused("given twice", {"listen": [":3478", ":3478"]})
        self.refused("at most 16", {"servers": [f"192.0.2.1:{n}" for n in range(1, 16)]})

    def test_what_no_node_can_reach(self) -> None:
        self.refused("listens on loopback only", {}, listen=["127.0.0.1:8443"])
        self.refused("listens on loopback only", {}, listen=["127.0.0.1:8443", "[::1]:8443"])
        self.refused("listens on loopback only", {"listen": ["127.0.0.2:3478"]})
        self.stun({}, listen=["127.0.0.1:8443", "192.0.2.1:8443"])
