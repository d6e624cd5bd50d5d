"""The error of this room."""

from border0.errors import ProtocolError


class TrustError(ProtocolError):
    """A server did not show what it must show; nothing was sent to it."""
