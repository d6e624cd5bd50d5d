"""What all TCP flows of one stack share: the table, the dirty set, output, events, limits.

Does no TCP: it is the meeting point of the modules that do.
"""

from collections.abc import Callable

from border0.netstack.pathmtu import PathMtu
from border0.netstack.tcp.deadlines import Deadlines
from border0.netstack.tcp.tcb import CLOSED, NEVER, TELL_CLOSED, Tcb


class Counters:
    """What happened so far; plain integers, for metrics and tests.

    `packets_too_big`: ICMP errors about a path's size that were believed; `errors_ignored`: ICMP
    errors that changed nothing, most of all those about packets that we cannot know to have sent.
    """

    __slots__ = (
        "bad_checksum",
        "challenge_acks",
        "errors_ignored",
        "malformed",
        "out_of_order",
        "packets_too_big",
        "paws_dropped",
        "prohibited",
        "resets_sent",
        "retransmitted",
        "syn_dropped",
        "timeouts",
        "zero_window_probes",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    bad_checksum: int
    challenge_acks: int
    errors_ignored: int
    malformed: int
    out_of_order: int
    packets_too_big: int
    paws_dropped: int
    prohibited: int
    resets_sent: int
    retransmitted: int
    syn_dropped: int
    timeouts: int
    zero_window_probes: int


class Limits:
    """Sizes and times; bytes and seconds."""

    __slots__ = (
        "connections",
        "fin_wait_2",
        "give_up",
        "half_open",
        "half_open_per_remote",
        "keep_count",
        "keep_idle",
        "keep_interval",
        "low_water",
        "memory",
        "mtu",
        "receive_window",
        "time_wait",
        "time_waits",
    )

    def __init__(
        self, mtu: int, receive_window: int, connections: int, memory: int = 1 << 28
    ) -> None:
        self.mtu = mtu
        self.receive_window = receive_window
        self.connections = connections
        self.memory = memory
        self.half_open = 1024
        self.half_open_per_remote = 256
        self.time_wait = 10.0
        self.time_waits = 4096
        self.fin_wait_2 = 60.0
        self.give_up = 100.0
        self.keep_idle = 60.0
        self.keep_interval = 10.0
        self.keep_count = 6
        self.low_water = 65536


class Flows:
    """Shared state; `wake` is called once when idle work appears from outside."""

    __slots__ = (
        "buffered",
        "counters",
        "crowded",
        "deadlines",
        "dirty",
        "events",
        "failures",
        "half_open",
        "idle",
        "limits",
        "now",
        "out",
        "paths",
        "table",
        "time_waits",
        "wake",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.counters = Counters()
        self.table: dict[bytes, Tcb] = {}
        self.dirty: dict[bytes, Tcb] = {}
        self.out: list[bytes] = []
        self.events: list[Tcb] = []
        self.half_open: dict[bytes, Tcb] = {}
        self.time_waits: dict[bytes, Tcb] = {}
        self.failures: list[tuple[Tcb | None, Exception]] = []
        self.buffered = 0
        self.crowded = False  # `buffered` has reached the limit
        self.deadlines = Deadlines()
        self.paths = PathMtu()
        self.now = 0.0
        self.idle = True
        self.wake: Callable[[], None] = lambda: None

    def charge(self, tcb: Tcb, kept: int) -> None:
        """Note how many bytes `tcb` keeps now."""
        self.buffered += kept - tcb.charged
        tcb.charged = kept
        self.crowded = self.buffered >= self.limits.memory

    def touch(self) -> None:
        """Say that there is something to collect."""
        if self.idle:
            self.idle = False
            self.wake()

    def mark(self, tcb: Tcb) -> None:
        """Let `tcb` emit at the next collect."""
        self.dirty[tcb.key] = tcb
        if self.idle:
            self.idle = False
            self.wake()

    def notify(self, tcb: Tcb, event: int) -> None:
        """Queue a call to the application."""
        if not tcb.events:
            self.events.append(tcb)
        tcb.events |= event
        if self.idle:
            self.idle = False
            self.wake()

    def drop(self, tcb: Tcb, reason: str | None) -> None:
        """End a flow: it leaves the table, its memory is given back, the application is told."""
        if tcb.state == CLOSED:
            return
        tcb.state = CLOSED
        self.forget(tcb)
        release(self, tcb)
        if not tcb.orphan:
            tcb.reason = reason
            self.notify(tcb, TELL_CLOSED)

    def forget(self, tcb: Tcb) -> None:
        """Take a flow out of every table."""
        key = tcb.key
        if self.table.get(key) is tcb:
            del self.table[key]
        self.dirty.pop(key, None)
        self.half_open.pop(key, None)
        self.time_waits.pop(key, None)
        self.deadlines.disarm(tcb)


def release(flows: Flows, tcb: Tcb) -> None:
    """Give the queues' memory back; in-order data not yet taken stays for the application."""
    flows.charge(tcb, 0)
    tcb.predicted = NEVER
    tcb.blocks.clear()
    tcb.starts.clear()
    tcb.pending.clear()
    tcb.pending_bytes = 0
    tcb.snd_una = tcb.snd_end = tcb.snd_nxt
    tcb.fin_queued = False
    tcb.board.clear()
    tcb.ranges.clear()
    tcb.recency.clear()
    tcb.ranges_cost = 0
    tcb.prefixes.clear()
    tcb.rto_deadline = tcb.ack_deadline = tcb.persist_deadline = 0.0
    tcb.keep_deadline = tcb.close_deadline = 0.0
