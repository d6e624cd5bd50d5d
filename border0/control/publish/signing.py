"""What a round signs, in the store's thread: the objects that say something else now, and the head.

It reads what is held and changes nothing of it: the caller applies the `Round` in the reactor, when
the commit is on the disk. The same round may be made twice.
"""

import base64
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.exc import SQLAlchemyError
from twisted.logger import Logger

from border0.control.publish.facts import Fact, Key, affected, describe
from border0.control.store import statements
from border0.control.store.errors import NotFound, StoreError
from border0.control.store.transaction import Tx
from border0.statements import TYPES, Signers, Statement, draft, key_id, live, sign

DAY = 86_400.0
OBJECT_DAYS = 90.0
HEAD_DAYS = 14.0
SIGNERS_DAYS = 3650.0
ADDED_TYPES = ("relay",)  # that the lists of older control planes do not speak of
OBJECTS_LIMIT = 70_000  # statements that one head can name in its eight mebibytes
_COMMON = ("org", "id", "revision", "issued", "expires")

log = Logger(namespace="border0.control")


class Round(NamedTuple):
    """What one round did, in the store's thread; applied in the reactor's."""

    revision: int  # 0: nothing was signed
    facts: dict[Key, Fact]
    put: dict[Key, Statement]
    dropped: list[Key]
    unsigned: dict[Key, str]  # why there can be no statement


class Overtaken(Exception):
    """Another process has stored a head."""


