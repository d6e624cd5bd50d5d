"""Sign-in on a database: what is kept, what happens once, and what a failing one answers."""

import inspect
import time
from pathlib import Path

from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from border0.control.signin import links
from border0.control.signin.model import Grant, Session, SetupLink
from border0.control.signin.sealing import SealError
from border0.control.signin.storage import SqlSignIn
from border0.control.store import (
    BrokenReference,
    Invalid,
    NotFound,
    Store,
    Unavailable,
    browser_sessions,
    credentials,
    organisations,
    schema,
    users,
)
from border0.control.store.backup import backup
from border0.secrets import Secret
from tests.control.signin.case import (
    KEY,
    PASSWORD,
    TOTP,
    SqlControl,
    factors,
    on_both,
)
from tests.control.store.case import (
    ACME,
    NOWHERE,
    OTHER,
    START,
)
from tests.support.sampleroutes import Sample
from tests.support.signin import now_of
from tests.support.web import ORIGIN, Browser, exchange


class Accounts:
    def test_a_user_by_id_and_login(self):
        account = self.with_password()
        self.assertEqual(
            (account.login, account.role, account.org), ("bob@own.test", "member", ACME)
        )
        self.assertEqual(account.name, "Bob")
        self.assertEqual(self.run_("get", account.id), account)
        self.assertEqual(self.run_("find_login", "bob@own.test"), account)
        for nobody in ("eve", "", "BOB@own.test", "a\0b", "\ud800"):
            self.assertIsNone(self.run_("find_login", nobody), ascii(nobody))
        self.assertIsNone(self.run_("get", NOWHERE))
        self.assertIsNone(self.run_("factors", NOWHERE))

    def test_without_a_password_nobody_signs_in(self):
        user = self.user()
        self.assertIsNone(self.run_("find_login", "bob@own.test"))
        self.assertIsNone(self.run_("factors", user))
        self.assertEqual(self.run_("get", user).login, "bob@own.test")
        # Half of the credentials, however they came there, are none.
        self.change(lambda tx: credentials.set_totp(tx, user, b"x", []))
        self.assertIsNone(self.run_("factors", user))

    def test_factors(self):
        account = self.with_password(step=7, recovery=("one", "two"))
        found = self.run_("factors", account.id)
        self.assertEqual(found.totp, TOTP)
        self.assertEqual((found.step, found.recovery), (7, ("one", "two")))
        self.run_("set_password", account.id, Secret("new"))
        self.assertEqual(self.run_("factors", account.id).password, Secret("new"))
        self.assertEqual(self.run_("factors", account.id).totp, TOTP)
        with self.assertRaises(NotFound):
            self.run_("set_password", NOWHERE, Secret("x"))

    def test_another_key_is_an_error_and_never_no_second_factor(self):
        account = self.with_password()
        other = SqlSignIn(self.store, bytes(32))
        with self.assertRaises(SealError):
            now_of(other.factors(account.id))
        # Somebody who can write to the database does not give a user another user's secret.
        eve = self.with_password("eve@own.test")
        sealed = self.read(lambda c: credentials.get(c, ACME, account.id)).totp_secret
        self.change(lambda tx: credentials.set_totp(tx, eve.id, sealed, []))
        with self.assertRaises(SealError):
            self.run_("factors", eve.id)

    def test_a_step_is_used_once(self):
        account = self.with_password(step=5)
        self.assertFalse(self.run_("use_step", account.id, 5))
        self.assertEqual(sorted(self.several(lambda s: s.use_step(account.id, 6))), [0, 0, 0, 1])
        self.assertFalse(self.run_("use_step", account.id, 6))
        self.assertTrue(self.run_("use_step", account.id, 8))
        self.assertFalse(self.run_("use_step", NOWHERE, 9))

    def test_a_recovery_code_is_used_once(self):
        account = self.with_password(recovery=("one", "two"))
        found = self.several(lambda s: s.use_recovery(account.id, "one"))
        self.assertEqual(sorted(found), [0, 0, 0, 1])
        self.assertEqual(self.run_("factors", account.id).recovery, ("two",))
        self.assertFalse(self.run_("use_recovery", account.id, "three"))
        self.assertFalse(self.run_("use_recovery", NOWHERE, "two"))


