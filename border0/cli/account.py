"""The account of this user at a control plane: `account.json` in the home, mode 0600.

`{url, ca, authority, token, org, org_name}`; `authority` is the certificate (PEM) that the pin
`ca` stands for, both empty where the system's store decides. BORDER0_BASE_URL and
BORDER0_AUTH_TOKEN (with BORDER0_CA, a pin) take its place for programs. The token of the file is
sent to the server of the file and to no other.
"""

import argparse
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from border0.cli import command
from border0.cli.api import Client, UntrustedError, read_url
from border0.errors import Border0Error, ConfigError
from border0.secrets import Secret

NAME = "account.json"
ADVICE = "no account here; sign in: border0 login URL --ca sha256:..."
_LIMIT = 1 << 20


@dataclass
class Account:
    """Who this user is, and where."""

    url: str
    ca: str
    authority: str
    token: Secret
    org: str = ""
    org_name: str = ""

    @property
    def sign_in(self) -> str:
        """The command that makes this account anew."""
        return f"border0 login {self.url}" + (f" --ca {self.ca}" if self.ca else "")


def client(options: argparse.Namespace, listing: str = "") -> Client:
    """The control plane, as this user.

    :param listing: the command that lists what the caller names, for "no such ...".
    :raises Border0Error: no account; the text says how to get one.
    """
    folder = command.home(options)
    return open_client(folder, current(folder, os.environ), listing)


def open_client(folder: Path, account: Account, listing: str = "") -> Client:
    """The control plane of this account."""
    authority = account.authority.encode("ascii") if account.authority else None
    arguments: dict[str, Any] = {"sign_in": account.sign_in, "listing": listing}
    return _Renewing(folder, account, authority, arguments)


class _Renewing(Client):
    """Reads the authority's certificate anew, by its pin, when the kept one no longer verifies."""

    def __init__(
        self, folder: Path, account: Account, authority: bytes | None, arguments: dict[str, Any]
    ) -> None:
        super().__init__(account.url, authority=authority, token=account.token, **arguments)
        self._folder, self._account, self._arguments = folder, account, arguments

    def request(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().request(*arguments, **options)
        except UntrustedError:
            # An authority renews its certificate with the same key, long before it expires.
            account = self._account
            fresh = contact(account.url, account.ca) if account.ca else ""
            if not fresh or fresh == account.authority:
                raise
            super().__init__(
                account.url,
                authority=fresh.encode("ascii"),
                token=account.token,
                **self._arguments,
            )
            done = super().request(*arguments, **options)
            self._account = replace(account, authority=fresh)
            if (self._folder / NAME).exists() and load(self._folder).ca == account.ca:
                save(self._folder, replace(load(self._folder), authority=fresh))
            return done


def contact(url: str, ca: str) -> str:
    """The authority's certificate (PEM) by its pin; "" without a pin: the system's store decides.

    :raises Border0Error: another server; the text says that nothing was sent to it.
    """
    if not ca:
        return ""
    # Here, so that other commands start without the cryptography.
    from border0.cli.contact import pinned_authority

    _, host, port = read_url(url)
    return pinned_authority(host, port, ca).decode("ascii")


def current(folder: Path, environment: Mapping[str, str]) -> Account:
    """The account of the environment, else of the folder.

    :raises Border0Error: there is none, or the environment names half of one.
    """
    url = environment.get("BORDER0_BASE_URL", "").strip()
    token = environment.get("BORDER0_AUTH_TOKEN", "").strip()
    kept = load(folder) if (folder / NAME).exists() else None
    if not url and not token:
        if kept is None:
            raise Border0Error(ADVICE)
        return kept
    if not url:
        if kept is None:
            raise Border0Error("BORDER0_AUTH_TOKEN needs BORDER0_BASE_URL, the server it is for")
        return replace(kept, token=read_token(token))
    url = read_url(url)[0]
    same = kept is not None and kept.url == url
    if not token:
        if kept is None or not same:
            raise Border0Error(
                f"no token for {url}: set BORDER0_AUTH_TOKEN, or sign in: border0 login {url}"
            )
        return kept
    if kept is not None and same and not environment.get("BORDER0_CA"):
        return replace(kept, token=read_token(token))
    ca = environment.get("BORDER0_CA", "")
    return Account(url, ca, contact(url, ca), read_token(token))


def load(folder: Path) -> Account:
    """The account that is kept in a folder.

    :raises Border0Error: unreadable, open to others, or no account.
    """
    path = folder / NAME
    try:
        mode = path.stat().st_mode
        with path.open("rb") as file:
            raw = file.read(_LIMIT)
    except FileNotFoundError:
        raise Border0Error(ADVICE) from None
    except OSError as error:
        raise Border0Error(f"{path}: {error.strerror}") from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise Border0Error(f"{path} is open to others; run: chmod 600 {path}")
    try:
        data = json.loads(raw)
        fields = {name: str(data.get(name, "")) for name in ("url", "ca", "authority", "token")}
        url = read_url(fields["url"])[0]
        token = read_token(fields["token"])
        org, org_name = str(data.get("org", "")), str(data.get("org_name", ""))
    except (ValueError, AttributeError, RecursionError, ConfigError):
        raise Border0Error(f"{path} is no account; sign in again: border0 login URL") from None
    return Account(url, fields["ca"], fields["authority"], token, org, org_name)


def save(folder: Path, account: Account) -> None:
    """Keep an account, in place of an older one.

    :raises Border0Error: the folder cannot be written.
    """
    data = {
        "url": account.url,
        "ca": account.ca,
        "authority": account.authority,
        "token": account.token.reveal(),
        "org": account.org,
        "org_name": account.org_name,
    }
    path = folder / NAME
    fresh = path.with_suffix(".new")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)  # never one that others made or can read
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(data, indent=1) + "\n")
        os.replace(fresh, path)
    except OSError as error:
        raise Border0Error(
            f"{path}: {error.strerror}; name another folder with --home DIR"
        ) from None


def read_token(text: str) -> Secret:
    """A token as a header takes it; raises ConfigError, without its text."""
    if not text or not all("!" <= c <= "~" for c in text):
        raise ConfigError("this is no token; a token is one word of plain letters and digits")
    return Secret(text)
