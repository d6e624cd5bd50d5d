"""People at a real control plane: set-up, signing in, machines that they confirm, and the ends."""

from __future__ import annotations

import json
import re
import time

import pyotp
from twisted.trial.unittest import SynchronousTestCase

from tests.support import children
from tests.support.controlprocess import ControlProcess, WebBrowser
from tests.support.web import Response

OWNER = "owner@example.org"
MEMBER = "alice@example.org"
PASSWORD = "four plain words here"
OTHER = "another four plain words"
SESSION = "__Host-border0"
PAST = "2026-01-01T00:00:00Z"


def totp_of(page: Response) -> str:
    """The key of a set-up page, as somebody types it into an authenticator."""
    found = re.search(r"<code>((?:[A-Z2-7]{4} ?){8})</code>", page.text)
    assert found, page.text
    return found[1].replace(" ", "")


def recovery_of(page: Response) -> list[str]:
    """The recovery codes on a page."""
    return re.findall(r"<code>([a-z2-9]{4}(?:-[a-z2-9]{4}){3})</code>", page.text)


class People(SynchronousTestCase):
    """A fresh control plane, with a set-up link."""

    timeout = 240

    def setUp(self) -> None:
        self.control = ControlProcess()
        self.addCleanup(self.control.close)

    def fill(
        self, browser: WebBrowser, link: str, login: str = OWNER, code: str = "", **more: str
    ) -> Response:
        """Open a set-up link and fill its form."""
        browser.visit(link)
        fields = {"name": login.partition("@")[0].title(), "password": PASSWORD, "again": PASSWORD}
        if "login" in browser.form() and not browser.form()["login"]:
            fields["login"] = login
        return browser.submit(**{**fields, "code": code, **more})

    def administrator(self) -> WebBrowser:
        """The first administrator, signed in, without a second factor."""
        browser = self.control.browser()
        page = self.fill(browser, self.control.link())
        self.assertIn("The server is set up.", page.text)
        return browser

    def signed_in(self, home: str, browser: WebBrowser) -> None:
        """`border0 login` of a home, allowed in a browser."""
        typing = self.control.login(home)
        browser.allow(typing)
        done = typing.finish()
        self.assertEqual(0, done.returncode, done.stderr)

    def invited(self, email: str = MEMBER) -> WebBrowser:
        """A user whom the owner made, signed in by their own link."""
        link = self.control.run("user", "create", email, home="owner").stdout.strip()
        browser = self.control.browser()
        page = self.fill(browser, link, email)
        self.assertIn("Your password is set.", page.text)
        self.assertIn(email, page.text)
        return browser

    def clean(self) -> None:
        """Nothing unexpected was logged."""
        self.assertNotIn("Traceback", self.control.log.read_text())


class SetUp(People):
    def test_the_link_works_once_and_asks_for_a_good_password(self) -> None:
        link = self.control.link()
        browser = self.control.browser()
        for password, again, says in (
            ("short", "short", "at least 12 characters"),
            (PASSWORD, OTHER, "not the same"),
            ("aaaaaaaaaaaaaa", "aaaaaaaaaaaaaa", "too few different"),
            (OWNER, OWNER, "Your own name"),
        ):
            page = self.fill(browser, link, password=password, again=again)
            self.assertEqual(422, page.status)
            self.assertIn(says, page.text)
            self.assertNotIn(password, page.text.replace(OWNER, ""))
        page = self.fill(browser, link, code="000000")
        self.assertIn("code of the app is wrong", page.text)
        self.assertEqual({}, {k: v for k, v in browser.cookies.items() if k == SESSION})
        self.assertIn("The server is set up.", self.fill(browser, link).text)
        self.assertIn(SESSION, browser.cookies)
        self.assertIn(
            f"border0 login {self.control.url} --ca {self.control.pin}", browser.page.text
        )
        for someone in (browser, self.control.browser()):
            self.assertEqual(410, someone.visit(link).status)
        self.assertIn("used already", someone.page.text)
        self.clean()

    def test_only_one_of_two_browsers_sets_up(self) -> None:
        link = self.control.link()
        first, second = self.control.browser(), self.control.browser()
        first.visit(link)
        second.visit(link)
        fields = {"name": "Owner", "password": PASSWORD, "again": PASSWORD}
        second.submit(login=OWNER, **fields)
        self.assertEqual(200, second.page.status, second.page.text)
        first.submit(login="mallory@example.org", **fields)
        self.assertEqual(410, first.page.status)
        self.assertEqual([(OWNER,)], self.control.sql("SELECT email FROM users"))

    def test_a_link_that_expired_and_one_that_was_replaced(self) -> None:
        first = self.control.link()
        second = self.control.fresh_link()
        browser = self.control.browser()
        self.assertEqual(410, browser.visit(first).status)
        self.assertEqual(200, browser.visit(second).status)
        self.control.sql("UPDATE setup_links SET expires = ?", time.time() - 1)
        browser.submit(name="Owner", login=OWNER, password=PASSWORD, again=PASSWORD)
        self.assertEqual(410, browser.page.status)
        self.assertEqual(200, browser.visit(self.control.fresh_link()).status)
        self.administrator()
        self.control.child.send_signal(1)
        file = self.control.state / "setup-link"
        children.wait_until(lambda: not file.exists(), 30, "no more links")

    def test_forms_of_other_sites_change_nothing(self) -> None:
        browser = self.administrator()
        leave = browser.form()
        for headers in (
            [("Origin", "https://evil.example"), ("Sec-Fetch-Site", "cross-site")],
            [("Origin", "null")],
            [],
        ):
            self.assertEqual(403, browser.post("/sign-out", leave, headers=headers).status)
        self.assertEqual(403, browser.post("/sign-out", {"csrf": "0" * 64}).status)
        self.assertEqual(200, browser.get("/done").status)
        self.assertEqual("/done", browser.get("/") and browser.location)
        self.assertEqual(404, browser.get("/favicon.ico").status)
        self.assertIn("no such page", browser.page.text)
        for answer in browser.seen:
            self.assertIn("default-src 'none'", answer.header("content-security-policy"))
            self.assertIn("no-store", answer.header("cache-control"))
            for cookie in answer.all("set-cookie"):
                for word in ("__Host-", "; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"):
                    self.assertIn(word, cookie)


