"""The TCP ports of the control plane.

Where the system lets `[::]` take IPv4 too, `0.0.0.0` at the same port is there already.
"""

import socket
from collections.abc import Iterable
from typing import Any

from border0.control.tlsport import listen_tls


def listen(
    reactor: Any, places: Iterable[tuple[str, int]], site: Any, tls: Any = None, backlog: int = 50
) -> list[Any]:
    """Listen at every address and port; raises CannotListenError, and then listens at none.

    :param tls: None is without TLS.
    :param backlog: connections that wait in the kernel to be accepted.
    """
    ports: list[Any] = []
    both: set[int] = set()
    try:
        for host, port in sorted(places, key=lambda place: place[0] != "::"):
            if host == "0.0.0.0" and port in both:
                continue
            if tls is None:
                ports.append(reactor.listenTCP(port, site, backlog, host))
            else:
                ports.append(listen_tls(reactor, port, site, tls, backlog, host))
            if host == "::" and not _only_6(ports[-1]):
                both.add(port)
    except BaseException:
        for each in ports:
            each.stopListening()
        raise
    return ports


def _only_6(port: Any) -> bool:
    return bool(port.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
