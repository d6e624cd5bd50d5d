"""Ways between two tunnels on a virtual clock: fed by offers, used by WireGuard, told to people."""

import errno
import json
from base64 import b64encode
from typing import Any

import msgspec
from twisted.internet.defer import succeed

from border0.control.push.offer import PathOffer
from border0.paths import stun
from border0.paths.candidates import HOST, STATIC, Rules
from border0.paths.portmap.lease import Mapping as Lease
from border0.processes import outside, peeringstatus
from border0.processes.outside import Outside
from border0.processes.peering import Peering, offered
from tests.processes.test_clienttunnel import Case
from tests.support.fakenet import Place

DEVICE, NEW_DEVICE, SECOND = ("192.0.2.1", 1), ("192.0.2.77", 5), ("198.51.100.9", 1)
SERVER = ("203.0.113.1", 3478)
INSIDE = ("100.64.0.0/10", "100.126.0.0/24")
Said = tuple[list[str], PathOffer]


class Two(Case):
    """The device and connector a have a peering each; connector b is a stock one."""

    def setUp(self) -> None:
        super().setUp()
        self.said: dict[str, Said] = {}
        self.ours = self.peering("device", self.tunnel.tunnel, self.tunnel.private_key, DEVICE)
        self.theirs = self.peering("a", self.a.tunnel, self.a.private_key, self.a.place)
        self.theirs.keep = True

    def peering(self, name: str, tunnel: Any, key: bytes, place: Place) -> Peering:
        hosts = [f"{place[0]}:{place[1]}"]
        found = Outside(self.net.clock, tunnel.udp, lambda: hosts, False)
        made = Peering(self.net.clock, tunnel, key, found, Rules(INSIDE))
        made.publish(lambda endpoints, path: self.said.__setitem__(name, (endpoints, path)))
        made.startService()
        self.addCleanup(lambda: made.running and made.stopService())
        return made

    @property
    def to_a(self) -> Any:
        return self.peer(self.a)

    @property
    def at_a(self) -> Any:
        return self.a.device.peers[self.tunnel.device.public_key]

    def introduce(self) -> None:
        self.assertTrue(self.ours.follow(self.to_a, *self.said["a"]))
        self.assertTrue(self.theirs.follow(self.at_a, *self.said["device"]))

    def way(self) -> dict[str, Any]:
        found = peeringstatus.peers(self.tunnel.tunnel)
        json.dumps(found)
        peer = next(one for one in found["peers"] if one["alias"] == "a")
        return next((one for one in peer["connections"] if one["active"]), {})


