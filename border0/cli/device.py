"""`border0 device export --wg-quick`: the file for a stock WireGuard client."""

import argparse
import json
from pathlib import Path
from typing import Any

from border0.connector.config import ConnectorConfig, DeviceEntry, load
from border0.errors import Border0Error
from border0.keys import encode_key, load_private_key, public_key
from border0.tables import nearest

PLACEHOLDER = "PRIVATE KEY OF THIS DEVICE"


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    text = "devices of a connector's file"
    noun = commands.add_parser("device", help=text, description=text)
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)
    export = verbs.add_parser(
        "export",
        help="print the configuration of a device's own WireGuard",
        description="Print what a stock WireGuard client needs. The private key stays on the"
        " device: without --private-key-file there is a placeholder for it.",
    )
    export.add_argument("--wg-quick", action="store_true", required=True, help="as wg-quick reads")
    export.add_argument("--config", metavar="FILE", default="connector.toml", help="its file")
    export.add_argument("--device", metavar="NAME", help="which (default: the only one)")
    export.add_argument("--endpoint", metavar="HOST[:PORT]", required=True,
                        help="where the connector is reached")  # fmt: skip
    export.add_argument("--private-key-file", metavar="FILE", help="the device's private key")
    export.add_argument("--keepalive", type=int, default=25, metavar="SECONDS", help="0: none")
    export.add_argument("--json", action="store_true", help="print one JSON object")
    export.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the file."""
    config = load(Path(options.config), services=False)
    device = _device(config, options.device)
    connector = public_key(load_private_key(config.private_key_file, create=False))
    private = PLACEHOLDER
    if options.private_key_file:
        key = load_private_key(Path(options.private_key_file), create=False)
        if public_key(key) != device.public_key:
            raise Border0Error(f"{options.private_key_file} is not the key of {device.name}")
        private = encode_key(key)
    endpoint = _endpoint(options.endpoint, config.listen_port)
    network = config.network
    allowed = [str(network.services_v4), str(network.services_v6)]
    preshared = device.preshared_key.reveal().strip() if device.preshared_key else ""
    if options.json:
        facts = {
            "name": device.name,
            "private_key": private,
            "addresses": device.addresses,
            "mtu": config.mtu,
            "public_key": encode_key(connector),
            "preshared_key": preshared,
            "allowed_ips": allowed,
            "endpoint": endpoint,
            "persistent_keepalive": options.keepalive,
        }
        print(json.dumps(facts))
        return 0
    lines = [
        f"# {device.name} ({device.user or device.service_account}) at {config.name}",
        "[Interface]",
        f"PrivateKey = {private}",
        f"Address = {', '.join(device.addresses)}",
        f"MTU = {config.mtu}",
        "",
        "[Peer]",
        f"PublicKey = {encode_key(connector)}",
        *([f"PresharedKey = {preshared}"] if preshared else []),
        f"AllowedIPs = {', '.join(allowed)}",
        f"Endpoint = {endpoint}",
        *([f"PersistentKeepalive = {options.keepalive}"] if options.keepalive else []),
    ]
    print("\n".join(_one_line(line) for line in lines))
    return 0


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _device(config: ConnectorConfig, name: str | None) -> DeviceEntry:
    names = [device.name for device in config.devices]
    if name is None and len(names) == 1:
        return config.devices[0]
    for device in config.devices:
        if device.name == name:
            return device
    if name is None:
        raise Border0Error(f"name one with --device: {', '.join(names) or 'there is none'}")
    raise Border0Error(f"no device {name!r}; {nearest(name, names)}")


def _endpoint(text: str, port: int) -> str:
    host, colon, given = text.rpartition(":")
    if colon and given.isdigit() and (":" not in host or host.startswith("[")):
        if not 0 < int(given) < 65536:
            raise Border0Error(f"{given} is no port")
        return text
    if not port:
        raise Border0Error("the connector's port changes at each start: give HOST:PORT")
    return f"[{text}]:{port}" if ":" in text and not text.startswith("[") else f"{text}:{port}"
