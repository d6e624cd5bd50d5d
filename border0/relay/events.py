"""What a relay or a client tells its owner, one line of a log each.

Does not: decide what follows from it.
"""

from typing import NamedTuple


class Joined(NamedTuple):
    """A client is here. `bound`: to the TLS channel."""

    org: str
    node: str
    key: bytes
    bound: bool
    browser: bool


class Left(NamedTuple):
    """A client is gone; `code` 0: its transport ended."""

    org: str
    node: str
    key: bytes
    code: int
    text: str


class KeyInUseTwice(NamedTuple):
    """Connections with one key replace each other again and again."""

    org: str
    node: str
    key: bytes


class Trouble(NamedTuple):
    """A client was told HEALTH with this code."""

    org: str
    node: str
    key: bytes
    code: int
    text: str


class Health(NamedTuple):
    """The relay told us HEALTH."""

    code: int
    text: str


class Gone(NamedTuple):
    """Who has this key is not at the relay."""

    key: bytes
    reason: int


class Drain(NamedTuple):
    """The relay ends in `until` seconds; leave at `leave_at` (monotonic), to `other` if not ""."""

    until: float
    leave_at: float
    other: str


class Lost(NamedTuple):
    """The connection is over; `code` is a CLOSE's, `remote`: the relay said it."""

    code: int
    text: str
    remote: bool


RelayEvent = Joined | Left | KeyInUseTwice | Trouble
ClientEvent = Health | Gone | Drain | Lost
