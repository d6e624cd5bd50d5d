"""Tokens, enrolment keys and invites: what opens something, how often, until when, and for whom."""

from threading import Thread

from border0.control.store import (
    BrokenReference,
    Invalid,
    NotFound,
    Refused,
    connectors,
    devices,
    enrolment_keys,
    groups,
    invites,
    service_accounts,
    tokens,
    users,
)
from border0.control.store.transaction import Change
from tests.control.store.case import (
    ACME,
    DAY,
    NOWHERE,
    OTHER,
    START,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)


class Bearers:
    def refused(self, reason, function, **more):
        with self.assertRaises(Refused) as caught:
            self.change(function, **more)
        self.assertEqual(caught.exception.reason, reason)

    def unverified(self, reason, text):
        with self.assertRaises(Refused) as caught:
            self.read(lambda c: tokens.verify(c, text, self.clock.now))
        self.assertEqual(caught.exception.reason, reason)

    def issue(self, **owner):
        if not owner:
            bob = self.change(lambda tx: users.create(tx, issuer="local", subject="bob"))
            owner = {"user_id": bob.id}
        return self.change(
            lambda tx: tokens.issue(
                tx, kind="api", name="t", scopes=["socket:read"], expires=START + DAY, **owner
            )
        )

    def test_a_token(self):
        token, text = self.issue()
        self.assertRegex(text.reveal(), "^b0t_[0-9a-f]{32}_[A-Za-z0-9_-]{43}$")
        self.assertNotIn(text.reveal(), repr((token, text)))
        found = self.read(lambda c: tokens.verify(c, text.reveal(), START))
        self.assertEqual(found, token)
        self.assertEqual(found.scopes, ["socket:read"])
        self.change(lambda tx: tokens.used(tx, token.id))
        self.assertEqual(self.announced, [])
        self.assertEqual(self.read(lambda c: tokens.get(c, ACME, token.id)).last_used, START)
        self.assertEqual(
            self.read(lambda c: tokens.page(c, ACME, user_id=token.user_id)).items[0].id, token.id
        )
        self.assertEqual(self.read(lambda c: tokens.page(c, ACME, user_id=NOWHERE)).items, [])
        self.assertEqual(self.read(lambda c: tokens.page(c, OTHER)).items, [])

    def test_the_text_is_not_in_the_database(self):
        _, text = self.issue()
        secret = text.reveal().split("_", 2)[2]  # it may hold "_" itself
        self.assertEqual(len(secret), 43)

        def everything(connection):
            rows = connection.exec_driver_sql("SELECT * FROM tokens").all()
            return repr(rows)

        self.assertNotIn(secret, self.read(everything))

    def test_forged_tokens(self):
        token, text = self.issue()
        good = text.reveal()
        for wrong in ("", "x", good + "x", good.replace("b0t", "B0T"), good[:-1] + "\n", "é" * 80):
            self.unverified("malformed", wrong)
        last = "A" if good[-1] != "A" else "B"
        self.unverified("unknown", good[:-1] + last)
        self.unverified("unknown", good.replace(ACME.replace("-", ""), OTHER.replace("-", "")))
        self.unverified("unknown", good.replace("b0t", "b0e"))
        # The stored hash is no password.
        self.unverified("malformed", token.hash)

    def test_the_end_of_a_token(self):
        token, text = self.issue()
        self.clock.now = START + DAY
        self.unverified("expired", text.reveal())
        self.clock.now = START
        self.change(lambda tx: tokens.revoke(tx, token.id))
        self.assertEqual(self.entries(), [("token", token.id, "update")])
        self.change(lambda tx: tokens.revoke(tx, token.id))
        self.assertEqual(self.announced, [])
        self.unverified("revoked", text.reveal())
        self.change(lambda tx: tokens.remove(tx, token.id))
        self.unverified("unknown", text.reveal())
        self.assertRaises(NotFound, self.change, lambda tx: tokens.used(tx, token.id))

    def test_a_token_stops_with_its_owner(self):
        bob = self.change(lambda tx: users.create(tx, issuer="local", subject="bob"))
        account = self.change(lambda tx: service_accounts.create(tx, name="ci"))
        lab = self.change(lambda tx: connectors.create(tx, name="lab", expires=START + 60))
        laptop = self.change(
            lambda tx: devices.create(tx, name="d", wireguard_key="w", machine_key="m", tags=["t"])
        )
        for owner, stop, reason in (
            ("user_id", lambda tx: users.update(tx, bob.id, 1, disabled=True), "disabled"),
            (
                "service_account_id",
                lambda tx: service_accounts.update(tx, account.id, 1, disabled=True),
                "disabled",
            ),
            ("device_id", lambda tx: devices.update(tx, laptop.id, 1, locked=True), "locked"),
        ):
            id = {"user_id": bob, "service_account_id": account, "device_id": laptop}[owner].id
            _, text = self.issue(**{owner: id})
            self.read(lambda c, t=text: tokens.verify(c, t.reveal(), START))
            self.change(stop)
            self.unverified(reason, text.reveal())
        _, text = self.issue(connector_id=lab.id)
        self.clock.now += 60
        self.unverified("expired", text.reveal())
        self.change(lambda tx: connectors.remove(tx, lab.id))
        self.unverified("unknown", text.reveal())

    def test_wrong_tokens_are_not_made(self):
        for more in (
            {"user_id": "a", "device_id": "b"},
            {},
            {"user_id": "a", "kind": "root"},
            {"user_id": "a", "expires": START},
        ):
            values = {"kind": "api", "name": "t", "scopes": [], "expires": START + 1} | more
            self.assertRaises(Invalid, self.change, lambda tx, v=values: tokens.issue(tx, **v))
        bob = self.change(lambda tx: users.create(tx, issuer="local", subject="bob"), org=OTHER)
        self.assertRaises(BrokenReference, lambda: self.issue(user_id=bob.id))

    def key(self, **more):
        values = {"name": "k", "expires": START + DAY, **more}
        return self.change(lambda tx: enrolment_keys.issue(tx, **values))

    def test_a_one_off_key(self):
        key, text = self.key(tags=["ci"], ephemeral=True)
        seen = self.read(lambda c: enrolment_keys.verify(c, text.reveal(), START))
        self.assertEqual((seen, seen.tags, seen.ephemeral), (key, ["ci"], True))
        used = self.change(lambda tx: enrolment_keys.consume(tx, text.reveal()))
        self.assertEqual(used.uses, 1)
        self.refused("used", lambda tx: enrolment_keys.consume(tx, text.reveal()))

    def test_a_key_is_used_only_if_the_rest_works(self):
        _, text = self.key()

        def enrol(tx):
            enrolment_keys.consume(tx, text.reveal())
            return devices.create(tx, name="d", wireguard_key="w", machine_key="m", tags=[])

        self.assertRaises(Invalid, self.change, enrol)
        self.change(lambda tx: enrolment_keys.consume(tx, text.reveal()))

    def test_reusable_keys(self):
        _, text = self.key(max_uses=3)
        use = lambda tx: enrolment_keys.consume(tx, text.reveal()).uses  # noqa: E731
        outcomes, _ = self.outcomes(*[use] * 5)
        self.assertEqual([outcome.value for outcome in outcomes], [1, 2, 3, None, None])
        _, text = self.key(max_uses=None)
        outcomes, _ = self.outcomes(*[use] * 5)
        self.assertEqual([outcome.value for outcome in outcomes], [1, 2, 3, 4, 5])

    def test_two_processes_share_no_last_use(self):
        _, key = self.key(max_uses=7)
        _, invite = self.invite()
        outcomes = []

        def work(database, name):
            for _ in range(10):
                group = [
                    Change(lambda tx: enrolment_keys.consume(tx, key.reveal()).uses, ACME, name),
                    Change(
                        lambda tx: invites.consume(tx, invite.reveal(), "device", "x"), ACME, ""
                    ),
                ]
                # One group for each: the two writers take turns.
                for change in group:
                    outcomes.extend(database.commit([change])[0])

        databases = [self.opened(self.url, busy_seconds=30.0) for _ in range(2)]
        threads = [Thread(target=work, args=(one, "p")) for one in databases]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        errors = [one.error.reason for one in outcomes if one.error is not None]
        self.assertEqual(set(errors), {"used"})
        values = [one.value for one in outcomes if one.error is None]
        self.assertEqual(sorted(v for v in values if isinstance(v, int)), list(range(1, 8)))
        self.assertEqual(len([v for v in values if isinstance(v, invites.Invite)]), 1)

    def test_keys_that_do_not_open(self):
        key, text = self.key()
        consume = lambda tx: enrolment_keys.consume(tx, text.reveal())  # noqa: E731
        self.refused("unknown", consume, org=OTHER)
        self.clock.now += DAY
        self.refused("expired", consume)
        self.clock.now -= DAY
        self.change(lambda tx: enrolment_keys.revoke(tx, key.id))
        self.refused("revoked", consume)
        self.change(lambda tx: enrolment_keys.remove(tx, key.id))
        self.refused("unknown", consume)
        for wrong in ({"expires": START + 91 * DAY}, {"role": "root"}, {"max_uses": 0}):
            self.assertRaises(Invalid, lambda w=wrong: self.key(**w))

    def invite(self, **more):
        values = {"kind": "device", "expires": START + 900, "payload": {"name": "lab"}, **more}
        return self.change(lambda tx: invites.issue(tx, **values))

    def test_an_invite_works_once(self):
        invite, text = self.invite()
        seen = self.read(lambda c: invites.verify(c, text.reveal(), "device", START))
        self.assertEqual((seen, seen.payload), (invite, {"name": "lab"}))

        def consume(tx):
            invites.consume(tx, text.reveal(), "device", "device:x")
            return groups.create(tx, name="made by the invite")

        outcomes, _ = self.outcomes(consume, consume)
        self.assertEqual([outcome.error is None for outcome in outcomes], [True, False])
        self.assertEqual(outcomes[1].error.reason, "used")
        used = self.read(lambda c: invites.get(c, ACME, invite.id))
        self.assertEqual((used.used, used.used_by), (START, "device:x"))

    def test_invites_that_do_not_open(self):
        invite, text = self.invite()
        consume = lambda tx: invites.consume(tx, text.reveal(), "device", "x")  # noqa: E731
        self.refused("unknown", lambda tx: invites.consume(tx, text.reveal(), "setup", "x"))
        self.refused("unknown", consume, org=OTHER)
        self.clock.now += 900
        self.refused("expired", consume)
        self.clock.now -= 900
        self.change(lambda tx: invites.revoke(tx, invite.id))
        self.refused("revoked", consume)
        self.assertRaises(Invalid, lambda: self.invite(kind="root"))
        self.assertRaises(Invalid, lambda: self.invite(expires=START))


class BearersOnSQLite(Bearers, OnSQLite, DatabaseCase):
    pass


@needs_postgresql
class BearersOnPostgreSQL(Bearers, OnPostgreSQL, DatabaseCase):
    pass
