"""Nobody gives more than they have: what a caller may hand to others.

The permission of a route opens it. What is asked for inside (a role, a scope, an approval, a device
that acts for somebody else) is measured against the caller's own permissions, here.
"""

from collections.abc import Iterable

from border0.control.api.errors import forbidden
from border0.control.api.principals import PERMISSIONS, Principal, excess, permits
from border0.control.api.routes import Call

FLOOR = "member"
"""The role that gives access to one's own things only; whoever may make users gives it."""

_MEMBER = frozenset(name for name, roles in PERMISSIONS.items() if "service" in roles)
_READING = frozenset(name for name in _MEMBER if name.endswith((".read", ".explain")))
SERVICE_ROLES = {
    "client": frozenset(("organisation.read", "socket.use")),
    "read_only": _READING | {"socket.use"},
    "member": _READING | {"socket.use", "socket.write", "connector.write", "session.kill"},
    "admin": _MEMBER,
}
"""The most that tokens of a service account with this role may do."""


def need(call: Call, permission: str, what: str) -> None:
    """Refuse what the caller has not this permission for.

    :raises ApiError: 403.
    """
    if not permits(call.principal, permission):
        raise forbidden(f"{what} needs the permission {permission}")


def role_given(principal: Principal, role: str) -> bool:
    """Whether the caller has all that a user's `role` permits, and so may give it."""
    if role == FLOOR:
        return True
    wanted = (name for name, roles in PERMISSIONS.items() if role in roles)
    return all(permits(principal, name) for name in wanted)


def check_role(call: Call, role: str) -> None:
    """Refuse to give a role that permits more than the caller has.

    :raises ApiError: 403.
    """
    if not role_given(call.principal, role):
        raise forbidden(f"the role {role} permits more than you have: ask an owner")


def check_scopes(call: Call, scopes: Iterable[str]) -> None:
    """Refuse to give a service account's token what the caller has not, or no token may have.

    :raises ApiError: 403.
    """
    over = excess(call.principal, scopes)
    if over:
        raise forbidden(f"you may not give {', '.join(over)}")
