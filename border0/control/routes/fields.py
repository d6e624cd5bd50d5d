"""What bodies, queries and answers of several nouns share: names, times, tags, lists."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from sqlalchemy import Connection

from border0.audit.events import timestamp
from border0.control.api.errors import invalid
from border0.control.api.schema import document, is_id, refers, whole
from border0.control.store.errors import NotFound
from border0.tables import NAME, NAME_FORM

T = TypeVar("T")

SocketId = Annotated[str, refers("socket")]
PolicyId = Annotated[str, refers("policy")]
ConnectorId = Annotated[str, refers("connector")]
Name = Annotated[str, msgspec.Meta(pattern=whole(NAME.pattern, NAME_FORM))]
Line = Annotated[str, msgspec.Meta(max_length=255)]
Text = Annotated[str, msgspec.Meta(max_length=4096)]
TimeText = Annotated[str, msgspec.Meta(max_length=40)]
Document = Annotated[dict[str, Any], document()]
Tag = Annotated[str, msgspec.Meta(pattern=whole("[a-z0-9][a-z0-9:._-]{0,62}"))]


class Pagination(msgspec.Struct, forbid_unknown_fields=True):
    """Where a listing in Border0's own form goes on; "" at its end."""

    records_per_page: int
    next_cursor: str


class Listing(msgspec.Struct, Generic[T], forbid_unknown_fields=True):
    """A page in Border0's own form."""

    pagination: Pagination
    items: list[T] = msgspec.field(name="list")


def chosen(
    get: Callable[[Connection, str, str], T],
    find: Callable[[Connection, str, str], T | None],
    what: str,
) -> Callable[[Connection, str, str], T]:
    """A function that finds an object by its id or its name.

    :param what: the noun for `NotFound`. No name looks like an id, see `check_name`.
    """

    def choose(connection: Connection, org: str, text: str) -> T:
        if is_id(text):
            return get(connection, org, text)
        found = find(connection, org, text)
        if found is None:
            raise NotFound(f"{what} not found")
        return found

    return choose


def check_name(name: str, *reserved: str) -> str:
    """The name, if it can stand in a path in the place of an id.

    :raises ApiError: 422.
    """
    if is_id(name) or name in reserved:
        raise invalid("name", "this is no name: it means something else in a path")
    return name


def moment(text: str, field: str) -> float:
    """The Unix seconds of an RFC 3339 time.

    :raises ApiError: 422.
    """
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None or len(text) < 16:
            raise ValueError
        return found.timestamp()
    except (ValueError, OverflowError):
        raise invalid(field, "write a time as 2026-01-31T08:00:00Z") from None


def time_text(at: float | None) -> str | None:
    """A time in an answer."""
    return None if at is None else timestamp(at)


def changed(new: Mapping[str, Any], old: object) -> dict[str, Any]:
    """The members of `new` that the record `old` does not have already."""
    return {name: value for name, value in new.items() if getattr(old, name) != value}
