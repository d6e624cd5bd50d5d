"""What a `MapClient` tells its node."""

from dataclasses import dataclass

from border0.control.push.messages import Key


@dataclass(slots=True)
class Applied:
    """The map changed; `put` in the order in which the server sent them."""

    revision: int
    full: bool
    put: list[Key]
    dropped: list[Key]


@dataclass(slots=True)
class InSync:
    """Nothing was missed: the map is the one of this revision."""

    revision: int


@dataclass(slots=True)
class Behind:
    """The server offered an older map, which was not applied: it may be a restored copy."""

    revision: int


@dataclass(slots=True)
class Doubt:
    """Something was missed; the whole map is asked for."""

    reason: str


@dataclass(slots=True)
class SoftChanged:
    """`kind` is endpoints or presence; the value is in the client's attribute of that name.

    What came with the endpoints, or no longer does, is in `paths`.
    """

    kind: str
    node: str


@dataclass(slots=True)
class StunChanged:
    """The server names other STUN servers than before; ":3478" is its own host."""

    servers: list[str]


@dataclass(slots=True)
class TicketsChanged:
    """There are other tickets for relays than before; they are in the client's `tickets`."""


@dataclass(slots=True)
class CommandReceived:
    """Do this once and call `answer`."""

    id: str
    verb: str
    arguments: dict[str, str]


@dataclass(slots=True)
class Recorded:
    """A batch of records is stored, or why it is not; the next one may be sent."""

    batch: int
    ok: bool
    detail: str


@dataclass(slots=True)
class Bye:
    """The server is about to close: why, and how many seconds to stay away."""

    reason: str
    retry_after: float


@dataclass(slots=True)
class Lost:
    """The connection is gone; everything that was learnt stays."""


@dataclass(slots=True)
class Seen:
    """A node's presence: `heard` is when its address was last confirmed, in the client's time."""

    online: bool
    address: str
    heard: float


Event = (
    Applied
    | InSync
    | Behind
    | Doubt
    | SoftChanged
    | StunChanged
    | TicketsChanged
    | CommandReceived
    | Recorded
    | Bye
    | Lost
)
