"""The one exception that remote garbage raises in this package."""

from border0.errors import ProtocolError as _ProtocolError


class ProtocolError(_ProtocolError):
    """A peer broke the SSH protocol; its connection cannot go on."""
