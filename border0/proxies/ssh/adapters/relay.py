"""One SSH session: asks who may come in, reaches the upstream, joins channels, and ends both legs.

The client's login is answered when the upstream's login stands, so that every failure can be told
in words. Which channels and requests are let through is `channels.py`'s business.
"""

from typing import Any

from twisted.logger import Logger

from border0.policy.ssh import SSHGrant, Verdict
from border0.proxies.admission import Admission, Refusal
from border0.proxies.endings import (
    CLIENT_VANISHED,
    CLOSED,
    DENIED,
    PROTOCOL_ERROR,
    RECORDER_FAILED,
    SESSION_LIMIT,
    STOPPED,
    UPSTREAM_FAILED,
    result_of,
)
from border0.proxies.ssh import wire
from border0.proxies.ssh.adapters.channels import AgentChannel, ForwardChannel, SessionChannel
from border0.proxies.ssh.adapters.connection import Connection
from border0.proxies.ssh.adapters.end import End
from border0.proxies.ssh.wire import Reader, printable, string

BANNER_LIMIT = 4096

log = Logger(namespace="border0.ssh")


class NearHandler:
    """What the client's connection asks of the session."""

    def __init__(self, session: "Session") -> None:
        self.session = session

    def channel_open(self, end: End, kind: bytes, fields: Reader) -> None:
        """The client wants a channel."""
        session = self.session
        if kind == b"session":
            if session.no_more:
                end.refuse(wire.OPEN_PROHIBITED, "the client wanted no more sessions")
            else:
                SessionChannel(session, end).begin()
        elif kind == b"direct-tcpip":
            ForwardChannel(session, end).begin(fields)
        else:
            session.denied("ssh.channel", kind)
            end.refuse(wire.OPEN_PROHIBITED, f"no policy permits {printable(kind, 60)} channels")

    def global_request(self, connection: Connection, kind: bytes, fields: Reader) -> bool:
        """Nothing is ever granted: listening at the upstream is no part of any policy."""
        if kind == b"no-more-sessions@openssh.com":
            self.session.no_more = True
        elif kind in (b"tcpip-forward", b"streamlocal-forward@openssh.com"):
            self.session.denied("ssh.listen", kind, address=printable(fields.string(), 255))
        return False

    def connection_started(self, connection: Connection) -> None:
        """The client is in."""
        self.session.near = connection

    def connection_stopped(self, connection: Connection) -> None:
        """`FrontWire` tells the session."""


class FarHandler:
    """What the upstream's connection asks of the session."""

    def __init__(self, session: "Session") -> None:
        self.session = session

    def channel_open(self, end: End, kind: bytes, fields: Reader) -> None:
        """The upstream wants a channel: only the agent, and only where it was granted."""
        if kind == b"auth-agent@openssh.com" and self.session.agent_granted:
            AgentChannel(self.session, end).begin()
        else:
            self.session.log_event("ssh.channel", "failed", kind, "the upstream asked unasked")
            end.refuse(wire.OPEN_PROHIBITED, "nobody asked for this channel")

    def global_request(self, connection: Connection, kind: bytes, fields: Reader) -> bool:
        """Keepalives are answered (by refusal, as OpenSSH does), the rest is none of a client's."""
        return False

    def connection_started(self, connection: Connection) -> None:
        """The upstream is in."""
        self.session.far_ready(connection)

    def connection_stopped(self, connection: Connection) -> None:
        """`UpstreamWire` tells the session."""


