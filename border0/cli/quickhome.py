"""The files of a quickstart home: a connector and a client that know each other.

Every key is made here and stays here. What exists is kept, so that a second start is the same one;
only ports that are taken by now are changed. It starts nothing.
"""

import getpass
import json
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from border0.cli.expose import Exposed
from border0.connector.config import DEFAULT_PORT
from border0.errors import ConfigError
from border0.keys import (
    encode_key,
    generate_private_key,
    load_private_key,
    public_key,
    write_private_key,
)

CLIENT_ADDRESSES = ("100.64.0.2", "fd62:6f72:6465:7230::2")
SERVICE_V4, SERVICE_V6 = "100.126.0.{}", "fd62:6f72:6465:7231::{:x}"

_CONNECTOR = """\
# Written by border0 quickstart; yours to edit. docs/configuration.md has every key.
[connector]
name = "quickstart"
private_key_file = "keys/connector.key"
listen_address = {listen}
listen_port = {port}
state_dir = "."

[local]
allow = {allow}

[[device]]
name = "this-machine"
public_key = {device}
addresses = ["{v4}/32", "{v6}/128"]
user = {user}

[[policy]]
name = "owner"
[policy.policy_data.permissions]
http = {{}}
tls = {{}}
[policy.policy_data.permissions.ssh]
shell = {{}}
exec = {{}}
sftp = {{}}
[policy.policy_data.permissions.database]
allowed_databases = [{{ database = "*", allowed_query_types = ["ReadWrite"] }}]
[policy.policy_data.condition.who]
email = [{user}]
"""

_CLIENT = """\
# Written by border0 quickstart: what this machine reaches, and as whom.
[device]
name = "this-machine"
private_key_file = "keys/client.key"
addresses = ["{v4}/32", "{v6}/128"]
user = {user}

[[connector]]
name = "quickstart"
public_key = {connector}
endpoint = {endpoint}
"""

_DEMO_PAGE = """\
This file came through WireGuard, through a TCP/IP stack in user space, and through a policy.
It lies in {folder}; put others beside it.
"""


