"""Who may do what, what nodes are told of it, and every change of it."""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
)

from border0.control.store.columns import (
    belongs,
    flag_column,
    json_column,
    key_column,
    number_column,
    own,
    text_column,
    time_column,
    versioned,
)
from border0.control.store.schema.base import metadata

policies = Table(
    "policies",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("name"),
    text_column("description"),
    flag_column("org_wide"),
    json_column("tag_rules"),
    number_column("current"),
    *versioned(),
    UniqueConstraint("org", "name"),
    own(),
)

policy_versions = Table(
    "policy_versions",
    metadata,
    key_column("org"),
    key_column("policy_id"),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    text_column("author"),
    text_column("text"),
    text_column("comment"),
    number_column("reverts", null=True),
    time_column("created"),
    belongs("policy_id", "policies", cascade=True),
)

attachments = Table(
    "attachments",
    metadata,
    key_column("org"),
    key_column("socket_id"),
    key_column("policy_id"),
    belongs("socket_id", "sockets"),
    belongs("policy_id", "policies"),
    Index(None, "org", "policy_id"),
)

statements = Table(
    "statements",
    metadata,
    key_column("org"),
    key_column("type"),
    key_column("id"),
    number_column("revision"),
    text_column("hash"),
    Column("payload", LargeBinary, nullable=False),
    json_column("signatures"),
    time_column("expires"),
    Index(None, "org", "hash"),
    own(),
)

changes = Table(
    "changes",
    metadata,
    key_column("org"),
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    text_column("kind"),
    text_column("object_id"),
    text_column("op"),
    text_column("actor"),
    time_column("at"),
    own(),
)
