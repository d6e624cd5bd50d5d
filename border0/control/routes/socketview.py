"""Sockets as answers show them: what is stored, and what their connectors say now."""

from typing import Any

import msgspec
from sqlalchemy import Connection

from border0.control import upstreams
from border0.control.effective import effective_by_socket
from border0.control.routes.desk import Desk
from border0.control.routes.fields import time_text
from border0.control.store import attachments, connectors, organisations, policies, sockets
from border0.control.store.sockets import Socket
from border0.control.tags import tag_map

DOMAIN = "border0.internal"


class ServingConnector(msgspec.Struct, forbid_unknown_fields=True):
    """A connector that serves a socket."""

    connector_id: str
    name: str
    online: bool


class PolicyInForce(msgspec.Struct, forbid_unknown_fields=True):
    """A policy in force at a socket: attached, `org_wide`, or neither: chosen by its tags."""

    id: str
    name: str
    org_wide: bool
    attached: bool


class SocketAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A socket; `status` is what its connectors say now and is no part of the version."""

    socket_id: str
    name: str
    display_name: str
    description: str
    socket_type: str
    port: int
    tags: dict[str, str]
    recording_enabled: bool
    connector_ids: list[str]
    connectors: list[ServingConnector]
    policies: list[PolicyInForce]
    upstream_configuration: dict[str, Any]
    private_network_ipv4: str
    private_network_ipv6: str
    dnsname: str
    status: str
    version: int
    created_at: str | None
    updated_at: str | None


def describe(connection: Connection, org: str, found: list[Socket]) -> list[SocketAnswer]:
    """Sockets as answers, in a few questions for all; what is live comes later, see `live`."""
    ids = [one.id for one in found]
    serving = sockets.connectors_of(connection, org, ids)
    names = connectors.among(connection, org, {one for some in serving.values() for one in some})
    attached = attachments.of_sockets(connection, org, ids)
    in_force = effective_by_socket(connection, org, ids)
    known = policies.among(connection, org, {one for some in in_force.values() for one in some})
    domain = f"{organisations.get(connection, org).name}.{DOMAIN}"
    return [
        SocketAnswer(
            socket_id=one.id,
            name=one.name,
            display_name=one.display_name,
            description=one.description,
            socket_type=one.socket_type,
            port=one.port,
            tags=tag_map(one.tags),
            recording_enabled=one.recording_enabled,
            connector_ids=serving[one.id],
            connectors=[ServingConnector(id, names[id].name, False) for id in serving[one.id]],
            policies=[
                PolicyInForce(id, known[id].name, known[id].org_wide, id in attached[one.id])
                for id in in_force[one.id]
            ],
            upstream_configuration=upstreams.shown(one.upstream_configuration),
            private_network_ipv4=one.ipv4,
            private_network_ipv6=one.ipv6,
            dnsname=f"{one.name}.{domain}",
            status="",
            version=one.version,
            created_at=time_text(one.created),
            updated_at=time_text(one.updated),
        )
        for one in found
    ]


def live(desk: Desk, org: str, one: SocketAnswer) -> SocketAnswer:
    """Fill in what the connectors are saying; in the reactor's thread."""
    reasons = []
    served = False
    for connector in one.connectors:
        connector.online = desk.nodes.online(org, connector.connector_id)
        if connector.online:
            reason = desk.nodes.refusals(org, connector.connector_id).get(one.socket_id)
            served = served or reason is None
            reasons += [reason] if reason is not None else []
    if served:
        one.status = "served"
    else:
        one.status = f"refused: {reasons[0]}" if reasons else "no connector online"
    return one
