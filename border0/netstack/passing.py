"""Packets of this machine's own programs that are larger than the way to where they go.

Source: RFC 791 §2.3, §3.2 (fragments), RFC 1191 §4 and RFC 4443 §3.2 (too big), RFC 4443 §3.1 (code
3: a problem of the link), RFC 8200 §5 (every link of IPv6 carries 1,280 bytes), RFC 8201 §4 (and no
host sends smaller packets than that).

| packet | what happens |
|---|---|
| IPv4, "do not fragment" | Packet Too Big (fragmentation needed) with the size that fits |
| IPv4 else, TCP | cut into segments that fit |
| IPv4 else | fragmented |
| IPv6 over a way of at least 1,280 | Packet Too Big with the size that fits |
| IPv6 over less, larger than 1,280 | Packet Too Big with 1,280 |
| IPv6 over less, TCP | cut into segments that fit |
| IPv6 over less | destination unreachable, code 3 |

Linux goes below 552 bytes of IPv4 by clearing "do not fragment", and never below 1,280 of IPv6: so
segments are cut here, for connections that are older than the small way; newer ones are told by
`clamp`. SYN, RST and what is malformed is never cut. Does not limit the rate of answers.
"""

from border0.netstack import icmp, ip
from border0.netstack.checksum import complement, pseudo, residue
from border0.netstack.errors import ProtocolError
from border0.netstack.pathmtu import LEAST, LEAST_IPV6

_FIN, _SYN, _RST, _PSH, _URG, _CWR = 0x01, 0x02, 0x04, 0x08, 0x20, 0x80
_DO_NOT, _MORE = 0x4000, 0x2000


def pieces(packet: bytes, mtu: int) -> list[bytes]:
    """Return a whole packet's parts of at most `mtu` (at least 296) bytes; empty: `refusal`."""
    size, mtu = len(packet), max(mtu, LEAST)
    if size <= mtu:
        return [packet]
    version = packet[0] >> 4
    if version == 4:
        start = (packet[0] & 15) << 2
        field = (packet[6] << 8) | packet[7]
        if start < 20 or size != (packet[2] << 8) | packet[3] or field & _DO_NOT:
            return []
        if packet[9] == ip.TCP and not field & 0x3FFF:
            return _segments(packet, start, mtu) or _fragments(packet, start, field, mtu)
        return _fragments(packet, start, field, mtu)
    if version != 6 or size > LEAST_IPV6 or mtu >= LEAST_IPV6 or packet[6] != ip.TCP:
        return []
    if size != 40 + ((packet[4] << 8) | packet[5]):
        return []
    return _segments(packet, 40, mtu)


def refusal(packet: bytes, mtu: int) -> bytes | None:
    """Return the ICMP packet that tells the sender why `pieces` had none (None: no answer is due).

    It comes from where the packet went: what a route of this machine covers.
    """
    try:
        datagram = ip.parse(packet, False)
    except ProtocolError:
        return None
    mtu = max(mtu, LEAST if len(datagram.source) == 4 else LEAST_IPV6)
    if len(datagram.packet) > mtu:
        return _answer(datagram, icmp.too_big(datagram, mtu))
    return _answer(datagram, icmp.error(datagram, icmp.LINK))


def prohibited(packet: bytes) -> bytes | None:
    """Return the ICMP packet for one that nothing takes (None: no answer is due)."""
    try:
        datagram = ip.parse(packet, False)
    except ProtocolError:
        return None
    return _answer(datagram, icmp.error(datagram, icmp.PROHIBITED))


def _answer(datagram: ip.Datagram, body: bytes | None) -> bytes | None:
    if body is None or (datagram.fragment is not None and datagram.fragment[1]):
        return None  # only the first fragment is answered (RFC 1122 §3.2.2)
    protocol = ip.ICMP if len(datagram.source) == 4 else ip.ICMPV6
    return ip.header(datagram.destination, datagram.source, protocol, len(body)) + body


def _segments(packet: bytes, start: int, mtu: int) -> list[bytes]:
    """Cut a TCP segment as a network card would: numbers go on, the last one has FIN and PSH."""
    size = len(packet)
    if size < start + 20:
        return []
    head = start + ((packet[start + 12] >> 4) << 2)
    flags = packet[start + 13]
    step = mtu - head
    if head < start + 20 or head >= size or step < 8 or flags & (_SYN | _RST):
        return []
    plain = bytearray(packet[:head])
    plain[start + 16 : start + 18] = b"\0\0"
    addresses = packet[12:20] if packet[0] >> 4 == 4 else packet[8:40]
    base = pseudo(addresses, b"", ip.TCP) - start
    sequence = int.from_bytes(packet[start + 4 : start + 8], "big")
    urgent = (packet[start + 18] << 8) | packet[start + 19]
    found = []
    for number, at in enumerate(range(head, size, step)):
        part = packet[at : at + step]
        now = flags
        if at + step < size:
            now &= ~(_FIN | _PSH)
        if number:
            now &= ~_CWR
        left = urgent - (at - head)
        if now & _URG and left <= 0:
            now &= ~_URG
        plain[start + 4 : start + 8] = ((sequence + at - head) & 0xFFFFFFFF).to_bytes(4, "big")
        plain[start + 13] = now
        plain[start + 18 : start + 20] = (left if now & _URG else 0).to_bytes(2, "big")
        _lengths(plain, start, len(part), number)
        total = base + head + len(part) + residue(bytes(plain[start:])) + residue(part)
        done = plain[: start + 16] + complement(total).to_bytes(2, "big") + plain[start + 18 :]
        found.append(bytes(done) + part)
    return found


def _lengths(plain: bytearray, start: int, payload: int, number: int) -> None:
    """Set what the IP header says of a packet whose headers are `plain`, the `number`th of many."""
    if plain[0] >> 4 == 6:
        plain[4:6] = (len(plain) - 40 + payload).to_bytes(2, "big")
        return
    plain[2:4] = (len(plain) + payload).to_bytes(2, "big")
    if number:
        ident = ((plain[4] << 8) | plain[5]) + 1
        plain[4:6] = (ident & 0xFFFF).to_bytes(2, "big")
    plain[10:12] = b"\0\0"
    plain[10:12] = complement(residue(bytes(plain[:start]))).to_bytes(2, "big")


def _fragments(packet: bytes, start: int, field: int, mtu: int) -> list[bytes]:
    """Cut an IPv4 packet, itself a fragment perhaps; each part has its header, options too."""
    if ((field & 0x1FFF) << 3) + len(packet) - start > 65535:
        return []
    step = (mtu - start) & ~7
    plain = bytearray(packet[:start])
    found = []
    for at in range(start, len(packet), step):
        part = packet[at : at + step]
        more = field & _MORE if at + step >= len(packet) else _MORE
        plain[6:8] = ((field & 0x1FFF) + ((at - start) >> 3) | more).to_bytes(2, "big")
        _lengths(plain, start, len(part), 0)
        found.append(bytes(plain) + part)
    return found
