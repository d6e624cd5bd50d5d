"""Names of prepared statements or portals and the verdicts behind them.

Pure bookkeeping, bounded; it does not know what the server has dropped by itself.
"""

from border0.proxies.postgres.codec import ProtocolError
from border0.proxies.postgres.replies import Verdict

COUNT_LIMIT = 65536  # names
TEXT_LIMIT = 64 << 20  # characters of the statements behind all names


class Names:
    """One session's statements, or its portals. Only what is allowed gets in.

    `verdicts` may be read directly; it stays the same dictionary.
    """

    __slots__ = ("_kept", "verdicts")

    def __init__(self) -> None:
        self.verdicts: dict[bytes, Verdict] = {}
        self._kept = 0

    def __len__(self) -> int:
        return len(self.verdicts)

    def put(self, name: bytes, verdict: Verdict) -> None:
        """Remember a name, in place of what it was.

        :raises ProtocolError: too many names, or too much text behind them.
        """
        verdicts = self.verdicts
        if name:
            old = verdicts.get(name)
            self._kept += len(verdict.text) - (0 if old is None else len(old.text))
            if self._kept > TEXT_LIMIT or len(verdicts) > COUNT_LIMIT:
                raise ProtocolError("the client keeps too many prepared statements or portals")
        verdicts[name] = verdict

    def get(self, name: bytes) -> Verdict | None:
        """The verdict behind a name, None when the session has not made it."""
        return self.verdicts.get(name)

    def drop(self, name: bytes) -> None:
        """The name was closed; unknown names are ignored."""
        old = self.verdicts.pop(name, None)
        if old is not None and name:
            self._kept -= len(old.text)

    def clear(self) -> None:
        """Forget all names."""
        self.verdicts.clear()
        self._kept = 0
