"""Names of prepared statements or portals and the verdicts behind them.

Pure bookkeeping, bounded. A name counts as made or closed when the server says so: a Parse may fail
or be skipped, and then the name still stands for what it stood for. What SQL statements do to names
(PREPARE, DEALLOCATE, DECLARE) is not followed.
"""

from border0.proxies.postgres.codec import ProtocolError
from border0.proxies.postgres.expected import (
    BOUND,
    CLOSED,
    PARSED,
    Change,
    Expected,
    Running,
    Verdict,
)

COUNT_LIMIT = 65536  # names
TEXT_LIMIT = 64 << 20  # characters of the statements behind all names


class Names:
    """One session's portals. Only what is allowed gets in.

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
            self._keep(len(verdict.text) - (0 if old is None else len(old.text)))
        verdicts[name] = verdict

    def _keep(self, more: int) -> None:
        self._kept += more
        if self._kept > TEXT_LIMIT or len(self.verdicts) > COUNT_LIMIT:
            raise ProtocolError("the client keeps too many prepared statements or portals")

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


class Statements:
    """One session's prepared statements. Only what is allowed gets in.

    `verdicts` holds the names that are certain in the present pipeline, and may be read directly;
    it stays the same dictionary. `fresh` are the names that this pipeline has made and the server
    has not answered.
    """

    __slots__ = ("_kept", "_pending", "_settled", "fresh", "verdicts")

    def __init__(self) -> None:
        self.verdicts: dict[bytes, Verdict] = {}
        self.fresh: set[bytes] = set()
        self._settled: dict[bytes, Verdict] = {}  # what the server has
        self._pending: dict[bytes, Renaming] = {}  # the last change of each name under way
        self._kept = 0

    def parse(self, name: bytes, verdict: Verdict, pipeline: int) -> "Renaming":
        """A Parse is under way in this pipeline.

        :raises ProtocolError: too many names, or too much text behind them.
        """
        self._kept += len(verdict.text)
        names = len(self._settled) + len(self._pending)
        if self._kept > TEXT_LIMIT or names > COUNT_LIMIT:
            raise ProtocolError("the client keeps too many prepared statements or portals")
        return self._change(Renaming(PARSED, self, name, verdict, pipeline))

    def close(self, name: bytes, pipeline: int) -> "Renaming":
        """A Close is under way in this pipeline."""
        return self._change(Renaming(CLOSED, self, name, None, pipeline))

    def _change(self, change: "Renaming") -> "Renaming":
        name = change.name
        if change.verdict is None:
            self.verdicts.pop(name, None)
        else:
            # If it fails, what follows up to the Sync is skipped.
            self.verdicts[name] = change.verdict
            self.fresh.add(name)
        self._pending[name] = change
        return change

    def synced(self) -> None:
        """The pipeline ends: what it changed is not certain any more until it is answered."""
        for name in self.fresh:
            self.verdicts.pop(name, None)
        self.fresh.clear()

    def find(self, name: bytes, pipeline: int) -> tuple[Verdict | None, bool]:
        """What the name stands for in this pipeline, and whether that is certain.

        It is not when an earlier pipeline changes the name and has not been answered.
        """
        change = self._pending.get(name)
        if change is None:
            return self._settled.get(name), True
        return change.verdict, change.pipeline == pipeline

    def forget(self, name: bytes) -> None:
        """The server has, or should have, no such statement any more."""
        old = self._settled.pop(name, None)
        if old is not None:
            self._kept -= len(old.text)
        self.verdicts.pop(name, None)
        self._pending.pop(name, None)
        self.fresh.discard(name)

    def settled(self, name: bytes) -> Verdict | None:
        """What the server has under this name."""
        return self._settled.get(name)

    def settle(self, change: "Renaming") -> None:
        """The server did it."""
        name, verdict = change.name, change.verdict
        old = self._settled.pop(name, None)
        if old is not None:
            self._kept -= len(old.text)
        if verdict is not None:
            self._settled[name] = verdict
        self._answered(name, change)

    def undo(self, change: "Renaming") -> None:
        """The server did not do it."""
        if change.verdict is not None:
            self._kept -= len(change.verdict.text)
        self._answered(change.name, change)

    def _answered(self, name: bytes, change: "Renaming") -> None:
        if self._pending.get(name) is change:
            del self._pending[name]
            self.fresh.discard(name)
            verdict = self._settled.get(name)
            if verdict is None:
                self.verdicts.pop(name, None)
            else:
                self.verdicts[name] = verdict


class Renaming(Change):
    """A Parse, or a Close of a statement (then `verdict` is None), that is under way."""

    __slots__ = ("name", "pipeline", "statements", "verdict")

    def __init__(
        self,
        reply: Expected,
        statements: Statements,
        name: bytes,
        verdict: Verdict | None,
        pipeline: int,
    ) -> None:
        self.reply = reply
        self.statements = statements
        self.name = name
        self.verdict = verdict
        self.pipeline = pipeline

    def settle(self) -> None:
        """The server did it."""
        self.statements.settle(self)

    def undo(self) -> None:
        """The server did not do it."""
        self.statements.undo(self)


class Binding(Change):
    """A Bind under way whose portal has a name, or whose statement is not certain.

    `runs` are the Executes of the portal that were sent before the answer: what they run is known
    when it comes.
    """

    __slots__ = ("bindings", "portal", "portals", "runs", "statement", "statements", "verdict")

    def __init__(
        self,
        statements: Statements,
        statement: bytes | None,
        portals: Names,
        portal: bytes,
        verdict: Verdict,
        bindings: "dict[bytes, Binding]",
    ) -> None:
        self.reply = BOUND
        self.statements = statements
        self.statement = statement  # None when it is certain
        self.portals = portals
        self.portal = portal
        self.verdict = verdict
        self.bindings = bindings
        self.runs: list[Running] = []
        portals.put(portal, verdict)
        bindings[portal] = self

    def settle(self) -> None:
        """The server did it: what the portal runs is known."""
        verdict = self.verdict
        if self.statement is not None:
            verdict = self.statements.settled(self.statement) or verdict
        for running in self.runs:
            running.verdict = verdict
        if self.bindings.get(self.portal) is self:
            del self.bindings[self.portal]
            self.portals.put(self.portal, verdict)

    def undo(self) -> None:
        """The server did not do it: there is no such portal."""
        if self.bindings.get(self.portal) is self:
            del self.bindings[self.portal]
            self.portals.drop(self.portal)
