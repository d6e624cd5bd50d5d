"""What cannot be registered, and how paths are matched."""

from typing import Annotated, Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from border0.control.api.errors import ApiError
from border0.control.api.guard import Guard
from border0.control.api.limits import Limiter, Rate, address_key
from border0.control.api.openapi import describe
from border0.control.api.paging import decode_cursor, encode_cursor, expected_version
from border0.control.api.principals import PERMISSIONS, PUBLIC, ROLES, SELF, Principal, excess
from border0.control.api.resource import ApiResource
from border0.control.api.routes import Call, Table
from border0.control.api.schema import document
from tests.support.sampleroutes import Sample, SocketBody


class Loose(msgspec.Struct):
    a: int


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: list[Loose]


class Anything(msgspec.Struct, forbid_unknown_fields=True):
    value: Any


class Whole(msgspec.Struct, forbid_unknown_fields=True):
    value: Annotated[dict[str, Any], document()]


class Smuggled(msgspec.Struct, forbid_unknown_fields=True):
    value: Annotated[Loose, document()]


def handler(call: Call) -> None:
    """Nothing."""


class Registration(SynchronousTestCase):
    def refused(self, *arguments: str, **keywords: Any) -> None:
        with self.assertRaises(ValueError):
            Table().route(*arguments, **keywords)(handler)

    def test_without_a_permission(self) -> None:
        with self.assertRaises(TypeError):
            Table().route("GET", "/x")  # type: ignore[call-arg]
        for permission in ("", "unknown.read", "socket", "*", "socket.*", None):
            self.refused("GET", "/x", permission=permission)

    def test_a_permission_for_own_things(self) -> None:
        for own in ("unknown.own", PUBLIC, SELF):
            self.refused("GET", "/x", permission="device.read", own=own)
        self.refused("GET", "/x", permission=SELF, own="device.own")
        rate = Rate(1, 1.0)
        self.refused("GET", "/x", permission=PUBLIC, own="device.own", limit=rate)
        table = Table()
        table.route("GET", "/x", permission="device.read", own="device.own")(handler)
        (operation,) = describe(table, "t", "1")["paths"]["/api/v1/x"].values()
        self.assertEqual(operation["x-permission-own"], "device.own")

    def test_a_change_without_audit_action(self) -> None:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            self.refused(method, "/x", permission="socket.write")
            self.refused(method, "/x", permission="socket.write", audit="Create Socket")

    def test_a_public_route_without_limit_or_with_ids(self) -> None:
        self.refused("GET", "/x", permission=PUBLIC)
        rate = Rate(1, 1.0)
        self.refused("GET", "/x/{id:socket}", permission=PUBLIC, limit=rate)
        self.refused("POST", "/x", permission=PUBLIC, audit="x.y", limit=rate, body=SocketBody)

    def test_bodies_that_let_unknown_fields_pass(self) -> None:
        for body in (Loose, Outer, Anything, dict, list[int]):
            self.refused("POST", "/x", permission=SELF, audit="x.y", body=body)

    def test_documents_are_checked_by_their_handler(self) -> None:
        register = Table().route("POST", "/x", permission=SELF, audit="x.y", body=Whole)
        self.assertIs(register(handler), handler)
        self.refused("POST", "/x", permission=SELF, audit="x.y", body=Smuggled)

    def test_other_mistakes(self) -> None:
        self.refused("BREW", "/x", permission=SELF)
        self.refused("GET", "x", permission=SELF)
        self.refused("GET", "/{id}", permission=SELF)
        self.refused("GET", "/{a:text}/{a:text}", permission=SELF)
        self.refused("GET", "/x", permission=SELF, body=SocketBody)
        with self.assertRaises(ValueError):
            Table().route("GET", "/x", permission=SELF)(lambda call: None)
        table = Table()
        table.route("GET", "/x/{a:text}", permission=SELF)(handler)
        with self.assertRaises(ValueError):
            table.route("GET", "/x/{b:text}", permission=SELF)(handler)

    def test_ids_need_somebody_who_knows_whose_they_are(self) -> None:
        with self.assertRaises(ValueError):
            ApiResource(
                Sample().table,
                guard=Guard(["a"]),
                authenticate=None,  # type: ignore[arg-type]
                audit=lambda entry: None,
                clock=lambda: 0.0,
            )

    def test_words_win_over_parameters(self) -> None:
        table = Table()
        table.route("GET", "/x/{a:text}", permission=SELF)(handler)
        table.route("GET", "/x/y", permission=SELF)(handler)
        table.route("POST", "/x/{a:text}", permission=SELF, audit="x.y")(handler)
        self.assertEqual(table.match("GET", ["x", "y"])[0].path, "/x/y")
        self.assertEqual(table.match("GET", ["x", "z"])[1], {"a": "z"})
        self.assertEqual(table.match("POST", ["x", "y"])[1], {"a": "y"})
        with self.assertRaises(ApiError) as caught:
            table.match("DELETE", ["x", "y"])
        self.assertEqual(caught.exception.headers, (("Allow", "GET, POST"),))
        for path in (["x"], ["x", "/"], ["{}"], [], ["x", "y", "z"]):
            if path == ["x", "/"]:
                continue  # never comes out of a path
            with self.assertRaises(ApiError) as caught:
                table.match("GET", path)
            self.assertEqual(caught.exception.status, 404)


