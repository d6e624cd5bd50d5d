"""What a control plane says as configuration: who is a peer, what is served, who decides."""

import hashlib
import json
import os
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.connector.config import ConnectorConfig, read
from border0.connector.directory import subject_of
from border0.connector.followed import Followed
from border0.errors import ConfigError
from border0.policy import decide
from border0.policy.model import Situation
from border0.prefixes import read_network
from border0.statements import Ledger
from border0.tables import Table
from tests.support.organisation import NOW, Organisation, identifier

OWN = bytes(31) + b"\x09"
GATE = identifier("gate")
DATABASE = {
    "service_type": "database",
    "database_service_configuration": {
        "database_service_type": "standard",
        "standard_database_service_configuration": {
            "protocol": "postgres",
            "hostname": "192.0.2.5",
            "port": 5432,
            "authentication_type": "username_and_password",
            "username_and_password_auth_configuration": {"username": "app", "password": "x"},
        },
    },
}
ENG = json.dumps(
    {"permissions": {"database": {}}, "condition": {"who": {"group": [identifier("eng")]}}}
)


def tls(host: str, port: int = 443) -> dict[str, Any]:
    return {
        "service_type": "tls",
        "tls_service_configuration": {
            "tls_service_type": "standard",
            "standard_tls_service_configuration": {"hostname": host, "port": port},
        },
    }


class Said:
    """An organisation, a ledger that believes it, and the configurations."""

    def __init__(self, org: Organisation) -> None:
        self.org = org
        self.ledger = Ledger(org.id, org.signers)
        self.network = read_network(Table({}, Path("x"), ""))
        self.configurations: dict[str, bytes] = {}
        self.now = NOW

    def configuration(self, socket: str) -> bytes | None:
        return self.configurations.get(socket)

    def settle(self, *left_out: tuple[str, str]) -> None:
        """Everything arrives, but what is left out."""
        self.org.revision += 1
        statements = [one for key, one in self.org.live.items() if key not in left_out]
        refused = self.ledger.accept_all([*statements, self.org.head()], NOW)
        assert not refused, refused


class Case(SynchronousTestCase):
    local = ""

    def setUp(self) -> None:
        self.org = Organisation()
        self.said = Said(self.org)
        self.followed = Followed(self.said, self.org.id, GATE, OWN, lambda: self.said.now)
        self.base = Path(self.mktemp())
        self.base.mkdir()

    def file(self, **local: Any) -> ConnectorConfig:
        data = {
            "connector": {"name": "gate"},
            "control": {"url": "https://control.example:8443"},
            "local": local,
        }
        return read(data, self.base / "connector.toml")

    def socket(self, upstream: dict[str, Any], name: str = "db", **members: Any) -> str:
        id = identifier(name)
        said = {"name": name, "socket_type": upstream["service_type"], "port": 5432}
        said.update(members.pop("said", {}))
        text = json.dumps({**said, "recording_enabled": True, "upstream_configuration": upstream})
        raw = text.encode()
        self.said.configurations[id] = raw
        fields = {
            "name": name,
            "addresses": ["100.126.0.1", "fd62:6f72:6465:7231::1"],
            "port": 5432,
            "socket_type": upstream["service_type"],
            "connectors": [GATE],
            "configuration_hash": hashlib.sha256(raw).hexdigest(),
        }
        self.org.publish("socket", id, **{**fields, **members})
        return id

    def config(self, *left_out: tuple[str, str], **local: Any) -> ConnectorConfig:
        self.said.settle(*left_out)
        return self.followed.config(self.file(**local))

    def refusal(self, upstream: dict[str, Any], **local: Any) -> str:
        """Why the socket is not served; "" when it is."""
        id = self.socket(upstream)
        config = self.config(**local)
        self.assertEqual(len(config.sockets), 0 if id in self.followed.refusals else 1)
        return self.followed.refusals.get(id, "")


