"""Joining: codes that work once, keys that are one's own, and a node that stays itself."""

import base64

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred, gatherResults

from border0.control import enrol
from border0.control.api.errors import ApiError
from border0.control.api.routes import Call, Table
from border0.control.member.join import join_message
from border0.control.routes.desk import Desk
from border0.control.store import (
    audit_events,
    connectors,
    devices,
    enrolment_keys,
    invites,
    organisations,
    tokens,
    users,
)
from tests.control.publish.case import PublisherCase
from tests.control.store.case import ACME, DAY, OTHER


class Machine:
    """Keys of its own, and what it says to join."""

    def __init__(self, number=1):
        self.key = Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)
        self.wireguard = bytes([number]) * 32
        self.public = self.key.public_key().public_bytes_raw()

    def body(self, code, role="device", name="laptop", **changed):
        signature = self.key.sign(join_message(code, self.wireguard, self.public))
        members = {
            "code": code,
            "role": role,
            "name": name,
            "wireguard_key": base64.b64encode(self.wireguard).decode(),
            "machine_key": base64.b64encode(self.public).decode(),
            "signature": base64.b64encode(signature).decode(),
            "facts": {"os": "Linux"},
            **changed,
        }
        return msgspec.convert(members, enrol.JoinBody)


class EnrolCase(PublisherCase):
    async def begin(self):
        await super().begin()
        self.table = Table()
        self.desk = Desk(self.store, None)
        enrol.register(self.table, self.desk, self._published, self._signers)
        self.user = await self.change(
            lambda tx: users.create(tx, issuer="local", subject="a", email="alice@example.org")
        )

    async def _published(self, org):
        await self.publisher.settled()

    def _signers(self, org):
        return [self.publisher.signers.statement]

    async def join(self, body):
        route, _ = self.table.match("POST", ["node", "join"])
        call = Call(route, "request", "192.0.2.7", self.clock())
        call.body = body
        answer = await route.handler(call)
        self.assertTrue(call.audited)
        return answer

    async def refused(self, body, status=403):
        try:
            await self.join(body)
        except ApiError as error:
            self.assertEqual(status, error.status, error.message)
            return error.message
        self.fail("it joined")

    async def invite(self, kind="device", seconds=900.0, **payload):
        if kind == "device":
            payload = {"user_id": self.user.id, **payload}
        _, text = await self.change(
            lambda tx: invites.issue(tx, kind=kind, expires=tx.now + seconds, payload=payload),
            actor="admin",
        )
        return text.reveal()

    async def enrolment(self, **more):
        _, text = await self.change(
            lambda tx: enrolment_keys.issue(
                tx, name="key", expires=tx.now + DAY, **{"user_id": self.user.id, **more}
            )
        )
        return text.reveal()

    async def audit(self):
        page = await self.store.read(lambda c: audit_events.page(c, ACME))
        return [(event.type, event.result) for event in page.items]


