"""Ways by relays between two tunnels, on a virtual clock: nothing of a relay is believed."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from border0.processes import peeringstatus
from border0.processes.relaying import HOME_PATIENCE, ROUND, Relaying
from border0.relay.events import Drain
from tests.processes.test_peering import Two
from tests.support.fakenet import Place
from tests.support.fakerelay import FakeLink, FakeRelay, entry


class Relayed(Two):
    """The device and connector a know relays; what each publishes reaches the other at once."""

    relays: tuple[str, ...] = ("r1",)
    blocked = True  # UDP between the two

    def setUp(self) -> None:
        super().setUp()
        self.houses = {id: FakeRelay(self.net, id) for id in self.relays}
        self.links: dict[tuple[str, bytes], FakeLink] = {}
        self.entries = [entry(id) for id in self.relays]
        self.tickets: dict[str, bytes] = dict.fromkeys(self.relays, b"first")
        self.mine = self.relaying(self.ours, self.tunnel.device.public_key)
        self.other = self.relaying(self.theirs, self.a.device.public_key)
        if self.blocked:
            self.block()

    def block(self, *, probes: bool = True) -> None:
        """No UDP between the two."""
        self.net.down.update((self.a.place, ("192.0.2.1", 1)))

    def relaying(self, peering: Any, key: bytes) -> Relaying:
        def link(what: Any, ticket: Any, heard: Any, told: Any) -> FakeLink:
            made = FakeLink(self.houses[what.id], key, ticket, heard, told)
            self.links[what.id, key] = made
            return made

        made = Relaying(self.net.clock, peering, b"", None, link=link)  # type: ignore[arg-type]
        made.update(self.entries, self.tickets.get)
        made.startService()
        return made

    def introduce(self) -> None:
        super().introduce()

        def spread(name: str, publish: Any) -> Any:
            def told(endpoints: Any, path: Any) -> None:
                self.said[name] = endpoints, path
                self.net.clock.callLater(0.1, publish)

            return told

        self.ours.publish(
            spread("device", lambda: self.theirs.follow(self.at_a, *self.said["device"]))
        )
        self.theirs.publish(spread("a", lambda: self.ours.follow(self.to_a, *self.said["a"])))

    def relay_ways(self, peering: Any, key: bytes) -> list[str]:
        paths = peering.prober.peers[key].paths
        return sorted(str(place) for place, path in paths.items() if path.address is None)

    @property
    def to_device(self) -> bytes:
        return self.tunnel.device.public_key


class One(Relayed):
    def test_udp_blocked_leaves_a_working_product(self) -> None:
        self.introduce()
        self.net.advance(1)
        self.assertEqual(self.said["device"][1].relays, ["r1"])
        self.assertEqual(self.who(self.connected()), "a")
        way = self.way()
        self.assertEqual((way["method"], way["address"]), ("udpR", "r1-name"))
        self.assertEqual((way["state"], way["kind"], way["active"]), ("valid", "relay", True))
        self.assertTrue(0.07 < way["rtt"] < 0.3)
        self.assertEqual(way["mtu"], 1500)
        self.assertFalse(self.to_a.roams)

    def test_the_old_reader_of_an_offer_ignores_the_relays(self) -> None:
        self.introduce()
        self.net.advance(1)
        offer = msgspec.to_builtins(self.said["device"][1])
        self.assertEqual(offer["relays"], ["r1"])
        del offer["relays"]
        self.assertEqual(msgspec.convert(offer, type(self.said["device"][1])).relays, [])

    def test_many_datagrams_are_one_turn(self) -> None:
        self.introduce()
        self.net.advance(1)
        leg = self.connected()
        self.who(leg)
        before = len(self.houses["r1"].carried), self.houses["r1"].turns
        leg.transport.write(b"x" * 60_000)  # type: ignore[union-attr]
        self.net.advance(3)
        carried = len(self.houses["r1"].carried) - before[0]
        turns = self.houses["r1"].turns - before[1]
        self.assertGreater(carried, 60)
        self.assertLess(turns, carried / 2)
        self.assertTrue(all(len(each) <= 1500 for _, _, each in self.houses["r1"].carried))

    def test_a_lost_relay_is_noticed_at_once_and_used_again(self) -> None:
        self.introduce()
        self.net.advance(1)
        leg = self.connected()
        self.who(leg)
        self.houses["r1"].stop()
        self.assertEqual(self.way()["state"], "dead")
        leg.heard = b""
        leg.ask()
        self.net.advance(3)
        self.assertEqual(leg.heard, b"")
        self.houses["r1"].start()
        self.net.advance(5)
        self.assertEqual(leg.heard, b"a")
        self.assertEqual(self.way()["state"], "valid")

    def test_gone_ends_the_way_at_once_and_forgets_nobody(self) -> None:
        self.introduce()
        self.net.advance(1)
        leg = self.connected()
        self.who(leg)
        self.links["r1", self.to_a.public_key].lose()
        leg.ask()
        self.net.advance(0.2)
        self.assertEqual(self.way()["state"], "dead")
        self.assertEqual(self.who(leg, 4.0), "a")

    def test_a_ticket_that_came_later_and_a_fresh_one(self) -> None:
        self.tickets.clear()
        link = self.links["r1", self.to_device]
        link.lose() if link.up else None
        self.mine.update(self.entries, self.tickets.get)
        self.net.advance(1)
        self.assertFalse(link.up)
        self.tickets["r1"] = b"second"
        self.mine.update(self.entries, self.tickets.get)
        self.mine.update(self.entries, self.tickets.get)
        self.assertEqual(link.tickets, [b"second"])
        self.net.advance(1)
        self.assertTrue(link.up)

    def test_a_relay_that_is_taken_away(self) -> None:
        self.introduce()
        self.net.advance(1)
        self.who(self.connected())
        self.mine.update([], self.tickets.get)
        self.assertEqual(self.relay_ways(self.ours, self.to_a.public_key), [])
        self.assertEqual(self.mine.sites, {})
        self.net.advance(1)
        self.assertEqual(self.said["device"][1].relays, [])
        self.assertEqual(self.relay_ways(self.theirs, self.to_device), [])

    def test_a_changed_network_is_doubted_at_once(self) -> None:
        self.ours.network_changed()
        self.assertEqual(self.links["r1", self.to_device].doubts, 1)

    def test_a_removed_peer_is_forgotten(self) -> None:
        self.introduce()
        self.net.advance(1)
        self.who(self.connected())
        self.tunnel.install(self.config({"web": ["b"]}))
        self.assertEqual(self.mine.sites["r1"].ways, {})
        self.net.advance(20)
        self.assertGreater(
            self.mine.peers.dropped, 0
        )  # the connector's probes, which nobody wants now

    def test_the_end_says_good_bye_by_the_relay(self) -> None:
        self.introduce()
        self.net.advance(1)
        self.who(self.connected())
        self.ours.stopService()
        self.assertEqual(self.mine.sites, {})
        self.assertFalse(self.links["r1", self.to_device].running)


class Upgrade(Relayed):
    blocked = False

    def test_the_direct_way_takes_over_without_a_lost_byte(self) -> None:
        self.introduce()
        self.block()
        self.net.advance(1)
        leg = self.connected()
        self.who(leg)
        self.assertEqual(self.way()["method"], "udpR")
        leg.heard = b""
        asked = 0
        for turn in range(400):
            leg.ask()
            asked += 1
            self.net.advance(0.1)
            if turn == 20:
                self.net.down.clear()
            if turn == 300:
                self.block()
        self.net.advance(5)
        reasons = self.ours.prober.peers[self.to_a.public_key].switches
        self.assertEqual(reasons, 3)  # relay, direct, relay
        self.assertEqual(self.way()["method"], "udpR")
        self.assertEqual(set(leg.heard), set(b"a"))
        self.assertGreaterEqual(len(leg.heard), asked // 8)

    def test_both_punch_when_one_says_so_by_the_relay(self) -> None:
        """Each gateway lets in what its side has sent to first; the control plane is not asked."""
        opened: set[tuple[Place, Place]] = set()

        def passes(source: Place, to: Place, data: bytes) -> bool:
            opened.add((source, to))
            return (to, source) in opened

        self.net.passes = passes
        self.introduce()
        self.net.advance(1)
        leg = self.connected()
        self.who(leg, 8.0)
        self.assertEqual(self.way()["method"], "udp4")
        self.assertEqual(self.said["device"][1].calls, 0)

    def test_an_equal_direct_way_is_preferred_and_a_bad_one_is_not(self) -> None:
        self.net.delay[self.a.place] = 0.2
        self.introduce()
        self.net.advance(1)
        leg = self.connected()
        self.who(leg, 20.0)
        self.assertEqual(self.way()["method"], "udpR")  # 80 ms go before 420 ms
        self.net.delay[self.a.place] = 0.02
        for _ in range(250):
            self.who(leg, 0.5)
        self.assertEqual(self.way()["method"], "udp4")


class Lies(Relayed):
    def test_a_false_label_moves_nothing(self) -> None:
        """The relay says that everything of connector a is the device's other connector's."""
        self.introduce()
        self.net.advance(1)
        leg = self.connected()
        self.assertEqual(self.who(leg), "a")
        house = self.houses["r1"]
        stock = self.peer(self.b).public_key
        before = self.peer(self.b).endpoint
        house.lies = lambda source, to, datagram: [
            (stock if source == self.to_a.public_key else source, to, datagram)
        ]
        self.net.advance(1)
        for _ in range(20):
            leg.ask()
            self.net.advance(0.2)
        self.assertEqual(self.peer(self.b).endpoint, before)
        self.assertGreater(self.mine.peers.dropped, 0)
        house.lies = lambda source, to, datagram: [(source, to, datagram)]
        self.assertEqual(set(self.who(leg, 8.0)), {"a"})

    def test_a_stock_peers_datagram_under_anothers_label(self) -> None:
        """A datagram of b that the relay got somewhere, labelled as a's: b stays where it is."""
        self.introduce()
        self.net.advance(1)
        self.assertEqual(self.who(self.connected()), "a")
        self.net.down = {self.a.place}
        seen: list[bytes] = []

        def passes(source: Place, to: Place, data: bytes) -> bool:
            if source == self.b.place:
                seen.append(data)
            return source != self.b.place

        self.net.passes = passes
        here = self.peer(self.b)
        self.net.advance(6)
        self.tunnel.tunnel.call(here)
        self.net.advance(0.5)
        self.assertIsNone(here.last_handshake)
        answer = [data for data in seen if data[0] == 2][-1]
        before = here.endpoint
        self.mine.peers.heard(self.mine.sites["r1"], [(self.to_a.public_key, answer)])
        self.assertIsNotNone(here.last_handshake)  # it is b's own message
        self.assertEqual(here.endpoint, before)

    def test_repeated_reordered_and_made_up_datagrams(self) -> None:
        self.introduce()
        self.net.advance(1)
        leg = self.connected()
        self.assertEqual(self.who(leg), "a")
        house, kept = self.houses["r1"], list(self.houses["r1"].carried)

        def lies(source: bytes, to: bytes, datagram: bytes) -> Any:
            flipped = datagram[:-1] + bytes([datagram[-1] ^ 1])
            old = [(src, dst, data) for src, dst, data in kept[-5:] if dst == to]
            return [*old, (source, to, flipped), (source, to, b"\x00"), (source, to, datagram),
                    (source, to, datagram), (source, to, b"\x01\x00\x00\x00")]  # fmt: skip

        house.lies = lies
        self.net.advance(1)
        for _ in range(10):
            self.assertEqual(set(self.who(leg, 0.5)), set("a"))
        self.assertEqual(self.way()["method"], "udpR")


