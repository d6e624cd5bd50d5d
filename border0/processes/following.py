"""A connector that follows a control plane: what it says is applied, and what it forgot is denied.

One service, `control-client`: it joins when this machine has not joined and has a code, then keeps
a `Follower`, and a `Delivery` of the records. Every second it asks whether live sessions may go on
(addresses and times change by themselves) and how long there was no contact.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.audit.events import Actor
from border0.connector.admission import Underlay
from border0.connector.config import ConnectorConfig
from border0.connector.delivery import Delivery
from border0.connector.followed import Followed
from border0.connector.joining import join_connector
from border0.connector.membership import FOLDER, ControlEntry
from border0.connector.service import ConnectorService
from border0.connector.whereabouts import Whereabouts
from border0.control.member.follower import Follower
from border0.control.member.https import Refused
from border0.control.member.state import MemberState
from border0.control.member.url import parse_url
from border0.control.push.client import backoff
from border0.control.push.events import CommandReceived
from border0.errors import Border0Error, ConfigError
from border0.processes.devicepaths import DevicePaths
from border0.processes.peering import Peering
from border0.processes.tunnel import Tunnel

REVIEW_SECONDS = 1.0
REFUSED_SECONDS = 300.0  # until a code that was refused is tried again

log = Logger(namespace="border0.connector")


class ControlClient(MultiService):
    """The control plane's side of one connector.

    `config` is what it says now. The process sets `connector`, `apply` (which makes a configuration
    the one in force) and `flush` (which sends what ended sessions still have to say), and it calls
    `peer_by`.

    :param local: the connector's file, with its `[control]`.
    :param own_key: the connector's WireGuard public key.
    :param underlay: the source of a device's newest authenticated packet.
    :raises ConfigError: not joined and no code to join with, or a damaged membership.
    """

    def __init__(
        self,
        reactor: Any,
        local: ConnectorConfig,
        own_key: bytes,
        underlay: Underlay,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.setName("control-client")
        if local.control is None:
            raise ValueError("a connector that stands alone follows nobody")
        self.reactor, self.local, self.wall = reactor, local, wall
        self.control: ControlEntry = local.control
        self.own_key, self.underlay = own_key, underlay
        self.connector: ConnectorService
        self.apply: Callable[[ConnectorConfig], None]
        self.flush: Callable[[], None] = lambda: None
        self.ways: DevicePaths | None = None
        self.follower: Follower | None = None
        self.followed: Followed | None = None
        self.where: Whereabouts | None = None
        self.config = local
        self._stamp: object = None
        self._deadline: float | None = None
        self._refusals: dict[str, str] = {}
        self._connected = False
        self._tick: IDelayedCall | None = None
        self._again: IDelayedCall | None = None
        self._attempt = 0
        self._joining: Deferred[Any] | None = None
        folder = local.state_dir / FOLDER
        if MemberState.exists(folder):
            self._follow(MemberState.open(folder))
        elif self.control.code() is None:
            raise ConfigError(
                f"{local.file}: this connector has not joined {self.control.url}: run "
                "border0 connector join with a code, or give [control] token"
            )

    # -- joining ----------------------------------------------------------------------------

    def _join(self) -> None:
        self._again = None
        try:
            code = self.control.code()
        except ConfigError as error:
            self._not_joined(Failure(error))
            return
        if code is None:
            return
        joining = join_connector(self.reactor, self.local, code.reveal())
        self._joining = Deferred.fromCoroutine(joining)
        self._joining.addCallbacks(self._joined, self._not_joined)

    def _joined(self, state: MemberState) -> None:
        self._joining = None
        if not self.running:
            return
        log.info("joined {org} as {name}", org=state.org_name, name=state.name)
        if not state.approved:
            log.info("an administrator has to approve this connector")
        self._follow(state)
        self._applied()

    def _not_joined(self, failure: Failure) -> None:
        self._joining = None
        if not self.running:
            return
        why = failure.getErrorMessage()
        if not failure.check(Border0Error):
            log.failure("joining failed", failure=failure)
        log.error("not joined: {why}", why=why)
        refused = failure.check(Refused, ConfigError)
        delay = REFUSED_SECONDS if refused else 1.0 + backoff(self._attempt, lambda: 1.0)
        self._attempt += 1
        self._again = self.reactor.callLater(delay, self._join)

    def _follow(self, state: MemberState) -> None:
        if state.role != "connector":
            raise ConfigError(f"{state.folder}: it belongs to a device, not to a connector")
        state.url, state.ca = self.control.url, self.control.ca  # the file says where it is now
        follower = Follower(
            self.reactor, state, changed=self._changed, command=self._command, wall=self.wall
        )
        self.follower = follower
        self.followed = Followed(follower, state.org, state.node, self.own_key, self.wall)
        self.where = Whereabouts(follower, self.underlay, self.control.offline_limit, follower.now)
        self._rebuild()
        follower.setServiceParent(self)
        Delivery(self.reactor, self.local.state_dir, follower.records).setServiceParent(self)

    @property
    def organisation(self) -> str:
        """The organisation's name, "" before this machine has joined one."""
        return "" if self.follower is None else self.follower.org_name

    # -- what is said -----------------------------------------------------------------------

    def address_of(self, public_key: bytes) -> tuple[str, float] | None:
        """Where a device is, as policies ask it, and the age of that in seconds."""
        return None if self.where is None else self.where(public_key)

    def reload(self, local: ConnectorConfig) -> ConnectorConfig:
        """The configuration with another file of this machine: its rules and secrets are reread."""
        if local.control is not None:
            if (local.control.url, local.control.ca) != (self.control.url, self.control.ca):
                log.warn("[control] changed: takes effect at the next start")
            self.control = replace(local.control, url=self.control.url, ca=self.control.ca)
            self.local = replace(local, control=self.control)
            if self.followed is None:
                self.config = self.local
        if self.where is not None:
            self.where.offline_limit = self.control.offline_limit
        if self.followed is not None:
            self.followed.reread()
            self._rebuild()
        return self.config

    def _rebuild(self) -> None:
        """Make `config` what counts now."""
        assert self.follower is not None and self.followed is not None and self.where is not None
        ledger, now = self.follower.ledger, self.wall()
        self._stamp, self._deadline = self._state(), ledger.next_deadline(now)
        try:
            self.config = self.followed.config(self.local)
        except Exception:
            log.failure("what the control plane says cannot be applied: everything is denied")
            self.config = replace(self.config, devices=[], sockets=[], policies={})
        self.where.follow(self.config.devices)

    def _state(self) -> object:
        assert self.follower is not None
        ledger = self.follower.ledger
        head = ledger.head
        return (
            head.hash if head is not None else "",
            self.follower.machine.map.fingerprint,
            ledger.distrust(self.wall()),
            self.follower.clock_sets,
        )

    def _changed(self, follower: Follower) -> None:
        expired = self._deadline is not None and self.wall() >= self._deadline
        if expired or self._state() != self._stamp:
            self._rebuild()
            self._applied()
        elif follower.connected != self._connected and self.where is not None:
            self.where.follow(self.config.devices)
        if self.ways is not None:
            self.ways.moved(follower, follower.take_moved())
        if follower.connected != self._connected:
            self._connected = follower.connected
            self._review()

    def _applied(self) -> None:
        config = self.config
        self.apply(config)
        if self.ways is not None and self.follower is not None:
            self.ways.applied(self.follower)
        log.info(
            "configuration {revision}: {devices} devices, {sockets} sockets, {policies} policies",
            revision=self.follower.ledger.revision if self.follower else 0,
            devices=len(config.devices),
            sockets=len(config.sockets),
            policies=len(config.policies),
        )
        self.tell_refusals()

    def tell_refusals(self) -> None:
        """Say which sockets are not served here and why: log, audit, control plane."""
        if self.followed is None or self.follower is None:
            return
        refusals = dict(self.followed.refusals)
        for entry in self.config.sockets:
            if entry.name in self.connector.broken:
                refusals[entry.id] = self.connector.broken[entry.name]
        for socket, reason in refusals.items():
            if self._refusals.get(socket) != reason:
                log.warn("socket {socket}: {reason}", socket=socket, reason=reason)
                self.connector.store.audit(
                    "socket.refuse",
                    actor=Actor("", self.local.name, ""),
                    result="denied",
                    reason=reason,
                    socket_id=socket,
                    connector_id=self.config.id,
                )
        self._refusals = refusals
        self.follower.status(refusals)

    def _command(self, command: CommandReceived) -> None:
        assert self.follower is not None
        if command.verb != "kill":
            self.follower.answer(command.id, False, f"unknown command {command.verb}")
            return
        reason = command.arguments.get("reason") or "an administrator ended the session"
        done = self.connector.kill(command.arguments.get("session", ""), reason)
        self.flush()
        self.follower.answer(command.id, done, "" if done else "no such session")

    # -- time -------------------------------------------------------------------------------

    def startService(self) -> None:
        """Join or follow; what was saved counts until the control plane answers."""
        super().startService()
        self.tell_refusals()
        self._look()
        if self.follower is None:
            self._join()

    def stopService(self) -> Any:
        """Leave; fires when the connection is gone."""
        for call in (self._tick, self._again):
            if call is not None and call.active():
                call.cancel()
        self._tick = self._again = None
        stopped = super().stopService()
        if self._joining is not None:
            self._joining.cancel()
        return stopped

    def _look(self) -> None:
        self._tick = self.reactor.callLater(REVIEW_SECONDS, self._look)
        self._review()

    def _review(self) -> None:
        self.connector.close(self.offline())
        self.connector.review(conditional=True)
        self.flush()

    def offline(self) -> str:
        """Why nobody is let in for want of contact; "" while that is no reason."""
        if self.follower is None or self.control.offline_policy == "keep":
            return ""
        if self.follower.absence() <= self.control.offline_limit:
            return ""
        limit = self.control.offline_limit_text
        return f"no contact with the control plane for more than {limit} (offline_limit)"

    # -- ways to the devices ------------------------------------------------------------------

    def peer_by(self, tunnel: Tunnel, private_key: bytes) -> Peering:
        """Make the service that finds ways to the devices for this tunnel."""
        where = parse_url(self.control.url)
        self.ways = DevicePaths(self.reactor, tunnel, private_key, lambda: self.config, where)
        if self.follower is not None:
            self.ways.applied(self.follower)
        return self.ways.peering

    def problems(self) -> list[str]:
        """Why the connector is not ready to serve."""
        if self.follower is None:
            return ["it has not joined its control plane"]
        found = [self.offline(), self.follower.failure]
        if why := self.follower.ledger.distrust(self.wall()):
            found.append(f"nothing that the control plane said counts: {why}")
        return [each for each in found if each]
