"""The five pages, used as a browser does: set-up, sign-in, second factor, and what must fail."""

import pyotp
from twisted.trial.unittest import SynchronousTestCase

from border0.control.signin.forms import safe_next
from border0.control.signin.model import Account, Factors
from border0.control.signin.totp import recovery_digest
from border0.secrets import Secret
from tests.support.signin import Control
from tests.support.web import ORIGIN, Browser, exchange, tags_of

PASSWORD = "canary four good words"
SESSION = "__Host-border0"


class Pages(SynchronousTestCase):
    def setUp(self) -> None:
        self.control = Control()
        self.browser = Browser(self.control.site)

    def user(self, totp: str = "", login: str = "alice@own", role: str = "admin") -> Account:
        factors = Factors(
            Secret(f"hash of {PASSWORD}"),
            Secret(totp) if totp else None,
            0,
            (recovery_digest("abcd-efgh-jkmn-pqrs"),),
        )
        return self.control.accounts.add("org", login, role, factors)

    def sign_in(self, browser: Browser | None = None, login: str = "alice@own") -> int:
        browser = browser or self.browser
        browser.get("/sign-in")
        return browser.submit(login=login, password=PASSWORD).status


class SetUp(Pages):
    fields = {"name": "Alice", "login": "Alice@own", "password": PASSWORD, "again": PASSWORD}

    def test_the_first_administrator(self) -> None:
        link = self.control.link("org")
        self.browser.get(link)
        page = self.browser.submit(**self.fields)
        self.assertEqual(page.status, 200)
        self.assertIn("The server is set up", page.text)
        (account,) = self.control.accounts.accounts.values()
        self.assertEqual((account.role, account.login, account.org), ("owner", "alice@own", "org"))
        self.assertEqual(self.browser.get("/done").status, 200)
        # once only, also for who saved the form
        self.assertEqual(self.browser.get(link).status, 410)
        other = Browser(self.control.site, "192.0.2.8")
        self.assertEqual(other.get(link).status, 410)
        self.assertEqual(self.control.audit[0].type, "user.set_up")

    def test_with_second_factor(self) -> None:
        self.browser.get(self.control.link("org"))
        key = self.browser.page.text.partition("<code>")[2].partition("</code>")[0]
        totp = pyotp.TOTP(key.replace(" ", ""))
        self.browser.submit(**self.fields, code="000000")
        self.assertEqual(self.browser.page.status, 422)
        self.assertIn(key, self.browser.page.text)  # the same key, so the app need not change
        code = totp.at(int(self.control.now()))
        page = self.browser.submit(**self.fields, code=code)
        self.assertIn("Recovery codes", page.text)
        (factors,) = self.control.accounts.of.values()
        self.assertEqual(len(factors.recovery), 10)
        # the code that proved the app is used up
        other = Browser(self.control.site)
        self.sign_in(other)
        self.assertEqual(other.submit(code=code).status, 403)

    def test_a_form_that_waits_loses_the_race(self) -> None:
        link = self.control.link("org")
        second = Browser(self.control.site)
        self.browser.get(link)
        second.get(link)
        self.assertEqual(second.submit(**self.fields).status, 200)
        page = self.browser.submit(**{**self.fields, "login": "mallory@own"})
        self.assertEqual(page.status, 410)
        self.assertEqual(len(self.control.accounts.accounts), 1)

    def test_after_15_minutes(self) -> None:
        link = self.control.link("org")
        self.browser.get(link)
        self.control.clock.advance(15 * 60.0)
        self.assertEqual(self.browser.submit(**self.fields).status, 410)
        self.assertEqual(self.browser.get(link).status, 410)
        self.assertEqual(self.control.accounts.accounts, {})

    def test_a_new_link_ends_the_old_one(self) -> None:
        old, new = self.control.link("org"), self.control.link("org")
        self.assertEqual(self.browser.get(old).status, 410)
        self.assertEqual(self.browser.get(new).status, 200)

    def test_guesses(self) -> None:
        for link in ("", "?link=", "?link=x", "?link=" + "A" * 43):
            self.assertEqual(self.browser.get("/setup" + link).status, 410)
        found = [self.browser.get(f"/setup?link={i}").status for i in range(40)]
        self.assertEqual(found[-1], 429)

    def test_mistakes_are_shown_and_spend_nothing(self) -> None:
        self.browser.get(self.control.link("org"))
        for wrong in (
            {"password": "short", "again": "short"},
            {"again": "something else"},
            {"login": ""},
            {"name": ""},
            {"login": "a\x00b"},
        ):
            page = self.browser.submit(**{**self.fields, **wrong})
            self.assertEqual(page.status, 422, wrong)
            self.assertIn('role="alert"', page.text)
            self.assertNotIn(PASSWORD, page.text)
        self.assertEqual(self.control.passwords.count, 0)
        self.assertEqual(self.browser.submit(**self.fields).status, 200)


