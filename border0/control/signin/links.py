"""The set-up link: it makes the first administrator, once, within 15 minutes.

There is no default password anywhere; whoever can read the terminal of the server gets the link.
"""

import secrets

from border0.control.signin.model import SetupLink, SignInState, digest
from border0.secrets import Secret

SECONDS = 15 * 60.0
PATH = "/setup"


class SetupLinks:
    """Makes and reads set-up links; `Accounts.create_owner` spends them."""

    def __init__(self, state: SignInState) -> None:
        self._state = state

    async def issue(self, org: str, base_url: str, now: float) -> Secret:
        """A new link, whole; earlier ones of the organisation end."""
        value = secrets.token_urlsafe(32)
        await self._state.add_link(SetupLink(link_digest(value), org, now + SECONDS))
        return Secret(f"{base_url.rstrip('/')}{PATH}?link={value}")

    async def find(self, value: str, now: float) -> SetupLink | None:
        """The link, if it still works."""
        link = await self._state.link(link_digest(value))
        return link if link is not None and now < link.expires else None


def link_digest(value: str) -> str:
    """What the store keeps of a link."""
    return digest("setup", value)
