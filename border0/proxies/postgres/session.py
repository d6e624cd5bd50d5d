"""The relay of one session: what the client sends is judged, then forwarded as it came.

Source: PostgreSQL documentation, "Message Flow", "Pipelining". Bytes in, bytes out through two
callables; no socket, no clock of its own. The server's direction is in `replies`.

Read are Query, Parse, Bind, Execute, Close, Describe, Sync and FunctionCall; Flush, CopyData,
CopyDone, CopyFail and Terminate pass by their header. A chunk of whole allowed messages goes on as
the very object that came. Only Query and Parse are held until they are whole; the body of a Bind
or CopyData streams through.

A denied statement:

- idle, nothing in flight: the error is ours alone, the server never hears of it;
- otherwise a failing statement takes its place, so that the server rolls back what came before it
  in the same pipeline or transaction, and the server's error is exchanged for ours, in order;
- in the extended protocol everything is then dropped up to the Sync, which is forwarded.
"""

from collections.abc import Callable
from functools import partial

from border0.audit.sessionlog import DENIED, SessionLog
from border0.proxies.postgres import codec, denial
from border0.proxies.postgres.codec import ProtocolError
from border0.proxies.postgres.expected import (
    BOUND,
    COPY_ENDED,
    DESCRIBED,
    SYNCED,
    Denied,
    Gate,
    Running,
    Unnamed,
    Verdict,
)
from border0.proxies.postgres.extended import RUN_UNNAMED, Extended, parse_body

STATEMENT_LIMIT = 1 << 20  # bytes of a Query or Parse
NAMES_LIMIT = 8192  # bytes in which a Bind has its portal and statement names
SHORT_LIMIT = 8192  # bytes of an Execute, Close, Describe

_HEADER = codec.HEADER.unpack_from
_LIMIT = codec.MESSAGE_LIMIT
_EVERYTHING = 1 << 62  # bytes to wait for while a judgement is awaited
_KINDS = frozenset(b"QPBECDSHFdcfX")


