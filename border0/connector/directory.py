"""Who sits at an inner address: the devices of the file, by the addresses that WireGuard enforces.

A packet only reaches the stack when its source address is one of its peer's allowed IPs, so the
inner address is the identity. This module does not know WireGuard.
"""

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_interface

from border0.connector.config import DeviceEntry
from border0.policy.model import Subject


class Directory:
    """Looks devices up by address and by public key."""

    def __init__(self, devices: Iterable[DeviceEntry]) -> None:
        self.by_key: dict[bytes, DeviceEntry] = {}
        self._by_address: dict[bytes, DeviceEntry] = {}
        for device in devices:
            self.by_key[device.public_key] = device
            for text in device.addresses:
                self._by_address[_packed(text)] = device

    def at(self, host: str) -> DeviceEntry | None:
        """The device whose inner address is `host`, or None."""
        try:
            return self._by_address.get(ip_address(host).packed)
        except ValueError:
            return None


@lru_cache(maxsize=65536)
def _packed(text: str) -> bytes:
    """The address in CIDR text; a directory is made anew with each change of one device."""
    return ip_interface(text).ip.packed


def subject_of(device: DeviceEntry) -> Subject:
    """The device's owner as the policy sees it."""
    return Subject(
        user=device.user,
        groups=device.groups,
        service_account=device.service_account,
        device=device.name,
    )
