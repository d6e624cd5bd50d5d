"""STUN as a part of the control plane: asked by the real client, told to real nodes."""

import contextlib
import io
import json
import socket
from typing import Any

from twisted.internet.error import CannotListenError

from border0.control.config import read
from border0.control.member.state import CONTACT_FILE
from border0.control.plane import ControlPlane
from border0.errors import ConfigError
from border0.paths import nat
from border0.processes.control import Options
from tests.control.planes import PlaneCase, reactor
from tests.support.stunask import ask


def free_udp() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class StunCase(PlaneCase):
    stun: dict[str, Any] = {}

    def table(self) -> dict[str, Any]:
        """All of the file."""
        control = {"url": self.url, "listen": [f"127.0.0.1:{self.port}"], "state_dir": "state"}
        return {"control": {**control, **self.settings}, "stun": self.stun}

    async def opened(self) -> ControlPlane:
        plane = ControlPlane(reactor, read(self.table(), self.base / "control.toml"))
        await plane.open()
        return plane

    async def begin(self) -> None:
        self.ports = free_udp(), free_udp()
        self.stun = {"listen": [f":{port}" for port in self.ports]}
        self.plane = await self.opened()
        self.org = next(iter(self.plane.fleet.organisations))


class Answers(StunCase):
    async def test_the_real_client_asks_and_nodes_are_told(self) -> None:
        lab = await self.node("connector", "lab", number=1)
        expected = [f"127.0.0.1:{port}" for port in self.ports]
        self.assertEqual(lab.stun, expected)
        file = lab.state.folder / CONTACT_FILE
        self.assertEqual(json.loads(file.read_bytes())["stun"], [f":{port}" for port in self.ports])
        servers = [("127.0.0.1", port) for port in self.ports]
        report, local = await ask("127.0.0.1", *servers)
        self.assertEqual(report.unanswered, [])
        self.assertEqual({each.server for each in report.observations}, set(servers))
        for each in report.observations:
            self.assertEqual((each.host, each.port), ("127.0.0.1", local))
        view = nat.NatView()
        view.set_local(["127.0.0.1"], local)
        for each in report.observations:
            view.observe(each)
        self.assertEqual(view.nat(4, reactor.seconds()).kind, nat.OPEN)
        (metric,) = [each for each in self.plane.metrics() if each[0] == "border0_stun_total"]
        self.assertEqual({kind["outcome"]: n for kind, n in metric[3]}["answered"], 2.0)

    async def test_other_ports_after_a_restart(self) -> None:
        lab = await self.node("connector", "lab", number=1)
        before = lab.stun
        self.stun = {"listen": [f":{free_udp()}"], "servers": ["stun.example.org:3478"]}
        await self.restart()
        await self.waiter.until(lambda: lab.stun != before)
        port = self.stun["listen"][0]
        self.assertEqual(lab.stun, [f"127.0.0.1{port}", "stun.example.org:3478"])
        report, _ = await ask("127.0.0.1", ("127.0.0.1", int(port[1:])))
        self.assertEqual(len(report.observations), 1)

    async def test_a_closed_plane_lets_go(self) -> None:
        await self.plane.close()
        for port in self.ports:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(("127.0.0.1", port))
        self.plane = await self.opened()

    async def test_a_taken_port_is_one_clear_error_and_nothing_stays_open(self) -> None:
        await self.plane.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", self.ports[1]))
            plane = ControlPlane(reactor, read(self.table(), self.base / "control.toml"))
            error = await self.failed(plane, ConfigError)
            self.assertIn(f"stun.listen: UDP 127.0.0.1:{self.ports[1]}: Address", str(error))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(("127.0.0.1", self.ports[0]))
            await plane.close()
        self.plane = await self.opened()

    def test_what_the_check_of_the_file_says(self) -> None:
        path = self.base / "file.toml"
        for stun, status, expected in (
            ('listen = ["192.0.2.1:3478"]', 0, "STUN at 192.0.2.1:3478"),
            ("", 0, "STUN at 127.0.0.1:3478, 127.0.0.1:3479"),
            ("listen = []", 0, "state in sqlite\n"),
            ('listen = ["3478"]', 1, "border0-control: "),
        ):
            path.write_text(f"[control]\n[stun]\n{stun}\n")
            out = io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                end = self.assertRaises(
                    SystemExit, Options().parseOptions, ["--config", str(path), "--validate"]
                )
            self.assertEqual(end.code, status, out.getvalue())
            self.assertIn(expected, out.getvalue())
            self.assertEqual(len(out.getvalue().splitlines()), 1)

    async def failed(self, plane: ControlPlane, kind: type[BaseException]) -> BaseException:
        try:
            await plane.open()
        except kind as error:
            return error
        raise AssertionError("it listens")


class Wildcards(StunCase):
    """Both families everywhere, as the page of the control plane shows it."""

    async def begin(self) -> None:
        try:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
                probe.bind(("::1", 0))
        except OSError:
            self.skipTest("no IPv6")
        self.settings = {"listen": [f"0.0.0.0:{self.port}", f"[::]:{self.port}"]}
        await super().begin()

    async def test_everything_answers_on_both(self) -> None:
        lab = await self.node("connector", "lab", number=1)
        self.assertEqual(lab.stun, [f"127.0.0.1:{port}" for port in self.ports])
        for host in ("127.0.0.1", "::1"):
            report, local = await ask(host, *((host, port) for port in self.ports))
            self.assertEqual(
                [(each.host, each.port) for each in report.observations], [(host, local)] * 2
            )
            with socket.create_connection((host, self.port), 5):
                pass

    async def test_a_taken_port_leaves_none_open(self) -> None:
        await self.plane.close()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", self.port))
            taken.listen()
            plane = ControlPlane(reactor, read(self.table(), self.base / "control.toml"))
            try:
                await plane.open()
            except CannotListenError as error:
                self.assertIn(str(self.port), str(error))
            else:
                self.fail("it listens")
            await plane.close()
        self.plane = await self.opened()
