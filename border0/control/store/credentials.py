"""What a local user proves who they are with: a password's hash, a TOTP secret, recovery codes.

Hashes and secrets are stored as they are given: argon2id and sealing are sign-in's business. The
last TOTP step rises in the database, so a code works once even with two processes.
"""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, insert, select, update

from border0.control.store.errors import NotFound
from border0.control.store.rows import check_values
from border0.control.store.schema import credentials as table
from border0.control.store.schema import users
from border0.control.store.transaction import Tx


@dataclass(frozen=True)
class Credential:
    """One user's credentials; an empty hash matches no password."""

    org: str
    user_id: str
    login: str | None
    password_hash: str = field(repr=False)
    totp_secret: bytes | None = field(repr=False)
    totp_step: int
    recovery_hashes: list[str] = field(repr=False)
    version: int
    created: float
    updated: float


def get(connection: Connection, org: str, user: str) -> Credential:
    """A user's credentials; NotFound when there are none."""
    mine = (table.c.org == org, table.c.user_id == user)
    row = connection.execute(select(table).where(*mine)).one_or_none()
    if row is None:
        raise NotFound("credential not found")
    return Credential(**row._mapping)


def set_password(tx: Tx, user: str, password_hash: str) -> Credential:
    """Store a password's hash; BrokenReference when there is no such user."""
    return _put(tx, user, {"password_hash": password_hash})


def set_totp(tx: Tx, user: str, secret: bytes | None, recovery_hashes: list[str]) -> Credential:
    """Store a TOTP secret and recovery codes' hashes, or take both away (None, [])."""
    return _put(tx, user, {"totp_secret": secret, "recovery_hashes": recovery_hashes})


def set_up(
    tx: Tx,
    user: str,
    *,
    login: str,
    password_hash: str,
    totp_secret: bytes | None,
    totp_step: int,
    recovery_hashes: list[str],
) -> Credential:
    """All that a local user signs in with, at once.

    :param login: what they type, lower case; unique in all organisations.
    :raises Duplicate: (`login`) somebody has this login.
    :raises BrokenReference: there is no such user.
    """
    values: dict[str, Any] = {"login": login, "password_hash": password_hash}
    values |= {"totp_secret": totp_secret, "totp_step": totp_step}
    return _put(tx, user, {**values, "recovery_hashes": recovery_hashes})


def rename(tx: Tx, user: str, old: str, new: str) -> bool:
    """Let a user who signs in as `old` do so as `new`; False for one who signs in otherwise.

    :raises Duplicate: (`login`) somebody has this login.
    """
    mine = (table.c.org == tx.org, table.c.user_id == user, table.c.login == old)
    check_values({"login": new})
    renamed = bool(tx.connection.execute(update(table).where(*mine).values(login=new)).rowcount)
    if renamed:
        tx.record("credential", user, "update")
    return renamed


def spend_totp(tx: Tx, user: str, step: int) -> bool:
    """Note that the code of this 30-second step was used; False when it or a later one was."""
    mine = (table.c.org == tx.org, table.c.user_id == user, table.c.totp_step < step)
    return bool(tx.connection.execute(update(table).where(*mine).values(totp_step=step)).rowcount)


def spend_recovery(tx: Tx, user: str, code_hash: str) -> bool:
    """Use up a recovery code; False when there is none with this hash."""
    found = get(tx.connection, tx.org, user)
    if code_hash not in found.recovery_hashes:
        return False
    rest = [one for one in found.recovery_hashes if one != code_hash]
    mine = (table.c.org == tx.org, table.c.user_id == user, table.c.version == found.version)
    values = {"recovery_hashes": rest, "version": found.version + 1, "updated": tx.now}
    return bool(tx.connection.execute(update(table).where(*mine).values(values)).rowcount)


def _put(tx: Tx, user: str, values: dict[str, Any]) -> Credential:
    check_values(values)
    mine = (table.c.org == tx.org, table.c.user_id == user)
    stamped = {**values, "version": table.c.version + 1, "updated": tx.now}
    query = update(table).where(*mine).values(stamped).returning(*table.c)
    row = tx.connection.execute(query).one_or_none()
    if row is None:
        fresh: dict[str, Any] = {
            "org": tx.org,
            "user_id": user,
            "login": None,
            "password_hash": "",
            "totp_secret": None,
        }
        fresh |= {"totp_step": 0, "recovery_hashes": [], "version": 1}
        fresh |= {"created": tx.now, "updated": tx.now, **values}
        row = tx.connection.execute(insert(table).values(fresh).returning(*table.c)).one()
        tx.record("credential", user, "create")
    else:
        tx.record("credential", user, "update")
    return Credential(**row._mapping)


def an_owner_signs_in(connection: Connection, org: str) -> bool:
    """Whether some owner, who is not disabled, has a password."""
    query = (
        select(table.c.user_id)
        .join(users, (users.c.org == table.c.org) & (users.c.id == table.c.user_id))
        .where(
            table.c.org == org,
            table.c.password_hash != "",
            users.c.role == "owner",
            users.c.disabled.is_(False),
        )
        .limit(1)
    )
    return connection.execute(query).one_or_none() is not None
