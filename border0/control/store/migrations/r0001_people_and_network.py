"""Organisations, who belongs to them, their machines and services."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""

    op.create_table(
        "organisations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("services_v4", sa.Text(), nullable=False),
        sa.Column("services_v6", sa.Text(), nullable=False),
        sa.Column("devices_v4", sa.Text(), nullable=False),
        sa.Column("devices_v6", sa.Text(), nullable=False),
        sa.Column("next_service", sa.BigInteger(), nullable=False),
        sa.Column("next_device", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("floor", sa.BigInteger(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organisations")),
        sa.UniqueConstraint("name", name=op.f("uq_organisations__name")),
    )
    op.create_table(
        "addresses",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("ipv4", sa.Text(), nullable=False),
        sa.Column("ipv6", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("holder_kind", sa.Text(), nullable=False),
        sa.Column("holder_id", sa.Text(), nullable=False),
        sa.Column("allocated", sa.Double(), nullable=False),
        sa.Column("released", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_addresses__org")),
        sa.PrimaryKeyConstraint("org", "ipv4", name=op.f("pk_addresses")),
        sa.UniqueConstraint("org", "ipv6", name=op.f("uq_addresses__org_ipv6")),
    )
    op.create_index(
        op.f("ix_addresses__org_holder_id"), "addresses", ["org", "holder_id"], unique=False
    )
    op.create_index(
        op.f("ix_addresses__org_pool_released"),
        "addresses",
        ["org", "pool", "released"],
        unique=False,
    )
    op.create_table(
        "connectors",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("wireguard_key", sa.Text(), nullable=True),
        sa.Column("machine_key", sa.Text(), nullable=True),
        sa.Column("ssh_host_key", sa.Text(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_connectors__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_connectors")),
        sa.UniqueConstraint("org", "machine_key", name=op.f("uq_connectors__org_machine_key")),
        sa.UniqueConstraint("org", "name", name=op.f("uq_connectors__org_name")),
        sa.UniqueConstraint("org", "wireguard_key", name=op.f("uq_connectors__org_wireguard_key")),
    )
    op.create_table(
        "groups",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_groups__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_groups")),
        sa.UniqueConstraint("org", "name", name=op.f("uq_groups__org_name")),
    )
    op.create_table(
        "invites",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("used", sa.Double(), nullable=True),
        sa.Column("used_by", sa.Text(), nullable=False),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_invites__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_invites")),
        sa.UniqueConstraint("hash", name=op.f("uq_invites__hash")),
    )
    op.create_table(
        "service_accounts",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org"], ["organisations.id"], name=op.f("fk_service_accounts__org")
        ),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_service_accounts")),
        sa.UniqueConstraint("org", "name", name=op.f("uq_service_accounts__org_name")),
    )
    op.create_table(
        "sockets",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("socket_type", sa.Text(), nullable=False),
        sa.Column("port", sa.BigInteger(), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("upstream_configuration", sa.JSON(), nullable=False),
        sa.Column("recording_enabled", sa.Boolean(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("ipv4", sa.Text(), nullable=False),
        sa.Column("ipv6", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_sockets__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_sockets")),
        sa.UniqueConstraint("org", "name", name=op.f("uq_sockets__org_name")),
    )
    op.create_table(
        "users",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_users__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_users")),
        sa.UniqueConstraint("org", "issuer", "subject", name=op.f("uq_users__org_issuer_subject")),
    )
    op.create_index(op.f("ix_users__issuer_subject"), "users", ["issuer", "subject"], unique=False)
    op.create_table(
        "credentials",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("totp_secret", sa.LargeBinary(), nullable=True),
        sa.Column("totp_step", sa.BigInteger(), nullable=False),
        sa.Column("recovery_hashes", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org", "user_id"],
            ["users.org", "users.id"],
            name=op.f("fk_credentials__org_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org", "user_id", name=op.f("pk_credentials")),
    )
    op.create_table(
        "devices",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("wireguard_key", sa.Text(), nullable=False),
        sa.Column("machine_key", sa.Text(), nullable=False),
        sa.Column("ipv4", sa.Text(), nullable=False),
        sa.Column("ipv6", sa.Text(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("locked", sa.Boolean(), nullable=False),
        sa.Column("ephemeral", sa.Boolean(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=True),
        sa.Column("authenticated", sa.Double(), nullable=True),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org", "user_id"], ["users.org", "users.id"], name=op.f("fk_devices__org_user_id")
        ),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_devices__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_devices")),
        sa.UniqueConstraint("org", "machine_key", name=op.f("uq_devices__org_machine_key")),
        sa.UniqueConstraint("org", "name", name=op.f("uq_devices__org_name")),
        sa.UniqueConstraint("org", "wireguard_key", name=op.f("uq_devices__org_wireguard_key")),
    )
    op.create_index(op.f("ix_devices__org_user_id"), "devices", ["org", "user_id"], unique=False)
    op.create_table(
        "enrolment_keys",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("ephemeral", sa.Boolean(), nullable=False),
        sa.Column("approved", sa.Boolean(), nullable=False),
        sa.Column("max_uses", sa.BigInteger(), nullable=True),
        sa.Column("uses", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["org", "user_id"],
            ["users.org", "users.id"],
            name=op.f("fk_enrolment_keys__org_user_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_enrolment_keys__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_enrolment_keys")),
        sa.UniqueConstraint("hash", name=op.f("uq_enrolment_keys__hash")),
    )
    op.create_table(
        "memberships",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("group_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org", "group_id"],
            ["groups.org", "groups.id"],
            name=op.f("fk_memberships__org_group_id"),
        ),
        sa.ForeignKeyConstraint(
            ["org", "user_id"], ["users.org", "users.id"], name=op.f("fk_memberships__org_user_id")
        ),
        sa.PrimaryKeyConstraint("org", "user_id", "group_id", name=op.f("pk_memberships")),
    )
    op.create_index(
        op.f("ix_memberships__org_group_id"), "memberships", ["org", "group_id"], unique=False
    )
    op.create_table(
        "socket_connectors",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("socket_id", sa.Text(), nullable=False),
        sa.Column("connector_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org", "connector_id"],
            ["connectors.org", "connectors.id"],
            name=op.f("fk_socket_connectors__org_connector_id"),
        ),
        sa.ForeignKeyConstraint(
            ["org", "socket_id"],
            ["sockets.org", "sockets.id"],
            name=op.f("fk_socket_connectors__org_socket_id"),
        ),
        sa.PrimaryKeyConstraint(
            "org", "socket_id", "connector_id", name=op.f("pk_socket_connectors")
        ),
    )
    op.create_index(
        op.f("ix_socket_connectors__org_connector_id"),
        "socket_connectors",
        ["org", "connector_id"],
        unique=False,
    )
    op.create_table(
        "tokens",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("service_account_id", sa.Text(), nullable=True),
        sa.Column("device_id", sa.Text(), nullable=True),
        sa.Column("connector_id", sa.Text(), nullable=True),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("revoked", sa.Double(), nullable=True),
        sa.Column("last_used", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "(CASE WHEN user_id IS NULL THEN 0 ELSE 1 END)"
            " + (CASE WHEN service_account_id IS NULL THEN 0 ELSE 1 END)"
            " + (CASE WHEN device_id IS NULL THEN 0 ELSE 1 END)"
            " + (CASE WHEN connector_id IS NULL THEN 0 ELSE 1 END) = 1",
            name=op.f("ck_tokens__one_owner"),
        ),
        sa.ForeignKeyConstraint(
            ["org", "connector_id"],
            ["connectors.org", "connectors.id"],
            name=op.f("fk_tokens__org_connector_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org", "device_id"],
            ["devices.org", "devices.id"],
            name=op.f("fk_tokens__org_device_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org", "service_account_id"],
            ["service_accounts.org", "service_accounts.id"],
            name=op.f("fk_tokens__org_service_account_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org", "user_id"],
            ["users.org", "users.id"],
            name=op.f("fk_tokens__org_user_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_tokens__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens__hash")),
    )
