"""The agent process of `border0 client`: owns the device key and a tunnel in user space.

`python -m border0.processes.client agent --home DIR --config FILE` takes the lock of the device
key, serves `client.sock`, says `ready` on standard output (or why it cannot), and stays until
nobody has ridden for ten minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet import error
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from border0.errors import Border0Error
from border0.keys import load_private_key
from border0.node.agent import IDLE_SECONDS, Agent
from border0.node.config import ClientConfig, load
from border0.node.followed import Place, find_place
from border0.node.lock import FileLock
from border0.processes import logs, pathverbs
from border0.processes.clienttunnel import ClientTunnel
from border0.processes.keyfiles import beside
from border0.processes.memory import settle
from border0.processes.steady import steady

if TYPE_CHECKING:
    from border0.processes.clientfollow import Following

LOCK_SECONDS = 10.0
SYNC_SECONDS = 3.0  # how long the first command waits for news from the control plane

log = Logger(namespace="border0.client")


def run_agent(home: Path, config_file: Path, idle: float) -> int:
    """The agent's life; returns its exit status. What it says first is for who started it."""
    lock: FileLock | None = None
    try:
        # Who follows is made only when the key is ours: two would overwrite what is saved.
        basis = find_place(config_file) or load(config_file)
        key_file = basis.private_key_file
        load_private_key(key_file, create=False)
        lock = FileLock(beside(key_file, ".lock"))
        if not lock.acquire(LOCK_SECONDS):
            raise Border0Error(
                f"{key_file} is in use by process {lock.holder() or 'unknown'}, "
                "which serves another folder or is ending: end it, or try again"
            )
        if sys.platform == "linux":
            from border0.processes import lean

            lean.install()
        from twisted.internet import reactor

        steady(reactor)
        _log_to(home / "client.log")
        parts = _Parts(reactor, home, config_file, basis, idle)
    except (Border0Error, OSError, error.CannotListenError) as problem:
        say(str(problem))
        return 1
    anyway: Any = reactor
    anyway.addSystemEventTrigger("before", "shutdown", parts.end)
    anyway.addSystemEventTrigger("after", "shutdown", parts.tunnel.stop)
    parts.begin()
    if not parts.failed:
        anyway.run()
    lock.release()
    parts.agent.hold_stoppers()
    return 1 if parts.failed else 0


class _Parts:
    """Tunnel, agent and, where a control plane is followed, who follows."""

    def __init__(
        self,
        reactor: Any,
        home: Path,
        config_file: Path,
        basis: Place | ClientConfig,
        idle: float,
    ) -> None:
        self.reactor = reactor
        self.following: Following | None = None
        if isinstance(basis, Place):
            from border0.processes.clientfollow import Following

            self.following = Following(reactor, basis)
            basis = self.following.config()
        self.tunnel = ClientTunnel(reactor, basis)
        self.agent = Agent(reactor, home, config_file, self.tunnel, _leave(reactor), idle)
        self.agent.verbs = pathverbs.of(self.tunnel.tunnel, home)
        self.failed = False
        self.tunnel.start()

    def begin(self) -> None:
        """Serve, at once or when the control plane has been heard, and say so."""
        first: Deferred[Any] = succeed(None)
        if self.following is not None:
            first = self.following.start(self.tunnel, SYNC_SECONDS)
        first.addCallback(self._serve)
        first.addErrback(self._failed)

    def _serve(self, _: object) -> None:
        self.agent.startService()
        path, name = str(self.agent.address.path), self.tunnel.config.name
        log.info("serving {path} as {name}", path=path, name=name)
        settle()
        say("ready")

    def _failed(self, failure: Failure) -> None:
        self.failed = True
        log.error("cannot serve: {why}", why=failure.getErrorMessage())
        say(failure.getErrorMessage())
        if self.reactor.running:
            self.reactor.stop()

    def end(self) -> Any:
        """Let go of riders and of the control plane."""
        waiting = [maybeDeferred(self.agent.stopService)] if self.agent.running else []
        if self.following is not None:
            waiting.append(self.following.stop())
        return gatherResults(waiting)


def _leave(reactor: Any) -> Any:
    def leave() -> None:
        if reactor.running:
            reactor.stop()

    return leave


def say(text: str) -> None:
    """Tell the program that started us, then let go of its pipe."""
    try:
        os.write(1, text.encode("utf-8", "replace") + b"\n")
    except OSError:
        pass  # it was killed meanwhile; others will ride
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


def _log_to(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    stream = os.fdopen(handle, "w", encoding="utf-8")
    level = os.environ.get("BORDER0_LOG_LEVEL", "info").lower()
    observer: Any = logs.observer("text", level if level in logs.LEVELS else "info", stream)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def main(arguments: list[str] | None = None) -> int:
    """`agent --home DIR --config FILE [--idle SECONDS]`; started by `border0 client`."""
    parser = argparse.ArgumentParser(prog="python -m border0.processes.client")
    parser.add_argument("verb", choices=("agent",))
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    idle = os.environ.get("BORDER0_CLIENT_IDLE", "")
    parser.add_argument("--idle", type=float, default=float(idle) if idle else IDLE_SECONDS)
    options = parser.parse_args(arguments)
    return run_agent(options.home, options.config, options.idle)


if __name__ == "__main__":
    sys.exit(main())
