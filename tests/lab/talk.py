"""Plain sockets in the hosts of an emulated network: say, hear, punch."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Any

from tests.support.namespaces import Namespace

Heard = tuple[Any, Any] | None
IP_TTL, OPENER_TTL = 2, 2
SO_RCVBUFFORCE = 33
# What arrives ends the wait at once; what does not costs this much. A busy machine is slow.
PATIENCE = 0.6


def udp(host: Namespace, address: str, port: int = 0) -> socket.socket:
    """A socket bound in a host, that does not block."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with host.inside():
        opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    opened.bind((address, port))
    opened.setblocking(False)
    return opened


def hear(sock: socket.socket, seconds: float = PATIENCE) -> Heard:
    """Return (data, address), (errno, None), or None when nothing came."""
    if not select.select([sock], [], [], seconds)[0]:
        return None
    try:
        return sock.recvfrom(65_536)
    except OSError as error:
        return error.errno, None


def drain(*socks: socket.socket) -> None:
    """Throw away what has come."""
    for sock in socks:
        while hear(sock, 0):
            pass


def seen_from(sock: socket.socket, server: socket.socket) -> Any:
    """Send until it arrives; return the address that the server sees."""
    for _ in range(6):
        sock.sendto(b"m", server.getsockname())
        got = hear(server, 0.5)
        if got and got[1]:
            return got[1]
    raise AssertionError("nothing passes")


def passes(sender: socket.socket, to: Any, receiver: socket.socket, data: bytes = b"x") -> bool:
    """Say whether a datagram arrives."""
    drain(receiver)
    try:
        sender.sendto(data, to)
    except OSError:
        return False
    got = hear(receiver)
    return got is not None and got[0] == data


def punch(
    a: socket.socket,
    b: socket.socket,
    server: socket.socket,
    *,
    stagger: float = 0.0,
    opener: bool = False,
    rounds: int = 20,
    pause: Callable[[float], object] = time.sleep,
) -> bool:
    """Let a and b, who know what the server sees of the other, send until both have heard.

    `stagger` in seconds is how much later b begins; `opener` sends one datagram with a low TTL
    from both first, and waits, so that each gateway knows its own flow before the other's comes.
    """
    to = {a: seen_from(b, server), b: seen_from(a, server)}
    if opener:
        for sock in (a, b):
            normal = sock.getsockopt(socket.IPPROTO_IP, IP_TTL)
            sock.setsockopt(socket.IPPROTO_IP, IP_TTL, OPENER_TTL)
            sock.sendto(b"open", to[sock])
            sock.setsockopt(socket.IPPROTO_IP, IP_TTL, normal)
        pause(0.05)
    heard: set[socket.socket] = set()
    for number in range(rounds):
        for sock in (a, b):
            try:
                sock.sendto(b"punch", to[sock])
            except OSError:
                pass  # an ICMP error for an earlier one
            if number == 0 and sock is a and stagger:
                pause(stagger)
        for sock in (a, b):
            got = hear(sock, 0.03)
            if got and got[1]:
                heard.add(sock)
                to[sock] = got[1]
        if len(heard) == 2:
            return True
    return False
