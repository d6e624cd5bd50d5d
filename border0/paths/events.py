"""What a Prober tells its owner.

Does not: decide what follows from it.
"""

from __future__ import annotations

from border0.paths.address import Address


class Event:
    """Base of the events. `public_key` is the peer's WireGuard key."""

    __slots__ = ("public_key",)

    def __init__(self, public_key: bytes) -> None:
        self.public_key = public_key


class Switched(Event):
    """The peer's data goes another way: from `before` ("" for none) to `after`, and why."""

    __slots__ = ("after", "before", "reason")

    def __init__(self, public_key: bytes, before: str, after: str, reason: str) -> None:
        super().__init__(public_key)
        self.before = before
        self.after = after
        self.reason = reason


class PathsLost(Event):
    """No path answers; what is sent still goes the last way, handshakes go everywhere."""

    __slots__ = ("last",)

    def __init__(self, public_key: bytes, last: str) -> None:
        super().__init__(public_key)
        self.last = last


class PathsFound(Event):
    """The way in use answers again, after none did."""

    __slots__ = ("path",)

    def __init__(self, public_key: bytes, path: str) -> None:
        super().__init__(public_key)
        self.path = path


class InnerMtuChanged(Event):
    """The largest inner packet that the path in use carries is now `inner_mtu`."""

    __slots__ = ("inner_mtu",)

    def __init__(self, public_key: bytes, inner_mtu: int) -> None:
        super().__init__(public_key)
        self.inner_mtu = inner_mtu


class DataBlocked(Event):
    """Probes pass and data does not, and there is no other way: a new handshake may help."""

    __slots__ = ()


class Wanted(Event):
    """There is something for the peer and no way answers: it must hear that we look for it."""

    __slots__ = ()


class Observed(Event):
    """The peer sees us as `address` when we send by `via`."""

    __slots__ = ("address", "via")

    def __init__(self, public_key: bytes, address: Address, via: str) -> None:
        super().__init__(public_key)
        self.address = address
        self.via = via


class Left(Event):
    """The peer said that it stops."""

    __slots__ = ()


class Slept(Event):
    """This machine was not run for `seconds`; `public_key` is empty."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        super().__init__(b"")
        self.seconds = seconds
