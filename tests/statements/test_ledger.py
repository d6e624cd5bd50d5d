"""What a node believes: every refusal by its reason, and what a head makes of the rest."""

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from border0.statements import (
    TYPES,
    Ledger,
    Statement,
    StatementError,
    add_signatures,
    draft,
    ledger,
    live,
    sign,
)
from border0.statements.text import write_object
from tests.support.organisation import NOW, YEAR, Organisation, identifier, signing_key

OTHERS = [type for type in TYPES if type not in ("node", "signers")]
READ, DENY, SHOP = identifier("read"), identifier("no-contractors"), identifier("shop")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.acme = Organisation()
        self.ledger = Ledger(self.acme.id, self.acme.signers)

    def refused(self, statement: Statement, reason: str, now: float = NOW) -> str:
        before = self.ledger.dump()
        error = self.assertRaises(StatementError, self.ledger.accept, statement, now)
        self.assertEqual(error.reason, reason, str(error))
        self.assertEqual(self.ledger.dump(), before)
        return str(error)

    def deliver(self, *statements: Statement, now: float = NOW) -> None:
        for statement in statements:
            self.assertTrue(self.ledger.accept(statement, now), statement)


class Refusals(Case):
    def test_lower_revision(self) -> None:
        old = self.acme.policy("read", "{}")
        new = self.acme.policy("read", '{"deny":{}}')
        self.deliver(new)
        self.refused(old, "lower revision")
        self.deliver(self.acme.head())
        self.refused(old, "lower revision")
        self.assertEqual(self.ledger.current("policy", READ, NOW), new)

    def test_lower_revision_of_what_was_removed(self) -> None:
        old = self.acme.policy("read", "{}")
        self.deliver(self.acme.policy("read", "{ }"), self.acme.head())
        self.acme.remove("policy", READ)
        self.deliver(self.acme.head())
        self.refused(old, "lower revision")

    def test_lower_revision_after_a_restart(self) -> None:
        old = self.acme.policy("read", "{}")
        head = self.acme.head()
        self.deliver(self.acme.policy("read", "{ }"), self.acme.head())
        self.ledger = Ledger.load(self.ledger.dump())
        self.refused(old, "lower revision")
        self.refused(head, "lower revision")

    def test_two_contents_of_one_revision(self) -> None:
        self.deliver(self.acme.policy("read", "{}"))
        other = self.acme.statement(
            "policy", READ, name="read", version=1, text="{ }", revision=self.acme.revision
        )
        self.refused(other, "conflicting revision")

    def test_unknown_critical_field(self) -> None:
        body = dict(self.acme.policy("read", quorum=2).body)
        raw = write_object({**body, "critical": ["revision", "quorum"]})
        policy = add_signatures(Statement("policy", raw), signing_key("control"))
        self.assertIn("quorum", self.refused(policy, "unknown critical field"))
        self.deliver(self.acme.policy("read", quorum=2))

    def test_membership_by_a_key_that_may_not_sign_it(self) -> None:
        self.acme = Organisation(control=["head", "signers"], admin=TYPES, robot=["socket"])
        self.ledger = Ledger(self.acme.id, self.acme.signers)
        self.refused(self.acme.membership("mallory", "admins"), "key not allowed")
        self.refused(self.acme.membership("mallory", "admins", by="robot"), "key not allowed")
        self.refused(self.acme.membership("mallory", "admins", by="mallory"), "unknown signer")
        self.deliver(self.acme.membership("alice", "admins", by="admin"))

    def test_a_control_plane_that_inserts_a_peer(self) -> None:
        """Another signer is configured for nodes: the control plane's key is not enough."""
        self.acme = Organisation(control=[*OTHERS, "signers"], admin=["node", "signers"])
        self.ledger = Ledger(self.acme.id, self.acme.signers)
        laptop = self.acme.node("laptop", by="admin")
        inserted = self.acme.node("mallory")
        self.deliver(laptop)
        self.refused(inserted, "key not allowed")
        # Nor does it help that its head names the peer.
        self.deliver(self.acme.head())
        self.refused(inserted, "key not allowed")
        self.assertEqual(self.ledger.every("node", NOW), [laptop])
        self.assertEqual(self.ledger.missing(["node"], NOW), [("node", identifier("mallory"))])

    def test_bad_signature(self) -> None:
        good = self.acme.policy("read", '{"who":"eng"}')
        payload = good.payload.replace(b"eng", b"all")
        self.assertNotEqual(payload, good.payload)
        self.refused(Statement("policy", payload, good.signatures), "bad signature")
        self.refused(Statement("policy", good.payload), "unknown signer")

    def test_other_organisation(self) -> None:
        """The same keys sign for two organisations of one control plane."""
        other = Organisation("other")
        self.refused(other.policy("read"), "other organisation")
        self.refused(other.head(), "other organisation")
        other.publish_signers({"control": TYPES})
        self.refused(other.signers, "other organisation")
        error = self.assertRaises(StatementError, Ledger, self.acme.id, other.signers)
        self.assertEqual(error.reason, "other organisation")

    def test_expired(self) -> None:
        policy = self.acme.policy("read", lifetime=60)
        self.refused(policy, "expired", NOW + 60)
        self.deliver(policy, now=NOW + 59)
        head = self.acme.head(lifetime=90)
        self.refused(head, "expired", NOW + 90)

    def test_unknown_type(self) -> None:
        self.refused(self.acme.statement("ticket", identifier("t")), "unknown type")

    def test_garbage_signed_by_the_right_key(self) -> None:
        key = signing_key("control")
        deep = b'{"org":' + b"[" * 5000 + b"]" * 5000 + b"}"
        for payload in (b"", b"[]", b'{"id":NaN}', b'{"id":1,"id":2}', deep, b"{}"):
            statement = add_signatures(Statement("policy", payload), key)
            self.refused(statement, "malformed")
            self.assertEqual(self.ledger.accept_all([statement], NOW)[0][0], statement)
            head = add_signatures(Statement("head", payload), key)
            self.assertEqual(self.ledger.accept_all([head], NOW)[0][1].reason, "malformed")

    def test_the_same_again_is_no_news(self) -> None:
        policy, head = self.acme.policy("read"), self.acme.head()
        self.deliver(policy)
        self.assertFalse(self.ledger.accept(policy, NOW))
        self.deliver(head)
        for statement in (policy, head, self.acme.signers):
            self.assertFalse(self.ledger.accept(statement, NOW))