class SignInPage(Pages):
    def test_password_alone(self) -> None:
        self.user()
        self.assertEqual(self.sign_in(), 200)
        self.assertIn("alice@own", self.browser.page.text)
        self.browser.submit()  # sign out
        self.assertEqual(self.browser.location, "/sign-in")
        self.assertEqual(self.control.state.sessions, {})

    def test_nobody_and_wrong_look_the_same(self) -> None:
        account = self.user()
        pages = []
        for login, password in (("alice@own", "wrong"), ("nobody", PASSWORD), ("alice@own", "")):
            self.browser.get("/sign-in")
            page = self.browser.submit(login=login, password=password)
            self.assertEqual(page.status, 403)
            pages.append(page.text.replace(login, "").replace(self.browser.form()["csrf"], ""))
        self.control.accounts.change(account, disabled=True)
        self.assertEqual(self.sign_in(), 403)
        self.assertEqual(len(set(pages)), 1)
        self.assertEqual(self.control.passwords.count, 4)  # hashed also for nobody
        self.assertEqual(self.control.state.sessions, {})

    def test_a_user_of_another_issuer_has_no_password(self) -> None:
        account = self.user()
        self.control.accounts.change(account, issuer="https://idp.example")
        self.assertEqual(self.sign_in(), 403)

    def test_brute_force_is_stopped_before_hashing(self) -> None:
        self.user()
        found = []
        for number in range(15):  # one user, many addresses
            browser = Browser(self.control.site, f"198.51.100.{number}")
            browser.get("/sign-in")
            found.append(browser.submit(login="Alice@own ", password="wrong").status)
        self.assertEqual(found, [403] * 10 + [429] * 5)
        self.assertEqual(self.control.passwords.count, 10)
        found = []
        for number in range(35):  # one address, many users
            self.browser.get("/sign-in")
            found.append(self.browser.submit(login=f"u{number}", password="wrong").status)
        self.assertEqual(found[28:], [403, 403, 429, 429, 429, 429, 429])
        self.assertEqual(self.control.passwords.count, 40)

    def test_outdated_hashes_are_renewed(self) -> None:
        self.user()
        self.control.passwords.outdated = True
        before = self.control.passwords.count
        self.sign_in()
        self.assertEqual(self.control.passwords.count, before + 2)

    def test_session_fixation(self) -> None:
        self.user()
        self.browser.cookies[SESSION] = "planted-by-somebody-else"
        self.assertEqual(self.sign_in(), 200)
        mine = self.browser.cookies[SESSION]
        self.assertNotEqual(mine, "planted-by-somebody-else")
        thief = Browser(self.control.site)
        thief.cookies[SESSION] = "planted-by-somebody-else"
        thief.get("/done")
        self.assertEqual(thief.location, "/sign-in")
        # signing in again makes a new id and ends the old one
        fields = {"login": "alice@own", "password": PASSWORD}
        self.browser.get("/done")
        self.assertEqual(
            self.browser.post("/sign-in", {**self.browser.form(), **fields}).status, 200
        )
        self.assertNotEqual(self.browser.cookies[SESSION], mine)
        thief.cookies[SESSION] = mine
        thief.get("/done")
        self.assertEqual(thief.location, "/sign-in")
        self.assertEqual(len(self.control.state.sessions), 1)

    def test_cookies(self) -> None:
        self.user()
        self.browser.get("/sign-in")
        fields = self.browser.form()
        self.browser._follow = lambda: self.browser.page  # type: ignore[method-assign]
        self.browser.post("/sign-in", {**fields, "login": "alice@own", "password": PASSWORD})
        (cookie,) = self.browser.page.all("set-cookie")
        self.assertTrue(cookie.startswith("__Host-border0="))
        for part in ("Path=/", "Secure", "HttpOnly", "SameSite=Lax"):
            self.assertIn(part, cookie.split("; "))
        self.assertNotIn("Domain", cookie)
        self.assertNotIn(self.browser.cookies[SESSION], repr(self.control.state.sessions))

    def test_idle_and_absolute_limits(self) -> None:
        self.user()
        self.sign_in()
        self.control.clock.advance(3601.0)
        self.browser.get("/done")
        self.assertEqual(self.browser.location, "/sign-in")
        self.sign_in()
        for _ in range(12 * 2 - 1):
            self.control.clock.advance(1800.0)
            self.browser.get("/done")
            self.assertEqual(self.browser.location, "/done")
        self.control.clock.advance(1801.0)
        self.browser.get("/done")
        self.assertEqual(self.browser.location, "/sign-in")

    def test_a_locked_user_is_out_at_once(self) -> None:
        account = self.user()
        self.sign_in()
        self.control.accounts.change(account, disabled=True)
        self.browser.get("/done")
        self.assertEqual(self.browser.location, "/sign-in")

    def test_next(self) -> None:
        allowed = ("/device", "/device/confirm", "/done")
        self.assertEqual(safe_next("/device?code=AAAA-BBBB", allowed), "/device?code=AAAA-BBBB")
        for evil in (
            "//evil.test",
            "///evil.test",
            "/\\evil.test",
            "https://evil.test",
            "javascript:alert(1)",
            "/device\r\nSet-Cookie: a=b",
            "/device\nx",
            "/device?x=//evil\x00",
            "/device/../sign-out",
            "/device#x",
            "/device@evil.test",
            "/evil",
            "",
            "/device?a=<script>",
            "/device\u2028",
        ):
            self.assertEqual(safe_next(evil, allowed), "/done", evil)
        self.user()
        self.browser.get("/sign-in?next=//evil.test")
        self.browser.submit(login="alice@own", password=PASSWORD)
        self.assertEqual(self.browser.location, "/done")
        self.browser.get("/sign-in?next=https:%2F%2Fevil.test%0d%0aX-Evil:1")
        self.assertEqual(self.browser.location, "/done")


