"""Every route of `/api/v1` but those of sign-in and enrolment, registered at once."""

from border0.control.api.routes import Table
from border0.control.routes import (
    administration,
    audit,
    connector,
    explain,
    policy,
    relay,
    session,
    socket,
)
from border0.control.routes.desk import Desk
from border0.control.signin.tokens import Tokens


def register(table: Table, desk: Desk, *, tokens: Tokens, base_url: str, pin: str) -> None:
    """Add the routes; see `administration.register` for the parameters."""
    for noun in (socket, policy, explain, connector, relay, session, audit):
        noun.register(table, desk)
    administration.register(table, desk, tokens=tokens, base_url=base_url, pin=pin)