class SignIn(People):
    def test_with_a_second_factor(self) -> None:
        browser = self.control.browser()
        link = self.control.link()
        totp = pyotp.TOTP(totp_of(browser.visit(link)))
        now = time.time()
        page = self.fill(browser, link, code=totp.at(int(now)))
        codes = recovery_of(page)
        self.assertEqual(10, len(codes))
        old = dict(browser.cookies)
        page = browser.submit()
        self.assertIn("Sign in", page.text)
        self.assertNotIn(SESSION, browser.cookies)
        browser.cookies = old  # a copied cookie is of no use after signing out
        self.assertIn("/sign-in", browser.get("/done") and browser.location)

        browser.sign_in(OWNER, OTHER)
        self.assertEqual(403, browser.page.status)
        self.assertIn("name or the password is wrong", browser.page.text)
        wrong = browser.page.text
        stranger = self.control.browser()
        stranger.sign_in("nobody@example.org", PASSWORD)
        self.assertEqual(403, stranger.page.status)
        self.assertIn("name or the password is wrong", stranger.page.text)
        self.assertEqual(len(re.findall("<p", wrong)), len(re.findall("<p", stranger.page.text)))

        browser.submit(login=OWNER.upper(), password=PASSWORD)
        self.assertIn("authenticator", browser.page.text)
        browser.get("/done")  # the password alone opens nothing
        self.assertIn("/sign-in", browser.location)
        browser.get("/sign-in/second-factor")
        for code in (totp.at(int(now)), "000000", "not a code"):
            browser.submit(code=code)
            self.assertEqual(403, browser.page.status, code)
        browser.submit(code=totp.at(int(now) + 30))
        self.assertIn(f"signed in as <strong>{OWNER}", browser.page.text)

        browser.submit()
        browser.sign_in(OWNER, PASSWORD, codes[3].upper())
        self.assertIn(f"signed in as <strong>{OWNER}", browser.page.text)
        browser.submit()
        browser.sign_in(OWNER, PASSWORD, codes[3])
        self.assertEqual(403, browser.page.status)
        self.clean()

    def test_guessing_is_slowed_down(self) -> None:
        self.administrator()
        guesser = self.control.browser()
        guesser.get("/sign-in")
        for _ in range(10):
            guesser.submit(login=OWNER, password=OTHER)
            self.assertEqual(403, guesser.page.status)
        guesser.get("/sign-in")
        guesser.submit(login=OWNER, password=PASSWORD)
        self.assertEqual(429, guesser.page.status)
        self.assertIn("Slow down", guesser.page.text)


