"""Which policies are in force at a socket: those attached to it, and the `org_wide` ones.

The order is that of the ids, so that everybody who asks gets the same list; a decision does not
depend on it. Attachments in the store are the direct ones only; when an `org_wide` policy comes or
goes, the store records a change of every socket's attachment.
"""

from collections.abc import Iterable

from sqlalchemy import Connection

from border0.control.store import attachments, policies
from border0.control.store.errors import Exhausted

ATTACHED_LIMIT = 200
"""Most policies attached to one socket."""
EVERYWHERE_LIMIT = 50
"""Most `org_wide` policies; with the attached ones they fit into one attachment statement."""


def effective_policies(connection: Connection, org: str, socket_id: str) -> list[str]:
    """The ids of the policies in force at a socket."""
    return effective_by_socket(connection, org, (socket_id,))[socket_id]


def effective_by_socket(
    connection: Connection, org: str, socket_ids: Iterable[str]
) -> dict[str, list[str]]:
    """`effective_policies` of as many sockets as a page has, by socket."""
    wide = set(policies.everywhere(connection, org))
    attached = attachments.of_sockets(connection, org, socket_ids)
    return {socket: sorted(wide.union(own)) for socket, own in attached.items()}


def check_limits(connection: Connection, org: str, socket_ids: Iterable[str] = ()) -> None:
    """Refuse more policies than one attachment statement holds; ask after a change.

    :param socket_ids: the sockets that something was attached to.
    :raises Exhausted: too many at one of these sockets, or too many `org_wide` ones.
    """
    if any(
        len(own) > ATTACHED_LIMIT
        for own in attachments.of_sockets(connection, org, socket_ids).values()
    ):
        raise Exhausted(f"a socket has at most {ATTACHED_LIMIT} policies attached")
    if len(policies.everywhere(connection, org)) > EVERYWHERE_LIMIT:
        raise Exhausted(f"an organisation has at most {EVERYWHERE_LIMIT} org_wide policies")