class Roles(SynchronousTestCase):
    def test_who_may_give_which_scopes(self) -> None:
        admin = Principal("o", "i", "n", "admin", "token")
        self.assertEqual(excess(admin, ["socket.read", "policy.write"]), [])
        self.assertEqual(
            excess(admin, ["role.write", "token.write"]), ["role.write", "token.write"]
        )
        narrow = admin._replace(scopes=frozenset(("token.write", "socket.read")))
        self.assertEqual(excess(narrow, ["socket.read", "policy.read"]), ["policy.read"])

    def test_no_service_account_makes_access(self) -> None:
        for permission in ("token.write", "role.write", "service_account.write"):
            self.assertNotIn("service", PERMISSIONS[permission])
        for roles in PERMISSIONS.values():
            self.assertEqual(roles - set(ROLES), set())


class Limits(SynchronousTestCase):
    def test_a_bucket(self) -> None:
        limiter = Limiter(Rate(3, 30.0))
        self.assertEqual([limiter.take("a", 0.0) for _ in range(3)], [0.0, 0.0, 0.0])
        self.assertEqual(limiter.take("a", 0.0), 10.0)
        self.assertEqual(limiter.take("b", 0.0), 0.0)
        self.assertEqual(limiter.take("a", 10.0), 0.0)
        self.assertEqual(limiter.take("a", 10.0), 10.0)
        limiter.forgive("a")
        self.assertEqual(limiter.take("a", 10.0), 0.0)

    def test_keys_are_bounded(self) -> None:
        limiter = Limiter(Rate(1, 30.0), keys=10)
        for number in range(100):
            limiter.take(str(number), 0.0)
        self.assertEqual(len(limiter), 10)

    def test_an_ipv6_client_is_its_network(self) -> None:
        self.assertEqual(address_key("2001:db8::1"), address_key("2001:db8::ffff:1"))
        self.assertNotEqual(address_key("2001:db8::1"), address_key("2001:db8:0:1::1"))
        self.assertEqual(address_key("::ffff:192.0.2.1"), address_key("192.0.2.1"))


class Paging(SynchronousTestCase):
    def test_cursors(self) -> None:
        self.assertIsNone(decode_cursor("", str))
        self.assertEqual(decode_cursor(encode_cursor("ä", 7), str, int), ("ä", 7))
        for bad in ("x", "!!", "é", encode_cursor(1), encode_cursor("a", 1, 2), "A" * 600):
            with self.assertRaises(ApiError) as caught:
                decode_cursor(bad, str, int)
            self.assertEqual(caught.exception.status, 422)

    def test_versions(self) -> None:
        self.assertEqual(expected_version(['"v12"'], required=True), 12)
        self.assertIsNone(expected_version(["*"], required=True))
        self.assertIsNone(expected_version([], required=False))
        for bad in (["v1"], ['W/"v1"'], ['"v1", "v2"'], ['"v1"', '"v1"'], ['"v٣"'], [""]):
            with self.assertRaises(ApiError):
                expected_version(bad, required=False)