class CommandLine(People):
    def test_login_whoami_logout(self) -> None:
        typing = self.control.login("owner")
        self.assertTrue(typing.page.startswith(f"{self.control.url}/device?code="))
        owner = self.administrator()
        page = owner.claim(typing)
        for text in (typing.code, typing.key, "sign in the command line as you", OWNER):
            self.assertIn(text, page.text)

        # Whoever else knows the code, even the same person in another browser, cannot use it.
        other = self.control.browser()
        other.sign_in(OWNER, PASSWORD)
        self.assertEqual(404, other.claim(typing).status)
        self.assertIn("another browser has it", other.page.text)
        code = typing.code
        self.assertEqual(404, other.get(f"/device/confirm?code={code}").status)
        form = other.get("/device") and other.form()
        other.post("/device/confirm", {**form, "code": code, "answer": "allow"})
        self.assertEqual(404, other.page.status)

        self.assertIn("may go on", owner.submit(answer="allow").text)
        done = typing.finish()
        self.assertEqual((0, f"Signed in as {OWNER} (owner) of local.\n"),
                         (done.returncode, done.stdout))  # fmt: skip
        self.assertEqual(
            0o600, (self.control.home("owner") / "account.json").stat().st_mode & 0o777
        )
        self.assertIn(OWNER, self.control.run("whoami", home="owner").stdout)
        token = self.control.token("owner")
        self.assertEqual(200, self.control.ask("GET", "/whoami", token).status)
        self.control.run("logout", home="owner")
        self.assertEqual(401, self.control.ask("GET", "/whoami", token).status)
        said = self.control.run("whoami", home="owner", status=1).stderr
        self.assertIn("border0 login", said)
        self.assertEqual(200, owner.get("/done").status)  # the browser's own session goes on
        self.clean()

    def test_a_code_that_is_wrong_refused_or_late(self) -> None:
        owner = self.administrator()
        refused, late = self.control.login("one"), self.control.login("two")
        owner.get("/device")
        owner.submit(code="BCDF-GHJK")
        self.assertEqual(404, owner.page.status)
        owner.submit(code=refused.code.lower().replace("-", " "))
        self.assertIn(refused.key, owner.page.text)
        owner.submit(answer="refuse")
        self.assertIn("refused", owner.page.text)
        done = refused.finish()
        self.assertEqual(3, done.returncode)
        self.assertIn("refused in the browser", done.stderr)

        owner.claim(late)
        self.control.sql(
            "UPDATE device_grants SET expires = ? WHERE user_code = ?",
            time.time() - 1,
            late.code.replace("-", ""),
        )
        owner.submit(answer="allow")
        self.assertEqual(404, owner.page.status)
        done = late.finish()
        self.assertEqual(1, done.returncode)
        self.assertIn("not confirmed in time", done.stderr)
        for home in ("one", "two"):
            self.assertFalse((self.control.home(home) / "account.json").exists())

    def test_what_a_newcomer_gets_wrong(self) -> None:
        url, run = self.control.url, self.control.run
        said = run("login", url, home="new", status=1).stderr
        self.assertIn(
            f"Give the pin that the control plane printed: border0 login {url} --ca", said
        )
        said = run("node", "join", url, home="new", status=1).stderr
        self.assertIn("give the pin that the control plane printed", said)
        join = ("node", "join", url, "--ca", self.control.pin)
        said = run(*join, "--name", "My Laptop", home="new", status=1).stderr
        self.assertIn("lower-case letters, digits and dashes", said)
        said = run(*join[:3], "b0i_half", *join[3:], home="new", status=3).stderr
        self.assertIn("malformed; ask for another one", said)
        self.signed_in("owner", self.administrator())
        said = run("user", "create", "alice", home="owner", status=1).stderr
        self.assertIn("write an address as alice@example.org", said)
        code = run("device", "invite", "spare", home="owner").stdout.split()
        run(*code[1:], home="spare")
        said = run(*code[1:], home="other", status=3).stderr
        self.assertIn("used; ask for another one", said)

    def test_whoever_is_not_signed_in_signs_in_on_the_way(self) -> None:
        self.administrator()
        browser = self.control.browser()
        typing = self.control.login("owner")
        browser.claim(typing)
        self.assertTrue(browser.location.startswith("/sign-in?next="))
        browser.sign_in(OWNER, PASSWORD)
        self.assertIn(typing.key, browser.page.text)
        browser.submit(answer="allow")
        self.assertEqual(0, typing.finish().returncode)

    def test_a_service_account(self) -> None:
        self.signed_in("owner", self.administrator())
        run, ask = self.control.run, self.control.ask
        run("service-account", "create", "ci", "--role", "admin", home="owner")
        create = ("token", "create", "deploy", "--service-account", "ci")
        token = run(
            *create, "--scope", "user.read", "--network", "127.0.0.9/32", home="owner"
        ).stdout.strip()
        self.assertEqual(200, ask("GET", "/whoami", token, address="127.0.0.9").status)
        self.assertEqual(401, ask("GET", "/whoami", token).status)
        users = "/organizations/iam/users"
        self.assertEqual(200, ask("GET", users, token, address="127.0.0.9").status)
        new = {"email": MEMBER}
        self.assertEqual(403, ask("POST", users, token, new, address="127.0.0.9").status)
        self.assertEqual(403, ask("GET", "/connectors", token, address="127.0.0.9").status)
        said = run(*create, "--scope", "user.raed", home="owner", status=None).stderr
        self.assertIn("user.read", said)

        anywhere = run(*create, "--scope", "connector.read", home="owner").stdout.strip()
        program = {
            "BORDER0_BASE_URL": self.control.url,
            "BORDER0_AUTH_TOKEN": anywhere,
            "BORDER0_CA": self.control.pin,
        }
        self.assertIn("deploy", run("whoami", home="program", **program).stdout)
        run("connector", "ls", home="program", **program)
        run("user", "ls", home="program", status=3, **program)
        run("service-account", "delete", "ci", home="owner")
        run("connector", "ls", home="program", status=3, **program)


