"""Which policies are attached to which socket; one attachment statement for each socket."""

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select

from border0.control.store.errors import NotFound
from border0.control.store.schema import attachments as table
from border0.control.store.schema import sockets
from border0.control.store.transaction import Tx


def of_socket(connection: Connection, org: str, socket: str) -> list[str]:
    """The ids of a socket's policies."""
    mine = (table.c.org == org, table.c.socket_id == socket)
    query = select(table.c.policy_id).where(*mine).order_by(table.c.policy_id)
    return list(connection.execute(query).scalars())


def of_policy(connection: Connection, org: str, policy: str) -> list[str]:
    """The ids of the sockets that a policy is attached to."""
    mine = (table.c.org == org, table.c.policy_id == policy)
    query = select(table.c.socket_id).where(*mine).order_by(table.c.socket_id)
    return list(connection.execute(query).scalars())


def of_sockets(connection: Connection, org: str, ids: Iterable[str]) -> dict[str, list[str]]:
    """The ids of the policies of each of these sockets, in one question."""
    found: dict[str, list[str]] = {id: [] for id in ids}
    mine = (table.c.org == org, table.c.socket_id.in_(list(found)))
    query = select(table.c.socket_id, table.c.policy_id).where(*mine).order_by(table.c.policy_id)
    for socket, policy in connection.execute(query):
        found[socket].append(policy)
    return found


def of_policies(connection: Connection, org: str, ids: Iterable[str]) -> dict[str, list[str]]:
    """The ids of the sockets of each of these policies, in one question."""
    found: dict[str, list[str]] = {id: [] for id in ids}
    mine = (table.c.org == org, table.c.policy_id.in_(list(found)))
    query = select(table.c.socket_id, table.c.policy_id).where(*mine).order_by(table.c.socket_id)
    for socket, policy in connection.execute(query):
        found[policy].append(socket)
    return found


def attach(tx: Tx, socket: str, policy: str) -> bool:
    """Attach a policy; False when it was attached. BrokenReference: no such socket or policy."""
    if policy in of_socket(tx.connection, tx.org, socket):
        return False
    values = {"org": tx.org, "socket_id": socket, "policy_id": policy}
    tx.connection.execute(insert(table).values(values))
    tx.record("attachment", socket, "update")
    return True


def detach(tx: Tx, socket: str, policy: str) -> bool:
    """Detach a policy; False when it was not attached."""
    mine = (table.c.org == tx.org, table.c.socket_id == socket, table.c.policy_id == policy)
    if not tx.connection.execute(delete(table).where(*mine)).rowcount:
        return False
    tx.record("attachment", socket, "update")
    return True


def all_change(tx: Tx) -> None:
    """Note that what is in force at every socket may change: a policy reaches others than before.

    That is one which is `org_wide`, or names sockets by their tags.
    """
    for socket in tx.connection.execute(select(sockets.c.id).where(sockets.c.org == tx.org)):
        tx.record("attachment", socket[0], "update")


def set_policies(tx: Tx, socket: str, policies: Iterable[str]) -> bool:
    """Attach exactly these policies; False when they were. NotFound: no such socket."""
    mine = (sockets.c.org == tx.org, sockets.c.id == socket)
    if tx.connection.execute(select(sockets.c.id).where(*mine)).one_or_none() is None:
        raise NotFound("socket not found")
    wanted, present = set(policies), set(of_socket(tx.connection, tx.org, socket))
    changed = [attach(tx, socket, one) for one in sorted(wanted - present)]
    changed += [detach(tx, socket, one) for one in sorted(present - wanted)]
    return any(changed)
