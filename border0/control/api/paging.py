"""Cursors, versions and pages: how listings are cut and concurrent changes noticed.

Source: RFC 9110 §8.8.3 (ETag), §13.1.1 (If-Match), §13.1.2 (If-None-Match); RFC 6585 §3 (428).
A cursor is the sort key of the last row, opaque to the caller. It grants nothing: whoever forges
one still sees their own organisation only.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Generic, TypeVar

import msgspec

from border0.control.api.errors import ApiError, bad_request, invalid

T = TypeVar("T")
CURSOR_LIMIT = 512
_TAG = re.compile(r'"v([0-9]{1,18})"')


class PageQuery(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The query of every listing."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=200)] = 50
    cursor: Annotated[str, msgspec.Meta(max_length=CURSOR_LIMIT)] = ""


class Page(msgspec.Struct, Generic[T], forbid_unknown_fields=True, omit_defaults=True):
    """One page of a listing; without a `next_cursor` it is the last."""

    items: list[T]
    next_cursor: str = ""


def encode_cursor(*key: str | int | float) -> str:
    """The cursor that stands for a row's sort key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).rstrip(b"=").decode()


def decode_cursor(text: str, *types: type) -> tuple[str | int | float, ...] | None:
    """The sort key in a cursor; None for the first page.

    :param types: the type of each part: str, int or float.
    :raises ApiError: 422, it is none of our cursors.
    """
    if not text:
        return None
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        if len(text) > CURSOR_LIMIT:
            raise ValueError
        raw = base64.b64decode(padded, altchars=b"-_", validate=True)
        shape = tuple[types]  # type: ignore[valid-type]
        key: tuple[str | int | float, ...] = msgspec.json.decode(raw, type=shape)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise invalid("cursor", "this is no cursor of this listing") from None
    return key


def page(rows: Sequence[T], limit: int, key: Sequence[str | int | float] | None) -> Page[T]:
    """A page of at most `limit` of `rows`.

    :param rows: what was read, one more than `limit` where there are more.
    :param key: the sort key of the last row that is shown, if there are more.
    """
    more = len(rows) > limit and key is not None
    return Page(list(rows[:limit]), encode_cursor(*key) if more and key is not None else "")


def etag(version: int) -> str:
    """The entity tag of an object's version."""
    return f'"v{version}"'


def expected_version(values: Sequence[str], *, required: bool) -> int | None:
    """The version that `If-Match` names; None for `*` or where there is none.

    :raises ApiError: 428 where `required` and missing, 400 for what is no tag of ours.
    """
    if not values:
        if required:
            message = "send If-Match with the version's ETag, or * for any"
            raise ApiError(428, "version_required", message)
        return None
    if list(values) == ["*"]:
        return None
    match = _TAG.fullmatch(values[0].strip()) if len(values) == 1 else None
    if match is None:
        raise bad_request('If-Match takes one tag as sent by ETag, for example "v3"')
    return int(match[1])


def is_current(values: Sequence[str], version: int) -> bool:
    """Whether `If-None-Match` names `version`, so that 304 is the whole answer."""
    tags = {part.strip().removeprefix("W/") for part in ",".join(values).split(",")}
    return etag(version) in tags
