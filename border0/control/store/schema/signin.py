"""What lives for minutes or hours: browsers' sessions, set-up links, device grants, kept answers.

None of it is part of a backup: what has ended must not come back with one.
"""

from sqlalchemy import Column, Index, Integer, LargeBinary, Table, UniqueConstraint

from border0.control.store.columns import (
    belongs,
    flag_column,
    json_column,
    key_column,
    number_column,
    own,
    text_column,
    time_column,
)
from border0.control.store.schema.base import PASSING, metadata

browser_sessions = Table(
    "browser_sessions",
    metadata,
    key_column("org"),
    key_column("digest"),
    text_column("account"),
    text_column("stage"),
    flag_column("mfa"),
    time_column("created"),
    time_column("seen"),
    text_column("address"),
    UniqueConstraint("digest"),
    belongs("account", "users", cascade=True),
    Index(None, "org", "account", "created"),
    Index(None, "created"),
    own(),
    info={PASSING: True},
)

setup_links = Table(
    "setup_links",
    metadata,
    key_column("org"),
    key_column("digest"),
    text_column("account", null=True),
    time_column("expires"),
    UniqueConstraint("digest"),
    belongs("account", "users", cascade=True),
    Index(None, "org", "account"),
    own(),
    info={PASSING: True},
)

device_grants = Table(
    "device_grants",
    metadata,
    key_column("digest"),
    text_column("user_code"),
    text_column("public_key"),
    text_column("name"),
    text_column("purpose"),
    text_column("address"),
    time_column("expires"),
    time_column("interval"),
    time_column("polled"),
    text_column("state"),
    text_column("browser"),
    # Both are empty until somebody decides: no references.
    text_column("account"),
    text_column("org"),
    Column("version", Integer, nullable=False),
    UniqueConstraint("user_code"),
    Index(None, "expires"),
    info={PASSING: True},
)

kept_answers = Table(
    "kept_answers",
    metadata,
    key_column("org"),
    key_column("caller"),
    key_column("key"),
    Column("fingerprint", LargeBinary, nullable=False),
    time_column("begun"),
    time_column("expires"),
    flag_column("done"),
    number_column("status", null=True),
    json_column("headers"),
    Column("body", LargeBinary, nullable=True),
    Index(None, "expires"),
    info={PASSING: True},
)
