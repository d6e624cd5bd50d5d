"""Policies, statements, changes, and what happened."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""

    op.create_table(
        "audit_events",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("socket", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("line", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_audit_events__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_audit_events")),
    )
    op.create_index(op.f("ix_audit_events__org_at"), "audit_events", ["org", "at"], unique=False)
    op.create_index(
        op.f("ix_audit_events__org_session"), "audit_events", ["org", "session"], unique=False
    )
    op.create_index(
        op.f("ix_audit_events__org_type"), "audit_events", ["org", "type"], unique=False
    )
    op.create_table(
        "changes",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.Column("op", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_changes__org")),
        sa.PrimaryKeyConstraint("org", "revision", "position", name=op.f("pk_changes")),
    )
    op.create_table(
        "policies",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("org_wide", sa.Boolean(), nullable=False),
        sa.Column("tag_rules", sa.JSON(), nullable=False),
        sa.Column("current", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("updated", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_policies__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_policies")),
        sa.UniqueConstraint("org", "name", name=op.f("uq_policies__org_name")),
    )
    op.create_table(
        "recordings",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("connector_id", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_recordings__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_recordings")),
    )
    op.create_index(
        op.f("ix_recordings__org_session_id"), "recordings", ["org", "session_id"], unique=False
    )
    op.create_index(
        op.f("ix_recordings__org_started"), "recordings", ["org", "started"], unique=False
    )
    op.create_table(
        "sessions",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("connector_id", sa.Text(), nullable=False),
        sa.Column("socket_id", sa.Text(), nullable=False),
        sa.Column("socket", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("protocol", sa.Text(), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("ended", sa.Double(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("bytes_in", sa.BigInteger(), nullable=False),
        sa.Column("bytes_out", sa.BigInteger(), nullable=False),
        sa.Column("kill_asked", sa.Double(), nullable=True),
        sa.Column("killed_by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_sessions__org")),
        sa.PrimaryKeyConstraint("org", "id", name=op.f("pk_sessions")),
    )
    op.create_index(op.f("ix_sessions__org_ended"), "sessions", ["org", "ended"], unique=False)
    op.create_index(
        op.f("ix_sessions__org_socket_id"), "sessions", ["org", "socket_id"], unique=False
    )
    op.create_index(op.f("ix_sessions__org_started"), "sessions", ["org", "started"], unique=False)
    op.create_index(op.f("ix_sessions__org_user_id"), "sessions", ["org", "user_id"], unique=False)
    op.create_table(
        "statements",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("signatures", sa.JSON(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_statements__org")),
        sa.PrimaryKeyConstraint("org", "type", "id", name=op.f("pk_statements")),
    )
    op.create_index(op.f("ix_statements__org_hash"), "statements", ["org", "hash"], unique=False)
    op.create_table(
        "attachments",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("socket_id", sa.Text(), nullable=False),
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org", "policy_id"],
            ["policies.org", "policies.id"],
            name=op.f("fk_attachments__org_policy_id"),
        ),
        sa.ForeignKeyConstraint(
            ["org", "socket_id"],
            ["sockets.org", "sockets.id"],
            name=op.f("fk_attachments__org_socket_id"),
        ),
        sa.PrimaryKeyConstraint("org", "socket_id", "policy_id", name=op.f("pk_attachments")),
    )
    op.create_index(
        op.f("ix_attachments__org_policy_id"), "attachments", ["org", "policy_id"], unique=False
    )
    op.create_table(
        "policy_versions",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("reverts", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org", "policy_id"],
            ["policies.org", "policies.id"],
            name=op.f("fk_policy_versions__org_policy_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org", "policy_id", "number", name=op.f("pk_policy_versions")),
    )
