"""Which STUN servers a member of an organisation asks: what its folder says, what its user names.

Does not: look up names, or judge whether an address may be asked.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from border0.control.member.state import CONTACT_FILE, NODE_FILE
from border0.control.member.url import parse_url
from border0.errors import Border0Error, ConfigError
from border0.paths.stunclient import MAX_SERVERS

DEFAULT_PORT = 3478  # RFC 8489 §18.6


class Server:
    """A STUN server to be asked; `own`: this user named it, so it may be on this machine."""

    def __init__(self, host: str, port: int, own: bool = False) -> None:
        self.host, self.port, self.own = host, port, own
        self.text = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_server(text: str, home: str = "", own: bool = False) -> Server:
    """`HOST[:PORT]`; of `:PORT` the host is `home`, the control plane's.

    :raises ConfigError: it is neither.
    """
    host, colon, digits = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, digits = text, str(DEFAULT_PORT)  # a name, or a bare IPv6 address
    elif text.startswith("[") and text.endswith("]"):
        host, digits = text, str(DEFAULT_PORT)
    host = host.removeprefix("[").removesuffix("]") or home
    fine = digits.isascii() and digits.isdigit() and len(digits) < 6 and 0 < int(digits) < 65536
    if not text or not fine or not host or len(host) > 255 or not host.isprintable() or " " in host:
        raise ConfigError(f"{text!r} is no STUN server: write HOST:PORT, as stun.example.org:3478")
    return Server(host, int(digits), own)


class Known:
    """What a membership's folder says of STUN; nothing when there is none.

    `servers` to ask, `host` the control plane's, `loopback` whether it is this machine's.
    """

    def __init__(self, folder: Path) -> None:
        self.servers: list[Server] = []
        self.host, self.loopback = "", False
        with suppress(Border0Error):
            control = parse_url(str(_read(folder / NODE_FILE).get("url", "")))
            self.host, self.loopback = control.host, control.is_loopback
        saved = _read(folder / CONTACT_FILE).get("stun")
        for text in saved[:MAX_SERVERS] if isinstance(saved, list) else ():
            with suppress(ConfigError):
                self.servers.append(parse_server(str(text), self.host))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