class Heads(Case):
    def test_nothing_counts_before_a_head(self) -> None:
        policy = self.acme.policy("read")
        self.deliver(policy)
        self.assertEqual(self.ledger.revision, 0)
        self.assertEqual(self.ledger.distrust(NOW), "no head")
        self.assertIs(self.ledger.current("policy", READ, NOW), None)
        self.assertEqual(self.ledger.every("policy", NOW), [])
        self.assertEqual(self.ledger.state("policy", READ, NOW), "missing")
        self.assertEqual(self.ledger.missing(["policy"], NOW), [("head", self.acme.id)])
        self.assertIs(self.ledger.next_deadline(NOW), None)
        self.deliver(self.acme.head())
        self.assertEqual(self.ledger.current("policy", READ, NOW), policy)
        self.assertEqual(self.ledger.revision, self.acme.revision)

    def test_a_left_out_deny_is_noticed(self) -> None:
        """The attachment names an allow and a deny; only the allow is delivered."""
        allow = self.acme.policy("read")
        deny = self.acme.policy("no-contractors", '{"deny":{"database":{}}}')
        attachment = self.acme.attach("shop", "read", "no-contractors")
        self.deliver(allow, attachment, self.acme.head())
        attached = self.ledger.policies(SHOP, NOW)
        self.assertEqual(attached.policies, (allow,))
        self.assertEqual(attached.missing, (("policy", DENY),))
        self.assertEqual(self.ledger.missing(["policy"], NOW), [("policy", DENY)])
        self.assertEqual(self.ledger.state("policy", DENY, NOW), "missing")
        self.deliver(deny)
        self.assertEqual(self.ledger.policies(SHOP, NOW), ((allow, deny), ()))

    def test_a_deny_that_the_head_does_not_name_is_missing_too(self) -> None:
        allow = self.acme.policy("read")
        deny = self.acme.policy("no-contractors")
        attachment = self.acme.attach("shop", "read", "no-contractors")
        self.acme.remove("policy", DENY)
        self.deliver(allow, deny, attachment, self.acme.head())
        self.assertEqual(self.ledger.policies(SHOP, NOW).missing, (("policy", DENY),))
        self.assertEqual(self.ledger.state("policy", DENY, NOW), "absent")

    def test_a_left_out_attachment_is_noticed(self) -> None:
        self.deliver(self.acme.policy("read"))
        self.acme.attach("shop", "read")
        self.deliver(self.acme.head())
        self.assertEqual(self.ledger.policies(SHOP, NOW), ((), (("attachment", SHOP),)))
        self.assertEqual(self.ledger.policies(identifier("other"), NOW), ((), ()))

    def test_an_older_attachment_does_not_count(self) -> None:
        """It stays undelivered that a deny was attached; the head tells."""
        self.deliver(self.acme.policy("read"), self.acme.attach("shop", "read"), self.acme.head())
        self.assertEqual(self.ledger.policies(SHOP, NOW).missing, ())
        self.deliver(self.acme.policy("no-contractors"))
        attachment = self.acme.attach("shop", "read", "no-contractors")
        self.deliver(self.acme.head())
        self.assertEqual(self.ledger.policies(SHOP, NOW).missing, (("attachment", SHOP),))
        self.deliver(attachment)
        self.assertEqual(len(self.ledger.policies(SHOP, NOW).policies), 2)

    def test_an_older_head_cannot_bring_back_a_state(self) -> None:
        self.deliver(self.acme.policy("read"))
        old = self.acme.head()
        self.deliver(old)
        self.acme.remove("policy", READ)
        self.deliver(self.acme.head())
        self.assertEqual(self.ledger.state("policy", READ, NOW), "absent")
        self.refused(old, "lower revision")

    def test_a_newer_statement_waits_for_its_head(self) -> None:
        old = self.acme.policy("read", "{}")
        self.deliver(old, self.acme.head())
        new = self.acme.policy("read", "{ }")
        self.deliver(new)
        self.assertEqual(self.ledger.current("policy", READ, NOW), old)
        self.deliver(self.acme.head())
        self.assertEqual(self.ledger.current("policy", READ, NOW), new)

    def test_a_late_statement_that_lives_no_longer(self) -> None:
        policy = self.acme.policy("read")
        self.acme.remove("policy", READ)
        self.deliver(self.acme.head())
        self.assertFalse(self.ledger.accept(policy, NOW))
        self.assertEqual(self.ledger.state("policy", READ, NOW), "absent")

    def test_two_heads_of_one_revision(self) -> None:
        self.acme.policy("read")
        self.deliver(self.acme.head())
        hashes = {("signers", self.acme.id): self.acme.signers.hash}
        self.refused(self.acme.head(live=live(hashes)), "conflicting revision")

    def test_a_head_is_renewed_without_a_change(self) -> None:
        old = self.acme.head(lifetime=60)
        self.deliver(old)
        self.acme.now += 30
        new = self.acme.head(lifetime=60)
        self.deliver(new, now=NOW + 30)
        self.assertEqual(self.ledger.distrust(NOW + 80), "")
        self.refused(old, "lower revision", NOW + 30)

    def test_expiry_while_held(self) -> None:
        policy = self.acme.policy("read", lifetime=100)
        self.deliver(policy, self.acme.head(lifetime=200))
        self.assertEqual(self.ledger.next_deadline(NOW), NOW + 100)
        self.assertEqual(self.ledger.current("policy", READ, NOW + 99), policy)
        self.assertIs(self.ledger.current("policy", READ, NOW + 100), None)
        self.assertEqual(self.ledger.missing(["policy"], NOW + 100), [("policy", READ)])
        self.assertEqual(self.ledger.next_deadline(NOW + 100), NOW + 200)
        self.assertEqual(self.ledger.distrust(NOW + 200), "the head has expired")
        self.assertEqual(self.ledger.missing([], NOW + 200), [("head", self.acme.id)])
        self.assertEqual(self.ledger.distrust(NOW + YEAR), "the signers have expired")
        self.assertEqual(self.ledger.missing([], NOW + YEAR), [("signers", self.acme.id)])

    def test_drop(self) -> None:
        """A node that may not see a statement any more forgets it, and can get it again."""
        policy = self.acme.policy("read")
        self.deliver(policy, self.acme.head())
        self.ledger.drop("policy", READ)
        self.assertEqual(self.ledger.state("policy", READ, NOW), "missing")
        self.deliver(policy)
        self.assertEqual(self.ledger.state("policy", READ, NOW), "current")
        waiting = self.acme.node("laptop")
        self.deliver(waiting)
        self.ledger.drop("node", identifier("laptop"))
        self.deliver(waiting)

    def test_a_batch_in_any_order(self) -> None:
        first = self.acme.head()
        policy = self.acme.policy("read")
        second = self.acme.head()
        refused = self.ledger.accept_all([second, first, policy], NOW)
        self.assertEqual(
            [(one, error.reason) for one, error in refused], [(first, "lower revision")]
        )
        self.assertEqual(self.ledger.current("policy", READ, NOW), policy)


