"""One TCP connection through the connector, whose bytes are compared on both sides."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time


class Echo:
    """The upstream of a ``tls`` socket: sends back what it gets, until the client's half-close."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._echo, args=(stream,), daemon=True).start()

    @staticmethod
    def _echo(stream: socket.socket) -> None:
        with stream:
            try:
                while block := stream.recv(65536):
                    stream.sendall(block)
            except OSError:
                pass

    def close(self) -> None:
        """Stop accepting."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()


def round_trip(stream: socket.socket, size: int, seconds: float = 0.0) -> bool:
    """Send ``size`` bytes and read them back; spread over ``seconds``. True when they are equal."""
    data = random.Random(size).randbytes(min(size, 1 << 20))
    blocks = [data[start : start + 16384] for start in range(0, len(data), 16384)]
    sent, received = hashlib.sha256(), hashlib.sha256()
    failures: list[BaseException] = []

    def write() -> None:
        done, number, started = 0, 0, time.monotonic()
        try:
            while done < size:
                block = blocks[number % len(blocks)][: size - done]
                stream.sendall(block)
                sent.update(block)
                done += len(block)
                number += 1
                if seconds:
                    time.sleep(max(0.0, started + seconds * done / size - time.monotonic()))
            stream.shutdown(socket.SHUT_WR)
        except OSError as error:
            failures.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    total = 0
    while block := stream.recv(65536):
        received.update(block)
        total += len(block)
    writer.join(10)
    if failures:
        raise failures[0]
    return total == size and sent.digest() == received.digest()
