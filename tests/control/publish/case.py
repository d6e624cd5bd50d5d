"""An organisation in a real store, a publisher that follows it, and nodes that judge it."""

import base64
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from border0.control.publish.publisher import Publisher
from border0.control.store import (
    attachments,
    connectors,
    devices,
    organisations,
    policies,
    sockets,
    users,
)
from border0.control.store.store import Store
from border0.statements import Ledger, Statement
from tests.control.store.case import ACME, Moment, OnSQLite

UPSTREAM = {
    "service_type": "database",
    "database_service_configuration": {
        "database_service_type": "standard",
        "standard_database_service_configuration": {"protocol": "postgres", "hostname": "db"},
    },
}


def key_text(number):
    return base64.b64encode(bytes([number]) * 32).decode()


def policy_text(*emails, deny=False):
    what = "deny" if deny else "permissions"
    rights = {"database": {}}
    document = {what: rights, "condition": {"who": {"email": list(emails)}}}
    if deny:
        document["permissions"] = {}
    return json.dumps(document)


class PublisherCase(OnSQLite, TestCase):
    """`self.call(coroutine function)` awaits; `self.node(id)` is what a node would hold."""

    timeout = 60

    def setUp(self):
        self.clock = Moment()
        self.key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
        return Deferred.fromCoroutine(self.begin())

    async def begin(self):
        self.url = self.new_url()
        self.store = await Store.open(self.url, reactor=reactor, clock=self.clock)
        self.addCleanup(lambda: self.store.close())
        await self.change(lambda tx: organisations.create(tx, name="acme"))
        self.publisher = await self.published()

    async def published(self, key=None):
        """A publisher as a start of the process makes it."""
        told = []
        publisher = Publisher(self.store, ACME, key or self.key, reactor, self.clock, told.append)
        publisher.told_of = told
        end = self.store.subscribe(lambda org, revision, entries: publisher.changed(entries))
        self.addCleanup(end)
        self.addCleanup(publisher.stop)
        await publisher.start()
        return publisher

    def change(self, function, actor="tester"):
        return self.store.change(function, org=ACME, actor=actor)

    async def changed(self, function):
        """Commit a change and wait until nodes can know it."""
        value = await self.change(function)
        await self.publisher.settled()
        return value

    async def furnish(self):
        """Alice's laptop may reach `db` at connector `lab`; Bob may not."""

        def make(tx):
            for name in ("alice", "bob"):
                user = users.create(tx, issuer="local", subject=name, email=f"{name}@example.org")
                devices.create(
                    tx,
                    name=f"{name}-laptop",
                    wireguard_key=key_text(len(name)),
                    machine_key=key_text(len(name) + 100),
                    user_id=user.id,
                    approved=True,
                    id=f"00000000-0000-4000-8000-00000000000{len(name)}",
                )
            lab = connectors.create(
                tx, name="lab", wireguard_key=key_text(9), machine_key=key_text(109)
            )
            db = sockets.create(
                tx, name="db", socket_type="database", port=5432, upstream_configuration=UPSTREAM
            )
            sockets.set_connectors(tx, db.id, None, [lab.id])
            policy = policies.create(tx, name="eng", text=policy_text("alice@example.org"))
            attachments.attach(tx, db.id, policy.id)
            return lab, db, policy

        self.lab, self.db, self.policy = await self.changed(make)
        self.alice = "00000000-0000-4000-8000-000000000005"
        self.bob = "00000000-0000-4000-8000-000000000003"

    def entries(self, node):
        """(kind, id) of everything in a node's map."""
        return set(self.publisher.map.entries(node))

    def ledger(self, node, ledger=None):
        """What the node believes after it got its map."""
        map = self.publisher.map
        if ledger is None:
            ledger = Ledger(ACME, self.publisher.signers.statement)
        found = [
            Statement.from_json(map.envelope(key))
            for key in map.entries(node)
            if key[0] != "configuration"
        ]
        refused = ledger.accept_all(found, self.clock())
        self.assertEqual([], [(one.type, str(error)) for one, error in refused])
        return ledger

    def kinds(self, node):
        return sorted(kind for kind, _ in self.entries(node))
