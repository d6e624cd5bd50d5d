"""The protocol's times and message counts, and the bounds that we chose ourselves.

Source: WireGuard paper §6.1 (constants), §6.2 to §6.6 (their use), §5.4.7 (cookie life).
Does not: decide anything; `timers` and `device` do.
"""

# Seconds.
REKEY_AFTER_TIME = 120.0
REJECT_AFTER_TIME = 180.0
REKEY_ATTEMPT_TIME = 90.0
REKEY_TIMEOUT = 5.0
REKEY_JITTER = 0.334
KEEPALIVE_TIMEOUT = 10.0
COOKIE_SECRET_LIFE = 120.0
# An initiator stops using a cookie this much before the secret behind it can have changed.
COOKIE_LATENCY = 5.0
ZERO_KEYS_AFTER = 3 * REJECT_AFTER_TIME
# A living peer answers data within the first of these; after both it may be elsewhere.
SILENT_AFTER = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
REKEY_ON_RECEIVE_AFTER = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
# One peer may make us do the work of a handshake this often (20 per second).
MINIMUM_INITIATION_INTERVAL = 0.05

# Messages under one key.
REKEY_AFTER_MESSAGES = 2**60
REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1

# Our own bounds.
REPLAY_WINDOW = 8192
QUEUED_PACKETS = 128  # inner packets of one peer waiting for a handshake; the oldest goes first
CANDIDATES = 16  # endpoints at which one peer is looked for
UNROUTED_PACKETS = 256  # inner packets reported in one NoPeer event
PENDING_EVENTS = 4096

# UDP generic segmentation offload: what one burst may hold.
BURST_SEGMENTS = 64
BURST_BYTES = 65_000
