"""The set-up link: it makes the first administrator, or gives an invited user a password, once.

There is no default password anywhere. Whoever can read the terminal of the server gets the first
link, which works for 15 minutes; an administrator gets one for a user, to pass on within a day.
"""

import secrets
from typing import NamedTuple

from border0.control.signin.model import SetupLink, SignInState, digest
from border0.secrets import Secret

SECONDS = 15 * 60.0
ACCOUNT_SECONDS = 24 * 3600.0
PATH = "/setup"


class Made(NamedTuple):
    """A link that is not kept yet: the whole address, and what the store keeps of it."""

    address: Secret
    link: SetupLink


def make(
    org: str, base_url: str, now: float, account: str = "", seconds: float | None = None
) -> Made:
    """A new link, to be kept by whoever asks (`storage.keep_link` inside a change).

    :param account: a user of `org` without a password; "" for the first owner.
    :param seconds: how long it works; None: 15 minutes, for a user a day.
    """
    if seconds is None:
        seconds = ACCOUNT_SECONDS if account else SECONDS
    value = secrets.token_urlsafe(32)
    address = Secret(f"{base_url.rstrip('/')}{PATH}?link={value}")
    return Made(address, SetupLink(link_digest(value), org, now + seconds, account))


class SetupLinks:
    """Makes and reads set-up links; `Accounts.create_owner` spends them."""

    def __init__(self, state: SignInState) -> None:
        self._state = state

    async def issue(
        self,
        org: str,
        base_url: str,
        now: float,
        account: str = "",
        seconds: float | None = None,
    ) -> Secret:
        """A new link, whole; earlier ones for the same account end. See `make`."""
        made = make(org, base_url, now, account, seconds)
        await self._state.add_link(made.link)
        return made.address

    async def find(self, value: str, now: float) -> SetupLink | None:
        """The link, if it still works."""
        link = await self._state.link(link_digest(value))
        return link if link is not None and now < link.expires else None


def link_digest(value: str) -> str:
    """What the store keeps of a link."""
    return digest("setup", value)
