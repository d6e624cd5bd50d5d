"""Who belongs to an organisation, and what they prove it with."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
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
    # Sign-in knows a user by id alone.
    Index(None, "id", unique=True),
    own(),
)

credentials = Table(
    "credentials",
    metadata,
    key_column("org"),
    key_column("user_id"),
    text_column("login", null=True),
    text_column("password_hash"),
    Column("totp_secret", LargeBinary, nullable=True),
    number_column("totp_step"),
    json_column("recovery_hashes"),
    *versioned(),
    # What somebody types does not say which organisation: unique in all of them.
    Index(None, "login", unique=True),
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
    json_column("networks"),
    time_column("created"),
    time_column("expires"),
    time_column("revoked", null=True),
    time_column("last_used", null=True),
    UniqueConstraint("hash"),
    # An API token names itself, not its organisation.
    Index(None, "id", unique=True),
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
