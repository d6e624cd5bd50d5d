"""A store without threads: the same database, answered at once."""

from twisted.internet.defer import fail, succeed

from border0.control.store.transaction import Change


class DirectStore:
    """`Store.read` and `Store.change` on a `Database`; for one thread.

    `broken`: an error that every call meets.
    """

    def __init__(self, database):
        self.database = database
        self.broken = None
        self.changes = 0

    def read(self, function):
        try:
            if self.broken is not None:
                raise self.broken
            return succeed(self.database.read(function))
        except Exception:
            return fail()

    def change(self, function, *, org, actor):
        try:
            if self.broken is not None:
                raise self.broken
            self.changes += 1
            (outcome,), _ = self.database.commit([Change(function, org, actor)])
            if outcome.error is not None:
                raise outcome.error
            return succeed(outcome.value)
        except Exception:
            return fail()
