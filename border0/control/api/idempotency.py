"""Idempotency keys: a change that is sent twice happens once.

Source: draft-ietf-httpapi-idempotency-key-header (409 while in progress, 422 for another request
under the same key). `Answers` keeps them in memory for a day, bounded in number and size; after a
restart a repeated request is a new one, and unique names in the store are the second line. Another
`KeptAnswers` may outlive the process.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable
from typing import Protocol

from border0.control.api.errors import ApiError, bad_request, conflict

KEEP_SECONDS = 24 * 3600.0
ENTRY_LIMIT = 4096
BODY_LIMIT = 16 * 1024
_KEY = re.compile(r"[\x21-\x7e]{1,128}")

Recorded = tuple[int, tuple[tuple[str, str], ...], bytes]
"""An answer: status, headers, body."""


class KeptAnswers(Protocol):
    """Where the answers are."""

    def begin(self, caller: str, key: str, mark: bytes, now: float) -> Awaitable[Recorded | None]:
        """The recorded answer; None when the request is new and now in progress.

        :raises ApiError: 409 in progress or its answer was not kept, 422 another request.
        """

    def complete(self, caller: str, key: str, answer: Recorded | None) -> Awaitable[None]:
        """The request is done; without an `answer` a repetition is only refused."""

    def abandon(self, caller: str, key: str) -> Awaitable[None]:
        """The request failed: it may be tried again."""


class _Entry:
    __slots__ = ("answer", "done", "expires", "fingerprint")

    def __init__(self, fingerprint: bytes, expires: float) -> None:
        self.fingerprint, self.expires = fingerprint, expires
        self.done = False
        self.answer: Recorded | None = None


def fingerprint(method: str, target: str, body: bytes) -> bytes:
    """What makes two requests the same."""
    head = f"{method} {target}\n".encode()
    return hashlib.sha256(head + body).digest()


def check_key(text: str) -> str:
    """The key as sent.

    :raises ApiError: 400, it is empty, too long or has other than printable ASCII characters.
    """
    if not _KEY.fullmatch(text):
        raise bad_request("Idempotency-Key has 1 to 128 printable ASCII characters")
    return text


def reused() -> ApiError:
    """The key was used for another request."""
    return ApiError(422, "key_reused", "this Idempotency-Key was used for another request")


def in_progress() -> ApiError:
    """The request is being answered now."""
    return conflict("the same request is still in progress")


def not_shown() -> ApiError:
    """The request was answered, and the answer was not kept."""
    return conflict("it was done already, and its answer is shown only once")


class Answers:
    """The answers of the last day by caller and key."""

    def __init__(self, keep_seconds: float = KEEP_SECONDS, entries: int = ENTRY_LIMIT) -> None:
        self._keep, self._limit = keep_seconds, entries
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def begin(self, caller: str, key: str, mark: bytes, now: float) -> Recorded | None:
        """See `KeptAnswers`."""
        entry = self._entries.get((caller, key))
        if entry is not None and now < entry.expires:
            if entry.fingerprint != mark:
                raise reused()
            if not entry.done:
                raise in_progress()
            if entry.answer is None:
                raise not_shown()
            return entry.answer
        self._entries.pop((caller, key), None)
        self._entries[caller, key] = _Entry(mark, now + self._keep)
        while len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        return None

    async def complete(self, caller: str, key: str, answer: Recorded | None) -> None:
        """See `KeptAnswers`."""
        entry = self._entries.get((caller, key))
        if entry is not None:
            entry.done = True
            entry.answer = answer if answer and len(answer[2]) <= BODY_LIMIT else None

    async def abandon(self, caller: str, key: str) -> None:
        """See `KeptAnswers`."""
        self._entries.pop((caller, key), None)
