"""The server's side of records: gathers one batch of each node, has it stored, answers it.

Of each node at most one batch is gathered (or gathered and waiting) and one is being stored, each
of at most 2 MiB. A node that is sent away or reconnects in the middle begins its batch again, while
the one that is being stored goes on; nothing of the same node is stored at the same time. An answer
comes only after the caller's store has it, or failed, or took longer than a minute.

Not here: what a record is and where it goes; both are the caller's.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.control.push import messages as wire
from border0.control.push.messages import ProtocolError
from border0.control.push.session import NodeSession
from border0.errors import Border0Error

STORE_SECONDS = 60.0  # from a whole batch to an answer, however long the store takes

Store = Callable[[str, str], "Deferred[Any]"]
"""(node, text): fires when the records are stored; a text that it fires with is told the node."""

log = Logger()


def no_store(node: str, text: str) -> "Deferred[Any]":
    """Where nobody takes records."""
    return fail(Border0Error("records are not taken here"))


class _Upload:
    """What comes from one connection."""

    __slots__ = ("batch", "parts", "session", "since", "size", "whole")

    def __init__(self, session: NodeSession) -> None:
        self.session = session
        self.batch = -1
        self.parts: list[str] = []
        self.size = 0
        self.whole = False  # all of it came, and it is not answered yet
        self.since = 0.0

    def take(self, message: wire.Records, now: float) -> None:
        """A part.

        :raises ProtocolError: not the one that may come now.
        """
        if self.whole:
            raise ProtocolError("records before the last batch was answered")
        if not self.parts:
            if message.part or message.batch <= self.batch:
                raise ProtocolError("a batch of records does not begin with its first part")
            self.batch = message.batch
        elif message.batch != self.batch or message.part != len(self.parts):
            raise ProtocolError("a part of the records is missing")
        self.size += len(message.data.encode())
        if self.size > wire.MAX_RECORDS:
            raise ProtocolError(f"a batch of more than {wire.MAX_RECORDS} bytes")
        self.parts.append(message.data)
        self.whole, self.since = not message.more, now

    def clear(self) -> None:
        """The batch needs no more of its text."""
        self.parts = []
        self.size = 0


class Intake:
    """All batches of one hub.

    :param store: takes the text of a batch.
    :param wake: called when there are answers for `flush`.
    """

    def __init__(self, store: Store, wake: Callable[[], None]) -> None:
        self._store = store
        self._wake = wake
        self._uploads: dict[str, _Upload] = {}
        self._storing: set[str] = set()
        self._answers: list[tuple[NodeSession, wire.Recorded]] = []

    @property
    def answers(self) -> bool:
        """Whether there are answers to send."""
        return bool(self._answers)

    def flush(self, now: float) -> None:
        """Send the answers, also where the transport is full: one small frame for each batch."""
        answers, self._answers = self._answers, []
        for session, answer in answers:
            session.send(wire.encode(answer), now)

    def receive(self, session: NodeSession, message: wire.Records, now: float) -> None:
        """A part from an attached node.

        :raises ProtocolError: not one that it may send now.
        """
        upload = self._uploads.get(session.node)
        if upload is None or upload.session is not session:
            upload = self._uploads[session.node] = _Upload(session)
        upload.take(message, now)
        self._next(session.node)
        self.flush(now)

    def forget(self, session: NodeSession) -> None:
        """The connection is gone: what is not being stored comes again on the next one."""
        upload = self._uploads.get(session.node)
        if upload is not None and upload.session is session:
            del self._uploads[session.node]

    def expire(self, now: float) -> None:
        """Answer what waits for too long; it may still be stored, which harms nothing."""
        for upload in self._uploads.values():
            if upload.whole and now >= upload.since + STORE_SECONDS:
                self._answer(upload, upload.batch, False, "the store takes too long")

    def _next(self, node: str) -> None:
        upload = self._uploads.get(node)
        if upload is None or not upload.whole or not upload.parts or node in self._storing:
            return
        text, batch = "".join(upload.parts), upload.batch
        upload.clear()
        self._storing.add(node)

        def stored(answer: object) -> None:
            self._stored(upload, batch, True, answer if isinstance(answer, str) else "")

        def failed(failure: Failure) -> None:
            detail = "the records could not be stored"
            if failure.check(Border0Error):
                detail = str(failure.value)
                log.warn("records of {node}: {why}", node=node, why=detail)
            else:
                log.failure("records of {node} could not be stored", failure, node=node)
            self._stored(upload, batch, False, detail)

        maybeDeferred(self._store, node, text).addCallbacks(stored, failed)

    def _stored(self, upload: _Upload, batch: int, ok: bool, detail: str) -> None:
        node = upload.session.node
        self._storing.discard(node)
        self._answer(upload, batch, ok, detail)
        self._next(node)  # what a new connection brought meanwhile

    def _answer(self, upload: _Upload, batch: int, ok: bool, detail: str) -> None:
        if upload.whole and upload.batch == batch:
            upload.whole = False
            upload.clear()
            if not upload.session.closed:
                self._answers.append((upload.session, wire.Recorded(batch, ok, detail[:256])))
                self._wake()
