"""A client's connection: admission, deadline, lingering close and records of its requests.

What the proxy and the file server share. The subclass owns a machine; after each call to it
`_settle` carries out what the machine asks for.
"""

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.proxies.adapters.valve import Valve
from border0.proxies.admission import Admission, Refusal
from border0.proxies.endings import (
    CLIENT_VANISHED,
    CLOSED,
    DENIED,
    RECORDER_FAILED,
    SESSION_LIMIT,
    STOPPED,
    result_of,
)
from border0.proxies.http.exchange import Exchange
from border0.proxies.http.limits import ABORT, LINGER

LINGER_SECONDS = 30.0

_DONE = Failure(ConnectionDone())
log = Logger()


@implementer(IHalfCloseableProtocol)
class ClientConnection(Protocol):
    """One connection from a client, on a kernel or a netstack transport."""

    machine: Any

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self.reactor = factory.reactor
        self.bytes_in = self.bytes_out = 0
        self.lost = False
        self.valve: Valve
        self._admission: Admission | None = None
        self._near: Any = None
        self._flush: Any = None
        self._deadline: IDelayedCall | None = None
        self._limit: IDelayedCall | None = None
        self._lingering: IDelayedCall | None = None
        self._ending = False
        self._settling = False
        self._status = self._reason = ""

    # -- what a subclass provides -----------------------------------------------------------

    def begin(self, answer: Admission | Refusal, address: str) -> None:
        """Make `self.machine`."""
        raise NotImplementedError

    def carry_out(self) -> None:
        """Do what the machine asks for beside talking to the client."""

    def let_go(self) -> None:
        """The client's connection is over: release everything else."""

    # -- the connection ---------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Ask for admission; who is refused still gets an answer in HTTP."""
        near: Any = self.transport
        self._near = near
        near.setTcpNoDelay(True)
        near.setTcpKeepAlive(True)
        self._flush = getattr(near, "flush", None)
        self.valve = Valve(near)
        peer = near.getPeer()
        try:
            answer = self.factory.admit((peer.host, peer.port), "http")
        except Exception:
            # An error anywhere means denied.
            log.failure("admission failed")
            answer = Refusal("", "", "the policy could not be evaluated")
        self.factory.sessions.add(self)
        self.begin(answer, peer.host)
        if isinstance(answer, Refusal):
            self._status = DENIED
        else:
            self._admission = answer
            answer.log.on_failure = self._recorder_failed
            answer.stop = self.stop
            answer.log.start(protocol="http")
            if answer.log.failed:
                self._recorder_failed(answer.log.failed)
                return
            if answer.session_seconds is not None:
                self._limit = self.reactor.callLater(answer.session_seconds, self._expired)
        if hasattr(near, "take"):
            near.take = self.dataReceived
        self.settle()

    def dataReceived(self, data: bytes) -> None:
        """Hand the client's bytes to the machine."""
        if self._ending:
            return  # what comes after the last answer is thrown away
        self.bytes_in += len(data)
        self.machine.receive(data, self.reactor.seconds())
        self.settle()

    def readConnectionLost(self) -> None:
        """The client sends no more."""
        if self._ending:
            self._near.loseConnection()
            return
        self.machine.client_ended(self.reactor.seconds())
        self.settle()

    def writeConnectionLost(self) -> None:
        """Our own end of the connection is out."""

    def write(self, data: bytes) -> None:
        """Send to the client."""
        self.bytes_out += len(data)
        self._near.write(data)

    def settle(self) -> None:
        """Carry out what the machine asks for; called after every call to it."""
        if self._settling:
            return
        self._settling = True
        machine = self.machine
        try:
            self.carry_out()
            if machine.to_client and not self.lost:
                data, machine.to_client = machine.to_client, []
                self.write(data[0] if len(data) == 1 else b"".join(data))
        finally:
            self._settling = False
        if machine.finished:
            done, machine.finished = machine.finished, []
            for exchange in done:
                self._record(exchange)
        if self._flush is not None and not self.lost:
            self._flush()
        if self.lost:
            return
        if machine.closing and not self._ending:
            self._close(machine.closing)
        elif not self._ending:
            self.valve.hold(machine.full)
            self._watch()

    def _watch(self) -> None:
        """Have one timer at the machine's deadline; one that comes early looks again."""
        wanted = self.machine.deadline
        if wanted is None:
            return
        timer = self._deadline
        if timer is not None and timer.active():
            if timer.getTime() <= wanted:
                return
            timer.cancel()
        delay = max(0.0, wanted - self.reactor.seconds())
        self._deadline = self.reactor.callLater(delay, self._look)

    def _look(self) -> None:
        self._deadline = None
        if not self._ending and not self.lost:
            self.machine.expire(self.reactor.seconds())
            self.settle()

    def _record(self, exchange: Exchange) -> None:
        admission = self._admission
        if admission is not None:
            members: dict[str, Any] = exchange.fields(self.reactor.seconds())
            admission.log.event(
                "http.request", result=exchange.result, reason=exchange.reason, **members
            )

    # -- endings ----------------------------------------------------------------------------

    def _close(self, how: str) -> None:
        """Close the client's side in the way that the machine chose."""
        self._ending = True
        self._stop(self._deadline)
        self.let_go()
        near = self._near
        near.unregisterProducer()
        self._status = self._status or CLOSED
        if how == ABORT:
            near.abortConnection()
        elif how == LINGER:
            # Closing with bytes unread would reset the connection, and the answer would be lost.
            self.valve.resumeProducing()
            self.valve.hold(False)
            near.loseWriteConnection()
            if self._flush is not None:
                self._flush()
            self._lingering = self.reactor.callLater(LINGER_SECONDS, near.abortConnection)
        else:
            near.loseConnection()
            self._lingering = self.reactor.callLater(LINGER_SECONDS, near.abortConnection)

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """The client's connection is gone."""
        self.lost = True
        machine = self.machine
        if not self._ending:
            if machine.busy and not machine.tunnel:
                self._status = self._status or CLIENT_VANISHED
            machine.abandon("the client left")
            self._ending = True
            self.settle()
            self.let_go()
        for timer in (self._deadline, self._limit, self._lingering):
            self._stop(timer)
        self.factory.sessions.discard(self)
        admission, self._admission = self._admission, None
        if admission is not None:
            status = self._status or CLOSED
            admission.log.end(
                self.bytes_in, self.bytes_out, status, self._reason, result_of(status)
            )
            admission.ended()

    def end(self, status: str, reason: str) -> None:
        """End the session at once, whatever it does."""
        if self._ending or self.lost:
            return
        self._status, self._reason = status, reason
        machine = self.machine
        busy = machine.busy
        machine.abandon(reason)
        if busy:
            machine.closing = ABORT
        self.settle()

    def stop(self, reason: str) -> None:
        """End the session: it is no longer wanted here."""
        self.end(STOPPED, reason)

    def _expired(self) -> None:
        self.end(SESSION_LIMIT, "the longest time that the policy allows for a session is over")

    def _recorder_failed(self, reason: str) -> None:
        self.end(RECORDER_FAILED, reason)

    @staticmethod
    def _stop(timer: IDelayedCall | None) -> None:
        if timer is not None and timer.active():
            timer.cancel()
