"""Idempotency keys that outlive the server: `KeptAnswers` in the store.

Source: draft-ietf-httpapi-idempotency-key-header. A request is done at most once under its key. One
whose process ended before it was answered is not done again: nobody knows how far it came, so its
sender is told to look. Answers with secrets and large ones are not kept, only that they were given.
"""

from border0.control.api.errors import ApiError
from border0.control.api.idempotency import (
    BODY_LIMIT,
    KEEP_SECONDS,
    Recorded,
    in_progress,
    not_shown,
    reused,
)
from border0.control.store import answers
from border0.control.store.errors import Duplicate
from border0.control.store.store import Store

PER_CALLER = 4096
ACTOR = "idempotency"


class SqlAnswers:
    """The answers of the last day by caller and key.

    :param per_caller: how many of one caller's are kept; the oldest go.
    """

    def __init__(
        self, store: Store, keep_seconds: float = KEEP_SECONDS, per_caller: int = PER_CALLER
    ) -> None:
        self._store, self._keep, self._limit = store, keep_seconds, per_caller
        self._running: set[tuple[str, str]] = set()

    async def begin(self, caller: str, key: str, mark: bytes, now: float) -> Recorded | None:
        """See `KeptAnswers`.

        :raises ApiError: also 409 `outcome_unknown`, the server stopped while it was being done.
        :raises Unavailable: the database fails; nothing was begun, or it is not known.
        """
        if (caller, key) in self._running:
            # Its fingerprint is not looked at: while it runs there is no answer for either.
            raise in_progress()
        self._running.add((caller, key))
        running = False
        try:
            expires, limit = now + self._keep, self._limit
            found = await self._store.change(
                lambda tx: answers.begin(tx, caller, key, mark, now, expires, limit),
                org=_org(caller),
                actor=ACTOR,
            )
            running = found is None
        except Duplicate:
            raise in_progress() from None  # another process was first, by a moment
        finally:
            if not running:
                self._running.discard((caller, key))
        if found is None:
            return None
        if found.fingerprint != mark:
            raise reused()
        if not found.done:
            message = (
                "the server stopped while this request was being done: look whether it was, "
                "and use a new Idempotency-Key to send it again"
            )
            raise ApiError(409, "outcome_unknown", message)
        if found.status is None or found.body is None:
            raise not_shown()
        return found.status, tuple((name, value) for name, value in found.headers), found.body

    async def complete(self, caller: str, key: str, answer: Recorded | None) -> None:
        """See `KeptAnswers`."""
        if answer is not None and len(answer[2]) > BODY_LIMIT:
            answer = None
        try:
            await self._store.change(
                lambda tx: answers.complete(tx, caller, key, answer),
                org=_org(caller),
                actor=ACTOR,
            )
        finally:
            self._running.discard((caller, key))

    async def abandon(self, caller: str, key: str) -> None:
        """See `KeptAnswers`."""
        try:
            await self._store.change(
                lambda tx: answers.abandon(tx, caller, key), org=_org(caller), actor=ACTOR
            )
        finally:
            self._running.discard((caller, key))


def _org(caller: str) -> str:
    """The organisation in `Principal.key`: what is kept goes with it."""
    return caller.partition("/")[0]
