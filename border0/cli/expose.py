"""`--expose URL`: a service of yours as a socket, its password kept out of every URL.

postgres://user@host[:port]/database, ssh://user@host[:port], http(s)://host[:port] and
tcp://host:port. The password is asked on the terminal or named by a `from:` reference.
"""

import getpass
import json
import re
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from border0.errors import ConfigError
from border0.secrets import is_reference

_DEFAULTS = {"postgres": 5432, "ssh": 22, "http": 80, "https": 443, "tcp": 0}
_TYPES = {"postgres": "database", "ssh": "ssh", "http": "http", "https": "http", "tcp": "tls"}


@dataclass
class Exposed:
    """One service as the home's files need it; `secret` is to be stored, `reference` names it."""

    name: str
    scheme: str
    host: str
    upstream_port: int
    username: str
    database: str
    reference: str
    secret: str | None

    @property
    def socket_type(self) -> str:
        """Border0's word for the kind of service."""
        return _TYPES[self.scheme]

    @property
    def port(self) -> int:
        """The service's port inside the tunnel: what clients take for the protocol."""
        return {"https": 80}.get(self.scheme, _DEFAULTS[self.scheme] or self.upstream_port)

    def map_entry(self) -> str:
        """What the client's file adds."""
        return 'protocol = "postgres"\n' if self.scheme == "postgres" else ""

    def configuration(self) -> dict[str, Any]:
        """The `upstream_configuration` of the socket as an object; holds what `toml` says."""
        found: dict[str, Any] = tomllib.loads(self.toml())["socket"]["upstream_configuration"]
        return found

    def toml(self) -> str:
        """The `upstream_configuration` of the socket."""
        kind = self.socket_type
        lines = ["[socket.upstream_configuration]", f'service_type = "{kind}"']
        root = f"socket.upstream_configuration.{kind}_service_configuration"
        lines += [f"[{root}]", f'{kind}_service_type = "standard"']
        lines += [f"[{root}.standard_{kind}_service_configuration]"]
        lines += [f"hostname = {json.dumps(self.host)}", f"port = {self.upstream_port}"]
        login = (
            f"{{ username = {json.dumps(self.username)}, password = {json.dumps(self.reference)} }}"
        )
        if self.scheme == "postgres":
            lines += ['protocol = "postgres"', 'authentication_type = "username_and_password"']
            lines += [f"username_and_password_auth_configuration = {login}"]
            if self.database:
                lines += [f"database_name = {json.dumps(self.database)}"]
        elif self.scheme == "ssh":
            lines += ['ssh_authentication_type = "username_and_password"']
            lines += ['host_key_policy = "first-use"']
            lines += [f"username_and_password_auth_configuration = {login}"]
        elif self.scheme in ("http", "https"):
            lines += [f'scheme = "{self.scheme}"']
        return "\n".join(lines) + "\n"


def parse(
    url: str,
    password: str,
    ask: Callable[[str], str] | None = None,
    option: str = "--expose",
) -> Exposed:
    """Read one URL.

    :param password: a `from:` reference, or "" to ask on the terminal where one is needed.
    :param option: what the URL was given as; for the texts of errors.
    :raises ConfigError: unknown scheme, missing parts, or a password in the URL.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{option} {url}: {error}") from None
    scheme = {"postgresql": "postgres"}.get(parts.scheme, parts.scheme)
    if parts.password is not None:
        shown = url.replace(f":{parts.password}@", "@", 1)
        raise ConfigError(
            "a password inside a URL ends up in shell histories and process lists; "
            f"write {option} {shown} and type it when asked, or add --password from:env:NAME"
        )
    if scheme not in _DEFAULTS:
        known = ", ".join(f"{name}://" for name in _DEFAULTS)
        raise ConfigError(f"{option} {url}: unknown kind of service; this version has {known}")
    if not parts.hostname or (scheme == "tcp" and port is None):
        raise ConfigError(f"{option} {url}: write {scheme}://host:port")
    username = unquote(parts.username or "")
    database = unquote(parts.path.lstrip("/")) if scheme == "postgres" else ""
    reference, secret = "", None
    name = service_name(scheme, database or parts.hostname)
    if scheme in ("postgres", "ssh"):
        if not username:
            raise ConfigError(f"{option} {url}: write {scheme}://user@host")
        if password and not is_reference(password):
            raise ConfigError("--password takes a reference: from:env:NAME or from:file:PATH")
        reference = password or f"from:file:keys/{name}.secret"
        if not password:
            secret = _ask(f"password of {username} at {parts.hostname}: ", ask)
    return Exposed(
        name,
        scheme,
        parts.hostname,
        port or _DEFAULTS[scheme],
        username,
        database,
        reference,
        secret,
    )


def service_name(scheme: str, word: str) -> str:
    """A socket name made of the database or host."""
    text = re.sub(r"[^a-z0-9]+", "-", word.lower()).strip("-") or scheme
    kind = {"postgres": "db", "https": "http"}.get(scheme, scheme)
    return f"{text}-{kind}"[-63:].strip("-")


def _ask(prompt: str, ask: Callable[[str], str] | None) -> str:
    if ask is not None:
        return ask(prompt)
    if not sys.stdin.isatty():
        raise ConfigError(
            "there is no terminal to ask for a password; add --password from:env:NAME"
        )
    return getpass.getpass(prompt)
