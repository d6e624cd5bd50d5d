"""The error that remote bytes may raise inside this room.

`Prober` swallows it: nothing unauthenticated is answered, and a peer's nonsense changes nothing.
"""

from border0.errors import ProtocolError as _ProtocolError


class ProtocolError(_ProtocolError):
    """A probe, a path key or a candidate list is not one."""