class Links:
    def issue(self, org=ACME, account="", now=START):
        made = links.make(org, ORIGIN, now, account)
        self.run_("add_link", made.link)
        return made.link.digest

    def spend(self, link, login="ann", now=START):
        return self.run_("create_owner", link, now, login, "Ann", factors())

    def test_the_first_owner(self):
        link = self.issue()
        self.assertEqual(self.run_("link", link), SetupLink(link, ACME, START + 900.0))
        self.assertIsNone(self.spend(link, now=START + 900.0))
        account = self.spend(link, "ann@own.test")
        self.assertEqual(
            (account.login, account.role, account.name), ("ann@own.test", "owner", "Ann")
        )
        user = self.read(lambda c: users.get(c, ACME, account.id))
        self.assertEqual((user.email, user.issuer), ("ann@own.test", "local"))
        self.assertIsNone(self.run_("link", link))
        self.assertIsNone(self.spend(link, "eve"))
        # Another link makes another owner: the first one has a password.
        self.assertNotEqual(self.spend(self.issue(), "second").id, account.id)
        self.assertEqual(len(self.read(lambda c: users.owners(c, ACME))), 2)

    def test_an_owner_who_waits_is_adopted(self):
        self.user("z@own.test", "owner", disabled=True)
        waiting = self.user("root@own.test", "owner")
        self.clock.now += 1
        self.user("later@own.test", "owner")
        account = self.spend(self.issue(), "ann")
        self.assertEqual((account.id, account.login), (waiting, "ann"))
        user = self.read(lambda c: users.get(c, ACME, waiting))
        self.assertEqual((user.email, user.name), ("root@own.test", "Ann"))
        self.assertEqual(self.run_("find_login", "ann").id, waiting)

    def test_a_user_sets_a_first_password(self):
        bob = self.user()
        link = self.issue(account=bob)
        self.assertEqual(self.run_("link", link).account, bob)
        # What the form says of the login does not count, nor does the role change.
        account = self.spend(link, "root")
        self.assertEqual((account.id, account.login, account.role), (bob, "bob@own.test", "member"))
        self.assertIsNone(self.spend(link))
        with self.assertRaises(Invalid):
            self.issue(account=bob)  # has a password

    def test_links_that_do_nothing(self):
        bob, carl = self.user(), self.user("carl@own.test")
        first, second = self.issue(account=bob), self.issue(account=bob)
        self.assertIsNone(self.spend(first))
        carls = self.issue(account=carl)
        own = self.issue()
        self.change(lambda tx: users.update(tx, bob, None, disabled=True))
        self.assertIsNone(self.spend(second))
        self.change(lambda tx: users.remove(tx, carl))
        self.assertIsNone(self.run_("link", carls))
        self.assertIsNone(self.spend(carls))
        for nowhere in (NOWHERE, self.user("eve@own.test", org=OTHER)):
            with self.assertRaises(BrokenReference):
                self.issue(account=nowhere)
        self.assertIsNone(self.spend("unknown"))
        # None of this ended the owner's link.
        self.assertIsNotNone(self.spend(own))

    def test_a_login_that_is_taken_spends_nothing(self):
        self.with_password("ann", org=OTHER)
        link = self.issue()
        self.assertIsNone(self.spend(link, "ann"))
        self.assertEqual(self.read(lambda c: users.owners(c, ACME)), [])
        self.assertIsNotNone(self.spend(link, "ann2"))

    def test_a_link_is_spent_once(self):
        link = self.issue()
        numbers = iter(range(10))
        found = self.several(
            lambda s: s.create_owner(link, START, f"o{next(numbers)}", "x", factors())
        )
        self.assertEqual(len([one for one in found if one is not None]), 1)
        self.assertEqual(len(self.read(lambda c: users.owners(c, ACME))), 1)

    def test_two_links_do_not_give_one_login_twice(self):
        mine, theirs = self.issue(), self.issue(OTHER)
        digests = iter((mine, theirs))
        found = self.several(
            lambda s: s.create_owner(next(digests), START, "ann", "x", factors()), count=2
        )
        self.assertEqual(len([one for one in found if one is not None]), 1)

    def test_an_organisation_that_is_gone(self):
        link = self.issue()
        self.change(lambda tx: organisations.remove(tx))
        self.assertIsNone(self.spend(link))


