"""The organisation itself and its settings, and what anybody may know about the server."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from border0 import __version__
from border0.control.api.limits import Rate
from border0.control.api.principals import PUBLIC
from border0.control.api.routes import Answer, Call, Table
from border0.control.routes.desk import Desk
from border0.control.routes.joining import Address
from border0.control.routes.values import time_text
from border0.control.store import organisations
from border0.control.store.organisations import Organisation
from border0.control.store.transaction import Tx

Days = Annotated[int, msgspec.Meta(ge=1, le=3650)]


class Settings(msgspec.Struct):
    """What enrolment goes by.

    A machine whose key or invite says `approved` needs no further approval. A device expires
    `device_lifetime_days` after its user last proved who they are; None: never.
    """

    require_device_approval: bool = False
    require_connector_approval: bool = False
    device_lifetime_days: int | None = 180


class SettingsChange(msgspec.Struct, forbid_unknown_fields=True):
    """Settings that are to be other than they are."""

    require_device_approval: bool | UnsetType = UNSET
    require_connector_approval: bool | UnsetType = UNSET
    device_lifetime_days: Days | UnsetType | None = UNSET


class OrganisationChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be other than it is."""

    settings: SettingsChange


class Network(msgspec.Struct, forbid_unknown_fields=True):
    """The organisation's prefixes."""

    services_v4: str
    services_v6: str
    devices_v4: str
    devices_v6: str


class OrganisationAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """The organisation."""

    id: str
    name: str
    network: Network
    settings: Settings
    version: int
    created_at: str | None
    updated_at: str | None


class ServerInfo(msgspec.Struct, forbid_unknown_fields=True):
    """The server; `ca` is the pin of its authority, "" with a public certificate."""

    version: str
    url: str
    ca: str


def settings_of(organisation: Organisation) -> Settings:
    """The settings, with what was never set as it is by default."""
    return msgspec.convert(organisation.settings, Settings)


def register(table: Table, desk: Desk, *, address: Address) -> None:
    """Add the routes."""

    @table.route("GET", "/server_info", permission=PUBLIC, answer=ServerInfo, limit=Rate(60, 60.0))
    def server_info(call: Call) -> ServerInfo:
        """Which version runs here, under which address, with which authority."""
        return ServerInfo(__version__, address.url, address.pin)

    @table.route("GET", "/organization", permission="organisation.read", answer=OrganisationAnswer)
    async def show(call: Call) -> Answer:
        """The caller's organisation."""

        def read(connection: Connection) -> Organisation:
            return organisations.get(connection, call.org)

        return _answer(await desk.read(read))

    @table.route(
        "PUT",
        "/organization",
        permission="organisation.write",
        audit="organisation.update",
        body=OrganisationChange,
        answer=OrganisationAnswer,
    )
    async def update(call: Call) -> Answer:
        """Change settings of the organisation."""
        wanted: dict[str, Any] = {
            name: value
            for name, value in msgspec.structs.asdict(call.body.settings).items()
            if value is not UNSET
        }

        def change(tx: Tx) -> Organisation:
            _ = tx.revision  # locks the row: no other change is lost
            present = organisations.get(tx.connection, tx.org)
            old = msgspec.to_builtins(settings_of(present))
            call.target = {"id": present.id, "name": present.name}
            call.details = {"from": {name: old[name] for name in wanted}, "to": wanted}
            return organisations.change(tx, call.expected, settings={**present.settings, **wanted})

        return _answer(await desk.change(call, change))


def _answer(found: Organisation) -> Answer:
    network = Network(found.services_v4, found.services_v6, found.devices_v4, found.devices_v6)
    answer = OrganisationAnswer(
        found.id,
        found.name,
        network,
        settings_of(found),
        found.version,
        time_text(found.created),
        time_text(found.updated),
    )
    return Answer(answer, version=found.version)
