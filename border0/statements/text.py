"""JSON as statements carry it: one meaning for every reader; and times as text.

Source: RFC 7493 (I-JSON) §2: no duplicate names, no lone surrogates, integers that a double can
hold; RFC 3339 §5.6. Stricter than both: numbers are integers, times are UTC with six digits.
It does not know what the members mean.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from border0.statements.errors import MALFORMED, TOO_LARGE, StatementError

MAXIMUM_DEPTH = 8
MAXIMUM_INTEGER = (1 << 53) - 1
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\.(\d{6})Z", re.ASCII)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return members


def _integer(text: str) -> int:
    if len(text) > 17 or not -MAXIMUM_INTEGER <= (value := int(text)) <= MAXIMUM_INTEGER:
        raise ValueError("an integer beyond 2^53 - 1")
    return value


def _refuse(text: str) -> Any:
    raise ValueError(f"{text[:20]} is not an integer")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_integer, parse_float=_refuse, parse_constant=_refuse
)


def parse_object(data: bytes, limit: int) -> dict[str, Any]:
    """The JSON object in `data` (UTF-8, at most `limit` bytes).

    :raises StatementError: too large, or not the one JSON object that every reader would see.
    """
    if len(data) > limit:
        raise StatementError(TOO_LARGE, f"{len(data)} bytes, {limit} are allowed")
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise StatementError(MALFORMED, "not UTF-8") from None
    except RecursionError:
        raise StatementError(MALFORMED, "nested too deeply") from None
    except ValueError as error:
        raise StatementError(MALFORMED, str(error)) from None
    if not isinstance(value, dict):
        raise StatementError(MALFORMED, "not a JSON object")
    _check(value, strings=b"\\u" in data)
    return value


def _check(value: dict[str, Any], *, strings: bool) -> None:
    """Depth and strings; with a list of its own, so that no input can exhaust the stack.

    :param strings: look at them too; half of a surrogate pair needs an escape, never a UTF-8 byte.
    """
    todo: list[tuple[Any, int]] = [(value, 1)]
    while todo:
        item, depth = todo.pop()
        if depth > MAXIMUM_DEPTH:
            raise StatementError(MALFORMED, "nested too deeply")
        members: Any = item
        if isinstance(item, dict):
            members = item.values()
            if strings:
                _check_strings(item)
        if strings:
            _check_strings(members)
        todo += [(each, depth + 1) for each in members if isinstance(each, dict | list)]


def _check_strings(items: Iterable[Any]) -> None:
    for item in items:
        if isinstance(item, str) and not item.isascii():
            if any("\ud800" <= letter <= "\udfff" for letter in item):
                raise StatementError(MALFORMED, "half of a surrogate pair")


def write_object(value: Mapping[str, Any]) -> bytes:
    """`value` as compact JSON in UTF-8; raises ValueError for what JSON cannot say."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None


def time_text(unix: float) -> str:
    """Unix seconds as `2026-11-22T13:05:59.000123Z`; raises ValueError outside years 1-9999."""
    try:
        second, microsecond = divmod(round(unix * 1e6), 1_000_000)
        moment = datetime.fromtimestamp(second, UTC)
    except (OverflowError, OSError, ValueError):
        raise ValueError("a time outside the calendar") from None
    return f"{moment.isoformat()[:19]}.{microsecond:06d}Z"


def time_value(text: str) -> float:
    """The Unix seconds of such a text; raises ValueError."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError("not a time as 2026-11-22T13:05:59.000123Z")
    year, month, day, hour, minute, second, microsecond = map(int, match.groups())
    moment = datetime(year, month, day, hour, minute, second, microsecond, UTC)
    return moment.timestamp()
