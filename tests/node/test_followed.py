"""From signed statements to what a device may reach, and the words when it may nothing."""

import json
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.errors import ConfigError
from border0.keys import generate_private_key, public_key, write_private_key
from border0.node.config import ClientConfig, load
from border0.node.followed import EXPIRED, LOCKED, News, Place, Saved, configure, find_place
from border0.node.localapi import UnknownName
from border0.node.names import find
from border0.prefixes import read_network
from border0.statements import Ledger
from border0.tables import Table
from tests.support.organisation import NOW, YEAR, Organisation, identifier

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"
URL = "https://control.example:8443"


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        (self.home / "control").mkdir(parents=True)
        self.place = Place(
            self.home / "client.toml", self.home / "keys" / "client.key", self.home / "control"
        )
        self.place.file.write_text("[control]\n")
        private = generate_private_key()
        write_private_key(self.place.private_key_file, private)
        self.key = public_key(private)
        self.org = Organisation()
        network = read_network(Table({}, Path("x"), ""))
        node = identifier("laptop")
        self.member = Saved(URL, self.org.id, "acme", node, "laptop", network)
        self.ledger = Ledger(self.org.id, self.org.signers)

    def device(self, **more: Any) -> None:
        self.org.node("laptop", **{"public_key": b64encode(self.key).decode(), **more})

    def connector(self, id: str, **more: Any) -> None:
        key = identifier(id).replace("-", "")[:32].encode()
        fields = {"public_key": b64encode(key).decode(), "name": id, "addresses": [], **more}
        self.org.publish("node", identifier(id), role="connector", **fields)

    def socket(self, name: str, number: int, *connectors: str, **more: Any) -> None:
        fields = {
            "name": name,
            "addresses": [f"100.126.0.{number}", f"fd62:6f72:6465:7231::{number:x}"],
            "port": 5432,
            "socket_type": "database",
            "protocol": "postgres",
            "connectors": [identifier(one) for one in connectors],
            "configuration_hash": "0" * 64,
        }
        self.org.publish("socket", identifier(name), **{**fields, **more})

    def believe(self, head_lifetime: float = YEAR) -> None:
        head = self.org.head(lifetime=head_lifetime)
        refused = self.ledger.accept_all([*self.org.live.values(), head], NOW)
        self.assertEqual(refused, [])

    def read(self, now: float = NOW, **news: Any) -> ClientConfig:
        return configure(self.place, self.member, self.ledger, self.key, now, News(**news))

    def whole(self) -> None:
        self.device()
        self.connector("lab", ssh_host_key=HOST_KEY)
        self.connector("hq", ssh_host_key=HOST_KEY + "B")
        self.socket("shop-db", 1, "lab", "hq", "gone")
        self.socket("build", 2, "lab", "hq", socket_type="ssh", port=22)
        self.believe()


class Reading(Case):
    def test_services_connectors_and_host_keys(self) -> None:
        self.whole()
        where = {identifier("lab"): ["192.0.2.1:5", "[2001:db8::1]:5", "example.org:5", "x"]}
        config = self.read(endpoints=lambda id: where.get(id, []))
        self.assertEqual(config.refusal, "")
        self.assertEqual([one.name for one in config.services], ["build", "shop-db"])
        build, shop = config.services
        self.assertEqual((shop.protocol, shop.port), ("postgres", 5432))
        self.assertEqual(str(shop.ipv4), "100.126.0.1")
        self.assertEqual(sorted(shop.connectors), ["hq", "lab"])
        self.assertEqual(sorted(build.host_keys), [HOST_KEY, HOST_KEY + "B"])
        self.assertEqual(shop.host_keys, [])
        lab = next(one for one in config.connectors if one.name == "lab")
        # only addresses: a name would be looked up for whoever wrote it
        self.assertEqual(lab.endpoints, [("192.0.2.1", 5), ("2001:db8::1", 5)])
        self.assertEqual(config.source(4), "100.64.0.2")
        at = {"shop-db": "lab", "build": "hq"}
        self.assertEqual(config.allowed_ips(lab, at), ["100.126.0.1", "fd62:6f72:6465:7231::1"])

    def test_those_online_come_first(self) -> None:
        self.whole()
        for first, other in (("lab", "hq"), ("hq", "lab")):
            online = {identifier(first): True, identifier(other): False}
            config = self.read(online=online.get)
            self.assertEqual(config.services[1].connectors, [first, other])

    def test_names(self) -> None:
        self.whole()
        config = self.read()
        for name in ("shop-db", "shop-db.acme.border0.internal", "100.126.0.1"):
            self.assertEqual(len(find(config, name).connectors), 2)
        for name, text in (
            ("shop-db.other.border0.internal", "organisation acme"),
            ("100.126.0.77", "no service has the address"),
            ("shop", "did you mean 'shop-db'?"),
        ):
            self.assertIn(text, str(self.assertRaises(UnknownName, find, config, name)))

    def test_what_is_outside_or_claimed_twice_is_left_out(self) -> None:
        self.device()
        self.connector("lab")
        self.connector("twin", public_key=b64encode(self.key).decode())
        self.connector("lab2", name="lab")
        self.socket("a", 1, "lab", "lab2", "twin")
        self.socket("b", 1, "lab")
        self.socket("far", 3, "lab", addresses=["10.0.0.1"])
        self.socket("half", 4, "lab", addresses=["10.0.0.1", "100.126.0.4"], protocol="no")
        self.believe()
        config = self.read()
        self.assertEqual([one.name for one in config.services], ["a", "half"])
        half = config.services[1]
        self.assertEqual((str(half.ipv4), half.protocol), ("100.126.0.4", ""))
        self.assertEqual(len(config.connectors), 2)
        self.assertEqual(len({one.name for one in config.connectors}), 2)

    def test_a_revoked_connector_and_a_socket_without_one(self) -> None:
        self.whole()
        self.org.remove("node", identifier("lab"))
        self.org.remove("node", identifier("hq"))
        self.believe()
        config = self.read()
        self.assertEqual((config.connectors, config.services[0].connectors), ([], []))
        self.assertEqual(find(config, "shop-db").connectors, [])

    def test_no_service_yet(self) -> None:
        self.device()
        self.believe()
        error = self.assertRaises(UnknownName, find, self.read(), "x")
        self.assertIn("no policy lets this device", str(error))


