"""The state of one relayed connection: which directions are open, how many bytes each has carried.

Source: RFC 9293 §3.6 (a connection may be closed in one direction while the other goes on). It
sends nothing; the adapter asks it what to do after each end of a direction.
"""

EARLY_LIMIT = 64 * 1024
"""Bytes from the client that may wait until the upstream connection stands."""


class Relay:
    """Counters and half-close state of one pair of connections."""

    __slots__ = ("bytes_in", "bytes_out", "client_ended", "early", "early_size", "upstream_ended")

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0
        self.client_ended = False
        self.upstream_ended = False
        self.early: list[bytes] = []
        self.early_size = 0

    @property
    def finished(self) -> bool:
        """Whether both directions have ended."""
        return self.client_ended and self.upstream_ended

    def hold(self, data: bytes) -> bool:
        """Keep bytes that came before the upstream connection; False when they are too many.

        The client is paused all this time: only what was on its way already can come.
        """
        self.early_size += len(data)
        if self.early_size > EARLY_LIMIT:
            self.early.clear()
            return False
        self.early.append(data)
        return True

    def release(self) -> bytes:
        """What was held, once."""
        data = b"".join(self.early)
        self.early.clear()
        self.early_size = 0
        return data
