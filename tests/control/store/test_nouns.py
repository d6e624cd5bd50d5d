"""Every noun: made, found, paged, changed, removed; and never across organisations."""

from border0.control.store import (
    BrokenReference,
    Duplicate,
    Exhausted,
    Invalid,
    NotFound,
    VersionConflict,
    attachments,
    connectors,
    credentials,
    devices,
    groups,
    organisations,
    policies,
    relays,
    service_accounts,
    sockets,
    statements,
    users,
)
from tests.control.store.case import (
    ACME,
    NOWHERE,
    OTHER,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)


def user(tx, subject="bob", **more):
    return users.create(tx, issuer="local", subject=subject, **more)


def device(tx, name="laptop", **more):
    more.setdefault("tags", ["lab"])
    return devices.create(tx, name=name, wireguard_key=f"w-{name}", machine_key=f"m-{name}", **more)


def socket(tx, name="db", **more):
    configuration = {"service_type": "database", "nested": {"port": 5432, "list": [1, None, "é"]}}
    return sockets.create(
        tx,
        name=name,
        socket_type="database",
        port=5432,
        upstream_configuration=configuration,
        **more,
    )


class Nouns:
    def test_organisation(self):
        made = self.read(lambda c: organisations.get(c, ACME))
        self.assertEqual(made.services_v4, "100.126.0.0/20")
        self.assertEqual(made.devices_v4, "100.64.0.0/20")
        self.assertTrue(made.services_v6.startswith("fd") and made.services_v6.endswith("::/64"))
        self.assertNotEqual(made.services_v6, made.devices_v6)
        self.assertEqual(made.services_v6.split(":")[:3], made.devices_v6.split(":")[:3])
        other = self.read(lambda c: organisations.get(c, OTHER))
        self.assertEqual(
            (other.services_v4, other.devices_v4), ("100.126.16.0/20", "100.64.16.0/20")
        )
        changed = self.change(lambda tx: organisations.change(tx, 1, settings={"a": [1]}))
        self.assertEqual((changed.version, changed.settings), (2, {"a": [1]}))
        with self.assertRaises(VersionConflict) as caught:
            self.change(lambda tx: organisations.change(tx, 1, name="late"))
        self.assertEqual(caught.exception.current, 2)
        with self.assertRaises(Duplicate) as taken:
            self.change(lambda tx: organisations.change(tx, None, name="other"))
        self.assertEqual(taken.exception.columns, ("name",))
        self.assertEqual(self.read(lambda c: organisations.find(c, "acme")).id, ACME)
        first = self.read(lambda c: organisations.page(c, limit=1))
        self.assertEqual([one.name for one in first.items], ["acme"])
        second = self.read(lambda c: organisations.page(c, after=first.after))
        self.assertEqual([one.name for one in second.items], ["other"])
        self.assertRaises(NotFound, self.read, lambda c: organisations.get(c, NOWHERE))

    def test_given_prefixes(self):
        def make(tx, **more):
            return organisations.create(tx, name="third", **more)

        for wrong in (
            {"services_v4": "10.0.0.1/24"},
            {"services_v4": "fd00::/64"},
            {"services_v4": "10.0.0.0/31"},
            {"services_v4": "10.0.0.0/8", "devices_v4": "10.1.0.0/16"},
            {"devices_v6": "nonsense", "services_v6": "fd00::/64"},
        ):
            self.assertRaises(Invalid, self.change, lambda tx, w=wrong: make(tx, **w), org=NOWHERE)
        # The IPv4 prefix of somebody else may be given on purpose.
        made = self.change(lambda tx: make(tx, services_v4="100.126.0.0/20"), org=NOWHERE)
        self.assertEqual(made.devices_v4, "100.64.32.0/20")

    def test_removing_an_organisation_leaves_the_other_one(self):
        for org in (ACME, OTHER):
            bob = self.change(user, org=org)
            self.change(lambda tx, b=bob: device(tx, user_id=b.id), org=org)
            self.change(socket, org=org)
        self.change(organisations.remove)
        self.assertRaises(NotFound, self.read, lambda c: organisations.get(c, ACME))
        self.assertEqual(len(self.read(lambda c: devices.page(c, OTHER)).items), 1)
        self.assertRaises(BrokenReference, self.change, user)

    def test_users(self):
        bob = self.change(lambda tx: user(tx, email="bob@example.org"))
        self.assertEqual(
            self.entries(), [("user", bob.id, "create"), ("membership", bob.id, "create")]
        )
        self.assertEqual(self.read(lambda c: users.get(c, ACME, bob.id)), bob)
        self.assertEqual(self.read(lambda c: users.find(c, ACME, "local", "bob")), bob)
        # The same address from another issuer is another person.
        mallory = self.change(
            lambda tx: users.create(tx, issuer="https://idp", subject="1", email="bob@example.org")
        )
        self.assertNotEqual(mallory.id, bob.id)
        with self.assertRaises(Duplicate) as taken:
            self.change(user)
        self.assertEqual(taken.exception.columns, ("issuer", "subject"))
        twin = self.change(user, org=OTHER)
        found = self.read(lambda c: users.everywhere(c, "local", "bob"))
        self.assertEqual({one.id for one in found}, {bob.id, twin.id})
        owner = self.change(lambda tx: users.update(tx, bob.id, 1, role="owner"))
        self.assertEqual((owner.role, owner.version), ("owner", 2))
        self.assertEqual(self.read(lambda c: users.owners(c, ACME)), [bob.id])
        self.assertRaises(
            VersionConflict, self.change, lambda tx: users.update(tx, bob.id, 1, role="member")
        )
        self.assertRaises(Invalid, self.change, lambda tx: users.update(tx, bob.id, 2, role="god"))
        self.assertRaises(
            ValueError, self.change, lambda tx: users.update(tx, bob.id, 2, org=OTHER)
        )
        self.change(lambda tx: users.update(tx, bob.id, 2, disabled=True))
        self.assertIn(("membership", bob.id, "update"), self.entries())
        self.change(lambda tx: users.remove(tx, bob.id, 3))
        self.assertIn(("membership", bob.id, "delete"), self.entries())
        self.assertRaises(NotFound, self.read, lambda c: users.get(c, ACME, bob.id))
        self.assertRaises(NotFound, self.change, lambda tx: users.remove(tx, bob.id))

    def test_an_owner_of_devices_is_not_removed(self):
        bob = self.change(user)
        laptop = self.change(lambda tx: device(tx, user_id=bob.id, tags=[]))
        self.assertRaises(BrokenReference, self.change, lambda tx: users.remove(tx, bob.id))

        def both(tx):
            devices.remove(tx, laptop.id)
            users.remove(tx, bob.id)

        self.change(both)
        self.assertEqual(self.read(lambda c: users.page(c, ACME)).items, [])

    def test_groups(self):
        bob, eve = self.change(user), self.change(lambda tx: user(tx, "eve"))
        eng = self.change(lambda tx: groups.create(tx, name="eng"))
        ops = self.change(lambda tx: groups.create(tx, name="ops"))
        self.assertEqual(self.read(lambda c: groups.find(c, ACME, "eng")), eng)
        self.assertTrue(self.change(lambda tx: groups.add(tx, eng.id, bob.id)))
        self.assertEqual(self.entries(), [("membership", bob.id, "update")])
        self.assertFalse(self.change(lambda tx: groups.add(tx, eng.id, bob.id)))
        self.assertEqual(self.announced, [])
        self.change(lambda tx: groups.set_groups(tx, eve.id, [eng.id, ops.id]))
        self.change(lambda tx: groups.set_groups(tx, eve.id, [ops.id]))
        self.assertEqual(self.read(lambda c: groups.of_user(c, ACME, eve.id)), [ops.id])
        self.assertEqual(self.read(lambda c: groups.members(c, ACME, eng.id)), [bob.id])
        self.assertTrue(self.change(lambda tx: groups.drop(tx, ops.id, eve.id)))
        self.assertFalse(self.change(lambda tx: groups.drop(tx, ops.id, eve.id)))
        self.assertEqual(
            self.change(lambda tx: groups.update(tx, eng.id, 1, name="core")).name, "core"
        )
        self.change(lambda tx: groups.remove(tx, eng.id))
        self.assertIn(("membership", bob.id, "update"), self.entries())
        self.assertEqual(self.read(lambda c: groups.of_user(c, ACME, bob.id)), [])

    def test_credentials(self):
        bob = self.change(user)
        self.assertRaises(NotFound, self.read, lambda c: credentials.get(c, ACME, bob.id))
        self.change(lambda tx: credentials.set_password(tx, bob.id, "canary-hash"))
        self.change(lambda tx: credentials.set_totp(tx, bob.id, b"\0seal", ["canary-h1", "h2"]))
        found = self.read(lambda c: credentials.get(c, ACME, bob.id))
        self.assertEqual((found.password_hash, found.totp_secret), ("canary-hash", b"\0seal"))
        self.assertNotIn("canary", repr(found))
        spend = credentials.spend_totp
        used = [self.change(lambda tx, s=s: spend(tx, bob.id, s)) for s in (7, 7, 6, 8)]
        self.assertEqual(used, [True, False, False, True])
        codes = [
            self.change(lambda tx: credentials.spend_recovery(tx, bob.id, "h2")) for _ in range(2)
        ]
        self.assertEqual(codes, [True, False])
        self.assertRaises(
            BrokenReference, self.change, lambda tx: credentials.set_password(tx, NOWHERE, "x")
        )
        self.change(lambda tx: users.remove(tx, bob.id))
        self.assertRaises(NotFound, self.read, lambda c: credentials.get(c, ACME, bob.id))

    def test_service_accounts(self):
        made = self.change(lambda tx: service_accounts.create(tx, name="ci"))
        self.assertEqual(self.read(lambda c: service_accounts.find(c, ACME, "ci")), made)
        self.assertTrue(
            self.change(lambda tx: service_accounts.update(tx, made.id, 1, disabled=True)).disabled
        )
        self.change(lambda tx: service_accounts.remove(tx, made.id, 2))
        self.assertEqual(self.read(lambda c: service_accounts.page(c, ACME)).items, [])

    def test_devices(self):
        bob = self.change(user)
        made = self.change(lambda tx: device(tx, user_id=bob.id, facts={"os": "linux"}))
        self.assertFalse(made.approved)
        self.assertEqual(self.read(lambda c: devices.by_key(c, ACME, "w-laptop")), made)
        self.assertEqual(self.read(lambda c: devices.find(c, ACME, "laptop")), made)
        for taken in ("name", "wireguard_key", "machine_key"):
            values = {"name": "x", "wireguard_key": "x", "machine_key": "x"}
            values[taken] = getattr(made, taken)
            with self.assertRaises(Duplicate) as caught:
                self.change(lambda tx, v=values: devices.create(tx, tags=["t"], **v))
            self.assertEqual(caught.exception.columns, (taken,))
        self.assertRaises(Invalid, self.change, lambda tx: device(tx, "none", tags=[]))
        self.assertRaises(
            BrokenReference, self.change, lambda tx: device(tx, "ghost", user_id=NOWHERE)
        )
        changed = self.change(
            lambda tx: devices.update(tx, made.id, 1, approved=True, expires=5.5, tags=["a"])
        )
        self.assertEqual((changed.approved, changed.expires, changed.tags), (True, 5.5, ["a"]))
        self.assertRaises(
            ValueError, self.change, lambda tx: devices.update(tx, made.id, 2, ipv4="100.64.0.9")
        )
        self.change(lambda tx: device(tx, "tagged"))
        names = [one.name for one in self.read(lambda c: devices.page(c, ACME)).items]
        self.assertEqual(names, ["laptop", "tagged"])
        mine = self.read(lambda c: devices.page(c, ACME, user_id=bob.id)).items
        self.assertEqual([one.name for one in mine], ["laptop"])

    def test_connectors_and_sockets(self):
        lab = self.change(lambda tx: connectors.create(tx, name="lab"))
        far = self.change(lambda tx: connectors.create(tx, name="far", wireguard_key="k"))
        self.assertEqual(self.read(lambda c: connectors.by_key(c, ACME, "k")), far)
        db = self.change(socket)
        self.assertEqual(
            db.upstream_configuration["nested"], {"port": 5432, "list": [1, None, "é"]}
        )
        self.assertEqual(self.read(lambda c: sockets.find(c, ACME, "db")), db)
        both = self.change(lambda tx: sockets.set_connectors(tx, db.id, 1, [lab.id, far.id]))
        self.assertEqual(both.version, 2)
        self.assertEqual(
            self.read(lambda c: sockets.connectors(c, ACME, db.id)), sorted([lab.id, far.id])
        )
        self.assertRaises(
            VersionConflict, self.change, lambda tx: sockets.set_connectors(tx, db.id, 1, [])
        )
        self.assertRaises(
            BrokenReference,
            self.change,
            lambda tx: sockets.set_connectors(tx, db.id, 2, [NOWHERE]),
        )
        self.change(lambda tx: connectors.remove(tx, lab.id))
        self.assertIn(("socket", db.id, "update"), self.entries())
        self.assertEqual(self.read(lambda c: sockets.connectors(c, ACME, db.id)), [far.id])
        self.change(lambda tx: sockets.update(tx, db.id, 2, port=5433, disabled=True))
        self.change(lambda tx: sockets.remove(tx, db.id))
        self.assertEqual(self.read(lambda c: sockets.of_connector(c, ACME, far.id)), [])

    def test_policies(self):
        policy = self.change(
            lambda tx: policies.create(tx, name="read", text='{"a": 1}\n'), actor="user:ann"
        )
        edited = self.change(
            lambda tx: policies.edit(tx, policy.id, 1, '{"a": 2}\n', "more"), actor="user:bob"
        )
        self.assertEqual((edited.current, edited.version), (2, 2))
        self.assertRaises(
            VersionConflict, self.change, lambda tx: policies.edit(tx, policy.id, 1, "lost")
        )
        reverted = self.change(lambda tx: policies.revert(tx, policy.id, 2, 1), actor="user:cid")
        self.assertEqual(reverted.current, 3)
        now = self.read(lambda c: policies.get_version(c, ACME, policy.id))
        self.assertEqual((now.text, now.author, now.reverts), ('{"a": 1}\n', "user:cid", 1))
        first = self.read(lambda c: policies.history(c, ACME, policy.id, limit=2))
        rest = self.read(lambda c: policies.history(c, ACME, policy.id, after=first.after))
        versions = first.items + rest.items
        self.assertEqual([one.number for one in versions], [3, 2, 1])
        self.assertEqual([one.author for one in versions], ["user:cid", "user:bob", "user:ann"])
        text = self.read(lambda c: policies.diff(c, ACME, policy.id, 1, 2))
        self.assertIn('-{"a": 1}\n+{"a": 2}\n', text)
        self.assertEqual(self.read(lambda c: policies.diff(c, ACME, policy.id, 1, 3)), "")
        for missing in (0, 4, -1):
            self.assertRaises(
                NotFound,
                self.read,
                lambda c, n=missing: policies.get_version(c, ACME, policy.id, n),
            )
        self.assertRaises(NotFound, self.change, lambda tx: policies.revert(tx, policy.id, 3, 9))

    def test_attachments(self):
        db = self.change(socket)
        one, two = (
            self.change(lambda tx, n=n: policies.create(tx, name=n, text="{}")) for n in ("a", "b")
        )
        self.assertTrue(self.change(lambda tx: attachments.attach(tx, db.id, one.id)))
        self.assertEqual(self.entries(), [("attachment", db.id, "update")])
        self.assertFalse(self.change(lambda tx: attachments.attach(tx, db.id, one.id)))
        self.change(lambda tx: attachments.set_policies(tx, db.id, [two.id]))
        self.assertEqual(self.read(lambda c: attachments.of_socket(c, ACME, db.id)), [two.id])
        self.assertEqual(self.read(lambda c: attachments.of_policy(c, ACME, two.id)), [db.id])
        self.assertRaises(
            BrokenReference, self.change, lambda tx: attachments.attach(tx, db.id, NOWHERE)
        )
        self.change(lambda tx: policies.remove(tx, two.id))
        self.assertIn(("attachment", db.id, "update"), self.entries())
        self.assertEqual(self.read(lambda c: attachments.of_socket(c, ACME, db.id)), [])

    def test_statements(self):
        payload = b'{"id":"x",  "odd" : "\xc3\xa9"}'

        def put(tx, revision, payload=payload):
            signatures = [("k", "c2ln")]
            hashed = f"h{revision}"
            one = statements.NewStatement("node", "x", revision, hashed, payload, signatures, 9.0)
            statements.put(tx, one)

        self.change(lambda tx: put(tx, 5))
        for lower in (5, 4):
            self.assertRaises(VersionConflict, self.change, lambda tx, r=lower: put(tx, r, b"{}"))
        found = self.read(lambda c: statements.get(c, ACME, "node", "x"))
        self.assertEqual((found.payload, found.revision), (payload, 5))
        self.assertEqual(found.signatures, [["k", "c2ln"]])
        self.change(lambda tx: put(tx, 6))
        self.assertEqual(self.read(lambda c: statements.hashes(c, ACME)), {("node", "x"): "h6"})
        self.assertEqual(len(self.read(lambda c: statements.live(c, ACME, ["node"]))), 1)
        self.assertEqual(self.read(lambda c: statements.live(c, ACME, ["policy"])), [])
        self.assertEqual(self.read(lambda c: statements.live(c, OTHER)), [])
        self.assertEqual(self.read(lambda c: statements.expiring(c, ACME, 10.0)), [("node", "x")])
        self.assertEqual(self.read(lambda c: statements.expiring(c, ACME, 9.0)), [])
        self.assertTrue(self.change(lambda tx: statements.remove(tx, "node", "x")))
        self.assertFalse(self.change(lambda tx: statements.remove(tx, "node", "x")))

    def test_another_organisations_ids_are_never_found(self):
        bob = self.change(user)
        eng = self.change(lambda tx: groups.create(tx, name="eng"))
        laptop = self.change(device)
        lab = self.change(lambda tx: connectors.create(tx, name="lab"))
        db = self.change(socket)
        policy = self.change(lambda tx: policies.create(tx, name="p", text="{}"))
        account = self.change(lambda tx: service_accounts.create(tx, name="ci"))
        for module, found in (
            (users, bob), (groups, eng), (devices, laptop), (connectors, lab),
            (sockets, db), (policies, policy), (service_accounts, account),
        ):  # fmt: skip
            self.assertEqual(self.read(lambda c, m=module, f=found: m.get(c, ACME, f.id)), found)
            for refused in (
                lambda m=module, f=found: self.read(lambda c: m.get(c, OTHER, f.id)),
                lambda m=module, f=found: self.change(lambda tx: m.update(tx, f.id, 1), org=OTHER),
                lambda m=module, f=found: self.change(lambda tx: m.remove(tx, f.id), org=OTHER),
            ):
                self.assertRaises(NotFound, refused)
            self.assertEqual(self.read(lambda c, m=module: m.page(c, OTHER)).items, [])
        # Nor inside another object: the database itself refuses.
        theirs = self.change(socket, org=OTHER)
        for refused in (
            lambda tx: groups.add(tx, eng.id, bob.id),
            lambda tx: attachments.attach(tx, theirs.id, policy.id),
            lambda tx: sockets.set_connectors(tx, theirs.id, None, [lab.id]),
            lambda tx: device(tx, user_id=bob.id),
            lambda tx: credentials.set_password(tx, bob.id, "x"),
        ):
            self.assertRaises(BrokenReference, self.change, refused, org=OTHER)
        self.assertRaises(
            NotFound, self.change, lambda tx: policies.edit(tx, policy.id, None, "{}"), org=OTHER
        )

    def test_pages(self):
        names = sorted(f"g{number:02}" for number in range(25))
        for name in reversed(names):
            self.change(lambda tx, n=name: groups.create(tx, name=n))
        seen, after = [], ""
        while True:
            page = self.read(lambda c, a=after: groups.page(c, ACME, after=a, limit=10))
            seen += [one.name for one in page.items]
            if not (after := page.after):
                break
            # What is removed or made between two pages moves nothing else.
            self.change(lambda tx, i=page.items[0].id: groups.remove(tx, i))
        self.assertEqual(seen, names)
        for wrong in ("x", "!!!", "W10", "WzEsMl0", "e30", "WyJhIl0", "AA" * 5000):
            self.assertRaises(Invalid, self.read, lambda c, w=wrong: groups.page(c, ACME, after=w))
        for limit in (0, 1001):
            self.assertRaises(
                ValueError, self.read, lambda c, n=limit: groups.page(c, ACME, limit=n)
            )

    def test_values_that_a_database_might_take_differently(self):
        for wrong in ("a\0b", "\ud800"):
            self.assertRaises(Invalid, self.change, lambda tx, w=wrong: groups.create(tx, name=w))
            self.assertRaises(Invalid, self.read, lambda c, w=wrong: groups.get(c, ACME, w))
            self.assertRaises(
                Invalid,
                self.change,
                lambda tx, w=wrong: organisations.change(tx, None, settings={"a": [{w: 1}]}),
            )
        made = self.change(socket)
        for wrong in (1 << 63, -(1 << 63) - 1):
            self.assertRaises(
                Invalid, self.change, lambda tx, w=wrong: sockets.update(tx, made.id, 1, port=w)
            )
        self.assertEqual(
            self.change(lambda tx: groups.create(tx, name="日本 é 🙂")).name, "日本 é 🙂"
        )

    def test_relays(self):
        def make(tx, name="eu", key="k1", **more):
            return relays.create(tx, name=name, names=["a.example", "::1"], public_key=key, **more)

        eu = self.change(make)
        self.assertEqual(self.entries(), [("relay", eu.id, "create")])
        self.assertEqual(
            (eu.names, eu.port, eu.path, eu.region, eu.weight, eu.drain, eu.channel_binding, eu.ca),
            (["a.example", "::1"], 443, "/relay", "", 100, False, "tls-exporter", ""),
        )
        self.assertEqual(self.read(lambda c: relays.get(c, ACME, eu.id)), eu)
        self.assertEqual(self.read(lambda c: relays.find(c, ACME, "eu")), eu)
        self.assertIs(self.read(lambda c: relays.find(c, OTHER, "eu")), None)
        for column, more in (("name", {"key": "k2"}), ("public_key", {"name": "us"})):
            with self.assertRaises(Duplicate) as taken:
                self.change(lambda tx, m=more: make(tx, **m))
            self.assertEqual(taken.exception.columns, (column,))
        self.assertRaises(Duplicate, self.change, lambda tx: make(tx, "us", "k2", id=eu.id))
        # A relay may serve two organisations, under one id and one key.
        twin = self.change(lambda tx: make(tx, id=eu.id), org=OTHER)
        self.assertEqual((twin.id, twin.org), (eu.id, OTHER))
        changed = self.change(lambda tx: relays.update(tx, eu.id, 1, drain=True, names=["b"]))
        self.assertEqual((changed.drain, changed.names, changed.version), (True, ["b"], 2))
        self.assertEqual(self.entries(), [("relay", eu.id, "update")])
        self.assertRaises(VersionConflict, self.change, lambda tx: relays.update(tx, eu.id, 1))
        self.change(lambda tx: relays.remove(tx, eu.id, 2))
        self.assertEqual(self.entries(), [("relay", eu.id, "delete")])
        self.assertRaises(NotFound, self.read, lambda c: relays.get(c, ACME, eu.id))
        self.assertEqual(self.read(lambda c: relays.get(c, OTHER, eu.id)), twin)

    def test_an_organisation_has_so_many_relays(self):
        def fill(tx):
            for number in range(relays.LIMIT):
                relays.create(tx, name=f"r{number}", names=["a.example"], public_key=f"k{number}")

        self.change(fill)
        with self.assertRaises(Exhausted):
            self.change(lambda tx: relays.create(tx, name="r", names=["a"], public_key="k"))
        self.change(lambda tx: relays.create(tx, name="r", names=["a"], public_key="k"), org=OTHER)
        page = self.read(lambda c: relays.page(c, ACME, limit=1000))
        self.assertEqual(len(page.items), relays.LIMIT)


class NounsOnSQLite(Nouns, OnSQLite, DatabaseCase):
    pass


@needs_postgresql
class NounsOnPostgreSQL(Nouns, OnPostgreSQL, DatabaseCase):
    pass
