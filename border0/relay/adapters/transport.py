"""Between the relay's protocol and what carries it: messages in order, and nothing about frames.

`RelayTransport` is what the wire gives, `Channel` what it wants of whoever uses it. Both ends of a
connection have the same two faces.

Does not: say what a message means (`relay.frames`).
"""

from typing import Protocol

from border0.relay import codes

CLOSING_SECONDS = 3.0  # for the answer to a close
CLOSED = codes.WEBSOCKET_STATUS


class RelayTransport(Protocol):
    """A connection that is open."""

    address: str  # of the other end, as far as it can be believed
    host: str  # server: what the client asked for; client: what it dialled. No port, lower case
    origin: str  # of the page that a browser's client runs in, else ""
    writable: bool  # False: messages given now wait in memory

    def exporter(self) -> bytes | None:
        """What only the two ends of this TLS connection know; None when there is none.

        Source: RFC 8446 §7.5, RFC 9266 §4.2 (not before TLS 1.3). It is of the connection that
        ends here: where a proxy ends TLS for us, it is the proxy's and not the client's.
        """

    def send(self, message: bytes) -> None:
        """Send one message; one that is closed loses it."""

    def admitted(self) -> None:
        """The login is done: longer messages are taken, and there is no hurry any more."""

    def pause(self) -> None:
        """Give no messages for now: none that is there already either."""

    def resume(self) -> None:
        """Give messages again, from the next turn of the reactor on."""

    def close(self, code: int, text: str) -> None:
        """End it after what was sent; `Channel.lost` follows."""

    def abort(self) -> None:
        """End it at once; `Channel.lost` follows."""


class Channel(Protocol):
    """Whoever uses a connection; nothing is told after `lost`."""

    def received(self, message: bytes) -> None:
        """One message came."""

    def paused(self) -> None:
        """The connection takes no more for now (`RelayTransport.writable`)."""

    def writable(self) -> None:
        """It takes messages again."""

    def lost(self, why: str) -> None:
        """It is gone."""
