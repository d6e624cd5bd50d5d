"""Follows an organisation: keeps the map fresh, believes only what is signed, remembers the rest.

What counts is in `ledger`; what is in the map but was refused counts for nothing, and is asked
again with each new map, since the signers may have changed. Without a network the saved ledger
counts until its statements expire; how long a machine goes on without contact is its own business
(`absence`).
"""

import time
from collections.abc import Callable, Mapping
from random import SystemRandom
from time import monotonic
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.control.member.belief import Belief
from border0.control.member.disk import Disk
from border0.control.member.neighbours import Neighbours
from border0.control.member.relays import RelayEntry, relays_of
from border0.control.member.state import AUTHORITY_FILE, MemberState
from border0.control.push.adapters.client import PushClient
from border0.control.push.adapters.records import RecordSender
from border0.control.push.client import MapClient
from border0.control.push.events import (
    Applied,
    Behind,
    Bye,
    CommandReceived,
    Event,
    InSync,
    Lost,
    Seen,
    SoftChanged,
    StunChanged,
    TicketsChanged,
)
from border0.control.push.messages import Key, PathOffer
from border0.control.stun import servers_of
from border0.errors import Border0Error
from border0.prefixes import Network4And6
from border0.statements import StatementError
from border0.trust import client_context, remembered_authority

CONTACT_SECONDS = 60.0  # how often the time of the last contact is written
AUTHORITY_RETRY = 30.0
LATER_LIMIT = 86400.0  # longest timer; deadlines may be years away
JUMP_SECONDS = 5.0  # by which the wall clock was set, not late

log = Logger(namespace="border0.control")


