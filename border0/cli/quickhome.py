"""The files of a quickstart home: a control plane, a connector and a client of one user.

Every key is made here and stays here. What exists is kept, so that a second start is the same one;
only ports that are taken by now are changed. It starts nothing.
"""

import getpass
import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from border0 import privatefile
from border0.cli.expose import Exposed
from border0.connector.config import DEFAULT_PORT
from border0.connector.local import is_special
from border0.control import config as control_config
from border0.errors import ConfigError
from border0.keys import generate_private_key, write_private_key
from border0.processes.addresses import towards_addresses
from border0.tables import read_toml
from border0.trust import PrivateCA

_CONTROL = """\
# Written by border0 quickstart at each start; only the port of [control] is kept.
[control]
url = {url}
listen = [{listen}]
state_dir = "."

[stun]
listen = {stun}

[relay]
name = "quickstart"
"""

_CONNECTOR = """\
# Written by border0 quickstart at each start; only the port and [local] are kept.
[connector]
name = "quickstart"
private_key_file = "keys/connector.key"
listen_address = {listen}
listen_port = {port}
state_dir = "."

[control]
url = {url}
ca = {ca}

[local]
allow = {allow}
secrets = {secrets}
"""

_CLIENT = """\
# Written by border0 quickstart: what this machine reaches is told by the control plane.
[control]
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
    port: int = DEFAULT_PORT  # of WireGuard; 0: any free one
    control_port: int = control_config.DEFAULT_PORT
    stun_ports: tuple[int, int] = (3478, 3479)
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
    def control_file(self) -> Path:
        """The control plane's configuration."""
        return self.folder / "control.toml"

    @property
    def is_new(self) -> bool:
        """Whether the first start is still to come."""
        return not self.connector_file.exists()

    def prepare(self, exposed: list[Exposed]) -> None:
        """Make what is missing, add what is exposed, move ports that are taken.

        :raises ConfigError: a folder that cannot be used.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.folder / "keys").mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: {error.strerror}; name another with --home"
            ) from None
        wanted = self._first_sockets() if self.is_new else []
        wanted += [_body(item) for item in exposed]
        allow = self._listed("allow")
        secrets = self._listed("secrets")
        for item in exposed:
            if item.secret is not None:
                _keep(self.folder / "keys" / f"{item.name}.secret", item.secret + "\n")
            allow += [word for word in _upstream_here(item) if word not in allow]
            name = item.reference.removeprefix("from:")
            if item.reference and name not in secrets:
                secrets.append(name)
        # First: once the other files are there, the demo services are not wanted again.
        self._want(wanted)
        self._write(allow, secrets)

    def _want(self, wanted: list[dict[str, Any]]) -> None:
        """Have these services made, and those that no start since has come to make."""
        path = self.folder / "wanted.json"
        left: list[dict[str, Any]] = []
        if not self.is_new and path.exists():
            try:
                left = json.loads(path.read_bytes())["sockets"]
            except (OSError, ValueError, KeyError, TypeError):
                raise ConfigError(f"{path}: damaged; remove it and begin again") from None
        found = {str(body["name"]): body for body in (*left, *wanted)}
        data = {"user": f"{getpass.getuser()}@local", "sockets": list(found.values())}
        _keep(path, json.dumps(data, indent=1))

    def _first_sockets(self) -> list[dict[str, Any]]:
        for name in ("connector", "client"):
            path = self.folder / "keys" / f"{name}.key"
            if not path.exists():
                write_private_key(path, generate_private_key())
        found = []
        if self.demo_ssh:
            found.append(_DEMO_SSH)
        if self.demo_http:
            folder = self.folder / "demo-http"
            folder.mkdir(mode=0o700, exist_ok=True)
            (folder / "hello.txt").write_text(_DEMO_PAGE.format(folder=folder))
            found.append(_demo_http(folder))
        return found

    def _listed(self, key: str) -> list[str]:
        """What `[local]` names already; for a new home what the demo services need."""
        if self.is_new:
            demos = {"connector_built_in_ssh_service": self.demo_ssh}
            demos["connector_file_server"] = self.demo_http
            return [name for name, there in demos.items() if there and key == "allow"]
        found = read_toml(self.connector_file, "").get("local", {}).get(key, [])
        return [str(item) for item in found]

    def _write(self, allow: list[str], secrets: list[str]) -> None:
        """The three files; of old ones the ports stay, unless somebody else has them now."""
        port = self._port(self.connector_file, r"^listen_port = (\d+)$", self.port)
        control = self._port(self.control_file, r"^url = .*:(\d+)\"$", self.control_port)
        udp = free_port(self.listen, port, socket.SOCK_DGRAM)
        tcp = free_port(self.listen, control, socket.SOCK_STREAM)
        for kind, old, new in (("UDP", port, udp), ("TCP", control, tcp)):
            if old and old != new:
                self.say(f"{kind} port {old} is taken; using {new}.")
        url = json.dumps(f"https://{endpoint(self.listen, tcp)}")
        where = f"[{self.listen}]" if ":" in self.listen else self.listen
        listen = json.dumps(f"{where}:{tcp}")
        stun = json.dumps([f":{each}" for each in self._stun_ports(udp)])
        _keep(self.control_file, _CONTROL.format(url=url, listen=listen, stun=stun))
        connector = _CONNECTOR.format(
            listen=json.dumps(self.listen),
            port=udp,
            url=url,
            ca=json.dumps(PrivateCA.open(self.folder / "authority", time.time()).pin),
            allow=json.dumps(allow),
            secrets=json.dumps(secrets),
        )
        _keep(self.connector_file, connector)
        if not self.client_file.exists():
            _keep(self.client_file, _CLIENT)

    def _stun_ports(self, *taken: int) -> list[int]:
        """Two ports for STUN, the usual ones unless somebody else has them."""
        found: list[int] = []
        for wanted in self.stun_ports:
            port = free_port(self.listen, wanted, socket.SOCK_DGRAM)
            while port in (*taken, *found):
                port = free_port(self.listen, port + 1 if wanted else 0, socket.SOCK_DGRAM)
            found.append(port)
        first, second = self.stun_ports
        if any(self.stun_ports) and found != [first, second]:
            self.say(f"UDP port {first} or {second} is taken; STUN uses {found[0]} and {found[1]}.")
        return found

    @staticmethod
    def _port(path: Path, pattern: str, default: int) -> int:
        try:
            found = re.search(pattern, path.read_text("utf-8"), re.M)
        except OSError:
            return default
        return int(found[1]) if found else default


_DEMO_SSH: dict[str, Any] = {
    "name": "demo-ssh",
    "description": "a shell of the user who runs quickstart",
    "socket_type": "ssh",
    "port": 22,
    "recording_enabled": True,
    "upstream_configuration": {
        "service_type": "ssh",
        "ssh_service_configuration": {"ssh_service_type": "connector_built_in_ssh_service"},
    },
}


def _demo_http(folder: Path) -> dict[str, Any]:
    service = {
        "http_service_type": "connector_file_server",
        "fileserver_http_service_configuration": {"top_level_directory": str(folder)},
    }
    return {
        "name": "demo-http",
        "description": "the files of an example folder",
        "socket_type": "http",
        "port": 80,
        "recording_enabled": True,
        "upstream_configuration": {
            "service_type": "http",
            "http_service_configuration": service,
        },
    }


def _body(item: Exposed) -> dict[str, Any]:
    """What the API's `POST /socket` takes."""
    return {
        "name": item.name,
        "socket_type": item.socket_type,
        "port": item.port,
        "recording_enabled": True,
        "upstream_configuration": item.configuration(),
    }


