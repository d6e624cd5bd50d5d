"""Sign-in on a database of either kind, answered at once."""

import hashlib
from threading import Thread

from border0.control.signin import links
from border0.control.signin.model import Factors
from border0.control.signin.passwords import normal
from border0.control.signin.storage import SqlSignIn
from border0.control.signin.totp import secret_from
from border0.control.store import (
    users,
)
from border0.secrets import Secret
from tests.control.store.case import (
    ACME,
    START,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)
from tests.support.directstore import DirectStore
from tests.support.signin import Control, now_of
from tests.support.web import ORIGIN

KEY = bytes(range(32))
PASSWORD = "canary-password-four-words"
TOTP = secret_from(b"canary totp secret..")


class HashedPasswords:
    """Fast, and what is stored shows nothing of the password."""

    count = 0

    async def hash(self, password):
        return Secret(hashlib.sha256(normal(password.reveal()).encode()).hexdigest())

    async def verify(self, stored, password):
        return stored is not None and stored == await self.hash(password)

    def is_outdated(self, stored):
        return False


class SqlControl(Control):
    start = START

    def __init__(self, storage, **more):
        super().__init__(storage=storage, **more)
        self.sign_in.passwords = HashedPasswords()


def factors(totp=TOTP, step=0, recovery=()):
    return Factors(Secret("hash"), totp, step, tuple(recovery))


class StorageCase(DatabaseCase):
    def setUp(self):
        super().setUp()
        self.store = DirectStore(self.database)
        self.storage = SqlSignIn(self.store, KEY, grant_limit=3)

    def run_(self, name, *arguments, **more):
        return now_of(getattr(self.storage, name)(*arguments, **more))

    def user(self, login="bob@own.test", role="member", org=ACME, **more):
        return self.change(
            lambda tx: users.create(
                tx, issuer="local", subject=login, email=login, role=role, **more
            ),
            org=org,
        ).id

    def with_password(self, login="bob@own.test", *, role="member", org=ACME, **more):
        """A user with credentials, by way of a link."""
        user = self.user(login, role, org)
        made = links.make(org, ORIGIN, START, user)
        self.run_("add_link", made.link)
        account = self.run_("create_owner", made.link.digest, START, "", "Bob", factors(**more))
        self.assertEqual(account.id, user)
        return account

    def several(self, function, count=4):
        """What `count` callers get who come at the same time, each with a database of its own."""
        results, errors = [], []

        def call(storage):
            try:
                results.append(now_of(function(storage)))
            except Exception as error:
                errors.append(error)

        storages = [
            SqlSignIn(DirectStore(self.opened(self.url, busy_seconds=20.0)), KEY, grant_limit=3)
            for _ in range(count)
        ]
        threads = [Thread(target=call, args=(storage,)) for storage in storages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        return results


def on_both(names, *parts):
    """Cases of the parts, on SQLite and on PostgreSQL, into a module's names."""
    for part in parts:
        here, there = f"{part.__name__}OnSQLite", f"{part.__name__}OnPostgreSQL"
        names[here] = type(here, (part, OnSQLite, StorageCase), {})
        names[there] = needs_postgresql(type(there, (part, OnPostgreSQL, StorageCase), {}))
