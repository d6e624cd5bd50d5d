"""Soft state: small facts about nodes that are never stored; the last writer wins, all expire.

A fact is any value under (kind, node). Each has a stamp of its writer (the higher one wins) and a
time to live in seconds. `restart` is for a reader that changes to another writer: what it has stays
until it expires, and any stamp of the new writer replaces it.
"""

from typing import Generic, TypeVar

T = TypeVar("T")


class SoftState(Generic[T]):
    """Facts of one kind by node id; `limit` bounds how many."""

    def __init__(self, limit: int = 100_000) -> None:
        self._facts: dict[str, tuple[int, float, T]] = {}
        self._limit = limit

    def put(self, node: str, stamp: int, ttl: float, value: T, now: float) -> bool:
        """Set a fact unless a newer one is there; whether it was set."""
        held = self._facts.get(node)
        if held is not None and held[1] > now and held[0] >= stamp:
            return False
        if held is None and len(self._facts) >= self._limit:
            self.expire(now)
            if len(self._facts) >= self._limit:
                return False
        self._facts[node] = (stamp, now + ttl, value)
        return True

    def get(self, node: str, now: float) -> T | None:
        """The fact, unless it is gone."""
        held = self._facts.get(node)
        return held[2] if held is not None and held[1] > now else None

    def held(self, node: str, now: float) -> tuple[int, float, T] | None:
        """Stamp, seconds left and value of a fact, unless it is gone."""
        held = self._facts.get(node)
        if held is None or held[1] <= now:
            return None
        return held[0], held[1] - now, held[2]

    def forget(self, node: str) -> None:
        """Drop a node's fact; the next one is news, whatever its stamp."""
        self._facts.pop(node, None)

    def restart(self) -> None:
        """Let any stamp win over what is there."""
        self._facts = {node: (-1, until, value) for node, (_, until, value) in self._facts.items()}

    def expire(self, now: float) -> None:
        """Forget what is past its time."""
        self._facts = {node: fact for node, fact in self._facts.items() if fact[1] > now}

    def __len__(self) -> int:
        return len(self._facts)
