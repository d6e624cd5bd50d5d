"""The TCP ports of the control plane.

Where the system lets `[::]` take IPv4 too, `0.0.0.0` at the same port is there already.
"""

import socket
from collections.abc import Iterable
from typing import Any

from twisted.internet import tcp

from border0.control.tlsport import with_tls


def listen(
    reactor: Any,
    places: Iterable[tuple[str, int]],
    site: Any,
    tls: Any = None,
    backlog: int = 50,
    kind: type[tcp.Port] | None = None,
) -> list[Any]:
    """Listen at every address and port; raises CannotListenError, and then listens at none.

    :param tls: None is without TLS.
    :param backlog: connections that wait in the kernel to be accepted.
    :param kind: of port, None is the reactor's own.
    """
    ports: list[Any] = []
    both: set[int] = set()
    try:
        for host, port in sorted(places, key=lambda place: place[0] != "::"):
            if host == "0.0.0.0" and port in both:
                continue
            factory = site if tls is None else with_tls(tls, site)
            if kind is None:
                ports.append(reactor.listenTCP(port, factory, backlog, host))
            else:
                made = kind(port, factory, backlog, host, reactor)
                made.startListening()
                ports.append(made)
            if host == "::" and not _only_6(ports[-1]):
                both.add(port)
    except BaseException:
        for each in ports:
            each.stopListening()
        raise
    return ports


def _only_6(port: Any) -> bool:
    return bool(port.socket.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
