"""Which policies are in force at a socket: those attached to it and those of the organisation."""

from sqlalchemy import Connection, select

from border0.control.store import attachments
from border0.control.store.schema import policies


def effective_policies(connection: Connection, org: str, socket_id: str) -> list[str]:
    """The ids, sorted."""
    wide = select(policies.c.id).where(policies.c.org == org, policies.c.org_wide.is_(True))
    found = set(attachments.of_socket(connection, org, socket_id))
    return sorted(found | set(connection.execute(wide).scalars()))
