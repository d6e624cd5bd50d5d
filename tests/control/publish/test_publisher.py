"""Statements follow the store: signed once, seen by whom they concern, signed again in time."""

import hashlib
import json
import os
from pathlib import Path
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from border0.control.member.relays import relays_of
from border0.control.publish import publisher as module
from border0.control.publish import signing
from border0.control.store import connectors, devices, groups, policies, relays, sockets, users
from border0.control.store.backup import restore
from border0.control.store.errors import Unavailable
from border0.control.store.store import Store
from border0.statements import TYPES, Ledger, draft, sign
from tests.control.publish.case import PublisherCase, key_text, policy_text
from tests.control.store.case import ACME, DAY


class Views(PublisherCase):
    async def test_an_empty_organisation_has_signers_and_a_head(self):
        held = set(self.publisher.signing.held)
        self.assertEqual({("signers", ACME), ("head", ACME)}, held)
        self.assertGreater(self.publisher.map.revision, 0)

    async def test_each_node_gets_what_concerns_it(self):
        await self.furnish()
        self.assertEqual(["head", "node", "node", "signers", "socket"], self.kinds(self.alice))
        self.assertEqual(["head", "node", "signers"], self.kinds(self.bob))
        self.assertEqual(
            [
                "attachment", "configuration", "head", "membership", "node", "node", "policy",
                "signers", "socket",
            ],
            self.kinds(self.lab.id),
        )  # fmt: skip

    async def test_a_connector_can_decide_by_what_it_gets(self):
        await self.furnish()
        ledger = self.ledger(self.lab.id)
        attached = ledger.policies(self.db.id, self.clock())
        self.assertEqual((), attached.missing)
        self.assertEqual(["eng"], [one.body["name"] for one in attached.policies])
        node = ledger.current("node", self.alice, self.clock())
        self.assertEqual("alice-laptop", node.body["name"])

    async def test_the_configuration_is_the_one_that_the_socket_names(self):
        await self.furnish()
        body = self.publisher.map.envelope(("configuration", self.db.id))
        socket = self.ledger(self.alice).current("socket", self.db.id, self.clock())
        self.assertEqual(hashlib.sha256(body).hexdigest(), socket.body["configuration_hash"])
        self.assertEqual("postgres", socket.body["protocol"])
        self.assertEqual("db", json.loads(body)["name"])
        self.assertNotIn(("configuration", self.db.id), self.entries(self.alice))

    async def test_a_policy_edit_takes_a_device_out_of_the_connectors_view(self):
        await self.furnish()
        text = policy_text("bob@example.org")
        await self.changed(lambda tx: policies.edit(tx, self.policy.id, None, text))
        self.assertEqual(["head", "node", "signers"], self.kinds(self.alice))
        self.assertIn("socket", self.kinds(self.bob))
        self.assertNotIn(("node", self.alice), self.entries(self.lab.id))
        self.ledger(self.lab.id)

    async def test_a_policy_of_the_whole_organisation_reaches_every_socket(self):
        await self.furnish()
        text = policy_text("bob@example.org")
        wide = await self.changed(
            lambda tx: policies.create(tx, name="wide", text=text, org_wide=True)
        )
        self.assertIn("socket", self.kinds(self.bob))
        await self.changed(lambda tx: policies.update(tx, wide.id, None, org_wide=False))
        self.assertNotIn("socket", self.kinds(self.bob))

    async def test_groups_by_id_and_name(self):
        await self.furnish()
        group = await self.changed(lambda tx: groups.create(tx, name="dba"))
        for who in ("dba", group.id):
            document = {"permissions": {"database": {}}, "condition": {"who": {"group": [who]}}}
            text = json.dumps(document)
            await self.changed(lambda tx, text=text: policies.edit(tx, self.policy.id, None, text))
            self.assertNotIn("socket", self.kinds(self.bob))
            bob = await self.store.read(lambda c: devices.get(c, ACME, self.bob).user_id)
            await self.changed(lambda tx, bob=bob: groups.add(tx, group.id, bob))
            self.assertIn("socket", self.kinds(self.bob))
            membership = self.ledger(self.lab.id).current("membership", bob, self.clock())
            self.assertEqual(([group.id], ["dba"]), (
                membership.body["groups"], membership.body["group_names"]
            ))  # fmt: skip
            await self.changed(lambda tx, bob=bob: groups.drop(tx, group.id, bob))

    async def test_a_disabled_user_a_locked_and_an_unapproved_device_reach_nothing(self):
        await self.furnish()
        owner = await self.store.read(lambda c: devices.get(c, ACME, self.alice).user_id)
        for change, back in (
            (
                lambda tx: users.update(tx, owner, None, disabled=True),
                lambda tx: users.update(tx, owner, None, disabled=False),
            ),
            (
                lambda tx: devices.update(tx, self.alice, None, locked=True),
                lambda tx: devices.update(tx, self.alice, None, locked=False),
            ),
            (
                lambda tx: devices.update(tx, self.alice, None, approved=False),
                lambda tx: devices.update(tx, self.alice, None, approved=True),
            ),
        ):
            await self.changed(change)
            self.assertNotIn(("node", self.alice), self.entries(self.lab.id))
            self.assertNotIn("socket", self.kinds(self.alice))
            await self.changed(back)
            self.assertIn(("node", self.alice), self.entries(self.lab.id))

    async def test_a_device_expires_by_itself(self):
        await self.furnish()
        end = self.clock.now + 100.0
        await self.changed(lambda tx: devices.update(tx, self.alice, None, expires=end))
        statement = self.ledger(self.lab.id).current("node", self.alice, self.clock())
        self.assertAlmostEqual(end, statement.expires, places=3)
        self.clock.now = end + 1.0
        self.publisher._look_round()
        await self.publisher.settled()
        self.assertEqual("expired", self.publisher.nodes[self.alice].refusal)
        self.assertNotIn(("node", self.alice), self.entries(self.lab.id))

    async def test_what_is_removed_is_gone_everywhere(self):
        await self.furnish()
        await self.changed(lambda tx: devices.remove(tx, self.alice))
        self.assertIsNone(self.publisher.map.view(self.alice))
        self.assertNotIn(self.alice, self.publisher.nodes)
        await self.changed(lambda tx: sockets.remove(tx, self.db.id))
        await self.changed(lambda tx: policies.remove(tx, self.policy.id))
        await self.changed(lambda tx: connectors.remove(tx, self.lab.id))
        left = {"membership", "signers", "head", "node"}
        self.assertEqual(left, {kind for kind, _ in self.publisher.signing.held})
        self.assertNotIn(("node", self.alice), self.publisher.signing.held)

    async def test_a_policy_that_cannot_be_read_reaches_nobody(self):
        await self.furnish()
        await self.changed(lambda tx: policies.edit(tx, self.policy.id, None, "{"))
        self.assertNotIn("socket", self.kinds(self.alice))
        self.flushLoggedErrors()

    async def test_a_burst_costs_one_head(self):
        await self.furnish()
        before = self.publisher.map.revision
        told = len(self.publisher.told_of)
        for number in range(20):
            text = policy_text(f"user{number}@example.org")
            done = self.change(lambda tx, text=text: policies.edit(tx, self.policy.id, None, text))
        await done
        await self.publisher.settled()
        self.assertLessEqual(len(self.publisher.told_of) - told, 3)
        self.assertGreater(self.publisher.map.revision, before)


