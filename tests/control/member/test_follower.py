"""A node follows over loopback TLS: what it believes, what it refuses, what survives."""

import hashlib
import json
import time
from typing import Any

from border0.control.member.state import LEDGER_FILE, MAP_FILE, MemberState
from border0.errors import ConfigError
from border0.statements import TYPES, Statement, add_signatures, draft, sign
from tests.control.member.case import Member
from tests.support.organisation import identifier

NOBODY_MEMBERSHIPS = tuple(each for each in TYPES if each != "membership")


class Following(Member):
    async def test_a_map_a_change_and_a_command(self) -> None:
        self.plane.org.membership("alice", "eng")
        self.plane.publish()
        follower = await self.following()
        alice = identifier("alice")
        found = follower.ledger.current("membership", alice, follower.wall())
        self.assertEqual(found.body["email"], "alice@example.org")
        self.assertTrue(follower.connected)
        self.plane.org.remove("membership", alice)
        self.plane.publish()
        await self.waiter.until(lambda: self.state_of(follower, "membership", alice) == "absent")
        node = follower.state.node
        name = self.plane.hub.command(node, "kill", {"session": "s"}, follower.now())
        await self.waiter.until(lambda: self.commands)
        follower.answer(self.commands[0].id, False, "no such session")
        follower.answer("unknown", True)
        await self.waiter.until(lambda: self.plane.answers)
        self.assertEqual(self.plane.answers, [(node, name, False, "no such session")])

    async def test_a_control_plane_at_an_ipv6_address(self) -> None:
        await self.plane.stop()
        self.plane.host = "::1"
        await self.plane.start()
        follower = await self.following()
        self.assertTrue(follower.connected)
        self.assertEqual(self.plane.hosts, [self.plane.url.removeprefix("https://")])

    def state_of(self, follower: Any, type: str, id: str) -> str:
        return follower.ledger.state(type, id, follower.wall())

    async def test_what_was_believed_counts_without_a_network(self) -> None:
        self.plane.org.membership("alice")
        self.plane.publish()
        follower = await self.following()
        await follower.stopService()
        last = follower.last_contact
        again = self.follower(MemberState.open(self.folder))
        self.assertFalse(again.connected)
        self.assertEqual(again.ledger.revision, follower.ledger.revision)
        self.assertEqual(self.state_of(again, "membership", identifier("alice")), "current")
        self.assertEqual(again.last_contact, last)
        self.assertEqual(again.machine.map.entries, follower.machine.map.entries)
        # a restart is no contact: the time since the last one goes on
        later = self.follower(MemberState.open(self.folder), wall=lambda: last + 90_000.0)
        self.assertEqual(later.absence(), 90_000.0)

    async def test_a_clock_that_was_set_back_renews_nothing(self) -> None:
        state = await self.joined()
        last = state.load_contact().last
        back = last - 3600.0
        follower = self.follower(state, wall=lambda: back)
        self.assertEqual(follower.last_contact, back)
        back += 100.0
        self.assertEqual(follower.absence(), 100.0)

    async def test_a_clock_that_was_wrong_denies_only_while_it_is(self) -> None:
        self.plane.org.membership("alice")
        self.plane.publish()
        ahead, seen = [0.0], []
        state = await self.joined()
        follower = self.follower(state, wall=lambda: time.time() + ahead[0])
        follower.startService()
        await self.waiter.until(lambda: follower.synced)
        follower._changed = lambda one: seen.append(one.ledger.distrust(one.wall()))
        for ahead[0] in (10_000 * 86_400.0, 0.0):
            assert follower._tick is not None
            follower._tick.cancel()
            follower._keep_contact()
        self.assertEqual(2, follower.clock_sets)
        self.assertEqual(["", "expired"], sorted(each.rpartition(" ")[2] for each in seen))
        self.assertEqual("", seen[-1])

    async def test_a_lost_map_is_sent_again_and_a_damaged_ledger_is_an_error(self) -> None:
        follower = await self.following()
        await follower.stopService()
        (self.folder / MAP_FILE).unlink()
        again = self.follower(MemberState.open(self.folder))
        self.assertEqual(again.ledger.revision, follower.ledger.revision)
        again.startService()
        await self.waiter.until(lambda: again.synced)
        self.assertEqual(again.machine.map.entries, follower.machine.map.entries)
        await again.stopService()
        for damage in (b"", b"x", (self.folder / LEDGER_FILE).read_bytes()[:-1]):
            (self.folder / LEDGER_FILE).write_bytes(damage)
            error = self.assertRaises(ConfigError, self.follower, MemberState.open(self.folder))
            self.assertIn("join again", str(error))
        (self.folder / LEDGER_FILE).unlink()
        error = self.assertRaises(ConfigError, self.follower, MemberState.open(self.folder))
        self.assertIn("join again", str(error))

    async def test_an_older_state_is_never_taken_back(self) -> None:
        """A server restored from a copy, whose nodes are ahead of it."""
        org = self.plane.org
        org.membership("alice")
        self.plane.publish()
        old = self.plane.state
        org.remove("membership", identifier("alice"))
        self.plane.publish()
        follower = await self.following()
        newest = follower.ledger.revision
        port = self.plane.number
        await self.plane.stop()
        await self.waiter.until(lambda: not follower.connected)
        self.plane.state = old
        await self.plane.start(port)
        await self.waiter.until(lambda: self.plane.hub.counts["behind"])
        self.assertEqual(follower.ledger.revision, newest)
        self.assertFalse(follower.synced)

    async def test_a_lower_revision_is_refused(self) -> None:
        org = self.plane.org
        first = org.membership("alice", "admins")
        org.membership("alice")
        self.plane.publish()
        follower = await self.following()
        old_head = org.statement(
            "head", org.id, revision=1, live={"signers": {org.id: org.signers.hash}}
        )
        self.plane.publish(first, head=old_head)
        key = ("membership", identifier("alice"))
        await self.waiter.until(lambda: key in follower.refused)
        self.assertEqual(follower.refused[key].reason, "lower revision")
        self.assertEqual(follower.refused["head", org.id].reason, "lower revision")
        found = follower.ledger.current(*key, follower.wall())
        self.assertEqual(found.body["groups"], [])
        self.assertFalse(follower.synced)  # so this is no contact

    async def test_an_unknown_critical_field_is_refused_until_it_is_replaced(self) -> None:
        org = self.plane.org
        org.policy("p")
        self.plane.publish()
        follower = await self.following()
        key = ("policy", identifier("p"))
        body = draft(
            org.id, key[1], org.revision + 1, org.now, org.now + 1e6,
            name="p", version=2, text="{}", shadow=True, critical=["shadow"],
        )  # fmt: skip
        made = add_signatures(Statement("policy", json.dumps(body).encode()), org.key)
        self.assertRaises(ValueError, sign, "policy", body, org.key)
        org.revision += 1
        org.live[key] = made
        self.plane.publish()
        await self.waiter.until(lambda: key in follower.refused)
        self.assertEqual(follower.refused[key].reason, "unknown critical field")
        self.assertEqual(self.state_of(follower, *key), "missing")  # the old one is gone too
        org.policy("p", version=3)
        self.plane.publish()
        await self.waiter.until(lambda: self.state_of(follower, *key) == "current")
        self.assertEqual(follower.refused, {})

    async def test_presence_and_endpoints_outlive_the_connection(self) -> None:
        follower = await self.following()
        other = identifier("laptop")
        hub = self.plane.hub
        self.plane.keys[other] = self.plane.keys[follower.state.node]
        self.plane.org.node("laptop")
        self.plane.publish()
        await self.waiter.until(lambda: self.state_of(follower, "node", other) == "current")
        hub.report(other, ["192.0.2.7:32442"], follower.now())
        hub._notice(other, True, "198.51.100.7", follower.now())
        await self.waiter.until(lambda: follower.presence(other) and follower.endpoints(other))
        await self.plane.stop()
        await self.waiter.until(lambda: not follower.connected)
        self.assertEqual(follower.presence(other).address, "198.51.100.7")
        self.assertEqual(follower.endpoints(other), ["192.0.2.7:32442"])
        await follower.stopService()
        again = self.follower(MemberState.open(self.folder))
        self.assertEqual(again.endpoints(other), ["192.0.2.7:32442"])
        self.assertIsNone(again.presence(other))
        await self.plane.start()

    async def test_a_configuration_counts_when_its_statement_names_it(self) -> None:
        follower = await self.following()
        id = self.plane.socket("db", {"socket_type": "database"})
        self.plane.publish()
        await self.waiter.until(lambda: follower.configuration(id))
        self.assertEqual(follower.configuration(id), b'{"socket_type": "database"}')
        self.plane.configurations[id] = b'{"socket_type": "ssh"}'  # nobody signed this
        self.plane.publish()
        key = ("configuration", id)
        digest = hashlib.sha256(b'{"socket_type": "ssh"}').hexdigest()
        await self.waiter.until(lambda: follower.machine.map.entries[key][0] == digest)
        self.assertIsNone(follower.configuration(id))

    async def test_statements_expire_by_the_clock(self) -> None:
        calls: list[str] = []
        follower = await self.following()
        follower._changed = lambda f: calls.append(self.state_of(f, "membership", id))
        id = identifier("alice")
        self.plane.org.now = follower.wall()
        self.plane.org.membership("alice", lifetime=1.0)
        self.plane.publish()
        await self.waiter.until(lambda: "missing" in calls)
        self.assertEqual(calls[-2:], ["current", "missing"])

    async def test_what_counts_is_on_the_disk_before_it_is_told_and_the_map_soon_after(
        self,
    ) -> None:
        told: list[tuple[int, int]] = []

        def changed(follower: Any) -> None:
            told.append((follower.state.load_ledger().revision, follower.ledger.revision))
            self.waiter([])

        follower = await self.following(changed=changed)
        for name in ("laptop", "phone"):
            self.plane.org.node(name, addresses=[])
            self.plane.publish()
            key = identifier(name)
            await self.waiter.until(lambda id=key: self.state_of(follower, "node", id) == "current")
        self.assertEqual([saved for saved, _ in told], [held for _, held in told])
        await follower.stopService()
        state = MemberState.open(self.folder)
        self.assertEqual(state.load_map().fingerprint, follower.machine.map.fingerprint)

    async def test_a_full_disk_is_said_and_the_change_is_obeyed(self) -> None:
        follower = await self.following()

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        self.patch(follower.state, "save_ledger", full)
        self.plane.org.membership("alice")
        self.plane.publish()
        key = ("membership", identifier("alice"))
        await self.waiter.until(lambda: self.state_of(follower, *key) == "current")
        self.assertIn("No space left", follower.failure)


