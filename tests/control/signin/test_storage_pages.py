"""The pages on a database, and that no secret is in it in clear text."""

from pathlib import Path

import pyotp

from border0.control.signin.sealing import Seal
from border0.control.signin.totp import recovery_codes, recovery_digest
from border0.control.store import (
    credentials,
    logins,
    schema,
    service_accounts,
    users,
)
from tests.control.signin.case import (
    KEY,
    PASSWORD,
    SqlControl,
    on_both,
)
from tests.control.store.case import (
    ACME,
    OTHER,
)
from tests.support.sampleroutes import Sample
from tests.support.web import Browser, exchange


class Pages:
    def setUp(self):
        super().setUp()
        self.control = SqlControl(self.storage)
        self.browser = Browser(self.control.site)

    def fill(self, **more):
        return self.browser.submit(
            **{"name": "Ann", "password": PASSWORD, "again": PASSWORD, **more}
        )

    def test_the_first_administrator_with_a_second_factor(self):
        self.browser.get(self.control.link(ACME))
        self.assertIn("first administrator", self.browser.page.text)
        key = self.browser.page.text.partition("<code>")[2].partition("</code>")[0]
        totp = pyotp.TOTP(key.replace(" ", ""))
        code = totp.at(int(self.control.now()))
        page = self.fill(login="Ann@own.test", code=code)
        self.assertIn("The server is set up", page.text)
        self.assertEqual(self.browser.get("/done").status, 200)
        other = Browser(self.control.site)
        other.get("/sign-in")
        other.submit(login="ann@own.test", password=PASSWORD)
        self.assertEqual(other.submit(code=code).status, 403)  # used
        self.control.clock.advance(60)
        self.assertEqual(other.submit(code=totp.at(int(self.control.now()))).status, 200)
        self.assertIn("ann@own.test", other.page.text)

    def test_an_invited_user(self):
        bob = self.user("Bob@own.test")
        self.browser.get(self.control.link(ACME, bob))
        text = self.browser.page.text
        self.assertNotIn("administrator", text)
        self.assertIn("bob@own.test", text)
        page = self.fill(login="root", name="Bob")
        self.assertIn("Your password is set", page.text)
        self.assertIn("bob@own.test", page.text)
        other = Browser(self.control.site)
        other.get("/sign-in")
        self.assertEqual(other.submit(login="bob@own.test", password=PASSWORD).status, 200)
        self.change(lambda tx: users.update(tx, bob, None, disabled=True))
        self.assertEqual(other.get("/done").text.count("bob@own.test"), 0)

    def test_an_invited_user_who_may_not_come(self):
        bob = self.user()
        link = self.control.link(ACME, bob)
        self.browser.get(link)
        self.change(lambda tx: users.update(tx, bob, None, disabled=True))
        self.assertEqual(self.fill().status, 410)
        self.assertEqual(self.browser.get(link).status, 410)
        self.assertIn("Ask an administrator", self.browser.page.text)

    def test_a_login_that_somebody_has(self):
        self.with_password("ann", org=OTHER)
        link = self.control.link(ACME)
        self.browser.get(link)
        page = self.fill(login="Ann")
        self.assertEqual(page.status, 422)
        self.assertIn("already", page.text)
        self.assertEqual(self.fill(login="ann2").status, 200)

    def test_names_that_no_database_takes(self):
        self.browser.get(self.control.link(ACME))
        for wrong in ({"name": "a\0b"}, {"login": "a\0b"}):
            self.assertEqual(self.fill(**{"login": "ann", **wrong}).status, 422)
        browser = Browser(self.control.site)
        browser.get("/sign-in")
        self.assertEqual(browser.submit(login="a\0b", password=PASSWORD).status, 403)


class Canary:
    def test_no_secret_is_in_the_database_or_in_a_repr(self):
        sample = Sample()
        control = SqlControl(self.storage, table=sample.table, owns=sample.owns)
        link = control.link(ACME)
        browser = Browser(control.site)
        browser.get(link)
        shown = browser.page.text.partition("<code>")[2].partition("</code>")[0]
        totp = shown.replace(" ", "")
        code = pyotp.TOTP(totp).at(int(control.now()))
        page = browser.submit(name="Ann", login="ann", password=PASSWORD, again=PASSWORD, code=code)
        recovery = [part.partition("</code>")[0] for part in page.text.split("<code>")[1:]]
        self.assertEqual(len(recovery), 10)
        ann = self.run_("find_login", "ann")
        robot = self.change(lambda tx: service_accounts.create(tx, name="robot"))
        user, service = (
            control.token(ann),
            control.token(ann._replace(id=robot.id), kind="service", scopes=["socket.read"]),
        )
        waiting = exchange(
            control.site, "POST", "/api/v1/device_authorizations",
            value={"public_key": "AQ" * 21 + "A=", "name": "x", "purpose": "login"},
        )  # fmt: skip
        unspent = control.link(ACME)
        secrets = [
            PASSWORD, totp, link.partition("=")[2], unspent.partition("=")[2], user[37:],
            service[37:], waiting.json()["device_code"], browser.cookies["__Host-border0"],
            *recovery, recovery[0].replace("-", ""), KEY.hex(),
        ]  # fmt: skip
        found = []
        for table in schema.metadata.sorted_tables:
            found += self.read(lambda c, t=table: c.execute(t.select()).all())
        factors_ = self.run_("factors", ann.id)
        self.assertEqual(factors_.totp.reveal(), totp)
        found += [
            self.storage, vars(self.storage), vars(control), factors_,
            self.run_("token", user[4:36]),
            self.read(lambda c: credentials.get(c, ACME, ann.id)),
            self.read(lambda c: logins.by_id(c, ann.id)), Seal(KEY),
        ]  # fmt: skip
        text = repr(found)
        self.assertIn("ann", text)
        self.assertNotIn(totp.encode(), b"".join(self.files()))
        for secret in secrets:
            self.assertGreater(len(secret), 15)
            self.assertNotIn(secret, text)
            for content in self.files():
                self.assertNotIn(secret.encode(), content)

    def files(self):
        """What a database of one file has on the disk."""
        if self.kind != "sqlite":
            return []
        folder = Path(self.url.removeprefix("sqlite:///")).parent
        return [path.read_bytes() for path in folder.iterdir()]

    def test_recovery_codes_are_digests(self):
        code = recovery_codes(lambda n: bytes(range(n)))[0].reveal()
        account = self.with_password(recovery=(recovery_digest(code),))
        stored = self.read(lambda c: credentials.get(c, ACME, account.id)).recovery_hashes
        self.assertRegex(stored[0], "^[0-9a-f]{64}$")


on_both(globals(), Pages, Canary)