class State:
    def session(self, digest, account, created=START, org=ACME):
        return Session(digest, account, org, "full", True, created, created, "192.0.2.7")

    def test_sessions(self):
        bob = self.user()
        session = self.session("d1", bob)
        self.run_("add_session", session)
        self.assertEqual(self.run_("session", "d1"), session)
        self.assertIsNone(self.run_("session", "d2"))
        self.run_("touch_session", "d1", START + 70.0)
        self.run_("touch_session", "d1", START + 60.0)
        self.run_("touch_session", "nothing", START)
        self.assertEqual(self.run_("session", "d1").seen, START + 70.0)
        self.run_("add_session", self.session("d2", bob, START + 12 * 3600.0))
        self.assertIsNone(self.run_("session", "d1"))  # too old
        self.run_("drop_session", "d2")
        self.run_("drop_session", "d2")
        self.assertIsNone(self.run_("session", "d2"))
        with self.assertRaises(BrokenReference):
            self.run_("add_session", self.session("d3", bob, org=OTHER))

    def test_sessions_end_with_their_user(self):
        bob, eve = self.user(), self.user("eve@own.test")
        for name in ("a", "b"):
            self.run_("add_session", self.session(name, bob))
        self.run_("add_session", self.session("c", eve))
        self.assertEqual(self.change(lambda tx: browser_sessions.end_all(tx, bob)), 2)
        self.assertIsNone(self.run_("session", "a"))
        self.change(lambda tx: users.remove(tx, eve))
        self.assertIsNone(self.run_("session", "c"))

    def test_a_user_has_so_many_sessions(self):
        self.patch(browser_sessions, "PER_ACCOUNT", 2)
        bob, eve = self.user(), self.user("eve@own.test")
        self.run_("add_session", self.session("e", eve))
        for number in range(4):
            self.run_("add_session", self.session(f"b{number}", bob, START + number))
        found = [self.run_("session", name) is not None for name in ("b0", "b1", "b2", "b3", "e")]
        self.assertEqual(found, [False, False, True, True, True])

    def grant(self, number, **more):
        return Grant(
            f"g{number}", f"CODE{number}", "key", "laptop", "login", "::1", START + 600.0, 5.0,
            **more,
        )  # fmt: skip

    def test_grants(self):
        grant = self.grant(1)
        self.assertTrue(self.run_("add_grant", grant, START))
        self.assertEqual(self.run_("grant_by_device", "g1"), grant)
        self.assertEqual(self.run_("grant_by_user_code", "CODE1"), grant)
        self.assertIsNone(self.run_("grant_by_device", "g2"))
        self.assertIsNone(self.run_("grant_by_user_code", "CODE2"))
        claimed = grant._replace(state="claimed", browser="b")
        self.assertTrue(self.run_("replace_grant", claimed))
        self.assertFalse(self.run_("replace_grant", claimed))
        self.assertEqual(self.run_("grant_by_device", "g1"), claimed._replace(version=1))
        self.assertFalse(self.run_("replace_grant", self.grant(9)))

    def test_grants_are_bounded_and_go(self):
        self.assertTrue(self.run_("add_grant", self.grant(1), START))
        same_code = self.grant(2)._replace(user_code="CODE1")
        self.assertFalse(self.run_("add_grant", same_code, START))
        self.assertTrue(self.run_("add_grant", self.grant(2), START))
        self.assertTrue(self.run_("add_grant", self.grant(3), START))
        self.assertFalse(self.run_("add_grant", self.grant(4), START + 599.0))
        self.assertTrue(self.run_("add_grant", self.grant(4), START + 600.0))
        self.assertIsNone(self.run_("grant_by_device", "g1"))

    def test_a_grant_changes_once(self):
        grant = self.grant(1)
        self.run_("add_grant", grant, START)
        found = self.several(lambda s: s.replace_grant(grant._replace(state="spent")))
        self.assertEqual(sorted(found), [False, False, False, True])

    def test_the_bound_holds_for_several_at_once(self):
        numbers = iter(range(10))
        found = self.several(lambda s: s.add_grant(self.grant(next(numbers)), START), count=6)
        self.assertEqual(sum(found), 3)

    def test_none_of_it_is_in_a_backup(self):
        bob = self.with_password().id
        self.run_("add_session", self.session("d1", bob))
        self.run_("add_link", links.make(ACME, ORIGIN, START).link)
        self.run_("add_grant", self.grant(1), START)
        path = self.mktemp()
        backup(self.database.reader, Path(path))
        restored = self.opened(f"sqlite:///{path}")
        for table in schema.metadata.sorted_tables:
            with restored.writer.connect() as connection:
                rows = connection.execute(table.select()).all()
            if table.info.get(schema.PASSING):
                self.assertEqual(rows, [], table.name)
            elif table.name == "credentials":
                self.assertEqual(len(rows), 1)


