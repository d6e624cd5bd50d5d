"""The client of dataplane.py: ``python -m bench.load ADDRESS PORT MODE SECONDS`` prints JSON.

Modes: up and down (bytes, seconds), pingpong (median in microseconds of one byte there and back),
connections (connect, one byte there and back, close: how many in a second).
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time


def connect(address: str, port: int) -> socket.socket:
    """Open a connection without Nagle's delay."""
    stream = socket.create_connection((address, port), timeout=15)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


def up(address: str, port: int, seconds: float) -> dict[str, float]:
    """Send; the sink tells how much arrived, so nothing in a queue is counted."""
    block = bytes(256 * 1024)
    with connect(address, port) as stream:
        started = time.perf_counter()
        while time.perf_counter() < started + seconds:
            stream.sendall(block)
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        while data := stream.recv(100):
            answer += data
        return {"bytes": int(answer), "seconds": time.perf_counter() - started}


def down(address: str, port: int, seconds: float) -> dict[str, float]:
    """Receive."""
    buffer, total = bytearray(1 << 20), 0
    with connect(address, port + 1) as stream:
        started = time.perf_counter()
        while (now := time.perf_counter()) < started + seconds:
            size = stream.recv_into(buffer)
            if not size:
                raise EOFError("the source has ended")
            total += size
        return {"bytes": total, "seconds": now - started}


def pingpong(address: str, port: int, seconds: float) -> dict[str, float]:
    """Send one byte, wait for it."""
    times = []
    with connect(address, port + 2) as stream:
        end = time.perf_counter() + seconds
        while (started := time.perf_counter()) < end:
            stream.sendall(b"x")
            stream.recv(16)
            times.append(time.perf_counter() - started)
    return {"median_us": statistics.median(times) * 1e6}


def connections(address: str, port: int, seconds: float) -> dict[str, float]:
    """Connect, ask, close."""
    count, started = 0, time.perf_counter()
    while time.perf_counter() < started + seconds:
        with connect(address, port + 2) as stream:
            stream.sendall(b"x")
            stream.recv(16)
        count += 1
    return {"per_second": count / (time.perf_counter() - started)}


MODES = {"up": up, "down": down, "pingpong": pingpong, "connections": connections}

if __name__ == "__main__":
    print(json.dumps(MODES[sys.argv[3]](sys.argv[1], int(sys.argv[2]), float(sys.argv[4]))))
