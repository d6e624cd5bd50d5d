"""`border0 connector join URL CODE`: a machine becomes a connector, and has a file to start."""

import argparse
from pathlib import Path
from typing import Any

from border0.cli import membership
from border0.cli.api import read_url
from border0.errors import ConfigError
from border0.tables import Table, read_toml

_FILE = """\
# Written by border0 connector join. Sockets and policies come from the control plane;
# what it may not make this machine do without you is in [local], see docs/configuration.md.
[connector]
name = {name}
private_key_file = {key}
{port}state_dir = {state}

[control]
url = {url}
{ca}"""
_KEY, _STATE = "connector.key", "state"


def run(options: argparse.Namespace) -> int:
    """Join; a file that is there and follows a control plane is kept."""
    # Here, as this brings Conch.
    from border0.connector.membership import FOLDER
    from border0.control.member.state import make_folder
    from border0.proxies.ssh.adapters.hostkeys import first_line

    file = Path(options.config)
    key, state_dir = _places(file, options.url)
    make_folder(state_dir)
    host_key = first_line(state_dir / "ssh")
    state = membership.join(
        options,
        "connector",
        key=key,
        folder=state_dir / FOLDER,
        ssh_host_key=host_key,
    )
    if not file.exists():
        port = options.listen_port
        membership.write_file(
            file,
            _FILE.format(
                name=membership.quoted(state.name),
                key=membership.quoted(_KEY),
                port="" if port is None else f"listen_port = {port}\n",
                state=membership.quoted(_STATE),
                url=membership.quoted(state.url),
                ca=f"ca = {membership.quoted(state.ca)}\n" if state.ca else "",
            ),
        )
    following = "border0 connector start"
    if options.config != "connector.toml":
        following += f" --config {options.config}"
    done = membership.report(options, state, file, "" if options.start else following)
    if not options.start:
        return done
    from border0.cli import connector

    started = argparse.Namespace(
        config=options.config, example=None, validate=False, log_format="text", metrics_listen=None
    )
    return connector.run(started)


def state_dir(file: Path) -> Path:
    """The state folder of a connector's file.

    :raises ConfigError: no such file, or one that stands alone.
    """
    data = read_toml(file, "join an organisation first: border0 connector join URL CODE")
    membership.follows(data, file, "it has no status of a member")
    return _read(data, file)[1]


def any_state_dir(file: Path) -> Path:
    """The state folder of a connector's file, also of one that stands alone.

    :raises ConfigError: no such file, or none that can be read.
    """
    return _read(read_toml(file, "name the connector's file with --config FILE"), file)[1]


def _places(file: Path, url: str) -> tuple[Path, Path]:
    """(key file, state folder): of the file that is there, else of the one to come."""
    if not file.exists():
        folder = file.resolve().parent
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder")
        return folder / _KEY, folder / _STATE
    data = read_toml(file, "")
    membership.follows(data, file, "name another file with --config FILE")
    followed = Table(data, file, "").table("control").text("url")
    if read_url(followed)[0] != read_url(url)[0]:
        raise ConfigError(f"{file} follows {followed}; name another file with --config FILE")
    return _read(data, file)


def _read(data: dict[str, Any], file: Path) -> tuple[Path, Path]:
    base = file.resolve().parent
    table = Table(data, file, "").table("connector")
    key = table.text("private_key_file", _KEY)
    return base / key, base / table.text("state_dir", _STATE)
