"""What a node believes: the newest statements that were signed by whom they must be.

A statement counts only while the newest head names its hash. So nothing can be put back to an
older state, and nothing that lives can be left out unnoticed: what the head names and the ledger
has not is *missing*, and a caller that needs it denies. The ledger survives restarts by `dump`
and `load`; a dump that cannot be read is an error, never an empty ledger.

Times are Unix seconds, given by the caller. Where the bytes of a dump are kept is its business.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from border0.statements.envelope import Statement
from border0.statements.errors import (
    CONFLICT,
    EXPIRED,
    LOWER_REVISION,
    MALFORMED,
    OTHER_ORGANISATION,
    TOO_LARGE,
    UNKNOWN_TYPE,
    StatementError,
)
from border0.statements.payloads import LIVE_LIMIT, TYPES, check
from border0.statements.signers import Signers
from border0.statements.text import time_value, write_object

Key = tuple[str, str]  # (type, id)
SAVED = b"border0 ledger v1 "
REMOVED_LIMIT = 65_536  # revisions kept of objects that live no longer; the oldest go first


class Attached(NamedTuple):
    """The policies of one socket. With anything in `missing`, nobody may be let in."""

    policies: tuple[Statement, ...]
    missing: tuple[Key, ...]


class Ledger:
    """The statements of one organisation on one node.

    Args:
        org: id of the organisation; statements of another one are refused.
        signers: the `signers` statement of the enrolment, believed as it is.

    :raises StatementError: `signers` is no such statement, or another organisation's.
    """

    __slots__ = ("_floors", "_held", "_named", "_removed", "_waiting", "head", "org", "signers")

    def __init__(self, org: str, signers: Statement) -> None:
        self.org = org
        self.signers = Signers(signers)
        if signers.body["org"] != org:
            raise StatementError(OTHER_ORGANISATION, str(signers.body["org"]))
        self.head: Statement | None = None
        self._named: dict[Key, str] = {}  # what the head names
        self._held: dict[Key, Statement] = {}  # the statement of that hash
        self._waiting: dict[Key, Statement] = {}  # newer than the head, which does not name it yet
        self._floors: dict[Key, tuple[int, str]] = {}  # highest revision accepted, and its hash
        self._removed: dict[Key, tuple[int, str]] = {}  # the same, of what lives no longer
        self._raise_floor(("signers", org), signers)

    @property
    def revision(self) -> int:
        """The organisation's revision as of the newest head; 0 before the first one."""
        return int(self.head.body["revision"]) if self.head else 0

    def accept(self, statement: Statement, now: float) -> bool:
        """Believe a statement; True when it was news.

        :raises StatementError: with the reason; the ledger is as it was.
        """
        if statement.type not in TYPES:
            raise StatementError(UNKNOWN_TYPE, statement.type)
        if self._knows(statement):
            return False
        self.signers.verify(statement)
        check(statement)
        body = statement.body
        if body["org"] != self.org:
            raise StatementError(OTHER_ORGANISATION, f"{statement.type} of {body['org']}")
        if statement.expires <= now:
            raise StatementError(EXPIRED, f"{statement.type} {body['id']} at {body['expires']}")
        if statement.type != "signers" and self.signers.statement.expires <= now:
            raise StatementError(EXPIRED, "the signers that this node knows")
        key = (statement.type, body["id"])
        self._check_revision(key, statement)
        if statement.type not in ("head", "signers") and len(self._waiting) >= LIVE_LIMIT:
            raise StatementError(TOO_LARGE, "too many statements that no head names")
        self._raise_floor(key, statement)
        if statement.type == "signers":
            self._follow_signers(Signers(statement))
        elif statement.type == "head":
            self._follow_head(statement)
        elif self._named.get(key) == statement.hash:
            self._held[key] = statement
        elif self.head is None or body["revision"] > self.revision:
            self._waiting[key] = statement
        else:  # a head that is newer than it does not name it: it lives no longer
            self._forget_waiting(key)
            return False
        return True

    def accept_all(
        self, statements: Iterable[Statement], now: float
    ) -> list[tuple[Statement, StatementError]]:
        """Believe a batch in any order; the refused ones with their reasons.

        Signers go first, oldest first, so that a chain of them is followed to its end; heads last.
        """
        signers: list[Statement] = []
        heads: list[Statement] = []
        others: list[Statement] = []
        refused = []
        for statement in statements:
            try:
                if statement.type in ("signers", "head"):
                    check(statement)
                    (signers if statement.type == "signers" else heads).append(statement)
                else:
                    others.append(statement)
            except StatementError as error:
                refused.append((statement, error))
        for group in (signers, heads):
            group.sort(key=lambda statement: int(statement.body["revision"]))
        # of several heads only the newest matters, and the others would be news for a moment
        for statement in (*signers, *others, *reversed(heads)):
            try:
                self.accept(statement, now)
            except StatementError as error:
                refused.append((statement, error))
        return refused

    def distrust(self, now: float) -> str:
        """Why nothing here counts at all; "" when it does."""
        if self.signers.statement.expires <= now:
            return "the signers have expired"
        if self.head is None:
            return "no head"
        if self.head.expires <= now:
            return "the head has expired"
        if self._named[("signers", self.org)] != self.signers.statement.hash:
            return "the head names other signers"
        return ""

    def state(self, type: str, id: str, now: float) -> str:
        """`current`, `absent` (the newest head does not name it) or `missing` (it does).

        While nothing counts (`distrust`), everything is missing.
        """
        if self.distrust(now):
            return "missing"
        if (type, id) not in self._named:
            return "absent"
        return "missing" if self._usable((type, id), now) is None else "current"

    def current(self, type: str, id: str, now: float) -> Statement | None:
        """The statement about this object, if the newest head names it and it has not expired."""
        return None if self.distrust(now) else self._usable((type, id), now)

    def every(self, type: str, now: float) -> list[Statement]:
        """All current statements of one type."""
        if self.distrust(now):
            return []
        keys = [key for key in self._held if key[0] == type]
        return [found for key in keys if (found := self._usable(key, now)) is not None]

    def missing(self, types: Iterable[str], now: float) -> list[Key]:
        """(type, id) of what the newest head names and the ledger has not, of these types.

        While nothing counts: the head, or the signers, alone. A node whose map is pruned has
        fewer statements than the head names; it asks for the types that it gets whole.
        """
        if reason := self.distrust(now):
            return [("signers" if "signers" in reason else "head", self.org)]
        wanted = frozenset(types)
        return [key for key in self._named if key[0] in wanted and self._usable(key, now) is None]

    def policies(self, socket: str, now: float) -> Attached:
        """The policies that are attached to a socket, and what is missing to know them all.

        A policy that the attachment names is missing also when the head does not name it: an
        allow without its deny must not count.
        """
        key = ("attachment", socket)
        state = self.state(*key, now)
        if state == "absent":
            return Attached((), ())
        attachment = self.current(*key, now)
        if attachment is None:
            return Attached((), tuple(self.missing((), now)) or (key,))
        found, missing = [], []
        for id in attachment.body["policies"]:
            policy = self.current("policy", id, now)
            if policy is None:
                missing.append(("policy", id))
            else:
                found.append(policy)
        return Attached(tuple(found), tuple(missing))

    def next_deadline(self, now: float) -> float | None:
        """When the next of the statements that count expires; None while nothing counts."""
        if self.head is None or self.distrust(now):
            return None
        times = [statement.expires for statement in self._held.values()]
        times += [self.head.expires, self.signers.statement.expires]
        return min(time for time in times if time > now)

    def drop(self, type: str, id: str) -> None:
        """Forget a statement that this node is not to have any more; its revision stays."""
        self._held.pop((type, id), None)
        self._forget_waiting((type, id))

    def dump(self) -> bytes:
        """Everything, for the disk: one line with a checksum, one with JSON."""
        rest = {
            "org": self.org,
            "floors": [[*key, *floor] for key, floor in self._floors.items()],
            "removed": [[*key, *floor] for key, floor in self._removed.items()],
        }
        # Each envelope is there as bytes; to make all of them anew takes 0.1 s for 5,000.
        content = b"".join(
            (
                write_object(rest)[:-1],
                b',"signers":' + self.signers.statement.encode(),
                b',"head":' + (b"null" if self.head is None else self.head.encode()),
                b',"held":[' + b",".join([one.encode() for one in self._held.values()]),
                b'],"waiting":[' + b",".join([one.encode() for one in self._waiting.values()]),
                b"]}",
            )
        )
        return SAVED + hashlib.sha256(content).hexdigest().encode() + b"\n" + content

    @classmethod
    def load(cls, data: bytes) -> "Ledger":
        """The ledger that `dump` wrote; signatures were verified before, and are not again.

        :raises StatementError: not a whole dump.
        """
        line, _, content = data.partition(b"\n")
        if line != SAVED + hashlib.sha256(content).hexdigest().encode():
            raise StatementError(MALFORMED, "not a whole saved ledger")
        try:
            return cls._restored(json.loads(content))
        except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError):
            raise StatementError(MALFORMED, "a saved ledger of another form") from None

    @classmethod
    def _restored(cls, saved: dict[str, Any]) -> "Ledger":
        ledger = cls(saved["org"], Statement.from_json(saved["signers"]))
        for kept, items in (
            (ledger._held, saved["held"]),
            (ledger._waiting, saved["waiting"]),
        ):
            for item in items:
                statement = Statement.from_json(item)
                check(statement)
                kept[(statement.type, statement.body["id"])] = statement
        if saved["head"] is not None:
            head = Statement.from_json(saved["head"])
            check(head)
            ledger._name(head)
        for floors, items in (
            (ledger._floors, saved["floors"]),
            (ledger._removed, saved["removed"]),
        ):
            floors.clear()
            for type, id, revision, digest in items:
                floors[(str(type), str(id))] = (int(revision), str(digest))
        return ledger

    def _knows(self, statement: Statement) -> bool:
        """Whether exactly this one, signatures included, has been accepted and is still kept."""
        if statement.type == "signers":
            return statement.hash == self.signers.statement.hash
        if statement.type == "head":
            return statement == self.head
        # The body is parsed only of what has a hash that is known; `id` needs it.
        try:
            id = statement.body.get("id")
        except StatementError:
            return False
        if not isinstance(id, str):
            return False
        key = (statement.type, id)
        return statement in (self._held.get(key), self._waiting.get(key))

    def _check_revision(self, key: Key, statement: Statement) -> None:
        floor = self._floors.get(key) or self._removed.get(key)
        if floor is None:
            return
        revision = statement.body["revision"]
        if revision < floor[0]:
            raise StatementError(LOWER_REVISION, f"{' '.join(key)}: {revision} after {floor[0]}")
        if revision > floor[0] or statement.hash == floor[1]:
            return
        head = self.head
        if (
            statement.type == "head"
            and head is not None
            and head.hash == floor[1]
            and statement.body["live"] == head.body["live"]
        ):
            # Nothing changed, and it is good for longer: a renewal.
            if time_value(statement.body["issued"]) > time_value(head.body["issued"]):
                return
            raise StatementError(LOWER_REVISION, "a head that was issued earlier")
        raise StatementError(CONFLICT, f"{' '.join(key)}: two statements of revision {revision}")

    def _raise_floor(self, key: Key, statement: Statement) -> None:
        self._removed.pop(key, None)
        self._floors[key] = (statement.body["revision"], statement.hash)

    def _follow_signers(self, signers: Signers) -> None:
        """What the new list does not allow counts no longer, however long it was believed."""
        self.signers = signers
        if self.head is not None and not self._verified(self.head):
            self.head = None
            # `named` is empty only while there is no head: then everything is missing.
            self._named = {}
            self._waiting = {**self._held, **self._waiting}
            self._held = {}
        for kept in (self._held, self._waiting):
            for key in [key for key, one in kept.items() if not self._verified(one)]:
                del kept[key]

    def _verified(self, statement: Statement) -> bool:
        try:
            self.signers.verify(statement)
        except StatementError:
            return False
        return True

    def _name(self, head: Statement) -> None:
        self.head = head
        self._named = {
            (type, id): digest
            for type, objects in head.body["live"].items()
            for id, digest in objects.items()
        }

    def _follow_head(self, head: Statement) -> None:
        self._name(head)
        held, waiting, kept = self._held, self._waiting, {}
        for key, digest in self._named.items():
            one = held.get(key)
            if one is not None and one.hash == digest:
                kept[key] = one
        for key, one in list(waiting.items()):
            if one.hash == self._named.get(key):
                kept[key] = waiting.pop(key)
            elif one.body["revision"] <= self.revision:
                del waiting[key]
        self._held = kept
        special = {("signers", self.org), ("head", self.org)}
        gone = self._floors.keys() - self._named.keys() - waiting.keys() - special
        for key in [key for key in self._floors if key in gone] if gone else ():
            self._retire(key)

    def _forget_waiting(self, key: Key) -> None:
        self._waiting.pop(key, None)
        if key not in self._named and key in self._floors:
            self._retire(key)

    def _retire(self, key: Key) -> None:
        self._removed[key] = self._floors.pop(key)
        while len(self._removed) > REMOVED_LIMIT:
            del self._removed[next(iter(self._removed))]

    def _usable(self, key: Key, now: float) -> Statement | None:
        if key[0] == "signers":
            return self.signers.statement if key[1] == self.org else None
        statement = self._held.get(key)
        return None if statement is None or statement.expires <= now else statement
