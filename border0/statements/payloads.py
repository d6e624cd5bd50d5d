"""What each type of statement says: its members, which are checked one by one.

A member that this table does not know is ignored, unless `critical` names it: then the whole
statement is refused. What the members mean to policy or to a peer is not decided here.
"""

import re
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from border0.statements.envelope import (
    PrivateKey,
    Statement,
    add_signatures,
    decode_base64,
)
from border0.statements.errors import MALFORMED, UNKNOWN_CRITICAL, UNKNOWN_TYPE, StatementError
from border0.statements.text import MAXIMUM_INTEGER, time_text, time_value, write_object
from border0.tables import NAME

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_HASH = re.compile(r"[0-9a-f]{64}")
_IDS = re.compile(rf"(?:{_ID.pattern}\n)*")
_HASHES = re.compile(rf"(?:{_HASH.pattern}\n)*")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_TAG = re.compile(r"[a-z0-9][a-z0-9:._-]{0,62}")
_LINE = re.compile(r"[^\x00-\x1f\x7f]{1,320}")
_HOST_KEY = re.compile(r"[a-z0-9@.-]{1,64} [A-Za-z0-9+/]{16,2000}={0,2}")
_PART = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# The last part has a letter: nothing that somebody could read as an address is a name.
_HOST = re.compile(rf"(?=.{{1,253}}\Z)(?:{_PART}\.)*(?=[a-z0-9-]*[a-z]){_PART}")
_PATH = re.compile(r"(?=.{1,255}\Z)(?:/|(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+)")
_PIN = re.compile(r"sha256:[0-9a-f]{64}")
CHANNEL_BINDINGS = ("tls-exporter", "none")
WEIGHT_LIMIT = 1000
LIVE_LIMIT = 100_000

Check = Callable[[Any], bool]


class Field(NamedTuple):
    """One member: its check, what is expected (for the error), whether it must be there."""

    check: Check
    what: str
    required: bool = True


