"""The error family of the network stack."""

from border0 import errors


class ProtocolError(errors.ProtocolError):
    """A packet is malformed; the stack drops it and counts it, no connection is harmed."""
