"""What a socket leads to: Border0's `upstream_configuration`, read strictly.

Source: the public SDK's field names (borderzero/border0-go, types/service/*). `tls_mode`,
`database_name` and `ca_certificate` beside `username_and_password` are additions. Service types
that this version does not serve are refused with the list of those it does.
"""

from dataclasses import dataclass
from pathlib import Path

from border0.connector.http import read_http
from border0.connector.ssh import read_ssh
from border0.errors import ConfigError
from border0.proxies.http.upstream import FileServer, HttpUpstream
from border0.proxies.postgres.upstream import PostgresUpstream
from border0.proxies.ssh.upstream import BuiltinSSH, SSHUpstream
from border0.secrets import Secret, resolve
from border0.tables import Table

TLS_MODES = ("disable", "prefer", "require", "verify-full")


@dataclass
class TcpUpstream:
    """Any TCP server; bytes pass as they are."""

    host: str
    port: int


Upstream = PostgresUpstream | TcpUpstream | HttpUpstream | FileServer | SSHUpstream | BuiltinSSH
DEFAULT_PORTS = {"postgres": 5432, "http": 80, "ssh": 22}


def read_upstream(
    table: Table, socket_type: str, allowed: frozenset[str] = frozenset()
) -> tuple[Upstream, int]:
    """The upstream of one socket and the socket's default port.

    :param allowed: the built-in services that this machine's owner permits.
    :raises ConfigError: unknown or missing keys, types not served, unresolved references.
    """
    known = ("database", "http", "ssh", "tls")
    service_type = table.choice("service_type", known, socket_type)
    if service_type != socket_type:
        raise table.error(
            f"service_type {service_type!r} does not fit socket_type {socket_type!r}",
            "service_type",
        )
    inner = table.table(f"{service_type}_service_configuration")
    table.close()
    if service_type == "http":
        return read_http(inner, allowed), DEFAULT_PORTS["http"]
    if service_type == "ssh":
        return read_ssh(inner, allowed), DEFAULT_PORTS["ssh"]
    upstream = _database(inner) if service_type == "database" else _tls(inner)
    default = DEFAULT_PORTS["postgres"] if isinstance(upstream, PostgresUpstream) else upstream.port
    return upstream, default


def _tls(table: Table) -> TcpUpstream:
    kind = table.choice("tls_service_type", ("standard",), "standard")
    inner = table.table(f"{kind}_tls_service_configuration")
    table.close()
    upstream = TcpUpstream(inner.text("hostname"), inner.number("port", 1, 65535))
    inner.close()
    return upstream


def _database(table: Table) -> PostgresUpstream:
    kind = table.choice("database_service_type", ("standard",), "standard")
    inner = table.table(f"{kind}_database_service_configuration")
    table.close()
    inner.choice("protocol", ("postgres",))
    authentication = inner.choice("authentication_type", ("username_and_password", "tls"))
    name = (
        "tls_auth_configuration"
        if authentication == "tls"
        else "username_and_password_auth_configuration"
    )
    login = inner.table(name)
    upstream = PostgresUpstream(
        host=inner.text("hostname"),
        port=inner.number("port", 1, 65535, 5432),
        username=_secret(login, "username", required=True).reveal(),
        database=inner.text("database_name", "") or None,
    )
    if authentication == "tls":
        upstream.password = _optional(login, "password")
        certificate = _secret(login, "certificate", required=True)
        upstream.certificate = certificate.reveal()
        upstream.key = _secret(login, "key", required=True)
    else:
        upstream.password = _secret(login, "password", required=True)
    authority = _optional(login, "ca_certificate") or _optional(inner, "ca_certificate")
    upstream.ca_certificate = authority.reveal() if authority else None
    default = "verify-full" if authority else "prefer"
    upstream.tls_mode = inner.choice("tls_mode", TLS_MODES, default)
    if authentication == "tls" and upstream.tls_mode == "disable":
        raise inner.error("authentication_type tls needs TLS; remove tls_mode", "tls_mode")
    login.close()
    inner.close()
    return upstream


def _optional(table: Table, key: str) -> Secret | None:
    secret = _secret(table, key, required=False)
    return secret if secret.reveal() else None


def _secret(table: Table, key: str, *, required: bool) -> Secret:
    text = table.text(key) if required else table.text(key, "")
    try:
        return resolve(text, Path(table.file).resolve().parent)
    except ConfigError as error:
        raise table.error(str(error), key) from None
