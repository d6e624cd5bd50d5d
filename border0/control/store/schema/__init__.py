"""The tables, as SQLAlchemy Core sees them; migrations make them.

Every table of an organisation has its id as the first part of the primary key and of every foreign
key: a row cannot refer to another organisation's row, whatever a program does wrong. Ids are
lower-case UUID text, times are seconds since 1970, structured values are JSON. `version` is the
optimistic version that an update must name.

`Source:` SQLAlchemy 2.1 Core. It runs no statement.
"""

from border0.control.store.schema.base import PASSING, metadata
from border0.control.store.schema.history import (
    audit_events,
    recordings,
    sessions,
)
from border0.control.store.schema.network import (
    addresses,
    connectors,
    devices,
    enrolment_keys,
    relays,
    socket_connectors,
    sockets,
)
from border0.control.store.schema.people import (
    credentials,
    groups,
    invites,
    memberships,
    organisations,
    service_accounts,
    tokens,
    users,
)
from border0.control.store.schema.rules import (
    attachments,
    changes,
    policies,
    policy_versions,
    statements,
)
from border0.control.store.schema.signin import (
    browser_sessions,
    device_grants,
    kept_answers,
    setup_links,
)

__all__ = [
    "PASSING",
    "addresses",
    "attachments",
    "audit_events",
    "browser_sessions",
    "changes",
    "connectors",
    "credentials",
    "device_grants",
    "devices",
    "enrolment_keys",
    "groups",
    "invites",
    "kept_answers",
    "memberships",
    "metadata",
    "organisations",
    "policies",
    "policy_versions",
    "recordings",
    "relays",
    "service_accounts",
    "sessions",
    "setup_links",
    "socket_connectors",
    "sockets",
    "statements",
    "tokens",
    "users",
]