class Ways(Two):
    def test_where_we_are_is_published(self) -> None:
        endpoints, path = self.said["device"]
        self.assertEqual((endpoints, path.kinds, path.nat), (["192.0.2.1:1"], ["host"], "unknown"))
        self.assertEqual(path.key, b64encode(self.ours.prober.path_key).decode())
        self.assertGreaterEqual(path.generation, 1)

    def test_data_takes_a_way_that_answers(self) -> None:
        self.introduce()
        leg = self.connected()
        self.assertEqual(self.who(leg), "a")
        way = self.way()
        self.assertEqual((way["method"], way["address"]), ("udp4", "198.51.100.1:1"))
        self.assertEqual((way["state"], way["kind"]), ("valid", "host"))
        self.assertTrue(0.0 < way["rtt"] < 0.2)
        self.assertFalse(self.to_a.roams)
        self.assertEqual(self.to_a.source, self.a.place)
        found = {name: values for name, _, _, values in peeringstatus.metrics(self.tunnel.tunnel)}
        self.assertIn(({"state": "valid"}, 1), found["border0_paths"])
        self.assertEqual(peeringstatus.metrics(self.b.tunnel), [])

    def test_a_session_of_before_goes_on(self) -> None:
        leg = self.connected()
        self.assertEqual(self.who(leg), "a")
        self.introduce()
        self.assertEqual(self.who(leg), "a")
        self.assertEqual(self.way()["state"], "valid")

    def test_a_stock_peer_stays_one(self) -> None:
        self.introduce()
        self.net.down.add(self.a.place)
        leg = self.connected(patience=15)
        self.assertEqual(self.who(leg), "b")
        self.assertTrue(self.peer(self.b).roams)
        self.assertEqual(self.peer(self.b).endpoint, self.b.place)
        found = peeringstatus.peers(self.tunnel.tunnel)["peers"]
        stock = next(one for one in found if one["alias"] == "b")
        self.assertFalse(stock["probes"])
        self.assertEqual(stock["connections"][0]["address"], "198.51.100.2:2")

    def test_the_device_moves_and_the_answers_follow(self) -> None:
        self.introduce()
        leg = self.connected()
        self.assertEqual(self.who(leg), "a")
        self.tunnel.tunnel.udp.move(NEW_DEVICE)  # type: ignore[attr-defined]
        self.assertEqual(self.who(leg, 5.0), "a")
        self.assertEqual(self.at_a.source, NEW_DEVICE)

    def test_a_peer_that_begins_anew_is_found_though_its_key_is_not_known_yet(self) -> None:
        self.introduce()
        self.assertEqual(self.who(self.connected()), "a")
        self.theirs.prober.peers.clear()
        self.theirs.prober._indices.clear()  # it forgets us: no probe is answered any more
        leg = self.connected(patience=5.0)
        self.assertEqual(self.who(leg, 5.0), "a")

    def test_a_useless_path_key_leaves_the_peer_as_it_is(self) -> None:
        endpoints, path = self.said["a"]
        bad = PathOffer(b64encode(bytes(32)).decode(), path.generation, path.nat, path.kinds)
        self.assertFalse(self.ours.follow(self.to_a, endpoints, bad))
        self.assertTrue(self.to_a.roams)
        self.assertEqual(self.who(self.connected()), "a")

    def test_a_removed_peer_is_forgotten(self) -> None:
        self.introduce()
        self.assertEqual(self.who(self.connected()), "a")
        self.tunnel.install(self.config({"web": ["b"]}))
        self.assertEqual(self.ours.prober.peers, {})
        self.net.advance(30)

    def test_good_bye(self) -> None:
        self.introduce()
        self.assertEqual(self.who(self.connected()), "a")
        self.theirs.stopService()
        self.net.advance(0.2)
        self.assertEqual(self.way()["state"], "dead")

    def test_the_keepalive_is_the_ways(self) -> None:
        self.introduce()
        self.assertEqual(self.to_a.timers.persistent_keepalive, 0.0)
        leg = self.connected()
        self.assertEqual(self.who(leg), "a")
        leg.abort()
        self.net.advance(60)
        del self.net.sent[:]
        self.net.advance(600)
        gaps = [source for source, to, _ in self.net.sent if to == self.a.place]
        self.assertGreater(len(gaps), 20)  # a gateway forgets after 30 s
        self.assertLess(len(gaps), 120)

    def test_who_is_not_found_is_called_and_the_called_one_looks(self) -> None:
        self.introduce()
        self.net.down.add(self.a.place)
        self.ours.prober.want(self.to_a.public_key, self.net.clock.seconds())
        self.ours.flush(self.net.clock.seconds())
        self.net.advance(1)
        self.assertEqual(self.said["device"][1].calls, 1)
        self.net.down.clear()
        del self.net.sent[:]
        self.assertTrue(self.theirs.follow(self.at_a, *self.said["device"]))
        self.net.advance(1)
        self.assertIn(self.a.place, [source for source, _, _ in self.net.sent])
        self.assertEqual(self.said["a"][1].calls, 0)  # a connector calls nobody

    def test_a_call_of_before_our_time_is_old_news(self) -> None:
        endpoints, path = self.said["device"]
        late = msgspec.structs.replace(path, calls=7)
        del self.net.sent[:]
        self.theirs.follow(self.at_a, endpoints, late)
        self.net.advance(1)
        self.assertEqual(self.net.sent, [])
        self.theirs.follow(self.at_a, endpoints, msgspec.structs.replace(path, calls=8))
        self.net.advance(1)
        self.assertTrue(self.net.sent)


