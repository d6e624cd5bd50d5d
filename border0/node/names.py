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
    """Where one connection goes: from `source` to `host`:`port`, through one of `connectors`."""

    name: str
    host: str
    port: int
    source: str
    connectors: list[ConnectorEntry]


def service(config: ClientConfig, text: str) -> ServiceEntry:
    """The service of a name; UnknownName with the nearest one when there is none."""
    name = text.lower().rstrip(".")
    if name.endswith(ZONE):
        labels = name.removesuffix(ZONE).split(".")
        if len(labels) != 2:
            raise UnknownName(f"{text}: a service is called SOCKET.ORGANISATION{ZONE}")
        name = labels[0]
        if config.organisation and labels[1] != config.organisation:
            raise UnknownName(
                f"{text}: this device is in the organisation {config.organisation}: "
                f"{name}.{config.organisation}{ZONE}"
            )
    for entry in config.services:
        if entry.name == name:
            return entry
    known = [entry.name for entry in config.services]
    empty = f"{config.file} has no [[socket]]"
    if config.followed:
        empty = "no policy lets this device reach any service yet"
    advice = nearest(name, known) if known else empty
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
    connectors = _leading_to(config, entry)
    for version, found in ((4, entry.ipv4), (6, entry.ipv6)):
        source = config.source(version)
        if found is not None and source is not None:
            return Target(entry.name, str(found), port or entry.port, source, connectors)
    where = "" if config.followed else f"; see addresses in [device] of {config.file}"
    raise UnknownName(f"{entry.name} has no address of a family that this device has{where}")


def _leading_to(config: ClientConfig, entry: ServiceEntry) -> list[ConnectorEntry]:
    known = {one.name: one for one in config.connectors}
    return [known[name] for name in entry.connectors if name in known]


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
    if entry is None and (config.followed or len(config.connectors) > 1):
        raise UnknownName(f"no service has the address {text}; see border0 client hosts")
    wanted = port or (entry.port if entry is not None else None)
    if wanted is None:
        raise UnknownName(f"{text} is not in the map: say which port, as {text}:PORT")
    source = config.source(address.version)
    if source is None:
        raise UnknownName(f"this device has no IPv{address.version} address to reach {text} from")
    if entry is None:
        return Target(text, text, wanted, source, config.connectors[:1])
    return Target(entry.name, text, wanted, source, _leading_to(config, entry))
