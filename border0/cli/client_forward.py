"""`client tcp --listen` and `client socks`: listeners that ride on the agent until Ctrl-C."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory

from border0.cli.client import FAILED, complain
from border0.errors import Border0Error
from border0.node.forwards import ForwardFactory, UsageError, listen, parse_listen
from border0.node.launch import mapped, ride
from border0.node.localapi import split_port
from border0.node.names import find
from border0.node.rides import Rider
from border0.node.socks import SocksFactory


def tcp(home: Path, config: Path, options: argparse.Namespace) -> int:
    """Every connection to the listener is one to the service."""
    name, port = split_port(options.name)
    target = find(mapped(home, config), name, port)
    return _serve(
        home,
        config,
        options,
        f"{target.name} (port {target.port})",
        lambda rider: ForwardFactory(rider, name, port, complain),
    )


def socks(home: Path, config: Path, options: argparse.Namespace) -> int:
    """A SOCKS5 proxy."""
    if options.listen.startswith("unix:"):
        raise UsageError("socks listens on an address and a port")
    mapped(home, config)
    return _serve(home, config, options, "SOCKS5", lambda rider: SocksFactory(rider, complain))


def _serve(
    home: Path,
    config: Path,
    options: argparse.Namespace,
    what: str,
    make: Callable[[Rider], Factory],
) -> int:
    at = parse_listen(options.listen, options.allow_others)
    riding = ride(home, config)
    from twisted.internet import reactor as installed

    reactor: Any = installed
    died: list[bool] = []

    def agent_died() -> None:
        if reactor.running:
            died.append(True)
            reactor.stop()

    rider = Rider(reactor, riding, lambda reason: complain(Border0Error(reason)), agent_died)
    _, where = listen(reactor, at, make(rider), options.allow_others)
    rider.start()
    print(f"{what} is at {where} until Ctrl-C", flush=True)
    reactor.run()
    if died:
        complain(Border0Error("the process that held the tunnel ended; start this again"))
        return FAILED
    return 0