class Trouble(Two):
    def test_a_way_that_our_system_does_not_send_to_is_left_at_once(self) -> None:
        self.introduce()
        endpoints, path = self.said["a"]
        self.net.ports[SECOND] = self.net.ports[self.a.place]
        two = PathOffer(path.key, path.generation + 1, path.nat, ["host", "host"])
        self.ours.follow(self.to_a, [*endpoints, "198.51.100.9:1"], two)
        self.net.delay[SECOND] = 0.05
        leg = self.connected()
        self.who(leg, 3.0)
        self.assertEqual(self.way()["address"], "198.51.100.1:1")
        refused = self.tunnel.tunnel.udp.refused
        refused(self.a.place, 100, errno.EAGAIN)
        self.assertEqual(self.way()["address"], "198.51.100.1:1")
        refused(self.a.place, 100, errno.ENETUNREACH)
        self.assertEqual(self.way()["address"], "198.51.100.9:1")

    def test_a_small_wire_is_measured_and_told_to_the_stack(self) -> None:
        self.net.passes = lambda source, to, data: len(data) <= 1124 - 28
        self.introduce()
        leg = self.connected()
        self.who(leg, 5.0)
        self.assertEqual(self.way()["mtu"], 1124 - (1124 - 60) % 16)
        address = self.tunnel.config.services[0].ipv4
        assert address is not None
        self.assertEqual(self.tunnel.tunnel.path_mtu(address.packed), 1056)
        leg.transport.write(b"x" * 20_000)  # type: ignore[union-attr]
        leg.heard = b""
        self.net.advance(3)
        self.assertEqual(set(leg.heard), set(b"a"))

    def test_new_keys_where_probes_pass_and_data_does_not(self) -> None:
        self.introduce()
        leg = self.connected()
        self.assertEqual(self.who(leg), "a")
        self.net.passes = lambda source, to, data: data[0] != 4
        before = self.to_a.last_handshake
        for _ in range(40):
            leg.ask()
            self.net.advance(0.25)
        self.assertGreater(self.to_a.last_handshake, before)

    def test_nothing_that_is_no_probe_of_a_peer_is_answered(self) -> None:
        self.introduce()
        self.assertEqual(self.who(self.connected()), "a")
        stranger = ("203.0.113.66", 66)
        probe = next(data for _, to, data in self.net.sent if data[:4] == b"\xf1PT\x01")
        request = stun.binding_request(bytes(12))
        for data in (probe, bytes([probe[0] ^ 1]) + probe[1:], request, b"", b"\xff" * 40, b"\x01"):
            self.a.tunnel._other(data, stranger)
        self.net.advance(2)
        self.assertNotIn(stranger, {to for _, to, _ in self.net.sent})

    def test_what_is_no_address_is_no_candidate(self) -> None:
        texts = ["192.0.2.1:9", "host.example:9", "192.0.2.1:0", "[fe80::1%eth0]:9", "::1:9"]
        found = offered(texts, ["host"] * len(texts))
        self.assertEqual([where[1] for _, where in found], [9])
        self.assertEqual(offered(["192.0.2.1:9"], ["relay"]), [])


