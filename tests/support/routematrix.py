"""What must hold of every route that is put into a table, by role and by organisation.

class Everything(RouteMatrix, ControlPlane):
    def register(self, table, desk):
        some_routes.register(table, desk)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from border0.control.api.principals import PERMISSIONS, PUBLIC, ROLES, SELF
from border0.control.api.routes import TEXT, Handler, Route, Table
from border0.control.store.changes import position
from tests.support.controlplane import ACME, OTHER, UNKNOWN, ControlPlane
from tests.support.rolematrix import Case, cases, named, permitted
from tests.support.web import Response, exchange

if TYPE_CHECKING:
    Base = ControlPlane
else:
    Base = object

# What the text parameters of paths name; what is not here is no object's name.
TEXTS = {
    "user": "user",
    "group": "group",
    "name": "service_account",
    "token_id": "token",
    "token": "token",
    "device": "device",
    "socket": "socket",
    "policy": "policy",
    "connector": "connector",
    "relay": "relay",
}


BAD: tuple[Any, ...] = (
    None,
    "",
    "\0",
    "a\0b",
    "\u2028",
    "\U0001f4a9",
    "x" * 70_000,
    -1,
    10**18,
    10**40,
    1.5,
    True,
    [],
    {},
    ["\0"],
    [[]],
    {"\0": {"x": []}},
)


class CountingTable(Table):
    """Counts the handlers that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.ran = 0

    def route(self, method: str, path: str, **more: Any) -> Callable[[Handler], Handler]:
        """Register a handler that counts."""
        inner = super().route(method, path, **more)

        def register(handler: Handler) -> Handler:
            @wraps(handler)
            def counted(call: Any) -> object:
                self.ran += 1
                return handler(call)

            return inner(counted)

        return register


