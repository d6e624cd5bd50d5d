"""Receiver indices: unpredictable, unique, and what each one means.

Source: WireGuard paper §5.4.2 (sender index) and §5.4.6 (receiver index).
Does not: know when an index may go; the peer's owner releases it.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

SessionT = TypeVar("SessionT")
PeerT = TypeVar("PeerT")


class IndexTable(Generic[SessionT, PeerT]):
    """`sessions` maps our index to a session, `handshakes` to the peer we sent an initiation."""

    __slots__ = ("_random_bytes", "handshakes", "sessions")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self.sessions: dict[int, SessionT] = {}
        self.handshakes: dict[int, PeerT] = {}

    def draw(self) -> int:
        """Return a random 32-bit index that nothing uses."""
        while True:
            index = int.from_bytes(self._random_bytes(4), "little")
            if index not in self.sessions and index not in self.handshakes:
                return index
