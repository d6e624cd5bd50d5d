"""One connection of the tunnel on standard input and output, as OpenSSH's ProxyCommand wants it.

Two blocking loops and no reactor: it starts fast, runs on every system, and a reader or writer
that stalls stalls the other side. Half-close passes both ways.
"""

import os
import select
import socket
import sys
import threading
from pathlib import Path

from border0.node.launch import connect
from border0.node.localapi import Ride

CHUNK = 256 * 1024


def run(home: Path, config: Path, name: str, port: int | None) -> None:
    """Pass bytes until both directions have ended; on a terminal until the service has.

    :raises Border0Error: there was no connection, or it broke. BrokenPipeError: nobody reads.
    """
    riding, stream, number = connect(home, config, name, port)
    ended, ending = socket.socketpair()
    threading.Thread(target=_upward, args=(stream, ending), daemon=True).start()
    event = _downward(riding, stream, number)
    # The reader of our output hears the end now, not when its own words have been taken.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)
    if sys.stdin is not None and sys.stdin.isatty():
        return
    if event == "eof":
        # Wait for the end of our input, or for news of the connection.
        if not riding.lines.pending():
            select.select([ended, riding.control], [], [])
        riding.event(number)


def _upward(stream: socket.socket, ending: socket.socket) -> None:
    try:
        while data := os.read(0, CHUNK):
            stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the connection ended; the other loop knows why
    finally:
        ending.close()


def _downward(riding: Ride, stream: socket.socket, number: int) -> str:
    while True:
        try:
            data = stream.recv(CHUNK)
        except OSError:
            data = b""
        if not data:
            break
        view = memoryview(data)
        while view:
            view = view[os.write(1, view) :]
    return riding.event(number)