class Follower(Service):
    """One node's membership at work.

    Attributes: `ledger` (what counts), `refused` (why a statement of the map does not), `network`
    and `org_name` (of the enrolment), `refusal` (the word with which the control plane last sent
    this node away, "" once it is in again), `records` (sends record lines, see `RecordSender`),
    `clock_sets` (how often the wall clock was set: each time, what has expired may be another).

    :param changed: called after each applied map, change of soft state, connection and
        disconnection, when a statement expires, and within a minute after the wall clock was set;
        what it raises is logged.
    :param command: takes a command; call `answer` for it.
    :param wall: Unix seconds; statements expire by it.
    :param now: seconds monotonic; presence is told in it.
    :raises ConfigError: the saved ledger cannot be used; it says to join again.
    """

    def __init__(
        self,
        reactor: Any,
        state: MemberState,
        *,
        changed: Callable[["Follower"], None],
        command: Callable[[CommandReceived], None],
        wall: Callable[[], float] = time.time,
        now: Callable[[], float] = monotonic,
        uniform: Callable[[], float] | None = None,
    ) -> None:
        self.setName("control-client")
        self.reactor, self.state, self.wall, self.now = reactor, state, wall, now
        self.ledger = state.load_ledger()
        self.network: Network4And6 = state.network
        self.org_name = state.org_name
        self.refusal = ""
        self.records = RecordSender(self._act)
        self._changed, self._command = changed, command
        self._uniform = uniform or SystemRandom().random
        self._contact = state.load_contact()
        # A clock that was set back must not make the last contact newer than it can be.
        self._contact.last = min(self._contact.last, wall())
        self.clock_sets = 0
        self._ahead = 0.0  # of the wall clock to the monotonic one
        self._heard: float | None = None  # monotonic time of the last contact in this process
        self._refusals: dict[str, str] = {}
        self._reported: tuple[list[str], PathOffer | None] = ([], None)
        self._connected = self._was_synced = False
        self._push: PushClient | None = None
        self._authority: Deferred[Any] | None = None
        self._dial: IDelayedCall | None = None
        self._deadline: IDelayedCall | None = None
        self._tick: IDelayedCall | None = None
        held = state.load_map()
        # What was believed is newer than a map that was lost or that nobody signed.
        held.revision = self.ledger.revision
        self.machine = MapClient(state.node, state.machine_key.sign, held)
        self.machine.stun = self._contact.stun
        self.neighbours = Neighbours(self.machine, self._contact)
        self.disk = Disk(reactor, state, self.ledger, self.machine)
        self.belief = Belief(held, self.ledger)
        self.belief.show(held.entries, wall())

    # -- what is known ----------------------------------------------------------------------

    @property
    def refused(self) -> dict[Key, StatementError]:
        """Why statements of the map do not count."""
        return self.belief.refused

    @property
    def failure(self) -> str:
        """Why the last map could not be saved; "" if it was."""
        return self.disk.failure

    @property
    def connected(self) -> bool:
        """Whether the control plane is there and has taken us in."""
        return self._connected

    @property
    def synced(self) -> bool:
        """Whether what counts is the newest that the control plane has, heads verified."""
        return self._connected and self.machine.synced and self.belief.is_newest()

    @property
    def last_contact(self) -> float:
        """When this node was last in sync (Unix seconds; 0 = never); survives restarts."""
        return self.wall() if self.synced else self._contact.last

    def absence(self) -> float:
        """Seconds since the last contact, by the clock that says more."""
        if self.synced:
            return 0.0
        since = max(0.0, self.wall() - self._contact.last)
        return since if self._heard is None else max(since, self.now() - self._heard)

    def endpoints(self, node: str) -> list[str]:
        """Where a node can be reached, best first: as it is now, or was when we last heard."""
        return self.neighbours.endpoints(node)

    def paths(self, node: str) -> PathOffer | None:
        """What a node told with its `endpoints` in this run, None if it speaks no probes (now)."""
        return self.neighbours.path(node)

    def take_moved(self) -> set[str]:
        """Which nodes told where they are since the last call."""
        return self.neighbours.take_moved()

    @property
    def stun(self) -> list[str]:
        """The STUN servers to ask, `HOST:PORT`; also those of the last run."""
        return servers_of(self._contact.stun, self.state.control.host)

    def relays(self) -> list[RelayEntry]:
        """The relays of the organisation, by name."""
        return relays_of(self.ledger, self.wall())

    def ticket(self, relay: str) -> bytes | None:
        """What lets this node into a relay (its id), while it is good; never on a disk."""
        return self.machine.tickets.get(relay, self.now())

    def presence(self, node: str) -> Seen | None:
        """How a node's own connection was last seen, also while we have none; `heard` as `now`."""
        return self.neighbours.presence(node)

    def configuration(self, socket: str) -> bytes | None:
        """A socket's configuration, if it is the one that its current statement names."""
        return self.belief.configuration(socket, self.wall())

    # -- what is said -----------------------------------------------------------------------

    def report(self, endpoints: list[str], path: PathOffer | None = None) -> None:
        """Tell where this node can be reached (`address:port`, best first), and its path key.

        :raises ValueError: the path part has not one kind for each endpoint, or is none.
        """
        if (endpoints, path) != self._reported:
            self._act(lambda machine, now: machine.report(endpoints, now, path))
            self._reported = (list(endpoints), path)

    def answer(self, command: str, ok: bool, detail: str = "") -> None:
        """Acknowledge a command; one that is not known any more is ignored."""

        def answer(machine: MapClient, now: float) -> None:
            try:
                machine.answer(command, ok, detail, now)
            except ValueError:
                log.warn("push: nobody waits for an answer to {command}", command=command)

        self._act(answer)

    def status(self, refusals: Mapping[str, str]) -> None:
        """Tell which sockets are not served here and why, as a whole."""
        told = dict(refusals)
        if told != self._refusals:
            self._refusals = told
            self._tell_status()

    def _tell_status(self) -> None:
        self._act(lambda machine, now: machine.status(self._refusals, now))

    def _act(self, call: Callable[[MapClient, float], None]) -> None:
        if self._push is not None:
            self._push.act(call)
        else:
            call(self.machine, self.now())

    # -- life -------------------------------------------------------------------------------

    def startService(self) -> None:
        """Connect, now and after each loss; the saved state counts meanwhile."""
        super().startService()
        self._tick = self.reactor.callLater(CONTACT_SECONDS, self._keep_contact)
        self._ahead = self.wall() - self.now()
        self._watch()
        self._connect()

    def stopService(self) -> Any:
        """Say good-bye, remember the contact; fires when the connection is gone."""
        super().stopService()
        for call in (self._dial, self._deadline, self._tick):
            if call is not None and call.active():
                call.cancel()
        self._dial = self._deadline = self._tick = None
        if self._authority is not None:
            self._authority.cancel()
        self.disk.finish()
        self._touch()
        self._save_contact()
        self._connected = False
        push, self._push = self._push, None
        return None if push is None else push.stopService()

    def _connect(self) -> None:
        self._dial = None
        state, control = self.state, self.state.control
        authority: Deferred[Any] = maybeDeferred(lambda: None)
        if state.ca:  # kept since the enrolment; read again only when its certificate has expired
            path = state.folder / AUTHORITY_FILE
            authority = maybeDeferred(
                remembered_authority,
                self.reactor, control.host, control.port, state.ca, path, self.wall(),
            )  # fmt: skip
        self._authority = authority
        authority.addCallbacks(self._dialled, self._undialled)

    def _undialled(self, failure: Failure) -> None:
        if self.running:
            log.warn("control plane: {why}", why=failure.getErrorMessage())
            self._dial = self.reactor.callLater(AUTHORITY_RETRY, self._connect)

    def _dialled(self, authority: bytes | None) -> None:
        if not self.running:
            return
        state, control = self.state, self.state.control
        try:
            tls = client_context(control.host, authority=authority, pin=state.ca or None)
        except Border0Error as error:
            log.error("control plane: {why}", why=str(error))
            return
        self._push = PushClient(
            self.reactor,
            self.machine,
            control.host,
            control.port,
            tls,
            self._happened,
            uniform=self._uniform,
            path=f"{control.path}/api/v1/push",
            now=self.now,
        )
        self._push.startService()

    def _happened(self, events: list[Event]) -> None:
        """What the connection brought in one turn."""
        news = fresh = False
        commands = []
        for event in events:
            if isinstance(event, Bye):
                news = news or event.reason != self.refusal
                self.refusal = event.reason
            elif isinstance(event, Applied | InSync):
                self.refusal = ""
            if self._connected == isinstance(event, Lost | Bye):
                news = True
                self._reconnected(not self._connected)
            if isinstance(event, Applied):
                self._applied(event)
                news = fresh = True
            elif isinstance(event, InSync | TicketsChanged):
                news = True
            elif isinstance(event, Behind):
                log.warn(
                    "the control plane offers revision {old}, this node has {new}: not applied",
                    old=event.revision,
                    new=self.machine.map.revision,
                )
            elif isinstance(event, SoftChanged):
                self.neighbours.changed(event, self.now())
                news = True
            elif isinstance(event, StunChanged):
                self._contact.stun = list(event.servers)
                self._save_contact()
                news = True
            elif isinstance(event, CommandReceived):
                commands.append(event)
        if fresh:
            self.disk.save(later=bool(self.running))
        if news:
            self._touch()
            self._tell()
        for command in commands:
            try:
                self._command(command)
            except Exception:
                log.failure("command {verb} failed", verb=command.verb)
                self.answer(command.id, False, "it failed; the log says why")
        self.records.happened(events)

    def _reconnected(self, there: bool) -> None:
        if not there:
            if self._was_synced:
                self._mark()
            self._save_contact()
        self._connected = there
        log.info("control plane: {what}", what="connected" if there else "not connected")
        if there:
            self._tell_status()

    # -- believing --------------------------------------------------------------------------

    def _applied(self, event: Applied) -> None:
        for type, id in event.dropped:
            if type == "node":
                self.neighbours.forget(id)
        self.belief.applied(event.put, event.dropped, self.wall(), full=event.full)

    # -- time and disk ----------------------------------------------------------------------

    def _tell(self) -> None:
        self._watch()
        try:
            self._changed(self)
        except Exception:
            log.failure("the change could not be applied")

    def _watch(self) -> None:
        """Call `changed` when the next statement expires."""
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None
        now = self.wall()
        deadline = self.ledger.next_deadline(now)
        if deadline is not None and self.running:
            delay = min(max(deadline - now, 0.0), LATER_LIMIT)
            self._deadline = self.reactor.callLater(delay, self._tell)

    def _touch(self) -> None:
        """Remember now as the last contact, if this is one."""
        self._was_synced = self.synced
        if self._was_synced:
            self._mark()

    def _mark(self) -> None:
        self._contact.last = self.wall()
        self._heard = self.now()

    def _keep_contact(self) -> None:
        self._tick = self.reactor.callLater(CONTACT_SECONDS, self._keep_contact)
        ahead, self._ahead = self._ahead, self.wall() - self.now()
        if abs(self._ahead - ahead) > JUMP_SECONDS:
            log.warn("the clock was set by {by} s", by=round(self._ahead - ahead))
            self.clock_sets += 1
            self._tell()
        if self.synced:
            self._touch()
            self._save_contact()

    def _save_contact(self) -> None:
        try:
            self.state.save_contact(self._contact)
        except OSError as error:
            log.error("the last contact could not be saved: {why}", why=str(error))
