"""The server's direction of a session: forward first, keep the books after.

Source: PostgreSQL documentation, "Message Flow" (simple and extended query, COPY, pipelining).
Pairs replies with what was asked, writes the query records and exchanges the errors of failing
statements (see `denial`). Rows are counted by their headers only and never copied.

Every message from the client that the server answers leaves an entry in `expected`. A ReadyForQuery
ends the entries up to the next Sync or simple query, and an error in the extended protocol ends
those up to the next Sync, for the server skips to it. The transaction status is always the one that
the last ReadyForQuery carried.
"""

from collections import deque
from collections.abc import Callable

from border0.audit.sessionlog import SessionLog
from border0.proxies.postgres import codec
from border0.proxies.postgres.codec import ProtocolError
from border0.proxies.postgres.expected import (
    BOUND,
    CLOSED,
    COPY_ENDED,
    DESCRIBED,
    PARSED,
    SKIPPING,
    SYNCED,
    Change,
    Denied,
    Expected,
    Running,
)

HELD_LIMIT = 64 * 1024  # bytes of a message whose body is read; longer ones pass unread

_HEADER = codec.HEADER.unpack_from
_LIMIT = codec.MESSAGE_LIMIT
# Kinds whose body is read: C(ommandComplete) E(rror) S(tatus) Z. All others are known by header.
_READ = frozenset(b"CESZ")


_COMPLETIONS = {49: PARSED, 50: BOUND, 51: CLOSED, 84: DESCRIBED, 110: DESCRIBED}


