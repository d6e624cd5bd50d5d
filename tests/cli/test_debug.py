"""`node debug peers|stats`, `connector debug …`: columns, keys, transcripts, and who is asked."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from border0.cli import peerview, peerwatch
from border0.node import nodeaddress
from tests.cli.case import Commands
from tests.support.client import python_path
from tests.support.localserver import LocalServer

NOW = 1_700_000_000.0
LONG = "[2001:db8:1111:2222:3333:4444:5555:6666]:32442"
UDP4: dict[str, Any] = {
    "method": "udp4", "address": "192.0.2.1:32442", "kind": "reflexive", "state": "valid",
    "rtt": 0.0123, "loss": 0.0, "mtu": 1452, "score": 88.61234, "active": True,
    "last_probe": NOW - 3.2, "held_seconds": 0.0,
}  # fmt: skip
UDP6 = {
    **UDP4, "method": "udp6", "address": "[2001:db8::1]:32442", "kind": "host", "active": False,
    "rtt": 0.0307, "loss": 0.125, "mtu": None, "score": 20.5, "last_probe": NOW - 125,
}  # fmt: skip
UNTRIED = {**UDP4, "method": "udp6 (roaming)", "address": LONG, "kind": "peer-reflexive",
           "state": "untried", "rtt": None, "loss": 0.0, "mtu": None, "score": 0.0, "active": False,
           "last_probe": None, "held_seconds": 12.4}  # fmt: skip
WHY = "udp6 [2001:db8::1]:32442: no answer to probes; now udp4 192.0.2.1:32442 (score 88.6)"
LAB: dict[str, Any] = {
    "public_key": "CCCC", "alias": "lab", "private_ipv4": "", "private_ipv6": "", "probes": True,
    "nat": "easy", "inner_mtu": 1372, "switches": 2, "last_switch": NOW - 42.5,
    "last_reason": WHY, "refused": 0, "connections": [UNTRIED, UDP6, UDP4],
}  # fmt: skip
STOCK = {**LAB, "public_key": "BBBB", "alias": "phone", "private_ipv4": "100.64.0.9",
         "private_ipv6": "fd62:6f72:6465:7230::9", "probes": False, "switches": 0,
         "last_switch": None, "last_reason": "", "connections": []}  # fmt: skip
TOLD = {"now": NOW, "peers": [LAB, STOCK]}
THEIRS = ["method", "address", "rtt", "loss", "mtu", "score", "active", "last_probe"]


class Case(Commands):
    def setUp(self) -> None:
        super().setUp()
        # A local socket's path is short; root's node listens outside of its home.
        self.home = Path(tempfile.mkdtemp(prefix="b0debug-"))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        os.environ["BORDER0_HOME"] = str(self.home)
        self.system = self.home / "system"
        self.system.mkdir()
        self.patch(nodeaddress, "SYSTEM", self.system)

    def server(self, path: Path, **answers: Any) -> LocalServer:
        server = LocalServer(path, **answers)
        self.addCleanup(server.stop)
        return server

    def node(self, **answers: Any) -> LocalServer:
        return self.server(nodeaddress.node_address(self.home).path, **answers)

    def connector(self, **answers: Any) -> str:
        """A connector that runs; its file."""
        file = self.home / "connector.toml"
        file.write_text('[connector]\nname = "lab"\nstate_dir = "."\n')
        self.server(self.home / "connector.sock", **answers)
        return str(file)


class Peers(Case):
    def test_columns(self) -> None:
        self.node(debug_peers=TOLD)
        shown = self.ask("node", "debug", "peers", "--utc").lines
        self.maxDiff = None
        self.assertEqual(
            shown,
            [
                "Alias  Private IPv4  Private IPv6",
                "  Public Addresses     Method            RTT    Loss   MTU    Score  Latest Reply"
                "  Active",
                "phone  100.64.0.9    fd62:6f72:6465:7230::9",
                "  N/A                  N/A               N/A     N/A   N/A      N/A  N/A",
                "  no probes: a stock WireGuard client, or not heard of yet",
                "lab    -             -",
                "  192.0.2.1:32442      udp4            12 ms   0.00%  1452  88.6123  3s ago      "
                "  *",
                "  [2001:db8::1]:32442  udp6            31 ms  12.50%     -  20.5000  2m5s ago",
                f"  {LONG}",
                "                       udp6 (roaming)      -   0.00%     -   0.0000  -",
                "  switched 42s ago (2023-11-14 22:12:37.500, 2 in all): "
                "udp6 [2001:db8::1]:32442: no answer to",
                "    probes; now udp4 192.0.2.1:32442 (score 88.6)",
                f"  udp6 {LONG} is not chosen for 12 s",
            ],
        )

    def test_every_line_fits_whatever_is_told(self) -> None:
        for size in (0, 10, 40, 300):
            wide = copy.deepcopy(TOLD)
            for peer in wide["peers"]:  # type: ignore[attr-defined]
                peer.update(alias="a" * size, last_reason="word " * size, private_ipv6="f" * 39)
                for way in peer["connections"]:
                    way.update(rtt=12.3456, last_probe=1.0, score=100.0, loss=1.0)
            for line in peerview.table(wide, True):
                self.assertLessEqual(len(line), 100, line)

    def test_what_a_peer_says_of_itself_forges_no_line(self) -> None:
        peer = {**LAB, "alias": "a\x1b[2J\nb", "last_reason": "c\rd",
                "connections": [{**UDP4, "address": "\x1b]0;x\x07"}]}  # fmt: skip
        self.node(debug_peers={"now": NOW, "peers": [peer]})
        shown = self.ask("node", "debug", "peers")  # looks at each line
        self.assertIn("a\\x1b[2J\\nb", shown.out)

    def test_json_has_border0s_keys_with_texts_and_ours_with_numbers(self) -> None:
        self.node(debug_peers=TOLD)
        (told,) = self.ask("node", "debug", "peers", "--json").objects
        phone, lab = told["peers"]
        self.assertEqual(phone["connections"], [])
        self.assertEqual(list(lab)[:4], ["public_key", "alias", "private_ipv4", "private_ipv6"])
        first = lab["connections"][0]
        self.assertEqual(list(first)[:8], THEIRS)
        self.assertEqual(
            [first[name] for name in THEIRS],
            ["udp4", "192.0.2.1:32442", "12 ms", "0.00%", "1452", "88.6123", True,
             "3s ago (unix:1699999996)"],
        )  # fmt: skip
        self.assertEqual((first["rtt_seconds"], first["score_points"]), (0.0123, 88.61234))
        self.assertEqual((first["state"], lab["last_reason"]), ("valid", WHY))
        last = lab["connections"][2]
        self.assertEqual([last[name] for name in ("rtt", "mtu", "last_probe")], ["-"] * 3)
        self.assertIsNone(last["rtt_seconds"])

    def test_no_peers(self) -> None:
        self.node(debug_peers={"now": NOW, "peers": []})
        done = self.ask("node", "debug", "peers")
        self.assertEqual((len(done.lines), done.err), (2, "no peers yet\n"))

    def test_ages(self) -> None:
        for seconds, text in ((-1, "0s"), (59.9, "59s"), (60, "1m0s"), (3605, "1h0m5s")):
            self.assertEqual(peerview.ago(seconds), f"{text} ago")

    def test_thousands_of_peers(self) -> None:
        many = [{**LAB, "public_key": f"{number:04}"} for number in range(2000)]
        self.node(debug_peers={"now": NOW, "peers": many})
        (told,) = self.ask("node", "debug", "peers", "--json").objects
        self.assertEqual(len(told["peers"]), 2000)


class WhoIsAsked(Case):
    def test_nobody(self) -> None:
        self.fails("node", "debug", "peers", says="no node runs: border0 node start")
        self.fails("connector", "debug", "peers", says="name the connector's file with --config")
        file = self.home / "connector.toml"
        file.write_text('[connector]\nname = "lab"\n')
        says = f"border0 connector start --config {file}"
        self.fails("connector", "debug", "stats", "--config", str(file), says=says)

    def test_a_clients_agent_where_no_node_runs(self) -> None:
        server = self.server(self.home / "client.sock", debug_peers=TOLD)
        self.assertIn("phone", self.ask("node", "debug", "peers").out)
        self.assertEqual(server.asked, [{"verb": "debug peers"}])
        self.node(debug_peers={"now": NOW, "peers": [LAB]})
        self.assertNotIn("phone", self.ask("node", "debug", "peers").out)

    def test_roots_node_of_another_folder_is_not_this_one(self) -> None:
        self.node(debug_peers={**TOLD, "home": "/somewhere/else"})
        self.fails("node", "debug", "peers", says="no node runs")

    def test_another_users_node(self) -> None:
        no = {"ok": False, "error": "this node is another user's: or sudo", "kind": "denied"}
        self.server(self.system / "node.sock", debug_peers=no)
        with mock.patch("os.geteuid", return_value=1234):
            self.fails("node", "debug", "stats", says="or sudo", status=3)

    def test_one_of_another_version(self) -> None:
        self.node()
        self.fails("node", "debug", "peers", says="version: border0 node stop, then border0 node")

    def test_one_that_goes_away(self) -> None:
        self.node(debug_peers=[""])
        self.fails("node", "debug", "peers", says="no node runs")

    def test_a_connector(self) -> None:
        file = self.connector(debug_peers=TOLD, debug_stats={"port": 1})
        for words in ([], ["--config", file]):  # quickstart's is in the home
            self.assertIn("lab", self.ask("connector", "debug", "peers", *words).out)
        self.assertIn("port", self.ask("connector", "debug", "stats").out)

    def test_a_folder_whose_path_is_too_long(self) -> None:
        deep = self.home / ("d" * 120)
        self.fails("node", "debug", "peers", "--home", str(deep), says="shorter folder")


class Stats(Case):
    STATS = {
        "port": 32442, "uptime_seconds": 3723.4, "received_datagrams": 1234567,
        "probes": {"sent": 5, "unknown": 0, "per_family": {"4": 3}}, "stun": {},
    }  # fmt: skip

    def test_lines(self) -> None:
        self.node(debug_stats=self.STATS)
        self.assertEqual(
            self.ask("node", "debug", "stats").lines,
            [
                "pid:                7",
                "port:               32442",
                "uptime:             1:02:03",
                "received datagrams: 1234567",
                "probes:             sent 5, unknown 0, per family 4 3",
                "stun:               none",
            ],
        )

    def test_relays(self) -> None:
        near = {
            "name": "ams", "use": "home", "connected": True, "rtt": 0.0123, "ways": 1, "why": "",
        }  # fmt: skip
        far = {**near, "name": "nyc", "use": "second", "connected": False, "ways": 2}
        self.node(debug_stats={"relays": [near, {**far, "why": "refused: no ticket"}]})
        self.assertEqual(
            self.ask("node", "debug", "stats").lines[1:],
            [
                "relay ams: home, answers in 12.3 ms, ways to 1 peer",
                "relay nyc: second, not connected: refused: no ticket",
            ],
        )

    def test_no_relays(self) -> None:
        self.node(debug_stats={"relays": []})
        self.assertIn("border0 relay ls", self.ask("node", "debug", "stats").out)

    def test_json(self) -> None:
        self.node(debug_stats=self.STATS)
        (told,) = self.ask("node", "debug", "stats", "--json").objects
        self.assertEqual(told, {"pid": 7, **self.STATS})


def moved(told: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The same 2 s later, with what is other at the peer named lab."""
    after = copy.deepcopy(told)
    after["now"] += 2.0
    after["peers"][0].update(changes)
    return after


