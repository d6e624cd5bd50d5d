"""Address pairs: unique, for life, and not given again for 30 days after their release."""

from ipaddress import ip_address, ip_network

from sqlalchemy import insert

from border0.control.store import (
    Duplicate,
    Exhausted,
    Invalid,
    addresses,
    devices,
    organisations,
    schema,
    sockets,
)
from border0.control.store.database import Database
from tests.control.store.case import (
    ACME,
    DAY,
    NOWHERE,
    OTHER,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)

SMALL = {
    "services_v4": "10.9.0.0/29",
    "services_v6": "fd00:1::/64",
    "devices_v4": "10.8.0.0/29",
    "devices_v6": "fd00:2::/64",
}


class Addresses:
    def setUp(self):
        super().setUp()
        self.change(lambda tx: organisations.create(tx, name="small", **SMALL), org=NOWHERE)

    def take(self, holder, org=NOWHERE, **more):
        return self.change(
            lambda tx: addresses.allocate(tx, "services", "socket", holder, **more), org=org
        )

    def free(self, holder):
        return self.change(lambda tx: addresses.release(tx, "socket", holder), org=NOWHERE)

    def test_pairs_come_from_the_organisations_own_prefixes(self):
        org = self.read(lambda c: organisations.get(c, ACME))
        made = self.change(
            lambda tx: devices.create(tx, name="d", wireguard_key="w", machine_key="m", tags=["t"])
        )
        self.assertEqual(made.ipv4, "100.64.0.1")
        self.assertIn(ip_address(made.ipv6), ip_network(org.devices_v6))
        db = self.change(
            lambda tx: sockets.create(
                tx, name="s", socket_type="ssh", port=22, upstream_configuration={}
            )
        )
        self.assertEqual(db.ipv4, "100.126.0.1")
        self.assertIn(ip_address(db.ipv6), ip_network(org.services_v6))
        self.assertEqual(int(ip_address(db.ipv6)) & 0xFFFF, 1)
        for address in (db.ipv4, db.ipv6):
            found = self.read(lambda c, a=address: addresses.holder(c, ACME, a))
            self.assertEqual((found.holder_kind, found.holder_id), ("socket", db.id))
            self.assertIsNone(self.read(lambda c, a=address: addresses.holder(c, OTHER, a)))
        self.change(lambda tx: sockets.remove(tx, db.id))
        self.assertIsNone(self.read(lambda c: addresses.holder(c, ACME, db.ipv4)))

    def test_exhaustion_and_thirty_days(self):
        taken = [self.take(f"s{number}").ipv4 for number in range(6)]
        self.assertEqual(taken, [f"10.9.0.{number}" for number in range(1, 7)])
        self.assertRaises(Exhausted, self.take, "late")
        self.free("s3")
        self.clock.now += 60
        self.free("s1")
        self.assertRaises(Exhausted, self.take, "late")
        self.clock.now += 30 * DAY - 61
        self.assertRaises(Exhausted, self.take, "late")
        self.clock.now += 1
        again = self.take("late")
        # The one released first, with the counterpart that it always had.
        self.assertEqual((again.ipv4, again.ipv6), ("10.9.0.4", "fd00:1::4"))
        self.assertRaises(Exhausted, self.take, "later")
        self.clock.now += 60
        self.assertEqual(self.take("later").ipv4, "10.9.0.2")
        # Devices have a pool of their own.
        made = self.change(lambda tx: addresses.allocate(tx, "devices", "device", "d"), org=NOWHERE)
        self.assertEqual(made.ipv4, "10.8.0.1")

    def test_released_addresses_wait_although_others_run_out_of_luck(self):
        self.take("a")
        self.free("a")
        self.assertEqual(self.take("b").ipv4, "10.9.0.2")
        self.clock.now += 31 * DAY
        # Never used ones come first, even when one has rested long enough.
        self.assertEqual(self.take("c").ipv4, "10.9.0.3")

    def test_a_wanted_address(self):
        pair = self.take("wanted", ipv4="10.9.0.2")
        self.assertEqual((pair.ipv4, pair.ipv6), ("10.9.0.2", "fd00:1::2"))
        self.assertEqual(self.take("first").ipv4, "10.9.0.1")
        self.assertEqual(self.take("third").ipv4, "10.9.0.3")
        with self.assertRaises(Duplicate) as caught:
            self.take("twin", ipv4="10.9.0.2")
        self.assertEqual(caught.exception.columns, ("ipv4",))
        self.free("wanted")
        self.assertRaises(Duplicate, self.take, "twin", ipv4="10.9.0.2")
        self.clock.now += 30 * DAY
        self.assertEqual(self.take("twin", ipv4="10.9.0.2").holder_id, "twin")
        both = self.take("both", ipv4="10.9.0.5", ipv6="fd00:1::abcd")
        self.assertEqual((both.ipv4, both.ipv6), ("10.9.0.5", "fd00:1::abcd"))
        self.assertRaises(Duplicate, self.take, "x", ipv4="10.9.0.6", ipv6="fd00:1::abcd")
        for wrong in (
            {"ipv4": "10.9.0.0"},
            {"ipv4": "10.9.0.7"},
            {"ipv4": "10.8.0.1"},
            {"ipv4": "nonsense"},
            {"ipv4": "10.9.0.4", "ipv6": "fd00:2::1"},
            {"ipv4": "10.9.0.4", "ipv6": "fd00:1::"},
            {"ipv6": "fd00:1::ffff"},
        ):
            self.assertRaises(Invalid, self.take, "x", **wrong)

    def test_the_database_itself_refuses_a_second_holder(self):
        pair = self.take("a")
        row = {
            "org": NOWHERE, "pool": "services", "holder_kind": "socket", "holder_id": "b",
            "allocated": 0.0, "released": None,
        }  # fmt: skip
        for taken in (
            {"ipv4": pair.ipv4, "ipv6": "fd00:1::77"},
            {"ipv4": "10.9.0.6", "ipv6": pair.ipv6},
        ):
            query = insert(schema.addresses).values(**row, **taken)
            self.assertRaises(
                Duplicate, self.change, lambda tx, q=query: tx.connection.execute(q), org=NOWHERE
            )

    def test_addresses_survive_a_restart(self):
        self.take("a")
        self.free("a")
        self.database.close()
        self.database = self.opened(self.url)
        self.assertIsInstance(self.database, Database)
        self.assertEqual(self.take("b").ipv4, "10.9.0.2")
        held = self.read(lambda c: addresses.held(c, NOWHERE, "b"))
        self.assertEqual([pair.ipv4 for pair in held], ["10.9.0.2"])

    def test_prefixes_run_out(self):
        for number in range(2, 16):
            org = f"{number:08d}-0000-4000-8000-000000000000"
            self.change(lambda tx, n=number: organisations.create(tx, name=f"o{n}"), org=org)
        with self.assertRaises(Exhausted) as caught:
            self.change(
                lambda tx: organisations.create(tx, name="full"),
                org="99999998-0000-4000-8000-000000000000",
            )
        self.assertIn("give the organisation prefixes", str(caught.exception))


class AddressesOnSQLite(Addresses, OnSQLite, DatabaseCase):
    pass


@needs_postgresql
class AddressesOnPostgreSQL(Addresses, OnPostgreSQL, DatabaseCase):
    pass
