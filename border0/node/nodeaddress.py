"""Where node and connector of this machine listen, and how a command asks; blocking, no Twisted."""

import os
import socket
from pathlib import Path
from typing import Any

from border0.node.localapi import (
    UNIX,
    LocalAddress,
    NoAgent,
    TunnelError,
    ask,
    await_end,
    decode,
    encode,
    refusal,
)

SYSTEM = Path("/run/border0")
NAME = "node.sock"
CONNECTOR_NAME = "connector.sock"  # in its state folder
END_SECONDS = 30.0
MAXIMUM_ANSWER = 64 << 20  # thousands of peers with all their ways


def node_address(home: Path) -> LocalAddress:
    """Where a node of this user listens: root's in /run/border0, another's in its home."""
    root = UNIX and os.geteuid() == 0
    return LocalAddress(SYSTEM if root else home, name=NAME)


def question(home: Path, verb: str, **more: Any) -> dict[str, Any]:
    """Ask the node of this user; of root, the machine's.

    :raises NoAgent: none runs. TunnelError: it refused.
    """
    return inquire(node_address(home), verb, **more)


def connector_address(state_dir: Path) -> LocalAddress:
    """Where the connector with this state folder listens."""
    address = LocalAddress(state_dir, name=CONNECTOR_NAME)
    address.advice = "ask as that user, or with sudo"
    return address


def inquire(address: LocalAddress, verb: str, **more: Any) -> dict[str, Any]:
    """Ask whoever listens at an address; the answer may be long.

    :raises NoAgent: nobody does. TunnelError: it refused.
    """
    address.check()
    with address.connect() as connection:
        try:
            connection.sendall(encode({"verb": verb, **more, **address.token()}))
            with connection.makefile("rb") as source:
                line = source.readline(MAXIMUM_ANSWER)
            answer = decode(line)
        except TimeoutError:
            raise TunnelError(f"{address.path}: no answer in time; try again") from None
        except (OSError, ValueError, RecursionError):
            raise NoAgent("it went away") from None
    if not answer.get("ok"):
        raise refusal(answer)
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
        return await_end(connection, answer, END_SECONDS)
    return None


def _ask(address: LocalAddress, request: dict[str, Any]) -> tuple[socket.socket, dict[str, Any]]:
    if not address.unix:
        raise NoAgent("no node runs here")
    address.check()
    return ask(address, request)