class Devices(Case):
    def test_an_owner_with_groups_by_id_and_name(self) -> None:
        self.org.membership("alice", "eng", group_names=["Engineering"])
        self.org.node("laptop")
        (device,) = self.config().devices
        self.assertEqual(device.user, "alice@example.org")
        self.assertEqual(device.groups, {identifier("eng"), "Engineering"})
        self.assertEqual(device.addresses, ["100.64.0.2/32", "fd62:6f72:6465:7230::2/128"])
        self.assertEqual((device.id, device.user_id), (identifier("laptop"), identifier("alice")))
        self.assertEqual(device.service_account, "")

    def test_who_is_left_out(self) -> None:
        self.org.node("nobodys", owner=identifier("carol"))
        self.org.membership("bob", disabled=True)
        self.org.node("bobs", owner=identifier("bob"), addresses=["100.64.0.3"])
        self.org.membership("alice")
        self.org.node("outside", addresses=["192.0.2.1"])
        self.org.node("own", public_key="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAk=")
        self.org.node("gate", role="connector", addresses=[])
        self.org.node("unaddressed", addresses=[])
        self.assertEqual(self.config().devices, [])

    def test_a_membership_that_is_missing_takes_the_device_away(self) -> None:
        self.org.membership("alice")
        self.org.node("laptop")
        self.assertEqual(len(self.config().devices), 1)
        self.org.membership("alice", "eng")
        self.assertEqual(self.config(("membership", identifier("alice"))).devices, [])

    def test_a_service_account(self) -> None:
        self.org.publish(
            "membership", identifier("ci"), kind="service_account", name="ci", groups=[],
            disabled=False,
        )  # fmt: skip
        self.org.node("runner", owner=identifier("ci"))
        (device,) = self.config().devices
        self.assertEqual((device.user, device.service_account), ("", "ci"))

    def test_a_tagged_device_is_nobody(self) -> None:
        public = self.org.node("printer").body["public_key"]
        self.org.publish(
            "node", identifier("printer"), role="device", name="printer", public_key=public,
            tags=["office"], addresses=["100.64.0.9"],
        )  # fmt: skip
        open_text = json.dumps({"permissions": {"database": {}}})
        self.org.policy("open", open_text)
        self.org.policy("eng", ENG)
        self.org.policy(
            "mail",
            json.dumps({"permissions": {"database": {}}, "condition": {"who": {"email": [""]}}}),
        )
        self.org.policy(
            "account",
            json.dumps(
                {
                    "permissions": {"database": {}},
                    "condition": {"who": {"service_account": ["printer", ""]}},
                }
            ),
        )
        self.socket(DATABASE)
        self.org.attach("db", "open", "eng", "mail", "account")
        config = self.config()
        (device,) = config.devices
        self.assertEqual((device.user, device.service_account), ("", ""))
        here = Situation(None, None, datetime.fromtimestamp(NOW, UTC))
        decision = decide.connect(
            list(config.policies.values()), "database", subject_of(device), here
        )
        self.assertEqual([policy.name for policy in decision.matched], ["open"])

    def test_what_two_claim_belongs_to_neither(self) -> None:
        self.org.membership("alice")
        first = self.org.node("one", addresses=["100.64.0.2"])
        self.org.node("two", addresses=["100.64.0.2", "100.64.0.3"])
        self.org.node("three", addresses=["100.64.0.4"], public_key=first.body["public_key"])
        self.org.node("four", addresses=["100.64.0.5"])
        self.assertEqual([device.name for device in self.config().devices], ["four"])

    def test_nothing_counts_without_a_head(self) -> None:
        self.org.membership("alice")
        self.org.node("laptop")
        self.socket(DATABASE)
        self.assertEqual(len(self.config().devices), 1)
        self.said.now = NOW + 366 * 86400.0
        config = self.followed.config(self.file())
        self.assertEqual((config.devices, config.sockets), ([], []))