class Machines(People):
    def setUp(self) -> None:
        super().setUp()
        self.owner = self.administrator()
        self.signed_in("owner", self.owner)

    def joined(self, home: str, browser: WebBrowser, *words: str) -> str:
        """`border0 node join` without a code, allowed in a browser; what it printed."""
        typing = self.control.join(home, *words)
        browser.allow(typing)
        done = typing.finish()
        self.assertEqual(0, done.returncode, done.stderr)
        return done.stdout

    def hosts(self, home: str, status: int) -> str:
        """`border0 client hosts`; what it said."""
        done = self.control.run("client", "hosts", home=home, status=status)
        return done.stdout + done.stderr

    def becomes(self, home: str, text: str) -> None:
        """Wait until `client hosts` fails with a text."""

        def said() -> bool:
            done = self.control.run("client", "hosts", home=home, status=None)
            return done.returncode == 1 and text in done.stderr

        children.wait_until(said, 60, f"client hosts says {text}", interval=0.2)

    def service(self) -> None:
        """A database that the member may reach; its connector never joins."""
        policy = self.control.folder / "policy.json"
        who = {"who": {"email": [MEMBER]}}
        policy.write_text(json.dumps({"permissions": {"database": {}}, "condition": who}))
        run = self.control.run
        run("connector", "create", "lab", home="owner")
        run("policy", "add", "eng", "--policy-file", str(policy), home="owner")
        run(
            *("socket", "create", "shop-db", "--connector", "lab", "--policy", "eng"),
            *("--upstream", "postgres://app@db.example.org/shop", "--password", "from:env:PW"),
            home="owner",
        )

    def put(self, path: str, value: object) -> None:
        """A change by the owner that has no command."""
        answer = self.control.ask("PUT", path, self.control.token("owner"), value)
        self.assertEqual(200, answer.status, answer.body)

    def test_a_member_owns_their_device_and_nothing_else(self) -> None:
        alice = self.invited()
        said = self.joined("alice", alice, "--name", "laptop")
        self.assertIn("Joined local as device laptop at 100.", said)
        self.assertIn(
            "border0 client hosts", self.control.run("node", "status", home="alice").stdout
        )
        self.assertIn("no service yet", self.hosts("alice", 0))
        self.assertIn("usable:    yes", self.control.run("node", "status", home="alice").stdout)
        self.joined("owner", self.owner, "--name", "desk")
        self.signed_in("alice", alice)
        run, told = self.control.run, self.control.told
        self.assertEqual(["laptop"], [one["name"] for one in told("device", "ls", home="alice")])
        self.assertEqual(
            {"laptop", "desk"}, {one["name"] for one in told("device", "ls", home="owner")}
        )
        for words in (("device", "show", "desk"), ("device", "delete", "desk")):
            said = run(*words, home="alice", status=1).stderr
            self.assertIn("no such device", said)
        for words in (
            ("user", "ls"), ("group", "ls"), ("connector", "ls"), ("policy", "ls"),
            ("socket", "ls"), ("audit", "ls"), ("service-account", "ls"),
            ("connector", "invite", "lab"), ("user", "create", "x@example.org"),
            ("device", "approve", "laptop"), ("user", "update", MEMBER, "--role", "owner"),
            ("device", "invite", "spy", "--user", OWNER),
        ):  # fmt: skip
            run(*words, home="alice", status=3)
        owners = {one["owner"]["name"] for one in told("token", "ls", home="alice")}
        self.assertEqual({MEMBER}, owners)
        # A connector is not a member's to allow, whoever started it.
        run("device", "delete", "laptop", home="alice")
        self.becomes("alice", "border0 node join")
        self.clean()

    def test_approval(self) -> None:
        alice = self.invited()
        self.put("/organization", {"settings": {"require_device_approval": True}})
        said = self.joined("alice", alice, "--name", "laptop")
        self.assertIn("border0 device approve laptop", said)
        self.assertIn("waits for approval", self.hosts("alice", 1))
        listed = self.control.run("device", "ls", home="owner").stdout
        self.assertIn("waits for approval", listed)
        self.signed_in("alice", alice)
        self.control.run("device", "approve", "laptop", home="alice", status=3)
        self.control.run("device", "approve", "laptop", home="owner")
        children.wait_until(
            lambda: not self.control.run("client", "hosts", home="alice", status=None).returncode,
            60,
            "the approval arrives",
            interval=0.2,
        )

    def test_an_expired_device_joins_again(self) -> None:
        alice = self.invited()
        self.joined("alice", alice, "--name", "laptop")
        self.hosts("alice", 0)
        (before,) = self.control.told("device", "show", "laptop", home="owner")
        self.put("/device/laptop", {"expires_at": PAST})
        self.becomes("alice", f"border0 node join {self.control.url}")
        self.assertIn("expired", self.control.run("device", "ls", home="owner").stdout)
        # Somebody else at this machine does not get the device.
        typing = self.control.join("alice")
        self.owner.allow(typing)
        done = typing.finish()
        self.assertEqual(3, done.returncode)
        self.assertIn("another owner", done.stderr)
        self.joined("alice", alice)
        self.hosts("alice", 0)
        (after,) = self.control.told("device", "show", "laptop", home="owner")
        for same in ("id", "name", "addresses", "wireguard_key"):
            self.assertEqual(before[same], after[same])
        self.assertGreater(after["expires_at"], before["expires_at"])

    def test_a_locked_device(self) -> None:
        alice = self.invited()
        self.joined("alice", alice, "--name", "laptop")
        self.hosts("alice", 0)
        self.put("/device/laptop", {"locked": True})
        self.becomes("alice", "is locked")
        typing = self.control.join("alice")
        alice.allow(typing)
        done = typing.finish()
        self.assertEqual(3, done.returncode)
        self.assertIn("locked", done.stderr)
        self.signed_in("alice", alice)
        self.control.run("device", "delete", "laptop", home="alice", status=3)
        self.put("/device/laptop", {"locked": False})
        children.wait_until(
            lambda: not self.control.run("client", "hosts", home="alice", status=None).returncode,
            60,
            "unlocked",
            interval=0.2,
        )

    def test_a_locked_user(self) -> None:
        alice = self.invited()
        self.service()
        self.joined("alice", alice, "--name", "laptop")
        self.assertIn("shop-db", self.hosts("alice", 0))
        self.signed_in("alice", alice)
        invite = self.control.run("device", "invite", "spare", home="alice").stdout.split()
        token = self.control.token("alice")
        waiting = self.control.login("again")
        alice.claim(waiting)
        self.control.run("user", "update", MEMBER, "--disable", home="owner")
        self.assertEqual(401, self.control.ask("GET", "/whoami", token).status)
        alice.submit(answer="allow")
        self.assertEqual(403, alice.page.status)
        self.assertIn("begin again", alice.page.text)
        alice.get("/done")
        self.assertIn("/sign-in", alice.location)
        alice.sign_in(MEMBER, PASSWORD)
        self.assertEqual(403, alice.page.status)
        self.assertIn("border0 login", self.control.run("whoami", home="alice", status=3).stderr)
        self.control.run(*invite[1:], home="spare", status=3)
        children.wait_until(lambda: "shop-db" not in self.hosts("alice", 0), 60, "nothing is left")
        # Let in again, they start anew: nothing of before comes back to life.
        self.control.run("user", "update", MEMBER, "--enable", home="owner")
        self.assertEqual(401, self.control.ask("GET", "/whoami", token).status)
        alice.sign_in(MEMBER, PASSWORD)
        self.assertIn("signed in as", alice.page.text)
        children.wait_until(lambda: "shop-db" in self.hosts("alice", 0), 60, "it is back")
        self.clean()