class Several(Relayed):
    relays = ("r1", "r2", "r3")

    def setUp(self) -> None:
        super().setUp()
        for number, id in enumerate(self.relays):
            self.houses[id].one_way = 0.01 * (number + 1)

    def test_the_nearest_and_a_warm_second(self) -> None:
        self.introduce()
        self.net.advance(3)
        self.assertEqual(self.said["device"][1].relays, ["r1", "r2"])
        self.assertEqual(set(self.mine.sites), {"r1", "r2"})
        self.assertEqual(self.relay_ways(self.ours, self.to_a.public_key), ["r1-name", "r2-name"])
        self.assertEqual(self.who(self.connected()), "a")
        self.assertEqual(self.way()["address"], "r1-name")
        near, far = self.told()["relays"]
        self.assertEqual((near["name"], near["use"], near["rtt"]), ("r1-name", "home", 0.02))
        self.assertEqual((far["use"], far["ways"], far["why"]), ("second", 1, ""))
        # A relay that is tried says why it is not there.
        self.houses["r2"].stop()
        self.mine.sites["r2"].link.why = "refused: no ticket"
        far = self.told()["relays"][1]
        self.assertEqual(
            (far["connected"], far["rtt"], far["why"]), (False, None, "refused: no ticket")
        )

    def test_the_second_takes_over_at_once(self) -> None:
        self.introduce()
        self.net.advance(3)
        leg = self.connected()
        self.who(leg)
        self.houses["r1"].stop()
        self.assertEqual(self.way()["address"], "r2-name")
        self.assertEqual(self.who(leg, 0.5), "a")
        self.net.advance(HOME_PATIENCE + 6)
        self.assertEqual(self.said["device"][1].relays, ["r2", "r3"])
        self.assertEqual(self.who(leg, 0.5), "a")
        self.assertEqual(
            [(one["name"], one["use"], one["connected"]) for one in self.told()["relays"]],
            [("r2-name", "home", True), ("r3-name", "second", True)],
        )

    def told(self) -> Any:
        return peeringstatus.stats(self.tunnel.tunnel)

    def test_another_home_only_after_three_rounds(self) -> None:
        self.net.advance(3)
        self.houses["r3"].one_way = 0.001
        self.net.advance(2.3 * ROUND)
        self.assertEqual(self.mine.choice.home, "r1")
        self.assertEqual(self.mine.choice.second, "r3")
        self.net.advance(1.3 * ROUND)
        self.assertEqual(self.mine.choice.chosen, ["r3", "r1"])

    def test_a_relay_that_drains_is_left_for_another(self) -> None:
        self.introduce()
        self.net.advance(3)
        leg = self.connected()
        self.who(leg)
        site = self.mine.sites["r1"]
        site.link.told([Drain(30.0, self.net.clock.seconds() + 2.0, "")])  # type: ignore[attr-defined]
        for _ in range(40):
            self.assertEqual(set(self.who(leg, 0.5)), set("a"))
        self.assertEqual(self.mine.choice.chosen, ["r2", "r3"])
        self.assertNotIn("r1", self.mine.sites)

    def silent(self, id: str, silent: bool = True) -> None:
        """The relay's connections stand, and nothing comes through."""
        self.houses[id].lies = lambda source, to, datagram: (
            [] if silent else [(source, to, datagram)]
        )

    def test_a_silent_relay_is_left(self) -> None:
        self.introduce()
        self.net.advance(3)
        leg = self.connected()
        self.who(leg)
        self.silent("r1")
        self.assertEqual(self.who(leg, 2.5), "a")
        self.assertEqual(self.way()["address"], "r2-name")

    def test_what_waited_for_the_only_relay_goes_when_it_speaks_again(self) -> None:
        """Not when a timer has doubled often enough to say so: up to six seconds later."""
        for relaying in (self.mine, self.other):
            relaying.update(self.entries[:1], self.tickets.get)
        self.introduce()
        self.net.advance(3)
        leg = self.connected()
        for seconds in (5.0, 8.0, 10.0):
            self.assertEqual(self.who(leg), "a")
            self.silent("r1")
            self.assertEqual(self.who(leg, seconds), "")
            self.silent("r1", False)
            self.net.advance(2)
            self.assertEqual(leg.heard, b"a")

    def sent_away(self) -> Any:
        """Of two relays the first sends both nodes away and restarts; a program at work."""
        for relaying in (self.mine, self.other):
            relaying.update(self.entries[:2], self.tickets.get)
        self.introduce()
        self.net.advance(3)
        leg = self.connected()
        self.who(leg)
        for relaying in (self.mine, self.other):
            told: Any = relaying.sites["r1"].link
            told.told([Drain(1.0, self.net.clock.seconds() + 0.5, "")])
        self.net.advance(2)
        self.assertEqual(self.mine.choice.chosen, ["r2"])
        return leg

    def test_a_relay_that_drained_is_the_warm_second_again_soon(self) -> None:
        leg = self.sent_away()
        self.net.advance(130)  # seconds: no usual round has come
        self.assertEqual(self.mine.choice.chosen, ["r2", "r1"])
        self.assertEqual(self.other.choice.chosen, ["r2", "r1"])
        self.assertEqual(self.who(leg), "a")

    def test_a_relay_that_was_away_is_the_warm_second_again_soon(self) -> None:
        for relaying in (self.mine, self.other):
            relaying.update(self.entries[:2], self.tickets.get)
        self.net.advance(3)
        self.houses["r1"].stop()
        self.net.advance(HOME_PATIENCE + 12)
        self.assertEqual(self.mine.choice.chosen, ["r2"])
        self.houses["r1"].start()
        self.net.advance(45)
        self.assertEqual(self.mine.choice.chosen, ["r2", "r1"])
        self.assertEqual(self.other.choice.chosen, ["r2", "r1"])
        self.assertTrue(self.mine.sites["r1"].up)

    def test_a_second_that_never_comes_is_looked_for_ever_more_seldom(self) -> None:
        for relaying in (self.mine, self.other):
            relaying.update(self.entries[:2], self.tickets.get)
        self.net.advance(3)
        self.houses["r1"].stop()
        tries: list[float] = []
        measure = self.mine._measure
        self.mine._measure = lambda: (tries.append(self.net.clock.seconds()), measure())[1]  # type: ignore[method-assign]
        self.net.advance(1200)
        rests = [late - early for early, late in itertools.pairwise(tries)]
        self.assertLess(rests[0], 45)
        self.assertGreater(rests[-1], 250)
        self.assertLessEqual(len(tries), 10)

    def test_a_relay_that_drained_is_better_than_none(self) -> None:
        leg = self.sent_away()
        self.net.advance(5)
        self.houses["r2"].stop()
        self.net.advance(HOME_PATIENCE + 8)
        self.assertEqual(self.who(leg), "a")
        self.assertEqual(self.way()["address"], "r1-name")

    def test_an_entry_that_drains_or_weighs_nothing(self) -> None:
        self.net.advance(3)
        self.entries = [entry("r1", drain=True), entry("r2", weight=0), entry("r3")]
        self.mine.update(self.entries, self.tickets.get)
        self.net.advance(6)
        self.assertEqual(self.mine.choice.chosen[0], "r3")

    def test_a_device_visits_its_connectors_relay(self) -> None:
        self.mine.update([entry("r1"), entry("r2"), entry("r3", weight=0)], self.tickets.get)
        self.other.update([entry("r3")], self.tickets.get)
        self.net.advance(3)
        self.introduce()
        self.net.advance(3)
        self.assertEqual(self.said["a"][1].relays, ["r3"])
        self.assertEqual(self.said["device"][1].relays, ["r1", "r2", "r3"])
        self.assertEqual(self.who(self.connected()), "a")
        self.assertEqual(self.way()["address"], "r3-name")

    def test_a_label_of_somebody_who_comes_newly(self) -> None:
        """The offer of the device does not name the relay yet: its own datagrams are enough."""
        self.introduce()
        self.net.advance(3)
        bare = msgspec.structs.replace(self.said["device"][1], relays=[])
        self.theirs.publish(lambda endpoints, path: None)
        self.theirs.follow(self.at_a, self.said["device"][0], bare)
        self.assertEqual(self.relay_ways(self.theirs, self.to_device), [])
        self.ours.publish(lambda endpoints, path: None)
        self.assertEqual(self.who(self.connected(patience=6.0)), "a")
        self.assertIn("r1-name", self.relay_ways(self.theirs, self.to_device))


class Told(Relayed):
    def test_debug_peers(self) -> None:
        self.introduce()
        self.net.advance(1)
        self.who(self.connected())
        found = peeringstatus.peers(self.tunnel.tunnel)["peers"]
        peer = next(one for one in found if one["alias"] == "a")
        methods = {way["method"] for way in peer["connections"]}
        self.assertEqual(methods, {"udp4", "udpR"})
        self.assertNotIsInstance(self.at_a.source, tuple)
