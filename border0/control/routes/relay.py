"""`/relays` and `/relay`: where nodes meet while there is no direct way between them.

What a statement cannot say is refused here, by the statement's own table. The key by which relays
know tickets is public; the answer is the file that a relay which runs alone reads.
"""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from border0.control.api.errors import invalid
from border0.control.api.paging import Page, PageQuery
from border0.control.api.routes import Answer, Call, Table
from border0.control.api.schema import UUID_PATTERN
from border0.control.routes.desk import Desk
from border0.control.routes.fields import Name, changed, check_name, chosen, time_text
from border0.control.store import relays
from border0.control.store.relays import Relay
from border0.control.store.transaction import Tx
from border0.control.tickets import key_file
from border0.statements.payloads import FIELDS, WEIGHT_LIMIT

Host = Annotated[str, msgspec.Meta(max_length=254)]
Hosts = Annotated[list[Host], msgspec.Meta(max_length=16)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Weight = Annotated[int, msgspec.Meta(ge=0, le=WEIGHT_LIMIT)]
Short = Annotated[str, msgspec.Meta(max_length=255)]
Binding = Literal["tls-exporter", "none"]
_EMPTY = ("region", "ca")  # a statement leaves them out


class RelayBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A new relay; `names` are what nodes dial, `public_key` is its own, `ca` its authority's pin.

    `channel_binding` `none` is for a relay behind a proxy that ends TLS. `relay_id` is the id in
    the relay's own file, if it has one already.
    """

    relay_id: Annotated[str, msgspec.Meta(pattern=UUID_PATTERN)] | None = None
    name: Name
    names: Hosts
    public_key: Short
    port: Port = 443
    path: Short = "/relay"
    region: Short = ""
    weight: Weight = 100
    drain: bool = False
    channel_binding: Binding = "tls-exporter"
    ca: Short = ""


class RelayChange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change of a relay; what is not given stays."""

    name: Name | UnsetType = UNSET
    names: Hosts | UnsetType = UNSET
    public_key: Short | UnsetType = UNSET
    port: Port | UnsetType = UNSET
    path: Short | UnsetType = UNSET
    region: Short | UnsetType = UNSET
    weight: Weight | UnsetType = UNSET
    drain: bool | UnsetType = UNSET
    channel_binding: Binding | UnsetType = UNSET
    ca: Short | UnsetType = UNSET


class LiveRelay(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What a relay in the control plane's own process has counted since its start.

    `drops` are datagrams that reached nobody: the other end was too slow, or is not there.
    """

    clients: int
    datagrams: int
    drops: int


class RelayAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A relay."""

    relay_id: str
    name: str
    names: list[str]
    port: int
    path: str
    region: str
    weight: int
    drain: bool
    public_key: str
    channel_binding: str
    ca: str
    live: LiveRelay | None
    """None of a relay that runs alone: it tells the control plane nothing."""
    version: int
    created_at: str | None
    updated_at: str | None


class TicketKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key that signs tickets (Ed25519, base64), and of which organisations."""

    key: str
    orgs: list[str]


class RevokedKey(msgspec.Struct, forbid_unknown_fields=True):
    """A WireGuard key whose tickets count no more until then."""

    public_key: str
    until: str


class TicketKeys(msgspec.Struct, forbid_unknown_fields=True):
    """What the file `ticket_keys` of a relay holds."""

    keys: list[TicketKey]
    revoked: list[RevokedKey]


find_relay = chosen(relays.get, relays.find, "relay")
_MEMBERS = RelayChange.__struct_fields__


def register(table: Table, desk: Desk) -> None:
    """Put the routes into the table."""
    route = table.route

    def described(relay: Relay) -> RelayAnswer:
        live = desk.nodes.relays_here(relay.org).get(relay.id)
        return RelayAnswer(
            relay_id=relay.id,
            live=None if live is None else msgspec.convert(live, LiveRelay),
            version=relay.version,
            created_at=time_text(relay.created),
            updated_at=time_text(relay.updated),
            **{name: getattr(relay, name) for name in _MEMBERS},
        )

    def answered(relay: Relay) -> Answer:
        return Answer(described(relay), version=relay.version)

    @route("GET", "/relays", permission="relay.read", query=PageQuery, answer=Page[RelayAnswer])
    async def every(call: Call) -> Page[RelayAnswer]:
        """The organisation's relays by name."""

        def read(connection: Connection) -> Page[RelayAnswer]:
            query = call.query
            found = relays.page(connection, call.org, after=query.cursor, limit=query.limit)
            return Page([described(one) for one in found.items], found.after)

        return await desk.read(read)

    @route("GET", "/relays/ticket_keys", permission="relay.keys", answer=TicketKeys)
    def keys(call: Call) -> TicketKeys:
        """The keys by which relays know tickets, and which nodes' tickets count no more."""
        nodes = desk.nodes
        found = key_file([(call.org, key) for key in nodes.ticket_keys(call.org)],
                         nodes.revoked(call.org))  # fmt: skip
        return msgspec.convert(found, TicketKeys)

    @route(
        "POST",
        "/relay",
        permission="relay.write",
        audit="relay.create",
        body=RelayBody,
        answer=RelayAnswer,
    )
    async def create(call: Call) -> Answer:
        """Make a relay known to every node."""
        members = msgspec.structs.asdict(call.body)
        id = members.pop("relay_id") or ""
        given = _checked(members)
        check_name(given["name"])

        def change(tx: Tx) -> Relay:
            made = relays.create(tx, **given, id=id)
            call.target |= {"id": made.id, "name": made.name}
            call.details |= {name: given[name] for name in ("names", "port", "public_key")}
            return made

        return answered(await desk.change(call, change))

    @route("GET", "/relay/{relay:text}", permission="relay.read", answer=RelayAnswer)
    async def show(call: Call) -> Answer:
        """One relay by its id or name."""
        return answered(
            await desk.read(lambda c: find_relay(c, call.org, call.params["relay"])),
        )

    @route(
        "PUT",
        "/relay/{relay:text}",
        permission="relay.write",
        audit="relay.update",
        body=RelayChange,
        answer=RelayAnswer,
    )
    async def update(call: Call) -> Answer:
        """Change a relay; one that drains gets no new nodes."""
        given = {
            name: value for name in _MEMBERS if (value := getattr(call.body, name)) is not UNSET
        }
        given = _checked(given)
        if "name" in given:
            check_name(given["name"])

        def change(tx: Tx) -> Relay:
            old = _aimed(tx, call)
            new = changed(given, old)
            call.details |= {"from": {name: getattr(old, name) for name in new}, "to": new}
            return relays.update(tx, old.id, call.expected, **new)

        return answered(await desk.change(call, change))

    @route("DELETE", "/relay/{relay:text}", permission="relay.write", audit="relay.delete")
    async def remove(call: Call) -> None:
        """Remove a relay; nodes leave it."""
        await desk.change(call, lambda tx: relays.remove(tx, _aimed(tx, call).id, call.expected))


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The members in the one form that statements have.

    :raises ApiError: 422, a statement could not say it.
    """
    values = dict(given)
    if "names" in values:
        values["names"] = list(dict.fromkeys(map(_host, values["names"])))
    for name, value in values.items():
        field = FIELDS["relay"][name]
        if not (value == "" and name in _EMPTY) and not field.check(value):
            raise invalid(name, f"write {field.what}")
    return values


def _host(text: str) -> str:
    """An address in its usual form; a name in lower case, without the dot at its end."""
    try:
        return str(ip_address(text))
    except ValueError:
        return text.lower().removesuffix(".")


def _aimed(tx: Tx, call: Call) -> Relay:
    """The relay of the path, noted as what the change is about."""
    found = find_relay(tx.connection, tx.org, call.params["relay"])
    call.target |= {"id": found.id, "name": found.name}
    return found
