"""The inner prefixes of one network, as every process's `[network]` table names them."""

from dataclasses import dataclass

from border0.tables import Network, Table


@dataclass
class Network4And6:
    """The inner prefixes: services are proxied, devices are peers."""

    services_v4: Network
    services_v6: Network
    devices_v4: Network
    devices_v6: Network


def read_network(table: Table) -> Network4And6:
    """The four prefixes; services and devices must not overlap (ConfigError)."""
    network = Network4And6(
        services_v4=table.network("services_v4", 4, "100.126.0.0/24"),
        services_v6=table.network("services_v6", 6, "fd62:6f72:6465:7231::/64"),
        devices_v4=table.network("devices_v4", 4, "100.64.0.0/16"),
        devices_v6=table.network("devices_v6", 6, "fd62:6f72:6465:7230::/64"),
    )
    table.close()
    for services, devices in (
        (network.services_v4, network.devices_v4),
        (network.services_v6, network.devices_v6),
    ):
        if services.overlaps(devices):
            raise table.error(f"the prefixes {services} and {devices} overlap")
    return network
