"""`border0 device export --wg-quick`: what a stock WireGuard client needs."""

import argparse
import json
from pathlib import Path

from border0.connector.config import ConnectorConfig, DeviceEntry, load
from border0.errors import Border0Error
from border0.keys import encode_key, load_private_key, public_key
from border0.tables import nearest

PLACEHOLDER = "PRIVATE KEY OF THIS DEVICE"


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
