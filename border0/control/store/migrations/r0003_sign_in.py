"""Sign-in: logins, tokens by id, browsers' sessions, set-up links, device grants, kept answers."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the tables, and what sign-in needs of the others."""

    op.add_column("credentials", sa.Column("login", sa.Text(), nullable=True))
    op.create_index(op.f("ix_credentials__login"), "credentials", ["login"], unique=True)
    empty = sa.text("'[]'")
    op.add_column("tokens", sa.Column("networks", sa.JSON(), nullable=False, server_default=empty))
    op.create_index(op.f("ix_tokens__id"), "tokens", ["id"], unique=True)
    op.create_index(op.f("ix_users__id"), "users", ["id"], unique=True)
    op.create_table(
        "device_grants",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("user_code", sa.Text(), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("interval", sa.Double(), nullable=False),
        sa.Column("polled", sa.Double(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("browser", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_device_grants")),
        sa.UniqueConstraint("user_code", name=op.f("uq_device_grants__user_code")),
    )
    op.create_index(op.f("ix_device_grants__expires"), "device_grants", ["expires"], unique=False)
    op.create_table(
        "kept_answers",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("begun", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("org", "caller", "key", name=op.f("pk_kept_answers")),
    )
    op.create_index(op.f("ix_kept_answers__expires"), "kept_answers", ["expires"], unique=False)
    op.create_table(
        "browser_sessions",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("stage", sa.Text(), nullable=False),
        sa.Column("mfa", sa.Boolean(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("seen", sa.Double(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org", "account"],
            ["users.org", "users.id"],
            name=op.f("fk_browser_sessions__org_account"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org"], ["organisations.id"], name=op.f("fk_browser_sessions__org")
        ),
        sa.PrimaryKeyConstraint("org", "digest", name=op.f("pk_browser_sessions")),
        sa.UniqueConstraint("digest", name=op.f("uq_browser_sessions__digest")),
    )
    op.create_index(
        op.f("ix_browser_sessions__created"), "browser_sessions", ["created"], unique=False
    )
    op.create_index(
        op.f("ix_browser_sessions__org_account_created"),
        "browser_sessions",
        ["org", "account", "created"],
        unique=False,
    )
    op.create_table(
        "setup_links",
        sa.Column("org", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=True),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["org", "account"],
            ["users.org", "users.id"],
            name=op.f("fk_setup_links__org_account"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(["org"], ["organisations.id"], name=op.f("fk_setup_links__org")),
        sa.PrimaryKeyConstraint("org", "digest", name=op.f("pk_setup_links")),
        sa.UniqueConstraint("digest", name=op.f("uq_setup_links__digest")),
    )
    op.create_index(
        op.f("ix_setup_links__org_account"), "setup_links", ["org", "account"], unique=False
    )
