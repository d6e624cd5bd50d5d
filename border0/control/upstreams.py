"""What the server checks of an upstream configuration before connectors see it, and what it hides.

The form only: the service type, its one configuration, known kinds, sizes, and no reference that
runs a command. Whether an upstream can be served is the connector's word, which knows its machine
and says so by the socket's status.

Source: Border0's public SDK (borderzero/border0-go, types/service/*) for the names.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from border0.control.api.errors import ApiError, invalid
from border0.secrets import is_reference
from border0.tables import nearest

FIELD = "upstream_configuration"
SIZE_LIMIT = 64 * 1024  # bytes of JSON
DEPTH_LIMIT = 8
HIDDEN = "********"
"""What an answer shows in the place of a secret that was given as such."""

_SECRETS = frozenset(
    ("password", "private_key", "key", "aws_secret_access_key", "aws_session_token",
     "credentials_json", "client_secret", "token")
)  # fmt: skip
_KINDS: Mapping[str, tuple[str, ...]] = {
    "database": ("standard", "aws_rds", "gcp_cloudsql", "azure_sql", "aws_documentdb",
                 "mongodb_atlas"),
    "ssh": ("standard", "aws_ssm", "aws_ec2_instance_connect", "kubectl_exec", "docker_exec",
            "connector_built_in_ssh_service"),
    "http": ("standard", "connector_file_server"),
    "tls": ("standard", "vpn", "http_proxy"),
}  # fmt: skip
_PROTOCOLS = ("postgres", "mysql", "mssql", "cockroachdb", "mongodb", "aerospike")
_AUTHENTICATIONS = (
    "username_and_password", "tls", "iam", "sql_authentication", "azure_active_directory_password",
    "azure_active_directory_integrated", "kerberos", "no_auth",
)  # fmt: skip
_SSH_AUTHENTICATIONS = ("username_and_password", "private_key", "border0_certificate")
_PORTS = {
    "postgres": 5432, "mysql": 3306, "mssql": 1433, "ssh": 22, "http": 80, "vnc": 5900,
    "kubernetes": 80,
}  # fmt: skip
SOCKET_TYPES = (
    "database", "http", "ssh", "tls", "vnc", "vpn", "rdp", "kubernetes", "subnet_router",
    "exit_node", "elasticsearch", "snowflake", "aws_s3", "aws_access",
)  # fmt: skip


class Upstream(NamedTuple):
    """A configuration of the right form; `port` is the socket's unless it names another, or 0."""

    configuration: dict[str, Any]
    port: int


def check(socket_type: str, given: Mapping[str, Any]) -> Upstream:
    """The configuration with its service type.

    :raises ApiError: 422 with the field that is wrong.
    """
    if socket_type not in SOCKET_TYPES:
        raise invalid("socket_type", f"{socket_type!r} is not known; {_near(socket_type)}")
    _bounds(given)
    configuration = {"service_type": socket_type, **given}
    if configuration["service_type"] != socket_type:
        raise _wrong("service_type", f"it does not fit the socket_type {socket_type!r}")
    name = f"{socket_type}_service_configuration"
    inner = _table(configuration, name)
    for key in configuration:
        if key not in ("service_type", name):
            raise _wrong(key, f"unknown key; {nearest(key, ['service_type', name])}")
    innermost, protocol = _kind(socket_type, name, inner)
    port = innermost.get("port")
    if port is not None and (type(port) is not int or not 1 <= port <= 65535):
        raise _wrong(name, "a port is a number from 1 to 65535")
    return Upstream(configuration, _PORTS.get(protocol or socket_type, port or 0))


def protocol_of(configuration: Mapping[str, Any]) -> str:
    """The protocol of a database's configuration (`postgres`, …); "" for every other."""
    database = configuration.get("database_service_configuration")
    for value in database.values() if isinstance(database, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("protocol"), str):
            return str(value["protocol"])
    return ""


