"""What a home asks of its own control plane: an owner, codes, and the services it began with.

Each is one commit with its audit event, as if it had come through the API.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from border0.control.api.routes import AuditEntry
from border0.control.routes.desk import audit_line
from border0.control.signin.model import LOCAL_ISSUER
from border0.control.store import (
    attachments,
    audit_events,
    connectors,
    invites,
    policies,
    sockets,
    users,
)
from border0.control.store.store import Store
from border0.control.store.transaction import Tx
from border0.errors import ConfigError

ACTOR = "quickstart"
CODE_SECONDS = 120.0
POLICY = "owner"


@dataclass
class Wanted:
    """What a home begins with; `sockets` are bodies of the API's `POST /socket`."""

    user: str
    sockets: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Wanted":
        """From a file; without one only the user is wanted (`ConfigError` for a damaged one)."""
        try:
            data = json.loads(path.read_bytes())
            return cls(data["user"], data["sockets"])
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(f"{path}: missing or damaged; run border0 quickstart") from None


def _audited(tx: Tx, action: str, target: dict[str, str]) -> None:
    entry = AuditEntry(action, tx.org, ACTOR, ACTOR, "", "", "ok", target, "", "", {})
    audit_events.append(tx, [audit_line(entry, tx)])


async def owner_of(store: Store, org: str, login: str) -> str:
    """The id of the owner whom this home's user is, made at the first start."""

    def make(tx: Tx) -> str:
        page = users.page(tx.connection, org, limit=1000)
        for user in page.items:
            if user.role == "owner":
                return user.id
        user = users.create(
            tx, issuer=LOCAL_ISSUER, subject=login, email=login, name=login, role="owner"
        )
        _audited(tx, "user.create", {"user": user.id, "name": login})
        return user.id

    return await store.change(make, org=org, actor=ACTOR)


async def code(
    store: Store, org: str, kind: str, name: str, user: str = "", wireguard_key: str = ""
) -> str:
    """A one-time code for a connector, or for a device of a user.

    The connector of this name may join again with whatever keys; a device with `wireguard_key`.
    """

    def issue(tx: Tx) -> str:
        payload = {"name": name, "user_id": user, "approved": True, "wireguard_key": wireguard_key}
        known = connectors.find(tx.connection, org, name) if kind == "connector" else None
        if known is not None:
            payload["connector_id"] = known.id
        _, text = invites.issue(tx, kind=kind, expires=tx.now + CODE_SECONDS, payload=payload)
        return text.reveal()

    return await store.change(issue, org=org, actor=ACTOR)


async def provide(store: Store, org: str, owner: str, wanted: Wanted) -> list[str]:
    """Make the services that are wanted and not there, served by this home's connector.

    :return: the names that other services have already; those stay as they are.
    """

    def make(tx: Tx) -> list[str]:
        others = []
        policy = policies.find(tx.connection, org, POLICY)
        if policy is None:
            email = users.get(tx.connection, org, owner).email
            text = json.dumps(owners_policy(email), indent=1)
            policy = policies.create(tx, name=POLICY, text=text, description="quickstart's owner")
            _audited(tx, "policy.create", {"policy": policy.id, "name": POLICY})
        connector = connectors.find(tx.connection, org, "quickstart")
        for body in wanted.sockets:
            if (held := sockets.find(tx.connection, org, body["name"])) is not None:
                if held.upstream_configuration != body["upstream_configuration"]:
                    others.append(held.name)
                continue
            socket = sockets.create(tx, **body)
            if connector is not None:
                sockets.set_connectors(tx, socket.id, None, [connector.id])
            attachments.attach(tx, socket.id, policy.id)
            _audited(tx, "socket.create", {"socket": socket.id, "name": socket.name})
        return others

    return await store.change(make, org=org, actor=owner) if wanted.sockets else []


def owners_policy(email: str) -> dict[str, Any]:
    """Everything but what is not even the owner's habit: databases are read and written."""
    databases = [{"database": "*", "allowed_query_types": ["ReadWrite"]}]
    return {
        "permissions": {
            "database": {"allowed_databases": databases},
            "ssh": {"shell": {}, "exec": {}, "sftp": {}},
            "http": {},
            "tls": {},
        },
        "condition": {"who": {"email": [email]}},
    }