class Rotation(Case):
    def rotate(self, by: str, **keys: object) -> Statement:
        return self.acme.publish_signers(keys, by=by)  # type: ignore[arg-type]

    def test_a_chain(self) -> None:
        first = self.acme.signers
        second = self.rotate("control", second=TYPES)
        third = self.rotate("second", third=TYPES)
        policy = self.acme.policy("read", by="third")
        # The third is signed by a key that the first does not know.
        self.refused(third, "unknown signer")
        self.deliver(second)
        self.refused(first, "unknown signer")
        self.deliver(third)
        self.refused(second, "unknown signer")
        self.deliver(policy, self.acme.head(by="third"))
        self.assertEqual(self.ledger.current("policy", READ, NOW), policy)
        late = Ledger(self.acme.id, first)
        batch = [self.acme.head(by="third"), third, policy, second]
        self.assertEqual(late.accept_all(batch, NOW), [])
        self.assertEqual(late.current("policy", READ, NOW), policy)

    def test_only_a_key_that_may_sign_signers(self) -> None:
        self.acme = Organisation(control=OTHERS, admin=["node", "signers"])
        self.ledger = Ledger(self.acme.id, self.acme.signers)
        self.refused(self.rotate("control", control=TYPES), "key not allowed")
        self.refused(self.rotate("mallory", mallory=TYPES), "unknown signer")
        self.deliver(self.rotate("admin", admin=TYPES))

    def test_an_older_list_does_not_come_back(self) -> None:
        second = self.rotate("control", control=TYPES, second=TYPES)
        third = self.rotate("control", control=TYPES)
        self.deliver(third)
        self.refused(second, "lower revision")
        self.ledger = Ledger.load(self.ledger.dump())
        self.refused(second, "lower revision")

    def test_what_the_new_list_does_not_allow_counts_no_longer(self) -> None:
        policy, laptop = self.acme.policy("read"), self.acme.node("laptop")
        self.deliver(policy, laptop, self.acme.head())
        second = self.rotate("control", control=OTHERS, admin=["node", "signers"])
        self.deliver(second)
        self.assertEqual(self.ledger.distrust(NOW), "the head names other signers")
        self.assertEqual(self.ledger.missing([], NOW), [("signers", self.acme.id)])
        self.deliver(self.acme.head())
        self.assertEqual(self.ledger.current("policy", READ, NOW), policy)
        self.assertEqual(self.ledger.state("node", identifier("laptop"), NOW), "missing")
        # The same statement, signed by the key that may: the head need not change.
        self.deliver(add_signatures(laptop, signing_key("admin")))
        self.assertEqual(self.ledger.state("node", identifier("laptop"), NOW), "current")

    def test_a_head_of_a_key_that_is_gone(self) -> None:
        policy = add_signatures(self.acme.policy("read"), signing_key("second"))
        head = self.acme.head()
        self.deliver(policy, head)
        self.deliver(self.rotate("control", second=TYPES))
        self.assertEqual(self.ledger.distrust(NOW), "no head")
        self.assertEqual(self.ledger.policies(SHOP, NOW).missing, (("head", self.acme.id),))
        self.refused(head, "unknown signer")
        self.deliver(self.acme.head(by="second"))
        self.assertEqual(self.ledger.current("policy", READ, NOW), policy)

    def test_left_out_signers_are_noticed(self) -> None:
        """The head names a newer list: a key that it takes away must not count any more."""
        policy = self.acme.policy("read")
        self.deliver(policy, self.acme.head())
        second = self.rotate("control", control=TYPES, second=TYPES)
        self.deliver(self.acme.head())
        self.assertEqual(self.ledger.distrust(NOW), "the head names other signers")
        self.assertEqual(self.ledger.missing(["policy"], NOW), [("signers", self.acme.id)])
        self.assertIs(self.ledger.current("policy", READ, NOW), None)
        self.deliver(second)
        self.assertEqual(self.ledger.current("policy", READ, NOW), policy)

    def test_expired_signers_allow_only_their_successor(self) -> None:
        self.acme = Organisation()
        short = self.acme.publish_signers({"control": TYPES}, lifetime=60)
        self.ledger = Ledger(self.acme.id, short)
        self.refused(self.acme.policy("read"), "expired", NOW + 60)
        following = self.acme.publish_signers({"control": TYPES})
        self.deliver(following, now=NOW + 60)
        self.deliver(self.acme.policy("read"), self.acme.head(), now=NOW + 60)


