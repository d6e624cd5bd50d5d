"""The tables, as SQLAlchemy Core sees them; migrations make them.

Every table of an organisation has its id as the first part of the primary key and of every foreign
key: a row cannot refer to another organisation's row, whatever a program does wrong. Ids are
lower-case UUID text, times are seconds since 1970, structured values are JSON. `version` is the
optimistic version that an update must name.

`Source:` SQLAlchemy 2.1 Core. It runs no statement.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
)

from border0.control.store.columns import (
    NAMES,
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

metadata = MetaData(naming_convention=NAMES)

organisations = Table(
    "organisations",
    metadata,
    key_column("id"),
    text_column("name"),
    text_column("services_v4"),
    text_column("services_v6"),
    text_column("devices_v4"),
    text_column("devices_v6"),
    number_column("next_service"),
    number_column("next_device"),
    number_column("revision"),
    number_column("floor"),
    json_column("settings"),
    *versioned(),
    UniqueConstraint("name"),
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

users = Table(
    "users",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("issuer"),
    text_column("subject"),
    text_column("email"),
    text_column("name"),
    text_column("role"),
    flag_column("disabled"),
    *versioned(),
    UniqueConstraint("org", "issuer", "subject"),
    Index(None, "issuer", "subject"),
    own(),
)

credentials = Table(
    "credentials",
    metadata,
    key_column("org"),
    key_column("user_id"),
    text_column("password_hash"),
    Column("totp_secret", LargeBinary, nullable=True),
    number_column("totp_step"),
    json_column("recovery_hashes"),
    *versioned(),
    belongs("user_id", "users", cascade=True),
)

groups = Table(
    "groups",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("name"),
    text_column("description"),
    *versioned(),
    UniqueConstraint("org", "name"),
    own(),
)

memberships = Table(
    "memberships",
    metadata,
    key_column("org"),
    key_column("user_id"),
    key_column("group_id"),
    belongs("user_id", "users"),
    belongs("group_id", "groups"),
    Index(None, "org", "group_id"),
)

service_accounts = Table(
    "service_accounts",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("name"),
    text_column("description"),
    text_column("role"),
    flag_column("disabled"),
    *versioned(),
    UniqueConstraint("org", "name"),
    own(),
)

devices = Table(
    "devices",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("name"),
    text_column("user_id", null=True),
    json_column("tags"),
    text_column("wireguard_key"),
    text_column("machine_key"),
    text_column("ipv4"),
    text_column("ipv6"),
    flag_column("approved"),
    flag_column("locked"),
    flag_column("ephemeral"),
    time_column("expires", null=True),
    time_column("authenticated", null=True),
    json_column("facts"),
    *versioned(),
    UniqueConstraint("org", "name"),
    UniqueConstraint("org", "wireguard_key"),
    UniqueConstraint("org", "machine_key"),
    belongs("user_id", "users"),
    Index(None, "org", "user_id"),
    own(),
)

connectors = Table(
    "connectors",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("name"),
    text_column("description"),
    json_column("tags"),
    text_column("wireguard_key", null=True),
    text_column("machine_key", null=True),
    text_column("ssh_host_key"),
    flag_column("approved"),
    flag_column("locked"),
    time_column("expires", null=True),
    json_column("facts"),
    *versioned(),
    UniqueConstraint("org", "name"),
    UniqueConstraint("org", "wireguard_key"),
    UniqueConstraint("org", "machine_key"),
    own(),
)

tokens = Table(
    "tokens",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("hash"),
    text_column("kind"),
    text_column("name"),
    text_column("user_id", null=True),
    text_column("service_account_id", null=True),
    text_column("device_id", null=True),
    text_column("connector_id", null=True),
    json_column("scopes"),
    time_column("created"),
    time_column("expires"),
    time_column("revoked", null=True),
    time_column("last_used", null=True),
    UniqueConstraint("hash"),
    belongs("user_id", "users", cascade=True),
    belongs("service_account_id", "service_accounts", cascade=True),
    belongs("device_id", "devices", cascade=True),
    belongs("connector_id", "connectors", cascade=True),
    CheckConstraint(
        "(CASE WHEN user_id IS NULL THEN 0 ELSE 1 END)"
        " + (CASE WHEN service_account_id IS NULL THEN 0 ELSE 1 END)"
        " + (CASE WHEN device_id IS NULL THEN 0 ELSE 1 END)"
        " + (CASE WHEN connector_id IS NULL THEN 0 ELSE 1 END) = 1",
        name="one_owner",
    ),
    own(),
)

enrolment_keys = Table(
    "enrolment_keys",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("hash"),
    text_column("name"),
    text_column("role"),
    text_column("user_id", null=True),
    json_column("tags"),
    flag_column("ephemeral"),
    flag_column("approved"),
    number_column("max_uses", null=True),
    number_column("uses"),
    text_column("author"),
    time_column("created"),
    time_column("expires"),
    time_column("revoked", null=True),
    UniqueConstraint("hash"),
    belongs("user_id", "users", cascade=True),
    own(),
)

invites = Table(
    "invites",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("hash"),
    text_column("kind"),
    json_column("payload"),
    text_column("author"),
    time_column("created"),
    time_column("expires"),
    time_column("used", null=True),
    text_column("used_by"),
    time_column("revoked", null=True),
    UniqueConstraint("hash"),
    own(),
)

addresses = Table(
    "addresses",
    metadata,
    key_column("org"),
    key_column("ipv4"),
    text_column("ipv6"),
    text_column("pool"),
    text_column("holder_kind"),
    text_column("holder_id"),
    time_column("allocated"),
    time_column("released", null=True),
    UniqueConstraint("org", "ipv6"),
    Index(None, "org", "holder_id"),
    Index(None, "org", "pool", "released"),
    own(),
)

sockets = Table(
    "sockets",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("name"),
    text_column("description"),
    text_column("socket_type"),
    number_column("port"),
    json_column("tags"),
    json_column("upstream_configuration"),
    flag_column("recording_enabled"),
    flag_column("disabled"),
    text_column("ipv4"),
    text_column("ipv6"),
    *versioned(),
    UniqueConstraint("org", "name"),
    own(),
)

socket_connectors = Table(
    "socket_connectors",
    metadata,
    key_column("org"),
    key_column("socket_id"),
    key_column("connector_id"),
    belongs("socket_id", "sockets"),
    belongs("connector_id", "connectors"),
    Index(None, "org", "connector_id"),
)

policies = Table(
    "policies",
    metadata,
    key_column("org"),
    key_column("id"),
    text_column("name"),
    text_column("description"),
    flag_column("org_wide"),
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

# What happened stays when the user, device or socket is gone: no foreign keys, names beside ids.
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
