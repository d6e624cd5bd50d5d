"""Bodies and queries by type: strict decoding, field errors that help, ids of other objects.

Source: RFC 8259 (JSON), RFC 3986 §3.4 (query). A field that is the id of another object is marked
with its kind (`SocketId = Annotated[str, refers("socket")]`); the table then asks the store, before
the handler runs, whether the caller's organisation has such an object.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from msgspec import inspect

from border0.control.api.errors import ApiError, FieldError, bad_request
from border0.tables import nearest

_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
QUERY_FIELDS = 32
_AT = re.compile(r" - at `(.*)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[([0-9]+|\.\.\.)\]")


_FORMS: dict[str, str] = {}


def whole(pattern: str, form: str = "") -> str:
    """A pattern for `msgspec.Meta` that the whole text must fit.

    :param form: what to write, for people who wrote something else.

    Python's `$` alone would also match before a line feed at the end; JSON Schema's would not.
    """
    made = f"^(?:{pattern})$(?!\\n)"
    if form:
        _FORMS[repr(made)] = form
    return made


UUID_PATTERN = whole(_UUID.pattern, "an id is a lower-case UUID")


class Reference(NamedTuple):
    """An id that somebody sent: the kind of object, the id, and the field it stood in."""

    kind: str
    id: str
    field: str


def refers(kind: str) -> msgspec.Meta:
    """The mark of a field that holds the id of an object of `kind`."""
    return msgspec.Meta(pattern=UUID_PATTERN, extra={"reference": kind})


def document() -> msgspec.Meta:
    """The mark of a field that holds a JSON document of its own, which the handler checks whole.

    Only `Annotated[dict[str, Any], document()]`: a policy, an upstream configuration.
    """
    return msgspec.Meta(extra={"document": True})


def is_id(text: str) -> bool:
    """Whether `text` is a lower-case UUID."""
    return _UUID.fullmatch(text) is not None


def check_type(kind: Any, where: str) -> None:
    """Refuse a body or query type that would let unknown fields pass.

    :raises ValueError: it is no Struct, or one inside it does not forbid unknown fields.
    """
    info = inspect.type_info(kind)
    if not isinstance(info, inspect.StructType):
        raise ValueError(f"{where}: a body or query is a msgspec.Struct")
    for found in _nested(info, set()):
        if isinstance(found, inspect.StructType) and not found.forbid_unknown_fields:
            raise ValueError(f"{where}: {found.cls.__name__} does not forbid unknown fields")
        if isinstance(found, inspect.AnyType | inspect.RawType):
            raise ValueError(f"{where}: a field of any type cannot be checked")


def has_references(kind: Any) -> bool:
    """Whether a value of this type may hold ids of other objects."""
    return any(
        isinstance(found, inspect.Metadata) and "reference" in (found.extra or {})
        for found in _nested(inspect.type_info(kind), set())
    )


def references(value: object, kind: Any) -> list[Reference]:
    """Every id of another object in a decoded `value`."""
    return list(_walk(_described(kind), value, ""))


@cache
def _described(kind: Any) -> inspect.Type:
    """Describing a type takes longer than decoding a body: once for each."""
    return inspect.type_info(kind)


def decode_body(decoder: msgspec.json.Decoder[Any], raw: bytes, kind: Any) -> Any:
    """A checked body.

    :raises ApiError: 400 for what is no JSON, 422 with field and nearest name for the rest.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _field_error(str(error), kind) from None
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise bad_request("the body is not valid JSON") from None


def decode_query(text: str, kind: Any) -> Any:
    """A checked query; every name at most once.

    :raises ApiError: 400 for what is no query, 422 for unknown and wrong fields.
    """
    pairs: list[tuple[str, str]] = []
    if text:
        try:
            pairs = parse_qsl(
                text,
                keep_blank_values=True,
                strict_parsing=True,
                errors="strict",
                max_num_fields=QUERY_FIELDS,
            )
        except ValueError:
            raise bad_request("the query is not well-formed") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise bad_request("a query parameter was given twice")
    if kind is None:
        if fields:
            name = next(iter(fields))
            message = "this route takes no query parameters"
            raise ApiError(422, "invalid", message, fields=[FieldError(name, message)])
        return None
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _field_error(str(error), kind) from None


