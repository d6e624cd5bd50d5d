"""PostgreSQL's messages by hand, for what no driver would send.

Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import socket
import struct

SSL_REQUEST = struct.pack("!II", 8, 80877103)


def startup(user: str = "stranger", database: str = "shop", **more: str) -> bytes:
    """Return a StartupMessage of protocol 3.0."""
    words = {"user": user, "database": database, **more}
    body = b"".join(f"{key}\0{value}\0".encode() for key, value in words.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, 196608) + body


def message(kind: bytes, body: bytes) -> bytes:
    """Return one typed message."""
    return kind + struct.pack("!I", len(body) + 4) + body


def query(sql: bytes) -> bytes:
    """Return a simple Query; the terminating NUL is added."""
    return message(b"Q", sql + b"\0")


def read_exactly(stream: socket.socket, size: int) -> bytes:
    """Read so many bytes; EOFError when the stream ends before."""
    data = b""
    while len(data) < size:
        block = stream.recv(size - len(data))
        if not block:
            raise EOFError
        data += block
    return data


def read_message(stream: socket.socket) -> tuple[bytes, bytes]:
    """Read one message: its type and body."""
    kind = read_exactly(stream, 1)
    (size,) = struct.unpack("!I", read_exactly(stream, 4))
    return kind, read_exactly(stream, size - 4)


def until_ready(stream: socket.socket) -> list[tuple[bytes, bytes]]:
    """Read up to and with ReadyForQuery, or up to the end of the stream."""
    messages: list[tuple[bytes, bytes]] = []
    while not messages or messages[-1][0] != b"Z":
        try:
            messages.append(read_message(stream))
        except (EOFError, ConnectionResetError):
            break
    return messages


def read_to_end(stream: socket.socket) -> bytes:
    """Read until the other side has closed, by FIN or RST."""
    data = b""
    try:
        while block := stream.recv(65536):
            data += block
    except ConnectionResetError:
        pass
    return data


def fields(body: bytes) -> dict[str, str]:
    """Return the fields of an ErrorResponse by their letters."""
    return {part[:1].decode(): part[1:].decode() for part in body.split(b"\0") if part}