class Policies(Case):
    def setUp(self) -> None:
        super().setUp()
        self.socket(DATABASE)
        self.db = identifier("db")

    def test_attached_ones_decide(self) -> None:
        self.org.policy("eng", ENG)
        self.org.policy("other", "{")
        self.org.attach("db", "eng")
        config = self.config()
        (socket,) = config.sockets
        self.assertEqual((socket.policies, socket.closed), ([identifier("eng")], ""))
        self.assertEqual(config.policies[identifier("eng")].name, "eng")
        self.assertEqual((config.org, config.id), (self.org.id, GATE))
        self.assertEqual(self.followed.refusals, {})

    def test_none_attached_lets_nobody_in(self) -> None:
        (socket,) = self.config().sockets
        self.assertEqual((socket.policies, socket.closed), ([], ""))

    def test_a_left_out_deny_closes_the_socket(self) -> None:
        self.org.policy("eng", ENG)
        self.org.policy("no", json.dumps({"deny": {"database": {}}}))
        self.org.attach("db", "eng", "no")
        (socket,) = self.config(("policy", identifier("no"))).sockets
        self.assertEqual(socket.policies, [])
        self.assertIn("is missing", socket.closed)
        self.assertEqual(self.followed.refusals, {self.db: socket.closed})
        (socket,) = self.config().sockets
        self.assertEqual((len(socket.policies), socket.closed), (2, ""))

    def test_a_left_out_attachment_closes_the_socket(self) -> None:
        self.org.policy("eng", ENG)
        self.org.attach("db", "eng")
        (socket,) = self.config(("attachment", self.db)).sockets
        self.assertIn("attachment", socket.closed)

    def test_one_that_cannot_be_read_closes_the_socket(self) -> None:
        self.org.policy("eng", ENG)
        for bad in ("{", "[]", '{"permissions": {"teleport": {}}}', '{"require": {"mfa": true}}'):
            self.org.policy("bad", bad)
            self.org.attach("db", "eng", "bad")
            (socket,) = self.config().sockets
            self.assertEqual(socket.policies, [], bad)
            self.assertTrue(socket.closed, bad)

    def test_the_whole_policy_object_is_as_good(self) -> None:
        self.org.policy("eng", json.dumps({"name": "eng", "policy_data": json.loads(ENG)}))
        self.org.attach("db", "eng")
        self.assertEqual(self.config().sockets[0].closed, "")


class Sockets(Case):
    def test_only_those_that_it_hosts(self) -> None:
        self.socket(DATABASE, connectors=[identifier("other")])
        self.assertEqual(self.config().sockets, [])
        self.assertEqual(self.followed.refusals, {})

    def test_what_is_unusable(self) -> None:
        for members, words in (
            ({"addresses": []}, "no address"),
            ({"addresses": ["192.0.2.1"]}, "outside the service range"),
            ({"said": {"socket_type": "vnc"}}, "'vnc' is not known"),
            ({"said": {"socket_type": "tls"}}, "its configuration tls"),
            ({"said": {"port": 99}}, "its configuration 99"),
            ({"said": {"new": 1}}, "unknown key 'new'"),
        ):
            id = self.socket(DATABASE, **members)
            self.assertEqual(self.config().sockets, [], members)
            self.assertIn(words, self.followed.refusals[id])
            self.assertNotIn("connector.toml: ", self.followed.refusals[id])

    def test_a_configuration_that_did_not_come(self) -> None:
        id = self.socket(DATABASE)
        del self.said.configurations[id]
        self.config()
        self.assertIn("configuration", self.followed.refusals[id])
        for bad in (b"", b"[]", b"\xff", b"{}", b"[" * 100_000, b"x" * 2_000_000):
            self.said.configurations[id] = bad
            self.followed.reread()
            self.assertEqual(self.followed.config(self.file()).sockets, [])
            self.assertTrue(self.followed.refusals[id])

    def test_one_address_belongs_to_one_socket(self) -> None:
        for name in ("one", "two"):
            self.socket(DATABASE, name)
        self.assertEqual(len(self.config().sockets), 1)
        self.assertEqual(len(self.followed.refusals), 1)
        self.socket(DATABASE, "two", addresses=["100.126.0.2"])
        self.assertEqual(len(self.config().sockets), 2)

    def test_what_did_not_change_is_the_same(self) -> None:
        self.socket(DATABASE)
        first = self.config().sockets[0]
        self.org.membership("alice")
        self.assertEqual(self.config().sockets[0], first)
        self.assertIs(self.config().sockets[0].upstream, first.upstream)


