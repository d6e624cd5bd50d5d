"""Takes in the records that connectors send: audit events, and what they say of sessions.

`docs/records.md` describes the lines. Their writer gives the ids, so a batch that is sent twice
changes nothing. A line that cannot be taken is refused by itself and named, and the rest counts: a
connector that sent it again would never get any further. What a connector may not write is refused
too: records of another organisation, of another connector's sessions, and of what only the control
plane does.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import select

from border0.audit.events import NAME_LIMIT
from border0.control.store import audit_events, devices, recordings, sessions, sockets
from border0.control.store.errors import Invalid, NotFound
from border0.control.store.recordings import Recording
from border0.control.store.rows import INTEGER_LIMIT
from border0.control.store.schema import audit_events as events_table
from border0.control.store.schema import users
from border0.control.store.sessions import Session
from border0.control.store.transaction import Tx
from border0.control.store.written_once import insert_new

CONTROL_NOUNS = frozenset(
    (
        "api", "connector", "connector_token", "control", "device", "enrolment_key", "grant",
        "group", "invite", "membership", "node", "organisation", "policy", "recording", "role",
        "service_account", "signer", "socket", "statement", "token", "user",
    )
)  # fmt: skip
CONTROL_VERBS = frozenset(("create", "update", "delete", "kill"))
CONNECTORS_OWN = frozenset(("socket.refuse",))
STATUS_LIMIT = 64


class Refusal(NamedTuple):
    """A line that was not taken: its number in the batch, from 0, and why."""

    number: int
    reason: str


class Ingested(NamedTuple):
    """How many records were new, and which lines were refused."""

    stored: int
    refused: list[Refusal]


def ingest(tx: Tx, connector_id: str, lines: Sequence[str]) -> Ingested:
    """Store a batch of records of one of the organisation's connectors, with what they tell.

    :param connector_id: who sent them, as its push connection proved.
    :param lines: JSON texts, with or without a line feed; empty ones are passed over.
    """
    batch = _Batch(tx, connector_id)
    rows: list[dict[str, Any]] = []
    refused: list[Refusal] = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            row = audit_events.columns(line, tx.org)
            batch.check(row)
            batch.tell(row)
        except Invalid as error:
            refused.append(Refusal(number, str(error)))
        else:
            rows.append(row)
    return Ingested(insert_new(tx, events_table, rows), refused)


class _Batch:
    """What the lines of a batch have in common: whose sessions they are of, and names' ids."""

    def __init__(self, tx: Tx, connector_id: str) -> None:
        self._tx, self._connector = tx, connector_id
        self._mine: dict[str, bool] = {}
        self._sockets: dict[str, tuple[str, bool]] = {}
        self._devices: dict[str, tuple[str, str]] = {}
        self._users: dict[str, str] = {}

    def check(self, row: dict[str, Any]) -> None:
        """Refuse what this connector may not write.

        :raises Invalid: it is another connector's session, or the control plane's own type.
        """
        noun, _, verb = row["type"].partition(".")
        reserved = noun in CONTROL_NOUNS or verb in CONTROL_VERBS
        if reserved and row["type"] not in CONNECTORS_OWN:
            raise Invalid(f"a connector does not write {row['type']}")
        session = row["session"]
        if session and not self._is_mine(session):
            raise Invalid("the session is another connector's")

    def tell(self, row: dict[str, Any]) -> None:
        """Store what a session's start or end says."""
        kind, session = row["type"], row["session"]
        if not session or kind not in ("session.start", "session.end"):
            return
        event = json.loads(row["line"])
        start = row["at"]
        ended = None
        if kind == "session.end":
            start, ended = _time(event, "started", row["at"]), _time(event, "ended", row["at"])
        elif row["result"] != "ok":
            ended = row["at"]  # it was not let in
        socket, recorded = self._socket(row["socket"])
        device, user = self._device(row["device"])
        found = Session(
            id=session,
            started=start,
            connector_id=self._connector,
            socket_id=socket,
            socket=row["socket"],
            user_id=user or self._user(row["user"]),
            user=row["user"],
            device_id=device,
            device=row["device"],
            address=row["address"],
            protocol=_text(event, "protocol", STATUS_LIMIT),
            ended=ended,
            status="" if ended is None else _text(event, "status", STATUS_LIMIT) or row["result"],
            reason=_text(event, "reason", NAME_LIMIT),
            bytes_in=_count(event, "bytes_in"),
            bytes_out=_count(event, "bytes_out"),
        )
        sessions.report(self._tx, found)
        self._mine[session] = True
        said = event.get("recorded")
        if row["result"] == "ok" and (said if isinstance(said, bool) else recorded):
            self._recording(session, start)

    def _recording(self, session: str, started: float) -> None:
        day = datetime.fromtimestamp(started, UTC)
        recordings.report(
            self._tx,
            Recording(
                id=session,
                session_id=session,
                started=started,
                connector_id=self._connector,
                path=f"recordings/{day:%Y/%m/%d}/{session}.jsonl",
            ),
        )

    def _is_mine(self, session: str) -> bool:
        if session not in self._mine:
            try:
                known = sessions.get(self._tx.connection, self._tx.org, session)
                self._mine[session] = known.connector_id == self._connector
            except NotFound:
                self._mine[session] = True
        return self._mine[session]

    def _socket(self, name: str) -> tuple[str, bool]:
        """The id of the service, "" when it is gone, and whether its sessions are recorded."""
        if name not in self._sockets:
            found = sockets.find(self._tx.connection, self._tx.org, name)
            known = ("", False) if found is None else (found.id, found.recording_enabled)
            self._sockets[name] = known
        return self._sockets[name]

    def _device(self, name: str) -> tuple[str, str]:
        """The ids of the device and of its owner, each "" when there is none."""
        if name not in self._devices:
            found = devices.find(self._tx.connection, self._tx.org, name) if name else None
            known = ("", "") if found is None else (found.id, found.user_id or "")
            self._devices[name] = known
        return self._devices[name]

    def _user(self, email: str) -> str:
        """The id of the only user with this address of mail; "" when there is none."""
        if email not in self._users:
            mine = (users.c.org == self._tx.org, users.c.email == email)
            query = select(users.c.id).where(*mine).limit(2)
            found = self._tx.connection.execute(query).scalars().all() if email else []
            self._users[email] = found[0] if len(found) == 1 else ""
        return self._users[email]


def _text(event: dict[str, Any], name: str, limit: int) -> str:
    value = event.get(name, "")
    if not isinstance(value, str):
        return ""
    return value[:limit].replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def _count(event: dict[str, Any], name: str) -> int:
    """A number of bytes; 0 when it is unknown (null) or none."""
    value = event.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return value if 0 <= value < INTEGER_LIMIT else 0


def _time(event: dict[str, Any], name: str, otherwise: float) -> float:
    try:
        return audit_events.moment(event[name])
    except (Invalid, KeyError):
        return otherwise
