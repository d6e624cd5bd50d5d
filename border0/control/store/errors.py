"""What can go wrong in the store; a failing database is an error, never an empty answer."""

from border0.errors import Border0Error, ConfigError


class StoreError(Border0Error):
    """Base of all errors of the store."""


class Unavailable(StoreError):
    """The database is locked, full, broken or not reachable.

    After this error a change may have been written or not, unless `certain` says that it was not.
    """

    def __init__(self, text: str, *, certain: bool = False) -> None:
        super().__init__(text)
        self.certain = certain


class NotFound(StoreError):
    """This organisation has no such object; another organisation's object does not exist either."""


class VersionConflict(StoreError):
    """Somebody else changed the object since it was read; `current` is its version now."""

    def __init__(self, text: str, current: int) -> None:
        super().__init__(text)
        self.current = current


class Duplicate(StoreError):
    """Something that must be unique is taken; `columns` names it, without the organisation."""

    def __init__(self, text: str, columns: tuple[str, ...]) -> None:
        super().__init__(text)
        self.columns = columns


class BrokenReference(StoreError):
    """The change names an object that does not exist, or removes one that others still need."""


class Invalid(StoreError):
    """A value that the store does not take: a cursor, a text with NUL, an unknown kind."""


class Exhausted(StoreError):
    """A pool of addresses or prefixes has none left to give, or there is room for no more."""


class Refused(StoreError):
    """A token, key or invite does not open anything: `reason` is one word for the audit."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.reason = reason


class SchemaTooNew(ConfigError):
    """The database was made by a newer border0, which this one must not touch."""
