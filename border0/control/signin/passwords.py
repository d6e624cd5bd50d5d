"""Passwords: hashed by Argon2id in a small pool of threads with a bounded queue.

Source: RFC 9106 §4 (Argon2id, second recommended option: 64 MiB, 3 passes, 4 lanes); NIST SP
800-63B §5.1.1.2 (length before composition rules). One hash takes 0.1 to 0.3 s and 64 MiB, so at
most two run at once, and callers ask their rate limits first.
"""

import unicodedata
from collections.abc import Callable
from threading import Lock
from typing import Protocol, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

from border0.control.api.errors import busy
from border0.secrets import Secret

T = TypeVar("T")
THREADS = 2
QUEUE = 16
MINIMUM = 12
MAXIMUM = 256


class Hashing(Protocol):
    """What signs in with passwords asks for."""

    async def hash(self, password: Secret) -> Secret:
        """A new hash."""

    async def verify(self, stored: Secret | None, password: Secret) -> bool:
        """Whether it fits; without a `stored` hash it takes as long and is False."""

    def is_outdated(self, stored: Secret) -> bool:
        """Whether the hash was made with other parameters."""


class Passwords:
    """Argon2id in `THREADS` threads.

    :param hasher: other parameters, for tests.
    """

    def __init__(
        self, reactor: IReactorFromThreads, hasher: PasswordHasher | None = None, queue: int = QUEUE
    ) -> None:
        self._reactor, self._queue, self._waiting = reactor, queue, 0
        self._hasher = hasher or PasswordHasher()
        self._pool = ThreadPool(THREADS, THREADS, "passwords")
        self._decoy: Secret | None = None
        self._making = Lock()

    def start(self) -> None:
        """Start the threads; the first one makes what a password of nobody is compared with."""
        self._pool.start()
        self._pool.callInThread(self._stand_in)

    def stop(self) -> None:
        """Wait for the threads to end; what runs takes less than a second."""
        self._pool.stop()

    async def hash(self, password: Secret) -> Secret:
        """A new hash.

        :raises ApiError: 503, the queue is full.
        """
        text = normal(password.reveal())
        return await self._run(lambda: Secret(self._hasher.hash(text)))

    async def verify(self, stored: Secret | None, password: Secret) -> bool:
        """Whether the password fits the hash, after the same time whether there is one or not.

        :raises ApiError: 503, the queue is full.
        """
        text = normal(password.reveal())[: MAXIMUM * 4]
        fits = await self._run(lambda: self._verify(stored or self._stand_in(), text))
        return fits and stored is not None and bool(text)

    def is_outdated(self, stored: Secret) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored.reveal())

    def _stand_in(self) -> Secret:
        with self._making:
            if self._decoy is None:
                self._decoy = Secret(self._hasher.hash("nobody has this password"))
            return self._decoy

    def _verify(self, stored: Secret, text: str) -> bool:
        try:
            return self._hasher.verify(stored.reveal(), text)
        except (VerificationError, InvalidHashError):
            return False

    def _run(self, work: Callable[[], T]) -> Deferred[T]:
        if self._waiting >= THREADS + self._queue:
            raise busy(2.0)
        self._waiting += 1
        done: Deferred[T] = deferToThreadPool(self._reactor, self._pool, work)

        def ended(result: T) -> T:
            self._waiting -= 1
            return result

        return done.addBoth(ended)


def normal(text: str) -> str:
    """One form for what keyboards type differently (NFKC)."""
    return unicodedata.normalize("NFKC", text)


def objection(password: str, login: str) -> str:
    """Why a new password is not good enough; empty when it is."""
    text = normal(password)
    if len(text) < MINIMUM:
        return f"A password has at least {MINIMUM} characters; three or four words are good."
    if len(text) > MAXIMUM:
        return f"A password has at most {MAXIMUM} characters."
    if len(set(text)) < 5:
        return "The password is made of too few different characters."
    low, name = text.casefold(), login.casefold()
    if low.strip() == name or (len(name) > 4 and low.replace(name, "").strip() == ""):
        return "Your own name is no good password."
    return ""
