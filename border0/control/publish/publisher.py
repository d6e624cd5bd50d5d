"""Keeps signed statements, head and map of one organisation in step with the store.

After a commit it reads the objects that may say something else now, signs what does, and stores
the statements with a new head in one more commit; then nodes are told. Only one such round runs at
a time; what changes meanwhile waits for the next, so that a burst costs one head. At start every
object is looked at: what a crash left unsigned is signed then.

A type that this control plane's key may not sign is left as it is: who signs it elsewhere puts the
statement into the store.

An object that no statement can say (a member of another form, too large, one too many) has none:
nobody acts on it, and all others are published. It is looked at again when it changes, and hourly.

Who publishes is one process. When another one did all the same (two on one database), its head is
found in the store; what it signed is read before anything is signed on top of it, so that no head
names what was replaced.

A wall clock that is set changes what has expired: then everything is looked at again.
"""

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from border0.control.netmap import Changes, NetMap
from border0.control.publish.facts import (
    CONFIGURATION,
    Fact,
    Key,
    NodeFacts,
    affected,
    describe,
    every_key,
)
from border0.control.store import organisations, statements
from border0.control.store.backup import REVISION_JUMP
from border0.control.store.errors import NotFound, StoreError, Unavailable
from border0.control.store.store import Store
from border0.control.store.transaction import Entry, Tx
from border0.statements import (
    TYPES,
    Signers,
    Statement,
    StatementError,
    draft,
    key_id,
    live,
    sign,
)

DAY = 86_400.0
OBJECT_DAYS = 90.0
HEAD_DAYS = 14.0
SIGNERS_DAYS = 3650.0
ROUND_SECONDS = 0.01  # what a burst has to join one round
RETRY_SECONDS = 1.0
LOOK_SECONDS = 60.0
OVERTAKEN_LIMIT = 5
RETRY_LOOKS = 60  # looks until what could not be signed is tried again
JUMP_SECONDS = 30.0  # by which the wall clock was set, not late
OBJECTS_LIMIT = 70_000  # statements that one head can name in its eight mebibytes
_COMMON = ("org", "id", "revision", "issued", "expires")
ACTOR = "signer"

log = Logger(namespace="border0.control")


class Round(NamedTuple):
    """What one round did, in the store's thread; applied in the reactor's."""

    revision: int  # 0: nothing was signed
    facts: dict[Key, Fact]
    put: dict[Key, Statement]
    dropped: list[Key]
    unsigned: dict[Key, str]  # why there can be no statement


class _Overtaken(Exception):
    """Another process has stored a head."""


