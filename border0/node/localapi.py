"""How programs of one user talk to the process that owns the device key: `client.sock`.

Source: ours. Each connection begins with one JSON line from the program and one from the agent.

| request | answer, then |
|---|---|
| {"ride": true, "config"} | {"ok", "rider", "pid"}, then lines: events to the rider, aborts back |
| {"connect": name, "port", "rider"} | {"ok", "stream"}, then the raw bytes of one TCP connection |
| the same with "outlives": true | the same, and the stream does not end with its rider |
| {"stop": true} | {"ok", "pid"}, then nothing until the agent's process has ended |

Events are {"stream", "event": "eof" | "closed" | "lost", "error"}: the end of a stream alone would
not tell a service that has said everything from an agent that was killed. {"abort": stream} ends
one. A refusal is {"ok": false, "error", "kind": "name" | "tunnel" | "service" | "config"}.

Here are the blocking half and the address; `agent` and `rides` are the Twisted halves. Windows has
no Unix sockets for Python: there the file names a loopback port and a token that each request has.
"""

import json
import os
import secrets
import select
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from border0 import privatefile
from border0.errors import Border0Error

MAXIMUM_LINE = 16384
ANSWER_SECONDS = 40.0
NEWS_SECONDS = 0.5
AGENT_ENDED = "the process that held the tunnel ended; try again"
UNIX = sys.platform != "win32"


class TunnelError(Border0Error):
    """The tunnel, the agent or the service failed; `kind` is the refusal's."""

    def __init__(self, message: str, kind: str = "tunnel") -> None:
        super().__init__(message)
        self.kind = kind


class UnknownName(Border0Error):
    """A name, address or port that leads nowhere; its text says what to type instead."""


class Superseded(Border0Error):
    """The agent's membership is another now: it leaves, and whoever asked starts a new one."""


class NoAgent(Border0Error):
    """Nobody serves the local socket (any more)."""


def split_port(text: str) -> tuple[str, int | None]:
    """NAME[:PORT] or [IPv6]:PORT as name and port; UnknownName for a bad port."""
    if text.startswith("["):
        name, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UnknownName(f"{text!r}: write [IPv6 ADDRESS]:PORT")
        number = rest[1:]
    elif text.count(":") == 1:
        name, _, number = text.partition(":")
    else:
        return text, None  # a name, or a bare IPv6 address
    if not number and not text.endswith(":"):
        return name, None
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise UnknownName(f"{text!r}: {number!r} is not a port")
    return name, int(number)


def encode(message: dict[str, Any]) -> bytes:
    """One line of the protocol."""
    return json.dumps(message).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """The object of a line; ValueError when it is none."""
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def refusal(message: dict[str, Any]) -> TunnelError:
    """The error that a refusing answer describes."""
    return TunnelError(str(message.get("error", "refused")), str(message.get("kind", "tunnel")))


class LocalAddress:
    """Where the agent of a home is reached; `unix` is False for the loopback form."""

    # What somebody does whom it keeps out.
    advice = "choose --home DIR"

    def __init__(self, home: Path, unix: bool = UNIX, name: str = "client.sock") -> None:
        self.path = home / name
        self.unix = unix

    def check(self) -> None:
        """Border0Error when the path cannot be a socket's."""
        limit = 103 if sys.platform == "darwin" else 107
        if self.unix and len(os.fsencode(self.path)) > limit:
            raise Border0Error(
                f"{self.path}: longer than the {limit} bytes that a local socket's path may have; "
                "choose a shorter folder with --home DIR"
            )

    def read(self) -> tuple[int, str]:
        """The loopback form's port and token; NoAgent when there is none."""
        try:
            port, token = self.path.read_text("ascii").split()
            return int(port), token
        except (OSError, ValueError):
            raise NoAgent("no agent runs") from None

    def write(self, port: int) -> str:
        """Publish the loopback form, readable by this user only; returns the token."""
        token = secrets.token_hex(16)
        privatefile.replace(self.path, f"{port} {token}\n".encode("ascii"))
        return token

    def token(self) -> dict[str, str]:
        """What every request must carry."""
        return {} if self.unix else {"token": self.read()[1]}

    def connect(self) -> socket.socket:
        """A blocking connection to the agent; NoAgent when nobody answers."""
        try:
            if self.unix:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                made.settimeout(ANSWER_SECONDS)
                try:
                    made.connect(str(self.path))
                except OSError:
                    made.close()
                    raise
                return made
            return socket.create_connection(("127.0.0.1", self.read()[0]), ANSWER_SECONDS)
        except PermissionError:
            raise Border0Error(f"{self.path} belongs to another user; {self.advice}") from None
        except OSError:
            raise NoAgent("no agent runs") from None


