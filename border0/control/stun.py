"""The text that names a STUN server: `HOST:PORT`, or `:PORT` of the control plane's own host.

Not here: asking one, or being one (`border0.paths`).
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address

MAX_SERVERS = 16
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*\.?\Z")


def parse_server(text: str) -> tuple[str, int]:
    """Host (a name, an address without brackets, or "") and port of a server.

    :raises ValueError: it names none.
    """
    host, colon, number = text.rpartition(":")
    if not colon or not number.isascii() or not number.isdigit() or len(number) > 5:
        raise ValueError(f"{text!r} has no port")
    port = int(number)
    if not 1 <= port <= 65_535:
        raise ValueError(f"{text!r}: no such port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if ip_address(host).version != 6 or "%" in host:
            raise ValueError(f"{text!r}: only IPv6 addresses stand in brackets")
    elif host and not _NAME.match(host):
        raise ValueError(f"{text!r}: neither an address nor a name")
    return host, port


def write_server(host: str, port: int) -> str:
    """The text of a server."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def servers_of(texts: Iterable[str], own_host: str) -> list[str]:
    """Servers by name or address, each once, at most 16; what names none is left out.

    :param own_host: of the control plane, as this machine dials it.
    """
    found: dict[str, None] = {}
    for text in texts:
        try:
            host, port = parse_server(text)
        except ValueError:
            continue
        found[write_server(host or own_host, port)] = None
        if len(found) == MAX_SERVERS:
            break
    return list(found)
