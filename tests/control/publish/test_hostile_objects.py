"""What cannot be signed stops nothing else: the object is nobody's, every other is published."""

from border0.control.publish import publisher as module
from border0.control.publish import signing
from border0.control.store import devices, groups, policies, statements, users
from border0.control.store.errors import Exhausted
from tests.control.publish.case import PublisherCase, key_text, policy_text
from tests.control.store.case import ACME, DAY


class Poisoned(PublisherCase):
    async def poison(self, tx):
        """Objects that the API refuses, as an older version or a hand in the database leaves."""

    async def begin(self):
        await super().begin()
        await self.furnish()

    async def still_publishing(self):
        await self.changed(
            lambda tx: policies.edit(tx, self.policy.id, None, policy_text("bob@example.org"))
        )
        self.assertNotIn(("node", self.alice), self.entries(self.lab.id))
        self.assertIn(("node", self.bob), self.entries(self.lab.id))

    async def test_a_text_that_is_too_large(self):
        big = await self.changed(
            lambda tx: policies.create(tx, name="big", text="\N{GRINNING FACE}" * 70_000)
        )
        self.assertEqual([("policy", big.id)], list(self.publisher.unsigned))
        await self.still_publishing()
        await self.changed(lambda tx: policies.edit(tx, big.id, None, policy_text("a@b.c")))
        self.assertEqual({}, self.publisher.unsigned)
        self.assertIn(("policy", big.id), self.publisher.signing.held)

    async def test_a_policy_that_becomes_too_large_lets_nobody_in(self):
        await self.changed(
            lambda tx: policies.edit(tx, self.policy.id, None, "\N{GRINNING FACE}" * 70_000)
        )
        self.assertNotIn(("policy", self.policy.id), self.publisher.signing.held)
        ledger = self.ledger(self.lab.id)
        attached = ledger.policies(self.db.id, self.clock())
        self.assertEqual(((("policy", self.policy.id),), []),
                         (attached.missing, list(attached.policies)))  # fmt: skip
        await self.still_publishing()

    async def test_tags_twice_an_address_with_a_line_feed_and_a_name_that_is_none(self):
        def make(tx):
            tagged = devices.create(
                tx, name="ci", wireguard_key=key_text(7), machine_key=key_text(107),
                tags=["ci", "ci"], approved=True,
            )  # fmt: skip
            eve = users.create(tx, issuer="local", subject="e", email="eve\n@example.org")
            odd = devices.create(
                tx, name="No Label", wireguard_key=key_text(8), machine_key=key_text(108),
                user_id=eve.id, approved=True,
            )  # fmt: skip
            return tagged.id, eve.id, odd.id

        tagged, eve, odd = await self.changed(make)
        wanted = {("node", tagged), ("membership", eve), ("node", odd)}
        self.assertEqual(wanted, set(self.publisher.unsigned))
        await self.still_publishing()
        again = await self.published()  # a start of the process does not stop at them either
        self.assertEqual(wanted, set(again.unsigned))

    async def test_a_user_is_not_put_into_more_groups_than_a_statement_holds(self):
        user = await self.change(
            lambda tx: users.create(tx, issuer="local", subject="x", email="x@example.org")
        )

        def fill(tx):
            for number in range(groups.GROUPS_LIMIT):
                name = f"{number:03}" + "\N{CJK UNIFIED IDEOGRAPH-20000}" * 60
                groups.add(tx, groups.create(tx, name=name).id, user.id)
            return groups.create(tx, name="one more").id

        more = await self.changed(fill)
        self.assertEqual({}, self.publisher.unsigned)
        self.assertIn(("membership", user.id), self.publisher.signing.held)
        try:
            await self.change(lambda tx: groups.add(tx, more, user.id))
            self.fail("one group too many")
        except Exhausted:
            pass

    async def test_of_too_many_objects_the_new_ones_wait(self):
        self.patch(signing, "OBJECTS_LIMIT", len(self.publisher.signing.held) + 1)
        ids = []
        for number in range(3):
            made = await self.changed(
                lambda tx, n=number: policies.create(tx, name=f"p{n}", text=policy_text("a@b.c"))
            )
            ids.append(made.id)
        self.assertEqual({("policy", id) for id in ids[1:]}, set(self.publisher.unsigned))
        await self.still_publishing()
        await self.changed(lambda tx: policies.remove(tx, ids[0]))
        self.patch(module, "RETRY_LOOKS", 1)
        self.publisher._look_round()
        await self.publisher.settled()
        self.assertEqual(1, len(self.publisher.unsigned))

    async def test_a_damaged_statement_is_signed_anew(self):
        def damage(tx):
            tx.connection.exec_driver_sql(
                "UPDATE statements SET payload = CAST('{}' AS BLOB) WHERE type = 'policy'"
            )

        await self.change(damage)
        again = await self.published()
        self.flushLoggedErrors()
        held = again.signing.held[("policy", self.policy.id)]
        found = await self.store.read(lambda c: statements.hashes(c, ACME))
        self.assertIn(held.hash, str(found))
        self.assertEqual(self.policy.name, held.body["name"])


