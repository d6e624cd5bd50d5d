"""The error family of the DNS room."""

from border0 import errors


class ProtocolError(errors.ProtocolError):
    """Bytes that are no DNS query, or not even enough of one to be answered."""
