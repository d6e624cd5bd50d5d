"""The error that remote bytes may raise inside this room.

The machines turn it into a CLOSE record with its code; nothing of it reaches the adapters.
"""

from border0.errors import ProtocolError as _ProtocolError
from border0.relay import codes


class ProtocolError(_ProtocolError):
    """A message is not what the protocol allows; `code` is the one that CLOSE will carry."""

    def __init__(self, text: str, code: int = codes.MALFORMED) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
