"""Device codes: the whole way of a machine, and codes that are guessed, late, replayed, stolen."""

import base64
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.control.signin.grants import ALPHABET, key_fingerprint, typed
from border0.control.signin.model import Factors
from border0.secrets import Secret
from tests.support.signin import Control
from tests.support.web import Browser, exchange

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(1, 33))).decode()


class Codes(SynchronousTestCase):
    def setUp(self) -> None:
        self.control = Control()
        self.browser = Browser(self.control.site)
        factors = Factors(Secret("hash of password"))
        self.user = self.control.accounts.add("org", "alice", "member", factors)

    def start(self, key: str = KEY, name: str = "laptop", purpose: str = "device") -> Any:
        value = {"public_key": key, "name": name, "purpose": purpose}
        path = "/api/v1/device_authorizations"
        response = exchange(self.control.site, "POST", path, value=value)
        self.assertEqual(response.status, 201, response.raw)
        return response.json()

    def poll(self, made: Any, key: str = KEY, wait: float = 6.0) -> Any:
        self.control.clock.advance(wait)
        value = {"device_code": made["device_code"], "public_key": key}
        path = "/api/v1/device_authorizations/poll"
        response = exchange(self.control.site, "POST", path, value=value)
        self.assertEqual(response.status, 200, response.raw)
        return response.json()

    def claim(self, code: str, browser: Browser | None = None) -> int:
        browser = browser or self.browser
        browser.get("/device")
        return browser.submit(code=code).status

    def sign_in(self, browser: Browser | None = None) -> int:
        browser = browser or self.browser
        if not browser.location.startswith("/sign-in"):
            browser.get("/sign-in")
        return browser.submit(login="alice", password="password").status

    def answer(self, answer: str = "allow") -> int:
        return self.browser.submit(answer=answer).status

    def test_the_whole_way(self) -> None:
        made = self.start()
        self.assertEqual(self.poll(made)["status"], "pending")
        self.browser.get(made["verification_uri_complete"].removeprefix("https://control.test"))
        self.assertEqual(self.browser.form()["code"], made["user_code"])
        self.browser.submit()
        self.assertTrue(self.browser.location.startswith("/sign-in?next="))
        self.sign_in()
        page = self.browser.page.text
        for shown in (made["user_code"], "laptop", key_fingerprint(KEY), "192.0.2.7", "alice"):
            self.assertIn(shown, page)
        self.assertEqual(self.answer(), 200)
        self.assertIn("The machine may go on", self.browser.page.text)
        found = self.poll(made)
        self.assertEqual((found["status"], found["result"]), ("approved", {"org": "org"}))
        (approval,) = self.control.approvals
        self.assertEqual((approval.public_key, approval.account), (KEY, self.user.id))
        entry = self.control.audit[-1]
        self.assertEqual((entry.type, entry.target["public_key"]), ("device.confirm", KEY))
        # once
        self.assertEqual(self.poll(made)["status"], "expired")
        self.assertEqual(len(self.control.approvals), 1)

    def test_refused(self) -> None:
        made = self.start()
        self.claim(made["user_code"])
        self.sign_in()
        self.answer("refuse")
        self.assertEqual(self.poll(made)["status"], "denied")
        self.assertEqual(self.claim(made["user_code"]), 404)

    def test_another_browser(self) -> None:
        made = self.start()
        self.claim(made["user_code"])
        other = Browser(self.control.site, "192.0.2.66")
        self.assertEqual(self.claim(made["user_code"], other), 404)
        self.sign_in(other)
        page = other.get(f"/device/confirm?code={made['user_code']}")
        self.assertEqual(page.status, 404)
        # with a good form of its own, but the code of the first
        mine = self.start(OTHER_KEY)
        self.claim(mine["user_code"], other)
        other.get(f"/device/confirm?code={mine['user_code']}")
        fields = {**other.form(), "code": made["user_code"], "answer": "allow"}
        self.assertEqual(other.post("/device/confirm", fields).status, 404)
        # the very session in another browser is not enough either
        self.sign_in()
        thief = Browser(self.control.site)
        thief.cookies["__Host-border0"] = self.browser.cookies["__Host-border0"]
        page = thief.get(f"/device/confirm?code={made['user_code']}")
        self.assertEqual(page.status, 404)
        self.assertEqual(self.poll(made)["status"], "pending")

    def test_not_signed_in(self) -> None:
        made = self.start()
        self.claim(made["user_code"])
        csrf = self.browser.form()["csrf"]
        fields = {"csrf": csrf, "code": made["user_code"], "answer": "allow"}
        self.browser.post("/device/confirm", fields)
        self.assertEqual(self.browser.location, "/sign-in")
        self.assertEqual(self.poll(made)["status"], "pending")

    def test_a_member_joins_no_connector(self) -> None:
        made = self.start(purpose="connector")
        self.claim(made["user_code"])
        self.sign_in()
        self.assertEqual(self.answer(), 403)
        self.assertEqual(self.poll(made)["status"], "pending")

    def test_after_ten_minutes(self) -> None:
        made = self.start()
        self.claim(made["user_code"])
        self.sign_in()
        self.control.clock.advance(600.0)
        self.assertEqual(self.answer(), 404)
        self.assertEqual(self.poll(made)["status"], "expired")
        self.assertEqual(self.claim(made["user_code"]), 404)

    def test_another_key(self) -> None:
        made = self.start()
        self.claim(made["user_code"])
        self.sign_in()
        self.answer()
        self.assertEqual(self.poll(made, OTHER_KEY)["status"], "expired")
        self.assertEqual(self.poll(made)["status"], "approved")

    def test_polling_too_often(self) -> None:
        made = self.start()
        self.assertEqual(self.poll(made)["status"], "pending")
        found = self.poll(made, wait=1.0)
        self.assertEqual((found["status"], found["interval"]), ("slow_down", 10))
        self.assertEqual(self.poll(made, wait=11.0)["status"], "pending")

    def test_guessed_device_codes(self) -> None:
        made = self.start()
        for code in ("", "x", made["device_code"][:-1], made["user_code"]):
            self.assertEqual(self.poll({"device_code": code})["status"], "expired")

    def test_guessed_user_codes(self) -> None:
        found = [self.claim("BBBB-BBB" + c) for c in ALPHABET + ALPHABET]
        self.assertEqual(found, [404] * 30 + [429] * 10)
        self.assertEqual(self.claim(self.start()["user_code"]), 429)

    def test_codes_as_typed(self) -> None:
        self.assertEqual(typed(" wdjb mjht "), "WDJBMJHT")
        self.assertEqual(typed("WDJB\u2013MJHT"), "WDJBMJHT")
        for bad in ("", "WDJB-MJH", "WDJB-MJHTT", "WDJB-MJHA", "WDJB-MJH0"):
            self.assertEqual(typed(bad), "")

    def test_bad_starts(self) -> None:
        path = "/api/v1/device_authorizations"
        for value in (
            {"public_key": "x", "name": "a", "purpose": "device"},
            {"public_key": KEY[:-1], "name": "a", "purpose": "device"},
            {"public_key": base64.b64encode(bytes(32)).decode(), "name": "a", "purpose": "device"},
            {"public_key": KEY, "name": "<b>", "purpose": "device"},
            {"public_key": KEY, "name": "a\n", "purpose": "device"},
            {"public_key": KEY, "name": "A", "purpose": "device"},
            {"public_key": KEY, "name": "a", "purpose": "root"},
            {"public_key": KEY, "name": "a", "purpose": "device", "org": "other"},
        ):
            self.control.clock.advance(60.0)
            response = exchange(self.control.site, "POST", path, value=value)
            self.assertEqual(response.status, 422, value)

    def test_a_flood_of_starts(self) -> None:
        value = {"public_key": KEY, "name": "a", "purpose": "device"}
        path = "/api/v1/device_authorizations"
        found = [exchange(self.control.site, "POST", path, value=value).status for _ in range(12)]
        self.assertEqual(found, [201] * 10 + [429] * 2)
        self.control.state.grant_limit = 10
        response = exchange(self.control.site, "POST", path, value=value, address="192.0.2.8")
        self.assertEqual(response.status, 503)
