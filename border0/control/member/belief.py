"""What of a node's map counts: each statement is shown to the ledger, and the reasons are kept.

A statement that is refused counts for nothing and is shown again with the next map, since the
signers may have changed. Nothing here connects, waits or writes.
"""

from collections.abc import Collection, Iterable
from hashlib import sha256

from twisted.logger import Logger

from border0.control.push.messages import Key
from border0.control.push.nodemap import NodeMap
from border0.statements import TYPES, Ledger, Statement, StatementError

UNSIGNED = frozenset(("configuration",))
log = Logger(namespace="border0.control")


class Belief:
    """A map and the ledger that judges it; `refused` holds why a statement does not count."""

    def __init__(self, map: NodeMap, ledger: Ledger) -> None:
        self.map, self.ledger = map, ledger
        self.refused: dict[Key, StatementError] = {}

    def applied(
        self, put: Collection[Key], dropped: Iterable[Key], now: float, *, full: bool
    ) -> None:
        """The map has changed; `now` in Unix seconds."""
        if full:
            self._forget_others(now)
        for type, id in dropped:
            self.refused.pop((type, id), None)
            if type in TYPES and type not in ("head", "signers"):
                self.ledger.drop(type, id)
        self.show([*put, *(key for key in self.refused if key not in put)], now)

    def show(self, keys: Iterable[Key], now: float) -> None:
        """Show these statements of the map to the ledger."""
        entries = self.map.entries
        statements: list[Statement] = []
        where: dict[int, Key] = {}
        before = dict(self.refused)
        for key in list(keys):
            self.refused.pop(key, None)
            entry = entries.get(key)
            if entry is None or key[0] in UNSIGNED:
                continue
            try:
                statement = Statement.from_json(entry[1])
                if (statement.type, statement.body.get("id")) != key:
                    raise StatementError("malformed", f"it stands under {' '.join(key)}")
            except StatementError as malformed:
                self.refused[key] = malformed
                continue
            where[id(statement)] = key
            statements.append(statement)
        for statement, error in self.ledger.accept_all(statements, now):
            self.refused[where[id(statement)]] = error
        for key, why in self.refused.items():
            if str(before.get(key)) != str(why):
                log.warn("statement refused: {key}: {why}", key=" ".join(key), why=str(why))

    def is_newest(self) -> bool:
        """Whether the head of the map is the one that counts."""
        entry = self.map.entries.get(("head", self.ledger.org))
        head = self.ledger.head
        return entry is not None and head is not None and entry[0] == head.hash

    def configuration(self, socket: str, now: float) -> bytes | None:
        """A socket's configuration, if it is the one that its current statement names."""
        entry = self.map.entries.get(("configuration", socket))
        statement = self.ledger.current("socket", socket, now)
        if entry is None or statement is None:
            return None
        body = entry[1]
        named: str = statement.body["configuration_hash"]
        return body if sha256(body).hexdigest() == named else None

    def _forget_others(self, now: float) -> None:
        """Of a whole map: what it does not hold is not for this node (any more)."""
        for type in TYPES:
            if type in ("head", "signers"):
                continue
            for statement in self.ledger.every(type, now):
                if (type, statement.body["id"]) not in self.map.entries:
                    self.ledger.drop(type, statement.body["id"])