class Devices(EnrolCase):
    async def test_an_invite_makes_one_device(self):
        code = await self.invite()
        answer = await self.join(Machine().body(code))
        said = (answer.org, answer.org_name, answer.name, answer.role, answer.approved)
        self.assertEqual((ACME, "acme", "laptop", "device", True), said)
        self.assertEqual(2, len(answer.addresses))
        self.assertEqual(self.publisher.signers.statement.to_json(), answer.signers[0])
        self.assertIn(answer.node, self.publisher.nodes)
        self.assertIn("used", await self.refused(Machine(2).body(code)))
        self.assertEqual(
            [("device.join", "ok"), ("node.join", "denied")], sorted(await self.audit())
        )

    async def test_the_record_names_who_made_the_code(self):
        _, text = await self.change(
            lambda tx: invites.issue(
                tx, kind="device", expires=tx.now + 60.0, payload={"user_id": self.user.id}
            ),
            actor=self.user.id,
        )
        await self.join(Machine().body(text.reveal()))
        page = await self.store.read(lambda c: audit_events.page(c, ACME))
        self.assertEqual(self.user.email, page.items[0].user)

    async def test_two_machines_never_share_a_code(self):
        code = await self.invite()
        joins = [
            Deferred.fromCoroutine(self.join(Machine(number).body(code))).addCallbacks(
                lambda _: "joined", lambda failure: failure.value.status
            )
            for number in (1, 2, 3)
        ]
        results = await gatherResults(joins)
        self.assertEqual([403, 403, "joined"], sorted(results, key=str))

    async def test_expired_revoked_unknown_foreign_and_malformed_codes(self):
        old = await self.invite(seconds=10.0)
        self.clock.now += 11.0
        self.assertIn("expired", await self.refused(Machine().body(old)))
        code = await self.invite()
        page = await self.store.read(lambda c: invites.page(c, ACME))
        for one in page.items:
            await self.change(lambda tx, one=one: invites.revoke(tx, one.id))
        self.assertIn("revoked", await self.refused(Machine().body(code)))
        forged = code[:-5] + ("AAAAA" if not code.endswith("AAAAA") else "BBBBB")
        self.assertIn("unknown", await self.refused(Machine().body(forged)))
        elsewhere = code.replace(ACME.replace("-", ""), OTHER.replace("-", ""))
        self.assertIn("unknown", await self.refused(Machine().body(elsewhere)))
        for text in ("", "b0i_", "x" * 160, "b0q" + code[3:]):
            await self.refused(Machine().body(text))
        connector = await self.invite("connector", name="lab")
        self.assertIn("unknown", await self.refused(Machine().body(connector)))
        found = await self.store.read(lambda c: devices.page(c, ACME))
        self.assertEqual([], found.items)

    async def test_the_signature_binds_the_code_to_both_keys(self):
        code = await self.invite()
        mine, other = Machine(1), Machine(2)
        good, foreign = mine.body(code), other.body(code)
        for changed in (
            {"signature": foreign.signature},
            {"wireguard_key": foreign.wireguard_key},
            {"machine_key": foreign.machine_key},
        ):
            await self.refused(mine.body(code, **changed))
        await self.refused(mine.body(code, wireguard_key=base64.b64encode(bytes(32)).decode()), 422)
        await self.refused(mine.body(code, machine_key="AAAA"), 422)
        await self.join(good)

    async def test_the_same_key_joins_again_as_itself(self):
        first = await self.join(Machine().body(await self.invite()))
        self.clock.now += 100 * DAY
        again = await self.join(Machine().body(await self.invite(), name="renamed"))
        self.assertEqual((first.node, first.addresses), (again.node, again.addresses))
        device = await self.store.read(lambda c: devices.get(c, ACME, first.node))
        self.assertAlmostEqual(self.clock() + 180 * DAY, device.expires)
        self.assertEqual(self.clock(), device.authenticated)

    async def test_another_users_device_is_not_taken_over(self):
        first = await self.join(Machine().body(await self.invite()))
        bob = await self.change(
            lambda tx: users.create(tx, issuer="local", subject="b", email="bob@example.org")
        )
        code = await self.invite(user_id=bob.id)
        self.assertIn("another owner", await self.refused(Machine().body(code)))
        device = await self.store.read(lambda c: devices.get(c, ACME, first.node))
        self.assertEqual(self.user.id, device.user_id)

    async def test_a_locked_device_stays_locked(self):
        first = await self.join(Machine().body(await self.invite()))
        await self.changed(lambda tx: devices.update(tx, first.node, None, locked=True))
        self.assertIn("locked", await self.refused(Machine().body(await self.invite())))

    async def test_a_code_for_one_key_is_for_no_other(self):
        mine = Machine(1)
        code = await self.invite(wireguard_key=base64.b64encode(mine.wireguard).decode())
        self.assertIn("another key", await self.refused(Machine(2).body(code)))
        await self.join(mine.body(code))

    async def test_a_taken_name_gets_a_number(self):
        names = []
        for number in (1, 2, 3):
            names.append((await self.join(Machine(number).body(await self.invite()))).name)
        self.assertEqual(["laptop", "laptop-2", "laptop-3"], names)

    async def test_approval(self):
        await self.change(
            lambda tx: organisations.change(tx, None, settings={"require_device_approval": True})
        )
        waiting = await self.join(Machine(1).body(await self.invite()))
        self.assertFalse(waiting.approved)
        self.assertNotIn(("node", waiting.node), self.publisher.signing.held)
        approved = await self.join(Machine(2).body(await self.invite(approved=True)))
        self.assertTrue(approved.approved)
        await self.changed(lambda tx: devices.update(tx, waiting.node, None, approved=True))
        self.assertIn(("node", waiting.node), self.publisher.signing.held)

    async def test_enrolment_keys_one_off_reusable_ephemeral_and_tagged(self):
        once = await self.enrolment()
        await self.join(Machine(1).body(once))
        self.assertIn("used", await self.refused(Machine(2).body(once)))
        twice = await self.enrolment(max_uses=2, ephemeral=True)
        for number in (2, 3):
            answer = await self.join(Machine(number).body(twice))
            self.assertTrue(self.publisher.nodes[answer.node].ephemeral)
        self.assertIn("used", await self.refused(Machine(4).body(twice)))
        tagged = await self.enrolment(user_id=None, tags=["ci"], max_uses=None)
        answer = await self.join(Machine(5).body(tagged))
        device = await self.store.read(lambda c: devices.get(c, ACME, answer.node))
        self.assertEqual((None, ["ci"], None), (device.user_id, device.tags, device.expires))
        self.assertIn("connector", await self.refused(
            Machine(6).body(await self.enrolment(role="connector", user_id=None))
        ))  # fmt: skip


