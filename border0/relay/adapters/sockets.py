"""What the relay asks of the kernel for its TCP connections.

Source: tcp(7) TCP_NODELAY, TCP_USER_TIMEOUT; Linux's TCP_NOTSENT_LOWAT (a socket counts as full
while that much of it was never sent: what waits, waits where queues are fair). Elsewhere what the
system does not know is left out.
"""

import socket
from typing import Any

NOTSENT_LOWAT = 32 * 1024
USER_TIMEOUT = 15_000  # ms without an acknowledgement for what was sent

_TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)


def tune(transport: Any) -> None:
    """Set the options of the connection that a (TLS) transport of Twisted goes over."""
    found = socket_of(transport)
    if found is None or found.family not in (socket.AF_INET, socket.AF_INET6):
        return
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_LOWAT),
        (socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, USER_TIMEOUT),
    ):
        if option is None:
            continue
        try:
            found.setsockopt(level, option, value)
        except OSError:
            continue  # gone already, or a system that has the name only


def socket_of(transport: Any) -> socket.socket | None:
    """The socket below a transport, however many layers of TLS and proxies lie between."""
    for _ in range(8):
        found = getattr(transport, "socket", None)
        if isinstance(found, socket.socket):
            return found
        transport = getattr(transport, "transport", None)
    return None
