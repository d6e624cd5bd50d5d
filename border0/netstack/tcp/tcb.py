"""The transmission control block: all state of one TCP flow.

Source: RFC 9293 §3.3.1 (names), RFC 7323 (timestamps, scaling), RFC 6675 (recovery state).
Holds state and no behaviour: `receiver`, `sender`, `arrival`, `timers` are functions on it, and
`connection.Connection` gives the application its calls. Sequence positions are unwrapped: they
start at the initial sequence number and only grow; `& M32` gives the wire's number.
"""

from collections.abc import Callable

from border0.netstack.tcp.congestion import NewReno
from border0.netstack.tcp.rtt import RttEstimator
from border0.netstack.tcp.sack import Scoreboard

M32 = 0xFFFFFFFF
HALF = 0x80000000
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32

CLOSED, SYN_SENT, SYN_RCVD, ESTABLISHED = 0, 1, 2, 3
CLOSE_WAIT, FIN_WAIT_1, FIN_WAIT_2, CLOSING, LAST_ACK, TIME_WAIT = 4, 5, 6, 7, 8, 9

# What the application is still to be told
TELL_ESTABLISHED, TELL_DATA, TELL_EOF, TELL_DRAIN, TELL_CLOSED = 1, 2, 4, 8, 16

# Kinds of loss recovery
NO_RECOVERY, FAST_RECOVERY, TIMEOUT_RECOVERY = 0, 1, 2

NEVER = -1  # `predicted` of a flow that has no fast path
WINDOW_SCALE = 8
RANGE_OVERHEAD = 64  # what a chunk out of order costs besides its bytes
MAX_RANGES = 256

Address = tuple[bytes, int]


def ignore(*_arguments: object) -> None:
    """Stand in for a callback that nobody set."""


class Range:
    """A run of bytes received out of order."""

    __slots__ = ("chunks", "end", "start")

    def __init__(self, start: int, end: int, chunk: bytes) -> None:
        self.start = start
        self.end = end
        self.chunks = [chunk]


class Tcb:
    """State of one flow; see the module's docstring."""

    __slots__ = (
        "__weakref__",
        "ack_deadline",
        "ack_now",
        "blocks",
        "board",
        "challenge_at",
        "challenges",
        "charged",
        "close_deadline",
        "congestion",
        "deferred",
        "discard",
        "dupacks",
        "eof",
        "events",
        "fin_queued",
        "force",
        "held",
        "held_bytes",
        "high_rxt",
        "incoming",
        "irs",
        "iss",
        "keep_deadline",
        "keep_interval",
        "keep_probes",
        "key",
        "last_ack_sent",
        "last_heard",
        "last_sent",
        "local",
        "lost_edge",
        "low_water",
        "max_window",
        "mss",
        "no_delay",
        "on_closed",
        "on_drain",
        "on_eof",
        "on_established",
        "orphan",
        "pack",
        "path_mtu",
        "paused",
        "peer_mss",
        "pending",
        "pending_bytes",
        "persist_deadline",
        "predicted",
        "prefixes",
        "pseudo",
        "pseudo_in",
        "ranges",
        "ranges_cost",
        "raw_window",
        "rcv_adv",
        "rcv_fin",
        "rcv_nxt",
        "rcv_scale",
        "reason",
        "recency",
        "recovery",
        "recovery_point",
        "remote",
        "retransmits",
        "rto_deadline",
        "rtt",
        "rtt_at",
        "rtt_seq",
        "sack_on",
        "segments_pending",
        "snd_end",
        "snd_nxt",
        "snd_scale",
        "snd_una",
        "snd_wl1",
        "snd_wnd",
        "stalled_since",
        "starts",
        "state",
        "take",
        "timer_slot",
        "timestamps_on",
        "ts_offset",
        "ts_recent",
        "ts_recent_at",
        "was_above",
    )

    def __init__(self, key: bytes, local: Address, remote: Address, mss: int) -> None:
        self.key = key
        self.local = local
        self.remote = remote
        self.state = CLOSED
        # What byte 12 and 13 of a segment must say (PSH aside) for the fast path.
        self.predicted = NEVER
        self.reason: str | None = None
        self.events = 0
        self.deferred = 0
        self.discard = False  # closed by the application: received bytes are dropped
        self.orphan = False  # the application was told of the end: nothing more is delivered

        # Templates
        self.pseudo = 0  # addresses, protocol and ports, for what we send
        self.pseudo_in = 0  # addresses and protocol, for what we verify as a whole
        self.prefixes: dict[int, bytes] = {}
        self.pack: Callable[..., bytes] = ignore  # type: ignore[assignment]

        # Receiver
        self.irs = 0
        self.rcv_nxt = 0
        self.rcv_adv = 0  # right edge of the advertised window
        self.rcv_fin = 0  # position of a FIN that arrived out of order; 0: none
        self.rcv_scale = 0
        self.incoming: list[bytes] = []  # in order, of this batch
        self.held: list[bytes] = []  # in order, not taken: the application paused
        self.held_bytes = 0
        self.ranges: list[Range] = []
        self.recency: list[Range] = []
        self.ranges_cost = 0
        self.segments_pending = 0
        self.ack_now = False
        self.last_ack_sent = 0
        self.paused = False
        self.eof = False
        self.charged = 0  # what the flow counts in the total of all

        # Sender
        self.iss = 0
        self.snd_una = 0
        self.snd_nxt = 0
        self.snd_end = 0  # behind the last queued byte (FIN not counted)
        self.snd_wnd = 0
        self.snd_scale = 0
        self.snd_wl1 = 0
        self.raw_window = 0  # window field of the last segment, unscaled
        self.max_window = 0
        self.mss = mss  # payload bytes of a full segment, options deducted
        self.peer_mss = mss
        self.path_mtu = 0  # what the tunnel carries to and from the peer, IP header included
        self.blocks: list[bytes] = []  # the send queue ...
        self.starts: list[int] = []  # ... and the position of each block's first byte
        self.pending: list[bytes] = []  # written since the last emission
        self.pending_bytes = 0
        self.fin_queued = False
        self.no_delay = True
        self.low_water = 65536
        self.was_above = False

        # Loss recovery
        self.sack_on = False
        self.board = Scoreboard()
        self.recovery = NO_RECOVERY
        self.recovery_point = 0
        self.high_rxt = 0  # holes below were retransmitted in this recovery
        self.lost_edge = 0
        self.dupacks = 0
        self.force = False  # the next retransmission ignores the congestion window
        self.congestion = NewReno(mss)
        self.rtt = RttEstimator()
        self.rtt_seq = 0  # position whose ACK ends the running measurement; 0: none runs
        self.rtt_at = 0.0
        self.retransmits = 0  # timeouts since the last progress
        self.stalled_since = 0.0

        # Timestamps
        self.timestamps_on = False
        self.ts_offset = 0
        self.ts_recent = 0
        self.ts_recent_at = 0.0

        # Deadlines, seconds monotonic; 0.0: off
        self.timer_slot = 0
        self.rto_deadline = 0.0
        self.ack_deadline = 0.0
        self.persist_deadline = 0.0
        self.keep_deadline = 0.0
        self.close_deadline = 0.0
        self.keep_probes = 0
        self.keep_interval = 0.0
        self.last_heard = 0.0
        self.last_sent = 0.0
        self.challenge_at = 0.0
        self.challenges = 0

        # The application
        self.take: Callable[[bytes], None] = ignore
        self.on_established: Callable[[], None] = ignore
        self.on_eof: Callable[[], None] = ignore
        self.on_drain: Callable[[], None] = ignore
        self.on_closed: Callable[[str | None], None] = ignore
