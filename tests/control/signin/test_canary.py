"""No secret is in any log line or repr, whichever way it comes in or goes wrong."""

from typing import Any

from twisted.logger import LogLevel, formatEvent, formatEventAsClassicLogText, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from border0.control.signin.model import Factors
from border0.secrets import Secret
from tests.support.sampleroutes import Sample
from tests.support.signin import Control
from tests.support.web import Browser, exchange

PASSWORD = "canary-password-four-words"


class Canary(SynchronousTestCase):
    def test_everything_that_is_secret(self) -> None:
        lines: list[str] = []

        def observe(event: Any) -> None:
            lines.append(
                formatEvent(event) + repr(event) + (formatEventAsClassicLogText(event) or "")
            )

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        sample = Sample()
        control = Control(sample.table, sample.owns)
        link = control.link("org")
        browser = Browser(control.site)
        browser.get(link)
        key = browser.page.text.partition("<code>")[2].partition("</code>")[0]
        form = browser.form()["csrf"]
        browser.submit(name="A", login="a", password=PASSWORD, again=PASSWORD)
        (owner,) = control.accounts.accounts.values()
        user, service = (
            control.token(owner),
            control.token(owner, kind="service", scopes=["user.read"]),
        )
        start = exchange(
            control.site,
            "POST",
            "/api/v1/device_authorizations",
            value={"public_key": "AQ" * 21 + "A=", "name": "x", "purpose": "login"},
        )
        secrets = [PASSWORD, link.partition("=")[2], key, form, user[4:], service[4:]]
        secrets += browser.cookies.values()
        if start.status == 201:
            secrets.append(start.json()["device_code"])
        # then make everything fail, with the secrets in hand
        browser.submit(login="a", password=PASSWORD)
        sample.raises = RuntimeError("boom")
        exchange(control.site, "GET", "/api/v1/me", token=user)
        exchange(control.site, "GET", "/api/v1/me", token=service + "x")

        async def broken(*arguments: object) -> None:
            raise OSError("database is locked")

        for store, names in (
            (control.accounts, ("find_login", "create_owner", "get", "factors")),
            (control.state, ("session", "token", "link", "add_session")),
        ):
            for name in names:
                setattr(store, name, broken)
        exchange(control.site, "GET", "/api/v1/me", token=user)
        Browser(control.site).get(link)
        for path in ("/sign-in", "/done", link):
            browser.get(path)
        self.flushLoggedErrors()
        self.assertTrue(any("database is locked" in line for line in lines))
        shown = "\n".join(
            [*lines, repr(vars(control)), repr(vars(control.state)), repr(control.audit)]
        )
        shown += repr(vars(control.sign_in)) + repr(vars(control.sessions)).replace(
            repr(bytes(range(32))), ""
        )
        for secret in secrets:
            self.assertGreater(len(secret), 15)
            self.assertNotIn(secret, shown)
        self.assertEqual(LogLevel.info.name, "info")

    def test_records(self) -> None:
        factors = Factors(Secret(PASSWORD), Secret(PASSWORD))
        self.assertNotIn(PASSWORD, repr(factors))
