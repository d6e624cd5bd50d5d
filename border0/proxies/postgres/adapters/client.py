"""The client's connection: start-up, admission, the pair with the upstream, and every ending.

It joins the pure machines (`startup`, `session`) to two transports, a kernel one or the user-space
stack's: both have `take`, `write` and the producer calls. No statement is looked at here.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import protocol
from twisted.internet.error import ConnectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.policy.grants import DatabaseGrant
from border0.proxies.adapters.valve import Valve
from border0.proxies.admission import Admission, Refusal
from border0.proxies.endings import (
    CLIENT_VANISHED,
    CLOSED,
    DENIED,
    PROTOCOL_ERROR,
    RECORDER_FAILED,
    SESSION_LIMIT,
    STOPPED,
    UPSTREAM_CLOSED,
    UPSTREAM_FAILED,
    result_of,
)
from border0.proxies.postgres import codec, denial, lastwords
from border0.proxies.postgres.adapters.upstream import CancelDial, SessionDial, UpstreamSide
from border0.proxies.postgres.codec import ProtocolError
from border0.proxies.postgres.login import Login
from border0.proxies.postgres.session import STATEMENT_LIMIT, Session
from border0.proxies.postgres.startup import (
    SECONDS,
    CancelRequest,
    Startup,
    StartupRequest,
    WrongProtocol,
)
from border0.proxies.postgres.upstream import upstream_parameters

if TYPE_CHECKING:
    from border0.proxies.postgres.adapters.factory import PostgresFactory

EARLY_LIMIT = 64 * 1024  # bytes from the client that wait for the upstream's login
MESSAGE_SECONDS = 1.0  # what the server has left to complete the message that it is sending
LINGER_SECONDS = 10.0  # what a client has left to read the last words
# An unrestricted client's statements are forwarded whatever they say, so they may be longer.
UNRESTRICTED_LIMIT = 16 * STATEMENT_LIMIT

_DONE = Failure(ConnectionDone())
log = Logger(namespace="border0.proxies.postgres")


class ClientSide(protocol.Protocol):
    """One client connection from its first byte to its end."""

    def __init__(self, factory: "PostgresFactory") -> None:
        self.factory: PostgresFactory = factory
        self._startup: Startup | None = Startup()
        self._admission: Admission | None = None
        self._gate: Any = None
        self._unrestricted = False
        self._dial: SessionDial | None = None
        self._upstream: UpstreamSide | None = None
        self._session: Session | None = None
        self._early: list[bytes] = []
        self._early_size = 0
        self._pid = 0
        self._over = False
        self._reply = b""  # the last words, once it is over
        self._lost = False
        self._timer: Any = None

    # -- before the session -----------------------------------------------------------------

    def connectionMade(self) -> None:
        """A client connected: it has half a minute to say what it wants."""
        near: Any = self.transport
        self._near = near
        self._near.setTcpNoDelay(True)
        self._near.setTcpKeepAlive(True)
        # On the stack it is ours to have a chunk sent now.
        self._write: Callable[[bytes], None] = getattr(near, "send", near.write)
        self._valve = Valve(self._near)
        if not self.factory.enter(self):
            self._near.abortConnection()
            return
        self._timer = self.factory.reactor.callLater(SECONDS, self._too_slow)

    def dataReceived(self, data: bytes) -> None:
        """Bytes before the session stands."""
        startup = self._startup
        if startup is None:
            self._keep(data)
            return
        try:
            reply = startup.receive(data)
        except WrongProtocol as error:
            log.info("{peer}: {reason}", peer=self._remote()[0], reason=str(error))
            self._leave(error.reply)
            return
        if reply:
            self._write(reply)
        request = startup.request
        if isinstance(request, CancelRequest):
            identity = self.factory.identify(self._remote())
            self.factory.cancels.request(request.pid, request.key, identity)
            self._leave()
        elif isinstance(request, StartupRequest):
            self._startup = None
            self._stop_timer()
            self.factory.started(self)
            self._valve.hold(True)
            self._keep(startup.rest)
            self._begin(request)

    def _keep(self, data: bytes) -> None:
        self._early_size += len(data)
        if self._over or not data:
            return
        if self._early_size > EARLY_LIMIT:
            self._end(PROTOCOL_ERROR, "too much was sent before the login was complete")
            return
        self._early.append(data)

    def _remote(self) -> tuple[str, int]:
        peer = self._near.getPeer()
        return peer.host, peer.port

    def _begin(self, request: StartupRequest) -> None:
        """Ask whether the client may come in; only then is anything dialled."""
        factory, upstream = self.factory, self.factory.upstream
        try:
            answer = factory.admit(self._remote(), "database")
            if isinstance(answer, Refusal):
                self._leave(denial.error(answer, "FATAL"))
                return
            self._admission = answer
            answer.log.on_failure = self._recorder_failed
            answer.stop = self.stop
            database = request.database(upstream.database, upstream.username)
            grant = factory.grants(answer.policies, database)
            if not isinstance(grant, DatabaseGrant):
                self._end(DENIED, grant.reason, denial.error(grant, "FATAL"))
                return
            self._gate = gate = factory.gates(grant)
            self._unrestricted = grant.unrestricted
            refusal = gate.check_startup(request.parameters)
            if refusal is not None:
                self._end(DENIED, refusal.reason, denial.error(refusal, "FATAL"))
                return
            self._limit(answer.session_seconds, grant.max_session_seconds)
            parameters = upstream_parameters(
                request.parameters, upstream.username, database, gate.startup_parameters()
            )
        except Exception:
            # Whatever goes wrong while policy is asked: nobody comes in.
            log.failure("the session's policy could not be evaluated")
            reason = "the policy could not be evaluated"
            reply = codec.fatal(codec.INSUFFICIENT_PRIVILEGE, f"permission denied: {reason}")
            self._end(DENIED, reason, reply)
            return
        nonce = factory.random_bytes(18).hex()
        login = Login(parameters, upstream.password, upstream.tls_mode, answer.socket, nonce)
        self._dial = SessionDial(factory.reactor, upstream, self, login, factory.context)

    def _limit(self, *limits: float | None) -> None:
        seconds = min((limit for limit in limits if limit is not None), default=None)
        if seconds is not None:
            self._timer = self.factory.reactor.callLater(seconds, self._expired, seconds)

    # -- the upstream's side ----------------------------------------------------------------

    def upstream_ready(self, upstream: UpstreamSide) -> None:
        """Both logins stand: from here on the session's machine has the bytes."""
        assert self._admission is not None and self._dial is not None
        self._dial.settled()
        self._dial, self._upstream = None, upstream
        far: Any = upstream.transport
        login, gate, factory = upstream.login, self._gate, self.factory
        session = Session(
            gate,
            far.write,
            self._write,
            self._admission.log,
            factory.wall_clock,
            factory.random_bytes,
            restricted=not self._unrestricted,
            hold=self._valve.hold,
            failed=self._violated,
            statement_limit=UNRESTRICTED_LIMIT if self._unrestricted else STATEMENT_LIMIT,
        )
        for name, value in login.parameters.items():
            gate.parameter_status(name, value)
        session.status = login.status
        self._session = session
        greeting = [codec.AUTHENTICATION_OK, *login.greeting]
        if login.key is not None:
            identity = factory.identify(self._remote())
            self._pid, key = factory.cancels.issue(identity, self._cancel)
            greeting.append(codec.backend_key_data(self._pid, key))
        greeting.append(codec.ready_for_query(login.status))
        far.registerProducer(self._valve, True)
        self._near.registerProducer(Valve(far), True)
        self._write(b"".join(greeting))
        self._rebind(self._guarded(session.client), self._guarded(session.server))
        if login.rest:
            upstream.dataReceived(login.rest)
        early, self._early = b"".join(self._early), []
        if early:
            self.dataReceived(early)
        self._valve.hold(False)

    def _guarded(self, receive: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def received(data: bytes) -> None:
            try:
                receive(data)
            except ProtocolError as error:
                self._violated(error)

        return received

    def _rebind(
        self, from_client: Callable[[bytes], None], from_server: Callable[[bytes], None]
    ) -> None:
        """Have the two transports deliver there."""
        near: Any = self._near
        self.dataReceived = from_client  # type: ignore[method-assign, assignment]
        if hasattr(near, "take"):
            near.take = from_client
        upstream: Any = self._upstream
        if upstream is None:
            return
        upstream.dataReceived = from_server
        if not upstream.login.secure and hasattr(upstream.transport, "take"):
            upstream.transport.take = from_server

    def upstream_failed(self, reason: str, reply: bytes) -> None:
        """There will be no session; the client is told why."""
        if self._dial is not None:
            self._dial.settled()
            self._dial = None
        log.info("upstream: {reason}", reason=reason)
        self._end(UPSTREAM_FAILED, reason, reply)

    def upstream_lost(self) -> None:
        """The server closed; when it did not say goodbye itself, we say it."""
        session = self._session
        assert session is not None
        self._upstream = None
        if self._over:
            self._close()
            return
        if session.terminated:
            self._end(CLOSED)
            return
        reply = b"" if session.fatal else lastwords.server_closed()
        self._end(UPSTREAM_CLOSED, "the database server closed the connection", reply)

    # -- endings ----------------------------------------------------------------------------

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """The client is gone: what it left running is cancelled."""
        self._lost = True
        self.factory.left(self)
        session = self._session
        if session is None:
            self._end(CLIENT_VANISHED)
        elif session.terminated or not session.busy:
            self._end(CLOSED)
        else:
            self._end(CLIENT_VANISHED, "the client's connection ended in mid-query")
        self._close()

    def _violated(self, error: ProtocolError) -> None:
        log.info("{peer}: {reason}", peer=self._remote()[0], reason=str(error))
        self._end(PROTOCOL_ERROR, str(error), lastwords.violated(error))

    def _recorder_failed(self, reason: str) -> None:
        self._end(RECORDER_FAILED, reason, lastwords.recorder_failed())

    def _expired(self, seconds: float) -> None:
        reason = f"a session may last {seconds:g} seconds"
        summary = f"terminating connection: {reason}"
        self._end(SESSION_LIMIT, summary, lastwords.ended(reason))

    def stop(self, reason: str) -> None:
        """End the session because the service stops."""
        self._end(STOPPED, reason, lastwords.ended(reason))

    def _too_slow(self) -> None:
        log.info("{peer}: no start-up within {seconds} s", peer=self._remote()[0], seconds=SECONDS)
        self._leave()

    def _cancel(self) -> None:
        """Relay a cancel request for what this session runs."""
        upstream = self._upstream
        if upstream is None or upstream.login.key is None:
            return
        factory, login = self.factory, upstream.login
        CancelDial(
            factory.reactor, factory.upstream, upstream.login.key, login.secure, factory.context
        )

    def _end(self, status: str, reason: str = "", reply: bytes = b"") -> None:
        """End the session, once: cancel what runs, write the record, close.

        The client's next message goes nowhere. When it has half of one of the server's, an error
        would be read as the inside of that message, so the rest of it comes first.
        """
        if self._over:
            return
        self._over, self._reply = True, reply
        self._stop_timer()
        self.factory.cancels.drop(self._pid)
        if self._dial is not None:
            self._dial.give_up()
        came, went, waits = 0, 0, False
        session, admission = self._session, self._admission
        if session is not None:
            if self._upstream is not None and session.busy and not session.terminated:
                self._cancel()
            session.abandon("cancelled")
            self._rebind(_discard, self._finish)
            came, went = session.bytes_in, session.bytes_out
            told = bool(reply) and self._upstream is not None and not self._lost
            waits = told and session.mid_message
        if admission is not None:
            admission.log.end(came, went, status, reason, result_of(status))
            admission.ended()
        if waits:
            self._valve.hold(True)
            self._timer = self.factory.reactor.callLater(MESSAGE_SECONDS, self._close)
            self._finish(b"")
        else:
            self._close()

    def _finish(self, data: bytes) -> None:
        """Give the client the end of the server's message, then close."""
        session = self._session
        if session is None or self._upstream is None:
            return
        try:
            session.finish(data)
        except ProtocolError:
            self._close()
            return
        if not session.mid_message:
            self._close()

    def _close(self) -> None:
        """Close both connections; where a message is half said, without our last words."""
        session, upstream = self._session, self._upstream
        self._upstream = None
        if upstream is not None:
            upstream.owner = None
            far: Any = upstream.transport
            far.unregisterProducer()
            if session is not None and not session.terminated:
                far.write(codec.TERMINATE)
            far.loseConnection()
        self._leave(b"" if session is not None and session.mid_message else self._reply)

    def _leave(self, reply: bytes = b"") -> None:
        """Close the client's connection after its last words."""
        self._over = True
        self._startup = None
        self._stop_timer()
        self._early.clear()
        if self._lost:
            return
        near = self._near
        if self._session is not None:
            near.unregisterProducer()
        if reply:
            self._write(reply)
        near.loseConnection()
        self._timer = self.factory.reactor.callLater(LINGER_SECONDS, near.abortConnection)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _discard(data: bytes) -> None:
    """Where the client's bytes go once the session is over."""
