"""What a follower tells and knows of ways between nodes: over TLS, and over restarts."""

import json
import stat
from base64 import b64encode
from typing import Any

from border0.control.member.follower import Follower
from border0.control.member.neighbours import LIMIT
from border0.control.member.state import CONTACT_FILE, Contact, MemberState
from border0.control.push.events import SoftChanged
from border0.control.push.messages import PathOffer
from tests.control.member.case import Member
from tests.support.organisation import identifier

WHERE = ["192.0.2.7:32442", "[2001:db8::7]:32442"]


def offer(number: int, generation: int = 1, nat: Any = "easy") -> PathOffer:
    key = b64encode(bytes([number]) * 32).decode()
    return PathOffer(key, generation, nat, ["host", "reflexive"])


class Ways(Member):
    async def with_laptop(self, **more: Any) -> tuple[Follower, str]:
        """A follower in whose map there is another node."""
        follower = await self.following(**more)
        other = identifier("laptop")
        self.plane.keys[other] = self.plane.keys[follower.state.node]
        self.plane.org.node("laptop")
        self.plane.publish()
        await self.waiter.until(lambda: follower.ledger.current("node", other, follower.wall()))
        self.plane.hub._notice(other, True, "198.51.100.7", follower.now())
        return follower, other

    async def test_what_a_node_reports_is_what_the_control_plane_has(self) -> None:
        follower = await self.following()
        node, facts = follower.state.node, self.plane.hub._facts._endpoints

        def held() -> Any:
            return facts.get(node, follower.now())

        for path in (None, offer(1), offer(1, 2), offer(1, 2, "hard"), offer(2), None):
            follower.report(WHERE, path)
            await self.waiter.until(lambda told=path: held() == (WHERE, told))
        stamp = self.plane.hub._facts._stamp
        follower.report(list(WHERE), None)
        follower.report(WHERE[:1], None)
        await self.waiter.until(lambda: held() == (WHERE[:1], None))
        self.assertEqual(self.plane.hub._facts._stamp, stamp + 1, "the same is not told twice")
        self.assertRaises(ValueError, follower.report, WHERE[:1], offer(1))
        follower.report(WHERE, offer(3))
        await self.waiter.until(lambda: held() == (WHERE, offer(3)))
        port = self.plane.number
        await self.plane.stop()
        await self.waiter.until(lambda: not follower.connected)
        await self.plane.start(port)
        facts = self.plane.hub._facts._endpoints
        await self.waiter.until(lambda: held() == (WHERE, offer(3)))

    async def test_paths_are_of_this_run_only(self) -> None:
        calls: list[Any] = []
        follower, other = await self.with_laptop()
        follower._changed = lambda f: calls.append((f.endpoints(other), f.paths(other)))
        hub, now = self.plane.hub, follower.now
        self.assertIsNone(follower.paths(other))
        for path in (offer(1), offer(1, 2), offer(2)):
            hub.report(other, WHERE, now(), path)
            await self.waiter.until(lambda told=path: follower.paths(other) == told)
            self.assertEqual(calls[-1], (WHERE, path), "told, though only the path part changed")
        await self.plane.stop()
        await self.waiter.until(lambda: not follower.connected)
        later = now() + 10_000.0
        self.patch(follower, "now", lambda: later)
        self.assertEqual(follower.paths(other), offer(2), "as long as nobody says otherwise")
        await follower.stopService()
        again = self.follower(MemberState.open(self.folder))
        self.assertEqual(again.endpoints(other), WHERE)
        self.assertIsNone(again.paths(other))
        self.assertNotIn(offer(2).key.encode(), (self.folder / CONTACT_FILE).read_bytes())
        await self.plane.start()

    async def test_a_node_that_began_anew_without_probes_has_no_path(self) -> None:
        follower, other = await self.with_laptop()
        self.plane.hub.report(other, WHERE, follower.now(), offer(1))
        await self.waiter.until(lambda: follower.paths(other))
        self.plane.hub.report(other, WHERE[:1], follower.now())
        await self.waiter.until(lambda: follower.endpoints(other) == WHERE[:1])
        self.assertIsNone(follower.paths(other))

    async def test_a_node_that_left_has_neither(self) -> None:
        follower, other = await self.with_laptop()
        self.plane.hub.report(other, WHERE, follower.now(), offer(1))
        await self.waiter.until(lambda: follower.paths(other))
        self.plane.org.remove("node", other)
        self.plane.publish()
        await self.waiter.until(lambda: not follower.endpoints(other))
        self.assertIsNone(follower.paths(other))
        self.assertIsNone(follower.presence(other))

    async def test_what_is_known_of_strangers_is_bounded(self) -> None:
        follower = self.follower(await self.joined())
        known, machine, now = follower.neighbours, follower.machine, follower.now()
        many = {f"x{number}": WHERE for number in range(LIMIT)}
        follower._contact.endpoints.update(many)
        machine.endpoints.put("y", 1, 60.0, WHERE, now)
        known.changed(SoftChanged("endpoints", "y"), now)
        self.assertEqual(len(follower._contact.endpoints), LIMIT)
        machine.endpoints.put("x1", 1, 60.0, WHERE[:1], now)
        known.changed(SoftChanged("endpoints", "x1"), now)
        self.assertEqual(known.endpoints("x1"), WHERE[:1])


class StunServers(Member):
    async def test_the_servers_of_a_welcome_outlive_the_process(self) -> None:
        self.plane.stun += [":3478", "stun.example.org:3479"]
        calls: list[list[str]] = []
        follower = await self.following(changed=lambda f: calls.append(f.stun))
        expected = ["127.0.0.1:3478", "stun.example.org:3479"]
        self.assertEqual(follower.stun, expected)
        self.assertIn(expected, calls)
        file = self.folder / CONTACT_FILE
        self.assertEqual(json.loads(file.read_bytes())["stun"], self.plane.stun, "at once")
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        await follower.stopService()
        again = self.follower(MemberState.open(self.folder))
        self.assertEqual(again.stun, expected)
        self.plane.stun.clear()
        again.startService()
        await self.waiter.until(lambda: again.synced)
        self.assertEqual(again.stun, [])
        await again.stopService()
        self.assertEqual(MemberState.open(self.folder).load_contact().stun, [])

    async def test_joining_again_keeps_them(self) -> None:
        state = await self.joined()
        contact = state.load_contact()
        contact.stun = ["stun.example.org:1"]
        state.save_contact(contact)
        state = await self.joined()
        self.assertEqual(state.load_contact().stun, ["stun.example.org:1"])

    async def test_a_file_of_before_and_a_damaged_one(self) -> None:
        state = await self.joined()
        file = self.folder / CONTACT_FILE
        for text, found in (
            ('{"last": 5.0, "endpoints": {"n": ["192.0.2.1:1"]}}', []),
            ('{"last": 5.0, "endpoints": {"n": ["192.0.2.1:1"]}, "stun": [":1", "x", 7, ":2"]}',
             ["127.0.0.1:1", "127.0.0.1:2"]),
        ):  # fmt: skip
            file.write_text(text)
            follower = self.follower(state)
            self.assertEqual(follower.endpoints("n"), ["192.0.2.1:1"])
            self.assertEqual(follower.stun, found)
        file.write_text(json.dumps({"last": 5.0, "stun": [f":{port}" for port in range(1, 9999)]}))
        self.assertEqual(len(self.follower(state).stun), 16)
        for text in ('{"stun": 7}', '{"stun": null}', "[]", "7"):
            file.write_text(text)
            self.assertEqual(state.load_contact(), Contact())