class Restarts(PublisherCase):
    async def test_nothing_is_signed_again_without_need(self):
        await self.furnish()
        before = dict(self.publisher.signing.held)
        again = await self.published()
        self.assertEqual(before, again.signing.held)
        self.assertEqual(self.publisher.map.revision, again.map.revision)
        self.assertEqual(self.publisher.map.entries(self.lab.id), again.map.entries(self.lab.id))

    async def test_what_a_crash_left_unsigned_is_signed_at_the_start(self):
        await self.furnish()
        self.publisher.stop()  # the process ends between commit and signing
        text = policy_text("bob@example.org")
        await self.change(lambda tx: policies.edit(tx, self.policy.id, None, text))
        self.publisher = await self.published()
        self.assertIn("socket", self.kinds(self.bob))
        self.assertNotIn("socket", self.kinds(self.alice))

    async def test_statements_are_renewed_in_time(self):
        await self.furnish()
        before = dict(self.publisher.signing.held)
        self.clock.now += (signing.OBJECT_DAYS / 2 + 1) * DAY
        self.publisher._look_round()
        await self.publisher.settled()
        after = self.publisher.signing.held
        for key in before:
            if key[0] != "signers":
                self.assertGreater(after[key].expires, before[key].expires, key)
        self.ledger(self.lab.id)

    async def test_the_head_alone_is_renewed_more_often(self):
        await self.furnish()
        before = dict(self.publisher.signing.held)
        self.clock.now += (signing.HEAD_DAYS / 2 + 1) * DAY
        self.publisher._look_round()
        await self.publisher.settled()
        renewed = [key for key in before if self.publisher.signing.held[key] != before[key]]
        self.assertEqual([("head", ACME)], renewed)

    async def test_after_a_restored_backup_nodes_that_saw_more_believe_again(self):
        await self.furnish()
        path = os.path.join(os.path.dirname(self.url.removeprefix("sqlite:///")), "backup")
        await self.store.backup(path)
        for number in range(5):
            text = policy_text(f"user{number}@example.org")
            await self.changed(lambda tx, text=text: policies.edit(tx, self.policy.id, None, text))
        ledger = self.ledger(self.lab.id)
        self.publisher.stop()
        await self.store.close()
        url = self.new_url()
        restore(Path(path), url)
        self.store = await Store.open(url, clock=self.clock)
        self.publisher = await self.published()
        self.ledger(self.lab.id, ledger)
        attached = ledger.policies(self.db.id, self.clock())
        self.assertEqual(
            [policy_text("alice@example.org")], [one.body["text"] for one in attached.policies]
        )

    async def test_a_failing_store_changes_no_view_and_is_tried_again(self):
        await self.furnish()
        before = self.publisher.map.entries(self.alice)
        real, calls = self.store.change, []

        def change(function, *, org, actor):
            if actor == module.ACTOR and not calls:
                calls.append(1)
                raise Unavailable("the disk is full", certain=True)
            return real(function, org=org, actor=actor)

        self.patch(module, "RETRY_SECONDS", 0.05)
        self.patch(self.store, "change", change)
        text = policy_text("bob@example.org")
        await real(
            lambda tx: policies.edit(tx, self.policy.id, None, text), org=ACME, actor="tester"
        )
        self.assertEqual(before, self.publisher.map.entries(self.alice))
        await self.publisher.settled()
        self.assertEqual([1], calls)
        self.assertNotIn("socket", self.kinds(self.alice))
        self.assertEqual(1, len(self.flushLoggedErrors(Unavailable)))


