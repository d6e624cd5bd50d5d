"""The timers of one peer: deadlines set by what happened, actions when they pass.

Source: WireGuard paper §6.2 (rekey), §6.3 (key rotation and zeroing), §6.4 (retransmission),
§6.5 (passive keepalive); wg(8) PersistentKeepalive.
Does not: send; `expire` says what is due. All times are seconds of one monotonic clock.
"""

from collections.abc import Callable

from border0.wireguard.limits import (
    KEEPALIVE_TIMEOUT,
    REKEY_ATTEMPT_TIME,
    REKEY_TIMEOUT,
    SILENT_AFTER,
    ZERO_KEYS_AFTER,
)

NEVER = float("inf")

# What `expire` may ask for; a set of bits.
SEND_INITIATION = 1
RETRY_INITIATION = 2
SEND_KEEPALIVE = 4
GIVE_UP = 8
ZERO_KEYS = 16


class PeerTimers:
    """Deadlines of one peer; `jitter` returns seconds, 0 up to a third of one.

    `unanswered_since`: when data or the wish for a session first went unanswered, infinity while
    nothing does. `initiation_at`: when the newest initiation left.
    """

    __slots__ = (
        "_attempts_since",
        "_jitter",
        "_keepalive_at",
        "_last_sent_handshake",
        "_persistent_at",
        "_retry_at",
        "_silence_at",
        "_zero_at",
        "initiation_at",
        "persistent_keepalive",
        "unanswered_since",
    )

    def __init__(self, jitter: Callable[[], float], persistent_keepalive: float) -> None:
        self._jitter = jitter
        self.persistent_keepalive = persistent_keepalive
        self._attempts_since = 0.0
        self._last_sent_handshake = -NEVER
        self.initiation_at = -NEVER
        self.unanswered_since = NEVER
        self._retry_at = NEVER
        self._keepalive_at = NEVER
        self._silence_at = NEVER
        self._zero_at = NEVER
        # The first keepalive is due at once: it opens the session.
        self._persistent_at = 0.0 if persistent_keepalive else NEVER

    def next_deadline(self) -> float:
        """Return the earliest deadline, infinity when nothing waits."""
        return min(
            self._retry_at,
            self._keepalive_at,
            self._silence_at,
            self._zero_at,
            self._persistent_at,
        )

    def attempt_begins(self, now: float) -> None:
        """Somebody wants a session now: the 90 seconds of trying start again."""
        self._attempts_since = now
        if self.unanswered_since == NEVER:
            self.unanswered_since = now

    def may_send_initiation(self, now: float) -> bool:
        """Tell whether the last handshake message is old enough (5 seconds)."""
        return now >= self._last_sent_handshake + REKEY_TIMEOUT

    def initiation_delayed(self) -> None:
        """An initiation is wanted but another handshake message just left: send it then."""
        if self._retry_at == NEVER:
            self._retry_at = self._last_sent_handshake + REKEY_TIMEOUT + self._jitter()

    def initiation_sent(self, now: float) -> None:
        """An initiation left; try again in 5 seconds and some jitter."""
        self._last_sent_handshake = self.initiation_at = now
        self._retry_at = now + REKEY_TIMEOUT + self._jitter()
        self._any_sent(now)

    def response_sent(self, now: float) -> None:
        """A response left."""
        self._last_sent_handshake = now
        self._any_sent(now)

    def data_sent(self, now: float) -> None:
        """Transport data that is no keepalive left: an answer should come."""
        if self._silence_at == NEVER:
            self._silence_at = now + SILENT_AFTER + self._jitter()
            if self.unanswered_since == NEVER:
                self.unanswered_since = now
        self._any_sent(now)

    def keepalive_sent(self, now: float) -> None:
        """An empty transport message left."""
        self._any_sent(now)

    def _any_sent(self, now: float) -> None:
        self._keepalive_at = NEVER
        if self.persistent_keepalive:
            self._persistent_at = now + self.persistent_keepalive

    def any_received(self, now: float) -> None:
        """An authenticated message of any kind arrived."""
        self._silence_at = self.unanswered_since = NEVER
        if self.persistent_keepalive:
            self._persistent_at = now + self.persistent_keepalive

    def data_received(self, now: float) -> None:
        """Transport data that is no keepalive arrived: it wants an answer within 10 seconds."""
        if self._keepalive_at == NEVER:
            self._keepalive_at = now + KEEPALIVE_TIMEOUT

    def session_derived(self, now: float) -> None:
        """New keys exist; without newer ones all are forgotten after 540 seconds."""
        self._zero_at = now + ZERO_KEYS_AFTER

    def handshake_completed(self) -> None:
        """Our initiation was answered, or the remote confirmed our response."""
        self._retry_at = NEVER

    def expire(self, now: float) -> int:
        """Return the bits of what is due at `now`, and take those deadlines off."""
        due = 0
        if now >= self._retry_at:
            if now - self._attempts_since >= REKEY_ATTEMPT_TIME:
                self._retry_at = NEVER
                self._keepalive_at = NEVER
                self._silence_at = NEVER
                self.unanswered_since = NEVER  # what waited is dropped
                if self._zero_at == NEVER:
                    self._zero_at = now + ZERO_KEYS_AFTER
                due |= GIVE_UP
            else:
                self._retry_at = NEVER
                due |= RETRY_INITIATION
        if now >= self._keepalive_at:
            self._keepalive_at = NEVER
            due |= SEND_KEEPALIVE
        if now >= self._silence_at:
            self._silence_at = NEVER
            due |= SEND_INITIATION
        if now >= self._persistent_at:
            self._persistent_at = now + self.persistent_keepalive
            due |= SEND_KEEPALIVE
        if now >= self._zero_at:
            self._zero_at = NEVER
            due |= ZERO_KEYS
        return due
