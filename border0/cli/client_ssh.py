"""`client ssh`: the user's own OpenSSH with the tunnel below it and the map's host keys."""

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from border0.cli.client import FAILED, complain
from border0.cli.client_children import calm, exit_status
from border0.errors import Border0Error
from border0.node import handover
from border0.node.config import ServiceEntry
from border0.node.launch import connect, mapped, ride
from border0.node.localapi import TunnelError
from border0.node.names import service

SSH_FAILED = 255  # ssh's own status for every failure that is not the remote command's


def run(home: Path, config: Path, name: str, arguments: list[str], built_in: bool = False) -> int:
    """ssh's exit status, 125 when the tunnel failed."""
    user, at, host = name.rpartition("@")
    map_ = mapped(home, config)
    entry = service(map_, host)
    if entry.socket_type != "ssh":
        raise Border0Error(
            f"{entry.name} is no SSH service but {entry.protocol or entry.socket_type}; "
            "see border0 client hosts"
        )
    if not entry.host_keys and map_.followed:
        raise Border0Error(
            f"no connector of {entry.name} has said which SSH host key it has, so nobody could "
            "tell the service from an impostor: border0 connector ls shows whether one is online"
        )
    if not entry.host_keys:
        raise Border0Error(
            f'{config}: [[socket]] "{entry.name}" has no host_keys, so nobody could tell the '
            "service from an impostor: add the key that the connector prints at start, as "
            'host_keys = ["ssh-ed25519 AAAA..."]'
        )
    program = None if built_in else shutil.which("ssh")
    if program is None:
        _built_in(home, config, entry, user or getpass.getuser(), arguments)
    folder = Path(tempfile.mkdtemp(prefix="b0-"))
    try:
        known = folder / "known_hosts"
        known.write_text("".join(f"{entry.name} {key}\n" for key in entry.host_keys))
        command = [program, f"{user}{at}{entry.name}", *arguments]
        if handover.possible():
            return _handed_over(home, config, entry, known, command)
        failure = folder / "failure"
        proxy = shlex.join(_tunnel(home, config, entry))
        command[1:1] = ssh_options(entry, known, proxy)
        child = subprocess.Popen(
            command, env={**os.environ, "BORDER0_CLIENT_FAILURE": str(failure)}
        )
        calm(child)
        status = exit_status(child)
        return FAILED if status == SSH_FAILED and failure.exists() else status
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _handed_over(
    home: Path, config: Path, entry: ServiceEntry, known: Path, command: list[str]
) -> int:
    """Run ssh on a connection that it gets as a descriptor."""
    riding, number = ride(home, config), 0

    def open_stream() -> socket.socket:
        nonlocal riding, number
        riding, stream, number = connect(home, config, entry.name, None, outlives=True, on=riding)
        return stream

    giver = handover.Handover(known.parent, open_stream)
    options = [*ssh_options(entry, known, giver.command), "-o", "ProxyUseFdpass=yes"]
    child = subprocess.Popen([command[0], *options, *command[1:]])
    calm(child)
    status = exit_status(child)
    giver.close()
    if status == SSH_FAILED:
        reason = riding.bad_news(number) if giver.error is None else str(giver.error)
        if reason:
            complain(TunnelError(reason))
            return FAILED
    return status


def _built_in(
    home: Path, config: Path, entry: ServiceEntry, user: str, arguments: list[str]
) -> NoReturn:
    """The small client of ours, on the tunnel's socket."""
    if arguments and arguments[0].startswith("-"):
        raise Border0Error(
            "OpenSSH's client is not installed, and the built-in one has no options "
            "(Debian: apt-get install openssh-client)"
        )
    riding, stream, number = connect(home, config, entry.name, None)
    from border0.node import sshclient

    status, reason = sshclient.run(stream, user, entry.host_keys, " ".join(arguments))
    if status == FAILED and reason:
        complain(TunnelError(riding.bad_news(number) or reason))
    # A thread may wait for more input, and nothing wakes it up.
    sys.stdout.flush()
    os._exit(status)


def _tunnel(home: Path, config: Path, entry: ServiceEntry) -> list[str]:
    words = [sys.executable, "-P", "-m", "border0.cli.main", "client", "--home", str(home)]
    return [*words, "--config", str(config), "tcp", entry.name, "--stdio"]


def ssh_options(entry: ServiceEntry, known: Path, proxy: str) -> list[str]:
    """What makes ssh go through the tunnel and trust only the map's keys for it."""
    settings = {
        "ProxyCommand": _percent(proxy),
        "UserKnownHostsFile": f'"{_percent(str(known))}"',
        "GlobalKnownHostsFile": os.devnull,
        "HostKeyAlias": entry.name,
        "StrictHostKeyChecking": "yes",
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _percent(text: str) -> str:
    return text.replace("%", "%%")
