"""The extended protocol's books: prepared statements, portals, and what is under way.

Source: PostgreSQL documentation, "Message Flow", "Extended Query". Knows which verdict a portal
runs under; reads the bodies of Parse, Bind, Execute and Close, and forwards nothing.
"""

from collections.abc import Callable

from border0.audit.sessionlog import SessionLog
from border0.proxies.postgres import codec
from border0.proxies.postgres.codec import ProtocolError
from border0.proxies.postgres.expected import (
    BOUND,
    CLOSED,
    DESCRIBED,
    SYNCED,
    Running,
    Unnamed,
    Verdict,
)
from border0.proxies.postgres.names import Binding, Names, Statements
from border0.proxies.postgres.replies import Replies

RUN_UNNAMED = b"D\0\0\0\6P\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\4"
"""Describe and Execute of the unnamed portal without a row limit, and Sync: libpq's usual end."""

_BIND_BEFORE_RUN = len(RUN_UNNAMED) + 1
_HEADER = codec.HEADER.unpack_from
_NO_LIMIT = bytes(4)

_CURSOR = Unnamed("(execute a cursor or portal of an earlier statement)", True)
_UNKNOWN = Unnamed("(bind a statement of unknown text)", True)
_UNKNOWN_DENIED = Unnamed(
    "(bind a statement of unknown text)",
    False,
    clause="unclassified",
    reason="this session has not prepared a statement of that name",
)


class Extended(Replies):
    """A session's prepared statements and portals.

    :param restricted: whether policy restricts statements at all; then what the session has not
        prepared itself cannot be bound.
    """

    def __init__(
        self,
        to_client: Callable[[bytes], None],
        log: SessionLog,
        parameter_status: Callable[[str, str], None],
        clock: Callable[[], float],
        restricted: bool,
    ) -> None:
        super().__init__(to_client, log, parameter_status, clock)
        self._restricted = restricted
        self._statements = Statements()
        self._known = self._statements.verdicts.get
        self._portals = Names()
        self._bindings: dict[bytes, Binding] = {}  # Binds of portals that are under way
        self._pipeline = 0  # Syncs so far
        self._unsynced = False  # extended messages went out after the last Sync
        self._discarding = False  # drop everything up to the next Sync

    def _run(self, data: bytes) -> bool:
        """Book a whole chunk that ends in `RUN_UNNAMED`, if it is that and one usual Bind.

        As the four messages one by one; False: nothing is booked, read them one by one.
        """
        kind, size = _HEADER(data)
        if kind != 66 or size + _BIND_BEFORE_RUN != len(data) or data[5] or size < 5:
            return False
        if self._discarding or self._bindings or self._statements.fresh:
            return False
        cut = data.find(b"\0", 6, size)
        verdict = self._known(data[6:cut]) if cut > 0 else None
        if verdict is None:
            return False
        self._portals.verdicts[b""] = verdict
        self._unsynced = False
        self._pipeline += 1
        self.expected += (BOUND, DESCRIBED, Running(verdict, self._clock(), False, 0), SYNCED)
        return True

    def _bind(self, body: bytes) -> Verdict | None:
        """Book a Bind; returns the refusal when it must not go on."""
        first = body.find(b"\0")
        second = body.find(b"\0", first + 1)
        if first < 0 or second < 0:
            raise ProtocolError("the client sent a Bind without names")
        name, portal = body[first + 1 : second], body[:first]
        verdict, certain = self._statements.find(name, self._pipeline)
        if verdict is None:
            # It may come from an SQL-level PREPARE; or the server says that there is none.
            if self._restricted:
                return _UNKNOWN_DENIED
            verdict, certain = _UNKNOWN, True
        if portal:
            self._forget_portals()
        self._unsynced = True
        if certain and not portal:
            self._bindings.pop(portal, None)
            self._portals.put(portal, verdict)
            self.expected.append(BOUND)
        else:
            doubt = None if certain else name
            self.expected.append(
                Binding(self._statements, doubt, self._portals, portal, verdict, self._bindings)
            )
        return None

    def _forget_portals(self) -> None:
        """Portals end with their transaction."""
        if not self.expected and self.status == codec.IDLE and not self._unsynced:
            self._portals.clear()

    def _execute(self, body: bytes) -> Running:
        if len(body) < 5 or body[-5]:
            raise ProtocolError("the client sent a malformed Execute")
        limit = 0 if body.endswith(_NO_LIMIT) else int.from_bytes(body[-4:], "big")
        portal = body[:-5]
        if portal:
            self._forget_portals()
        running = Running(self._portals.get(portal) or _CURSOR, self._clock(), False, limit)
        if self._bindings:
            binding = self._bindings.get(portal)
            if binding is not None:
                binding.runs.append(running)
        return running

    def _close(self, body: bytes) -> None:
        if body[:1] == b"P":
            self._portals.drop(body[1:-1])
            self._bindings.pop(body[1:-1], None)
            self.expected.append(CLOSED)
        else:
            self.expected.append(self._statements.close(body[1:-1], self._pipeline))


def parse_body(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Return statement name, text and the text's terminator of a Parse.

    :raises ProtocolError: the body is no Parse's.
    """
    first = body.find(b"\0")
    second = body.find(b"\0", first + 1)
    if first < 0 or second < 0:
        raise ProtocolError("the client sent a malformed Parse")
    return body[:first], body[first + 1 : second], b"\0"
