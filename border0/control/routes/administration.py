"""All routes about who and what belongs to an organisation, registered at once."""

from border0.control.api.routes import Table
from border0.control.routes import (
    account_tokens,
    devices,
    enrolment_keys,
    groups,
    invites,
    organisation,
    own_tokens,
    service_accounts,
    users,
)
from border0.control.routes.desk import Desk
from border0.control.routes.joining import Address
from border0.control.signin.tokens import Tokens


def register(table: Table, desk: Desk, *, tokens: Tokens, base_url: str, pin: str) -> None:
    """Add the routes of users, groups, service accounts, tokens, devices, keys and invites.

    :param tokens: makes the texts of API tokens; they are kept in the store of `desk`.
    :param base_url: where pages and machines find this server, `https://host:port`.
    :param pin: `sha256:…` of a private authority, or "" with a public certificate.
    """
    address = Address(base_url.rstrip("/"), pin)
    organisation.register(table, desk, address=address)
    users.register(table, desk, base_url=base_url)
    groups.register(table, desk)
    service_accounts.register(table, desk)
    account_tokens.register(table, desk, tokens=tokens)
    own_tokens.register(table, desk, tokens=tokens)
    devices.register(table, desk)
    enrolment_keys.register(table, desk, address=address)
    invites.register(table, desk, address=address)
