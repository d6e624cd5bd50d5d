"""The server behind every contestant of dataplane.py: a sink, a source and an echo.

``python -m bench.endpoint ADDRESS PORT``: PORT swallows and answers with the number of bytes at the
client's half-close, PORT+1 sends until the client leaves, PORT+2 echoes.
"""

from __future__ import annotations

import socket
import sys
import threading

BLOCK = bytes(256 * 1024)


def sink(stream: socket.socket) -> None:
    """Count what comes."""
    buffer, total = bytearray(1 << 20), 0
    while size := stream.recv_into(buffer):
        total += size
    stream.sendall(b"%d\n" % total)


def source(stream: socket.socket) -> None:
    """Send for as long as somebody reads."""
    while True:
        stream.sendall(BLOCK)


def echo(stream: socket.socket) -> None:
    """Return what comes."""
    while data := stream.recv(65536):
        stream.sendall(data)


def serve(listener: socket.socket, conversation: object) -> None:
    """Run a conversation in a thread for each connection."""

    def run(stream: socket.socket) -> None:
        with stream:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                conversation(stream)  # type: ignore[operator]
            except OSError:
                pass

    while True:
        stream, _ = listener.accept()
        threading.Thread(target=run, args=(stream,), daemon=True).start()


def main() -> None:
    """Listen on three ports until killed."""
    address, port = sys.argv[1], int(sys.argv[2])
    for offset, conversation in enumerate((sink, source, echo)):
        listener = socket.create_server((address, port + offset), backlog=512)
        threading.Thread(target=serve, args=(listener, conversation), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
