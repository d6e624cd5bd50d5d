"""The Twisted face of the PostgreSQL proxy."""

from border0.proxies.postgres.adapters.factory import PostgresFactory
from border0.proxies.postgres.upstream import PostgresUpstream

__all__ = ["PostgresFactory", "PostgresUpstream"]