def eu(tx, **more):
    return relays.create(
        tx, **{"name": "eu", "names": ["relay.example.org"], "public_key": key_text(7), **more}
    )


class Relays(PublisherCase):
    async def test_every_node_gets_them(self):
        await self.furnish()
        made = await self.changed(lambda tx: eu(tx, region="eu", ca="sha256:" + "ab" * 32))
        for node in (self.alice, self.bob, self.lab.id):
            ledger = self.ledger(node)
            (found,) = relays_of(ledger, self.clock())
            self.assertEqual((found.id, found.name, found.names), (made.id, "eu", (made.names[0],)))
            self.assertEqual(found.public_key, bytes([7]) * 32)
            self.assertEqual((found.port, found.path, found.region), (443, "/relay", "eu"))
            self.assertEqual((found.weight, found.drain), (100, False))
            self.assertEqual(found.channel_binding, "tls-exporter")
            self.assertEqual(found.ca, "sha256:" + "ab" * 32)
        told = self.publisher.told_of[-1]
        self.assertIn(("relay", made.id), told.everyone)
        self.assertEqual(self.publisher.relays(), [made.id])
        await self.changed(
            lambda tx: relays.update(tx, made.id, None, drain=True, region="", ca="")
        )
        ledger = self.ledger(self.alice, ledger)
        (found,) = relays_of(ledger, self.clock())
        self.assertEqual((found.drain, found.region, found.ca), (True, "", ""))
        await self.changed(lambda tx: relays.remove(tx, made.id))
        self.ledger(self.alice, ledger)
        self.assertEqual(relays_of(ledger, self.clock()), [])
        self.assertEqual(ledger.state("relay", made.id, self.clock()), "absent")
        self.assertEqual(self.publisher.relays(), [])

    async def test_what_no_statement_can_say_is_told_to_nobody(self):
        bad = await self.changed(lambda tx: eu(tx, names=["Not A Name"]))
        good = await self.changed(lambda tx: eu(tx, name="us", public_key=key_text(8)))
        self.assertEqual(self.publisher.relays(), [good.id])
        self.assertIn("names", self.publisher.unsigned[("relay", bad.id)])


