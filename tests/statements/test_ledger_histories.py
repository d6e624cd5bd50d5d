"""Whatever order, loss, replay and restarts: a revision never falls, a left-out statement shows.

A machine of hypothesis plays an organisation, a network that keeps every statement it ever saw
and delivers any of them at any time, and a node that restarts. What it checks after each step is
what the ledger promises.
"""

import hashlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from border0.statements import (
    REASONS,
    TYPES,
    Ledger,
    Statement,
    StatementError,
    add_signatures,
)
from border0.statements.text import write_object
from tests.statements.test_text import JSON
from tests.support.counterparts import takes_long
from tests.support.organisation import NOW, Organisation, identifier

NAMES = st.sampled_from(["a", "b", "c"])
MEMBERS = ("org", "id", "revision", "issued", "expires", "critical", "live", "keys", "policies")
OBJECTS = ("policy", "attachment", "membership")
LONG = takes_long()
PROFILE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=400 if LONG else 60,
    stateful_step_count=60 if LONG else 40,
)


class Histories(RuleBasedStateMachine):
    """One organisation, one node, a network that may do anything but sign."""

    def __init__(self) -> None:
        super().__init__()
        self.acme = Organisation()
        self.signing = "control"
        self.allowed = ["control"]
        self.generation = 0
        self.sent: list[Statement] = [self.acme.signers]
        self.lists = [self.acme.signers]
        self.ledger = Ledger(self.acme.id, self.acme.signers)
        self.seen: dict[tuple[str, str], int] = {}
        self.head = 0

    # The organisation

    @rule(type=st.sampled_from(OBJECTS), name=NAMES, others=st.sets(NAMES))
    def change(self, type: str, name: str, others: set[str]) -> None:
        if type == "policy":
            made = self.acme.policy(name, by=self.signing)
        elif type == "attachment":
            made = self.acme.attach(name, *sorted(others), by=self.signing)
        else:
            made = self.acme.membership(name, *sorted(others), by=self.signing)
        self.sent.append(made)

    @rule(type=st.sampled_from(OBJECTS), name=NAMES)
    def remove(self, type: str, name: str) -> None:
        if (type, identifier(name)) in self.acme.live:
            self.acme.remove(type, identifier(name))

    @rule()
    def publish_head(self) -> None:
        self.sent.append(self.acme.head(by=self.signing))

    @rule(keep=st.booleans())
    def rotate(self, keep: bool) -> None:
        """A new list of signers; without the old key, everything is signed again."""
        if self.generation == 3:
            return
        self.generation += 1
        new = f"key{self.generation}"
        self.allowed = [*self.allowed, new] if keep else [new]
        keys = dict.fromkeys(self.allowed, TYPES)
        made = self.acme.publish_signers(keys, by=self.signing)
        self.lists.append(made)
        self.sent.append(made)
        self.signing = new
        if not keep:
            for (type, id), old in list(self.acme.live.items()):
                if type != "signers":
                    common = ("org", "id", "revision", "issued", "expires")
                    members = {k: v for k, v in old.body.items() if k not in common}
                    self.sent.append(self.acme.publish(type, id, by=new, **members))

    # The network

    def deliver(self, statement: Statement) -> None:
        try:
            self.ledger.accept(statement, NOW)
        except StatementError as error:
            assert error.reason in ("lower revision", "unknown signer", "key not allowed"), error

    @rule(place=st.integers(0, 1000))
    def deliver_any(self, place: int) -> None:
        self.deliver(self.sent[place % len(self.sent)])

    @rule(places=st.lists(st.integers(0, 1000), max_size=12))
    def deliver_batch(self, places: list[int]) -> None:
        batch = [self.sent[place % len(self.sent)] for place in places]
        for _, error in self.ledger.accept_all(batch, NOW):
            assert error.reason in ("lower revision", "unknown signer", "key not allowed"), error

    @rule(place=st.integers(0, 1000))
    def deliver_newest(self, place: int) -> None:
        recent = self.sent[-6:]
        self.deliver(recent[place % len(recent)])

    @rule()
    def deliver_everything_that_lives(self) -> None:
        """A full map: the chain of signers, each live statement, a head."""
        head = self.acme.head(by=self.signing)
        self.sent.append(head)
        self.ledger.accept_all([head, *self.acme.live.values(), *self.lists], NOW)
        assert self.ledger.distrust(NOW) == ""
        assert self.ledger.missing(TYPES, NOW) == []
        for (type, id), statement in self.acme.live.items():
            current = self.ledger.current(type, id, NOW)
            assert current is not None and current.hash == statement.hash
        assert len(self.ledger._waiting) == 0

    # The node

    @rule()
    def restart(self) -> None:
        before = self.ledger.dump()
        self.ledger = Ledger.load(before)
        assert self.ledger.dump() == before

    @rule(type=st.sampled_from(OBJECTS), name=NAMES)
    def drop(self, type: str, name: str) -> None:
        self.ledger.drop(type, identifier(name))

    # What it promises

    @invariant()
    def a_revision_never_falls(self) -> None:
        for type in OBJECTS:
            for statement in self.ledger.every(type, NOW):
                key = (type, statement.body["id"])
                assert statement.body["revision"] >= self.seen.get(key, 0), key
                self.seen[key] = statement.body["revision"]
        if self.ledger.head is not None:
            assert self.ledger.revision >= self.head
            self.head = self.ledger.revision

    @invariant()
    def what_the_head_names_is_there_or_missing(self) -> None:
        if self.ledger.distrust(NOW):
            assert len(self.ledger.missing(TYPES, NOW)) == 1
            assert all(not self.ledger.every(type, NOW) for type in TYPES)
            return
        assert self.ledger.head is not None
        live = self.ledger.head.body["live"]
        missing = set(self.ledger.missing(TYPES, NOW))
        for type, objects in live.items():
            for id, digest in objects.items():
                current = self.ledger.current(type, id, NOW)
                assert (current is None) == ((type, id) in missing)
                assert current is None or current.hash == digest
        for type in OBJECTS:
            for statement in self.ledger.every(type, NOW):
                assert live[type][statement.body["id"]] == statement.hash

    @invariant()
    def a_socket_has_all_of_its_policies_or_says_so(self) -> None:
        for name in "abc":
            id = identifier(name)
            attached = self.ledger.policies(id, NOW)
            attachment = self.ledger.current("attachment", id, NOW)
            if attachment is not None:
                named = {("policy", policy) for policy in attachment.body["policies"]}
                found = {("policy", policy.body["id"]) for policy in attached.policies}
                assert named == found | set(attached.missing)
            elif self.ledger.state("attachment", id, NOW) == "missing":
                assert attached.missing


