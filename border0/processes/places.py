"""Where a connector may be, as our UDP socket takes it: addresses at once, names looked up."""

import socket
from ipaddress import ip_address
from typing import Any

from twisted.internet.threads import deferToThread

from border0.node.config import ConnectorEntry
from border0.node.localapi import TunnelError
from border0.wireguard.adapters.udp import BatchPort


def places(port: BatchPort, endpoints: list[tuple[str, int]]) -> list[Any]:
    """Those numeric endpoints that a socket of this family has a way to."""
    found = []
    for host, number in endpoints:
        try:
            found.append(port.endpoint(host, number))
        except ValueError:
            continue  # of a family that this machine does not have
    return found


async def locate(port: BatchPort, connector: ConnectorEntry) -> list[Any]:
    """A connector's endpoints as the socket takes them, at least one; raises TunnelError."""
    hosts: list[tuple[str, int]] = []
    for host, number in connector.endpoints:
        try:
            ip_address(host)
        except ValueError:
            hosts += await _look_up(connector, host, number)
        else:
            hosts.append((host, number))
    if found := places(port, hosts):
        return found
    if not hosts:
        raise TunnelError(
            f"the connector {connector.name} has not told the control plane where it is: does it "
            "run? see border0 connector ls"
        )
    listed = ", ".join(host for host, _ in hosts)
    raise TunnelError(f"the connector {connector.name}: this machine has no way to {listed}")


async def _look_up(connector: ConnectorEntry, host: str, number: int) -> list[tuple[str, int]]:
    try:
        answers = await deferToThread(socket.getaddrinfo, host, number, 0, socket.SOCK_DGRAM)
    except OSError as problem:
        raise TunnelError(
            f"the connector {connector.name}: cannot look up {host}: {problem.strerror or problem}"
        ) from None
    return [(str(answer[4][0]), number) for answer in answers]
