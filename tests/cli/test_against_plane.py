"""An organisation looked after by hand: every command against a whole control plane over TLS."""

import json
import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue

from border0.cli import account
from border0.connector.membership import FOLDER
from border0.control import ingest
from border0.control.signin.grants import Grants
from border0.control.signin.storage import SqlSignIn
from border0.keys import encode_key
from border0.relay.ticket import TicketKeys
from border0.secrets import Secret
from tests.control.planes import PlaneCase, reactor
from tests.support import children

SESSION = "01920000-0000-7000-8000-000000000001"


class ByHand(PlaneCase):
    timeout = 240

    async def begin(self) -> None:
        await super().begin()
        self.home = self.base / "home"
        self.sign_in(self.token)

    def sign_in(self, token: str) -> None:
        authority = self.plane.authority
        pem = authority.decode() if authority else ""
        kept = account.Account(self.url, self.plane.pin, pem, Secret(token))
        account.save(self.home, kept)

    async def type(self, *words: str, status: int = 0, home: str = "home") -> str:
        """Run a command; its output. What is for people fits a terminal."""
        environment = {**os.environ, "BORDER0_HOME": str(self.base / home), "PYTHONUTF8": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
        done: Deferred[Any] = getProcessOutputAndValue(
            sys.executable, ["-m", "border0.cli.main", *words], environment, str(self.base), reactor
        )
        out, err, code = await done
        self.said = err.decode()
        self.assertEqual(code, status, self.said)
        self.assertNotIn("Traceback", self.said)
        if "--json" not in words and "invite" not in words:
            self.assertEqual([one for one in out.decode().splitlines() if len(one) > 100], [])
        return out.decode()

    async def objects(self, *words: str) -> list[Any]:
        return [json.loads(line) for line in (await self.type(*words, "--json")).splitlines()]

    async def test_services(self) -> None:
        lab = await self.node("connector", "lab", number=1)
        self.assertIn("lab   yes", await self.type("connector", "ls"))
        self.assertIn(lab.state.node, await self.type("connector", "show", "lab"))
        document = {
            "permissions": {"database": {}},
            "condition": {"who": {"email": ["owner@example.org"]}},
        }
        (self.base / "policy.json").write_text(json.dumps(document))
        await self.type("policy", "add", "eng", "--file", "policy.json", "--description", "x")
        await self.type(
            "socket", "create", "shop-db", "--upstream", "postgres://app@db.example.org/shop",
            "--password", "from:env:SHOP_PW", "--tag", "env=prod", "--policy", "eng",
        )  # fmt: skip
        text = await self.type("socket", "ls")
        for word in ("shop-db", "database", "5432", "lab", "eng"):
            self.assertIn(word, text)
        await self.type("socket", "update", "shop-db", "--description", "the shop")
        text = await self.type("socket", "show", "shop-db")
        for word in ("the shop", ".border0.internal port 5432", "from:env:SHOP_PW"):
            self.assertIn(word, text)

        asked = ("policy", "explain", "shop-db", "--email", "owner@example.org")
        self.assertIn("decision:  allowed", await self.type(*asked, "--database", "shop"))
        document["condition"]["who"]["email"] = ["alice@example.org"]
        (self.base / "policy.json").write_text(json.dumps(document))
        await self.type("policy", "edit", "eng", "--file", "policy.json", "--comment", "less")
        self.assertIn("decision:  denied", await self.type(*asked, status=3))
        self.assertIn("shop-db", await self.type("policy", "show", "eng"))
        await self.type("policy", "detach", "eng", "shop-db")
        await self.type("policy", "attach", "eng", "shop-db")
        (policy,) = await self.objects("policy", "ls")
        self.assertEqual((policy["name"], len(policy["socket_ids"])), ("eng", 1))
        (self.base / "policy.json").write_text('{"permissions": {"shh": {}}}')
        await self.type("policy", "edit", "eng", "--file", "policy.json", status=1)
        self.assertIn("shh", self.said)

        await self.session(lab)
        text = await self.type("audit", "ls")
        self.assertLess(text.index("policy.create"), text.index("policy.update"))
        self.assertIn("session.start", text)
        await self.type("policy", "detach", "eng", "shop-db")
        await self.type("policy", "delete", "eng")
        await self.type("socket", "delete", "shop-db")
        await self.type("socket", "show", "shop-db", status=1)
        self.assertIn("`border0 socket ls`", self.said)

    async def session(self, lab: Any) -> None:
        start = {
            "v": 1, "id": "01920000-0000-7000-8000-0000000000aa", "type": "session.start",
            "time": "2026-11-22T10:00:00.000000Z", "org": self.org, "session": SESSION,
            "actor": {"user": "owner@example.org", "device": "laptop", "address": "192.0.2.1"},
            "socket": "shop-db", "result": "ok", "protocol": "database",
        }  # fmt: skip
        await self.plane.store.change(
            lambda tx: ingest.ingest(tx, lab.state.node, [json.dumps(start)]),
            org=self.org,
            actor="test",
        )
        self.assertIn("owner@example.org", await self.type("session", "ls", "--live"))
        self.assertIn("session.start", await self.type("session", "show", SESSION[-12:]))
        typed = Deferred.fromCoroutine(self.type("session", "kill", SESSION[-12:]))
        await self.waiter.until(lambda: lab.commands)
        lab.answer(lab.commands[0].id, True, "")
        self.assertIn("Ended 000000000001: owner@example.org at shop-db.", await typed)

    async def test_people(self) -> None:
        link = await self.type("user", "create", "alice@example.org", "--name", "Alice")
        self.assertTrue(link.startswith(f"{self.url}/"), link)
        await self.type("group", "create", "eng")
        done = await self.type("group", "add", "eng", "alice@example.org", "owner@example.org")
        self.assertIn("alice@example.org", done)
        await self.type("group", "remove", "eng", "owner@example.org")
        self.assertIn("members:   alice@example.org\n", await self.type("group", "show", "eng"))
        await self.type("user", "update", "alice@example.org", "--disable")
        self.assertRegex(await self.type("user", "ls"), r"alice@example\.org +Alice +member +dis")
        await self.type("user", "delete", "alice@example.org")
        await self.type("group", "delete", "eng")

        await self.type("service-account", "create", "ci", "--role", "admin")
        self.assertIn("ci", await self.type("service-account", "ls"))
        words = ("token", "create", "deploy", "--service-account", "ci", "--scope", "user.read")
        token = (await self.type(*words)).strip()
        self.assertTrue(token.startswith("b0s_"))
        self.sign_in(token)
        self.assertIn("owner@example.org", await self.type("user", "ls"))
        await self.type("user", "delete", "owner@example.org", status=3)
        self.sign_in(self.token)
        self.assertIn("deploy", await self.type("token", "ls"))
        mine = (await self.type("token", "create", "mine", "--scope", "policy.read")).strip()
        self.sign_in(mine)
        await self.type("policy", "ls")
        await self.type("user", "ls", status=3)
        self.sign_in(self.token)
        await self.type("token", "revoke", "deploy")
        self.sign_in(token)
        await self.type("whoami", status=3)
        self.assertIn(f"border0 login {self.url} --ca {self.plane.pin}", self.said)
        self.sign_in(self.token)
        await self.type("service-account", "show", "ci")
        await self.type("service-account", "delete", "ci")
        self.assertIn("owner", await self.type("whoami"))
        await self.type("logout")
        await self.type("whoami", status=1)

    async def test_machines(self) -> None:
        printed = (await self.type("connector", "invite", "gate")).split()
        self.assertEqual(printed[:3], ["border0", "connector", "join"])
        await self.type(*printed[1:])
        self.assertEqual((await self.objects("connector", "ls"))[0]["name"], "gate")
        await self.type(*printed[1:], status=3)
        printed = (await self.type("device", "invite", "phone")).split()
        await self.type(*printed[1:], home="phone")
        self.assertIn("phone", await self.type("node", "status", home="phone"))
        self.assertIn("owner@example.org", await self.type("device", "ls"))
        await self.type("device", "approve", "phone")
        self.assertIn("approved", await self.type("device", "show", "phone"))
        token = (await self.type("connector", "token", "gate")).strip()
        await self.type("connector", "join", self.url, token, "--ca", self.plane.pin)
        await self.type("device", "delete", "phone")
        await self.type("connector", "delete", "gate")
        await self.type("connector", "create", "other")
        self.assertRegex(await self.type("connector", "ls"), "other +no .*not joined")

    async def test_join_and_start(self) -> None:
        """From an invite to a connector that is online, with the printed command."""
        printed = (await self.type("connector", "invite", "gate")).split()
        log = self.base / "log"
        words = [sys.executable, "-m", "border0.cli.main", *printed[1:], "--start"]
        child = children.spawn([*words, "--listen-port", "0"], output=log, folder=self.base)
        self.addCleanup(children.end, child)
        heard = self.base / "state" / FOLDER / "map"

        def following() -> bool:
            return child.poll() is not None or heard.exists()

        await deferToThread(children.wait_until, following, 60, "the connector follows")
        self.assertIsNone(child.poll(), log.read_text())
        self.assertRegex(await self.type("connector", "ls"), "gate +yes ")
        self.assertIn("usable:    yes", await self.type("connector", "status"))

    async def test_relays(self) -> None:
        lab = await self.node("connector", "lab", number=1)
        key = encode_key(bytes([201]) * 32)
        await self.type("relay", "add", "eu", "--host", "relay.example.org", "--key", key)
        await self.waiter.until(lambda: lab.relays() and lab.ticket(lab.relays()[0].id))
        (found,) = lab.relays()
        self.assertIn(found.id, self.said)
        self.assertIn("relay.example.org:443/relay", await self.type("relay", "ls"))
        await self.type("relay", "set", "eu", "--drain", "--region", "eu")
        await self.waiter.until(lambda: lab.relays()[0].drain)
        self.assertIn("drains", await self.type("relay", "show", "eu"))
        file = await self.type("relay", "ticket-keys")
        (self.base / "control.toml").write_text('[control]\nstate_dir = "state"\n')
        same = await self.type("control", "ticket-keys", "--config", "control.toml")
        self.assertEqual(json.loads(file), json.loads(same))
        ticket = lab.ticket(found.id)
        assert ticket is not None
        TicketKeys.from_json(file.encode()).verify(ticket, found.id, self.plane.wall())
        await self.type("relay", "add", "eu", "--host", "x", "--key", key, status=1)
        self.assertIn("is taken", self.said)
        await self.type("relay", "rm", "eu")
        await self.waiter.until(lambda: not lab.relays())

    async def test_login(self) -> None:
        started: Deferred[str] = Deferred()
        start = Grants.start

        async def watched(grants: Grants, *arguments: Any) -> Any:
            made = await start(grants, *arguments)
            started.callback(made.user_code)
            return made

        self.patch(Grants, "start", watched)
        typed = Deferred.fromCoroutine(
            self.type("login", self.url, "--ca", self.plane.pin, home="new")
        )
        code = await started
        state = SqlSignIn(self.plane.store, self.plane.keyring.server_key)
        owner = await state.get(self.owner)
        assert owner is not None
        grants, now = Grants(state), self.plane.wall()
        self.assertIsNotNone(await grants.claim(code, "browser", now))
        self.assertIsNotNone(await grants.decide(code, "browser", owner, True, now))
        self.assertIn("Signed in as owner@example.org (owner) of ", await typed)
        self.assertIn(f"Open {self.url}/device?code={code}\n", self.said)
        self.assertIn("owner@example.org", await self.type("whoami", home="new"))
