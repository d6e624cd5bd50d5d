"""Where a PostgreSQL socket leads to, and what the server is told at start-up.

Source: PostgreSQL documentation, "StartupMessage"; the start-up parameters of libpq.
Pure data and one merge; it dials nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from border0.secrets import Secret


class UpstreamSettings(Protocol):
    """What the proxy reads of an upstream's configuration."""

    host: str
    port: int
    username: str
    password: Secret | None
    database: str | None
    tls_mode: str
    ca_certificate: str | None
    certificate: str | None
    key: Secret | None


@dataclass
class PostgresUpstream:
    """A PostgreSQL server and the credential that only the connector has.

    Certificates and the key are PEM texts; `tls_mode` is disable, prefer, require or verify-full.
    """

    host: str
    port: int
    username: str
    password: Secret | None = field(repr=False, default=None)
    database: str | None = None
    tls_mode: str = "prefer"
    ca_certificate: str | None = None
    certificate: str | None = None
    key: Secret | None = field(repr=False, default=None)


def upstream_parameters(
    client: Mapping[str, str], username: str, database: str, pinned: Mapping[str, str]
) -> dict[str, str]:
    """The start-up parameters for the server.

    :param client: what the client sent; its user and database are replaced.
    :param pinned: what policy insists on; it wins over the client's.
    """
    parameters = {"user": username, "database": database}
    for name, value in client.items():
        if name not in parameters:
            parameters[name] = value
    names = {name.lower(): name for name in parameters}
    for name, value in pinned.items():
        parameters.pop(names.get(name.lower(), ""), None)
        parameters[name] = value
    return parameters