def _field_error(text: str, kind: Any) -> ApiError:
    at = _AT.search(text)
    path = at[1] if at else "$"
    message = text[: at.start()] if at else text
    prefix = path.removeprefix("$").removeprefix(".")
    unknown, missing = _UNKNOWN.match(message), _MISSING.match(message)
    if unknown:
        names = _names_at(inspect.type_info(kind), path)
        field = _join(prefix, unknown[1][:64])
        message = f"there is no such field; {nearest(unknown[1][:64], names)}"
    elif missing:
        field, message = _join(prefix, missing[1]), "it is required"
    else:
        field = prefix
        message = next((form for made, form in _FORMS.items() if made in message), message)
    shown = f"{field}: {message}" if field else message
    return ApiError(422, "invalid", shown, fields=[FieldError(field, message)])


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _names_at(info: inspect.Type, path: str) -> list[str]:
    """The field names of the struct that a path of msgspec leads to."""
    here: list[inspect.Type] = list(_plain(info))
    for name, _ in _STEP.findall(path):
        following: list[inspect.Type] = []
        for one in here:
            if name and isinstance(one, inspect.StructType):
                for field in one.fields:
                    if field.encode_name == name:
                        following += _plain(field.type)
            elif not name:
                following += [t for child in _children(one) for t in _plain(child)]
        here = following
    structs = [one for one in here if isinstance(one, inspect.StructType)]
    return sorted({field.encode_name for one in structs for field in one.fields})


def _plain(info: inspect.Type) -> Iterator[inspect.Type]:
    if isinstance(info, inspect.Metadata):
        yield from _plain(info.type)
    elif isinstance(info, inspect.UnionType):
        for one in info.types:
            yield from _plain(one)
    else:
        yield info


def _children(info: inspect.Type) -> list[inspect.Type]:
    if isinstance(info, inspect.Metadata):
        return [info.type]
    if isinstance(info, inspect.UnionType):
        return list(info.types)
    if isinstance(info, inspect.StructType):
        return [field.type for field in info.fields]
    if isinstance(info, inspect.DictType):
        return [info.key_type, info.value_type]
    if isinstance(info, inspect.TupleType):
        return list(info.item_types)
    item = getattr(info, "item_type", None)
    return [item] if isinstance(item, inspect.Type) else []


def _nested(info: inspect.Type, seen: set[type]) -> Iterator[inspect.Type]:
    if isinstance(info, inspect.Metadata) and "document" in (info.extra or {}):
        if isinstance(info.type, inspect.DictType):
            return
    if isinstance(info, inspect.StructType):
        if info.cls in seen:
            return
        seen.add(info.cls)
    yield info
    for child in _children(info):
        yield from _nested(child, seen)


def _walk(info: inspect.Type, value: object, where: str) -> Iterator[Reference]:
    if isinstance(info, inspect.Metadata):
        kind = (info.extra or {}).get("reference")
        if kind is not None and isinstance(value, str):
            yield Reference(kind, value, where)
        yield from _walk(info.type, value, where)
    elif isinstance(info, inspect.UnionType):
        for one in info.types:
            yield from _walk(one, value, where)
    elif isinstance(info, inspect.StructType):
        if isinstance(value, info.cls):
            for field in info.fields:
                inner = getattr(value, field.name)
                yield from _walk(field.type, inner, _join(where, field.encode_name))
    elif isinstance(info, inspect.DictType):
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from _walk(info.key_type, key, f"{where}[...]")
                yield from _walk(info.value_type, inner, f"{where}[...]")
    elif isinstance(info, inspect.TupleType):
        if isinstance(value, tuple):
            for index, (one, inner) in enumerate(zip(info.item_types, value, strict=False)):
                yield from _walk(one, inner, f"{where}[{index}]")
    elif isinstance(value, list | tuple | set | frozenset):
        for child in _children(info):
            for index, inner in enumerate(value):
                yield from _walk(child, inner, f"{where}[{index}]")