def _matches(pattern: re.Pattern[str]) -> Check:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _integer(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _list_of(check: Check, low: int, high: int) -> Check:
    def every(value: Any) -> bool:
        return (
            isinstance(value, list)
            and low <= len(value) <= high
            and all(check(item) for item in value)
            and len({str(item) for item in value}) == len(value)
        )

    return every


def _one_of(*words: str) -> Check:
    return lambda value: isinstance(value, str) and value in words


def _bytes(size: int) -> Check:
    return lambda value: decode_base64(value, size) is not None


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_time(value: Any) -> bool:
    try:
        time_value(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_address(value: Any) -> bool:
    try:
        # one text for one address: no zone, no other way to write zeros
        address = ip_address(value) if isinstance(value, str) and "%" not in value else None
        return (
            address is not None
            and str(address) == value
            and getattr(address, "ipv4_mapped", None) is None
        )
    except ValueError:
        return False


def _is_host(value: Any) -> bool:
    return _is_address(value) or _matches(_HOST)(value)


def _is_relay_key(value: Any) -> bool:
    key = decode_base64(value, 32)
    return key is not None and any(key)  # a secret with the key of zeros is everybody's


def _is_key_entry(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) <= {"key", "types", "name"}
        and _bytes(32)(value.get("key"))
        and _list_of(_matches(_WORD), 0, 32)(value.get("types"))
        and ("name" not in value or _matches(_LINE)(value["name"]))
    )


def _is_key_list(value: Any) -> bool:
    if not _list_of(_is_key_entry, 1, 32)(value):
        return False
    keys = {entry["key"] for entry in value}
    # without a key for the next list, this one could never be replaced
    return len(keys) == len(value) and any("signers" in entry["types"] for entry in value)


def _is_live(value: Any) -> bool:
    if not isinstance(value, dict) or "head" in value or "signers" not in value:
        return False
    count = 0
    for type, objects in value.items():
        if not _WORD.fullmatch(type) or not isinstance(objects, dict):
            return False
        count += len(objects)
        if not _all_match(objects, _IDS, 36) or not _all_match(objects.values(), _HASHES, 64):
            return False
    return count <= LIVE_LIMIT


def _all_match(texts: Collection[Any], lines: re.Pattern[str], length: int) -> bool:
    """Whether each is a string of this form and length; a head has too many to ask one by one.

    None of them can be two lines or none: then there would be more lines than texts, or an empty
    one.
    """
    try:
        text = "\n".join(texts) + "\n" if texts else ""
    except TypeError:  # not a string
        return False
    return len(text) == (length + 1) * len(texts) and lines.fullmatch(text) is not None


_id, _line = _matches(_ID), _matches(_LINE)
_ADDRESSES = Field(_list_of(_is_address, 0, 16), "a list of IP addresses, each in its usual form")
_LABEL = Field(_matches(NAME), "a name of a-z, 0-9 and -")

COMMON: Mapping[str, Field] = {
    "org": Field(_id, "a UUID"),
    "id": Field(_id, "a UUID"),
    "revision": Field(_integer(1, MAXIMUM_INTEGER), "an integer from 1"),
    "issued": Field(_is_time, "a time"),
    "expires": Field(_is_time, "a time"),
    "critical": Field(_list_of(_is_text, 0, 64), "a list of names", False),
}
FIELDS: Mapping[str, Mapping[str, Field]] = {
    "node": {
        "role": Field(_one_of("device", "connector"), "device or connector"),
        "name": _LABEL,
        "public_key": Field(_bytes(32), "a WireGuard key in base64"),
        "ssh_host_key": Field(_matches(_HOST_KEY), "a public key as OpenSSH writes it", False),
        "owner": Field(_id, "a UUID", False),
        "tags": Field(_list_of(_matches(_TAG), 1, 64), "a list of tags", False),
        "addresses": _ADDRESSES,
    },
    "socket": {
        "name": _LABEL,
        "addresses": _ADDRESSES,
        "port": Field(_integer(1, 65535), "a port"),
        "socket_type": Field(_matches(_WORD), "a type of socket"),
        "connectors": Field(_list_of(_id, 0, 64), "a list of UUIDs"),
        "configuration_hash": Field(_matches(_HASH), "a SHA-256"),
        "protocol": Field(_matches(_WORD), "a protocol", False),
    },
    "policy": {
        "name": Field(_line, "a name"),
        "version": Field(_integer(1, MAXIMUM_INTEGER), "an integer from 1"),
        "text": Field(_is_text, "the policy's text"),
    },
    "attachment": {"policies": Field(_list_of(_id, 0, 256), "a list of UUIDs")},
    "membership": {
        "email": Field(_line, "an e-mail address", False),
        "groups": Field(_list_of(_id, 0, 1024), "a list of UUIDs"),
        "group_names": Field(_list_of(_line, 0, 1024), "a list of names", False),
        "disabled": Field(_is_bool, "true or false"),
        "kind": Field(_one_of("user", "service_account"), "user or service_account", False),
        "name": Field(_line, "a name", False),
    },
    "relay": {
        "name": _LABEL,
        "names": Field(_list_of(_is_host, 1, 8), "a list of DNS names and IP addresses"),
        "port": Field(_integer(1, 65535), "a port"),
        "path": Field(_matches(_PATH), "a path"),
        "public_key": Field(_is_relay_key, "an X25519 key in base64"),
        "channel_binding": Field(_one_of(*CHANNEL_BINDINGS), " or ".join(CHANNEL_BINDINGS)),
        "weight": Field(_integer(0, WEIGHT_LIMIT), f"an integer from 0 to {WEIGHT_LIMIT}"),
        "drain": Field(_is_bool, "true or false"),
        "region": Field(_matches(NAME), "a name of a-z, 0-9 and -", False),
        "ca": Field(_matches(_PIN), "the pin of an authority", False),
    },
    "head": {"live": Field(_is_live, "hashes by type and id, that of the signers among them")},
    "signers": {"keys": Field(_is_key_list, "a list of keys, one of them for signers")},
}
TYPES = tuple(FIELDS)


def check(statement: Statement) -> None:
    """Whether the payload is one of its type, every member of the right form.

    :raises StatementError: unknown type, unknown critical field, malformed.
    """
    fields = FIELDS.get(statement.type)
    if fields is None:
        raise StatementError(UNKNOWN_TYPE, statement.type)
    body = statement.body
    known = {**COMMON, **fields}
    critical = body.get("critical", [])
    if not COMMON["critical"].check(critical):
        raise StatementError(MALFORMED, f"{statement.type}.critical is not a list of names")
    for name in critical:
        if name not in known:
            raise StatementError(UNKNOWN_CRITICAL, name[:80])
        if name not in body:
            raise StatementError(MALFORMED, f"the critical field {name} is not there")
    for name, field in known.items():
        if name not in body:
            if field.required:
                raise StatementError(MALFORMED, f"{statement.type}.{name} is missing")
        elif not field.check(body[name]):
            raise StatementError(MALFORMED, f"{statement.type}.{name} is not {field.what}")
    _check_together(statement.type, body)


def _check_together(type: str, body: Mapping[str, Any]) -> None:
    if time_value(body["issued"]) >= time_value(body["expires"]):
        raise StatementError(MALFORMED, "it expires before it is issued")
    if type in ("head", "signers") and body["id"] != body["org"]:
        raise StatementError(MALFORMED, f"the id of a {type} is the organisation's")
    if type == "head" and set(body["live"]["signers"]) != {body["org"]}:
        raise StatementError(MALFORMED, "the head names another organisation's signers")
    if type == "node":
        if "owner" in body and "tags" in body:
            raise StatementError(MALFORMED, "a node has an owner or tags, not both")
        if body["role"] == "device" and "owner" not in body and "tags" not in body:
            raise StatementError(MALFORMED, "a device has an owner or tags")
    if type == "membership":
        needed = "name" if body.get("kind") == "service_account" else "email"
        if needed not in body:
            raise StatementError(MALFORMED, f"membership.{needed} is missing")


def draft(
    org: str, id: str, revision: int, issued: float, expires: float, **members: Any
) -> dict[str, Any]:
    """A payload: the members that every type has, then its own; times in Unix seconds."""
    return {
        "org": org,
        "id": id,
        "revision": revision,
        "issued": time_text(issued),
        "expires": time_text(expires),
        **members,
    }


def sign(type: str, payload: Mapping[str, Any] | bytes, *private_keys: PrivateKey) -> Statement:
    """A statement with one signature by each key (Ed25519: 32 bytes or key objects).

    A payload in bytes is signed as it is. A type of this table is checked first, so that nobody
    signs what every reader refuses; another type needs only to be strict JSON.

    :raises ValueError: a payload that readers would refuse, no key, a key of another form.
    """
    if not private_keys:
        raise ValueError("nobody signs")
    raw = payload if isinstance(payload, bytes) else write_object(payload)
    try:
        statement = Statement(type, raw)
        if type in FIELDS:
            check(statement)
        else:
            statement.body  # noqa: B018 (parsing is the check)
        return add_signatures(statement, *private_keys)
    except StatementError as error:
        raise ValueError(f"refused by every reader: {error}") from None


def live(statements: Mapping[tuple[str, str], str]) -> dict[str, dict[str, str]]:
    """The member `live` of a head, from (type, id) -> hash of every live statement."""
    result: dict[str, dict[str, str]] = {}
    for (type, id), digest in sorted(statements.items()):
        if type != "head":
            result.setdefault(type, {})[id] = digest
    return result
