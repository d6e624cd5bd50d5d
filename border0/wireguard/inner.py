"""Inner IP packets: whose they are, and cutting off the padding.

Source: RFC 791 §3.1 (version 0, total length 2..3, source 12..15, destination 16..19);
RFC 8200 §3 (version 0, payload length 4..5, source 8..23, destination 24..39);
WireGuard paper §5.4.6 (padding).
Does not: check anything else about a packet; the network stack does.
"""

import struct
from collections.abc import Callable, Hashable
from typing import TypeVar

Owner = TypeVar("Owner", bound=Hashable)

_ipv4 = struct.Struct(">BxH8x4s").unpack_from
_ipv6 = struct.Struct(">4xH2x16s").unpack_from
_IPV4_HEADER = 20
_IPV6_HEADER = 40


def accept(
    packets: list[bytes],
    owner: object,
    owner_of: Callable[[bytes], object | None],
    accepted: list[bytes],
) -> None:
    """Append to `accepted` the packets whose source belongs to `owner`, cut to their IP length.

    Empty packets (keepalives), malformed headers, lengths beyond the packet and foreign sources
    are dropped.
    """
    append = accepted.append
    known = b""
    for packet in packets:
        size = len(packet)
        if size < _IPV4_HEADER:
            continue
        version, length, source = _ipv4(packet)
        if version >> 4 == 4:
            if length < _IPV4_HEADER:
                continue
        elif version >> 4 == 6 and size >= _IPV6_HEADER:
            length, source = _ipv6(packet)
            length += _IPV6_HEADER
        else:
            continue
        if source != known:
            if owner_of(source) is not owner:
                continue
            known = source
        if length != size:
            if length > size:
                continue
            packet = packet[:length]
        append(packet)


def route(
    packets: list[bytes],
    owner_of: Callable[[bytes], Owner | None],
    routed: dict[Owner, list[bytes]],
    unrouted: list[bytes],
) -> None:
    """Group packets by the owner of their destination, keeping the order of each owner's.

    What has no owner, or is no IP packet (too short to hold a destination), is unrouted.
    """
    known = b""
    append = unrouted.append
    for packet in packets:
        version = packet[0] >> 4 if packet else 0
        if version == 4:
            address = packet[16:20]
        elif version == 6:
            address = packet[24:40]
        else:
            address = b""
        if address != known:
            known = address
            owner = owner_of(address)
            append = unrouted.append if owner is None else routed.setdefault(owner, []).append
        append(packet)
