"""Every number of the protocol and of the choice, in one place; docs/protocols/paths.md has them.

Source: our own unless a line names another. Seconds, bytes and counts.
Does not: decide anything.
"""

# What one peer may make us keep and do.
CANDIDATES = 16  # in one list
LIST_LOOKED_AT = 64  # entries of a list that are looked at before the rest is ignored
PATHS = 32  # in all
DISCOVERED = 8  # addresses that we know only from where the peer's packets came
REMOTE_PATHS = 32  # path numbers of the peer that we keep a window for
SOURCES = 32  # sources whose data we count
ANSWER_RATE, ANSWER_BURST = 50.0, 100.0  # PONGs for one peer
DISCOVERY_RATE, DISCOVERY_BURST = 1.0, 4.0  # new sources of one peer
NEWS_RATE, NEWS_BURST = 0.5, 6.0  # CANDIDATES of one peer that we act on

# What the process sends to addresses that have not answered yet.
STRANGER_RATE, STRANGER_BURST = 50.0, 100.0
STRANGER_HOST_RATE, STRANGER_HOST_BURST = 10.0, 50.0  # of that to one host, or one /64
STRANGER_HOSTS = 1024
STRANGER_PEER_RATE, STRANGER_PEER_BURST = 5.0, 60.0  # and that one peer's lists may cause
STRANGER_RETRY = 0.1
RETIRED_CHANNELS = 4096  # finished channels whose counters stay refused

# Probing.
ACTIVE_FOR = 30.0  # after data, a peer is active
COLD_AFTER = 600.0  # without data, a peer is left alone unless it is held
PROBE_ACTIVE = 1.0
PROBE_SPARSE = 0.5  # the path in use while so little data goes there that it tells little
PROBE_STANDBY = 5.0
PROBE_WATCH = 0.2  # the path in use while it loses, and the challenger
PROBE_TRIAL = 0.1  # a challenger that was left for loss
PROBE_IDLE = 22.0  # 22 to 25 s: Linux forgets a mapping after 30 s
PROBE_IDLE_SPREAD = 3.0
PROBE_IDLE_STANDBY = 60.0
FOLLOW_UP = 0.2
DEAD_AFTER = 4  # probes in a row
DEAD_AFTER_ALIKE = 8  # where every other way has lost something lately as well
DEAD_RETRY = (1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
DEAD_KEPT = 300.0
DISCOVERED_KEPT = 30.0
OUTSTANDING = 256  # probes of one path that wait for an answer
ANSWER_TAKEN = 5.0  # an answer may come this late
UNHEARD = 0.25  # data sent and nothing heard for this and one timeout: probe at once
LATE_CLOCK = 1.0  # we were not run for this long: the time is not held against a path
SLEPT = 5.0

# Time-outs. Source: RFC 6298 for the form.
TIMEOUT_FIRST = 1.0
TIMEOUT_LEAST = 0.2
TIMEOUT_MOST = 3.0

# Loss.
PROBES_COUNTED = 16
PROBES_LOST = 3
PROBE_GAIN = 1 / 64
DATA_MEMORY, DATA_MEMORY_SHORT = 15.0, 3.0  # seconds after which what was counted weighs 1/e
DATA_LEAST = 24.0  # packets below which the share of lost data says nothing
LOSS_REMEMBERED = 120.0  # seconds in which the loss of a path that was left counts half
DATA_DEAD = 20  # packets in a row that did not arrive
DATA_DEAD_FEW, DATA_DEAD_SECONDS = 4, 2.0
WATCH_LOSS = 0.02
WATCH_FOR = 10.0  # seconds after something was lost

# Choosing.
MARGIN, MARGIN_POINTS = 1.2, 1.0
LONG_HOLD = 8.0
FAIR_MARGIN, HOLD = 1.5, 3.0  # half as good again needs less patience
CLEAR_MARGIN, CLEAR_HOLD = 2.0, 1.0  # twice as good needs the least
TRIAL_HOLD = 8.0
TRIAL_AGAIN = 30.0
LOSS_LEFT = 0.05  # a path left with more loss than this is held down and must pass a trial
HOLD_DOWN, HOLD_DOWN_MOST = 10.0, 300.0
DATA_HOLD_DOWN = 60.0
STEADY = 60.0  # in use for this long: the next hold-down starts small again
RELAY_BIAS = 0.9

# Path MTU, on the wire: IP and UDP headers included. Source: RFC 8899 for the manner.
MTU_LEAST = 576
MTU_BASE = 1280
MTU_FIRST = (1280, 1420, 1500)
MTU_JUMBO = (4000, 8000, 9000)
MTU_USUAL = 1500
MTU_TRIES = 3
MTU_AGAIN = 600.0
MTU_CONFIRM = 10.0
WIREGUARD_OVERHEAD = 32
INNER_IPV6 = 1280

# Hole punching.
OPENER_HOPS = 2
OPENER_WAIT = 0.3
CALL_AFTER = 0.3  # no way answers a peer that is wanted: it is called
CALL_AGAIN = 10.0
CALLED_FOR = 30.0
PUNCH_AT = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
PUNCH_RESTS = (2.0, 4.0, 8.0, 16.0, 35.0, 60.0)  # 35: longer than Linux keeps a wrong mapping
