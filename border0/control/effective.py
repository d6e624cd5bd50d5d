"""Which policies are in force at a socket: attached to it, `org_wide`, or chosen by its tags.

The order is that of the ids, so that everybody who asks gets the same list; a decision does not
depend on it. Attachments in the store are the direct ones only; when the reach of another policy or
a socket's tags change, the store records a change of the attachment of each socket concerned.
"""

from collections.abc import Iterable

from sqlalchemy import Connection

from border0.control.store import attachments, policies, sockets
from border0.control.store.errors import Exhausted
from border0.control.tags import meet

ATTACHED_LIMIT = 200
"""Most policies attached to one socket."""
REACHING_LIMIT = 50
"""Most policies that reach sockets otherwise; all together fit into one attachment statement."""


def effective_policies(connection: Connection, org: str, socket_id: str) -> list[str]:
    """The ids of the policies in force at a socket; none where there is no such socket."""
    return effective_by_socket(connection, org, (socket_id,))[socket_id]


def effective_by_socket(
    connection: Connection, org: str, socket_ids: Iterable[str]
) -> dict[str, list[str]]:
    """`effective_policies` of as many sockets as a page has, by socket."""
    found = attachments.of_sockets(connection, org, socket_ids)
    reaching = policies.reaching(connection, org)
    if not reaching:
        return found
    known = sockets.among(connection, org, found)
    for id, socket in known.items():
        others = (p.id for p in reaching if p.org_wide or meet(socket.tags, p.tag_rules))
        found[id] = sorted({*found[id], *others})
    return found


def check_limits(connection: Connection, org: str, socket_ids: Iterable[str] = ()) -> None:
    """Refuse more policies than one attachment statement holds; ask after a change.

    :param socket_ids: the sockets that something was attached to.
    :raises Exhausted: too many at one of these sockets, or too many that reach others.
    """
    attached = attachments.of_sockets(connection, org, socket_ids)
    if any(len(own) > ATTACHED_LIMIT for own in attached.values()):
        raise Exhausted(f"a socket has at most {ATTACHED_LIMIT} policies attached")
    if len(policies.reaching(connection, org)) > REACHING_LIMIT:
        raise Exhausted(
            f"an organisation has at most {REACHING_LIMIT} policies with org_wide or tag_rules"
        )
