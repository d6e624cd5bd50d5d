"""The account of this user at a control plane: that of the home, or of the environment.

BORDER0_BASE_URL and
BORDER0_AUTH_TOKEN (with BORDER0_CA, a pin) take its place for programs. The token of the file is
sent to the server of the file and to no other.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from border0.cli import command
from border0.cli.api import Client, UntrustedError, read_url
from border0.control.account import ADVICE, NAME, Account, load, read_token, save
from border0.errors import Border0Error

__all__ = [
    "NAME",
    "Account",
    "client",
    "contact",
    "current",
    "load",
    "open_client",
    "read_token",
    "save",
]


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