class OtherSigners(Member):
    """People are signed by a key that the control plane has not."""

    signers = {"control": NOBODY_MEMBERSHIPS, "people": ("membership", "node")}

    async def test_a_membership_by_a_key_that_may_not_sign_it(self) -> None:
        self.plane.org.membership("alice", by="people")
        self.plane.org.membership("mallory", by="control")
        self.plane.publish()
        follower = await self.following()
        now = follower.wall()
        key = ("membership", identifier("mallory"))
        self.assertEqual(follower.refused[key].reason, "key not allowed")
        self.assertIsNone(follower.ledger.current(*key, now))
        self.assertIsNotNone(follower.ledger.current("membership", identifier("alice"), now))


class OnlyPeopleAddNodes(Member):
    """Another signer is configured for nodes: what the control plane inserts is ignored."""

    signers = {
        "control": tuple(each for each in TYPES if each != "node"),
        "people": ("node",),
    }

    async def test_an_inserted_device_is_ignored(self) -> None:
        self.plane.org.node("laptop", by="people")
        self.plane.org.node("intruder", by="control")
        self.plane.publish()
        follower = await self.following()
        names = [node.body["name"] for node in follower.ledger.every("node", follower.wall())]
        self.assertEqual(names, ["laptop"])
        self.assertEqual(list(follower.refused), [("node", identifier("intruder"))])