class Saved(Case):
    def test_a_restart_changes_nothing(self) -> None:
        self.deliver(self.acme.policy("read"), self.acme.attach("shop", "read"), self.acme.head())
        self.deliver(self.acme.node("laptop"))
        again = Ledger.load(self.ledger.dump())
        self.assertEqual(again.dump(), self.ledger.dump())
        self.assertEqual(again.policies(SHOP, NOW), self.ledger.policies(SHOP, NOW))
        self.assertEqual(again.revision, self.ledger.revision)
        self.assertTrue(again.accept(self.acme.head(), NOW))
        self.assertEqual(again.state("node", identifier("laptop"), NOW), "current")

    def test_half_a_file_is_no_ledger(self) -> None:
        self.deliver(self.acme.policy("read"), self.acme.head())
        data = self.ledger.dump()
        for part in (b"", data[:10], data[:-1], data + b" ", data.replace(b"read", b"rear")):
            error = self.assertRaises(StatementError, Ledger.load, part)
            self.assertEqual(error.reason, "malformed")

    def test_a_file_of_another_form(self) -> None:
        for content in (b"", b"1", b"[]", b"{}", b'{"org":1}', b'{"org":"a","signers":{}}'):
            line = b"border0 ledger v1 " + hashlib.sha256(content).hexdigest().encode()
            self.assertRaises(StatementError, Ledger.load, line + b"\n" + content)

    def test_the_removed_are_bounded(self) -> None:
        self.patch(ledger, "REMOVED_LIMIT", 2)
        for name in "abcd":
            self.deliver(self.acme.policy(name), self.acme.head())
            self.acme.remove("policy", identifier(name))
        self.deliver(self.acme.head())
        self.assertEqual(len(self.ledger._removed), 2)

    def test_signing_by_hand(self) -> None:
        body = draft(self.acme.id, READ, 9, NOW, NOW + 9, name="read", version=1, text="{}")
        self.deliver(sign("policy", body, signing_key("control")))