def _upstream_here(item: Exposed) -> list[str]:
    """What `[local] allow` must name for it: a service on this very machine, by its address."""
    if item.host != "localhost":
        try:
            if not is_special(ip_address(item.host)):
                return []
        except ValueError:
            return []
    host = f"[{item.host}]" if ":" in item.host else item.host
    return [f"{host}:{item.upstream_port}"]


def endpoint(listen: str, port: int) -> str:
    """Where others find what listens there: of a wildcard, the address that packets leave from."""
    host = listen
    if listen in ("", "0.0.0.0", "::"):
        version = 6 if listen == "::" else 4
        # Nothing is sent there (documentation prefixes, RFC 5737 and RFC 3849).
        mine = towards_addresses("2001:db8::1" if version == 6 else "192.0.2.1")
        loopback = "::1" if version == 6 else "127.0.0.1"
        host = next((str(one) for one in mine if one.version == version), loopback)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_port(listen: str, wanted: int, kind: int) -> int:
    """`wanted`, or the next port above it that nobody has; for 0 any that nobody has.

    :param kind: SOCK_DGRAM or SOCK_STREAM.
    """
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    for port in range(wanted, min(wanted + 200, 65536)):
        with socket.socket(family, kind) as probe:
            if kind == socket.SOCK_STREAM:  # what a server before us left in TIME-WAIT is free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((listen, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigError(f"no free port between {wanted} and {wanted + 199} on {listen}")


def _keep(path: Path, text: str) -> None:
    privatefile.replace(path, text.encode())