@dataclass
class Home:
    """One quickstart home and the choices of this start."""

    folder: Path
    listen: str = "127.0.0.1"
    demo_ssh: bool = True
    demo_http: bool = True
    port: int = DEFAULT_PORT  # 0: any free one
    say: Callable[[str], None] = field(default=lambda line: None)

    @property
    def connector_file(self) -> Path:
        """The connector's configuration."""
        return self.folder / "connector.toml"

    @property
    def client_file(self) -> Path:
        """The client's configuration."""
        return self.folder / "client.toml"

    @property
    def is_new(self) -> bool:
        """Whether the first start is still to come."""
        return not self.connector_file.exists()

    def prepare(self, exposed: list[Exposed]) -> None:
        """Make what is missing, add what is exposed, move ports that are taken.

        :raises ConfigError: a folder that cannot be used, a name that exists.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.folder / "keys").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: {error.strerror}; name another with --home"
            ) from None
        if self.is_new:
            self._create()
        else:
            self._move_port()
        for item in exposed:
            entry = self._host_keys() if item.socket_type == "ssh" else item.map_entry()
            self._add(item.name, item.socket_type, item.port, item.toml(), entry)
            if item.secret is not None:
                write_secret(self.folder / "keys" / f"{item.name}.secret", item.secret)

    def _create(self) -> None:
        keys = {}
        for name in ("connector", "client"):
            path = self.folder / "keys" / f"{name}.key"
            if not path.exists():
                write_private_key(path, generate_private_key())
            keys[name] = encode_key(public_key(load_private_key(path)))
        port = free_udp_port(self.listen, self.port)
        if self.port and port != self.port:
            self.say(f"UDP port {self.port} is taken; using {port}.")
        user = f"{getpass.getuser()}@local"
        addresses = {"v4": CLIENT_ADDRESSES[0], "v6": CLIENT_ADDRESSES[1]}
        allow = []
        if self.demo_ssh:
            allow.append("connector_built_in_ssh_service")
        if self.demo_http:
            allow.append("connector_file_server")
        client = _CLIENT.format(
            user=json.dumps(user),
            connector=json.dumps(keys["connector"]),
            endpoint=json.dumps(endpoint(self.listen, port)),
            **addresses,
        )
        write_private(self.client_file, client)
        connector = _CONNECTOR.format(
            listen=json.dumps(self.listen),
            port=port,
            allow=json.dumps(allow),
            device=json.dumps(keys["client"]),
            user=json.dumps(user),
            **addresses,
        )
        write_private(self.connector_file, connector)
        if self.demo_ssh:
            self._add("demo-ssh", "ssh", 22, _DEMO_SSH, self._host_keys())
        if self.demo_http:
            folder = self.folder / "demo-http"
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / "hello.txt").write_text(_DEMO_PAGE.format(folder=folder))
            self._add("demo-http", "http", 80, _DEMO_HTTP, "")

    def _add(self, name: str, kind: str, port: int, toml: str, entry: str) -> None:
        text = self.connector_file.read_text("utf-8")
        if re.search(rf'^name = "{re.escape(name)}"$', text, re.M):
            raise ConfigError(f"{self.connector_file}: there is a service {name!r} already")
        number = text.count("[[socket]]") + 1
        where = (
            f"\n[[socket]]\nname = {json.dumps(name)}\nsocket_type = {json.dumps(kind)}\n"
            f'private_network_ipv4 = "{SERVICE_V4.format(number)}"\n'
            f'private_network_ipv6 = "{SERVICE_V6.format(number)}"\nport = {port}\n'
        )
        write_private(self.connector_file, f'{text}{where}policies = ["owner"]\n{toml}')
        write_private(self.client_file, self.client_file.read_text("utf-8") + where + entry)

    def _host_keys(self) -> str:
        """The map's line with the keys that the connector's SSH proxy will show."""
        from border0.proxies.ssh.adapters.hostkeys import HostKeys

        return f"host_keys = {json.dumps(HostKeys(self.folder / 'ssh').lines())}\n"

    def _move_port(self) -> None:
        text = self.connector_file.read_text("utf-8")
        found = re.search(r"^listen_port = (\d+)$", text, re.M)
        listen = re.search(r'^listen_address = "([^"]*)"$', text, re.M)
        if found is None or listen is None:
            return  # edited by hand: the connector says what is wrong
        old, where = int(found[1]), self.listen or listen[1]
        port = free_udp_port(where, old)
        if port != old:
            self.say(f"UDP port {old} is taken; using {port}.")
        text = text.replace(found[0], f"listen_port = {port}")
        text = text.replace(listen[0], f"listen_address = {json.dumps(where)}")
        write_private(self.connector_file, text)
        client = self.client_file.read_text("utf-8")
        line = f"endpoint = {json.dumps(endpoint(where, port))}"
        write_private(
            self.client_file, re.sub(r"^endpoint = .*$", lambda _: line, client, flags=re.M)
        )


_DEMO_SSH = """\
[socket.upstream_configuration]
service_type = "ssh"
[socket.upstream_configuration.ssh_service_configuration]
ssh_service_type = "connector_built_in_ssh_service"
"""

_DEMO_HTTP = """\
[socket.upstream_configuration]
service_type = "http"
[socket.upstream_configuration.http_service_configuration]
http_service_type = "connector_file_server"
[socket.upstream_configuration.http_service_configuration.fileserver_http_service_configuration]
top_level_directory = "demo-http"
"""


def endpoint(listen: str, port: int) -> str:
    """Where this machine's client finds the connector."""
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen, listen)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_udp_port(listen: str, wanted: int) -> int:
    """`wanted`, or the next port above it that nobody has; for 0 any that nobody has."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    for port in range(wanted, min(wanted + 200, 65536)):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((listen, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError(f"no free UDP port between {wanted} and {wanted + 199} on {listen}")


def write_private(path: Path, text: str) -> None:
    """Replace a file at once, readable by its owner only."""
    fresh = path.with_suffix(".new")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(fresh, path)


def write_secret(path: Path, value: str) -> None:
    """Store a secret, mode 0600, in place of an older one."""
    write_private(path, value + "\n")
