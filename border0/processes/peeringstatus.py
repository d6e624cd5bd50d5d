"""What `node debug peers`, `node debug stats` and `node netcheck` say of a tunnel, in plain values.

Times are Unix seconds, loss is a share, sizes are bytes.
"""

import time
from base64 import b64encode
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from border0.paths import address as addresses
from border0.paths.candidates import NAT_NAMES
from border0.paths.path import DEAD, UNTRIED, VALID
from border0.paths.reflexive import FAMILIES
from border0.paths.status import PathStatus, PeerStatus
from border0.processes.health import Metric
from border0.processes.tunnel import Tunnel
from border0.wireguard.peer import Peer

if TYPE_CHECKING:
    from border0.processes.outside import Outside
    from border0.processes.relaying import Relaying


def peers(tunnel: Tunnel) -> dict[str, Any]:
    """Every peer in the order of the keys, and every way to it."""
    now = tunnel.reactor.seconds()
    ahead = time.time() - now
    peering = tunnel.peering
    probed = {} if peering is None else {one.public_key: one for one in peering.prober.status(now)}
    return {
        "now": round(now + ahead, 3),
        "peers": [
            _peer(tunnel.device.peers[key], probed.get(key), ahead)
            for key in sorted(tunnel.device.peers)
        ],
    }


def _peer(peer: Peer, status: PeerStatus | None, ahead: float) -> dict[str, Any]:
    inside = [ip_network(text) for text in peer.allowed_ips]
    first = {one.version: str(one.network_address) for one in reversed(inside)}
    found: dict[str, Any] = {
        "public_key": b64encode(peer.public_key).decode(),
        "alias": peer.name,
        "private_ipv4": first.get(4, ""),
        "private_ipv6": first.get(6, ""),
        "probes": status is not None,
    }
    if status is None:
        return {
            **found, "nat": "unknown", "inner_mtu": None, "switches": 0, "last_switch": None,
            "last_reason": "", "refused": 0, "connections": _plain(peer, ahead),
        }  # fmt: skip
    return {
        **found,
        "nat": NAT_NAMES.get(status.nat, "unknown"),
        "inner_mtu": status.inner_mtu,
        "switches": status.switches,
        "last_switch": _unix(status.last_switch, ahead),
        "last_reason": status.last_reason,
        "refused": status.refused,
        "connections": [_way(one, ahead) for one in status.paths],
    }


def _way(way: PathStatus, ahead: float) -> dict[str, Any]:
    return {
        "method": way.method,
        "address": way.address,
        "kind": way.kind,
        "state": way.state,
        "rtt": None if way.round_trip is None else round(way.round_trip, 6),
        "loss": round(way.loss, 6),
        "mtu": way.mtu,
        "score": round(way.score, 4),
        "active": way.active,
        "last_probe": _unix(way.latest_reply, ahead),
        "held_seconds": round(way.held, 3),
    }


def _plain(peer: Peer, ahead: float) -> list[dict[str, Any]]:
    """The one place of a peer without probes: what WireGuard itself knows."""
    where = addresses.from_sockaddr(peer.source or peer.endpoint)
    if where is None:
        return []
    method = "udp4" if len(where[0]) == 4 else "udp6"
    roaming = peer.source is not None and peer.source not in peer.candidates
    return [
        {
            "method": f"{method} (roaming)" if roaming else method,
            "address": addresses.text(where),
            "kind": "",
            "state": "valid" if peer.last_authenticated is not None else "untried",
            "rtt": None if peer.round_trip is None else round(peer.round_trip, 6),
            "loss": 0.0,
            "mtu": None,
            "score": 0.0,
            "active": peer.last_authenticated is not None,
            "last_probe": _unix(peer.last_authenticated, ahead),
            "held_seconds": 0.0,
        }
    ]


def _unix(at: float | None, ahead: float) -> float | None:
    return None if at is None else round(at + ahead, 3)


def stats(tunnel: Tunnel) -> dict[str, Any]:
    """Counters since the start."""
    peering = tunnel.peering
    found: dict[str, Any] = {
        "port": tunnel.port,
        "peers": len(tunnel.device.peers),
        "received_bytes": sum(peer.rx_bytes for peer in tunnel.device.peers.values()),
        "sent_bytes": sum(peer.tx_bytes for peer in tunnel.device.peers.values()),
        "not_taken_datagrams": tunnel.udp.dropped,
        "wireguard": {"refused_handshakes": tunnel.device.refused_handshakes},
    }
    if peering is not None:
        prober = peering.prober
        found["probes"] = {
            "peers": len(prober.peers),
            "ways": sum(len(one.paths) for one in prober.peers.values()),
            "switches": sum(one.switches for one in prober.peers.values()),
            "of_nobody": prober.unknown,
            "refused": prober.refused,
            "refused_candidates": sum(one.refused for one in prober.peers.values()),
            "generation": prober.generation,
        }
        found["stun"] = {
            "servers": len(peering.outside.servers),
            "answers_to_nothing": peering.outside.reflexive.dropped,
        }
        if peering.relaying is not None:
            found["relays"] = relays(peering.relaying)
    return found


