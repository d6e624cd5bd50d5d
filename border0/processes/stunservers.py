"""Which STUN servers a member of an organisation asks: what its folder says, what its user names.

Does not: look up names, or judge whether an address may be asked.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from border0.control.member.state import CONTACT_FILE, NODE_FILE
from border0.control.member.url import parse_url
from border0.control.stun import MAX_SERVERS, parse_server, write_server
from border0.errors import Border0Error, ConfigError

DEFAULT_PORT = 3478  # RFC 8489 §18.6


class Server:
    """A STUN server to be asked; `own`: this user named it, so it may be on this machine."""

    def __init__(self, host: str, port: int, own: bool = False) -> None:
        self.host, self.port, self.own = host, port, own
        self.text = write_server(host, port)


def read_server(text: str, home: str = "", own: bool = False) -> Server:
    """`HOST[:PORT]`; of `:PORT` the host is `home`, the control plane's.

    :raises ConfigError: it is neither.
    """
    bare = f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text
    for candidate in (text, f"{bare}:{DEFAULT_PORT}") if text else ():
        try:
            host, port = parse_server(candidate)
        except ValueError:
            continue
        if host or home:
            return Server(host or home, port, own)
    raise ConfigError(f"{text!r} is no STUN server: write HOST:PORT, as stun.example.org:3478")


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
                self.servers.append(read_server(str(text), self.host))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