class Connectors(EnrolCase):
    async def test_an_invite_names_the_connector(self):
        code = await self.invite("connector", name="lab")
        line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA=="
        answer = await self.join(Machine().body(code, "connector", "host", ssh_host_key=line))
        self.assertEqual(("lab", [], True), (answer.name, answer.addresses, answer.approved))
        statement = self.publisher.signing.held[("node", answer.node)]
        self.assertEqual(line, statement.body["ssh_host_key"])

    async def test_one_that_was_made_before_gets_its_keys(self):
        made = await self.change(lambda tx: connectors.create(tx, name="lab"))
        code = await self.invite("connector", name="lab")
        answer = await self.join(Machine().body(code, "connector"))
        self.assertEqual(made.id, answer.node)

    async def test_a_token_replaces_the_keys(self):
        made = await self.change(lambda tx: connectors.create(tx, name="lab"))
        _, text = await self.change(
            lambda tx: tokens.issue(
                tx,
                kind="node",
                name="ci",
                scopes=[],
                expires=tx.now + DAY,
                connector_id=made.id,
            )
        )
        for number in (1, 2):
            answer = await self.join(Machine(number).body(text.reveal(), "connector"))
            self.assertEqual(made.id, answer.node)
        found = await self.store.read(lambda c: connectors.get(c, ACME, made.id))
        self.assertEqual(base64.b64encode(bytes([2]) * 32).decode(), found.wireguard_key)
        await self.refused(Machine(3).body(text.reveal()))
        self.clock.now += 2 * DAY
        await self.refused(Machine(3).body(text.reveal(), "connector"))

    async def test_a_locked_connector_stays_locked(self):
        made = await self.change(lambda tx: connectors.create(tx, name="lab"))
        await self.change(lambda tx: connectors.update(tx, made.id, None, locked=True))
        code = await self.invite("connector", connector_id=made.id)
        self.assertIn("locked", await self.refused(Machine().body(code, "connector")))
