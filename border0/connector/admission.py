"""Who is let in: identity from the tunnel address, the policies' answer, and its record.

Asked once a session, before anything is dialled. A refusal is in the audit stream when this
returns; an admission comes with a session log that has begun. Any error means refused.
"""

from collections.abc import Callable, Mapping, Sequence
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
    """Answers for one socket."""

    def __init__(
        self,
        socket: SocketEntry,
        policies: Sequence[Policy],
        directory: Directory,
        store: RecordStore,
        underlay: Underlay,
        wall: Callable[[], float],
        sessions: "Sessions",
    ) -> None:
        self.socket, self.policies, self.directory = socket, policies, directory
        self.store, self.underlay, self.wall, self.sessions = store, underlay, wall, sessions

    def __call__(self, remote: tuple[str, int], protocol: str) -> Admission | Refusal:
        """The `Admit` of the proxies.

        :param remote: the inner address and port; the address is the identity.
        :param protocol: the policy's name for the protocol: database, tls …
        """
        device = self.directory.at(remote[0])
        if device is None:
            return self._refuse(Actor("", "", remote[0]), "", "", "no device has this address")
        seen = self.underlay(device.public_key)
        address = seen[0] if seen is not None and seen[1] <= ADDRESS_SECONDS else None
        actor = Actor(device.user or device.service_account, device.name, address or remote[0])
        try:
            situation = Situation(address, None, datetime.fromtimestamp(self.wall(), UTC))
            decision = decide.connect(self.policies, protocol, subject_of(device), situation)
        except Exception:
            log.failure("the policy could not be evaluated for {socket}", socket=self.socket.name)
            return self._refuse(actor, "", "", "the policy could not be evaluated")
        if not decision.allowed:
            return self._refuse(actor, decision.policy, decision.clause, decision.reason)
        try:
            session = self.store.open_session(
                actor=actor, socket=self.socket.name, recorded=self.socket.recording_enabled
            )
        except RecorderError as error:
            return self._refuse(actor, "", "recording_enabled", str(error), "failed")
        limit = decide.session_seconds(decision.matched, protocol)
        session.start(
            protocol=protocol,
            tunnel_address=remote[0],
            policies=[policy.name for policy in decision.matched],
        )
        admission = Admission(
            subject=subject_of(device),
            device=device.name,
            policies=decision.matched,
            log=session,
            socket=self.socket.name,
            session_seconds=limit,
        )
        self.sessions.began(admission)
        admission.ended = lambda: self.sessions.ended(admission)
        return admission

    def _refuse(
        self, actor: Actor, policy: str, clause: str, reason: str, result: str = "denied"
    ) -> Refusal:
        self.store.audit(
            "session.start",
            actor=actor,
            result=result,
            socket=self.socket.name,
            policy=policy,
            reason=reason,
            clause=clause,
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
    """The live sessions and how many there have been."""

    def __init__(self) -> None:
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


def select(socket: SocketEntry, policies: Mapping[str, Policy]) -> list[Policy]:
    """The policies attached to a socket, in the file's order."""
    return [policies[name] for name in socket.policies]


def same_device(a: DeviceEntry | None, b: DeviceEntry | None) -> bool:
    """Whether a reread file means the same person at the same address."""
    return (
        a is not None
        and b is not None
        and (a.public_key, a.user, a.service_account, a.groups, a.addresses)
        == (b.public_key, b.user, b.service_account, b.groups, b.addresses)
    )