class Machine(SynchronousTestCase):
    @settings(PROFILE, max_examples=200)
    @given(st.sampled_from(TYPES), st.sampled_from(MEMBERS), JSON)
    def test_any_signed_payload_is_believed_or_refused(
        self, type: str, member: str, value: object
    ) -> None:
        """Also who may sign can only be refused, with a reason."""
        acme = Organisation()
        made = {"policy": acme.policy("a"), "attachment": acme.attach("a"), "head": acme.head()}
        body = {**made.get(type, acme.signers).body, member: value}
        ledger = Ledger(acme.id, acme.signers)
        try:
            raw = Statement(type, write_object(body))
            ledger.accept(add_signatures(raw, acme.key), NOW)
        except StatementError as error:
            self.assertIn(error.reason, REASONS)
        Ledger.load(ledger.dump())

    @settings(PROFILE, max_examples=200)
    @given(
        st.sampled_from(["org", "signers", "head", "held", "waiting", "floors", "removed"]), JSON
    )
    def test_any_saved_file_is_read_or_refused(self, member: str, value: object) -> None:
        acme = Organisation()
        ledger = Ledger(acme.id, acme.signers)
        ledger.accept_all([acme.policy("a"), acme.head(), acme.policy("b")], NOW)
        saved = json.loads(ledger.dump().partition(b"\n")[2])
        content = write_object({**saved, member: value})
        line = b"border0 ledger v1 " + hashlib.sha256(content).hexdigest().encode()
        try:
            Ledger.load(line + b"\n" + content)
        except StatementError as error:
            self.assertEqual(error.reason in REASONS, True)

    def test_histories(self) -> None:
        run_state_machine_as_test(Histories, settings=PROFILE)  # type: ignore[no-untyped-call]