class RouteMatrix(Base):
    """Mix this in before `ControlPlane`; `least` is how many routes there must be."""

    least = 1
    deeper: frozenset[str] = frozenset()
    """Routes whose handler refuses what is in the example body to some who may call it."""

    def new_table(self) -> Table:
        self.counting = CountingTable()
        return self.counting

    def setUp(self) -> None:
        super().setUp()
        self.assertGreaterEqual(len(self.table.routes), self.least)
        self.number = 0

    def one(self, kind: str, org: str = ACME) -> str:
        self.number += 1
        return self.make(kind, org, f"thing-{self.number}")

    def own(self, kind: str) -> str:
        return self.one(kind)

    def cases(self) -> list[Case]:
        """Every route with own ids, and with one foreign id at each place for one."""
        foreign: dict[str, str] = {}

        def theirs(kind: str) -> str:
            if kind not in foreign:
                foreign[kind] = self.one(kind, OTHER)
            return foreign[kind]

        return list(cases(self.table, self.own, theirs))

    def ask(self, case: Case, who: str) -> tuple[Response, int]:
        """The answer, and how many handlers ran."""
        self.clock.advance(120.0)
        before = self.counting.ran
        headers = [("If-Match", "*")] if case.route.versioned else []
        response = exchange(
            self.site,
            case.route.method,
            case.path,
            value=case.body,
            token=who,
            headers=headers,
        )
        return response, self.counting.ran - before

    def check_permitted(self, case: Case, response: Response, ran: int, label: str) -> None:
        if response.status == 403 and ran and case.route.name in self.deeper:
            return
        self.assertNotIn(response.status, (401, 403, 405, 500, 503, 0), label)

    def test_roles(self) -> None:
        for role in ROLES:
            for case in self.cases():
                if case.foreign:
                    continue
                response, ran = self.ask(case, f"{role}@acme")
                label = f"{role}: {case.route.name}: {response.raw!r}"
                if permitted(self.table, case.route, role):
                    self.check_permitted(case, response, ran, label)
                else:
                    self.assertEqual((response.status, ran), (403, 0), label)

    def test_roles_with_names(self) -> None:
        """As above where the path takes an id or a name: here it is an id."""
        for role in ROLES:
            for route, kind in self.texts():
                case = named(self.table, route, self.own, self.one(kind))
                response, ran = self.ask(case, f"{role}@acme")
                label = f"{role}: {case.route.name}: {response.raw!r}"
                if permitted(self.table, route, role):
                    self.check_permitted(case, response, ran, label)
                else:
                    self.assertEqual((response.status, ran), (403, 0), label)

    def test_nobody(self) -> None:
        for case in self.cases():
            for token in ("", "b0s_nonsense"):
                response, ran = self.ask(case, token)
                if case.route.permission != PUBLIC:
                    self.assertEqual((response.status, ran), (401, 0), case.route.name)

    def test_scopes_only_narrow(self) -> None:
        without = {
            permission: self.as_token("service@acme", *(set(PERMISSIONS) - {permission}))
            for permission in PERMISSIONS
        }
        narrow = self.as_token("owner@acme", "no.permission")
        for case in self.cases():
            permission = case.route.permission
            if permission in (PUBLIC, SELF):
                continue
            for token in (without[permission], narrow):
                response, ran = self.ask(case, token)
                self.assertEqual((response.status, ran), (403, 0), case.route.name)

    def test_a_foreign_id_anywhere_is_refused_before_the_handler(self) -> None:
        found = self.cases()
        before = self.read(lambda connection: position(connection, OTHER))
        for case in found:
            if not case.foreign:
                continue
            for role in ROLES:
                response, ran = self.ask(case, f"{role}@acme")
                label = f"{role}: {case.route.name} {case.foreign}: {response.raw!r}"
                self.assertEqual(ran, 0, label)
                if not permitted(self.table, case.route, role):
                    expected = 403
                else:
                    expected = 404 if case.foreign.startswith("path:") else 422
                self.assertEqual(response.status, expected, label)
        self.assertEqual(self.read(lambda connection: position(connection, OTHER)), before)

    def test_a_foreign_id_or_name_in_a_path_is_not_there(self) -> None:
        for route, kind in self.texts():
            # All is refused, so the same objects serve every question of a route.
            own = cache(self.own)
            number = self.number + 1
            foreign = self.one(kind, OTHER)
            names = [foreign] if kind == "token" else [foreign, f"thing-{number}"]
            before = self.read(lambda connection: position(connection, OTHER))
            for role in ROLES:
                for name in names:
                    label = f"{role}: {route.name}"
                    shown = self.refusal(named(self.table, route, own, name), role)
                    unknown = UNKNOWN if name == foreign else "nobody-has-this-name"
                    other = self.refusal(named(self.table, route, own, unknown), role)
                    self.assertEqual(shown, other, label)
                    allowed = permitted(self.table, route, role)
                    self.assertIn(shown[0], (404, 422) if allowed else (403,), label)
            after = self.read(lambda connection: position(connection, OTHER))
            self.assertEqual(after, before, route.name)

    def test_bad_values_are_no_errors_of_the_server(self) -> None:
        for case in self.cases():
            if case.foreign or case.body is None:
                continue
            for field in case.body:
                for bad in BAD:
                    body = {**case.body, field: bad}
                    response, _ = self.ask(case._replace(body=body), "owner@acme")
                    label = f"{case.route.name} {field}={str(bad)[:40]!r}: {response.raw!r}"
                    self.assertNotIn(response.status, (500, 503, 0), label)
            for body in ([], None, "x", 1, [case.body]):
                response, _ = self.ask(case._replace(body=body), "owner@acme")
                self.assertIn(response.status, (400, 415, 422), case.route.name)

    def test_bad_queries_are_no_errors_of_the_server(self) -> None:
        for case in self.cases():
            if case.foreign or case.route.query is None:
                continue
            path = case.path.partition("?")[0]
            for field in case.route.query.__struct_fields__:
                for bad in ("", "%00", "%ff", "%f0%9f%92%a9", "'", "-1", "9" * 40, "x" * 2000):
                    asked = case._replace(path=f"{path}?{field}={bad}")
                    response, _ = self.ask(asked, "owner@acme")
                    label = f"{asked.path[:80]}: {response.raw!r}"
                    self.assertNotIn(response.status, (500, 503, 0), label)

    def refusal(self, case: Case, role: str) -> tuple[int, Any]:
        response, _ = self.ask(case, f"{role}@acme")
        self.assertGreaterEqual(response.status, 400, f"{role}: {case.route.name}")
        error = response.json()["error"]
        del error["request_id"]
        return response.status, error

    def texts(self) -> list[tuple[Route, str]]:
        """The routes whose path names something by id or name, and what."""
        found = []
        for route in self.table.routes:
            kinds = [
                TEXTS[name] for name, kind in route.parameters if kind == TEXT and name in TEXTS
            ]
            if kinds:
                found.append((route, kinds[0]))
        return found