class Session:
    """One client, one upstream.

    :param front: the client's leg.
    :param factory: the socket's settings.
    :param user: the name that the client gave.
    """

    def __init__(self, front: Any, factory: Any, user: str) -> None:
        self.front, self.factory, self.user = front, factory, user
        self.near_handler, self.far_handler = NearHandler(self), FarHandler(self)
        self.near: Connection | None = None
        self.far: Any = None
        self.far_wire: Any = None
        self.grant: SSHGrant
        self.socket = ""
        self.log: Any = None
        self.no_more = False
        self.agent_granted = False
        self.channels: set[Any] = set()
        self.numbers = 0
        self._admission: Admission | None = None
        self._dialling: Any = None
        self._limit: Any = None
        self._status = ""
        self._left = ""

    def begin(self) -> None:
        """Ask for admission; then, and only then, reach the upstream."""
        factory = self.factory
        try:
            answer = factory.admit(self.front.peer, "ssh")
        except Exception:
            # An error anywhere means denied.
            log.failure("admission failed")
            self.front.fail(wire.BY_APPLICATION, "the policy could not be asked")
            return
        if isinstance(answer, Refusal):
            self.front.fail(wire.BY_APPLICATION, answer.reason)
            return
        self._admission = answer
        self.log, self.socket = answer.log, answer.socket
        factory.sessions.add(self)
        answer.log.on_failure = self._recorder_failed
        answer.stop = self.stop
        answer.log.start(protocol="ssh")
        if answer.log.failed:
            self._recorder_failed(answer.log.failed)
            return
        username = factory.username(self.user)
        self.grant = SSHGrant(answer.policies, username)
        verdict = self.grant.login()
        fields = {
            "username": username,
            "asked_username": self.user,
            "client": printable(self.front.otherVersionString, 255),
        }
        self.log_verdict("ssh.login", verdict, **fields)
        if not verdict.allowed:
            self.end(DENIED, verdict.reason)
            return
        known = (answer.session_seconds, self.grant.max_session_seconds)
        limits = [seconds for seconds in known if seconds is not None]
        if limits:
            self._limit = factory.reactor.callLater(min(limits), self._expired)
        try:
            self._dialling = factory.reach(self, username)
        except Exception:
            log.failure("the upstream could not be reached")
            self.end(UPSTREAM_FAILED, "the connector could not reach the upstream")

    # The upstream's leg.

    def banner(self, text: bytes) -> None:
        """The upstream greets."""
        if self.near is None and not self._status:
            shown = "".join(
                c if c.isprintable() or c in "\n\t" else "?"
                for c in text[:BANNER_LIMIT].decode("utf-8", "replace").replace("\r\n", "\n")
            )
            body = string(shown.replace("\n", "\r\n").encode()) + string(b"")
            self.front.sendPacket(wire.USERAUTH_BANNER, body)

    def far_ready(self, far: Any) -> None:
        """The upstream's channels can be opened."""
        if self._status:
            return
        self.far = far
        if self.far_wire is not None:
            self.far_wire.sealed = self.flush
        self.front.welcome(self)

    def far_failed(self, status: str, text: str) -> None:
        """The upstream could not be reached, failed, or left."""
        self.far = None
        self.end(status, text)

    # The client's leg.

    def client_left(self, code: int, text: str) -> None:
        """The client said goodbye."""
        self._left = CLOSED if code == wire.BY_APPLICATION else text

    def client_failed(self, text: str) -> None:
        """The client broke the protocol."""
        self.end(PROTOCOL_ERROR, text)

    def client_gone(self, text: str) -> None:
        """The client's connection is gone."""
        if self._left:
            self.end(CLOSED, "" if self._left == CLOSED else self._left)
        else:
            self.end(CLOSED if not self.channels and not text else CLIENT_VANISHED, text)

    # Channels.

    def add(self, channel: Any) -> int:
        """Keep a channel; its number within the session."""
        self.channels.add(channel)
        self.numbers += 1
        return self.numbers

    def remove(self, channel: Any) -> None:
        """The channel is over."""
        self.channels.discard(channel)

    def log_verdict(self, type: str, verdict: Verdict, **fields: Any) -> None:
        """Record what was asked and what the policy said."""
        result = "ok" if verdict.allowed else "denied"
        if not verdict.allowed:
            fields["clause"] = verdict.clause
        self.log.event(type, result=result, policy=verdict.policy, reason=verdict.reason, **fields)

    def log_event(self, type: str, result: str, kind: bytes, reason: str) -> None:
        """Record something that no policy was asked about."""
        self.log.event(type, result=result, reason=reason, kind=printable(kind, 100))

    def denied(self, type: str, kind: bytes, **fields: Any) -> None:
        """Record what no policy can permit."""
        shown = printable(kind, 100)
        self.log.event(
            type, result="denied", reason=f"no policy permits {shown}", kind=shown, **fields
        )

    def flush(self) -> None:
        """Have bytes sent now where that is ours to ask."""
        flush = getattr(self.front.transport, "flush", None)
        if flush is not None:
            flush()

    # The end.

    def stop(self, reason: str) -> None:
        """End the session at once: it is no longer wanted here."""
        self.end(STOPPED, reason)

    def _expired(self) -> None:
        self.end(SESSION_LIMIT, "the longest time that the policy allows for a session is over")

    def _recorder_failed(self, reason: str) -> None:
        self.end(RECORDER_FAILED, reason)

    def end(self, status: str, reason: str = "") -> None:
        """Close both legs with a reason that the client reads, and write the end."""
        admission = self._admission
        if self._status or admission is None:
            return
        self._status = status
        for channel in list(self.channels):
            channel.finish()
        self.channels.clear()
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        if status != CLOSED:
            self.front.fail(wire.BY_APPLICATION, reason or status)
        self.front.close()
        if self.far_wire is not None:
            self.far_wire.close()
        elif self._dialling is not None:
            self._dialling.disconnect()
        self._admission = None
        self.factory.sessions.discard(self)
        near = self.near
        admission.log.end(
            near.bytes_in if near is not None else 0,
            near.bytes_out if near is not None else 0,
            status,
            reason,
            result_of(status),
        )
        admission.ended()
