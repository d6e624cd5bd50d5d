"""One connection to a relay, from the opened WebSocket to its end.

Does not: dial, or know what comes after it (`link`).
"""

from typing import TYPE_CHECKING

from border0.relay import codes, frames
from border0.relay.adapters.transport import CLOSED, RelayTransport
from border0.relay.login import ClientLogin

if TYPE_CHECKING:
    from border0.relay.adapters.link import RelayLink


class Line:
    """One connection of a link: its login, and then its messages."""

    def __init__(self, link: "RelayLink", transport: RelayTransport) -> None:
        self._link, self.transport = link, transport
        self.login: ClientLogin | None = None
        self._code, self._why = 0, ""
        link.reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        """Log in, when the transport is ready to be used."""
        link, transport = self._link, self.transport
        if not link.holds(self):
            return
        if link.needs_exporter() and transport.exporter() is None:
            self.end(codes.BINDING, "this TLS connection cannot be bound to: it is not TLS 1.3")
            return
        try:
            self.login = link.begin(transport)
        except ValueError as error:  # what the map says of this relay cannot be
            self.end(codes.WRONG_RELAY, str(error))
            return
        for message in self.login.start():
            transport.send(message)
        link.schedule()

    def received(self, message: bytes) -> None:
        """A message of the relay."""
        login = self.login
        if login is None:
            return
        if login.done is not None:
            self._link.message(message)
            return
        for answer in login.receive(message):
            self.transport.send(answer)
        self._judge(login)

    def expire(self, now: float) -> None:
        """Time passes."""
        if self.login is not None and self.login.done is None:
            for answer in self.login.expire(now):
                self.transport.send(answer)
            self._judge(self.login)

    def _judge(self, login: ClientLogin) -> None:
        if login.failed is not None:
            self.end(login.failed.code, login.failed.text, told=True)
        elif login.done is not None:
            self.transport.admitted()
            self._link.admitted(self, login.done)

    def end(self, code: int, why: str, *, told: bool = False) -> None:
        """Close it; `told`: the other end knows why."""
        self._code, self._why = code, why
        if not told:
            self.transport.send(frames.close_record(code, why))
        self.transport.close(CLOSED + code, why)

    def paused(self) -> None:
        """The connection takes no more."""
        self._link.writable(False)

    def writable(self) -> None:
        """It takes messages again."""
        self._link.writable(True)

    def lost(self, why: str) -> None:
        """It is gone."""
        self._link.lost(self, self._code, said(self._code, self._why) if self._code else why)


def said(code: int, text: str) -> str:
    """A reason of either end, for people."""
    word = codes.CLOSE_WORDS.get(code, str(code))
    return f"{word}: {text}" if text else word
