"""Each type's members, one by one."""

import base64
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.statements import TYPES, Statement, StatementError, check, live
from border0.statements.text import write_object
from tests.statements.test_text import JSON, PROFILE
from tests.support.organisation import Organisation, identifier, key_entry, signing_key

RELAY = {
    "name": "eu",
    "names": ["relay.example.org", "198.51.100.9"],
    "port": 443,
    "path": "/relay",
    "public_key": base64.b64encode(bytes(range(32))).decode(),
    "channel_binding": "tls-exporter",
    "weight": 100,
    "drain": False,
}


def examples() -> dict[str, dict[str, Any]]:
    """A good payload of each type."""
    acme = Organisation()
    made = [
        acme.signers,
        acme.node("laptop"),
        acme.publish(
            "socket",
            identifier("db"),
            name="db",
            addresses=["100.126.0.1", "fd62:6f72:6465:7231::1"],
            port=5432,
            socket_type="database",
            connectors=[identifier("lab")],
            configuration_hash="ab" * 32,
        ),
        acme.policy("read"),
        acme.attach("db", "read"),
        acme.membership("alice", "eng"),
        acme.publish("relay", identifier("eu"), **RELAY),
        acme.head(),
    ]
    return {statement.type: dict(statement.body) for statement in made}


class Payloads(SynchronousTestCase):
    def setUp(self) -> None:
        self.good = examples()
        self.assertEqual(set(self.good), set(TYPES))

    def accepted(self, type: str, **members: Any) -> None:
        check(Statement(type, write_object({**self.good[type], **members})))

    def refused(self, type: str, reason: str = "malformed", **members: Any) -> str:
        statement = Statement(type, write_object({**self.good[type], **members}))
        error = self.assertRaises(StatementError, check, statement)
        self.assertEqual(error.reason, reason, str(error))
        return str(error)

    def test_good(self) -> None:
        for type in TYPES:
            self.accepted(type)
            self.accepted(type, some_member_of_tomorrow={"a": 1}, critical=["id", "revision"])

    def test_unknown_critical_field(self) -> None:
        for type in TYPES:
            text = self.refused(
                type, "unknown critical field", quorum=2, critical=["revision", "quorum"]
            )
            self.assertIn("quorum", text)
            self.refused(type, critical="revision")
            self.refused(type, critical=[1])
            self.refused(type, critical=["id", "id"])
        self.refused("node", critical=["tags"])  # critical, and not there

    def test_every_required_member(self) -> None:
        optional = {"owner"}
        for type, body in self.good.items():
            for name in body.keys() - optional:
                short = {key: value for key, value in body.items() if key != name}
                error = self.assertRaises(
                    StatementError, check, Statement(type, write_object(short))
                )
                self.assertIn(name, str(error))

    def test_common(self) -> None:
        for type in TYPES:
            for revision in (0, -1, "1", True, None):
                self.refused(type, revision=revision)
            for id in ("", 1, identifier("a").upper(), identifier("a") + "\n"):
                self.refused(type, id=id)
                self.refused(type, org=id)
            self.refused(type, issued=1)
            self.refused(type, issued=self.good[type]["expires"])

    def test_node(self) -> None:
        self.accepted("node", role="connector", owner=identifier("alice"))
        for name in ("", "Laptop", "a b", "-a", "a" * 64, "a.b", "a\n"):
            self.refused("node", name=name)
        for address in ("100.64.0.02", "fd62::0", "::ffff:1.2.3.4", "fe80::1%eth0", "x", 1):
            self.refused("node", addresses=[address])
        self.refused("node", addresses=["100.64.0.2", "100.64.0.2"])
        self.refused("node", role="relay")
        self.refused("node", public_key="A" * 44)
        self.refused("node", tags=["tag:web"])  # beside an owner
        self.accepted("node", ssh_host_key="ssh-ed25519 " + "A" * 68)
        self.refused("node", ssh_host_key="ssh-ed25519 " + "A" * 68 + "\nmore")

    def test_node_with_tags(self) -> None:
        body = {key: value for key, value in self.good["node"].items() if key != "owner"}
        check(Statement("node", write_object({**body, "tags": ["tag:web"]})))
        error = self.assertRaises(StatementError, check, Statement("node", write_object(body)))
        self.assertIn("owner or tags", str(error))
        check(Statement("node", write_object({**body, "role": "connector"})))

    def test_relay(self) -> None:
        pin = "sha256:" + "ab" * 32
        self.accepted("relay", region="eu-west", ca=pin, channel_binding="none", drain=True)
        for host in ("localhost", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1", "a" * 63):
            self.accepted("relay", names=[host])
        for host in (
            "", "Relay.example.org", "relay.example.org.", "a..b", "-a.b", "a_b", "1.2.3",
            "1.2.3.256", "[2001:db8::1]", "2001:db8::0", "::ffff:192.0.2.1", "a" * 64, "a\n",
            "x." * 127 + "yy", "*.example.org", "https://a", "a/b", "a:443", 1,
        ):  # fmt: skip
            self.refused("relay", names=[host])
        for names in ([], ["a.b", "a.b"], [f"a{n}" for n in range(9)], "a.b", None):
            self.refused("relay", names=names)
        for path in ("/", "/a/b.c", "/~x/-"):
            self.accepted("relay", path=path)
        for path in ("", "relay", "/a/", "//", "/a//b", "/..", "/a?b", "/a#b", "/%2e", "/" * 300):
            self.refused("relay", path=path)
        for key in ("", "A" * 43 + "=", RELAY["public_key"][:-2] + "9=", bytes(32).hex(), 1):
            self.refused("relay", public_key=key)
        for weight in (-1, 1001, True, "1"):
            self.refused("relay", weight=weight)
        for binding in ("", "tls-unique", None, ["none"]):
            self.refused("relay", channel_binding=binding)
        self.refused("relay", ca=pin.upper())
        self.refused("relay", ca="")
        self.refused("relay", region="")
        self.refused("relay", drain=0)
        self.refused("relay", port=0)
        self.refused("relay", "unknown critical field", quic=True, critical=["quic"])

    def test_others(self) -> None:
        for port in (0, 65536, "22", True):
            self.refused("socket", port=port)
        self.refused("socket", socket_type="a b")
        self.refused("socket", configuration_hash="AB" * 32)
        self.refused("policy", text={"permissions": {}})
        self.refused("policy", name="a\nb")
        self.refused("attachment", policies=["read"])
        self.refused("attachment", policies=[identifier("read")] * 2)
        self.refused("membership", disabled=0)
        self.refused("membership", kind="robot")

    def test_membership_of_a_service_account(self) -> None:
        body = {key: value for key, value in self.good["membership"].items() if key != "email"}
        robot = {**body, "kind": "service_account", "name": "robot"}
        check(Statement("membership", write_object(robot)))
        del robot["name"]
        self.assertRaises(StatementError, check, Statement("membership", write_object(robot)))

    def test_head(self) -> None:
        org, hashes = self.good["head"]["org"], self.good["head"]["live"]
        self.refused("head", id=identifier("other"))
        self.refused("head", live={})
        self.refused("head", live={"signers": {identifier("other"): "ab" * 32}})
        self.refused("head", live={**hashes, "head": {org: "ab" * 32}})
        self.refused("head", live={**hashes, "node": {identifier("a"): "ab"}})
        self.refused("head", live={**hashes, "node": {"a": "ab" * 32}})
        self.refused("head", live={**hashes, "node": []})
        self.accepted("head", live={**hashes, "of_tomorrow": {identifier("a"): "ab" * 32}})

    def test_signers(self) -> None:
        one = key_entry(signing_key("control"), TYPES)
        self.accepted("signers", keys=[one, key_entry(signing_key("b"), ["node"])])
        self.refused("signers", id=identifier("other"))
        self.refused("signers", keys=[])
        self.refused("signers", keys=[key_entry(signing_key("b"), ["node"])])  # none for signers
        self.refused("signers", keys=[one, {**one, "types": ["node"]}])
        self.refused("signers", keys=[{**one, "key": one["key"][:-4]}])
        self.refused("signers", keys=[{**one, "more": 1}])
        self.refused("signers", keys=[{**one, "name": "a\nb"}])

    def test_unknown_type(self) -> None:
        error = self.assertRaises(StatementError, check, Statement("ticket", b"{}"))
        self.assertEqual(error.reason, "unknown type")

    def test_live(self) -> None:
        key, digest = identifier("a"), "ab" * 32
        self.assertEqual(
            live({("node", key): digest, ("head", key): digest}), {"node": {key: digest}}
        )

    @settings(PROFILE, max_examples=200)
    @given(st.sampled_from(TYPES), st.data())
    def test_any_member_is_accepted_or_refused(self, type: str, data: st.DataObject) -> None:
        body = self.good[type]
        name = data.draw(st.sampled_from([*sorted(body), "critical", "tags", "kind"]))
        try:
            raw = write_object({**body, name: data.draw(JSON)})
            check(Statement(type, raw))
        except StatementError:
            pass