class Failing:
    """A database that does not answer is an error everywhere, and never nobody, never nothing."""

    def test_every_question_and_change(self):
        account = self.with_password()
        session = Session("d", account.id, ACME, "full", False, START, START, "")
        grant = Grant("g", "CODE", "k", "n", "login", "", START + 600.0, 5.0)
        token = SqlControl(self.storage).tokens.make(
            kind="user", org=ACME, subject=account.id, name="t", seconds=60.0, now=START
        )[1]
        calls = {
            "find_login": ("bob@own.test",), "get": (account.id,), "factors": (account.id,),
            "set_password": (account.id, Secret("x")), "use_step": (account.id, 9),
            "use_recovery": (account.id, "x"),
            "create_owner": ("link", START, "a", "A", factors()),
            "add_session": (session,), "session": ("d",), "touch_session": ("d", START),
            "drop_session": ("d",), "add_link": (SetupLink("l", ACME, START),), "link": ("l",),
            "add_grant": (grant, START), "grant_by_device": ("g",),
            "grant_by_user_code": ("CODE",), "replace_grant": (grant,),
            "add_token": (token,), "token": (token.id,), "touch_token": (token.id, START),
        }  # fmt: skip
        public = {
            name
            for name, member in inspect.getmembers(SqlSignIn, inspect.iscoroutinefunction)
            if not name.startswith("_")
        }
        self.assertEqual(public, set(calls))
        self.database.close()
        for name, arguments in calls.items():
            with self.assertRaises(Unavailable, msg=name):
                self.run_(name, *arguments)

    def test_what_a_caller_sees(self):
        sample = Sample()
        control = SqlControl(self.storage, table=sample.table, owns=sample.owns)
        account = self.with_password(role="owner")
        text = control.token(account)
        browser = Browser(control.site)
        browser.get("/sign-in")
        self.store.broken = Unavailable("the canary disk is full")
        response = exchange(control.site, "GET", "/api/v1/socket", token=text)
        self.assertEqual(response.status, 503)
        page = browser.submit(login="bob@own.test", password=PASSWORD)
        self.assertEqual(page.status, 503)
        self.assertNotIn("canary", response.text + page.text)
        self.store.broken = None
        response = exchange(control.site, "GET", "/api/v1/socket", token=text)
        self.assertEqual(response.status, 200)


class InAReactor(TestCase):
    """With the store's own threads."""

    timeout = 120

    async def test_the_whole_way(self):
        store = await Store.open(f"sqlite:///{self.mktemp()}/control.db")
        self.addCleanup(store.close)
        await store.change(lambda tx: organisations.create(tx, name="acme"), org=ACME, actor="t")
        storage = SqlSignIn(store, KEY)
        now = time.time()
        made = links.make(ACME, ORIGIN, now)
        await storage.add_link(made.link)
        both = [
            Deferred.fromCoroutine(
                storage.create_owner(made.link.digest, now, login, "Ann", factors())
            )
            for login in ("ann", "eve")
        ]
        (first,) = [one for one in await gatherResults(both) if one is not None]
        found = await storage.factors(first.id)
        self.assertEqual(found.totp, TOTP)
        steps = [Deferred.fromCoroutine(storage.use_step(first.id, 7)) for _ in range(5)]
        self.assertEqual(sum(await gatherResults(steps)), 1)
        await store.close()
        with self.assertRaises(Unavailable):
            await storage.get(first.id)


on_both(globals(), Accounts, Links, State, Failing)
