"""What a user calls a service, turned into where it is.

A service is named by its socket, by `<socket>.<org>.border0.internal`, or by its address. Does no
look-up anywhere else: a name that the map does not hold is an error with the nearest one that does.
"""

from dataclasses import dataclass
from ipaddress import ip_address

from border0.node.config import ClientConfig, ConnectorEntry, ServiceEntry
from border0.node.localapi import UnknownName
from border0.tables import nearest

ZONE = ".border0.internal"


@dataclass
class Target:
    """Where one connection goes: from `source` to `host`:`port`, through `connector`."""

    name: str
    host: str
    port: int
    source: str
    connector: ConnectorEntry


def service(config: ClientConfig, text: str) -> ServiceEntry:
    """The service of a name; UnknownName with the nearest one when there is none."""
    name = text.lower().rstrip(".")
    if name.endswith(ZONE):
        labels = name.removesuffix(ZONE).split(".")
        if len(labels) != 2:
            raise UnknownName(f"{text}: a service is called SOCKET.ORGANISATION{ZONE}")
        name = labels[0]
    for entry in config.services:
        if entry.name == name:
            return entry
    known = [entry.name for entry in config.services]
    advice = nearest(name, known) if known else f"{config.file} has no [[socket]]"
    raise UnknownName(f"no service is called {text!r}; {advice}")


def find(config: ClientConfig, text: str, port: int | None = None) -> Target:
    """Where `text` leads; IPv4 when service and device both have it.

    :raises UnknownName: nothing is called so, or this device has no address to reach it from.
    """
    try:
        address = ip_address(text)
    except ValueError:
        pass
    else:
        return _by_address(config, str(address), port)
    entry = service(config, text)
    connector = next(one for one in config.connectors if one.name == entry.connector)
    for version, found in ((4, entry.ipv4), (6, entry.ipv6)):
        source = config.source(version)
        if found is not None and source is not None:
            return Target(entry.name, str(found), port or entry.port, source, connector)
    raise UnknownName(
        f"{entry.name} has no address of a family that this device has; "
        f"see addresses in [device] of {config.file}"
    )


def _by_address(config: ClientConfig, text: str, port: int | None) -> Target:
    address = ip_address(text)
    known = [entry for entry in config.services if address in (entry.ipv4, entry.ipv6)]
    entry = next((one for one in known if one.port == port), known[0] if known else None)
    ranges = (config.network.services_v4, config.network.services_v6)
    if entry is None and not any(address in prefix for prefix in ranges):
        raise UnknownName(
            f"{text} is no service address: they are in {ranges[0]} and {ranges[1]}; "
            "see border0 client hosts"
        )
    if entry is None and len(config.connectors) > 1:
        raise UnknownName(f"no service has the address {text}; see border0 client hosts")
    wanted = port or (entry.port if entry is not None else None)
    if wanted is None:
        raise UnknownName(f"{text} is not in the map: say which port, as {text}:PORT")
    source = config.source(address.version)
    if source is None:
        raise UnknownName(f"this device has no IPv{address.version} address to reach {text} from")
    name = entry.connector if entry is not None else config.connectors[0].name
    connector = next(one for one in config.connectors if one.name == name)
    return Target(entry.name if entry is not None else text, text, wanted, source, connector)
