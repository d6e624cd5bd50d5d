"""What people type to look after an organisation, against a control plane that answers as ours."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any
from unittest import mock

from border0.cli import account, editor, login
from border0.keys import decode_key, fingerprint
from tests.cli.case import TOKEN, Commands
from tests.support.fakeapi import Asked, refusal

AT = "2926-11-22T13:05:59.000000Z"
SHOWN = "2926-11-22 15:05:59"
IAM = "/organizations/iam"


class SignedIn(Commands):
    def setUp(self) -> None:
        super().setUp()
        self.api = self.serve()
        self.routes = self.api.routes
        self.sign_in(self.api)

    def body(self, method: str, path: str) -> Any:
        return self.api.last(method, path).body


class Login(Commands):
    def setUp(self) -> None:
        super().setUp()
        self.api = self.serve()
        self.answers: list[dict[str, Any]] = []
        self.slept: list[float] = []
        self.patch(login.time, "sleep", self.slept.append)
        self.api.routes |= {
            "POST /device_authorizations": {
                "device_code": "the-device-code",
                "user_code": "WDJB-MJHT",
                "verification_uri": f"{self.api.url}/device",
                "verification_uri_complete": f"{self.api.url}/device?code=WDJB-MJHT",
                "expires_in": 600,
                "interval": 5,
            },
            "POST /device_authorizations/poll": lambda asked: self.answers.pop(0),
            "GET /whoami": {"name": "alice@example.org", "role": "owner"},
        }

    def approved(self) -> dict[str, Any]:
        result = {"token": TOKEN, "org": "1", "org_name": "acme"}
        return {"status": "approved", "interval": 5, "result": result}

    def test_login(self) -> None:
        self.answers = [
            {"status": "pending", "interval": 5, "result": {}},
            {"status": "slow_down", "interval": 10, "result": {}},
            self.approved(),
        ]
        done = self.ask("login", self.api.url, "--ca", self.api.pin)
        self.assertEqual(done.lines, ["Signed in as alice@example.org (owner) of acme."])
        self.assertIn(f"Open {self.api.url}/device?code=WDJB-MJHT\n", done.err)
        self.assertIn("WDJB-MJHT", done.err)
        self.assertEqual(self.slept, [5.0, 5.0, 10.0])
        started = self.body_of(0)
        self.assertEqual(started["purpose"], "login")
        self.assertTrue(re.fullmatch("[a-z0-9-]+", started["name"]))
        self.assertEqual(len(decode_key(started["public_key"])), 32)
        self.assertIn(fingerprint(decode_key(started["public_key"])), done.err)
        polled = self.body_of(1)
        wanted = {"device_code": "the-device-code", "public_key": started["public_key"]}
        self.assertEqual(polled, wanted)
        kept = account.load(self.home)
        self.assertEqual((kept.url, kept.ca, kept.org_name), (self.api.url, self.api.pin, "acme"))
        self.assertEqual(stat.S_IMODE((self.home / "account.json").stat().st_mode), 0o600)
        # Nothing went with a token before there was one.
        self.assertEqual(
            ["authorization" in one.headers for one in self.api.asked],
            [False, False, False, False, True],
        )

    def body_of(self, number: int) -> Any:
        return self.api.asked[number].body

    def test_again_with_the_kept_address(self) -> None:
        self.sign_in(self.api)
        self.answers = [self.approved()]
        done = self.ask("login", "--json")
        self.assertEqual(done.objects[0]["user_code"], "WDJB-MJHT")
        self.assertEqual(done.objects[1]["name"], "alice@example.org")
        self.assertEqual(account.load(self.home).ca, self.api.pin)

    def test_slow_down_without_an_interval(self) -> None:
        self.answers = [{"status": "slow_down"}, {"status": "slow_down"}, self.approved()]
        self.ask("login", self.api.url, "--ca", self.api.pin)
        self.assertEqual(self.slept, [5.0, 10.0, 15.0])

    def test_a_broken_account_is_repaired(self) -> None:
        file = self.home / "account.json"
        file.write_text("{")
        self.fails("login", says="is open to others")
        file.chmod(0o600)
        self.fails("login", says="sign in again: border0 login URL")
        self.answers = [self.approved()]
        self.ask("login", self.api.url, "--ca", self.api.pin)
        self.assertEqual(account.load(self.home).url, self.api.url)

    def test_denied_and_expired(self) -> None:
        self.answers = [{"status": "denied", "interval": 5}]
        words = ("login", self.api.url, "--ca", self.api.pin)
        self.fails(*words, status=3, says="refused in the browser")
        self.answers = [{"status": "expired", "interval": 5}]
        self.fails(*words, says="run the command again")
        self.answers = [{"status": "approved", "interval": 5, "result": {}}]
        self.fails(*words, says="sent no token")
        self.answers = [{"status": "approved", "result": {"token": "a\r\nX: b"}}]
        self.fails(*words, says="is no token")
        self.assertFalse((self.home / "account.json").exists())

    def test_a_wrong_pin(self) -> None:
        pin = "sha256:" + "0" * 64
        self.fails("login", self.api.url, "--ca", pin, says="nothing was sent to it")
        self.fails("login", self.api.url, "--ca", "sha256:1", says="64 hexadecimal digits")
        self.fails("login", self.api.url, says=f"border0 login {self.api.url} --ca sha256:...")
        self.assertEqual(self.api.asked, [])

    def test_no_address(self) -> None:
        self.fails("login", status=2, says="border0 login URL --ca")
        self.fails("login", "http://127.0.0.1", says="https:// only")

    def test_logout(self) -> None:
        self.sign_in(self.api)
        self.api.routes["DELETE /token/current"] = (204, None)
        self.assertEqual(self.ask("logout").lines, [f"Left {self.api.url}."])
        self.assertEqual(self.api.calls(), ["DELETE /token/current"])
        self.assertFalse((self.home / "account.json").exists())
        self.sign_in(self.api)
        self.api.routes["DELETE /token/current"] = refusal(401, "no")
        self.assertEqual(self.ask("logout").err, "")
        self.sign_in(self.api)
        self.api.routes["DELETE /token/current"] = refusal(503, "busy")
        self.assertIn("was not revoked: busy", self.ask("logout").err)
        self.assertFalse((self.home / "account.json").exists())
        self.sign_in(self.api, url="https://127.0.0.1:1")
        self.assertIn("was not revoked", self.ask("logout").err)


class Who(SignedIn):
    def test_whoami(self) -> None:
        who = {"org": "o", "id": "u", "name": "alice@example.org", "role": "owner"}
        self.routes["GET /whoami"] = {**who, "permissions": ["user.read"], "csrf_token": ""}
        self.routes["GET /organization"] = {"id": "o", "name": "acme"}
        text = self.ask("whoami").out
        for word in ("alice@example.org", "owner", "user.read", f"acme ({self.api.url})"):
            self.assertIn(word, text)
        self.assertEqual(self.ask("whoami", "--json").objects[0]["permissions"], ["user.read"])


SOCKET = {
    "socket_id": "5c0e0000-0000-4000-8000-000000000001",
    "name": "shop-db",
    "description": "",
    "socket_type": "database",
    "port": 5432,
    "tags": {"env": "prod", "x": ""},
    "recording_enabled": True,
    "connectors": [{"connector_id": "c1", "name": "gate", "online": False}],
    "policies": [{"id": "p1", "name": "eng-read", "org_wide": False, "attached": True}],
    "upstream_configuration": {"service_type": "database", "x": "a\u202eb"},
    "private_network_ipv4": "100.126.0.1",
    "private_network_ipv6": "fd00::1",
    "dnsname": "shop-db.acme.border0.internal",
    "status": "no connector online",
    "updated_at": AT,
}


class Sockets(SignedIn):
    def setUp(self) -> None:
        super().setUp()
        self.routes |= {
            "GET /socket": {"items": [SOCKET, {**SOCKET, "name": "x" * 63, "status": "y" * 200}]},
            "GET /socket/shop-db": SOCKET,
            "GET /connectors": {"items": [{"connector_id": "c1", "name": "gate"}]},
            "GET /connector/gate": {"connector_id": "c1", "name": "gate"},
            "GET /policy/eng-read": {"id": "p1", "name": "eng-read"},
            "POST /socket": lambda asked: (201, SOCKET),
            "PUT /socket/shop-db": SOCKET,
            "DELETE /socket/shop-db": (204, None),
        }

    def test_ls_and_show(self) -> None:
        done = self.ask("socket", "ls")
        for word in ("shop-db", "database", "5432", "100.126.0.1", "gate", "eng-read"):
            self.assertIn(word, done.lines[1])
        self.assertEqual(len(done.lines), 3)
        self.assertEqual(self.ask("socket", "ls", "--json").objects[0], SOCKET)
        self.assertEqual(len(self.ask("socket", "ls", "--limit", "1").lines), 2)
        self.assertEqual(self.api.asked[-1].query, {"limit": "1"})
        text = self.ask("socket", "show", "shop-db").out
        for word in (
            "shop-db.acme.border0.internal port 5432",
            "gate (offline)",
            SHOWN,
            "env=prod",
        ):
            self.assertIn(word, text)
        self.assertIn('"a\\u202eb"', text)
        self.assertEqual(self.ask("socket", "show", "shop-db", "--json").objects, [SOCKET])
        self.routes["GET /socket/x"] = refusal(404, "there is no such socket")
        self.fails("socket", "show", "x", says="`border0 socket ls` lists")

    def test_create(self) -> None:
        url = "postgres://app@db.example.org/shop"
        words = ("socket", "create", "shop-db", "--upstream", url, "--password", "from:env:SHOP_PW")
        done = self.ask(*words, "--policy", "eng-read", "--tag", "env=prod")
        self.assertEqual(done.lines, ["Made socket shop-db, shop-db.acme.border0.internal."])
        self.assertIn('below [local]:\n  secrets = ["env:SHOP_PW"]\n', done.err)
        body = self.body("POST", "/socket")
        configuration = body.pop("upstream_configuration")
        wanted = {"name": "shop-db", "socket_type": "database", "connector_ids": ["c1"]}
        self.assertEqual(body, {**wanted, "policies": ["p1"], "tags": ["env=prod"]})
        inner = configuration["database_service_configuration"]
        inner = inner["standard_database_service_configuration"]
        self.assertEqual((inner["hostname"], inner["database_name"]), ("db.example.org", "shop"))
        login = {"username": "app", "password": "from:env:SHOP_PW"}
        self.assertEqual(inner["username_and_password_auth_configuration"], login)

    def test_create_by_border0s_own_flags(self) -> None:
        done = self.ask(
            "socket", "create", "--name", "web", "--type", "http", "--upstream",
            "http://web.example.org:8080", "--connector", "gate", "--recording", "off", "--json",
        )  # fmt: skip
        self.assertEqual(done.objects, [SOCKET])
        body = self.body("POST", "/socket")
        self.assertEqual((body["name"], body["recording_enabled"]), ("web", False))
        self.assertEqual(body["connector_ids"], ["c1"])

    def test_a_typed_password_goes_to_the_control_plane_alone(self) -> None:
        with mock.patch("getpass.getpass", return_value="hunter2"):
            done = self.ask(
                "socket", "create", "shop-db", "--upstream", "postgres://app@db.example.org/shop",
                terminal=True,
            )  # fmt: skip
        self.assertIn('"password": "hunter2"', self.api.asked[-1].raw.decode())
        self.assertNotIn("hunter2", done.out + done.err)
        url = "postgres://app:hunter2@db.example.org/shop"
        done = self.fails("socket", "create", "x", "--upstream", url, status=2, says="--upstream")
        self.assertNotIn("hunter2", done.err)

    def test_create_from_a_file(self) -> None:
        toml = self.base / "connector.toml"
        toml.write_text(
            '[connector]\nname = "lab"\n[[socket]]\nname = "web"\nsocket_type = "http"\n'
            'policies = ["eng-read"]\n[socket.upstream_configuration]\nservice_type = "http"\n'
            '[[socket]]\nname = "other"\n'
        )
        self.ask("socket", "create", "web", "--file", str(toml))
        body = self.body("POST", "/socket")
        self.assertEqual((body["name"], body["policies"]), ("web", ["p1"]))
        self.fails("socket", "create", "--file", str(toml), status=2, says="web, other")
        text = json.dumps({"name": "web", "upstream_configuration": {"service_type": "http"}})
        self.ask("socket", "create", "--file", "-", text=text)
        self.assertEqual(self.body("POST", "/socket")["name"], "web")
        self.fails("socket", "create", "--file", "-", text="{nonsense", says="not JSON")
        self.fails("socket", "create", "--file", "absent", says="No such file")

    def test_what_the_connector_must_permit(self) -> None:
        for url, line in (
            ("http://localhost:8080", 'allow = ["localhost:8080"]'),
            ("http://[::1]:8080", 'allow = ["[::1]:8080"]'),
        ):
            self.assertIn(line, self.ask("socket", "create", "web", "--upstream", url).err)
        done = self.ask("socket", "create", "web", "--upstream", "http://web.example.org")
        self.assertEqual(done.err, "")

    def test_create_mistakes(self) -> None:
        self.fails("socket", "create", "x", status=2, says="--upstream URL")
        self.fails("socket", "create", "--upstream", "http://x", status=2, says="a name")
        self.fails("socket", "create", "x", "--upstream", "gopher://x", status=2, says="has ")
        self.fails("socket", "create", "x", "--password", "from:env:X", status=2, says="--upstream")
        self.routes["GET /connectors"] = {"items": [{"connector_id": "1"}, {"connector_id": "2"}]}
        self.fails("socket", "create", "x", "--upstream", "http://x", status=2, says="--connector")
        self.routes["GET /connector/y"] = refusal(404, "there is no such connector")
        words = ("socket", "create", "x", "--upstream", "http://x", "--connector", "y")
        self.fails(*words, says="`border0 connector ls`")
        self.assertEqual(self.api.calls("POST"), [])

    def test_update_and_delete(self) -> None:
        self.ask("socket", "update", "shop-db", "--description", "the shop", "--rename", "shop")
        body = {"description": "the shop", "name": "shop"}
        self.assertEqual(self.body("PUT", "/socket/shop-db"), body)
        self.fails("socket", "update", "shop-db", status=2, says="say what to change")
        self.assertEqual(self.ask("socket", "delete", "shop-db").lines, ["Deleted socket shop-db."])


POLICY = {
    "id": "p1",
    "name": "eng-read",
    "description": "",
    "org_wide": False,
    "policy_data": {"permissions": {"http": {}}, "condition": {"who": {"group": ["eng"]}}},
    "updated_at": AT,
    "socket_ids": ["s1"],
    "version_number": 3,
    "author": "alice@example.org",
}
TEXT = json.dumps({"permissions": {"ssh": {"shell": {}}}, "condition": {}})


class Policies(SignedIn):
    def setUp(self) -> None:
        super().setUp()
        self.text = self.base / "policy.json"
        self.text.write_text(TEXT)
        self.routes |= {
            "GET /policies": {"pagination": {"next_cursor": ""}, "list": [POLICY]},
            "GET /policy/eng-read": (200, POLICY, {"ETag": '"v7"'}),
            "GET /policy/eng-read/socket": {"items": [{"socket_id": "s1", "name": "shop-db"}]},
            "GET /socket/shop-db": SOCKET,
            "POST /policies": (201, POLICY),
            "PUT /policy/eng-read": {**POLICY, "version_number": 4},
            "PUT /policy/eng-read/socket": POLICY,
            "DELETE /policy/eng-read": (204, None),
        }

    def edited(self, *texts: str) -> None:
        """An editor that leaves these texts, one after the other."""
        waiting = list(texts)

        def call(words: list[str]) -> int:
            self.opened = words
            Path(words[-1]).write_text(waiting.pop(0))
            return 0

        self.patch(editor.subprocess, "call", call)

    def test_ls_and_show(self) -> None:
        lines = self.ask("policy", "ls").lines
        self.assertIn(SHOWN, lines[1])
        self.assertEqual(self.ask("policy", "ls", "--json").objects, [POLICY])
        text = self.ask("policy", "show", "eng-read").out
        self.assertIn("shop-db", text)
        shown = json.loads(text[text.index("\n{") :])
        self.assertEqual(shown, POLICY["policy_data"])

    def test_add(self) -> None:
        done = self.ask("policy", "add", "eng-read", "--file", str(self.text), "--orgwide")
        self.assertEqual(done.lines, ["Made policy eng-read."])
        self.assertIn("border0 policy attach eng-read SOCKET", done.err)
        wanted = {"name": "eng-read", "policy_data": json.loads(TEXT), "org_wide": True}
        self.assertEqual(self.body("POST", "/policies"), wanted)
        whole = json.dumps({**POLICY, "id": "other"})
        self.ask("policy", "add", "--name", "copy", "-f", "-", text=whole)
        body = self.body("POST", "/policies")
        self.assertEqual(set(body), {"name", "description", "org_wide", "policy_data"})
        self.assertEqual(body["name"], "copy")
        self.fails("policy", "add", "x", status=2, says="--file FILE")
        self.fails("policy", "add", status=2, says="a name")

    def test_edit(self) -> None:
        self.edited(TEXT)
        done = self.ask("policy", "edit", "eng-read", "--comment", "shells", terminal=True)
        self.assertEqual(done.lines, ["Policy eng-read has version 4."])
        self.assertTrue(self.opened[-1].endswith("/eng-read.json"))
        self.assertFalse(Path(self.opened[-1]).parent.exists())
        asked = self.api.last("PUT", "/policy/eng-read")
        self.assertEqual(asked.body, {"policy_data": json.loads(TEXT), "comment": "shells"})
        self.assertEqual(asked.headers["if-match"], '"v7"')

    def test_edit_with_a_file(self) -> None:
        self.ask("policy", "edit", "eng-read", "--file", str(self.text))
        self.assertEqual(self.api.last("PUT", "/policy/eng-read").headers["if-match"], '"v7"')
        self.fails("policy", "edit", "eng-read", status=2, says="--file FILE")

    def test_edit_nothing(self) -> None:
        self.edited(json.dumps(POLICY["policy_data"], indent=2) + "\n")
        done = self.ask("policy", "edit", "eng-read", terminal=True)
        self.assertEqual(done.lines, ["Nothing was changed."])
        self.assertEqual(self.api.calls("PUT"), [])

    def test_edit_again_after_a_mistake(self) -> None:
        answers = [refusal(422, "policy_data.permissions: unknown key 'shh'"), POLICY]
        self.routes["PUT /policy/eng-read"] = lambda asked: answers.pop(0)
        self.edited("{not json", '{"permissions": {"shh": {}}}', TEXT)
        with mock.patch("builtins.input", return_value=""):
            done = self.ask("policy", "edit", "eng-read", terminal=True)
        self.assertIn("not JSON", done.err)
        self.assertIn("unknown key 'shh'", done.err)

    def test_a_text_is_not_lost(self) -> None:
        self.routes["PUT /policy/eng-read"] = refusal(412, "version")
        self.edited(TEXT)
        done = self.fails("policy", "edit", "eng-read", terminal=True, says="changed it meanwhile")
        kept = Path(re.search(r"Your text is in (\S+)", done.err)[1])
        self.assertEqual(kept.read_text(), TEXT)
        self.assertEqual(stat.S_IMODE(kept.parent.stat().st_mode), 0o700)
        kept.unlink()
        kept.parent.rmdir()
        with mock.patch("builtins.input", return_value="n"):
            self.edited("{")
            done = self.fails("policy", "edit", "eng-read", terminal=True, says="not JSON")
        kept = Path(re.search(r"Your text is in (\S+)", done.err)[1])
        kept.unlink()
        kept.parent.rmdir()

    def test_an_editor_that_is_not_there(self) -> None:
        with mock.patch.dict(os.environ, {"EDITOR": "/nonexistent/editor"}):
            self.fails("policy", "edit", "eng-read", terminal=True, says="EDITOR=nano")

    def test_attach_and_detach(self) -> None:
        self.ask("policy", "attach", "eng-read", "shop-db")
        wanted = {"actions": [{"action": "add", "id": SOCKET["socket_id"]}]}
        self.assertEqual(self.body("PUT", "/policy/eng-read/socket"), wanted)
        self.ask("policy", "detach", "eng-read", "shop-db")
        actions = self.body("PUT", "/policy/eng-read/socket")["actions"]
        self.assertEqual(actions[0]["action"], "remove")
        self.fails("policy", "attach", "eng-read", "absent", says="`border0 socket ls`")
        self.assertEqual(self.ask("policy", "delete", "eng-read").status, 0)

    def test_explain(self) -> None:
        found = {
            "allowed": False, "policy": "eng-read", "clause": "where.allowed_ip",
            "reason": "the address is not known", "time": AT, "ip_address": None,
            "subject": {"user": "alice@example.org", "groups": ["eng"], "device": "laptop"},
            "steps": [{"policy": "eng-read", "clause": "who", "outcome": "met", "detail": "eng"}],
        }  # fmt: skip
        self.routes["POST /policies/explain"] = (200, found)
        words = ("policy", "explain", "shop-db", "--email", "alice@example.org", "--database", "x")
        done = self.run_(*words)
        self.assertEqual(done.status, 3)
        for word in ("denied", "where.allowed_ip", "the address is not known", SHOWN, "met"):
            self.assertIn(word, done.out)
        wanted = {"socket": "shop-db", "email": "alice@example.org", "database": "x"}
        self.assertEqual(self.body("POST", "/policies/explain"), wanted)
        self.assertEqual(self.run_(*words, "--json").objects, [found])
        grant = {"database": "x", "read_only": True, "max_session_seconds": 60}
        self.routes["POST /policies/explain"] = (200, {**found, "allowed": True, "grant": grant})
        self.assertIn("x: reads only", self.ask(*words).out)
        self.assertEqual(self.run_("policy", "explain", "shop-db").status, 2)


class Machines(SignedIn):
    CONNECTOR = {
        "connector_id": "c1", "name": "gate", "description": "", "tags": [], "online": True,
        "address": "192.0.2.7", "joined": True, "approved": False, "locked": False,
        "facts": {"os": "linux"}, "socket_ids": ["s1"], "expires_at": None, "created_at": AT,
    }  # fmt: skip
    DEVICE = {
        "id": "d1", "name": "laptop", "user": {"id": "u", "email": "alice@example.org"},
        "tags": [], "addresses": ["100.64.0.1", "fd00::1"], "approved": False, "locked": False,
        "expires_at": AT, "facts": {"os": "linux"}, "online": True, "address": "192.0.2.7",
        "created_at": AT,
    }  # fmt: skip

    def test_connectors(self) -> None:
        self.routes |= {
            "GET /connectors": {"items": [self.CONNECTOR, {**self.CONNECTOR, "joined": False}]},
            "GET /connector/gate": self.CONNECTOR,
            "POST /connector": (201, self.CONNECTOR),
            "PUT /connector/gate": {**self.CONNECTOR, "approved": True},
            "DELETE /connector/gate": (204, None),
            "POST /connector/token": (201, {"id": "t", "token": "b0t_once"}),
        }
        lines = self.ask("connector", "ls").lines
        self.assertIn("waits for approval", lines[1])
        self.assertIn("not joined", lines[2])
        self.assertIn("192.0.2.7", self.ask("connector", "show", "gate").out)
        made = self.ask("connector", "create", "gate", "--description", "x")
        self.assertIn("border0 connector invite gate", made.err)
        self.assertEqual(self.ask("connector", "token", "gate").lines, ["b0t_once"])
        self.assertEqual(self.body("POST", "/connector/token")["connector_id"], "c1")
        self.assertIn("approved", self.ask("connector", "approve", "gate").out)
        self.ask("connector", "delete", "gate")

    def test_invites(self) -> None:
        line = f"border0 connector join {self.api.url} b0i_once --ca {self.api.pin}"
        self.routes["POST /invites"] = (
            201,
            {"code": "b0i_once", "command": line, "expires_at": AT},
        )
        done = self.ask_wide("connector", "invite", "gate")
        self.assertEqual(done.lines, [line])
        self.assertIn(SHOWN, done.err)
        wanted = {"kind": "connector", "name": "gate", "expires_in_seconds": 900}
        self.assertEqual(self.body("POST", "/invites"), wanted)
        self.ask_wide("device", "invite", "phone", "--user", "bob@example.org", "--minutes", "60")
        wanted = {"kind": "device", "name": "phone", "expires_in_seconds": 3600}
        self.assertEqual(self.body("POST", "/invites"), {**wanted, "user": "bob@example.org"})
        self.assertEqual(self.ask("device", "invite", "x", "--json").objects[0]["command"], line)

    def ask_wide(self, *words: str) -> Any:
        """A command for another machine is never cut."""
        done = self.run_(*words)
        self.assertEqual(done.status, 0, done.err)
        return done

    def test_devices(self) -> None:
        self.routes |= {
            "GET /devices": {"items": [self.DEVICE]},
            "GET /device/laptop": self.DEVICE,
            "POST /device/laptop/approve": (200, {**self.DEVICE, "approved": True}),
            "DELETE /device/laptop": (204, None),
        }
        lines = self.ask("device", "ls", "--user", "alice@example.org").lines
        for word in ("laptop", "alice@example.org", "100.64.0.1", "waits for approval", SHOWN):
            self.assertIn(word, lines[1])
        self.assertEqual(self.api.asked[-1].query["user"], "alice@example.org")
        self.assertIn("fd00::1", self.ask("device", "show", "laptop").out)
        self.routes["GET /device/laptop"] = {**self.DEVICE, "expires_at": "2020-01-01T00:00:00Z"}
        self.assertIn("expired", self.ask("device", "show", "laptop").out)
        self.assertEqual(
            self.ask("device", "approve", "laptop").lines, ["Device laptop: approved."]
        )
        self.assertEqual(self.api.last("POST", "/device/laptop/approve").raw, b"")
        self.ask("device", "delete", "laptop")


class People(SignedIn):
    ALICE = {
        "id": "u1", "email": "alice@example.org", "name": "Alice", "role": "owner",
        "state": "active", "groups": [{"id": "g", "name": "eng"}], "created_at": AT,
    }  # fmt: skip

    LINK = {
        "setup_link": "https://x/setup?link=once",
        "setup_link_expires_at": "2030-01-02T12:00:00.000000Z",
    }

    def test_users(self) -> None:
        self.routes |= {
            f"GET {IAM}/users": {"items": [self.ALICE]},
            f"POST {IAM}/users": (201, {**self.ALICE, **self.LINK}),
            f"GET {IAM}/user/alice%40example.org": self.ALICE,
            f"PUT {IAM}/user/alice%40example.org": {**self.ALICE, "state": "disabled"},
            f"DELETE {IAM}/user/alice%40example.org": (204, None),
        }
        self.assertIn("eng", self.ask("user", "ls").lines[1])
        done = self.ask("user", "create", "bob@example.org", "--role", "admin")
        self.assertEqual(done.lines, ["https://x/setup?link=once"])
        self.assertIn("it works once, until 2030-01-02 ", done.err)
        body = {"email": "bob@example.org", "role": "admin"}
        self.assertEqual(self.body("POST", f"{IAM}/users"), body)
        self.assertIn("Alice", self.ask("user", "show", "alice@example.org").out)
        done = self.ask("user", "update", "alice@example.org", "--disable")
        self.assertEqual(self.body("PUT", f"{IAM}/user/alice%40example.org"), {"disabled": True})
        self.assertIn("disabled", done.out)
        self.fails("user", "update", "alice@example.org", status=2, says="say what to change")
        self.assertEqual(self.run_("user", "create", "x", "--role", "king").status, 2)
        self.ask("user", "delete", "alice@example.org")
        self.routes[f"DELETE {IAM}/user/alice%40example.org"] = refusal(403, "it needs user.write")
        self.fails("user", "delete", "alice@example.org", status=3, says="it needs user.write")

    def test_groups(self) -> None:
        group = {"id": "g1", "name": "eng", "description": "", "member_count": 1, "created_at": AT}
        members = [{"id": "u1", "email": "alice@example.org", "name": ""}]

        def change(asked: Asked) -> Any:
            chosen = asked.body["user_ids"]
            return {**group, "members": [{"id": each, "email": each} for each in chosen]}

        self.routes |= {
            f"GET {IAM}/groups": {"items": [group]},
            f"POST {IAM}/groups": (201, group),
            f"GET {IAM}/group/eng": (200, {**group, "members": members}, {"ETag": '"v2"'}),
            f"PUT {IAM}/group/eng/memberships": change,
            f"DELETE {IAM}/group/eng": (204, None),
            f"GET {IAM}/user/bob": {"id": "u2", "email": "bob@example.org"},
            f"GET {IAM}/user/alice": {"id": "u1", "email": "alice@example.org"},
        }
        self.assertIn("eng", self.ask("group", "ls").lines[1])
        self.ask("group", "create", "eng", "--description", "engineers")
        self.assertIn("alice@example.org", self.ask("group", "show", "eng").out)
        done = self.ask("group", "add", "eng", "bob")
        self.assertEqual(done.lines, ["Group eng: alice@example.org, bob@example.org."])
        asked = self.api.last("PUT", f"{IAM}/group/eng/memberships")
        self.assertEqual(asked.body, {"user_ids": ["u1", "u2"]})
        self.assertEqual(asked.headers["if-match"], '"v2"')
        self.assertEqual(self.ask("group", "remove", "eng", "alice").lines, ["Group eng: nobody."])
        self.assertEqual(self.body("PUT", f"{IAM}/group/eng/memberships"), {"user_ids": []})
        self.fails("group", "add", "eng", "carol", says="`border0 user ls`")
        self.ask("group", "delete", "eng")

    def test_service_accounts_and_tokens(self) -> None:
        ci = {"service_account_id": "a1", "name": "ci", "role": "member", "active": True,
              "last_seen_at": None, "description": "", "created_at": AT}  # fmt: skip
        ids = ["aaaaaaaa-1" + "0" * 26, "aaaaaaaa-2" + "0" * 26]
        tokens = [
            {"id": ids[0], "kind": "user", "name": "laptop", "owner": {"name": "alice"},
             "scopes": None, "expires_at": AT, "last_used_at": None, "current": True},
            {"id": ids[1], "kind": "service", "name": "deploy", "owner": {"name": "ci"},
             "scopes": ["session.read"], "expires_at": AT, "last_used_at": AT},
        ]  # fmt: skip
        where = f"{IAM}/service_accounts"
        self.routes |= {
            f"GET {where}": {"items": 1, "list": [ci]},
            f"POST {where}": (200, ci),
            f"GET {where}/ci": ci,
            f"DELETE {where}/ci": (204, None),
            f"POST {where}/ci/tokens": (200, {"id": ids[1], "name": "deploy", "token": "b0s_once"}),
            "GET /tokens": {"items": [*tokens, {**tokens[0], "id": "old", "revoked": True}]},
            "POST /tokens": (201, {**tokens[0], "token": "b0u_once"}),
            f"DELETE /token/{ids[1]}": (204, None),
        }
        self.assertIn("never", self.ask("service-account", "ls").lines[1])
        done = self.ask("service-account", "create", "ci", "--role", "admin")
        self.assertIn("border0 token create NAME --service-account ci", done.err)
        self.assertIn("a1", self.ask("service-account", "show", "ci").out)
        words = ("token", "create", "deploy", "--service-account", "ci")
        self.assertEqual(self.ask(*words, "--scope", "session.read").lines, ["b0s_once"])
        self.assertEqual(self.body("POST", f"{where}/ci/tokens")["scopes"], ["session.read"])
        self.assertEqual(self.ask("token", "create", "mine", "--days", "1").lines, ["b0u_once"])
        body = {"name": "mine", "expires_in_seconds": 86400}
        self.assertEqual(self.body("POST", "/tokens"), body)
        self.fails("token", "create", "x", "--network", "::/0", status=2, says="--network")
        lines = self.ask("token", "ls").lines
        self.assertTrue(lines[1].startswith("aaaaaaaa-1  "), lines)
        self.assertIn("this one", lines[1])
        self.assertEqual(self.ask("token", "ls", "--json").objects, tokens)
        self.assertEqual(len(self.ask("token", "ls", "--all").lines), 4)
        self.assertEqual(self.ask("token", "ls", "--limit", "1", "--json").objects, tokens[:1])
        self.fails("token", "revoke", "aaaa", says="2 tokens have aaaa")
        self.assertEqual(self.ask("token", "revoke", "aaaaaaaa-2").lines, ["Revoked deploy of ci."])
        self.ask("service-account", "delete", "ci")


class Sessions(SignedIn):
    FIRST = {
        "session_id": "019a0000-0000-7000-8000-00000000aaaa", "session_type": "postgres",
        "socket_id": "s1", "socket_name": "shop-db", "user_email": "alice@example.org",
        "device": "laptop", "client_ip": "100.64.0.1", "start_time": AT, "end_time": None,
        "live": True, "result": "success", "status": "", "reason": "", "bytes_in": 10,
        "bytes_out": 2_400_000, "killed": False, "killed_by": "", "recordings": [],
    }  # fmt: skip
    SECOND = {
        **FIRST, "session_id": "019a0000-0000-7000-8000-00000000bbbb", "live": False,
        "start_time": "2026-11-22T12:00:00Z", "end_time": "2026-11-22T12:01:02Z",
        "status": "closed", "recordings": [{"recording_id": "r1", "start_time": AT}],
    }  # fmt: skip
    EVENT = {"v": 1, "id": "e1", "time": AT, "type": "session.end", "result": "ok",
             "actor": {"user": "alice@example.org"}, "socket": "shop-db"}  # fmt: skip

    def setUp(self) -> None:
        super().setUp()

        def found(asked: Asked) -> Any:
            items = [self.FIRST, self.SECOND]
            if asked.query.get("live") == "true":
                items = items[:1]
            return {"pagination": {"next_cursor": ""}, "list": items}

        first = self.EVENT | {"id": "e0", "type": "session.start"}
        change = {"id": "e2", "type": "policy.update", "target": {"id": "p1", "name": "eng-read"}}
        self.changed = {
            key: value for key, value in (self.EVENT | change).items() if key != "socket"
        }
        self.killed = {**self.FIRST, "killed": True, "kill": {"ended": True, "detail": ""}}
        self.routes |= {
            "GET /sessions": found,
            "GET /audit_events": {"items": [self.changed, self.EVENT, first]},
            f"PUT /session/s1/{self.FIRST['session_id']}": lambda asked: self.killed,
        }

    def test_ls(self) -> None:
        lines = self.ask("session", "ls", "--user", "alice@example.org").lines
        self.assertIn("00000000bbbb", lines[1])
        self.assertIn("1:02", lines[1])
        for word in ("00000000aaaa", "live", "2.4 MB", "shop-db", SHOWN):
            self.assertIn(word, lines[2])
        self.assertEqual(self.api.asked[-1].query, {"user": "alice@example.org", "limit": "50"})
        found = self.ask("session", "ls", "--json", "-n", "0").objects
        self.assertEqual(found, [self.SECOND, self.FIRST])
        self.assertEqual(len(self.ask("session", "ls", "--live").lines), 2)

    def test_show(self) -> None:
        text = self.ask("session", "show", "bbbb").out
        for word in (self.SECOND["session_id"], "closed", "r1", "laptop (100.64.0.1)"):
            self.assertIn(word, text)
        self.assertLess(text.index("session.start"), text.index("session.end"))
        self.assertEqual(self.api.asked[-1].query["session"], self.SECOND["session_id"])
        self.assertEqual(self.ask("session", "show", "bbbb", "--json").objects[0], self.SECOND)
        self.fails("session", "show", "019a", says="2 sessions have 019a")
        self.fails("session", "show", "cccc", says="`border0 session ls` lists")

    def test_kill(self) -> None:
        done = self.ask("session", "kill", "aaaa")
        self.assertEqual(done.lines, ["Ended 00000000aaaa: alice@example.org at shop-db."])
        asked = self.api.asked[-1]
        self.assertEqual((asked.method, asked.body), ("PUT", {"killed": True}))
        self.fails("session", "kill", "bbbb", says="no live session bbbb")
        self.killed["kill"] = {"ended": False, "detail": "its connector is offline"}
        self.fails("session", "kill", "aaaa", says="its connector is offline")

    def test_audit(self) -> None:
        lines = self.ask("audit", "ls", "--denied", "--type", "session.end").lines
        self.assertIn("session.start", lines[1])
        self.assertIn("session.end", lines[2])
        self.assertTrue(lines[3].endswith("  eng-read"))
        wanted = {"type": "session.end", "result": "denied", "limit": "50"}
        self.assertEqual(self.api.asked[-1].query, wanted)
        self.assertEqual(self.ask("audit", "ls", "--json").objects[-1], self.changed)

    def test_own_records_stay_readable(self) -> None:
        state = self.base / "state"
        (state / "audit").mkdir(parents=True)
        event = {**self.EVENT, "session": "x", "actor": {"user": "local"}}
        (state / "audit" / "2026-11-22.jsonl").write_text(json.dumps(event) + "\n")
        for noun in ("session", "audit"):
            self.ask(noun, "ls", "--state", str(state))
        self.assertEqual(self.ask("audit", "ls", "--state", str(state), "--json").objects, [event])
        self.assertEqual(self.api.asked, [])


class Texts(Commands):
    def test_every_command_has_help_that_fits(self) -> None:
        trees = {
            "socket": ("ls", "show", "create", "update", "delete"),
            "policy": ("ls", "show", "add", "edit", "delete", "attach", "detach", "explain"),
            "device": ("ls", "show", "approve", "delete", "invite", "export"),
            "connector": (
                "start", "join", "status", "ls", "show", "create", "approve", "delete", "token",
                "invite",
            ),
            "relay": ("ls", "status", "show", "add", "set", "rm", "ticket-keys"),
            "control": ("backup", "restore", "ticket-keys"),
            "node": ("join", "status"),
            "user": ("ls", "create", "show", "update", "delete"),
            "group": ("ls", "create", "show", "delete", "add", "remove"),
            "service-account": ("ls", "create", "show", "delete"),
            "token": ("ls", "create", "revoke"),
            "session": ("ls", "show", "kill"),
            "audit": ("ls",),
        }  # fmt: skip
        self.assertLess(max(map(len, self.run_("--help").lines)), 101)
        for noun, verbs in trees.items():
            listed = self.run_(noun, "--help").out
            for verb in verbs:
                self.assertRegex(listed, rf"(?m)^    {verb}\b")
                done = self.ask(noun, verb, "--help")
                self.assertTrue(done.out.startswith("usage: "))

    def test_what_is_not_asked_for_is_not_loaded(self) -> None:
        import subprocess
        import sys

        program = (
            "import sys; from border0.cli.main import parser; parser('socket');"
            "slow = ('twisted', 'cryptography', 'http.client', 'ssl', 'border0.connector');"
            "print([name for name in slow if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        self.assertEqual((done.stdout, done.stderr), ("[]\n", ""))
