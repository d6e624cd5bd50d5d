"""Every route of a table by every role by own and foreign organisation: what must hold of each.

Works for any table: bodies and queries are made from their types.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from msgspec import inspect

from border0.control.api.principals import PUBLIC, ROLES, SELF
from border0.control.api.routes import TEXT, Route, Table

WORDS = ("x", "x@x", "xxxxxxxx", "2027-01-31T12:00:00Z")
"""What stands where a text is asked for: the first that fits."""


class Case(NamedTuple):
    """A request that is right in form; `foreign` names the field that holds a foreign id."""

    route: Route
    path: str
    body: Any
    foreign: str


def cases(table: Table, own: Callable[[str], str], foreign: Callable[[str], str]) -> Iterator[Case]:
    """Per route one request with own ids only, and one for each place where an id may stand."""
    for route in table.routes:
        places: list[str] = []
        made = _make(table, route, own, places)
        yield Case(route, *made, "")
        for place in places:

            def choose(kind: str, here: str, place: str = place) -> str:
                return foreign(kind) if here == place else own(kind)

            yield Case(route, *_make(table, route, choose, []), place)


def permitted(table: Table, route: Route, role: str) -> bool:
    """What the table's permissions say, read independently of the server's own check."""
    if route.permission in (PUBLIC, SELF):
        return True
    assert role in ROLES
    if route.own and role in table.permissions[route.own]:
        return True
    return role in table.permissions[route.permission]


def named(table: Table, route: Route, ids: Callable[[str], str], name: str) -> Case:
    """A request with own ids, and `name` wherever the path takes a text."""
    return Case(route, *_make(table, route, ids, [], lambda parameter: name), "")


def _fits(text: str, info: inspect.StrType) -> bool:
    if len(text) < (info.min_length or 0):
        return False
    return info.pattern is None or re.search(info.pattern, text) is not None


def _make(
    table: Table,
    route: Route,
    ids: Callable[..., str],
    places: list[str],
    texts: Callable[[str], str] = lambda parameter: "x",
) -> tuple[str, Any]:
    def one(kind: str, here: str) -> str:
        places.append(here)
        try:
            return ids(kind, here)
        except TypeError:
            return ids(kind)

    parts = []
    for name, kind in route.segments:
        if not name:
            parts.append(kind)
        else:
            parts.append(texts(name) if kind == TEXT else one(kind, f"path:{name}"))
    path = "/".join((table.prefix, *parts))
    if route.query is not None:
        query = _example(inspect.type_info(route.query), "query", one)
        shown = {k: v for k, v in query.items() if v not in ("", None)}
        path += f"?{urlencode(shown)}" if shown else ""
    body = None
    if route.body is not None:
        body = _example(inspect.type_info(route.body), "body", one)
    return path, body


def _example(info: inspect.Type, here: str, ids: Callable[[str, str], str]) -> Any:
    if isinstance(info, inspect.Metadata):
        if "document" in (info.extra or {}):
            return {}
        kind = (info.extra or {}).get("reference")
        return ids(kind, here) if kind else _example(info.type, here, ids)
    if isinstance(info, inspect.UnionType):
        wanted = [t for t in info.types if not isinstance(t, inspect.NoneType)]
        return _example(wanted[0], here, ids)
    if isinstance(info, inspect.StructType):
        made = {}
        for field in info.fields:
            if field.name == "cursor":
                continue
            if isinstance(field.type, inspect.LiteralType) and field.default in field.type.values:
                made[field.encode_name] = field.default
                continue
            made[field.encode_name] = _example(field.type, f"{here}.{field.name}", ids)
        return made
    if isinstance(info, inspect.DictType):
        key = _example(info.key_type, f"{here}.key", ids)
        return {key: _example(info.value_type, f"{here}.value", ids)}
    if isinstance(info, inspect.ListType | inspect.SetType | inspect.VarTupleType):
        return [_example(info.item_type, f"{here}.item", ids)]
    if isinstance(info, inspect.LiteralType):
        return info.values[0]
    if isinstance(info, inspect.BoolType):
        return False
    if isinstance(info, inspect.IntType):
        return info.ge if info.ge is not None else 1
    if isinstance(info, inspect.FloatType):
        return 1.0
    if isinstance(info, inspect.StrType):
        return next((one for one in WORDS if _fits(one, info)), WORDS[0])
    raise msgspec.ValidationError(f"no example of {info!r}")