BEFORE = {"now": NOW, "peers": [{**LAB, "switches": 1, "connections": [
    {**UDP4, "active": False}, {**UDP6, "active": True}]}]}  # fmt: skip
AFTER = moved(BEFORE, switches=2, last_switch=NOW + 1.25, connections=[UDP4, UDP6])


class Watch(Case):
    def watch(self, *words: str, turns: int) -> list[str]:
        """What is printed until Ctrl-C comes after so many turns."""
        left = iter(range(turns - 1))

        def sleep(seconds: float) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with mock.patch.object(peerwatch.run, "__defaults__", (sleep,)):
            done = self.run_("node", "debug", "peers", "--watch", "--utc", *words)
        self.assertEqual((done.status, done.err), (0, ""))
        return done.lines

    def test_a_line_for_each_change(self) -> None:
        back = BEFORE["peers"][0]["connections"]
        why = "udp4 x loses 30.0 %"
        again = moved(AFTER, switches=4, last_switch=NOW + 3, last_reason=why, connections=back)
        gone = {"now": NOW + 6, "peers": [STOCK]}
        self.node(debug_peers=[BEFORE, BEFORE, AFTER, AFTER, again, gone])
        self.assertEqual(
            self.watch(turns=7),
            [
                "2023-11-14 22:13:20.000  lab  udp6 [2001:db8::1]:32442 "
                "(RTT 31 ms, loss 12.50%, MTU -, score 20.5000)",
                "2023-11-14 22:13:21.250  lab  udp6 [2001:db8::1]:32442 -> udp4 192.0.2.1:32442: "
                "no answer to probes; score now 88.6",
                "2023-11-14 22:13:23.000  lab  udp4 192.0.2.1:32442 -> udp6 [2001:db8::1]:32442 "
                "(after 2 switches): udp4 x loses 30.0 %",
                "2023-11-14 22:13:26.000  phone  no way",
                "2023-11-14 22:13:26.000  lab  no longer a peer",
            ],
        )

    def test_from_nothing_to_a_first_way(self) -> None:
        none = moved(BEFORE, switches=0, last_switch=None, connections=[])
        first = moved(none, switches=1, last_switch=NOW + 3, connections=[UDP4],
                      last_reason="first path, udp4 192.0.2.1:32442 (score 88.6)")  # fmt: skip
        self.node(debug_peers=[{"now": NOW, "peers": []}, none, first])
        self.assertEqual(
            [line[25:] for line in self.watch(turns=3)],
            [
                "no peers",
                "lab  no way",
                "lab  no way -> udp4 192.0.2.1:32442: first path, score 88.6",
            ],
        )

    def test_another_process_is_told_from_the_beginning(self) -> None:
        self.node(debug_peers=[AFTER, {**BEFORE, "pid": 8}])
        lines = self.watch(turns=2)
        self.assertEqual([line[25:34] for line in lines], ["lab  udp4", "lab  udp6"])

    def test_json_is_an_object_a_turn(self) -> None:
        self.node(debug_peers=[BEFORE, AFTER])
        told = [json.loads(line) for line in self.watch("--json", turns=2)]
        self.assertEqual(
            [one["peers"][0]["connections"][0]["active"] for one in told], [False, True]
        )

    def test_an_end_of_the_node(self) -> None:
        self.node(debug_peers=[BEFORE, ""])
        with mock.patch.object(peerwatch.run, "__defaults__", (lambda seconds: None,)):
            done = self.fails("node", "debug", "peers", "--watch", says="no node runs")
        self.assertEqual(len(done.lines), 1)

    def test_a_picture(self) -> None:
        with mock.patch("shutil.get_terminal_size", return_value=os.terminal_size((60, 8))):
            first = peerwatch.picture(TOLD, "border0 node debug peers", True, True)
            later = peerwatch.picture(TOLD, "border0 node debug peers", True, False)
        self.assertTrue(first.startswith("\x1b[2J\x1b[H"))
        self.assertTrue(later.startswith("\x1b[H") and later.endswith("\x1b[J"))
        lines = later.removeprefix("\x1b[H").replace("\x1b[K", "").splitlines()
        self.assertEqual(len(lines), 8)  # the last is what clears the rest
        self.assertTrue(all(len(line) <= 60 for line in lines[:-1]), lines)
        self.assertIn("more lines", lines[6])

    def test_usage(self) -> None:
        for value in ("0", "-1", "x", "nan"):
            self.assertEqual(self.run_("node", "debug", "peers", "--interval", value).status, 2)

    def test_ctrl_c_ends_it_cleanly(self) -> None:
        file = self.connector(debug_peers=[BEFORE, AFTER])
        words = ["connector", "debug", "peers", "--watch", "--interval", "0.1", "--config", file]
        child = subprocess.Popen(
            [sys.executable, "-m", "border0.cli.main", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": python_path()},
        )
        self.addCleanup(child.kill)
        assert child.stdout is not None
        self.assertIn("udp6", child.stdout.readline())
        self.assertIn("no answer to probes", child.stdout.readline())
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
        self.assertEqual((child.returncode, out, err), (0, "", ""))
