"""Tokens of the API on a database: issued, listed, revoked, and stopped with their owner."""

from border0.control.signin import links
from border0.control.signin.storage import keep_link, keep_token
from border0.control.store import (
    BrokenReference,
    NotFound,
    service_accounts,
    tokens,
    users,
)
from border0.secrets import Secret
from tests.control.signin.case import (
    SqlControl,
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
from tests.support.web import ORIGIN, exchange


class ApiTokens:
    def setUp(self):
        super().setUp()
        self.sample = Sample()
        self.control = SqlControl(self.storage, table=self.sample.table, owns=self.sample.owns)

    def who(self, text, address="192.0.2.7"):
        return now_of(self.control.tokens.principal(Secret(text), address, self.control.now()))

    def robot(self, name="robot"):
        return self.change(lambda tx: service_accounts.create(tx, name=name))

    def issue(self, subject, kind="user", **more):
        text, token = now_of(
            self.control.tokens.issue(
                kind=kind, org=ACME, subject=subject, name="t", seconds=1e6,
                now=self.control.now(), **more,
            )
        )  # fmt: skip
        return text.reveal(), token

    def test_a_users_token(self):
        bob = self.user(role="admin")
        text, token = self.issue(bob, scopes=["socket.read"], networks=["192.0.2.0/24"])
        self.assertEqual(self.run_("token", token.id), token)
        found = self.who(text)
        self.assertEqual((found.id, found.role, found.scopes), (bob, "admin", {"socket.read"}))
        self.assertIsNone(self.who(text, "198.51.100.1"))
        self.assertEqual(self.run_("token", token.id).used, START)
        self.change(lambda tx: users.update(tx, bob, None, role="member"))
        self.assertEqual(self.who(text).role, "member")
        self.change(lambda tx: users.update(tx, bob, None, disabled=True))
        self.assertIsNone(self.who(text))
        self.change(lambda tx: users.remove(tx, bob))
        self.assertIsNone(self.who(text))

    def test_without_scopes_the_role_counts(self):
        text, token = self.issue(self.user())
        self.assertIsNone(self.run_("token", token.id).scopes)
        self.assertIsNone(self.who(text).scopes)

    def test_a_service_accounts_token(self):
        robot = self.robot()
        text, token = self.issue(robot.id, "service", scopes=["socket.read"])
        self.assertEqual(self.run_("token", token.id), token)
        self.assertEqual((self.who(text).id, self.who(text).role), (robot.id, "service"))
        self.change(lambda tx: service_accounts.update(tx, robot.id, None, disabled=True))
        self.assertIsNone(self.who(text))
        response = exchange(self.control.site, "GET", "/api/v1/socket", token=text)
        self.assertEqual(response.status, 401)
        self.change(lambda tx: service_accounts.update(tx, robot.id, None, disabled=False))
        self.assertIsNotNone(self.who(text))
        self.change(lambda tx: service_accounts.remove(tx, robot.id))
        self.assertIsNone(self.who(text))
        self.assertIsNone(self.run_("token", token.id))

    def test_owners_that_are_not_there(self):
        robot = self.robot()
        for subject, kind in ((NOWHERE, "user"), (robot.id, "user"), (self.user(), "service")):
            with self.assertRaises(BrokenReference):
                self.issue(subject, kind, scopes=["socket.read"])

    def test_listing_and_revoking(self):
        robot, second, bob = self.robot(), self.robot("second"), self.user()
        one = self.issue(robot.id, "service", scopes=["socket.read"])
        two = self.issue(second.id, "service", scopes=["socket.read"])
        mine, other = self.issue(bob), self.issue(bob)

        def names(**owner):
            return [t.id for t in self.read(lambda c: tokens.page(c, ACME, **owner)).items]

        def of(name):
            page = self.read(lambda c: tokens.page_of_service_account(c, ACME, name))
            return [t.id for t in page.items]

        self.assertEqual(set(names(user_id=bob)), {mine[1].id, other[1].id})
        self.assertEqual(names(service_account_id=robot.id), [one[1].id])
        self.assertEqual(of("second"), [two[1].id])
        for wrong in (
            lambda tx: tokens.revoke_of_service_account(tx, "robot", two[1].id),
            lambda tx: tokens.revoke_of_service_account(tx, "nobody", two[1].id),
            lambda tx: tokens.revoke(tx, mine[1].id, service_account_id=robot.id),
        ):
            self.assertRaises(NotFound, self.change, wrong)
        self.assertRaises(NotFound, self.change, lambda tx: tokens.revoke(tx, one[1].id), org=OTHER)
        self.assertIsNotNone(self.who(two[0]))
        self.change(lambda tx: tokens.revoke_of_service_account(tx, "second", two[1].id))
        self.assertEqual(self.entries(), [("token", two[1].id, "update")])
        self.assertIsNone(self.who(two[0]))
        self.assertEqual(self.run_("token", two[1].id).revoked, START)
        self.change(lambda tx: tokens.revoke(tx, mine[1].id, user_id=bob))
        self.assertIsNone(self.who(mine[0]))
        self.assertEqual(self.change(lambda tx: tokens.revoke_all(tx, user_id=bob)), 1)
        self.assertEqual(self.change(lambda tx: tokens.revoke_all(tx, user_id=bob)), 0)
        self.assertIsNone(self.who(other[0]))
        self.assertIsNotNone(self.who(one[0]))

    def test_a_nodes_token_is_no_token_of_the_api(self):
        bob = self.user()
        token, text = self.change(
            lambda tx: tokens.issue(
                tx, kind="node", name="n", scopes=[], expires=START + 60, user_id=bob
            )
        )
        self.assertIsNone(self.run_("token", token.id))
        self.assertIsNone(self.who(text.reveal()))

    def test_in_one_change_with_what_it_belongs_to(self):
        def both(tx):
            robot = service_accounts.create(tx, name="new")
            made = self.control.tokens.make(
                kind="service", org=ACME, subject=robot.id, name="t", seconds=60.0, now=tx.now,
                scopes=["socket.read"],
            )  # fmt: skip
            keep_token(tx, made[1])
            bob = users.create(tx, issuer="local", subject="new", email="new@own.test")
            invitation = links.make(ACME, ORIGIN, tx.now, bob.id)
            keep_link(tx, invitation.link)
            return made[0], invitation.address

        text, address = self.change(both)
        self.assertEqual(self.who(text.reveal()).role, "service")
        digest = links.link_digest(address.reveal().partition("link=")[2])
        self.assertEqual(self.run_("link", digest).expires, START + 86_400.0)


on_both(globals(), ApiTokens)