class Session(Extended):
    """One client and one server connection after both logins.

    :param gate: judges the statements.
    :param restricted: whether policy restricts statements at all; then what the session has not
        prepared itself cannot be bound.
    :param hold: called with True when the client's input must wait, with False when it flows again.
    :param failed: called when input that had to wait turns out to be malformed.
    :param random_bytes: source of the words that mark failing statements.
    :param statement_limit: longest Query or Parse in bytes.
    """

    def __init__(
        self,
        gate: Gate,
        to_server: Callable[[bytes], None],
        to_client: Callable[[bytes], None],
        log: SessionLog,
        clock: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        *,
        restricted: bool = True,
        hold: Callable[[bool], None] = lambda on: None,
        failed: Callable[[ProtocolError], None] = lambda error: None,
        statement_limit: int = STATEMENT_LIMIT,
    ) -> None:
        super().__init__(to_client, log, gate.parameter_status, clock, restricted)
        self.to_server = to_server
        self._decide = gate.decide
        self._decide_function_call = gate.decide_function_call
        self._hold = hold
        self._failed = failed
        self._random = random_bytes
        self._statement_limit = statement_limit
        self._on_answer = self._answered
        self._answer: Verdict | None = None
        self._ended = False
        self.bytes_in = 0
        self.terminated = False  # the client said Terminate
        self._pass = 0  # bytes of a message still to come that go on unread
        self._lose = 0  # bytes of a message still to come that are dropped
        self._late: Callable[[], None] | None = None  # refuses that message when it has come
        self._in: list[bytes] = []  # an unfinished message that is read
        self._want = 0  # bytes it still lacks at least

    def client(self, data: bytes) -> None:
        """Take a chunk from the client.

        :raises ProtocolError: an unknown message or an impossible length.
        """
        at, end = 0, len(data)
        self.bytes_in += end
        if self._want > 0:
            self._in.append(data)
            self._want -= end
            if self._want > 0:
                return
            data = b"".join(self._in)
            end = len(data)
            self._in.clear()
            self._want = 0
        if self._pass:
            at = self._pass
            if at >= end:
                self._pass = at - end
                self.to_server(data)
                return
            self._pass = 0
        begin = 0  # data[begin:at] is to be forwarded
        expected = self.expected
        if self._lose:
            begin = at = self._lose
            if at > end:
                self._lose = at - end
                return
            self._lose = 0
            if self._late is not None:
                late, self._late = self._late, None
                late()
        elif not at and data.endswith(RUN_UNNAMED) and self._run(data):
            self.to_server(data)
            return
        while end - at >= 5:
            kind, size = _HEADER(data, at)
            if size < 4 or size > _LIMIT or kind not in _KINDS:
                raise ProtocolError(f"the client sent an impossible message (kind {kind})")
            stop = at + 1 + size
            if self._discarding and kind != 83 and kind != 88:
                if begin < at:
                    self.to_server(data[begin:at])
                at = begin = stop
                continue
            if kind == 81 or kind == 80:  # Query, Parse
                if size > self._statement_limit:
                    if begin < at:
                        self.to_server(data[begin:at])
                    self._when_whole(stop <= end, partial(self._too_long, kind == 81))
                    at = begin = stop
                    continue
                if stop > end:
                    break
                name = b""
                if kind == 81:
                    sql = data[at + 5 : stop - 1]
                    ended = data[stop - 1 : stop]
                else:
                    name, sql, ended = parse_body(data[at + 5 : stop])
                if ended != b"\0" or b"\0" in sql:
                    raise ProtocolError("the client sent a statement that is no single string")
                verdict = self._answer or self._decide(sql, self._on_answer)
                if verdict is None:
                    if begin < at:
                        self.to_server(data[begin:at])
                    self._wait(data[at:])
                    return
                self._answer = None
                if not verdict.allowed:
                    if begin < at:
                        self.to_server(data[begin:at])
                    self._deny(verdict, kind == 81, unnamed=kind == 80 and not name)
                    begin = stop
                elif kind == 81:
                    expected.append(Running(verdict, self._clock(), True, 0))
                else:
                    expected.append(self._statements.parse(name, verdict, self._pipeline))
                    self._unsynced = True
            elif kind == 66:  # Bind
                # The usual one, whole and of the unnamed portal, is booked in line.
                whole = stop <= end and size > 4
                cut = data.find(b"\0", at + 6, stop) if whole and not data[at + 5] else -1
                bound = self._known(data[at + 6 : cut]) if cut > 0 else None
                if bound is not None and not self._bindings:
                    self._portals.verdicts[b""] = bound
                    self._unsynced = True
                    expected.append(BOUND)
                    at = stop
                    continue
                if end - at < min(size + 1, NAMES_LIMIT):
                    break
                refused = self._bind(data[at + 5 : min(stop, at + NAMES_LIMIT)])
                if refused is not None:
                    if begin < at:
                        self.to_server(data[begin:at])
                    self._when_whole(stop <= end, partial(self._deny, refused, False))
                    begin = stop
            elif kind == 69 or kind == 68 or kind == 67:  # Execute, Describe, Close
                if size > SHORT_LIMIT:
                    raise ProtocolError("the client sent an overlong message")
                if stop > end:
                    break
                if kind == 69:
                    expected.append(self._execute(data[at + 5 : stop]))
                elif kind == 68:
                    expected.append(DESCRIBED)
                else:
                    self._close(data[at + 5 : stop])
                self._unsynced = True
            elif kind == 83:  # Sync
                if size != 4:
                    raise ProtocolError("the client sent an impossible Sync")
                self._discarding = self._unsynced = False
                self._pipeline += 1
                if self._statements.fresh:
                    self._statements.synced()
                expected.append(SYNCED)
            elif kind == 70:  # FunctionCall
                verdict = self._decide_function_call()
                if verdict.allowed:
                    expected.append(Running(verdict, self._clock(), True, 0))
                else:
                    if begin < at:
                        self.to_server(data[begin:at])
                    self._when_whole(stop <= end, partial(self._deny, verdict, True))
                    begin = stop
            elif kind == 99 or kind == 102:  # CopyDone, CopyFail
                if expected:
                    expected.append(COPY_ENDED)
            elif kind == 88:  # Terminate
                self.terminated = True
            at = stop
        if at > end:
            if begin > end:
                self._lose = begin - end
            else:
                self._pass = at - end
            at = end
        elif at < end:
            self._want = (5 if end - at < 5 else self._needed(data, at)) - (end - at)
            self._in.append(data[at:])
        if begin < at:
            self.to_server(data if at - begin == end else data[begin:at])

    def _needed(self, data: bytes, at: int) -> int:
        size: int = _HEADER(data, at)[1] + 1
        return min(size, NAMES_LIMIT) if data[at] == 66 else size

    def _wait(self, rest: bytes) -> None:
        self._in.append(rest)
        self._want = _EVERYTHING
        self._hold(True)

    def _answered(self, verdict: Verdict) -> None:
        """The judgement of a large statement arrived; go on with what was held."""
        if self._ended:
            return
        self._answer = verdict
        held = b"".join(self._in)
        self._in.clear()
        self._want = 0
        self.bytes_in -= len(held)  # counted when they came
        try:
            self.client(held)
        except ProtocolError as error:
            self._failed(error)
            return
        if self._want < _EVERYTHING // 2:
            self._hold(False)

    def _when_whole(self, whole: bool, refuse: Callable[[], None]) -> None:
        """Refuse a message once it has come: a server never answers before.

        libpq, as of 18, waits for ever for an answer that it read while it was still sending.
        """
        if whole:
            refuse()
        else:
            self._late = refuse

    def _too_long(self, simple: bool) -> None:
        limit = self._statement_limit
        verdict = Unnamed(
            f"(a statement longer than {limit} bytes)",
            False,
            reason=f"a statement may be {limit} bytes long at most",
        )
        self._deny(verdict, simple, codec.PROGRAM_LIMIT_EXCEEDED)

    def _deny(
        self,
        verdict: Verdict,
        simple: bool,
        sqlstate: str = codec.INSUFFICIENT_PRIVILEGE,
        unnamed: bool = False,
    ) -> None:
        """Refuse a statement that is not forwarded; `simple`: its protocol has no Sync.

        `unnamed`: a Parse of the unnamed statement, which ends the one before even when it fails.
        """
        self._query(
            verdict.text,
            verdict.klass,
            verdict.tables,
            at=self._clock(),
            duration_ms=0.0,
            rows=0,
            status=sqlstate,
            decision=DENIED,
            policy=verdict.policy,
            reason=verdict.reason,
        )
        self._discarding = not simple
        reply = denial.error(verdict, sqlstate=sqlstate)
        quiet = not self.expected and not self._unsynced and not self.mid_message
        if quiet and self.status != codec.IN_TRANSACTION:
            # The server's state stays what it is: an error outside of a transaction, or in one
            # that has failed already, changes nothing there.
            if simple:
                reply += codec.ready_for_query(self.status)
            elif unnamed:
                self._statements.forget(b"")
            self.bytes_out += len(reply)
            self.to_client(reply)
            return
        mark = denial.word(self._random(8))
        if not self._copy_in:
            self._denials += 1
            self._careful = True
            self.expected.append(Denied(mark, reply, simple))
        if simple:
            self.to_server(denial.failing_query(mark))
        else:
            self.to_server(denial.failing_parse(mark, b"" if unnamed else mark))
        if not simple:
            self._unsynced = True

    def abandon(self, status: str) -> None:
        """The session is over: record what still runs with this status; take nothing more."""
        self._ended = True
        self._in.clear()
        super().abandon(status)