class Replies:
    """The server's half of a session machine; `Session` adds the client's.

    :param to_client: takes bytes for the client.
    :param log: gets the query records.
    :param status: called with each ParameterStatus name and value.
    :param clock: the wall clock, seconds since 1970.
    """

    def __init__(
        self,
        to_client: Callable[[bytes], None],
        log: SessionLog,
        parameter_status: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self.to_client = to_client
        self._query = log.query
        self._ran = log.ran
        self._parameter_status = parameter_status
        self._clock = clock
        self.expected: deque[Expected] = deque()
        self.status = codec.IDLE
        self.bytes_out = 0
        self.fatal = False  # the server sent a FATAL error: it says goodbye itself
        self.mid_message = False  # the client has part of a message: nothing may be put between
        self._copy_in = False
        self._denials = 0  # entries of class Denied in `expected`
        self._careful = False  # look at errors before they pass
        self._skip = 0  # bytes of a message still to come that nobody reads
        self._parts: list[bytes] = []  # an unfinished message whose body is read, or a header
        self._lack = 0  # bytes it still lacks at least
        self._sent = 0  # bytes of it that the client already has

    @property
    def busy(self) -> bool:
        """Whether the server still owes replies or holds an unfinished pipeline."""
        return bool(self.expected)

    def server(self, data: bytes) -> None:
        """Take a chunk from the server.

        :raises ProtocolError: a message of impossible length.
        """
        if self._careful:
            self._exchange(data)
            return
        self.to_client(data)
        end = len(data)
        self.bytes_out += end
        at = self._skip
        if at:
            if at >= end:
                self._skip = at - end
                self.mid_message = self._skip > 0
                return
            self._skip = 0
        if self._lack:
            self._parts.append(data)
            self._sent += end
            self._lack -= end
            if self._lack > 0:
                return
            data = b"".join(self._parts)
            end = len(data)
            self._parts.clear()
            self._lack = self._sent = 0
        expected = self.expected
        while at + 5 <= end:
            kind, size = _HEADER(data, at)
            if size < 4 or size > _LIMIT:
                raise ProtocolError("the server sent a message of impossible length")
            stop = at + 1 + size
            if kind == 68 or kind == 100:  # DataRow, CopyData
                at = stop
                continue
            if stop > end and kind in _READ and size <= HELD_LIMIT:
                break
            # The common replies are booked in line; `_reply` knows all of them.
            head = expected[0] if expected else None
            if kind == 90 and head is SYNCED and size == 5:
                expected.popleft()
                self.status = data[at + 5]
                self._copy_in = False
                if expected and expected[0] is COPY_ENDED:
                    self._strip()
            elif kind == 90 and head.__class__ is Running and head.simple and len(expected) == 1:
                # The end of a lone simple query.
                if size == 5:
                    self.status = data[at + 5]
                self._copy_in = False
                expected.popleft()
                self._record(head)
            elif kind == 67 and head.__class__ is Running and not head.copying:
                count = data[data.rfind(b" ", at, stop) + 1 : stop - 1]
                if count.isdigit() and len(count) < 20:
                    head.rows += int(count)
                if not head.simple:
                    expected.popleft()
                    self._record(head)
            elif (kind == 50 and head is BOUND) or (kind == 84 and head is DESCRIBED):
                expected.popleft()
            elif kind != 84 or head.__class__ is not Running:
                self._reply(kind, data, at, stop)
            at = stop
        if at < end:
            self._keep(data[at:], end - at)
        elif at > end:
            self._skip = at - end
        self.mid_message = at != end

    def _keep(self, part: bytes, sent: int) -> None:
        size = 5 if len(part) < 5 else _HEADER(part)[1] + 1
        self._parts.append(part)
        self._lack = size - len(part)
        self._sent = sent

    def _exchange(self, data: bytes) -> None:
        """As `server`, while a denial is under way: errors are looked at before they pass."""
        out: list[bytes] = []
        at = self._skip
        if at:
            out.append(data[:at])
            self._skip = max(0, at - len(data))
        if self._parts:
            self._parts.append(data)
            self._lack -= len(data)
            if self._lack > 0:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        mark, self._sent, self._lack = self._sent or at, 0, 0
        end = len(data)
        while at + 5 <= end:
            kind, size = _HEADER(data, at)
            if size < 4 or size > _LIMIT:
                raise ProtocolError("the server sent a message of impossible length")
            stop = at + 1 + size
            if stop > end and kind in _READ and size <= HELD_LIMIT:
                break
            denied = self._denied(data[at:stop]) if kind == 69 else None
            if denied is not None:
                out += data[mark:at], denied.reply
                mark = stop
            self._reply(kind, data, at, stop)
            at = stop
        rest = end - at
        if rest > 0:
            # The start of a message is held back while its kind may make it ours.
            out.append(data[mark:at])
            held_from = max(at, mark)
            if not self._denials:
                out.append(data[held_from:])
                held_from = end
            self._keep(data[at:], held_from - at)
        else:
            out.append(data[mark:])
            self._skip = max(self._skip, -rest)
        self._careful = self._denials > 0
        joined = b"".join(out)
        self.bytes_out += len(joined)
        self.mid_message = self._skip > 0 or self._sent > 0
        if joined:
            self.to_client(joined)

    def finish(self, data: bytes) -> None:
        """Give the client the rest of the message that it has part of, and nothing behind it.

        Takes the server's chunks in place of `server` once the session is over; `mid_message` says
        whether more is wanted. Nothing is booked.

        :raises ProtocolError: a message of impossible length.
        """
        if self._parts:
            held, had = b"".join((*self._parts, data)), self._sent
            self._parts.clear()
            data = held[had:]
            if len(held) < 5:
                self._parts.append(held)
                self._sent = len(held)
                self.to_client(data)
                return
            size = _HEADER(held)[1]
            if size < 4 or size > _LIMIT:
                raise ProtocolError("the server sent a message of impossible length")
            self._skip = size + 1 - had
        rest = data[: self._skip]
        self._skip -= len(rest)
        self.mid_message = self._skip > 0
        if rest:
            self.to_client(rest)

    def _denied(self, frame: bytes) -> Denied | None:
        for entry in self.expected:
            if isinstance(entry, Denied) and entry.mark in frame:
                return entry
        return None

    def _reply(self, kind: int, data: bytes, at: int, stop: int) -> None:
        """Book one message of the server other than a row."""
        expected = self.expected
        if kind == 90:  # ReadyForQuery
            if stop - at == 6:
                self.status = data[at + 5]
            self._copy_in = False
            self._synced()
            return
        if expected and expected[0] is COPY_ENDED:
            self._strip()  # the client ended a COPY where there was none: no reply
        head = expected[0] if expected else None
        if kind == 67 or kind == 73 or kind == 115:  # Complete, EmptyQuery, PortalSuspended
            if isinstance(head, Running):
                self._complete(head, kind, data[at + 5 : stop])
        elif kind in _COMPLETIONS:
            if head is _COMPLETIONS[kind]:
                expected.popleft()
            elif isinstance(head, Change) and head.reply is _COMPLETIONS[kind]:
                expected.popleft()
                head.settle()
        elif kind == 69:
            self._error(data[at:stop])
        elif kind == 83:
            name, value = codec.pair(data[at + 5 : stop])
            self._parameter_status(name, value)
        elif kind == 71 or kind == 87:  # CopyIn, CopyBoth
            self._copy_in = True
            if isinstance(head, Running):
                head.copying = True

    def _complete(self, running: Running, kind: int, body: bytes) -> None:
        if kind == 67:
            count = body[body.rfind(b" ") + 1 : -1]
            if count.isdigit() and len(count) < 20:
                running.rows += int(count)
        elif kind == 115:
            running.rows += running.limit
        self.expected.popleft()
        if running.copying:
            self._after_copy()
            running.copying = False
        if running.simple:
            self.expected.appendleft(running)
        else:
            self._record(running)

    def _after_copy(self) -> None:
        # While it copies in, the server ignores Sync: those before the end have no reply.
        expected = self.expected
        self._copy_in = False
        while expected:
            entry = expected.popleft()
            if entry is COPY_ENDED:
                return
            self._drop(entry)

    def _error(self, frame: bytes) -> None:
        fields = codec.error_fields(frame[5:])
        state = fields.get("C", "")
        if fields.get("V", fields.get("S")) in ("FATAL", "PANIC"):
            self.fatal = True
        if state == codec.QUERY_CANCELED:
            state = "cancelled"
        denied = self._denied(frame) if self._denials else None
        expected = self.expected
        if denied is not None:
            while expected[0] is not denied:
                self._drop(expected.popleft())
        self._strip()
        if not expected:
            return
        head = expected[0]
        if isinstance(head, Running):
            head.status = state
            if head.simple:
                return
        elif isinstance(head, Denied) and head.simple:
            return
        if head is SYNCED:
            return
        expected.popleft()
        if isinstance(head, Running):
            self._record(head)
            if head.copying:
                self._after_copy()
        else:
            self._drop(head)
        while expected and expected[0] is not SYNCED:
            self._drop(expected.popleft())
        if not expected:
            expected.append(SKIPPING)

    def _synced(self) -> None:
        self._strip()
        expected = self.expected
        skipping = bool(expected) and expected[0] is SKIPPING
        while expected:
            entry = expected.popleft()
            if entry is SYNCED:
                break
            if isinstance(entry, Running) and entry.simple and not skipping:
                self._record(entry)
                break
            self._drop(entry)
            if isinstance(entry, Denied) and entry.simple and not skipping:
                break
        self._strip()

    def _strip(self) -> None:
        # The end of a simple COPY has no reply of its own.
        expected = self.expected
        while expected and expected[0] is COPY_ENDED:
            expected.popleft()

    def _drop(self, entry: Expected) -> None:
        """An entry that the server skipped."""
        if isinstance(entry, Running):
            entry.status = "skipped"
            self._record(entry)
        elif isinstance(entry, Denied):
            self._denials -= 1
        elif isinstance(entry, Change):
            entry.undo()

    def _record(self, running: Running) -> None:
        at = running.at
        spent = self._clock() - at
        took = spent * 1000.0 if spent > 0.0 else 0.0
        self._ran(running.verdict, at, took, running.rows, running.status)

    def abandon(self, status: str) -> None:
        """The session is over: record what still runs with this status."""
        expected = self.expected
        while expected:
            entry = expected.popleft()
            if isinstance(entry, Running):
                entry.status = status
                self._record(entry)
        self._denials = 0
