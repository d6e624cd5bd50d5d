"""What locks, counts and joins, on PostgreSQL too."""

from __future__ import annotations

from pathlib import Path

from tests.control.routes import test_endings, test_groups, test_service_accounts, test_users
from tests.control.store.case import OnPostgreSQL, needs_postgresql
from tests.support.controlplane import Populated, populate


class Filled(OnPostgreSQL):
    def filled(self, folder: Path) -> Populated:
        return populate(self.new_url())


@needs_postgresql
class Users(Filled, test_users.Changing):
    """Whole, for who may do what to whom is decided in the database's transaction."""


@needs_postgresql
class Invited(Filled, test_users.Making):
    """Set-up links in the commit that makes the user."""


@needs_postgresql
class Endings(Filled, test_endings.Endings):
    """All that ends with a user."""


@needs_postgresql
class Groups(Filled, test_groups.Groups):
    """Memberships and their counts."""


@needs_postgresql
class Accounts(Filled, test_service_accounts.Accounts):
    """Roles and the tokens that end with them."""
