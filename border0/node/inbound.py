"""Which packets from the tunnel this machine's own programs may see.

Source: RFC 9293 §3.1 (flags), RFC 792, RFC 4443. Services are TCP: what comes from them are answers
of connections that were made here, and ICMP about these. A connector (or whoever took one over) can
therefore not open a connection to a program that listens on this machine, nor send it datagrams.

IPv4: version and header length at 0, fragment at 6, protocol at 9, destination at 16. IPv6: next
header at 6, destination at 24, payload at 40. TCP flags at 13 of its header. Fragments, IPv6
extension headers and everything else are no part of this and are dropped.
"""

from collections.abc import Callable, Container

from border0.netstack.clamp import clamp

_TCP, _ICMP, _ICMPV6 = 6, 1, 58
_SYN, _ACK = 0x02, 0x10
# echo reply, unreachable, time exceeded, parameter problem
_ICMP_KINDS = frozenset((0, 3, 11, 12))
# unreachable, too big, time exceeded, parameter problem, echo reply
_ICMPV6_KINDS = frozenset((1, 2, 3, 4, 129))


def admit(
    packets: list[bytes],
    local: Container[bytes],
    path_mtu: Callable[[bytes], int] | None = None,
) -> list[bytes]:
    """Those that may go to this machine's programs; `local` has its packed addresses.

    A SYN-ACK offers no more than fits the way back to where it comes from (`path_mtu`, bytes).
    """
    found = []
    for packet in packets:
        size = len(packet)
        if size < 28:
            continue
        version = packet[0] >> 4
        if version == 4:
            start = (packet[0] & 15) << 2
            if start < 20 or (packet[6] & 0x3F) or packet[7] or packet[16:20] not in local:
                continue
            protocol = packet[9]
        elif version == 6:
            if size < 48 or packet[24:40] not in local:
                continue
            start, protocol = 40, packet[6]
        else:
            continue
        if protocol == _TCP:
            if size < start + 20:
                continue
            flags = packet[start + 13] & (_SYN | _ACK)
            if flags == _SYN | _ACK and path_mtu is not None:
                source = packet[12:16] if version == 4 else packet[8:24]
                packet = clamp(packet, path_mtu(source))
            if flags != _SYN:
                found.append(packet)
        elif protocol == _ICMP:
            if version == 4 and size >= start + 8 and packet[start] in _ICMP_KINDS:
                found.append(packet)
        elif protocol == _ICMPV6 and version == 6 and packet[start] in _ICMPV6_KINDS:
            found.append(packet)
    return found
