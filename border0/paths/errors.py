"""The error that remote bytes may raise inside this room.

The machines swallow it: bytes that nobody vouched for are answered with silence.
"""

from border0.errors import ProtocolError as _ProtocolError


class ProtocolError(_ProtocolError):
    """A datagram or document is not what its protocol allows."""
