"""The hub of one organisation: who is connected, what each must be told, and when.

The owner of the state tells the hub what a commit changed for whom (`changed`, at once after the
view shows it), and hands it messages and the time. The hub writes through its sessions. A change is
written 50 ms after the first one of a burst, later ones at most every 200 ms; a session whose
transport is full waits and then gets the newest state. Commands are written at once, again after a
reconnect, and end with an answer or with their time. Batches of records are answered when the
caller has stored them (`intake`).

Not here: sockets, clocks, authentication (adapters), which statements a node needs (`netmap`).
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from border0.control.push import messages as wire
from border0.control.push.changelog import ChangeLog
from border0.control.push.commands import MAX_COMMANDS, Commands
from border0.control.push.facts import SOFT_FRAME, Facts
from border0.control.push.intake import Intake, no_store
from border0.control.push.issuing import Issued, Issuing, Wish, look
from border0.control.push.maphash import text
from border0.control.push.messages import Key, PathOffer, ProtocolError
from border0.control.push.session import NodeSession, PieceCache, View

FIRST_FLUSH = 0.05  # seconds from the first change of a burst
FLUSH_INTERVAL = 0.2  # seconds between flushes while changes go on
ROUND = 500  # sessions flushed before others get their turn
KEEPALIVE = 30.0
SCAN = 5.0  # seconds between looks at all sessions
SILENT = 90.0  # seconds without a word after which a node is dropped
STALLED = 120.0  # seconds that a transport may stay full
SOFT_REFRESH = 240.0
RETRY_BEHIND = 10.0
RETRY_UNKNOWN = 60.0


class Hub:
    """All sessions of one organisation.

    :param view: the map of a node as it is now; None for a node that is not (any more) known.
    :param peers: the nodes that see a node, which are those that it sees.
    :param log: what changed; its newest revision is that of the views.
    :param random_bytes: makes ids of commands.
    :param stun: the STUN servers that a welcome names, as it is when a node comes.
    """

    def __init__(
        self,
        view: Callable[[str], View | None],
        peers: Callable[[str], Iterable[str]],
        log: ChangeLog,
        *,
        random_bytes: Callable[[int], bytes],
        keepalive: float = KEEPALIVE,
        stun: Sequence[str] = (),
    ) -> None:
        self.log = log
        self.sessions: dict[str, NodeSession] = {}
        self.counts: Counter[str] = Counter()  # resume, delta, full, resync, replaced, ...
        self.wake: Callable[[], None] = _nothing  # the next deadline is earlier now
        self.answered: Callable[[str, str, bool, str], None] = _nothing  # node, command, ok, detail
        self.applied: Callable[[str, int], None] = _nothing  # node, revision
        self.seen: Callable[[str, bool, str], None] = _nothing  # node, online, address
        self.status: Callable[[str, dict[str, str]], None] = _nothing  # node, why by socket
        self.records: Callable[[str, str], Deferred[Any]] = no_store  # node, lines; fires: stored
        self.tickets: Callable[[str], Issued] = lambda node: Issued([], 0.0)  # of a node, now
        self._view = view
        self._peers = peers
        self._issuing = Issuing(lambda node: self.tickets(node), random_bytes)
        self._intake = Intake(
            lambda node, text: self.records(node, text),  # both are set later than this
            lambda: self.wake(),
        )
        self._keepalive, self._stun = keepalive, stun
        self._cache = PieceCache()
        self._dirty: dict[NodeSession, None] = {}
        self._due: float | None = None
        self._flushed = float("-inf")
        self._scan: float | None = None
        self._refresh = 0.0
        self._facts = Facts()
        self._commands = Commands(
            random_bytes, lambda node, name, ok, detail: self.answered(node, name, ok, detail)
        )

    def attach(
        self,
        hello: wire.Hello,
        write: Callable[[bytes], None],
        close: Callable[[str], None],
        now: float,
        address: str = "",
    ) -> NodeSession | None:
        """Take in a node whose hello has been verified; None when it was told to leave.

        `write` takes frames and may call `NodeSession.pause`; `close` takes a reason.
        """
        node = hello.node
        session = NodeSession(node, write, close, now, address)
        view = self._view(node)
        reason = ""
        if wire.VERSION not in hello.versions:
            reason, wait = "version", 3600.0
        elif view is None:
            reason, wait = "unknown", RETRY_UNKNOWN
        elif hello.revision > view.revision:
            reason, wait = "behind", RETRY_BEHIND
        if reason or view is None:
            self.counts[reason] += 1
            session.bye(reason, wait, now)
            return None
        old = self.sessions.get(node)
        if old is not None:
            self.counts["replaced"] += 1
            old.bye("replaced", 30.0, now)
            self._dirty.pop(old, None)
        self.sessions[node] = session
        welcome = wire.Welcome(wire.VERSION, self._keepalive, list(self._stun))
        session.send(wire.encode(welcome), now)
        self._catch_up(session, hello, view, now)
        session.soft.update(peer for peer in self._peers(node) if self._facts.known(peer, now))
        session.outbox.extend(self._commands.frames(node))
        if wire.TICKETS in hello.wants:
            session.wish = Wish()
        self._flush(session, now)
        self._cache.clear()
        self._notice(node, True, address, now)
        if self._scan is None:
            self._scan = now + SCAN
            self._refresh = now + SOFT_REFRESH
            self.wake()
        return session

    def _catch_up(self, session: NodeSession, hello: wire.Hello, view: View, now: float) -> None:
        hashed = text(view.fingerprint)
        session.at, session.map_hash = hello.revision, hello.map_hash
        changed = self.log.since(session.node, hello.revision)
        if hello.map_hash == hashed:
            self.counts["resume"] += 1
            session.at = view.revision
            session.send(wire.encode(wire.Resume(view.revision, hashed)), now)
        elif changed and view.revision > hello.revision:
            self.counts["delta"] += 1
            session.note(changed, lambda: len(view.entries()))
        else:  # the log does not reach back, or what the node holds is not what it was sent
            self.counts["full"] += 1
            session.want_full()

    def detach(self, session: NodeSession, now: float) -> None:
        """The connection is gone."""
        session.drop("gone")
        self._intake.forget(session)
        self._dirty.pop(session, None)
        if self.sessions.get(session.node) is session:
            del self.sessions[session.node]
            self._notice(session.node, False, session.address, now)

    def disconnect(self, node: str, reason: str, retry_after: float, now: float) -> None:
        """Tell a node to leave: one word, and the seconds to stay away."""
        session = self.sessions.get(node)
        if session is not None:
            session.bye(reason, retry_after, now)
            self.detach(session, now)

    def drain(self, now: float, reason: str = "shutdown", retry_after: float = 1.0) -> None:
        """Tell every node to come back later."""
        for node in list(self.sessions):
            self.disconnect(node, reason, retry_after, now)

    def writable(self, session: NodeSession, now: float) -> None:
        """The transport takes frames again: what waited goes out now."""
        session.paused_since = None
        if session.dirty and not session.closed:
            self._flush(session, now)
            self._cache.clear()

    def changed(
        self,
        revision: int,
        nodes: Mapping[str, Collection[Key]],
        everyone: Collection[Key],
        now: float,
    ) -> None:
        """A commit put or dropped these statements: by node, and those that all nodes get.

        :raises ValueError: the revision is not higher than the one before.
        """
        self.log.add(revision, nodes, everyone)
        for node, keys in nodes.items():
            session = self.sessions.get(node)
            if session is not None:
                self._note(session, keys)
                session.soft.update(
                    name for kind, name in keys if kind == "node" and self._facts.known(name, now)
                )
        if everyone:
            for session in self.sessions.values():
                self._note(session, everyone)
        self._schedule(now)

    def tickets_changed(self, nodes: Iterable[str] | None, now: float) -> None:
        """The tickets of these nodes would be others now; None: of all."""
        for node in list(self.sessions) if nodes is None else nodes:
            session = self.sessions.get(node)
            if session is not None and session.wish is not None:
                session.wish.due = True
                self._dirty[session] = None
        self._schedule(now)

    def _note(self, session: NodeSession, keys: Collection[Key]) -> None:
        session.note(keys, lambda: self._size(session.node))
        self._dirty[session] = None

    def _size(self, node: str) -> int:
        view = self._view(node)
        return len(view.entries()) if view is not None else 0

    def command(
        self, node: str, verb: str, arguments: Mapping[str, str], now: float, ttl: float = 60.0
    ) -> str:
        """Send a command once, and again after a reconnect until it is answered or `ttl` is over.

        :return: its id; the answer comes by `answered`, with ok False when there was none.
        :raises ValueError: a verb or arguments that no command may have.
        """
        name, frame = self._commands.add(node, verb, arguments, now + ttl)
        if self._scan is None:
            self._scan = now + SCAN
            self.wake()
        session = self.sessions.get(node)
        if session is not None:
            session.outbox.append(frame)
            del session.outbox[:-MAX_COMMANDS]
            self._flush(session, now)
            self._cache.clear()
        return name

    def report(
        self, node: str, endpoints: list[str], now: float, path: PathOffer | None = None
    ) -> None:
        """Set where a node can be reached; its peers are told."""
        self._facts.reported(node, endpoints, path, now)
        self._tell_peers(node, now)

    def _notice(self, node: str, online: bool, address: str, now: float) -> None:
        self._facts.seen(node, online, address, now, now)
        self._tell_peers(node, now)
        self.seen(node, online, address)

    def _tell_peers(self, node: str, now: float) -> None:
        told = False
        for peer in self._peers(node):
            session = self.sessions.get(peer)
            if session is not None:
                session.soft.add(node)
                self._dirty[session] = None
                told = True
        if told:
            self._schedule(now)

    def receive(self, session: NodeSession, frame: bytes, now: float) -> None:
        """One message of an attached node.

        :raises ProtocolError: it is none, or none that may come now.
        """
        if session.closed:
            return
        message = wire.parse_to_server(frame)
        session.last_heard = now
        if isinstance(message, wire.Applied):
            session.applied = message.revision
            self.applied(session.node, message.revision)
        elif isinstance(message, wire.Ack):
            self._commands.acknowledge(session.node, message)
        elif isinstance(message, wire.Report):
            self.report(session.node, message.endpoints, now, message.path)
        elif isinstance(message, wire.Records):
            self._intake.receive(session, message, now)
        elif isinstance(message, wire.Status):
            self.status(session.node, message.refusals)
        elif isinstance(message, wire.Resync):
            self._resync(session, message, now)
        elif isinstance(message, wire.Bye):
            self.detach(session, now)
        elif isinstance(message, wire.Hello):
            raise ProtocolError("a second hello")

    def _resync(self, session: NodeSession, message: wire.Resync, now: float) -> None:
        self.counts["resync"] += 1
        view = self._view(session.node)
        if view is not None and message.revision > view.revision:
            self.disconnect(session.node, "behind", RETRY_BEHIND, now)
            return
        session.want_full()
        self._dirty[session] = None
        self._schedule(now)

    def next_deadline(self) -> float | None:
        """When `expire` wants to be called, in the seconds of `now`."""
        if self._intake.answers:
            return float("-inf")
        if self._due is None or self._scan is None:
            return self._scan if self._due is None else self._due
        return min(self._due, self._scan)

    def expire(self, now: float) -> None:
        """Flush what is due; keep alive, drop the silent, forget what is old."""
        self._intake.flush(now)
        if self._due is not None and now >= self._due:
            self._due = None
            self._flushed = now
            for session in list(self._dirty)[:ROUND]:
                self._dirty.pop(session, None)
                if session.paused_since is None and not session.closed:  # else `writable` does
                    self._flush(session, now)
            self._cache.clear()
            if self._dirty:
                more = any(not session.full for session in self._dirty)
                self._due = now if more else now + FLUSH_INTERVAL
        if self._scan is not None and now >= self._scan:
            self._look_round(now)

    def _schedule(self, now: float) -> None:
        if self._due is None and self._dirty:
            self._due = max(now + FIRST_FLUSH, self._flushed + FLUSH_INTERVAL)
            self.wake()

    def _flush(self, session: NodeSession, now: float) -> None:
        view = self._view(session.node)
        if view is None:
            session.bye("removed", RETRY_UNKNOWN, now)
            self.detach(session, now)
            return
        session.flush(view, self._cache, now)
        if session.soft and session.paused_since is None and not session.closed:
            self._flush_soft(session, view, now)
        wish = session.wish
        if wish is not None and wish.due and session.paused_since is None and not session.closed:
            issued = self._issuing.take(session.node, wish, now)
            if issued is not None:
                self.counts["tickets"] += 1
                session.send(wire.encode(wire.Tickets(issued.ttl, issued.tickets)), now)
        if session.full and session.paused_since is None and not session.closed:
            self._dirty[session] = None  # asked for the whole map too soon after the last one
            if self._due is None:
                self._due = now + FLUSH_INTERVAL
                self.wake()

    def _flush_soft(self, session: NodeSession, view: View, now: float) -> None:
        """Soft facts of the nodes in the map, as many as fit into one frame of each kind."""
        chosen = list(session.soft)[:SOFT_FRAME]
        session.soft.difference_update(chosen)
        for frame in self._facts.frames(chosen, view, now):
            session.send(frame, now)
        if session.soft and session.paused_since is None:
            self._dirty[session] = None
            self._schedule(now)

    def _look_round(self, now: float) -> None:
        self._scan = now + SCAN
        refresh = now >= self._refresh
        if refresh:
            self._refresh = now + SOFT_REFRESH
        for session in list(self.sessions.values()):
            paused = session.paused_since
            if now - session.last_heard >= SILENT:
                self.disconnect(session.node, "silent", 0.0, now)
            elif paused is not None and now - paused >= STALLED:
                self.disconnect(session.node, "stalled", 0.0, now)
            elif paused is None and now - session.last_sent >= self._keepalive:
                alive = wire.Keepalive(session.at, session.map_hash)
                session.send(wire.encode(alive), now)
            if look(session.wish, now) and not session.closed:
                self._dirty[session] = None
                self._schedule(now)
            if refresh and not session.closed:
                # before they expire at its peers
                self._facts.renew(session.node, session.address, session.last_heard, now)
                self._tell_peers(session.node, now)
        if refresh:
            self._facts.expire(now)
        self._intake.expire(now)
        self._commands.expire(now)


def _nothing(*_: object) -> None:
    pass