class Lines:
    """Reads lines, and nothing behind them, from a blocking socket."""

    def __init__(self, source: socket.socket) -> None:
        self.source = source
        self._buffer = b""

    def pending(self) -> bool:
        """Whether `next` would answer without reading."""
        return b"\n" in self._buffer

    def next(self) -> dict[str, Any] | None:
        """The next object, None at the end; NoAgent when the other side broke off or babbles."""
        while b"\n" not in self._buffer:
            try:
                data = self.source.recv(4096)
            except OSError as error:
                raise NoAgent(f"the agent does not answer: {error}") from None
            if not data:
                return None
            self._buffer += data
            if len(self._buffer) > 2 * MAXIMUM_LINE:
                raise NoAgent("the agent sends nonsense")
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            return decode(line)
        except ValueError:
            raise NoAgent("the agent sends nonsense") from None


def _read_answer(source: socket.socket) -> dict[str, Any]:
    # Byte by byte: what follows the answer is the stream's and stays in the socket.
    line = b""
    while not line.endswith(b"\n"):
        byte = source.recv(1)
        if not byte or len(line) > MAXIMUM_LINE:
            raise OSError("no answer")
        line += byte
    return decode(line)


def ask(address: LocalAddress, request: dict[str, Any]) -> tuple[socket.socket, dict[str, Any]]:
    """Connect, ask, and return the socket (without a timeout) with the answer that is ok.

    :raises NoAgent: nobody answered; nothing has happened. TunnelError: the agent refused.
    """
    made = address.connect()
    try:
        made.sendall(encode(request | address.token()))
        answer = _read_answer(made)
    except (OSError, ValueError):
        made.close()
        raise NoAgent("the agent went away") from None
    if not answer.get("ok"):
        made.close()
        raise refusal(answer)
    made.settimeout(None)
    return made, answer


class Ride:
    """A program's standing connection to the agent; blocking."""

    def __init__(self, address: LocalAddress, config: Path) -> None:
        self.address = address
        self.control, answer = ask(address, {"ride": True, "config": str(config)})
        self.rider = answer["rider"]
        self.pid = int(answer["pid"])
        self.lines = Lines(self.control)

    def open(
        self, name: str, port: int | None, outlives: bool = False
    ) -> tuple[socket.socket, int]:
        """One TCP connection through the tunnel and its number; NoAgent, TunnelError.

        :param outlives: the connection goes on when this ride has ended.
        """
        request = {"connect": name, "port": port, "rider": self.rider, "outlives": outlives}
        made, answer = ask(self.address, request)
        return made, int(answer["stream"])

    def bad_news(self, stream: int) -> str:
        """Why a stream that has just ended broke, "" when nobody says so.

        What the agent had to say came before the end; only its own death may be seen a moment
        later, and is waited for.
        """
        deadline = time.monotonic() + NEWS_SECONDS
        while True:
            patience = max(0.0, deadline - time.monotonic())
            if not self.lines.pending() and not select.select([self.control], [], [], patience)[0]:
                return ""
            try:
                message = self.lines.next()
            except NoAgent:
                message = None
            if message is None:
                return AGENT_ENDED
            if message.get("stream") == stream and message.get("event") == "lost":
                return str(message.get("error", ""))

    def event(self, stream: int) -> str:
        """Wait for a stream's next event, "eof" or "closed".

        :raises TunnelError: it was lost, or the agent died.
        """
        while True:
            try:
                message = self.lines.next()
            except NoAgent:
                message = None
            if message is None:
                raise TunnelError(AGENT_ENDED)
            if message.get("stream") != stream:
                continue
            if message.get("event") == "lost":
                raise TunnelError(str(message.get("error", "")))
            return str(message.get("event"))


def await_end(connection: socket.socket, answer: Mapping[str, Any], seconds: float) -> int:
    """Wait until a process that was told to stop has ended; its process id.

    :param answer: what it answered to that, on this connection, which its end closes.
    :raises TunnelError: it takes longer than so many seconds.
    """
    with connection:
        connection.settimeout(seconds)
        try:
            while connection.recv(4096):
                pass
        except TimeoutError:
            raise TunnelError(f"process {answer.get('pid')} does not end") from None
        except OSError:
            pass
    return int(answer["pid"])
