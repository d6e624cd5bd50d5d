"""NAT-PMP for emulated gateways: they answer at any address inside.

Source: RFC 6886 §3.2, §3.3. Mappings last until they are deleted or the gateway is flushed.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from tests.lab.packets import TCP, UDP, Flow, ipv4

if TYPE_CHECKING:
    from tests.lab.nat import Nat


def answer(nat: Nat, packet: bytearray, flow: Flow, now: float) -> None:
    """Answer a request to port 5351; silence for what is none (PCP too)."""
    request = bytes(packet[flow.offset + 8 :])
    epoch = int(now)
    if len(request) < 2 or request[0] or nat.ext is None:
        return
    if request[1] == 0:
        body = struct.pack("!BBHI4s", 0, 128, 0, epoch, nat.ext)
    elif request[1] in (1, 2) and len(request) >= 12:
        inside_port, wanted, lifetime = struct.unpack("!HHI", request[4:12])
        protocol = UDP if request[1] == 1 else TCP
        port = nat.map_port(protocol, flow.source, inside_port, wanted)
        body = struct.pack("!BBHIHHI", 0, 128 + request[1], 0, epoch, inside_port, port, lifetime)
    else:
        return
    datagram = struct.pack("!HHHH", 5351, flow.source_port, 8 + len(body), 0) + body
    nat.inside[flow.source].send(ipv4(flow.destination, flow.source, UDP, datagram))