class Seen(Two):
    """What STUN says of us."""

    def answer(self, host: str, port: int, server: Place = SERVER) -> None:
        """Be the server: answer each request with this address."""

        class Port:
            @staticmethod
            def other(data: bytes, source: Place) -> None:
                request = stun.parse(data)
                reply = stun.binding_success(request.transaction, host, port, sealed=False)
                self.net.carry(server, source, len(reply), reply)

        self.net.ports[server] = Port  # type: ignore[assignment]

    def test_a_reflexive_address_is_published_and_told(self) -> None:
        self.answer("203.0.113.80", 8080)
        self.ours.outside._found([("stun.example:3478", *SERVER)])
        self.ours.flush(self.net.clock.seconds())
        self.net.advance(1)
        endpoints, path = self.said["device"]
        self.assertEqual(endpoints, ["192.0.2.1:1", "203.0.113.80:8080"])
        self.assertEqual(path.kinds, ["host", "reflexive"])
        check = peeringstatus.outside(self.ours.outside)
        json.dumps(check)
        (server,) = check["servers"]
        self.assertEqual(server["server"], "stun.example:3478")
        self.assertEqual(server["seen"], "203.0.113.80:8080")
        self.assertTrue(0.0 < server["rtt"] < 0.2)

    def test_a_gateway_is_asked_for_a_port_only_where_one_stands(self) -> None:
        made: list[Any] = []

        class Mapping:
            """What the outside wants of a port mapping."""

            def __init__(self, reactor: Any, port: int, changed: Any) -> None:
                self.changed, self.mapping, self.done = changed, None, []
                self.failure, self.gateway = "", "192.168.1.1"
                made.append(self)

            def start(self) -> None:
                self.done.append("start")

            def refresh(self) -> None:
                self.done.append("refresh")

            def stop(self) -> Any:
                self.done.append("stop")
                return succeed(None)

        self.patch(outside, "PortMapping", Mapping)
        found = self.ours.outside
        found.map_ports = True
        for number in (1, 2):
            self.answer("192.0.2.1", 1, (f"203.0.113.{number}", 3478))
        servers = [(f"s{number}:3478", f"203.0.113.{number}", 3478) for number in (1, 2)]
        found._found(servers)
        self.ours.flush(self.net.clock.seconds())
        self.net.advance(2)
        self.assertEqual(made, [])  # what servers see is our own address
        for number in (1, 2):
            self.answer("203.0.113.80", 8080, (f"203.0.113.{number}", 3478))
        self.ours.network_changed()
        self.net.advance(2)
        (mapping,) = made
        self.assertEqual(mapping.done, ["start"])
        mapping.mapping = Lease("pcp", "203.0.113.80", 9090, 1, 7200, 0.0)
        mapping.changed(mapping.mapping)
        endpoints, path = self.said["device"]
        self.assertEqual(path.kinds, ["host", "mapped", "reflexive"])
        self.assertEqual(endpoints[1], "203.0.113.80:9090")
        self.assertEqual(path.nat, "easy")
        check = peeringstatus.outside(found)
        wanted = {"protocol": "pcp", "address": "203.0.113.80:9090"}
        self.assertEqual(check["port_mapping"], wanted)
        self.ours.network_changed()
        self.assertEqual(mapping.done, ["start", "refresh"])
        self.ours.stopService()
        self.assertEqual(mapping.done[-1], "stop")

    def test_what_an_administrator_knows_comes_first(self) -> None:
        hosts = [f"192.0.2.{number}:1" for number in range(1, 30)]
        found = Outside(
            self.net.clock, self.tunnel.tunnel.udp, lambda: hosts, advertised=["[2001:db8::7]:9"]
        )
        found.start()
        kinds = [kind for kind, _ in found.candidates()]
        self.assertEqual(kinds, [STATIC] + [HOST] * 9)  # there is room for what is found out

    def test_servers_are_asked_as_soon_as_they_are_known(self) -> None:
        self.ours.outside._found([("stun.example:3478", *SERVER)])
        self.assertIn(SERVER, [to for _, to, _ in self.net.sent])
        self.ours.stopService()
        self.ours.outside._found([("stun.example:3478", *SECOND)])
        self.net.advance(30)
        self.assertNotIn(SECOND, [to for _, to, _ in self.net.sent])

    def test_netcheck_waits_for_a_round(self) -> None:
        self.successResultOf(self.ours.outside.ask_now())
        self.ours.outside._found([("stun.example:3478", *SERVER)])
        self.ours.flush(self.net.clock.seconds())
        asked = self.ours.outside.ask_now()
        self.net.advance(1)
        self.assertNoResult(asked)
        self.net.advance(6)
        (server,) = peeringstatus.outside(self.successResultOf(asked))["servers"]
        self.assertEqual(server["failure"], "no answer")