class SecondFactor(Pages):
    key = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"

    def setUp(self) -> None:
        super().setUp()
        self.account = self.user(self.key)
        self.totp = pyotp.TOTP(self.key)

    def code(self) -> str:
        return self.totp.at(int(self.control.now()))

    def test_the_password_alone_opens_nothing(self) -> None:
        self.assertEqual(self.sign_in(), 200)
        self.assertIn("Second factor", self.browser.page.text)
        half = self.browser.cookies[SESSION]
        for path in ("/done", "/device/confirm?code=BBBB-BBBB"):
            self.browser.get(path)
            self.assertTrue(self.browser.location.startswith("/sign-in"), path)
        response = exchange(
            self.control.site, "GET", "/api/v1/whoami", headers=[("Cookie", f"{SESSION}={half}")]
        )
        self.assertEqual(response.status, 401)

    def test_code(self) -> None:
        self.sign_in()
        half = self.browser.cookies[SESSION]
        self.assertEqual(self.browser.submit(code=self.code()).status, 200)
        self.assertEqual(self.browser.location, "/done")
        self.assertNotEqual(self.browser.cookies[SESSION], half)
        (session,) = self.control.state.sessions.values()
        self.assertTrue(session.mfa)
        self.assertEqual(self.control.audit[-1].result, "ok")

    def test_replay(self) -> None:
        self.sign_in()
        code = self.code()
        self.browser.submit(code=code)
        other = Browser(self.control.site, "192.0.2.9")
        self.sign_in(other)
        self.assertEqual(other.submit(code=code).status, 403)
        self.control.clock.advance(30.0)
        self.assertEqual(other.submit(code=self.code()).status, 200)

    def test_recovery_code_once(self) -> None:
        self.sign_in()
        self.assertEqual(self.browser.submit(code="ABCD efgh jkmn pqrs").status, 200)
        other = Browser(self.control.site, "192.0.2.9")
        self.sign_in(other)
        self.assertEqual(other.submit(code="abcd-efgh-jkmn-pqrs").status, 403)

    def test_brute_force(self) -> None:
        found = []
        for number in range(8):  # new passwords, new addresses: the account counts
            browser = Browser(self.control.site, f"192.0.2.{number}")
            self.sign_in(browser)
            found.append(browser.submit(code="000000").status)
        self.assertEqual(found, [403] * 5 + [429] * 3)
        browser = Browser(self.control.site, "192.0.2.99")
        self.sign_in(browser)
        self.assertEqual(browser.submit(code=self.code()).status, 429)

    def test_too_late(self) -> None:
        self.sign_in()
        self.control.clock.advance(601.0)
        self.browser.submit(code=self.code())
        self.assertEqual(self.browser.page.status, 403)
        self.browser.get("/sign-in/second-factor")
        self.assertEqual(self.browser.location, "/sign-in")


