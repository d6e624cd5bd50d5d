"""Joins a stack to a reactor: one timer, one flush per turn, one transmit function.

Does not know where packets come from or go to: `packets_received` and `transmit` do.
"""

import socket
from collections.abc import Callable, Container
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.netstack.stack import Stack
from border0.netstack.tcp.connection import Connection

_log = Logger()
# The tunnel sends 44 equal packets at once; a few of those per call keep its batches full.
BUDGET = 176
_MAX_ROUNDS = 64

Listener = Callable[[Connection], bool]


class StackDriver:
    """Feeds `stack` with time and packets and hands its packets to `transmit(packets)`.

    `clock` is the reactor (or a `Clock`). Listeners are found by exact (address, port), then by
    (None, port). Use `driver.accept` as the stack's `accept`.
    """

    def __init__(
        self,
        stack: Stack | None,
        clock: Any,
        transmit: Callable[[list[bytes]], None],
    ) -> None:
        self.clock: IReactorTime = clock
        self.transmit = transmit
        self._seconds: Callable[[], float] = clock.seconds
        self._timer: Any = None
        self._timer_at = 0.0
        self._soon: Any = None
        self._flushing = False
        self._stopped = False
        self._listeners: dict[tuple[bytes | None, int], Listener] = {}
        self.stack: Stack
        if stack is not None:
            self.attach(stack)

    def attach(self, stack: Stack) -> None:
        """Drive `stack` (when it could not be given at construction: it needs `accept`)."""
        self.stack = stack
        stack.wake = self._wake
        if stack.on_error is None:
            stack.on_error = _log_application_error

    def seconds(self) -> float:
        """Return the stack's time."""
        return self._seconds()

    def packets_received(self, packets: list[bytes]) -> None:
        """Give a batch of IP packets to the stack and send what follows from it."""
        self.stack.receive(packets, self._seconds())
        self.flush()

    def flush(self) -> None:
        """Send everything that the stack has to send now."""
        if self._flushing or self._stopped:
            return
        self._flushing = True
        try:
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
            stack = self.stack
            for _ in range(_MAX_ROUNDS):
                packets = stack.collect(BUDGET, self._seconds())
                if not packets:
                    break
                self.transmit(packets)
                if stack.idle:
                    break  # the usual case: one round was all
            else:
                # Others want the reactor too.
                self._soon = self.clock.callLater(0, self._flush_soon)
        finally:
            self._flushing = False
        self._schedule()

    def send(self, write: Callable[[bytes], None], data: bytes) -> None:
        """Have `write(data)` queue something, and send it now: no later turn is booked for it."""
        before, self._flushing = self._flushing, True
        try:
            write(data)
        finally:
            self._flushing = before
        self.flush()

    def path_changed(self, address: bytes, mtu: int) -> None:
        """Tell the stack what the tunnel carries to a packed address, and send what follows."""
        self.stack.path_changed(address, mtu, self._seconds())
        self.flush()

    def resume(self, addresses: Container[bytes]) -> None:
        """Tell the stack that packets get to packed addresses again, and send what follows."""
        self.stack.resume(addresses, self._seconds())
        self.flush()

    def _wake(self) -> None:
        if self._soon is None and not self._flushing and not self._stopped:
            self._soon = self.clock.callLater(0, self._flush_soon)

    def _flush_soon(self) -> None:
        self._soon = None
        self.flush()

    def _schedule(self) -> None:
        deadline = self.stack.next_deadline()
        if deadline is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return
        if self._timer is not None:
            if self._timer_at <= deadline:
                return  # it comes early, looks again and goes on
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.clock.callLater(max(0.0, deadline - self._seconds()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self.stack.expire(self._seconds())
        self.flush()

    def stop(self) -> None:
        """Cancel timers and send nothing more."""
        self._stopped = True
        for call in (self._timer, self._soon):
            if call is not None:
                call.cancel()
        self._timer = self._soon = None

    def accept(self, connection: Connection) -> bool:
        """Answer the stack's question at a SYN: is there a listener that wants it."""
        address, port = connection.local
        listener = self._listeners.get((address, port)) or self._listeners.get((None, port))
        if listener is None:
            return False
        try:
            return listener(connection)
        except Exception:
            _log.failure("A listener on port {port} raised; the client is refused", port=port)
            return False

    def listen(self, host: str, port: int, listener: Listener) -> None:
        """Offer connections for `host` ("" or a wildcard: every address) to `listener`.

        Raises `ValueError` if the port is taken.
        """
        key = (packed_or_any(host), port)
        if key in self._listeners:
            raise ValueError(f"port {port} is taken on {host or 'every address'}")
        self._listeners[key] = listener

    def forget(self, host: str, port: int) -> None:
        """Stop offering; connections that exist go on."""
        self._listeners.pop((packed_or_any(host), port), None)


def _log_application_error(connection: Connection | None, error: Exception) -> None:
    if connection is None:
        _log.failure("A receiver of datagrams raised", failure=Failure(error))
        return
    _log.failure(
        "A protocol raised; its connection from {remote} was aborted",
        failure=Failure(error),
        remote=presentation(connection.remote[0]),
    )


def packed(host: str) -> bytes:
    """Return an address's bytes; raises `ValueError` if `host` is not an IP address."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            return socket.inet_pton(family, host)
        except OSError:
            continue
    raise ValueError(f"not an IP address: {host!r}")


def packed_or_any(host: str) -> bytes | None:
    """Return an address's bytes, None for a wildcard."""
    return None if host in ("", "0.0.0.0", "::", "*") else packed(host)


def presentation(address: bytes) -> str:
    """Return an address as text."""
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)
