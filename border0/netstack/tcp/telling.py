"""What an application hears of its connection, in the order of things: opened, data, end, closed.

Does not decide when: flows are queued with `Flows.notify`, the stack makes the calls.
"""

from border0.netstack.tcp.receiver import hold
from border0.netstack.tcp.tcb import (
    CLOSED,
    TELL_CLOSED,
    TELL_DATA,
    TELL_DRAIN,
    TELL_EOF,
    TELL_ESTABLISHED,
    Tcb,
    ignore,
)


def tell(tcb: Tcb, events: int) -> None:
    """Make the calls that `events` names; what a callback raises goes through."""
    if tcb.orphan:
        return
    if events & TELL_ESTABLISHED:
        tcb.on_established()
    if events & TELL_DATA:
        chunks = tcb.incoming
        if chunks:
            tcb.incoming = []
            chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            if tcb.paused or tcb.held:
                hold(tcb, chunk)
                chunk = b""
        else:
            chunk = b""
        if tcb.held and not tcb.paused:
            chunk = b"".join(tcb.held)
            tcb.held = []
            tcb.held_bytes = 0
        if chunk and not tcb.discard:
            tcb.take(chunk)
    if events & TELL_EOF:
        if tcb.paused:
            tcb.deferred |= TELL_EOF
        else:
            tcb.on_eof()
    if events & TELL_DRAIN and tcb.state != CLOSED:
        tcb.on_drain()
    if events & TELL_CLOSED and not tcb.orphan:
        if tcb.paused and tcb.deferred and tcb.reason is None:
            tcb.deferred |= TELL_CLOSED
            return
        tcb.orphan = True
        tcb.held.clear()
        tcb.held_bytes = 0
        closed = tcb.on_closed
        tcb.take = tcb.on_established = tcb.on_eof = tcb.on_drain = tcb.on_closed = ignore
        closed(tcb.reason)
