"""What lets machines in: who a key or an invite may let in, and the command that is printed.

`/enrolment_keys` and `/invites` are built on this; spending them is enrolment's job.
"""

import shlex
from typing import NamedTuple

from sqlalchemy import Connection

from border0.control.api.errors import forbidden, invalid
from border0.control.api.principals import permits
from border0.control.api.routes import Call
from border0.control.routes import people
from border0.control.routes.giving import need
from border0.control.store.users import User


class Address(NamedTuple):
    """Where machines find this control plane.

    :param url: `https://host:port`.
    :param pin: `sha256:…` of a private authority, or "" with a public certificate.
    """

    url: str
    pin: str

    def command(self, role: str, code: str) -> str:
        """What to type on the machine that is to join."""
        noun = "connector" if role == "connector" else "node"
        words = ["border0", noun, "join", self.url, code]
        if self.pin:
            words += ["--ca", self.pin]
        return shlex.join(words)


def check_machine(call: Call, role: str, *, approved: bool) -> None:
    """Refuse a key or an invite for machines that the caller may not let in.

    :raises ApiError: 403.
    """
    need(call, "connector.write" if role == "connector" else "device.write", f"a {role}")
    if approved and role == "device":
        need(call, "device.approve", "a device that needs no approval")


def owner_of(connection: Connection, call: Call, text: str) -> User:
    """The user who will own the device.

    It will act as this user: for somebody else that takes `user.write`, and an owner for an owner.

    :raises ApiError: 422 no such user, 403.
    """
    user = people.named(connection, call.org, text, "user")
    if user.id == call.principal.id:
        return user
    if call.own_only:
        raise forbidden("you may let in devices of your own only")
    need(call, "user.write", "a device of somebody else")
    if user.role == "owner" and not permits(call.principal, "role.write"):
        raise forbidden("only an owner lets in a device of an owner")
    return user


def caller_of(connection: Connection, call: Call) -> User:
    """The caller, as the owner of a device.

    :raises ApiError: 422, a service account owns no devices.
    """
    if call.principal.role == "service":
        raise invalid("user", "say whose device it will be: a service account owns none")
    return people.named(connection, call.org, call.principal.id, "user")