class Clocks(PublisherCase):
    async def begin(self):
        await super().begin()
        await self.furnish()

    async def set(self, seconds):
        self.clock.now += seconds
        self.publisher._look_round()
        await self.publisher.settled()

    async def test_set_forward_and_back(self):
        """What expired by a wrong clock only lives again when the clock is right."""
        expires = self.clock() + DAY
        await self.changed(lambda tx: devices.update(tx, self.alice, None, expires=expires))
        self.publisher._look_round()
        await self.publisher.settled()
        self.assertIn(("node", self.alice), self.entries(self.lab.id))
        await self.set(30 * DAY)
        self.assertNotIn(("node", self.alice), self.entries(self.lab.id))
        self.assertEqual("expired", self.publisher.nodes[self.alice].refusal)
        await self.set(-30 * DAY)
        self.assertIn(("node", self.alice), self.entries(self.lab.id))
        self.assertEqual("", self.publisher.nodes[self.alice].refusal)

    async def test_set_back_when_it_is_signed_and_then_right(self):
        """A head by a clock that is weeks late is of no use to nodes, until the clock is right."""
        await self.set(-30 * DAY)
        await self.changed(
            lambda tx: policies.edit(tx, self.policy.id, None, policy_text("bob@example.org"))
        )
        late = self.publisher.signing.held[("head", ACME)]
        self.assertLess(late.expires, self.clock() + 15 * DAY)
        await self.set(30 * DAY)
        self.assertGreater(
            self.publisher.signing.held[("head", ACME)].expires,
            self.clock() + signing.HEAD_DAYS / 3 * DAY,
        )
        self.assertIn(("node", self.bob), self.entries(self.lab.id))
        self.ledger(self.lab.id)

    async def test_an_end_that_comes_nearer_is_not_missed(self):
        await self.changed(
            lambda tx: devices.update(tx, self.alice, None, expires=self.clock() + 5.0)
        )
        left = self.publisher._look.getTime() - self.publisher.reactor.seconds()
        self.assertLess(left, 5.5)


class Two(PublisherCase):
    """Two processes on one database: what each publishes holds what the other did."""

    async def begin(self):
        await super().begin()
        await self.furnish()

    async def test_no_head_names_what_was_replaced(self):
        first, second = self.publisher, await self.published()
        ledger = self.ledger(self.lab.id)
        for turn in range(4):
            one = (first, second)[turn % 2]
            self.publisher = one
            # Only this one hears of the change, as it would in its own process.
            other = second if one is first else first
            self.patch(other, "changed", lambda entries: None)
            self.patch(one, "changed", type(one).changed.__get__(one))
            email = f"turn{turn}@example.org"
            await self.changed(
                lambda tx, e=email: policies.edit(tx, self.policy.id, None, policy_text(e))
            )
            self.ledger(self.lab.id, ledger)
            attached = ledger.policies(self.db.id, self.clock())
            self.assertEqual((), attached.missing)
            self.assertIn(email, attached.policies[0].body["text"])
        self.assertGreater(second.signing.held[("head", ACME)].body["revision"], 0)
        revisions = [one.signing.held[("head", ACME)].body["revision"] for one in (first, second)]
        self.assertNotEqual(*revisions)
