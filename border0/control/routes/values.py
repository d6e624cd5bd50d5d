"""Fields that bodies and answers of several routes share: names, texts, times, pages.

Times are seconds since 1970 inside, RFC 3339 texts (UTC) in answers; a body may give either.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import msgspec

from border0.audit.events import timestamp
from border0.control.api.errors import invalid
from border0.control.api.paging import Page
from border0.control.api.schema import is_id, refers, whole
from border0.control.store import rows
from border0.tables import NAME, NAME_FORM

R = TypeVar("R")
V = TypeVar("V")

LATEST = 253_402_300_799
"""The last second of the year 9999."""

Name = Annotated[str, msgspec.Meta(max_length=63, pattern=whole(NAME.pattern, NAME_FORM))]
"""What a machine or a service account may be called: a DNS label."""
_LABEL = whole(
    r"[^\W_](?:[\w .@+&/()-]*[\w.@+)])?", "use letters, digits, spaces and . @ + & / ( ) _ -"
)
Label = Annotated[str, msgspec.Meta(max_length=63, pattern=_LABEL)]
"""A name that people read: no control character, no space at its ends."""
Title = Annotated[str, msgspec.Meta(max_length=200, pattern=whole(r"[^\x00-\x1f\x7f]*"))]
"""One line, perhaps empty."""
_PART = r"[^\s\x00-\x1f\x7f@\"<>,;:\\]+"
_EMAIL = whole(f"{_PART}@{_PART}", "write an address as alice@example.org")
Email = Annotated[str, msgspec.Meta(min_length=3, max_length=200, pattern=_EMAIL)]
Tags = Annotated[list[Name], msgspec.Meta(max_length=32)]
Lookup = Annotated[
    str, msgspec.Meta(min_length=1, max_length=200, pattern=whole(r"[^\x00-\x1f\x7f]+"))
]
"""An id or a unique name that the handler looks up in the caller's organisation."""
UserId = Annotated[str, refers("user")]
Moment = Annotated[int, msgspec.Meta(ge=0, le=LATEST)] | Annotated[str, msgspec.Meta(max_length=40)]
"""Seconds since 1970, or an RFC 3339 text."""


class Owner(msgspec.Struct, forbid_unknown_fields=True):
    """A user, as what belongs to them names them."""

    id: str
    email: str


def time_text(seconds: float | None) -> str | None:
    """RFC 3339, or None."""
    return None if seconds is None else timestamp(seconds)


def seconds_of(moment: int | str, field: str) -> float:
    """Seconds since 1970.

    :raises ApiError: 422, a text that is no RFC 3339 time with its offset.
    """
    if isinstance(moment, int):
        return float(moment)
    try:
        parsed = datetime.fromisoformat(moment)
        if parsed.tzinfo is None:
            raise ValueError
        seconds = parsed.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        message = "write a time as 2027-01-31T12:00:00Z or in seconds since 1970"
        raise invalid(field, message) from None
    if not 0 <= seconds <= LATEST:
        raise invalid(field, "the time is out of range")
    return seconds


def proper_name(name: str, field: str = "name") -> str:
    """The name, unless it could be taken for an id.

    :raises ApiError: 422, it is written like an id.
    """
    if is_id(name):
        raise invalid(field, "a name is not written like an id")
    return name


def listing(found: rows.Page[R], show: Callable[[R], V]) -> Page[V]:
    """The answer of a listing."""
    return Page([show(one) for one in found.items], found.after)


def state(used: bool, revoked: float | None, expires: float, now: float) -> str:
    """What has become of a key or an invite: live, used, expired or revoked."""
    if revoked is not None:
        return "revoked"
    if used:
        return "used"
    return "expired" if expires <= now else "live"
