"""Finds the agent of a home, or starts one: the only place where agents begin.

However many programs begin at once, one starts the agent and the others wait for it. A lock that
a killed program or agent held is free at once: the system lets go of it.
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from border0.errors import Border0Error
from border0.node.config import ClientConfig, follows, load
from border0.node.localapi import LocalAddress, NoAgent, Ride, TunnelError, ask, await_end
from border0.node.lock import FileLock

START_SECONDS = 20.0
ATTEMPTS = 3
AGENT_MODULE = "border0.processes.client"
READY = b"ready\n"


def ride(home: Path, config: Path) -> Ride:
    """A ride on the home's agent, which is started when there is none.

    :raises Border0Error: it cannot be started; the text says why.
    """
    address = LocalAddress(home)
    address.check()
    config = config.resolve()
    try:
        return Ride(address, config)
    except NoAgent:
        pass
    _make_home(home)
    deadline = time.monotonic() + 2 * START_SECONDS
    starting = FileLock(home / "client.starting")
    while True:
        patience = deadline - time.monotonic()
        try:
            mine = starting.acquire(max(0.0, patience))
        except OSError as error:
            raise Border0Error(f"{starting.path}: {error.strerror}") from None
        if not mine:
            raise TunnelError("another program has been starting the tunnel for too long")
        try:
            try:
                return Ride(address, config)
            except NoAgent:
                pass
            start_agent(home, config)
            try:
                return Ride(address, config)
            except NoAgent:
                if time.monotonic() > deadline:
                    raise TunnelError(
                        f"the tunnel does not stay up; see {log_file(home)}"
                    ) from None
        finally:
            starting.release()


def mapped(home: Path, config: Path) -> ClientConfig:
    """What this device may reach; where a control plane says it, as the agent has just heard it.

    :raises Border0Error: nothing, and the text says why; or there is no agent to ask.
    """
    if follows(config):
        with ride(home, config).control:
            pass  # whoever rides was told if there is nothing, and what counts is on the disk
    return load(config)


def connect(
    home: Path,
    config: Path,
    name: str,
    port: int | None,
    outlives: bool = False,
    on: Ride | None = None,
) -> tuple[Ride, socket.socket, int]:
    """A ride, `on` if it still stands, and one connection through the tunnel with its number.

    :raises Border0Error: there is none; the text says why.
    """
    for _ in range(ATTEMPTS):
        riding = on or ride(home, config)
        try:
            return riding, *riding.open(name, port, outlives)
        except NoAgent:
            on = None  # it left between two words: another one will serve
    raise TunnelError("the tunnel does not stay up")


def log_file(home: Path) -> Path:
    """Where the agent of a home writes."""
    return home / "client.log"


def _make_home(home: Path) -> None:
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Border0Error(f"{home}: {error.strerror}; choose another with --home DIR") from None


def start_agent(home: Path, config: Path) -> None:
    """Start a detached agent and wait until it serves.

    :raises Border0Error: what it said about why it cannot.
    """
    command = [sys.executable, "-P", "-m", AGENT_MODULE, "agent", "--home", str(home)]
    command += ["--config", str(config)]
    options: dict[str, object] = {}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP
    else:
        options["start_new_session"] = True
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(  # type: ignore[call-overload]
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=home,
        env=environment,
        **options,
    )
    with child.stdout as pipe:
        # It says one thing, then closes its end: that it serves, or why it cannot.
        said = pipe.read()
    if said != READY:
        text = said.decode("utf-8", "replace").strip()
        raise Border0Error(text or f"the tunnel could not be started; see {log_file(home)}")
    # It lives on without us; Popen shall not complain that nobody waited for it.
    child.returncode = 0


def stop(home: Path) -> int | None:
    """End the home's agent and wait for its end; its process id, None when none ran."""
    address = LocalAddress(home)
    try:
        address.check()
    except Border0Error:
        return None  # nobody can listen there
    try:
        connection, answer = ask(address, {"stop": True})
    except NoAgent:
        return None
    return await_end(connection, answer, START_SECONDS)
