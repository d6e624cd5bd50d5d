"""The end of a user's access to the control plane, in the commit that disables or deletes them.

Authentication refuses a disabled user anyway; this makes sure that nothing comes back to life when
they are enabled again, and that no code they know enrols a machine. Live connections through the
network end by the user's membership statement.
"""

from sqlalchemy import delete

from border0.control.store import (
    browser_sessions,
    enrolment_keys,
    invites,
    schema,
    setup_links,
    tokens,
)
from border0.control.store.transaction import Tx


def end_access(tx: Tx, user: str) -> dict[str, int]:
    """End browser sessions, set-up links, device grants, tokens, keys and invites of a user.

    Keys and invites end that enrol for the user or that the user made. Returns how many of each,
    for the audit event.
    """
    grants = schema.device_grants
    approved = delete(grants).where(grants.c.org == tx.org, grants.c.account == user)
    ended = {
        "browser_sessions": browser_sessions.end_all(tx, user),
        "setup_links": setup_links.end_all(tx, user),
        "device_grants": tx.connection.execute(approved).rowcount,
        "tokens": tokens.revoke_all(tx, user_id=user),
    }
    return {name: count for name, count in ended.items() if count} | end_codes(tx, user)


def end_codes(tx: Tx, author: str) -> dict[str, int]:
    """End the keys and invites of a user or service account whose rights are others now.

    Whether they could still make each of them is not asked: they make new ones.
    """
    ended = {
        "enrolment_keys": enrolment_keys.revoke_of(tx, author),
        "invites": invites.revoke_of(tx, author),
    }
    return {name: count for name, count in ended.items() if count}
