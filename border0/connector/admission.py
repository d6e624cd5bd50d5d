"""Who is let in: identity from the tunnel address, the policies' answer, and its record.

Asked once a session, before anything is dialled. A refusal is in the audit stream when this
returns; an admission comes with a session log that has begun. Any error means refused. `review`
asks again for sessions that live: what is no longer let in ends.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from twisted.logger import Logger

from border0.audit.adapters.store import RecorderError, RecordStore
from border0.audit.events import Actor
from border0.connector.config import DeviceEntry, SocketEntry
from border0.connector.directory import Directory, subject_of
from border0.policy import decide
from border0.policy.model import Policy, Situation
from border0.proxies.admission import Admission, Refusal

# A device's outside address counts for this long after its newest authenticated packet.
ADDRESS_SECONDS = 600.0

Underlay = Callable[[bytes], tuple[str, float] | None]
log = Logger(namespace="border0.connector")


class Doorkeeper:
    """Answers for one socket.

    :param underlay: where a device is, as policies ask it, and the age of that in seconds.
    :param source: where its packets come from, for the records; by default the same.
    """

    def __init__(
        self,
        socket: SocketEntry,
        policies: Sequence[Policy],
        directory: Directory,
        store: RecordStore,
        underlay: Underlay,
        wall: Callable[[], float],
        sessions: "Sessions",
        connector_id: str = "",
        source: Underlay | None = None,
    ) -> None:
        self.socket, self.policies, self.directory = socket, policies, directory
        self.store, self.underlay, self.wall, self.sessions = store, underlay, wall, sessions
        self.connector_id, self.source = connector_id, source or underlay
        self._live: dict[Admission, tuple[DeviceEntry, str]] = {}

    @property
    def conditional(self) -> bool:
        """Whether an answer may change although no entry does: by address or time."""
        return any(
            policy.condition.where is not None or policy.condition.when is not None
            for policy in self.policies
        )

    def __call__(self, remote: tuple[str, int], protocol: str) -> Admission | Refusal:
        """The `Admit` of the proxies.

        :param remote: the inner address and port; the address is the identity.
        :param protocol: the policy's name for the protocol: database, tls …
        """
        device = self.directory.at(remote[0])
        if device is None:
            return self._refuse(Actor("", "", remote[0]), "", "", "no device has this address")
        address = self._address(device)
        if address is None and (source := self.source(device.public_key)) is not None:
            seen = source[0] if source[1] <= ADDRESS_SECONDS else remote[0]
        else:
            seen = address or remote[0]
        actor = Actor(device.user or device.service_account, device.name, seen)
        if closed := self.sessions.closed or self.socket.closed:
            return self._refuse(actor, "", "", closed, device=device)
        try:
            decision = self._decide(device, protocol, address)
        except Exception:
            log.failure("the policy could not be evaluated for {socket}", socket=self.socket.name)
            reason = "the policy could not be evaluated"
            return self._refuse(actor, "", "", reason, device=device)
        if not decision.allowed:
            return self._refuse(
                actor, decision.policy, decision.clause, decision.reason, device=device
            )
        try:
            session = self.store.open_session(
                actor=actor, socket=self.socket.name, recorded=self.socket.recording_enabled
            )
        except RecorderError as error:
            return self._refuse(actor, "", "recording_enabled", str(error), "failed", device=device)
        session.start(
            protocol=protocol,
            tunnel_address=remote[0],
            policies=[policy.name for policy in decision.matched],
            **self._identities(device),
        )
        admission = Admission(
            subject=subject_of(device),
            device=device.name,
            policies=decision.matched,
            log=session,
            socket=self.socket.name,
        )
        self.sessions.began(admission)
        self._live[admission] = (device, protocol)
        admission.ended = lambda: self._ended(admission)
        return admission

    def _ended(self, admission: Admission) -> None:
        self._live.pop(admission, None)
        self.sessions.ended(admission)

    def _address(self, device: DeviceEntry) -> str | None:
        seen = self.underlay(device.public_key)
        return seen[0] if seen is not None and seen[1] <= ADDRESS_SECONDS else None

    def _decide(self, device: DeviceEntry, protocol: str, address: str | None) -> decide.Decision:
        situation = Situation(address, None, datetime.fromtimestamp(self.wall(), UTC))
        return decide.connect(self.policies, protocol, subject_of(device), situation)

    def review(self) -> None:
        """End every live session that would not be let in by the same policies now."""
        for admission, (device, protocol) in list(self._live.items()):
            reason = self._objection(admission, device, protocol)
            if reason:
                admission.stop(reason)

    def _objection(self, admission: Admission, device: DeviceEntry, protocol: str) -> str:
        """Why a live session may not go on; "" when it may."""
        if closed := self.sessions.closed or self.socket.closed:
            return closed
        now = self.directory.by_key.get(device.public_key)
        if now is None:
            return "the device is not known any more"
        # Groups are asked by the policies, a name is only shown; who it is must not change.
        if replace(now, groups=device.groups, name=device.name) != device:
            return "the device's entry has changed"
        try:
            decision = self._decide(now, protocol, self._address(now))
        except Exception:
            log.failure("the policy could not be evaluated for {socket}", socket=self.socket.name)
            return "the policy could not be evaluated"
        if not decision.allowed:
            return decision.reason
        return "" if goes_on(admission.policies, decision.matched) else "the policies have changed"

    def _identities(self, device: DeviceEntry) -> dict[str, str]:
        """Further members of a record: the control plane's ids, where there are any."""
        ids = {
            "user_id": device.user_id,
            "device_id": device.id,
            "socket_id": self.socket.id,
            "connector_id": self.connector_id,
        }
        return {name: value for name, value in ids.items() if value}

    def _refuse(
        self,
        actor: Actor,
        policy: str,
        clause: str,
        reason: str,
        result: str = "denied",
        device: DeviceEntry | None = None,
    ) -> Refusal:
        self.store.audit(
            "session.start",
            actor=actor,
            result=result,
            socket=self.socket.name,
            policy=policy,
            reason=reason,
            clause=clause,
            **(self._identities(device) if device is not None else {}),
        )
        self.sessions.refused += 1
        log.info(
            "refused {user} ({device}) at {socket}: {reason}",
            user=actor.user or "unknown",
            device=actor.device or actor.address,
            socket=self.socket.name,
            reason=reason,
        )
        return Refusal(policy, clause, reason)


