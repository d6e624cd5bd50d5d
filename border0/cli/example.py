"""Writes the example that `border0 connector start --example` runs: one device, one service.

Every key is made on this machine. Files that exist are kept, so a second start is the same one.
"""

import socket
from pathlib import Path

from border0.connector.config import DEFAULT_PORT
from border0.keys import (
    encode_key,
    generate_private_key,
    load_private_key,
    public_key,
    write_private_key,
)

CONNECTOR = """\
# A border0 connector that stands alone. docs/configuration.md has every key.
[connector]
name = "example"
private_key_file = "connector.key"
listen_port = {port}
state_dir = "state"                # session records, audit log

# One person's machine: any WireGuard implementation. laptop.conf is its wg-quick file.
[[device]]
name = "laptop"
public_key = "{device}"
addresses = ["100.64.0.2/32", "fd62:6f72:6465:7230::2/128"]
user = "alice@example.org"
groups = ["eng"]

# A service: who reaches http://100.126.0.1/ through the tunnel reaches the upstream.
[[socket]]
name = "hello"
socket_type = "tls"                # any TCP
private_network_ipv4 = "100.126.0.1"
private_network_ipv6 = "fd62:6f72:6465:7231::1"
port = 80
policies = ["eng"]
[socket.upstream_configuration]
service_type = "tls"
[socket.upstream_configuration.tls_service_configuration]
tls_service_type = "standard"
[socket.upstream_configuration.tls_service_configuration.standard_tls_service_configuration]
hostname = "127.0.0.1"
port = {upstream}

# A PostgreSQL server whose password only this connector knows: remove the #s, set SHOP_PW.
#[[socket]]
#name = "shop-db"
#socket_type = "database"
#private_network_ipv4 = "100.126.0.2"
#private_network_ipv6 = "fd62:6f72:6465:7231::2"
#policies = ["eng"]
#[socket.upstream_configuration]
#service_type = "database"
#[socket.upstream_configuration.database_service_configuration]
#database_service_type = "standard"
#[socket.upstream_configuration.database_service_configuration.standard_database_service_configuration]
#protocol = "postgres"
#hostname = "127.0.0.1"
#port = 5432
#authentication_type = "username_and_password"
#username_and_password_auth_configuration = {{ username = "app", password = "from:env:SHOP_PW" }}

[[policy]]
name = "eng"
[policy.policy_data.permissions]
tls = {{}}
database = {{ allowed_databases = [{{ database = "*", allowed_query_types = ["ReadOnly"] }}] }}
[policy.policy_data.condition.who]
group = ["eng"]
"""

LAPTOP = """\
# wg-quick up {path}
[Interface]
PrivateKey = {private}
Address = 100.64.0.2/32, fd62:6f72:6465:7230::2/128
MTU = 1380

[Peer]
PublicKey = {connector}
AllowedIPs = 100.126.0.0/24, fd62:6f72:6465:7231::/64
Endpoint = 127.0.0.1:{port}
PersistentKeepalive = 25
"""


def write_example(folder: Path) -> Path:
    """Make what is missing in `folder`, say what to type next; returns the configuration file."""
    config, laptop = folder / "connector.toml", folder / "laptop.conf"
    if not config.exists():
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "connector.key").exists():
            write_private_key(folder / "connector.key", generate_private_key())
        own = public_key(load_private_key(folder / "connector.key"))
        device = generate_private_key()
        port = _free_port(socket.SOCK_DGRAM, DEFAULT_PORT)
        laptop.touch(mode=0o600)
        laptop.write_text(
            LAPTOP.format(
                path=laptop.absolute(),
                private=encode_key(device),
                connector=encode_key(own),
                port=port,
            )
        )
        config.write_text(
            CONNECTOR.format(
                port=port,
                device=encode_key(public_key(device)),
                upstream=_free_port(socket.SOCK_STREAM, 0),
            )
        )
    print(f"The example is in {folder}/: connector.toml and laptop.conf, a device's wg-quick file.")
    print("In a second terminal, with the WireGuard tools installed:")
    print(f"  sudo wg-quick up {laptop.absolute()}")
    print("  ping -c 1 100.126.0.1 && curl http://100.126.0.1/")
    print(f"Who did what stands in {folder}/state/. Ctrl-C stops the connector.")
    return config


def _free_port(kind: int, wanted: int) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("0.0.0.0" if kind == socket.SOCK_DGRAM else "127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