class Standing(Case):
    def refused(self, text: str, **more: Any) -> None:
        config = self.read(**more)
        self.assertIn(text, config.refusal)
        self.assertEqual((config.connectors, config.services, config.addresses), ([], [], []))

    def test_waits_for_approval(self) -> None:
        self.believe()
        self.refused("waits for approval: ask an administrator to approve it: "
                     "border0 device approve laptop", synced=True)  # fmt: skip
        self.refused("was locked or removed")

    def test_the_control_planes_word(self) -> None:
        self.whole()
        self.refused("is locked: ask an administrator of acme", word=LOCKED)
        self.refused(f"has expired; join again: border0 node join {URL}", word=EXPIRED)
        self.refused("does not know this device, laptop, any more", word="unknown")
        self.assertEqual(self.read(word="busy").refusal, "")

    def test_nothing_known_yet(self) -> None:
        self.refused(f"does the control plane at {URL} run")

    def test_too_old(self) -> None:
        self.device()
        self.believe(head_lifetime=100.0)
        self.assertEqual(self.read(NOW + 99).refusal, "")
        self.refused("too old (the head has expired)", now=NOW + 101)

    def test_an_expired_statement_about_this_device(self) -> None:
        self.device(lifetime=50.0)
        self.believe()
        self.refused("has expired or is missing", now=NOW + 51)

    def test_a_removed_device(self) -> None:
        self.whole()
        self.org.remove("node", identifier("laptop"))
        self.believe()
        self.refused(f"if it was removed, join again: border0 node join {URL}")

    def test_another_key_another_role_no_address(self) -> None:
        self.device(public_key=b64encode(bytes(range(32))).decode())
        self.believe()
        self.refused("not the one that joined acme as laptop")
        self.device(role="connector")
        self.believe()
        self.refused("not the one that joined acme as laptop")
        self.device(addresses=["10.0.0.1"])
        self.believe()
        self.refused("has no address in acme")


class Files(Case):
    def save(self) -> None:
        network = {key: str(value) for key, value in vars(self.member.network).items()}
        node = {**vars(self.member), "network": network, "v": 1, "role": "device", "ca": ""}
        (self.place.folder / "node.json").write_text(json.dumps(node))
        (self.place.folder / "ledger").write_bytes(self.ledger.dump())

    def test_the_saved_map_without_a_network(self) -> None:
        self.org.now = time.time() - 5
        self.org.publish_signers({"control": ("node", "socket", "head", "signers")})
        self.device()
        self.connector("lab")
        self.socket("shop-db", 1, "lab")
        head = self.org.head()
        self.ledger = Ledger(self.org.id, self.org.signers)
        self.ledger.accept_all([*self.org.live.values(), head], self.org.now)
        self.save()
        config = load(self.place.file)
        self.assertEqual([one.name for one in config.services], ["shop-db"])
        self.assertEqual(config.private_key_file, self.place.private_key_file)
        self.org.remove("node", identifier("laptop"))
        self.ledger.accept_all([self.org.head()], self.org.now)
        self.save()
        error = self.assertRaises(ConfigError, load, self.place.file)
        self.assertIn("border0 device approve laptop", str(error))

    def test_not_joined_and_damaged(self) -> None:
        error = self.assertRaises(ConfigError, load, self.place.file)
        self.assertIn("border0 node join URL", str(error))
        self.save()
        for name in ("ledger", "node.json"):
            (self.place.folder / name).write_bytes(b"{")
            error = self.assertRaises(ConfigError, load, self.place.file)
            self.assertIn("join again: border0 node join", str(error))
            self.assertIn(name, str(error))

    def test_the_file(self) -> None:
        self.assertEqual(find_place(self.place.file), self.place)
        for text, told in (
            ("[control]\n[[socket]]\nname='x'", "remove this, or [control]"),
            ("[control]\nur='x'", "did you mean 'url'?"),
            ("[control]\n[device]\naddresses=[]", "unknown key 'addresses'"),
        ):
            self.place.file.write_text(text)
            self.assertIn(told, str(self.assertRaises(ConfigError, load, self.place.file)))
        self.place.file.write_text("[device]\nname='x'\n")
        self.assertIsNone(find_place(self.place.file))
