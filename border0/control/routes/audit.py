"""`/audit_events` and `/recordings`: what was done, and where recordings are.

An event is answered as its writer made it (`docs/records.md`), not put together again here.
"""

import msgspec
from sqlalchemy import Connection

from border0.control.api.paging import Page, PageQuery
from border0.control.api.routes import Call, Table
from border0.control.routes.desk import Desk
from border0.control.routes.fields import Line, TimeText, moment, time_text
from border0.control.store import audit_events, recordings

FILTERS = ("type", "user", "device", "session", "socket", "result")


class AuditQuery(PageQuery, forbid_unknown_fields=True, kw_only=True):
    """Which events: by members, and by time (`since` <= time < `until`)."""

    type: Line = ""
    user: Line = ""
    device: Line = ""
    session: Line = ""
    socket: Line = ""
    result: Line = ""
    since: TimeText = ""
    until: TimeText = ""


class RecordingQuery(PageQuery, forbid_unknown_fields=True, kw_only=True):
    """Perhaps one session's only."""

    session: Line = ""


class RecordingAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Where a recording is; `path` counts from the connector's folder of recordings."""

    recording_id: str
    session_id: str
    connector_id: str
    format: str
    path: str
    size: int
    sha256: str
    start_time: str | None


def register(table: Table, desk: Desk) -> None:
    """Put the routes into the table."""
    route = table.route

    @route(
        "GET",
        "/audit_events",
        permission="audit.read",
        query=AuditQuery,
        answer=Page[msgspec.Raw],
    )
    async def events(call: Call) -> Page[msgspec.Raw]:
        """The audit events, newest first, each as it was written."""
        query: AuditQuery = call.query
        wanted = {name: getattr(query, name) for name in FILTERS if getattr(query, name)}
        since = moment(query.since, "since") if query.since else None
        until = moment(query.until, "until") if query.until else None

        def read(connection: Connection) -> Page[msgspec.Raw]:
            found = audit_events.page(
                connection,
                call.org,
                after=query.cursor,
                limit=query.limit,
                since=since,
                until=until,
                **wanted,
            )
            lines = [msgspec.Raw(one.line.encode()) for one in found.items]
            return Page(lines, found.after)

        return await desk.read(read)

    @route(
        "GET",
        "/recordings",
        permission="recording.read",
        query=RecordingQuery,
        answer=Page[RecordingAnswer],
    )
    async def recorded(call: Call) -> Page[RecordingAnswer]:
        """The index of recordings, newest first."""
        query: RecordingQuery = call.query

        def read(connection: Connection) -> Page[RecordingAnswer]:
            found = recordings.page(
                connection,
                call.org,
                after=query.cursor,
                limit=query.limit,
                session_id=query.session,
            )
            return Page(
                [
                    RecordingAnswer(
                        recording_id=one.id,
                        session_id=one.session_id,
                        connector_id=one.connector_id,
                        format=one.format,
                        path=one.path,
                        size=one.size,
                        sha256=one.sha256,
                        start_time=time_text(one.started),
                    )
                    for one in found.items
                ],
                found.after,
            )

        return await desk.read(read)
