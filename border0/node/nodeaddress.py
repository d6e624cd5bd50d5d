"""Where the node of this machine listens, and how a command asks it; blocking, without Twisted."""

import os
import socket
from pathlib import Path
from typing import Any

from border0.node.localapi import UNIX, LocalAddress, NoAgent, TunnelError, ask

SYSTEM = Path("/run/border0")
NAME = "node.sock"
END_SECONDS = 30.0


def node_address(home: Path) -> LocalAddress:
    """Where a node of this user listens: root's in /run/border0, another's in its home."""
    root = UNIX and os.geteuid() == 0
    return LocalAddress(SYSTEM if root else home, name=NAME)


def question(home: Path, verb: str, **more: Any) -> dict[str, Any]:
    """Ask the node of this user; of root, the machine's.

    :raises NoAgent: none runs. TunnelError: it refused.
    """
    connection, answer = _ask(node_address(home), {"verb": verb, **more})
    connection.close()
    return answer


def stop(home: Path) -> int | None:
    """End the node and wait for its end; its process id, None when none runs.

    :raises TunnelError: it is another user's, or does not end.
    """
    own = node_address(home)
    for address in (own, LocalAddress(SYSTEM, name=NAME)):
        try:
            connection, answer = _ask(address, {"verb": "stop"})
        except NoAgent:
            continue
        with connection:
            connection.settimeout(END_SECONDS)
            try:
                while connection.recv(4096):
                    pass
            except TimeoutError:
                raise TunnelError(f"process {answer.get('pid')} does not end") from None
            except OSError:
                pass
        return int(answer["pid"])
    return None


def _ask(address: LocalAddress, request: dict[str, Any]) -> tuple[socket.socket, dict[str, Any]]:
    if not address.unix:
        raise NoAgent("no node runs here")
    address.check()
    return ask(address, request)
