"""Tokens: forged, truncated, borrowed, expired, revoked, from elsewhere."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.secrets import Secret
from tests.support.sampleroutes import Sample
from tests.support.signin import Control, now_of
from tests.support.web import exchange


class TokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sample = Sample()
        self.control = Control(self.sample.table, self.sample.owns)
        add = self.control.accounts.add
        self.user = add("org-a", "user", "admin")
        self.robot = add("org-a", "robot", "service")
        self.other = add("org-b", "other", "admin")

    def who(self, text: str, address: str = "192.0.2.7") -> Any:
        made = self.control.tokens.principal(Secret(text), address, self.control.now())
        return now_of(made)

    def service(self, *scopes: str, **more: Any) -> str:
        return self.control.token(self.robot, kind="service", scopes=scopes, **more)

    def test_good_ones(self) -> None:
        found = self.who(self.service("socket.read"))
        self.assertEqual((found.org, found.role), ("org-a", "service"))
        self.assertEqual(found.scopes, {"socket.read"})
        found = self.who(self.control.token(self.user))
        self.assertEqual((found.id, found.role, found.scopes), (self.user.id, "admin", None))

    def test_forgeries(self) -> None:
        one, two = self.service("socket.read"), self.control.token(self.other)
        mine = self.control.token(self.user)
        forged = [
            "",
            one[:-1],
            one + "a",
            one.upper(),
            one + "\n",
            " " + one,
            one[:36],
            "b0u_" + one[4:],  # a service account's token as a user's
            "b0s_" + mine[4:],
            "b0x_" + one[4:],
            two[:37] + mine[37:],  # the id of another organisation's, with my secret
            mine[:37] + two[37:],
            one[:37] + "a" * 52,
            one[:-1] + ("a" if one[-1] != "a" else "b"),
            one.replace("b0s_", "b0s\uff3f"),
        ]
        for text in forged:
            self.assertIsNone(self.who(text), text)

    def test_expired(self) -> None:
        text = self.service("socket.read", seconds=60.0)
        self.control.clock.advance(59.0)
        self.assertIsNotNone(self.who(text))
        self.control.clock.advance(1.0)
        self.assertIsNone(self.who(text))

    def test_revoked_disabled_and_moved(self) -> None:
        text = self.service("socket.read")
        (token,) = self.control.state.tokens.values()
        for change in ({"revoked": self.control.now()}, {"active": False}, {"kind": "other"}):
            self.control.state.tokens[token.id] = token._replace(**change)  # type: ignore[arg-type]
            self.assertIsNone(self.who(text), change)
        mine = self.control.token(self.user)
        for fields in ({"disabled": True}, {"disabled": False, "org": "org-b"}):
            self.control.accounts.change(self.user, **fields)
            self.assertIsNone(self.who(mine))
        del self.control.accounts.accounts[self.user.id]
        self.assertIsNone(self.who(mine))

    def test_a_new_role_counts_at_once(self) -> None:
        mine = self.control.token(self.user)
        self.control.accounts.change(self.user, role="member")
        self.assertEqual(self.who(mine).role, "member")
        response = exchange(self.control.site, "GET", "/api/v1/socket", token=mine)
        self.assertEqual(response.status, 403)

    def test_networks(self) -> None:
        text = self.service("socket.read", networks=("198.51.100.0/24", "2001:db8::/32"))
        for address, good in (
            ("198.51.100.9", True),
            ("::ffff:198.51.100.9", True),
            ("2001:db8::1", True),
            ("192.0.2.1", False),
            ("", False),
        ):
            self.assertEqual(self.who(text, address) is not None, good, address)

    def test_wrong_scope_and_other_organisation(self) -> None:
        foreign = self.sample.add("socket", "org-b")
        reads = self.service("socket.read")
        for method, path, status in (
            ("GET", "/api/v1/socket", 200),
            ("POST", "/api/v1/token", 403),
            ("GET", f"/api/v1/socket/{foreign}", 404),
        ):
            response = exchange(self.control.site, method, path, token=reads)
            self.assertEqual(response.status, status)

    def test_what_is_stored_is_no_secret(self) -> None:
        text = self.service("socket.read")
        (token,) = self.control.state.tokens.values()
        self.assertNotIn(text[37:], repr(token))
        self.assertNotIn(text[37:], repr(self.who(text)))

    def test_mistakes(self) -> None:
        for more in (
            {"kind": "service"},
            {"kind": "service", "scopes": ["socket.everything"]},
            {"kind": "root"},
            {"seconds": 0.0},
            {"seconds": 1e9},
            {"networks": ["nonsense"]},
        ):
            with self.assertRaises(ValueError):
                self.control.token(self.user, **more)  # type: ignore[arg-type]

    def test_last_use(self) -> None:
        text = self.service("socket.read")
        self.who(text)
        (token,) = self.control.state.tokens.values()
        self.assertEqual(token.used, self.control.now())
        self.control.clock.advance(30.0)
        self.who(text)
        (again,) = self.control.state.tokens.values()
        self.assertEqual(again.used, token.used)
