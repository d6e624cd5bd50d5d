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
from collections.abc import Callable, Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from border0.control.netmap import Changes, NetMap
from border0.control.publish.facts import (
    CONFIGURATION,
    Fact,
    Key,
    NodeFacts,
    every_key,
)
from border0.control.publish.signing import (
    DAY,
    OBJECT_DAYS,
    Overtaken,
    Round,
    Signing,
)
from border0.control.store import organisations, statements
from border0.control.store.backup import REVISION_JUMP
from border0.control.store.errors import Unavailable
from border0.control.store.store import Store
from border0.control.store.transaction import Entry
from border0.statements import (
    Signers,
    Statement,
    StatementError,
)

ROUND_SECONDS = 0.01  # what a burst has to join one round
RETRY_SECONDS = 1.0
LOOK_SECONDS = 60.0
OVERTAKEN_LIMIT = 5
RETRY_LOOKS = 60  # looks until what could not be signed is tried again
JUMP_SECONDS = 30.0  # by which the wall clock was set, not late
ACTOR = "signer"

log = Logger(namespace="border0.control")


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
        self.unsigned: dict[Key, str] = {}  # objects that nobody can act on, and why
        self.signing = Signing(org, key)
        self._until: dict[Key, float] = {}
        self._dirty: set[tuple[str, str]] = set()  # (kind, id) of changed objects
        self._keys: set[Key] = set()  # statements to look at, whatever changed
        self._running: Deferred[None] | None = None
        self._timer: Any = None
        self._look: Any = None
        self._waiting: list[Deferred[None]] = []
        self._stopped = False
        self._looks = 0
        self._at: tuple[float, float] | None = None  # wall and reactor's time of the last look

    async def start(self) -> None:
        """Sign what is not signed, and load the map; a failing store is the caller's error."""

        def number(connection: Connection) -> int:
            return organisations.get(connection, self.org).revision

        revision = await self.store.read(number)
        await self._load()
        head = self.signing.held.get(("head", self.org))
        # Nodes may have seen later revisions than a backup that was restored holds.
        self.signing.again = head is not None and revision - head.body["revision"] >= REVISION_JUMP
        await self._round()
        self.signing.again = False
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
                    self.signing.damaged = stored.hash
        before, self.signing.held = self.signing.held, held
        if self.map.revision:  # else nothing was told yet
            for key in before.keys() - held.keys():
                self.map.drop_statement(key)
            for key, one in held.items():
                if key not in before or before[key].hash != one.hash:
                    self.map.put_statement(key, one.hash, one.encode())
        if (signers := held.get(("signers", self.org))) is not None:
            self.signing.signers = Signers(signers)
        self._keys |= {*keys, *(key for key in held if key[0] not in ("head", "signers"))}

    @property
    def signers(self) -> Signers | None:
        """Which key may sign what; None before the start."""
        return self.signing.signers

    def relays(self) -> list[str]:
        """The ids of the relays that nodes are told of."""
        return sorted(id for type, id in self.signing.held if type == "relay")

    def until(self, key: Key) -> float | None:
        """When an object changes by itself, in Unix seconds; None: it does not."""
        return self._until.get(key)

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
            except Overtaken:
                log.error("another process publishes for {org}: stop one of them", org=self.org)
                await self._load()
        raise Unavailable("another process publishes all the time", certain=True)

    async def _one_round(self) -> None:
        dirty, self._dirty = self._dirty, set()
        keys, self._keys = self._keys, set()
        try:
            found = await self.store.change(
                lambda tx: self.signing.publish(tx, dirty, keys), org=self.org, actor=ACTOR
            )
        except BaseException:
            self._dirty |= dirty
            self._keys |= keys
            raise
        self._apply(found)

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
            del self.signing.held[key]
            map.drop_statement(key)
        self.signing.held.update(found.put)
        if (signers := found.put.get(("signers", self.org))) is not None:
            self.signing.signers = Signers(signers)
        first = map.revision == 0
        for key, statement in (self.signing.held if first else found.put).items():
            map.put_statement(key, statement.hash, statement.encode())
        head = self.signing.held.get(("head", self.org))
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
            self._keys |= {key for key in self.signing.held if key[0] not in ("head", "signers")}
        self._looks += 1
        if self._looks % RETRY_LOOKS == 0:
            self._keys |= {*self.unsigned}
        soon = now + OBJECT_DAYS * DAY / 2
        self._keys |= {key for key, until in self._until.items() if until <= now}
        self._keys |= {
            key
            for key, one in self.signing.held.items()
            if one.expires < soon and key[0] not in ("head", "signers")
        }
        if self._keys or not self.signing.head_is_good(now):
            self._soon(0.0)
        for key in [key for key, until in self._until.items() if until <= now]:
            del self._until[key]
        self._look_later()


def _restored(stored: statements.StoredStatement) -> Statement:
    """The statement as it was stored.

    :raises StatementError: the row is not one.
    """
    signatures = [(name, base64.b64decode(text)) for name, text in stored.signatures]
    statement = Statement(stored.type, stored.payload, signatures)
    if statement.hash != stored.hash:
        raise StatementError("malformed", f"the stored {stored.type} {stored.id} was changed")
    return statement
