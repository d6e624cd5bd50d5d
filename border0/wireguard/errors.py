"""The error that remote WireGuard bytes may raise inside this room.

`Device` swallows it: the protocol answers unauthenticated bytes with silence.
"""

from border0.errors import ProtocolError as _ProtocolError


class ProtocolError(_ProtocolError):
    """A datagram is not a valid WireGuard message for us."""
