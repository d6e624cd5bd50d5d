"""`border0 relay`: what is sent, what is shown, and what a relay says when this machine asks it."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from border0.control.keyring import Keyring
from border0.keys import encode_key
from border0.relay.ticket import TicketKeys
from tests.cli.case import Commands
from tests.support.fakeapi import refusal

KEY = encode_key(bytes(range(32)))
ORG = "11111111-1111-4111-8111-111111111111"
RELAY = {
    "relay_id": "22222222-2222-4222-8222-222222222222", "name": "eu",
    "names": ["relay.example.org", "2001:db8::1"], "port": 443, "path": "/relay", "region": "eu",
    "weight": 100, "drain": False, "public_key": KEY, "channel_binding": "tls-exporter", "ca": "",
    "version": 1, "created_at": "2026-11-22T10:00:00.000000Z", "updated_at": None,
}  # fmt: skip


class Relays(Commands):
    def setUp(self) -> None:
        super().setUp()
        self.api = self.serve()
        self.routes = self.api.routes
        self.sign_in(self.api)

    def body(self, method: str, path: str) -> Any:
        return self.api.last(method, path).body

    def test_ls_and_show(self) -> None:
        drained = {**RELAY, "name": "us", "drain": True, "weight": 5, "region": ""}
        self.routes |= {"GET /relays": {"items": [RELAY, drained]}, "GET /relay/eu": RELAY}
        lines = self.ask("relay", "ls").lines
        for word in ("eu", "relay.example.org:443/relay", "[2001:db8::1]:443/relay", "in use"):
            self.assertIn(word, lines[1])
        self.assertIn("drains", lines[2])
        self.assertEqual(self.ask("relay", "ls", "--json").objects, [RELAY, drained])
        text = self.ask("relay", "show", "eu").out
        for word in (KEY, RELAY["relay_id"], "tls-exporter", "the system's store", "in use"):
            self.assertIn(str(word), text)
        self.assertEqual(self.ask("relay", "show", "eu", "--json").objects, [RELAY])
        self.fails("relay", "show", "nobody", says="`border0 relay ls`")

    def test_add(self) -> None:
        self.routes["POST /relay"] = (201, RELAY)
        words = ("relay", "add", "eu", "--host", "relay.example.org", "--key", KEY)
        done = self.ask(*words)
        self.assertEqual(
            self.body("POST", "/relay"),
            {"name": "eu", "names": ["relay.example.org"], "public_key": KEY},
        )
        self.assertIn(f'id = "{RELAY["relay_id"]}"', done.err)
        done = self.ask(
            *words, "--host", "192.0.2.1", "--port", "8443", "--path", "/", "--region", "eu",
            "--weight", "0", "--channel-binding", "none", "--ca", self.api.pin, "--drain",
            "--id", str(RELAY["relay_id"]),
        )  # fmt: skip
        self.assertEqual(
            self.body("POST", "/relay"),
            {
                "name": "eu", "names": ["relay.example.org", "192.0.2.1"], "public_key": KEY,
                "port": 8443, "path": "/", "region": "eu", "weight": 0, "drain": True,
                "channel_binding": "none", "ca": self.api.pin, "relay_id": RELAY["relay_id"],
            },
        )  # fmt: skip
        self.assertNotIn("id =", done.err)
        self.assertEqual(self.ask(*words, "--json").objects, [RELAY])
        for wrong in (words[:3], words[:5], (*words, "--channel-binding", "x")):
            self.assertEqual(self.run_(*wrong).status, 2)

    def test_set_and_rm(self) -> None:
        self.routes |= {
            "PUT /relay/eu": {**RELAY, "drain": True}, "DELETE /relay/eu": (204, None),
        }  # fmt: skip
        self.assertEqual(self.ask("relay", "set", "eu", "--drain").lines, ["Relay eu: drains."])
        self.assertEqual(self.body("PUT", "/relay/eu"), {"drain": True})
        self.ask("relay", "set", "eu", "--no-drain", "--rename", "europe", "--weight", "0")
        changed = {"drain": False, "name": "europe", "weight": 0}
        self.assertEqual(self.body("PUT", "/relay/eu"), changed)
        self.ask("relay", "set", "eu", "--region", "", "--ca", "")
        self.assertEqual(self.body("PUT", "/relay/eu"), {"region": "", "ca": ""})
        self.fails("relay", "set", "eu", status=2, says="say what to change")
        self.assertEqual(self.run_("relay", "set", "eu", "--drain", "--no-drain").status, 2)
        self.assertEqual(self.ask("relay", "rm", "eu").lines, ["Removed relay eu."])
        self.fails("relay", "rm", "us", says="`border0 relay ls`")

    def test_ticket_keys(self) -> None:
        file = {"keys": [{"key": KEY, "orgs": [ORG]}], "revoked": []}
        self.routes["GET /relays/ticket_keys"] = file
        done = self.ask("relay", "ticket-keys")
        self.assertEqual(json.loads(done.out), file)
        TicketKeys.from_json(done.out.encode())
        self.assertEqual(self.ask("relay", "ticket-keys", "--json").objects, [file])
        path = self.base / "keys.json"
        self.assertEqual(self.ask("relay", "ticket-keys", "--out", str(path)).out, "")
        self.assertEqual(json.loads(path.read_bytes()), file)
        self.routes["GET /relays/ticket_keys"] = refusal(503, "try again")
        before = path.read_bytes()
        self.fails("relay", "ticket-keys", "--out", str(path), says="try again")
        self.assertEqual(path.read_bytes(), before)
        self.routes["GET /relays/ticket_keys"] = file
        self.fails("relay", "ticket-keys", "--out", str(path / "x"), says=str(path / "x"))

    def test_ticket_keys_on_the_control_planes_machine(self) -> None:
        file = self.base / "control.toml"
        file.write_text('[control]\nstate_dir = "state"\n')
        words = ("control", "ticket-keys", "--config", str(file))
        self.fails(*words, says="no control plane has run here")
        key = Keyring(self.base / "state").ticket_key(ORG)
        assert isinstance(key, Ed25519PrivateKey)
        Keyring(self.base / "state").signing_key(ORG)
        public = encode_key(key.public_key().public_bytes_raw())
        done = self.ask(*words)
        expected = {"keys": [{"key": public, "orgs": [ORG]}], "revoked": []}
        self.assertEqual(json.loads(done.out), expected)
        self.assertNotIn(encode_key(key.private_bytes_raw()), done.out)
        path = self.base / "keys.json"
        self.assertEqual(self.ask(*words, "--out", str(path)).out, "")
        self.assertEqual(json.loads(path.read_bytes()), expected)


class Status(Commands):
    def setUp(self) -> None:
        super().setUp()
        self.api = self.serve()
        self.sign_in(self.api)
        self.relay = self.serve()
        self.relay.routes["GET /healthz"] = b"ok"

    def place(self, **more: Any) -> dict[str, Any]:
        port = urlsplit(self.relay.url).port
        here = {"names": ["127.0.0.1"], "port": port, "ca": self.relay.pin}
        return {**RELAY, **here, **more}

    def test_one_that_runs(self) -> None:
        self.api.routes["GET /relays"] = {"items": [self.place()]}
        line = self.ask("relay", "status").lines[1]
        self.assertRegex(line, r"^eu +127\.0\.0\.1:\d+/relay +in use +\d+ +ok$")
        (found,) = self.ask("relay", "status", "--json").objects
        self.assertTrue(found["ok"] and found["seconds"] >= 0.0)
        (asked,) = {one.path for one in self.relay.asked}
        self.assertEqual(asked, "/healthz")
        self.assertIs(found["live"], None)
        for one in self.relay.asked:  # nobody's token goes to a relay
            self.assertNotIn("authorization", one.headers)

    def test_what_the_control_plane_knows_of_its_own(self) -> None:
        live = {"clients": 2, "datagrams": 1234, "drops": 0}
        here = self.place(live=live)
        self.api.routes |= {"GET /relays": {"items": [here]}, "GET /relay/eu": here}
        lines = self.ask("relay", "status").lines
        self.assertRegex(lines[0], r"ms +clients +datagrams +dropped +answer$")
        self.assertRegex(lines[1], r" 2 +1234 +0 +ok$")
        (found,) = self.ask("relay", "status", "--json").objects
        self.assertEqual(found["live"], live)
        shown = self.ask("relay", "show", "eu").out
        self.assertIn("in the control plane: 2 clients, 1234 datagrams, 0 dropped", shown)
        self.api.routes["GET /relay/eu"] = self.place()
        self.assertIn("alone: only its own metrics", self.ask("relay", "show", "eu").out)

    def test_each_name_and_only_those_asked_for(self) -> None:
        self.api.routes["GET /relay/eu"] = self.place(names=["127.0.0.1", "localhost"], drain=True)
        lines = self.ask("relay", "status", "eu").lines
        self.assertEqual(len(lines), 3)
        self.assertIn("drains", lines[2])

    def test_those_that_do_not(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
            self.relay.routes["GET /healthz"] = (503, b"drains")
            places = [
                self.place(name="down", port=free),
                self.place(name="another", ca="sha256:" + "0" * 64),
                self.place(name="untrusted", ca=""),
                self.place(name="ill"),
            ]
            self.api.routes["GET /relays"] = {"items": places}
            done = self.run_("relay", "status")
        self.assertEqual(done.status, 1)
        self.assertEqual([line for line in done.lines if len(line) > 100], [])
        said = dict(line.split(None, 1) for line in done.lines[1:])
        for name, words in {
            "down": "refused", "another": "is not the", "untrusted": "not trusted", "ill": "503",
        }.items():  # fmt: skip
            self.assertIn(words, said[name])
        self.assertEqual({one.path for one in self.relay.asked}, {"/healthz"})
