"""What happened, kept when a user, device or socket is gone: names beside ids, no references."""

from sqlalchemy import (
    Index,
    Table,
)

from border0.control.store.columns import (
    key_column,
    number_column,
    own,
    text_column,
    time_column,
)
from border0.control.store.schema.base import metadata

sessions = Table(
    "sessions",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("connector_id"),
    text_column("socket_id"),
    text_column("socket"),
    text_column("user_id"),
    text_column("user"),
    text_column("device_id"),
    text_column("device"),
    text_column("address"),
    text_column("protocol"),
    time_column("started"),
    time_column("ended", null=True),
    text_column("status"),
    text_column("reason"),
    number_column("bytes_in"),
    number_column("bytes_out"),
    time_column("kill_asked", null=True),
    text_column("killed_by"),
    Index(None, "org", "started"),
    Index(None, "org", "socket_id"),
    Index(None, "org", "user_id"),
    Index(None, "org", "ended"),
    own(),
)

recordings = Table(
    "recordings",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("session_id"),
    text_column("connector_id"),
    text_column("format"),
    text_column("path"),
    number_column("size"),
    text_column("sha256"),
    time_column("started"),
    Index(None, "org", "session_id"),
    Index(None, "org", "started"),
    own(),
)

audit_events = Table(
    "audit_events",
    metadata,
    key_column("org"),
    key_column("id"),
    time_column("at"),
    text_column("type"),
    text_column("session"),
    text_column("user"),
    text_column("device"),
    text_column("address"),
    text_column("socket"),
    text_column("result"),
    text_column("line"),
    Index(None, "org", "at"),
    Index(None, "org", "session"),
    Index(None, "org", "type"),
    own(),
)