class Local(Case):
    """Each thing that configuration from elsewhere may not do here."""

    def with_password(self, reference: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(json.dumps(DATABASE))
        inner = found["database_service_configuration"]["standard_database_service_configuration"]
        inner["username_and_password_auth_configuration"]["password"] = reference
        return found

    def test_a_command_is_never_run(self) -> None:
        mark = self.base / "ran"
        for rules in ({}, {"secrets": ["env:*", "file:/*"]}):
            text = self.refusal(self.with_password(f"from:cmd:touch {mark}"), **rules)
            self.assertIn("a command is never run", text)
        self.assertFalse(mark.exists())

    def test_the_environment_only_by_name(self) -> None:
        self.patch_environment("SHOP_PW", "s")
        self.patch_environment("OTHER", "t")
        upstream = self.with_password("from:env:OTHER")
        self.assertIn('secrets = ["env:OTHER"]', self.refusal(upstream))
        self.assertIn("OTHER", self.refusal(upstream, secrets=["env:SHOP_PW", "file:OTHER"]))
        self.assertEqual(self.refusal(self.with_password("from:env:SHOP_PW"),
                                      secrets=["env:SHOP_PW"]), "")  # fmt: skip

    def patch_environment(self, name: str, value: str) -> None:
        self.patch(os, "environ", {**os.environ, name: value})

    def test_files_only_by_name(self) -> None:
        keys = self.base / "keys"
        (keys / "deep").mkdir(parents=True)
        for path in (keys / "a.key", keys / "deep" / "b.key", self.base / "c.key"):
            path.write_text("secret")
        rule = f"file:{keys.resolve()}/*.key"
        good = f"from:file:{keys.resolve()}/a.key"
        self.assertEqual(self.refusal(self.with_password(good), secrets=[rule]), "")
        self.assertEqual(
            self.refusal(self.with_password("from:file:keys/a.key"), secrets=["file:keys/*.key"]),
            "",
        )
        for bad in (
            f"from:file:{keys.resolve()}/deep/b.key",
            f"from:file:{keys.resolve()}/../c.key",
            f"from:file:{keys.resolve()}/deep/../a.key",
            "from:file:c.key",
            "from:file:/etc/passwd",
            "from:file:",
            "from:env:",
            "from:vault:x",
        ):
            text = self.refusal(self.with_password(bad), secrets=[rule])
            self.assertTrue(text, bad)
            self.assertNotIn("secret\n", text)
        self.assertIn("file:", self.refusal(self.with_password(good)))

    def test_a_permitted_secret_that_is_not_there(self) -> None:
        text = self.refusal(self.with_password("from:file:x.key"), secrets=["file:*.key"])
        self.assertIn("No such file", text)
        (self.base / "x.key").write_text("s")
        self.assertEqual(len(self.followed.config(self.file(secrets=["file:*.key"])).sockets), 1)

    def test_references_anywhere_in_it(self) -> None:
        http = {
            "service_type": "http",
            "http_service_configuration": {
                "standard_http_service_configuration": {
                    "hostname": "192.0.2.5",
                    "headers": [{"key": "X", "value": "from:file:/etc/passwd"}],
                },
            },
        }
        self.assertIn("headers.value", self.refusal(http))

    def test_the_built_in_shell(self) -> None:
        name = "connector_built_in_ssh_service"
        ssh = {"service_type": "ssh", "ssh_service_configuration": {"ssh_service_type": name}}
        self.assertIn(f'[local] allow = ["{name}"]', self.refusal(ssh))
        self.assertEqual(self.refusal(ssh, allow=[name]), "")

    def test_the_file_server(self) -> None:
        name = "connector_file_server"
        inner = {"top_level_directory": str(self.base.resolve())}
        http = {
            "service_type": "http",
            "http_service_configuration": {
                "http_service_type": name,
                "fileserver_http_service_configuration": inner,
            },
        }
        self.assertIn(f'[local] allow = ["{name}"]', self.refusal(http))
        self.assertEqual(self.refusal(http, allow=[name]), "")

    def test_this_machine_link_local_and_metadata(self) -> None:
        for host in (
            "127.0.0.1", "127.8.8.8", "localhost", "::1", "0.0.0.0", "::", "0.1.2.3",
            "169.254.169.254", "169.254.1.1", "fe80::1", "fe80::1%eth0", "::ffff:127.0.0.1",
            "64:ff9b::7f00:1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "224.0.0.1",
        ):  # fmt: skip
            self.assertIn("[local] allow", self.refusal(tls(host)), host)
        for host in ("192.0.2.5", "10.0.0.1", "db.example", "2001:db8::1"):
            self.assertEqual(self.refusal(tls(host)), "", host)

    def test_this_machine_when_it_is_permitted(self) -> None:
        for allow, host, port, served in (
            ("127.0.0.1:443", "127.0.0.1", 443, True),
            ("127.0.0.1:443", "127.0.0.1", 444, False),
            ("127.0.0.1", "127.0.0.1", 444, True),
            ("127.0.0.1", "127.0.0.2", 444, False),
            ("127.0.0.0/8", "127.0.0.2", 444, True),
            ("localhost:443", "localhost", 443, True),
            ("localhost:443", "::1", 443, True),
            ("[::1]:443", "::1", 443, True),
            ("::1", "::1", 443, True),
            ("127.0.0.1:443", "::ffff:127.0.0.1", 443, True),
            ("169.254.169.254", "169.254.169.254", 80, True),
        ):
            text = self.refusal(tls(host, port), allow=[allow])
            self.assertEqual(text == "", served, (allow, host, port, text))

    def test_an_allowance_says_what_it_means(self) -> None:
        for bad in ("db.example", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:70000", "[::1", ""):
            error = self.assertRaises(ConfigError, self.file, allow=[bad])
            self.assertIn("allow", str(error))
        for bad in ("cmd:x", "env:", "SHOP_PW"):
            self.assertIn("secrets", str(self.assertRaises(ConfigError, self.file, secrets=[bad])))


class ControlTable(Case):
    def test_what_it_says(self) -> None:
        control = {
            "url": "https://Control.example:8443/",
            "ca": "SHA256:" + "0" * 64,
            "offline_limit": "90m",
            "offline_policy": "keep",
        }
        data = {"connector": {"name": "gate"}, "control": control}
        entry = read(data, self.base / "c.toml").control
        assert entry is not None
        self.assertEqual(entry.url, "https://control.example:8443")
        self.assertEqual((entry.offline_limit, entry.offline_policy), (5400.0, "keep"))
        self.assertIsNone(entry.code())
        for bad, words in (
            ({"url": "http://c"}, "https only"),
            ({"ca": "x"}, "a pin is"),
            ({"offline_limit": "soon"}, '"24h"'),
            ({"offline_limit": "0h"}, '"24h"'),
            ({"offline_policy": "maybe"}, "not known"),
            ({"off": 1}, "unknown key"),
        ):
            wrong = {**data, "control": {**control, **bad}}
            error = self.assertRaises(ConfigError, read, wrong, self.base / "c.toml")
            self.assertIn(words, str(error))
        for key in ("network", "device", "socket", "policy"):
            wrong = {**data, key: {}}
            error = self.assertRaises(ConfigError, read, wrong, self.base / "c.toml")
            self.assertIn("the control plane says it", str(error))

    def test_the_documented_file(self) -> None:
        page = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
        text = page.read_text("utf-8").partition("~~~toml\n")[2].partition("~~~")[0]
        found = read(tomllib.loads(text.replace("…", "0" * 64)), self.base / "c.toml")
        assert found.control is not None
        self.assertEqual(found.control.offline_policy, "deny")
        self.assertTrue(found.local.may_dial("127.0.0.1", 5432))
        self.assertTrue(found.local.may_read("from:env:SHOP_PW"))
