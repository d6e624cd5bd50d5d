"""Cancel keys that we issue, and the sessions they stand for.

Source: PostgreSQL documentation, "Canceling Requests in Progress".
Does not dial: the adapter relays a granted cancel on a fresh upstream connection.
"""

import hmac
from collections.abc import Callable, Hashable

KEY_SIZE = 4  # bytes; what protocol 3.0 knows


class _Entry:
    __slots__ = ("cancel", "identity", "key")

    def __init__(self, key: bytes, identity: Hashable, cancel: Callable[[], None]) -> None:
        self.key = key
        self.identity = identity
        self.cancel = cancel


class CancelRegistry:
    """Maps (process id, key) to a live session.

    :param random_bytes: source of the keys and process ids.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random = random_bytes
        self._entries: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def issue(self, identity: Hashable, cancel: Callable[[], None]) -> tuple[int, bytes]:
        """A fresh process id (positive: some drivers drop others) and key for a session.

        :param identity: who may use it; a cancel from anybody else is ignored.
        :param cancel: called when a rightful cancel arrives.
        """
        while True:
            pid = int.from_bytes(self._random(4), "big") & 0x7FFFFFFF
            if pid and pid not in self._entries:
                break
        key = self._random(KEY_SIZE)
        self._entries[pid] = _Entry(key, identity, cancel)
        return pid, key

    def drop(self, pid: int) -> None:
        """The session ended; unknown ids are ignored."""
        self._entries.pop(pid, None)

    def request(self, pid: int, key: bytes, identity: Hashable) -> bool:
        """A cancel arrived: run it when id, key and identity fit. Says whether it did.

        The key is compared in constant time; the caller stays silent either way.
        """
        entry = self._entries.get(pid)
        expected = bytes(KEY_SIZE) if entry is None else entry.key
        fits = hmac.compare_digest(expected, key)
        if entry is None or not fits or entry.identity != identity:
            return False
        entry.cancel()
        return True
