"""Which policies are in force at which socket, asked for many at once, on either database."""

from border0.control.effective import effective_by_socket, effective_policies
from border0.control.store import attachments, connectors, policies, sockets, users
from tests.control.store.case import (
    ACME,
    NOWHERE,
    OTHER,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)


def socket(tx, name, **more):
    return sockets.create(
        tx, name=name, socket_type="tls", port=1, upstream_configuration={}, **more
    ).id


def policy(tx, name, **more):
    return policies.create(tx, name=name, text="{}", **more).id


class InForce:
    def test_attached_everywhere_and_by_tags(self):
        one = self.change(lambda tx: socket(tx, "one", tags=["env=prod", "team=db"]))
        two = self.change(lambda tx: socket(tx, "two", tags=["open"]))
        theirs = self.change(lambda tx: socket(tx, "theirs", tags=["open"]), org=OTHER)
        own = self.change(lambda tx: policy(tx, "own"))
        self.change(lambda tx: attachments.attach(tx, one, own))
        self.assertEqual(self.read(lambda c: effective_by_socket(c, ACME, (one, two, NOWHERE))),
                         {one: [own], two: [], NOWHERE: []})  # fmt: skip
        wide = self.change(lambda tx: policy(tx, "wide", org_wide=True))
        touched = {("attachment", one, "update"), ("attachment", two, "update")}
        self.assertLessEqual(touched, set(self.entries()))
        rules = [{"env": "prod", "team": "db"}, {"open": ""}]
        ruled = self.change(lambda tx: policy(tx, "ruled", tag_rules=rules))
        self.assertLessEqual(touched, set(self.entries()))
        found = self.read(lambda c: effective_by_socket(c, ACME, (one, two)))
        self.assertEqual(found, {one: sorted((own, wide, ruled)), two: sorted((wide, ruled))})
        self.assertEqual(self.read(lambda c: effective_policies(c, OTHER, theirs)), [])
        self.change(lambda tx: sockets.update(tx, two, None, tags=["closed"]))
        self.assertIn(("attachment", two, "update"), self.entries())
        self.assertEqual(self.read(lambda c: effective_policies(c, ACME, two)), [wide])
        self.change(lambda tx: policies.update(tx, wide, None, description="x"))
        self.assertFalse(touched & set(self.entries()))
        self.change(lambda tx: policies.update(tx, wide, None, org_wide=False))
        self.assertLessEqual(touched, set(self.entries()))
        self.change(lambda tx: policies.remove(tx, ruled))
        self.assertLessEqual(touched, set(self.entries()))
        self.assertEqual(self.read(lambda c: effective_policies(c, ACME, one)), [own])

    def test_many_at_once(self):
        def make(tx):
            return (
                policy(tx, "a"),
                policy(tx, "b"),
                socket(tx, "s"),
                connectors.create(tx, name="c"),
            )

        first, second, served, connector = self.change(make)
        self.change(lambda tx: policies.edit(tx, second, None, '{"new": 1}'))
        self.change(lambda tx: attachments.set_policies(tx, served, [first, second]))
        self.change(lambda tx: sockets.set_connectors(tx, served, None, [connector.id]))
        named = self.read(lambda c: policies.among(c, ACME, [first, second, NOWHERE]))
        self.assertEqual(sorted(named), sorted((first, second)))
        texts = self.read(lambda c: policies.in_force(c, ACME, named.values()))
        self.assertEqual(
            {id: (one.number, one.text) for id, one in texts.items()},
            {first: (1, "{}"), second: (2, '{"new": 1}')},
        )
        self.assertEqual(self.read(lambda c: policies.in_force(c, ACME, [])), {})
        self.assertEqual(self.read(lambda c: policies.among(c, OTHER, [first])), {})
        of = self.read(lambda c: attachments.of_policies(c, ACME, [first, second]))
        self.assertEqual(of, {first: [served], second: [served]})
        serving = self.read(lambda c: sockets.connectors_of(c, ACME, [served, NOWHERE]))
        self.assertEqual(serving, {served: [connector.id], NOWHERE: []})

    def test_users_by_address(self):
        for subject in ("a", "b"):
            self.change(
                lambda tx, s=subject: users.create(
                    tx, issuer="local", subject=s, email="Ann@example.org"
                )
            )
        self.assertEqual(len(self.read(lambda c: users.by_email(c, ACME, "ann@EXAMPLE.org"))), 2)
        self.assertEqual(self.read(lambda c: users.by_email(c, OTHER, "ann@example.org")), [])


class InForceOnSQLite(InForce, OnSQLite, DatabaseCase):
    pass


@needs_postgresql
class InForceOnPostgreSQL(InForce, OnPostgreSQL, DatabaseCase):
    pass