class Forgery(Pages):
    def test_forms_from_elsewhere(self) -> None:
        self.user()
        self.browser.get("/sign-in")
        fields = {**self.browser.form(), "login": "alice@own", "password": PASSWORD}
        for headers in (
            [],
            [("Origin", "https://evil.test")],
            [("Origin", "null")],
            [("Origin", ORIGIN), ("Sec-Fetch-Site", "cross-site")],
            [("Origin", ORIGIN), ("Sec-Fetch-Site", "same-site")],
        ):
            page = self.browser.post("/sign-in", fields, headers=headers)
            self.assertEqual(page.status, 403, headers)
        self.assertEqual(self.control.passwords.count, 0)

    def test_form_tokens(self) -> None:
        self.user()
        self.browser.get("/sign-in")
        good = {**self.browser.form(), "login": "alice@own", "password": PASSWORD}
        other = Browser(self.control.site)
        other.get("/sign-in")
        for csrf in ("", "x", other.form()["csrf"]):
            self.assertEqual(self.browser.post("/sign-in", {**good, "csrf": csrf}).status, 403)
        self.assertEqual(self.browser.post("/sign-in", good).status, 200)
        # a token of before the sign-in is worth nothing after it
        page = self.browser.post("/sign-out", {"csrf": good["csrf"]})
        self.assertEqual(page.status, 403)
        self.assertEqual(len(self.control.state.sessions), 1)

    def test_foreign_hosts(self) -> None:
        for path in ("/sign-in", "/signin.css", "/setup"):
            self.assertEqual(exchange(self.control.site, "GET", path, host="evil.test").status, 421)

    def test_bad_forms(self) -> None:
        kind = ("Content-Type", "application/x-www-form-urlencoded")
        origin = ("Origin", ORIGIN)
        for headers, body, status in (
            ([origin], b"a=b", 400),
            ([origin, ("Content-Type", "multipart/form-data; boundary=x")], b"--x--", 400),
            ([origin, kind], b"a=1&a=2", 400),
            ([origin, kind], b"a=%ff", 400),
            ([origin, kind], b"\xff", 400),
            ([origin, kind], b"&".join(b"a%d=1" % i for i in range(50)), 400),
            ([origin, kind], b"", 403),
            ([origin, kind], b"a=" + b"x" * 17000, 413),
            ([origin, kind, ("Cookie", "a=b")], b"a=" + b"x" * 17000, 413),
        ):
            page = exchange(self.control.site, "POST", "/sign-in", headers=headers, body=body)
            self.assertEqual(page.status, status, body[:20])
        self.assertEqual(exchange(self.control.site, "GET", "/sign-out").status, 404)
        self.assertEqual(exchange(self.control.site, "GET", "/device/x").status, 404)

    def test_pages_run_no_script_and_stay_out_of_frames(self) -> None:
        for path in ("/sign-in", "/device", self.control.link("org"), "/nothing"):
            page = exchange(self.control.site, "GET", path)
            policy = page.header("content-security-policy")
            if path != "/nothing":
                self.assertIn("default-src 'none'", policy)
                self.assertIn("frame-ancestors 'none'", policy)
                self.assertNotIn("unsafe", policy)
                self.assertEqual(page.all("referrer-policy"), ["same-origin"])
                self.assertEqual(page.header("content-type"), "text/html; charset=utf-8")
            for tag, attributes in tags_of(page.text):
                self.assertNotIn(tag, ("script", "style", "iframe", "object"))
                for name in attributes:
                    self.assertFalse(name == "style" or name.startswith("on"), name)

    def test_markup_is_text(self) -> None:
        evil = "\"'><script>alert(1)</script>&"
        self.user(login=evil)
        self.browser.get("/sign-in")
        page = self.browser.submit(login=evil, password="wrong")
        self.assertNotIn("<script", page.text)
        self.assertEqual(self.browser.form()["login"], evil)
        self.assertEqual(self.sign_in(login=evil), 200)
        self.assertNotIn("<script", self.browser.page.text)
        self.browser.get("/device?code=%3Cscript%3E")
        self.assertNotIn("<script", self.browser.page.text)

    def test_a_broken_store_is_a_page_without_words(self) -> None:
        self.user()

        async def broken(*arguments: object) -> None:
            raise OSError("canary database is locked")

        self.control.accounts.find_login = broken  # type: ignore[method-assign, assignment]
        self.browser.get("/sign-in")
        page = self.browser.submit(login="alice@own", password=PASSWORD)
        self.assertEqual(page.status, 500)
        self.assertNotIn("canary", page.text)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_sign_in_that_cannot_be_recorded_fails(self) -> None:
        self.user()
        self.control.audit_broken = True
        self.assertEqual(self.sign_in(), 500)
        self.assertEqual(self.control.state.sessions, {})
        self.flushLoggedErrors(OSError)
