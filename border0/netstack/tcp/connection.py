"""A TCP connection as the application sees it: the two-call interface and its callbacks.

`take` (settable) receives one joined chunk per batch, `write` queues and schedules nothing.
Callbacks `on_established()`, `on_eof()`, `on_drain()`, `on_closed(reason)` are settable; they run
inside the stack's receive, collect or expire, never inside a call of the application.
"""

from border0.netstack.tcp import arrival
from border0.netstack.tcp.flows import Flows
from border0.netstack.tcp.sizing import headers
from border0.netstack.tcp.tcb import (
    CLOSED,
    ESTABLISHED,
    FIN_WAIT_2,
    NEVER,
    SYN_SENT,
    TELL_CLOSED,
    TELL_DATA,
    TIME_WAIT,
    Address,
    Tcb,
    ignore,
)


class Connection(Tcb):
    """One TCP connection; `local` and `remote` are (packed address, port)."""

    __slots__ = ("_flows",)

    def __init__(self, flows: Flows, key: bytes, local: Address, remote: Address) -> None:
        path = flows.paths.tunnel(remote[0], flows.limits.mtu)
        super().__init__(key, local, remote, path - headers(remote[0]))
        self.path_mtu = path
        self._flows = flows

    @property
    def queued(self) -> int:
        """Bytes written and not yet acknowledged, sent or not."""
        held = self.snd_end - max(self.snd_una, self.iss + 1)
        return max(0, held) + self.pending_bytes

    @property
    def unsent(self) -> int:
        """Bytes written and never sent: what back-pressure is measured by."""
        return max(0, self.snd_end - max(self.snd_nxt, self.iss + 1)) + self.pending_bytes

    @property
    def unread(self) -> int:
        """Bytes received and kept because the connection is paused."""
        return self.held_bytes

    @property
    def closed(self) -> bool:
        """True when nothing can be sent or received any more."""
        return self.state in (CLOSED, TIME_WAIT) or self.orphan

    def write(self, data: bytes) -> None:
        """Queue `data`; it leaves at the next collect.

        Ignored after the connection ended; raises `ValueError` after `shutdown`.
        """
        if self.fin_queued:
            raise ValueError("write after shutdown")
        if not data or self.state == CLOSED or self.orphan:
            return
        self.pending.append(data)
        self.pending_bytes += len(data)
        if not self.was_above and self.unsent > self.low_water:
            self.was_above = True
        flows = self._flows
        flows.dirty[self.key] = self
        if flows.idle:
            flows.idle = False
            flows.wake()

    def shutdown(self) -> None:
        """Send FIN after what is queued; receiving goes on. Repeating it does nothing."""
        if self.fin_queued or self.state in (CLOSED, TIME_WAIT):
            return
        if self.state == SYN_SENT:
            self._flows.drop(self, None)
            return
        self.fin_queued = True
        self._flows.mark(self)

    def close(self) -> None:
        """Send FIN after what is queued and drop whatever is still received.

        `on_closed(None)` follows when the peer has everything.
        """
        self.discard = True
        self.predicted = NEVER
        self.take = self.on_eof = ignore
        self.held.clear()
        self.held_bytes = 0
        self.incoming.clear()
        self.resume()
        if self.state == FIN_WAIT_2:
            flows = self._flows
            self.close_deadline = flows.now + flows.limits.fin_wait_2
            flows.deadlines.arm(self, self.close_deadline)
            flows.notify(self, TELL_CLOSED)
        self.shutdown()

    def abort(self, reason: str | None = "aborted") -> None:
        """Send RST, forget everything queued; `on_closed(reason)` follows."""
        self.held.clear()
        self.held_bytes = 0
        self.incoming.clear()
        arrival.abort(self._flows, self, reason)

    def pause(self) -> None:
        """Stop taking: the window is not moved on, what still arrives inside it is kept."""
        self.paused = True

    def resume(self) -> None:
        """Take again: kept bytes are delivered, the window is opened and announced."""
        if not self.paused:
            return
        self.paused = False
        flows = self._flows
        if self.held:
            flows.mark(self)  # what it keeps is counted at its next emission
        if self.held or self.deferred:
            flows.notify(self, TELL_DATA | self.deferred)
            self.deferred = 0
        if self.state >= ESTABLISHED and self.state != TIME_WAIT and not self.eof:
            grown = self.rcv_nxt + flows.limits.receive_window - self.rcv_adv
            if grown >= min(2 * self.mss, flows.limits.receive_window >> 1):
                self.ack_now = True
                flows.mark(self)
