"""Who is let in: identity from the tunnel address, the policies' answer, and its record.

Asked once a session, before anything is dialled. A refusal is in the audit stream when this
returns; an admission comes with a session log that has begun. Any error means refused.
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
        self._live: dict[Admission, tuple[DeviceEntry, str]] = {}

    def __call__(self, remote: tuple[str, int], protocol: str) -> Admission | Refusal:
        """The `Admit` of the proxies.

        :param remote: the inner address and port; the address is the identity.
        :param protocol: the policy's name for the protocol: database, tls …
        """
        device = self.directory.at(remote[0])
        if device is None:
            return self._refuse(Actor("", "", remote[0]), "", "", "no device has this address")
        address = self._address(device)
        actor = Actor(device.user or device.service_account, device.name, address or remote[0])
        try:
            decision = self._decide(device, protocol, address)
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
            now = self.directory.by_key.get(device.public_key)
            if now != device:
                admission.stop("the device's entry has changed")
                continue
            try:
                decision = self._decide(device, protocol, self._address(device))
            except Exception:
                log.failure(
                    "the policy could not be evaluated for {socket}", socket=self.socket.name
                )
                admission.stop("the policy could not be evaluated")
                continue
            if not decision.allowed:
                admission.stop(decision.reason)
            elif decision.matched != admission.policies:
                admission.stop("the policies have changed")

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


def same_service(a: SocketEntry, b: SocketEntry) -> bool:
    """Whether two entries differ in nothing but who may use the service."""
    return replace(a, policies=[]) == replace(b, policies=[])