class Sessions:
    """The live sessions and how many there have been; `closed` says why nobody is let in."""

    def __init__(self) -> None:
        self.closed = ""
        self.live: dict[str, Admission] = {}
        self.admitted = 0
        self.refused = 0

    def began(self, admission: Admission) -> None:
        """Count one in."""
        self.admitted += 1
        self.live[admission.log.id] = admission
        log.info(
            "session {id}: {user} ({device}) at {socket}",
            id=admission.log.id,
            user=admission.subject.user or admission.subject.service_account,
            device=admission.device,
            socket=admission.socket,
        )

    def ended(self, admission: Admission) -> None:
        """Count one out."""
        if self.live.pop(admission.log.id, None) is not None:
            log.info("session {id}: ended", id=admission.log.id)


def goes_on(admitted: Sequence[Policy], now: Sequence[Policy]) -> bool:
    """Whether a session that some policies let in may go on under those that match now.

    All of its own must still match; another one may have joined them (its time has come) unless it
    denies something.
    """
    return all(policy in now for policy in admitted) and all(
        policy in admitted or not policy.deny.protocols for policy in now
    )


def select(socket: SocketEntry, policies: Mapping[str, Policy]) -> list[Policy]:
    """The policies attached to a socket, in the file's order."""
    return [policies[name] for name in socket.policies]


def same_service(a: SocketEntry, b: SocketEntry) -> bool:
    """Whether two entries differ in nothing but who may use the service."""
    return replace(a, policies=[], closed="") == replace(b, policies=[], closed="")
