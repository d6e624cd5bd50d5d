"""Every number of the relay protocol in one place; docs/protocols/relay.md has them.

Source: our own unless a line names another. Seconds, bytes and counts.
Does not: decide anything.
"""

from typing import NamedTuple

SUBPROTOCOL = "border0.relay.v1"
EXPORTER_LABEL = "EXPORTER-border0-relay-v1"
EXPORTER_SIZE = 32

# Messages.
MESSAGE = 64 * 1024
RECORD_BODY = 16 * 1024
LOGIN_MESSAGE = 1024
HELLO_MESSAGE = 4096
TEXT = 200  # characters of a text for people
MESSAGE_TARGET = 32 * 1024  # a message to a client is filled up to this

# Login.
LOGIN_SECONDS = 10.0
CLOCK_AHEAD = 300.0  # a connection counter may be this far in the future
TICKET = 3072
TICKET_LIFETIME = 600.0
TICKET_GRACE = 60.0  # a connection outlives its ticket by this
TICKET_WARNING = 60.0
TICKET_RATE, TICKET_BURST = 0.2, 4.0  # fresh tickets of one connection that are looked at
NAME = 253
RELAY_ID = 64

# Queues. Source: RFC 8289 (CoDel), RFC 8290 §4 (deficit round robin over flows, drop the fattest).
CODEL_TARGET = 0.015
CODEL_INTERVAL = 0.100
DATA_OLDEST = 0.5
URGENT_OLDEST = 5.0
QUEUE_BYTES = 512 * 1024
QUANTUM = 1500
URGENT_BYTES = 64 * 1024  # of one destination
URGENT_RATE, URGENT_BURST = 32 * 1024.0, 32 * 1024.0  # of one source to one destination
CONTROL_RECORDS = 64
FLOWS = 4096  # sources of one destination that are told apart
FLOW_KEPT = 60.0  # a source that was silent for longer is not told that the destination left

# What a client may cost.
MESSAGE_COST = 1024  # a message counts as this much more than its bytes
GONE_RATE, GONE_BURST = 10.0, 100.0
UNKNOWN_WINDOW = 60.0
UNKNOWN_WARNED = 6_000  # datagrams in the window to keys that are not here
UNKNOWN_CLOSED = 120_000
FLIPS = 4
FLIP_WINDOW = 60.0
FLIPS_REMEMBERED = 1024
HEALTH_AGAIN = 60.0  # the same trouble is told this often at most

# Keeping alive.
PING_EVERY, PING_SPREAD = 20.0, 0.2
PING_UNHEARD = 2.0  # data was sent and nothing came for this long
PONG_TIMEOUT = 10.0
PONG_TIMEOUT_ACTIVE = 2.5
SLEPT = 5.0  # we were not run for this long: it is not held against the other end
ROUND_TRIPS = 5  # the median of so many counts
SILENT_ASKED = 45.0  # the relay asks a client that was silent for this long
SILENT_CLOSED = 75.0

# Coming back.
BACKOFF_FIRST, BACKOFF_MOST = 0.5, 30.0
REFUSED_FIRST, REFUSED_MOST = 5.0, 60.0  # after a refusal that time alone does not mend
STEADY = 30.0  # a connection that lasted this long makes the next back-off small again

# Choosing a relay.
BETTER_BY, BETTER_SHARE, BETTER_ROUNDS = 0.010, 0.20, 3


class Rate(NamedTuple):
    """Bytes a second and at once that a client, or an organisation, may send."""

    rate: float
    burst: float


RATES = {
    "standard": Rate(12_500_000.0, 4_000_000.0),
    "low": Rate(1_250_000.0, 1_000_000.0),
    "high": Rate(62_500_000.0, 16_000_000.0),
}