def relays(relaying: "Relaying") -> list[dict[str, Any]]:
    """The relays that this process is at, or tries to be: the preferred one first."""
    choice, sites = relaying.choice, relaying.sites
    uses = {choice.second: "second", choice.home: "home"}
    first = [id for id in choice.chosen if id in sites]
    return [
        {
            "name": site.entry.name,
            "id": id,
            "region": site.entry.region,
            "use": uses.get(id, "visited" if choice.chosen else "tried"),
            "connected": site.up,
            "rtt": None
            if not site.up or site.link.round_trip is None
            else round(site.link.round_trip, 6),
            "ways": len(site.ways),
            "why": "" if site.up else site.link.why,
        }
        for id, site in sorted(
            sites.items(),
            key=lambda one: (one[0] not in first, one[0] != choice.home, one[1].entry.name),
        )
    ]


def metrics(tunnel: Tunnel) -> list[Metric]:
    """What Prometheus reads; nothing of a tunnel without probes."""
    if tunnel.peering is None:
        return []
    prober = tunnel.peering.prober
    none: dict[str, str] = {}
    states: dict[str, int] = {UNTRIED: 0, VALID: 0, DEAD: 0}
    for peer in prober.peers.values():
        for path in peer.paths.values():
            states[path.state] += 1
    ways: list[tuple[dict[str, str], float]]
    ways = [({"state": state}, count) for state, count in states.items()]
    switches = sum(peer.switches for peer in prober.peers.values())
    return [
        ("border0_paths", "Ways to peers.", "gauge", ways),
        ("border0_path_switches", "Changes of way of the peers there are.", "gauge",
         [(none, switches)]),
        ("border0_probes_refused_total", "Probes that did not authenticate, or came again.",
         "counter", [(none, prober.refused)]),
        ("border0_probes_unknown_total", "Probes of nobody.", "counter", [(none, prober.unknown)]),
        *_relay_metrics(tunnel.peering.relaying),
    ]  # fmt: skip


def _relay_metrics(relaying: "Relaying | None") -> list[Metric]:
    if relaying is None:
        return []
    up = sum(site.up for site in relaying.sites.values())
    counts: list[tuple[dict[str, str], float]]
    counts = [({"state": "connected"}, up), ({"state": "lost"}, len(relaying.sites) - up)]
    return [
        ("border0_relay_connections", "Relays that this process wants to be at.", "gauge", counts),
        ("border0_relay_dropped_total", "Datagrams by relays of nobody that we know.", "counter",
         [({}, relaying.peers.dropped)]),
    ]  # fmt: skip


def outside(found: "Outside") -> dict[str, Any]:
    """How the outside sees a port."""
    now = found.reactor.seconds()
    mapping = found.mapping
    held = None if mapping is None else mapping.mapping
    return {
        "ports": {"udp": found.udp.port},
        "addresses": found.hosts(),
        "nat": {str(family): _nat(found, family, now) for family in FAMILIES},
        "port_mapping": None
        if held is None
        else {"protocol": held.protocol, "address": f"{held.host}:{held.port}"},
        "port_mapping_failure": "" if mapping is None else mapping.failure,
        "gateway": None if mapping is None else mapping.gateway,
        "servers": [
            {
                "server": found.servers.get(view.server, ""),
                "address": _text(view.server),
                "family": 4 if len(_packed(view.server)) == 4 else 6,
                "rtt": None if view.rtt is None else round(view.rtt, 6),
                "seen": None if view.seen is None else _text(view.seen),
                "failure": "" if view.answering else "no answer",
            }
            for view in found.reflexive.servers()
        ],
    }


def _nat(found: "Outside", family: int, now: float) -> dict[str, Any] | None:
    nat = found.reflexive.nat(family, now)
    if nat.kind == "unknown" and not nat.addresses:
        return None
    return {
        "class": nat.kind,
        "mapping": nat.mapping,
        "addresses": [_text(each) for each in nat.addresses],
        "ports kept": nat.port_kept,
    }


def _text(place: Any) -> str:
    where = addresses.from_sockaddr(place)
    return "" if where is None else addresses.text(where)


def _packed(place: Any) -> bytes:
    where = addresses.from_sockaddr(place)
    return b"" if where is None else where[0]
