"""Joining as a connector: its keys are made where they are used, and only public ones are told."""

from typing import Any

from border0.connector.config import ConnectorConfig
from border0.connector.membership import FOLDER
from border0.control.member.join import join
from border0.control.member.state import MemberState, make_folder
from border0.errors import ConfigError
from border0.keys import load_private_key, public_key
from border0.proxies.ssh.adapters.hostkeys import first_line


async def join_connector(reactor: Any, config: ConnectorConfig, code: str) -> MemberState:
    """Spend a code with the keys of this connector, which are made when they are not there.

    :param config: a file with `[control]`.
    :raises Border0Error: a sentence that says what to do.
    """
    if config.control is None:
        raise ConfigError(f"{config.file}: it has no [control] table")
    make_folder(config.state_dir)
    own = public_key(load_private_key(config.private_key_file))
    host_key = first_line(config.state_dir / "ssh")
    return await join(
        reactor,
        url=config.control.url,
        ca=config.control.ca,
        code=code,
        role="connector",
        name=config.name,
        wireguard_key=own,
        ssh_host_key=host_key,
        folder=config.state_dir / FOLDER,
    )
