"""`/sessions` and `/session`: what went through the connectors, what is live, and how to end it.

Source: Border0's API for paths and members. What is listed is what connectors have reported.
"""

from typing import Any

import msgspec
from sqlalchemy import Connection
from twisted.logger import Logger

from border0.control.api.errors import invalid
from border0.control.api.paging import PageQuery
from border0.control.api.routes import Call, Table
from border0.control.api.schema import is_id
from border0.control.routes.desk import Desk
from border0.control.routes.fields import Line, Listing, Pagination, time_text
from border0.control.routes.policyview import authors
from border0.control.store import recordings, sessions
from border0.control.store.errors import NotFound
from border0.control.store.sessions import Session
from border0.control.store.transaction import Tx

KILLED = "ended by an administrator"
RECORDINGS = 100
log = Logger(namespace="border0.control")


class SessionQuery(PageQuery, forbid_unknown_fields=True, kw_only=True):
    """Which sessions: socket by id or name, user by id or e-mail address, live or not."""

    socket: Line = ""
    user: Line = ""
    live: bool | None = None


class RecordingLine(msgspec.Struct, forbid_unknown_fields=True):
    """A recording of a session."""

    recording_id: str
    start_time: str | None


class SessionAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One session; `result` is about its beginning, `status` and `reason` about its end."""

    session_id: str
    session_type: str
    socket_id: str
    socket_name: str
    user_id: str
    user_email: str
    device_id: str
    device: str
    connector_id: str
    client_ip: str
    start_time: str | None
    end_time: str | None
    live: bool
    result: str
    status: str
    reason: str
    bytes_in: int
    bytes_out: int
    killed: bool
    killed_by: str
    recordings: list[RecordingLine]


class Kill(msgspec.Struct, forbid_unknown_fields=True):
    """What became of the wish: whether its connector says that the session has ended."""

    ended: bool
    detail: str


class KilledAnswer(SessionAnswer, forbid_unknown_fields=True, kw_only=True):
    """A session that shall end."""

    kill: Kill


class SessionChange(msgspec.Struct, forbid_unknown_fields=True):
    """End a session."""

    killed: bool


def register(table: Table, desk: Desk) -> None:
    """Put the routes into the table."""
    route = table.route

    @route(
        "GET",
        "/sessions",
        permission="session.read",
        query=SessionQuery,
        answer=Listing[SessionAnswer],
    )
    async def every(call: Call) -> Listing[SessionAnswer]:
        """The organisation's sessions, newest first."""
        query: SessionQuery = call.query
        wanted: dict[str, str] = {}
        if query.socket:
            wanted["socket_id" if is_id(query.socket) else "socket"] = query.socket
        if query.user:
            wanted["user_id" if is_id(query.user) else "user"] = query.user

        def read(connection: Connection) -> Listing[SessionAnswer]:
            found = sessions.page(
                connection,
                call.org,
                after=query.cursor,
                limit=query.limit,
                live=query.live,
                **wanted,
            )
            items = [SessionAnswer(**one) for one in _described(connection, found.items)]
            return Listing(Pagination(query.limit, found.after), items)

        return await desk.read(read)

    @route(
        "GET",
        "/session/{socket:text}/{session:session}",
        permission="session.read",
        answer=SessionAnswer,
    )
    async def show(call: Call) -> SessionAnswer:
        """One session."""

        def read(connection: Connection) -> SessionAnswer:
            return SessionAnswer(**_described(connection, [_aimed(connection, call)])[0])

        return await desk.read(read)

    @route(
        "PUT",
        "/session/{socket:text}/{session:session}",
        permission="session.kill",
        audit="session.kill",
        body=SessionChange,
        answer=KilledAnswer,
    )
    async def kill(call: Call) -> KilledAnswer:
        """End a live session; its connector hears of it now, or when it is back."""
        if not call.body.killed:
            raise invalid("killed", "a session that was ended is not begun again")

        def change(tx: Tx) -> tuple[Session, dict[str, Any]]:
            found = _aimed(tx.connection, call)
            call.target |= {"id": found.id, "socket": found.socket, "user": found.user}
            found = sessions.kill(tx, found.id)
            return found, _described(tx.connection, [found])[0]

        session, members = await desk.change(call, change)
        return KilledAnswer(**members, kill=await _end(desk, call, session))


async def _end(desk: Desk, call: Call, session: Session) -> Kill:
    """Tell the session's connector; the wish is on the disk already."""
    if session.ended is not None:
        return Kill(False, "it had ended already")
    if not desk.nodes.online(call.org, session.connector_id):
        return Kill(False, "its connector is not online and hears of it when it is back")
    reason = f"{KILLED} ({call.principal.name})"
    try:
        ended = await desk.nodes.kill(call.org, session.connector_id, session.id, reason)
    except Exception:
        log.failure("a connector could not be told to end a session")
        return Kill(False, "its connector did not answer; it hears of it again when it reconnects")
    return Kill(ended, "it has ended" if ended else "its connector knows no such live session")


def _aimed(connection: Connection, call: Call) -> Session:
    """The session of the path, which must be one of the socket in the path."""
    found = sessions.get(connection, call.org, call.params["session"])
    if call.params["socket"] not in (found.socket_id, found.socket) or not call.params["socket"]:
        raise NotFound("session not found")
    return found


def _described(connection: Connection, found: list[Session]) -> list[dict[str, Any]]:
    asked = {one.killed_by for one in found if one.killed_by}
    names = authors(connection, found[0].org, asked) if asked else {}
    return [_members(connection, one, names) for one in found]


def _members(connection: Connection, one: Session, names: dict[str, str]) -> dict[str, Any]:
    kept = recordings.page(connection, one.org, session_id=one.id, limit=RECORDINGS).items
    return {
        "session_id": one.id,
        "session_type": one.protocol,
        "socket_id": one.socket_id,
        "socket_name": one.socket,
        "user_id": one.user_id,
        "user_email": one.user,
        "device_id": one.device_id,
        "device": one.device,
        "connector_id": one.connector_id,
        "client_ip": one.address,
        "start_time": time_text(one.started),
        "end_time": time_text(one.ended),
        "live": one.ended is None,
        "result": "success",
        "status": one.status,
        "reason": one.reason,
        "bytes_in": one.bytes_in,
        "bytes_out": one.bytes_out,
        "killed": one.kill_asked is not None,
        "killed_by": names.get(one.killed_by, ""),
        "recordings": [RecordingLine(r.id, time_text(r.started)) for r in kept],
    }
