"""What a proxy learns when it asks whether a client may come in.

A proxy calls `Admit` once per session, before it dials anything. The answer is an `Admission`
(with the session's log, already started) or a `Refusal` (already audited).
Pure data; the decision itself is made by the policy room.
"""

from collections.abc import Callable, Sequence

from border0.audit.sessionlog import SessionLog
from border0.policy.model import Policy, Subject


class Admission:
    """A client that may come in.

    :param subject: who it is.
    :param device: name of the device.
    :param policies: the policies whose conditions matched.
    :param log: the session's log.
    :param socket: name of the service.
    :param session_seconds: longest life of the session, None for no limit.
    :param ended: called once when the session is over.

    The proxy sets `stop`: called with a reason, it ends the session at once.
    """

    __slots__ = (
        "device",
        "ended",
        "log",
        "policies",
        "session_seconds",
        "socket",
        "stop",
        "subject",
    )

    def __init__(
        self,
        subject: Subject,
        device: str,
        policies: Sequence[Policy],
        log: SessionLog,
        socket: str,
        session_seconds: float | None = None,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.subject = subject
        self.device = device
        self.policies = policies
        self.log = log
        self.socket = socket
        self.session_seconds = session_seconds
        self.ended = ended
        self.stop: Callable[[str], None] = lambda reason: None


class Refusal:
    """A client that may not come in; the denial is in the audit already.

    :param policy: name of the policy that said no, "" when none grants anything.
    :param clause: the clause that failed.
    :param reason: one sentence for the user.
    """

    __slots__ = ("clause", "policy", "reason")

    def __init__(self, policy: str, clause: str, reason: str) -> None:
        self.policy = policy
        self.clause = clause
        self.reason = reason


# (remote address and port, protocol) -> answer
Admit = Callable[[tuple[str, int], str], Admission | Refusal]
