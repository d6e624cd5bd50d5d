"""Where a device is, as policies ask it, for a connector that follows a control plane.

The address is the one at which the control plane sees the device's own connection, while that was
confirmed in the last ten minutes. Its age counts only while this connector is connected itself;
otherwise the last address stands until the offline limit, as long as the device's packets go on
coming from where they came before. Everything else is unknown.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from border0.connector.config import DeviceEntry

ADDRESS_SECONDS = 600.0

Underlay = Callable[[bytes], tuple[str, float] | None]


class Seen(Protocol):
    """A device's presence; `heard` in seconds monotonic."""

    @property
    def address(self) -> str:
        """Where its connection comes from."""

    @property
    def heard(self) -> float:
        """When that was last confirmed."""


class Control(Protocol):
    """What is asked of the control plane's client."""

    @property
    def connected(self) -> bool:
        """Whether this connector has a connection now."""

    def presence(self, node: str) -> Seen | None:
        """How a node's connection was last seen."""

    def absence(self) -> float:
        """Seconds without contact."""


class _Kept(NamedTuple):
    address: str
    source: str | None  # where its packets came from when the connection was lost


class Whereabouts:
    """Answers for devices by public key, as (address, 0) or None when it is not known.

    :param underlay: the source of a device's newest authenticated packet.
    :param offline_limit: seconds without contact until nothing is known any more.
    :param now: seconds monotonic, the time of `Seen.heard`.
    """

    def __init__(
        self,
        control: Control,
        underlay: Underlay,
        offline_limit: float,
        now: Callable[[], float],
    ) -> None:
        self.control, self.underlay, self.now = control, underlay, now
        self.offline_limit = offline_limit
        self.devices: dict[bytes, str] = {}  # node ids by public key
        self._kept: dict[bytes, _Kept] | None = None  # None while connected

    def follow(self, devices: Iterable[DeviceEntry]) -> None:
        """Take the devices of now, and notice whether the control plane is there."""
        self.devices = {device.public_key: device.id for device in devices}
        if self.control.connected:
            self._kept = None
        elif self._kept is None:
            self._kept = {}
            for key in self.devices:
                address = self._seen(key)
                if address is not None:
                    self._kept[key] = _Kept(address, self._source(key))

    def __call__(self, public_key: bytes) -> tuple[str, float] | None:
        """Where the device with this key is."""
        if self._kept is None:
            address = self._seen(public_key)
        else:
            address = self._stood(public_key)
        return None if address is None else (address, 0.0)

    def _seen(self, key: bytes) -> str | None:
        seen = self.control.presence(self.devices.get(key, ""))
        if seen is None or not seen.address or self.now() - seen.heard > ADDRESS_SECONDS:
            return None
        return seen.address

    def _stood(self, key: bytes) -> str | None:
        kept = (self._kept or {}).get(key)
        if kept is None or self.control.absence() > self.offline_limit:
            return None
        source = self._source(key)
        if source not in (None, kept.source, kept.address):
            # It has moved, and may be anywhere now: also when it comes back later.
            del (self._kept or {})[key]
            return None
        return kept.address

    def _source(self, key: bytes) -> str | None:
        found = self.underlay(key)
        return None if found is None else found[0]
