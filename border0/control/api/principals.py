"""Who asks, and what the roles permit.

A permission is `noun.verb`. A role permits a fixed set; a token's scopes can only narrow it. Two
words stand for routes that need no permission of a role: `PUBLIC` (nobody need be signed in) and
`SELF` (anybody who is).
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

ROLES = ("owner", "admin", "auditor", "member", "service")
PUBLIC = "public"
SELF = "self"
_PERMISSION = re.compile(r"[a-z][a-z_]{0,39}\.[a-z][a-z_]{0,39}")

_READERS = frozenset(("owner", "admin", "auditor", "service"))
_WRITERS = frozenset(("owner", "admin", "service"))
_EVERYONE = frozenset(ROLES)
_OWNER = frozenset(("owner",))

PERMISSIONS: Mapping[str, frozenset[str]] = {
    "organisation.read": _EVERYONE,
    "organisation.write": _OWNER,
    "role.write": _OWNER,
    "user.read": _READERS,
    "user.write": _WRITERS,
    "group.read": _READERS,
    "group.write": _WRITERS,
    "service_account.read": _READERS,
    "service_account.write": frozenset(("owner", "admin")),
    "token.read": _READERS,
    "token.write": frozenset(("owner", "admin")),
    "token.own": frozenset(("owner", "admin", "auditor", "member")),
    "enrolment_key.read": _READERS,
    "enrolment_key.write": _WRITERS,
    "invite.read": _READERS,
    "invite.write": _WRITERS,
    "device.read": _READERS,
    "device.write": _WRITERS,
    "device.approve": _WRITERS,
    "device.own": frozenset(("owner", "admin", "auditor", "member")),
    "connector.read": _READERS,
    "connector.write": _WRITERS,
    "relay.read": _EVERYONE,
    "relay.keys": _READERS,
    "relay.write": _WRITERS,
    "socket.read": _READERS,
    "socket.write": _WRITERS,
    "socket.use": _EVERYONE,
    "policy.read": _READERS,
    "policy.write": _WRITERS,
    "policy.explain": _READERS,
    "session.read": _READERS,
    "session.kill": _WRITERS,
    "session.own": frozenset(("owner", "admin", "auditor", "member")),
    "recording.read": frozenset(("owner", "auditor")),
    "audit.read": _READERS,
}
"""Which roles have which permission. A service account never gives out access of its own kind."""


class Principal(NamedTuple):
    """An authenticated caller.

    `via` is `session` (a browser's cookie) or `token`. `scopes` is None where only the role
    limits. `csrf` is what a browser must send back with each change.
    """

    org: str
    id: str
    name: str
    role: str
    via: str
    scopes: frozenset[str] | None = None
    csrf: str = ""
    credential: str = ""

    def __repr__(self) -> str:
        return f"Principal(org={self.org!r}, id={self.id!r}, role={self.role!r}, via={self.via!r})"

    @property
    def key(self) -> str:
        """One text for rate limits and idempotency keys."""
        return f"{self.org}/{self.role}/{self.id}"


def is_permission(text: str) -> bool:
    """Whether `text` has the form `noun.verb`."""
    return _PERMISSION.fullmatch(text) is not None


def permits(
    principal: Principal, permission: str, permissions: Mapping[str, frozenset[str]] = PERMISSIONS
) -> bool:
    """Whether the caller's role and, if there are any, scopes give `permission`."""
    if permission in (PUBLIC, SELF):
        return True
    if principal.role not in permissions.get(permission, frozenset()):
        return False
    if principal.role == "service" and principal.scopes is None:
        return False  # a service account has what its scopes name and nothing else
    return principal.scopes is None or permission in principal.scopes


def excess(
    principal: Principal,
    scopes: Iterable[str],
    permissions: Mapping[str, frozenset[str]] = PERMISSIONS,
) -> list[str]:
    """Which of `scopes` the caller may not give to a service account's token.

    Nobody gives what they do not have, and nothing that a service account may not hold.
    """
    return sorted(
        scope
        for scope in set(scopes)
        if "service" not in permissions.get(scope, frozenset())
        or not permits(principal, scope, permissions)
    )