class Signing:
    """One organisation's statements and the key that signs them here.

    `held` is every statement that lives, `signers` who may sign which type, `again` whether all of
    them are to be signed anew, `damaged` the hash of a stored head that cannot be read.
    """

    def __init__(self, org: str, key: Ed25519PrivateKey) -> None:
        self.org = org
        self.held: dict[Key, Statement] = {}
        self.signers: Signers | None = None
        self.again = False
        self.damaged: str | None = None
        self._key = key
        self._key_id = key_id(key.public_key().public_bytes_raw())

    def publish(self, tx: Tx, dirty: set[tuple[str, str]], keys: set[Key]) -> Round:
        """One round.

        :param dirty: (kind, id) of the objects that have changed.
        :param keys: statements to look at besides.
        :raises Overtaken: the stored head is not the one that is held.
        """
        wanted = dict.fromkeys(sorted(keys))
        for kind, id in sorted(dirty):
            wanted.update(dict.fromkeys(affected(tx.connection, self.org, kind, id)))
        facts = self._described(tx, wanted)
        put: dict[Key, Statement] = {}
        dropped: list[Key] = []
        unsigned: dict[Key, str] = {}
        signers = self._new_signers(tx)
        if signers is not None:
            put[("signers", self.org)] = signers
        may = self._may_sign(signers)
        if "head" in may:
            self._check_alone(tx)
        room = OBJECTS_LIMIT - len(self.held) - len(put)
        for key, fact in facts.items():
            if key[0] not in may:
                continue
            held = self.held.get(key)
            members = fact.members
            if members is not None and (held is None or not self._still_good(held, fact, tx.now)):
                try:
                    if held is None and room <= 0:
                        raise ValueError(f"an organisation has at most {OBJECTS_LIMIT} objects")
                    put[key] = self._sign(tx, key, members, OBJECT_DAYS, fact.until)
                    room -= held is None
                except ValueError as error:
                    unsigned[key], members = str(error), None
                    facts[key] = fact._replace(members=None)
            if members is None and held is not None:
                dropped.append(key)
                room += 1
        if not put and not dropped and self.head_is_good(tx.now):
            return Round(0, facts, {}, [], unsigned)
        named = {key: one.hash for key, one in {**self.held, **put}.items()}
        for key in dropped:
            del named[key]
            statements.remove(tx, *key)
        if "head" in may:
            members = {"live": live(named)}
            put[("head", self.org)] = self._sign(tx, ("head", self.org), members, HEAD_DAYS, None)
        statements.put(tx, *(_stored(key, statement) for key, statement in put.items()))
        return Round(tx.revision, facts, put, dropped, unsigned)

    def _check_alone(self, tx: Tx) -> None:
        held = self.held.get(("head", self.org))
        tx.lock(int(self.org[:8], 16))  # until this round is committed
        try:
            stored = statements.get(tx.connection, self.org, "head", self.org).hash
        except NotFound:
            stored = ""
        if stored not in (self.damaged, "" if held is None else held.hash):
            raise Overtaken

    def _described(self, tx: Tx, keys: Iterable[Key]) -> dict[Key, Fact]:
        """What the store says of objects; nothing of one that cannot even be read."""
        wanted = list(keys)
        try:
            return describe(tx.connection, self.org, wanted, tx.now)
        except (SQLAlchemyError, StoreError):
            raise  # of the database, not of these objects
        except Exception:
            if len(wanted) == 1:
                log.failure("{type} {id} cannot be read", type=wanted[0][0], id=wanted[0][1])
                return {wanted[0]: Fact(None, lambda map: None)}
        return {key: fact for one in wanted for key, fact in self._described(tx, [one]).items()}

    def _new_signers(self, tx: Tx) -> Statement | None:
        """The first list, or the same keys again when it ends soon."""
        held = self.held.get(("signers", self.org))
        if held is None:
            public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()
            keys: Any = [{"key": public, "types": list(TYPES), "name": "control plane"}]
        else:
            ends_soon = held.expires < tx.now + SIGNERS_DAYS * DAY / 2
            keys = self._with_new_types(held)
            changed = keys != held.body["keys"]
            if not (changed or ends_soon or self.again) or "signers" not in self._may_sign(held):
                return None
        return self._sign(tx, ("signers", self.org), {"keys": keys}, SIGNERS_DAYS, None)

    def _with_new_types(self, held: Statement) -> list[dict[str, Any]]:
        """The keys of a list, where ours may also sign what the list is too old to speak of.

        A type that anybody may sign was decided on and stays as it is.
        """
        keys: list[dict[str, Any]] = held.body["keys"]
        spoken = {type for entry in keys for type in entry["types"]}
        new = [type for type in ADDED_TYPES if type not in spoken]
        if not new:
            return keys
        return [
            {**entry, "types": [*entry["types"], *new]} if self._is_own(entry) else entry
            for entry in keys
        ]

    def _is_own(self, entry: Mapping[str, Any]) -> bool:
        return key_id(base64.b64decode(entry["key"])) == self._key_id

    def _may_sign(self, signers: Statement | None) -> frozenset[str]:
        known = Signers(signers) if signers is not None else self.signers
        assert known is not None
        return frozenset(type for type in TYPES if known.allows(self._key_id, type))

    def _sign(
        self, tx: Tx, key: Key, members: Mapping[str, Any], days: float, until: float | None
    ) -> Statement:
        expires = tx.now + days * DAY
        if until is not None:
            expires = min(expires, until)
        body = draft(self.org, key[1], tx.revision, tx.now, expires, **members)
        return sign(key[0], body, self._key)

    def _still_good(self, held: Statement, fact: Fact, now: float) -> bool:
        body = held.body
        if self.again:
            return False
        said = {name: value for name, value in body.items() if name not in _COMMON}
        if said != fact.members:
            return False
        longest = now + OBJECT_DAYS * DAY / 2
        due = longest if fact.until is None else min(longest, fact.until)
        if held.expires < int(due):  # times in statements have microseconds, devices' have more
            return False
        return fact.until is None or held.expires <= fact.until + 1.0

    def head_is_good(self, now: float) -> bool:
        """Whether nothing has to be signed for the head's sake."""
        head = self.held.get(("head", self.org))
        return head is not None and not self.again and head.expires > now + HEAD_DAYS * DAY / 2


def _stored(key: Key, statement: Statement) -> statements.NewStatement:
    return statements.NewStatement(
        *key,
        statement.body["revision"],
        statement.hash,
        statement.payload,
        [(name, base64.b64encode(signature).decode()) for name, signature in statement.signatures],
        statement.expires,
    )
