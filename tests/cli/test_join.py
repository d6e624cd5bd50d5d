"""`border0 node|connector join|status` as people type them, against a control plane over TLS."""

import json
import os
import stat
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.web.resource import Resource

from border0.connector.membership import FOLDER
from border0.control.member.state import MemberState
from border0.keys import encode_key, fingerprint, load_private_key, public_key
from border0.tables import read_toml
from tests.control.member.case import Member
from tests.support.organisation import identifier
from tests.support.plane import Answer, reactor


class Joining(Member):
    timeout = 120

    def setUp(self) -> Any:
        self.home = Path(self.mktemp()).absolute()
        return super().setUp()

    async def type(self, *words: str, status: int = 0) -> tuple[str, str]:
        """Run a command in the folder of this test; what it says on both streams."""
        environment = {**os.environ, "BORDER0_HOME": str(self.home), "PYTHONUTF8": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
        done: Deferred[Any] = getProcessOutputAndValue(
            sys.executable, ["-m", "border0.cli.main", *words], environment, str(self.base), reactor
        )
        out, err, code = await done
        self.assertEqual(code, status, err.decode())
        self.assertNotIn("Traceback", err.decode())
        return out.decode(), err.decode()

    def words(self, noun: str, code: str = "b0i_good", *more: str) -> tuple[str, ...]:
        pin = self.plane.authority.pin
        return (noun, "join", self.plane.url, *([code] if code else []), "--ca", pin, *more)

    def know(self, state: MemberState) -> None:
        """Let a machine believe what it would have been sent."""
        org = self.plane.org
        ledger = state.load_ledger()
        ledger.accept_all([*org.live.values(), org.head()], time.time())
        state.save_ledger(ledger)

    async def test_connector(self) -> None:
        out, _ = await self.type(*self.words("connector", "b0t_good", "--name", "gate"))
        self.assertEqual(
            out.splitlines(),
            ["Joined acme as connector gate.", "Next: border0 connector start"],
        )
        file = self.base / "connector.toml"
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        data = read_toml(file, "")
        wanted = {"name": "gate", "private_key_file": "connector.key", "state_dir": "state"}
        self.assertEqual(data["connector"], wanted)
        control = {"url": self.plane.url, "ca": self.plane.authority.pin}
        self.assertEqual(data["control"], control)
        key = load_private_key(self.base / "connector.key", create=False)
        state = MemberState.open(self.base / "state" / FOLDER)
        self.assertEqual((state.name, state.role), ("gate", "connector"))
        joined = self.plane.joins[0]
        self.assertTrue(joined["ssh_host_key"].startswith("ssh-ed25519 "))
        self.assertEqual(joined["role"], "connector")
        self.assertEqual(stat.S_IMODE((self.base / "state").stat().st_mode), 0o700)

        out, _ = await self.type("connector", "status")
        self.assertIn("connector: gate\n", out)
        self.assertIn("usable:    no: ", out)

        self.plane.socket("web", {"socket_type": "http"})
        self.plane.org.node("gate", role="connector", addresses=[])
        self.know(state)
        out, _ = await self.type("connector", "status", "--json")
        facts = json.loads(out)
        self.assertEqual((facts["usable"], facts["sockets"]), (True, ["web"]))
        self.assertTrue(facts["last_contact"])

        # Joining again keeps the keys and the file.
        file.write_text(file.read_text() + "# mine\n")
        out, _ = await self.type(*self.words("connector"), "--json")
        self.assertEqual(json.loads(out)["config"], "connector.toml")
        self.assertTrue(file.read_text().endswith("# mine\n"))
        self.assertEqual(load_private_key(self.base / "connector.key", create=False), key)
        self.assertEqual(self.plane.joins[1]["wireguard_key"], joined["wireguard_key"])

    async def test_connector_mistakes(self) -> None:
        file = self.base / "lone.toml"
        file.write_text('[connector]\nname = "lone"\n')
        words = self.words("connector")
        _, err = await self.type(*words, "--config", "lone.toml", status=1)
        self.assertIn("stands alone", err)
        file.write_text('[connector]\n[control]\nurl = "https://other.example.org"\n')
        _, err = await self.type(*words, "--config", "lone.toml", status=1)
        self.assertIn("follows https://other.example.org", err)
        _, err = await self.type(*words, "--config", "absent/connector.toml", status=1)
        self.assertIn("no such folder", err)
        self.assertEqual(self.plane.joins, [])
        _, err = await self.type(*self.words("connector", "b0i_bad"), status=3)
        self.assertIn("this code is not known", err)
        self.assertFalse((self.base / "connector.toml").exists())
        _, err = await self.type("connector", "status", status=1)
        self.assertIn("border0 connector join URL CODE", err)

    async def test_a_wrong_pin_sees_no_code(self) -> None:
        pin = "sha256:" + "0" * 64
        words = ("join", self.plane.url, "b0i_good", "--ca", pin)
        for noun in ("connector", "node"):
            _, err = await self.type(noun, *words, status=1)
            self.assertIn("border0: ", err)
        self.assertEqual(self.plane.joins, [])

    async def test_device(self) -> None:
        _, err = await self.type("node", "status", status=1)
        self.assertIn("border0 node join URL --ca", err)
        out, _ = await self.type(*self.words("node", "b0i_good", "--name", "laptop"))
        first = "Joined acme as device laptop at 100.64.0.2."
        self.assertEqual(out.splitlines(), [first, "Next: border0 client hosts"])
        data = read_toml(self.home / "client.toml", "")
        key = {"name": "laptop", "private_key_file": "keys/client.key"}
        self.assertEqual(data, {"device": key, "control": {}})
        self.assertEqual(stat.S_IMODE(self.home.stat().st_mode), 0o700)
        load_private_key(self.home / "keys" / "client.key", create=False)
        state = MemberState.open(self.home / "control")
        self.assertEqual(state.node, identifier("gate"))
        self.plane.org.node("gate")
        self.know(state)
        out, _ = await self.type("node", "status")
        self.assertIn("usable:    yes\n", out)
        self.assertIn("addresses: 100.64.0.2, fd62:6f72:6465:7230::2\n", out)

    async def test_device_by_browser(self) -> None:
        asked: list[Any] = []

        class Start(Resource):
            def render_POST(self, request: Any) -> bytes:
                asked.append(json.loads(request.content.read()))
                return json.dumps(started).encode()

        page = "https://control.example.org/device?code=WDJB-MJHT"
        started = {
            "device_code": "d", "user_code": "WDJB-MJHT", "expires_in": 60, "interval": 0.1,
            "verification_uri": page, "verification_uri_complete": page,
        }  # fmt: skip
        approved = {"status": "approved", "interval": 1, "result": {"code": "b0i_good"}}
        grants = Start()
        grants.putChild(b"poll", Answer(lambda body: (200, approved)))
        self.plane.posts["device_authorizations"] = grants
        await self.plane.stop()
        await self.plane.start()
        out, err = await self.type(*self.words("node", "", "--name", "laptop"))
        self.assertIn("Joined acme as device laptop", out)
        own = public_key(load_private_key(self.home / "keys" / "client.key", create=False))
        self.assertIn(f"Open {page}\n", err)
        self.assertIn(f"  code  WDJB-MJHT\n  key   {fingerprint(own)}\n", err)
        wanted = {"public_key": encode_key(own), "name": "laptop", "purpose": "device"}
        self.assertEqual(asked, [wanted])

    async def test_a_device_that_stands_alone_is_kept(self) -> None:
        self.home.mkdir(mode=0o700)
        (self.home / "client.toml").write_text("[device]\n")
        _, err = await self.type(*self.words("node"), status=1)
        self.assertIn("stands alone", err)
        self.assertEqual(self.plane.joins, [])