class Publisher:
    """One organisation.

    :param key: the organisation's signing key on this control plane.
    :param told: called in the reactor when the map has another revision.
    """

    def __init__(
        self,
        store: Store,
        org: str,
        key: Ed25519PrivateKey,
        reactor: Any,
        clock: Callable[[], float],
        told: Callable[[Changes], None],
    ) -> None:
        self.store, self.org, self.reactor, self.clock, self.told = store, org, reactor, clock, told
        self.map = NetMap()
        self.nodes: dict[str, NodeFacts] = {}
        self.signers: Signers | None = None
        self.unsigned: dict[Key, str] = {}  # objects that nobody can act on, and why
        self._key = key
        self._key_id = key_id(key.public_key().public_bytes_raw())
        self._held: dict[Key, Statement] = {}
        self._until: dict[Key, float] = {}
        self._dirty: set[tuple[str, str]] = set()  # (kind, id) of changed objects
        self._keys: set[Key] = set()  # statements to look at, whatever changed
        self._running: Deferred[None] | None = None
        self._timer: Any = None
        self._look: Any = None
        self._waiting: list[Deferred[None]] = []
        self._stopped = False
        self._again = False  # sign everything again
        self._damaged: str | None = None  # the hash of a stored head that cannot be read
        self._looks = 0
        self._at: tuple[float, float] | None = None  # wall and reactor's time of the last look

    async def start(self) -> None:
        """Sign what is not signed, and load the map; a failing store is the caller's error."""

        def number(connection: Connection) -> int:
            return organisations.get(connection, self.org).revision

        revision = await self.store.read(number)
        await self._load()
        head = self._held.get(("head", self.org))
        # Nodes may have seen later revisions than a backup that was restored holds.
        self._again = head is not None and revision - head.body["revision"] >= REVISION_JUMP
        await self._round()
        self._again = False
        self._look_later()

    async def _load(self) -> None:
        """Read every statement, and mean to look at every object."""

        def load(connection: Connection) -> tuple[list[statements.StoredStatement], list[Key]]:
            return statements.live(connection, self.org), every_key(connection, self.org)

        found, keys = await self.store.read(load)
        held: dict[Key, Statement] = {}
        for stored in found:
            try:
                held[(stored.type, stored.id)] = _restored(stored)
            except StatementError:
                if stored.type == "signers":
                    raise
                log.failure("a stored statement is damaged: it is signed anew")
                if stored.type == "head":
                    self._damaged = stored.hash
        before, self._held = self._held, held
        if self.map.revision:  # else nothing was told yet
            for key in before.keys() - held.keys():
                self.map.drop_statement(key)
            for key, one in held.items():
                if key not in before or before[key].hash != one.hash:
                    self.map.put_statement(key, one.hash, one.encode())
        if (signers := held.get(("signers", self.org))) is not None:
            self.signers = Signers(signers)
        self._keys |= {*keys, *(key for key in held if key[0] not in ("head", "signers"))}

    def stop(self) -> "Deferred[None] | None":
        """No further rounds; fires when the one under way is over."""
        self._stopped = True
        for call in (self._timer, self._look):
            if call is not None and call.active():
                call.cancel()
        return self._running

    def changed(self, entries: Iterable[Entry]) -> None:
        """The store has committed changes of these objects."""
        dirty = {(kind, id) for kind, id, _ in entries}
        if dirty:
            self._dirty |= dirty
            self._soon(ROUND_SECONDS)

    def settled(self) -> "Deferred[None]":
        """Fires when nothing that has changed until now waits to be published."""
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._soon(0.0)
        return done

    def _soon(self, seconds: float) -> None:
        if self._stopped or self._running is not None:
            return  # the end of the round under way looks again
        if self._timer is None or not self._timer.active():
            self._timer = self.reactor.callLater(seconds, self._run)

    def _run(self) -> None:
        self._timer = None
        waiting, self._waiting = self._waiting, []
        self._running = maybeDeferred(lambda: Deferred.fromCoroutine(self._round()))

        def failed(failure: Any) -> None:
            log.failure("statements could not be published; trying again", failure)
            self._waiting += waiting
            self._running = None
            if not self._stopped:
                self._timer = self.reactor.callLater(RETRY_SECONDS, self._run)

        def done(_: Any) -> None:
            self._running = None
            for one in waiting:
                one.callback(None)
            if self._dirty or self._keys or self._waiting:
                self._soon(ROUND_SECONDS)

        self._running.addCallbacks(done, failed)

    async def _round(self) -> None:
        for _ in range(OVERTAKEN_LIMIT):
            try:
                return await self._one_round()
            except _Overtaken:
                log.error("another process publishes for {org}: stop one of them", org=self.org)
                await self._load()
        raise Unavailable("another process publishes all the time", certain=True)

    async def _one_round(self) -> None:
        dirty, self._dirty = self._dirty, set()
        keys, self._keys = self._keys, set()
        try:
            found = await self.store.change(
                lambda tx: self._publish(tx, dirty, keys), org=self.org, actor=ACTOR
            )
        except BaseException:
            self._dirty |= dirty
            self._keys |= keys
            raise
        self._apply(found)

    # In the store's thread: reads `_held`, changes nothing of ours.

    def _publish(self, tx: Tx, dirty: set[tuple[str, str]], keys: set[Key]) -> Round:
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
        room = OBJECTS_LIMIT - len(self._held) - len(put)
        for key, fact in facts.items():
            if key[0] not in may:
                continue
            held = self._held.get(key)
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
        if not put and not dropped and self._head_is_good(tx.now):
            return Round(0, facts, {}, [], unsigned)
        named = {key: one.hash for key, one in {**self._held, **put}.items()}
        for key in dropped:
            del named[key]
            statements.remove(tx, *key)
        if "head" in may:
            members = {"live": live(named)}
            put[("head", self.org)] = self._sign(tx, ("head", self.org), members, HEAD_DAYS, None)
        statements.put(tx, *(_stored(key, statement) for key, statement in put.items()))
        return Round(tx.revision, facts, put, dropped, unsigned)

    def _check_alone(self, tx: Tx) -> None:
        held = self._held.get(("head", self.org))
        tx.lock(int(self.org[:8], 16))  # until this round is committed
        try:
            stored = statements.get(tx.connection, self.org, "head", self.org).hash
        except NotFound:
            stored = ""
        if stored not in (self._damaged, "" if held is None else held.hash):
            raise _Overtaken

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
        held = self._held.get(("signers", self.org))
        if held is None:
            public = base64.b64encode(self._key.public_key().public_bytes_raw()).decode()
            keys: Any = [{"key": public, "types": list(TYPES), "name": "control plane"}]
        else:
            ends_soon = held.expires < tx.now + SIGNERS_DAYS * DAY / 2
            if not (ends_soon or self._again) or "signers" not in self._may_sign(held):
                return None
            keys = held.body["keys"]
        return self._sign(tx, ("signers", self.org), {"keys": keys}, SIGNERS_DAYS, None)

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
        if self._again:
            return False
        said = {name: value for name, value in body.items() if name not in _COMMON}
        if said != fact.members:
            return False
        longest = now + OBJECT_DAYS * DAY / 2
        due = longest if fact.until is None else min(longest, fact.until)
        if held.expires < int(due):  # times in statements have microseconds, devices' have more
            return False
        return fact.until is None or held.expires <= fact.until + 1.0

    def _head_is_good(self, now: float) -> bool:
        head = self._held.get(("head", self.org))
        return head is not None and not self._again and head.expires > now + HEAD_DAYS * DAY / 2

    # In the reactor's thread.

    def _apply(self, found: Round) -> None:
        map = self.map
        self._note_unsigned(found)
        for key, fact in found.facts.items():
            try:
                fact.tell(map)
            except Exception:  # it is not in force for anybody; the others go on
                log.failure("the map of nodes does not take {type} {id}", type=key[0], id=key[1])
            self._remember(key, fact)
            if key[0] == "socket":
                self._configure(key[1], fact)
        self._look_in_time(found)
        for key in found.dropped:
            del self._held[key]
            map.drop_statement(key)
        self._held.update(found.put)
        if (signers := found.put.get(("signers", self.org))) is not None:
            self.signers = Signers(signers)
        first = map.revision == 0
        for key, statement in (self._held if first else found.put).items():
            map.put_statement(key, statement.hash, statement.encode())
        head = self._held.get(("head", self.org))
        revision = found.revision or (int(head.body["revision"]) if head else 0)
        if revision > map.revision:
            self.told(map.commit(revision))

    def _note_unsigned(self, found: Round) -> None:
        for key in found.facts:
            why = found.unsigned.get(key, "")
            if why and self.unsigned.get(key) != why:
                log.error("{type} {id} is in force nowhere: {why}", type=key[0], id=key[1], why=why)
                self.unsigned[key] = why
            elif not why:
                self.unsigned.pop(key, None)

    def _configure(self, id: str, fact: Fact) -> None:
        if fact.configuration is None or fact.members is None:
            self.map.drop_statement((CONFIGURATION, id))
        else:
            digest = fact.members["configuration_hash"]
            self.map.put_statement((CONFIGURATION, id), digest, fact.configuration)

    def _remember(self, key: Key, fact: Fact) -> None:
        if key[0] == "node":
            if fact.node is None:
                self.nodes.pop(key[1], None)
            else:
                self.nodes[key[1]] = fact.node
        if fact.until is None:
            self._until.pop(key, None)
        else:
            self._until[key] = fact.until

    def _look_later(self) -> None:
        """Look again in a minute, or when the next object expires."""
        if self._look is not None and self._look.active():
            self._look.cancel()
        if self._stopped:
            return
        now = self.clock()
        due = min((*self._until.values(), now + LOOK_SECONDS))
        self._look = self.reactor.callLater(max(0.0, due - now) + 0.01, self._look_round)

    def _look_in_time(self, found: Round) -> None:
        """The look that is planned must not be too late for what has just been read."""
        ends = [fact.until for fact in found.facts.values() if fact.until is not None]
        if ends and self._look is not None and self._look.active():
            seconds = max(0.0, min(ends) - self.clock()) + 0.01
            if self.reactor.seconds() + seconds < self._look.getTime():
                self._look.reset(seconds)

    def _look_round(self) -> None:
        now, at = self.clock(), self.reactor.seconds()
        last, self._at = self._at, (now, at)
        if last is not None and abs((now - last[0]) - (at - last[1])) > JUMP_SECONDS:
            log.warn("the clock was set: everything is looked at again")
            self._keys |= {("node", id) for id in self.nodes}
            self._keys |= {key for key in self._held if key[0] not in ("head", "signers")}
        self._looks += 1
        if self._looks % RETRY_LOOKS == 0:
            self._keys |= {*self.unsigned}
        soon = now + OBJECT_DAYS * DAY / 2
        self._keys |= {key for key, until in self._until.items() if until <= now}
        self._keys |= {
            key
            for key, one in self._held.items()
            if one.expires < soon and key[0] not in ("head", "signers")
        }
        if self._keys or not self._head_is_good(now):
            self._soon(0.0)
        for key in [key for key, until in self._until.items() if until <= now]:
            del self._until[key]
        self._look_later()


def _stored(key: Key, statement: Statement) -> statements.NewStatement:
    return statements.NewStatement(
        *key,
        statement.body["revision"],
        statement.hash,
        statement.payload,
        [(name, base64.b64encode(signature).decode()) for name, signature in statement.signatures],
        statement.expires,
    )


def _restored(stored: statements.StoredStatement) -> Statement:
    """The statement as it was stored.

    :raises StatementError: the row is not one.
    """
    signatures = [(name, base64.b64decode(text)) for name, text in stored.signatures]
    statement = Statement(stored.type, stored.payload, signatures)
    if statement.hash != stored.hash:
        raise StatementError("malformed", f"the stored {stored.type} {stored.id} was changed")
    return statement
