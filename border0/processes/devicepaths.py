"""A connector's ways to the devices that its control plane told it of.

A device's endpoints and path key are soft state: they come and change without a new map, and are
looked at one device at a time.
"""

from collections.abc import Callable, Iterable
from typing import Any

from border0.connector.config import ConnectorConfig
from border0.connector.membership import FOLDER
from border0.control.member.follower import Follower
from border0.control.member.url import ControlUrl
from border0.paths.candidates import Rules
from border0.processes.addresses import local_endpoints
from border0.processes.outside import Outside
from border0.processes.peering import Peering
from border0.processes.relaying import Relaying
from border0.processes.tunnel import Tunnel


class DevicePaths:
    """Keeps `peering` at what is known of the devices.

    :param config: gives the configuration in force.
    :param control: where the control plane is.
    """

    def __init__(
        self,
        reactor: Any,
        tunnel: Tunnel,
        private_key: bytes,
        config: Callable[[], ConnectorConfig],
        control: ControlUrl,
    ) -> None:
        self.tunnel, self.config, self.control = tunnel, config, control
        outside = Outside(reactor, tunnel.udp, self._hosts, advertised=config().advertise)
        self.peering = Peering(reactor, tunnel, private_key, outside, self._rules(), keep=True)
        self.peering.watch_network()
        folder = config().state_dir / FOLDER
        self.relaying = Relaying(reactor, self.peering, private_key, folder)
        self._keys: dict[str, bytes] = {}  # WireGuard keys of devices, by node id
        self._told: dict[str, object] = {}  # where they are, as last told
        self._inside = self._prefixes()

    def _prefixes(self) -> tuple[Any, ...]:
        network = self.config().network
        return (network.services_v4, network.services_v6, network.devices_v4, network.devices_v6)

    def _rules(self) -> Rules:
        return Rules((str(each) for each in self._prefixes()), self.control.is_loopback)

    def _hosts(self) -> list[str]:
        return local_endpoints(
            self.tunnel.port,
            towards=self.control.host,
            loopback=self.control.is_loopback,
            listen=self.config().listen_address,
            without=self._prefixes(),
        )

    def applied(self, follower: Follower) -> None:
        """The configuration is in force: its devices are WireGuard's peers now."""
        self.peering.publish(follower.report)
        if self._prefixes() != self._inside:
            self._inside = self._prefixes()
            self.peering.prober.set_rules(self._rules())
        self._keys = {device.id: device.public_key for device in self.config().devices}
        for node in self._told.keys() - self._keys.keys():
            del self._told[node]
        self.moved(follower, self._keys)

    def moved(self, follower: Follower, nodes: Iterable[str]) -> None:
        """These nodes said something of where they are."""
        self.peering.outside.set_servers(follower.stun)
        self.relaying.update(follower.relays(), follower.ticket)
        for node in nodes:
            path = follower.paths(node)
            peer = self.tunnel.device.peers.get(self._keys.get(node, b""))
            if path is None or peer is None:
                self._told.pop(node, None)
                continue
            said = (peer, path, follower.endpoints(node))
            # Of thousands of devices one moves: the others are not read again.
            if self._told.get(node) != said:
                self._told[node] = said
                self.peering.follow(peer, said[2], path)
