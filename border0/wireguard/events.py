"""What a Device tells its owner.

Does not: carry packets to deliver; those are the result of `Device.receive`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from border0.wireguard.peer import Peer


class Event:
    """Base of the events."""

    __slots__ = ()


class HandshakeCompleted(Event):
    """Both sides hold new keys and the remote has proved it.

    `initiator`: we began it. `unexpected`: the remote began it although the keys in use were
    young, so it has probably restarted and lost its connections.
    """

    __slots__ = ("initiator", "peer", "unexpected")

    def __init__(self, peer: Peer, initiator: bool, unexpected: bool = False) -> None:
        self.peer = peer
        self.initiator = initiator
        self.unexpected = unexpected


class EndpointChanged(Event):
    """The newest authenticated datagram of `peer` came from another endpoint."""

    __slots__ = ("peer",)

    def __init__(self, peer: Peer) -> None:
        self.peer = peer


class HandshakeGaveUp(Event):
    """No answer for 90 seconds; the packets that waited are dropped."""

    __slots__ = ("peer",)

    def __init__(self, peer: Peer) -> None:
        self.peer = peer


class NoPeer(Event):
    """Inner packets that no peer's allowed IPs cover, or whose peer has no endpoint yet."""

    __slots__ = ("packets",)

    def __init__(self, packets: list[bytes]) -> None:
        self.packets = packets