class OlderLists(PublisherCase):
    """An organisation whose list of signers was made before there were relays."""

    async def begin(self):
        old = tuple(type for type in TYPES if type != "relay")
        with (
            mock.patch.object(signing, "TYPES", old),
            mock.patch.object(signing, "ADDED_TYPES", ()),
        ):
            await super().begin()
            await self.furnish()

    async def test_the_list_is_extended_and_nodes_follow(self):
        ledger = self.ledger(self.lab.id)
        before = self.publisher.signers.statement
        self.assertNotIn("relay", before.body["keys"][0]["types"])
        self.publisher.stop()
        self.publisher = await self.published()
        after = self.publisher.signers.statement
        self.assertIn("relay", after.body["keys"][0]["types"])
        made = await self.changed(eu)
        self.ledger(self.lab.id, ledger)  # nothing is refused: the old list vouches for the new
        self.assertEqual(ledger.signers.statement, after)
        self.assertEqual([one.id for one in relays_of(ledger, self.clock())], [made.id])
        again = await self.published()
        self.assertEqual(again.signers.statement, after)


class OtherSigners(PublisherCase):
    """Administrators hold the key for nodes: the control plane signs everything else."""

    mine = tuple(type for type in TYPES if type not in ("node", "signers"))

    async def begin(self):
        await super().begin()
        self.admin = Ed25519PrivateKey.from_private_bytes(b"a" * 32)
        await self.sign_list({self.key: self.mine, self.admin: ["node", "signers"]})

    async def sign_list(self, keys):
        import base64

        entries = [
            {
                "key": base64.b64encode(key.public_key().public_bytes_raw()).decode(),
                "types": list(types),
            }
            for key, types in keys.items()
        ]

        def put(tx):
            from border0.control.store import statements

            body = draft(ACME, ACME, tx.revision, tx.now, tx.now + 365 * DAY, keys=entries)
            made = sign("signers", body, self.key)
            made_row = statements.NewStatement(
                type="signers",
                id=ACME,
                revision=body["revision"],
                hash=made.hash,
                payload=made.payload,
                signatures=[
                    (name, base64.b64encode(text).decode()) for name, text in made.signatures
                ],
                expires=made.expires,
            )
            statements.put(tx, made_row)

        self.publisher.stop()
        self.pinned = self.publisher.signers.statement
        await self.change(put)
        self.publisher = await self.published()

    async def test_it_inserts_no_peer(self):
        await self.furnish()
        self.assertNotIn("node", {kind for kind, _ in self.publisher.signing.held})
        # Even one that it signs by force is refused by every node.
        body = draft(
            ACME, self.alice, 10_000, self.clock(), self.clock() + DAY,
            role="device", name="evil", public_key=key_text(66), addresses=[],
            owner=self.bob,
        )  # fmt: skip
        forged = sign("node", body, self.key)
        ledger = Ledger(ACME, self.pinned)
        refused = ledger.accept_all([self.publisher.signers.statement, forged], self.clock())
        self.assertEqual(["key not allowed"], [error.reason for _, error in refused])

    async def test_the_rest_is_published_all_the_same(self):
        await self.furnish()
        ledger = self.ledger(self.lab.id, Ledger(ACME, self.pinned))
        self.assertEqual((), ledger.policies(self.db.id, self.clock()).missing)
        self.assertIsNone(ledger.current("node", self.alice, self.clock()))


class OthersRelays(OtherSigners):
    """Nobody gave this control plane the right to sign relays, and it may not change the list."""

    mine = tuple(type for type in OtherSigners.mine if type != "relay")

    async def test_it_gives_itself_nothing(self):
        made = await self.changed(eu)
        self.assertEqual(self.publisher.relays(), [])
        self.assertFalse(self.publisher.signers.allows(self.publisher.signing._key_id, "relay"))
        self.assertNotIn(("relay", made.id), self.publisher.signing.held)