def shown(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as readers see it: without secrets, but with references to some."""
    copy: dict[str, Any] = _hidden(configuration, "")
    return copy


def kept(given: dict[str, Any], present: Mapping[str, Any]) -> dict[str, Any]:
    """What a change of the configuration sets: `present` where `given` is what was shown of it.

    Otherwise a hidden secret would go to whatever upstream the change names: it must be given
    again.

    :raises ApiError: 422.
    """
    if {"service_type": present.get("service_type"), **given} == shown(present):
        return dict(present)
    refuse_hidden(given)
    return given


def refuse_hidden(given: Mapping[str, Any]) -> None:
    """Take no placeholder for a secret.

    :raises ApiError: 422.
    """
    for path, value in _strings(given, ""):
        if value == HIDDEN:
            raise _wrong(path, "a secret is not shown; give it again, or a reference to it")


def _kind(socket_type: str, name: str, inner: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The innermost table, where the address stands, and a database's protocol."""
    kinds = _KINDS.get(socket_type)
    if kinds is None:
        return inner, ""
    key = f"{socket_type}_service_type"
    kind = _word(inner, f"{name}.{key}", key, kinds, "standard")
    tables = [other for other in inner if other != key]
    for other in tables:
        if not other.endswith("_service_configuration"):
            raise _wrong(f"{name}.{other}", f"unknown key; {nearest(other, [key])}")
    if kind == "connector_built_in_ssh_service" and not tables:
        return {}, ""
    wanted = f"standard_{name}"
    if len(tables) != 1 or (kind == "standard") is not (tables[0] == wanted):
        raise _wrong(name, f"it takes {key} and the one configuration of that kind")
    found = _table(inner, tables[0], f"{name}.")
    path = f"{name}.{tables[0]}"
    protocol = ""
    if socket_type == "database":
        protocol = _word(found, f"{path}.protocol", "protocol", _PROTOCOLS, "")
        kind = "authentication_type"
        _word(found, f"{path}.{kind}", kind, _AUTHENTICATIONS, "no_auth")
    if socket_type == "ssh" and kind == "standard":
        kind = "ssh_authentication_type"
        _word(found, f"{path}.{kind}", kind, _SSH_AUTHENTICATIONS, "")
    if tables[0] == wanted and socket_type in ("database", "ssh", "http", "tls"):
        hostname = found.get("hostname")
        if not isinstance(hostname, str) or not 0 < len(hostname) <= 255:
            raise _wrong(f"{path}.hostname", "it is required, with at most 255 characters")
    return found, protocol


def _bounds(given: Mapping[str, Any]) -> None:
    for path, value in _strings(given, ""):
        if value.strip().startswith("from:cmd"):
            message = "from:cmd is refused: what a control plane sends runs no commands"
            raise _wrong(path, message)
    if len(json.dumps(given, ensure_ascii=False).encode("utf-8", "replace")) > SIZE_LIMIT:
        raise _wrong("", f"it is longer than {SIZE_LIMIT} bytes")


def _strings(value: Any, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every text in a configuration and where it stands."""
    if depth > DEPTH_LIMIT:
        raise _wrong("", "it is nested too deeply")
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _strings(item, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _strings(item, f"{path}[{index}]", depth + 1)


def _hidden(value: Any, key: str) -> Any:
    """A copy; `key` is the one that the value stands under, or its list."""
    if isinstance(value, Mapping):
        # In a list of headers, `key` is a header's name and `value` may be its password.
        secret = {"value"} if key == "headers" else _SECRETS
        return {
            name: HIDDEN if name in secret and _is_secret(item) else _hidden(item, name)
            for name, item in value.items()
        }
    return [_hidden(item, key) for item in value] if isinstance(value, list) else value


def _is_secret(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and not is_reference(value)


def _table(outer: Mapping[str, Any], key: str, prefix: str = "") -> Mapping[str, Any]:
    value = outer.get(key)
    if not isinstance(value, Mapping):
        what = "it is required" if key not in outer else "it must be an object"
        raise _wrong(f"{prefix}{key}", what)
    return value


def _word(
    table: Mapping[str, Any], path: str, key: str, known: tuple[str, ...], default: str
) -> str:
    value = table.get(key, default)
    if not isinstance(value, str) or value not in known:
        text = value if isinstance(value, str) else ""
        raise _wrong(path, f"{text[:64]!r} is not known; {nearest(text[:64], known)}")
    return value


def _near(socket_type: str) -> str:
    return nearest(socket_type[:64], SOCKET_TYPES)


def _wrong(path: str, message: str) -> ApiError:
    return invalid(f"{FIELD}.{path}" if path else FIELD, message)
