"""Which key may sign which type."""

from twisted.trial.unittest import SynchronousTestCase

from border0.statements import TYPES, Signers, Statement, StatementError, add_signatures, key_id
from tests.support.organisation import Organisation, identifier, signing_key


class Asked(SynchronousTestCase):
    def setUp(self) -> None:
        others = [type for type in TYPES if type not in ("node", "signers")]
        self.acme = Organisation(admin=("node", "signers"), control=[*others, "signers"])
        self.signers = Signers(self.acme.signers)

    def refused(self, statement: Statement, reason: str) -> None:
        error = self.assertRaises(StatementError, self.signers.verify, statement)
        self.assertEqual(error.reason, reason)

    def test_allows(self) -> None:
        admin = key_id(signing_key("admin").public_key().public_bytes_raw())
        self.assertTrue(self.signers.allows(admin, "node"))
        self.assertFalse(self.signers.allows(admin, "policy"))
        self.assertFalse(self.signers.allows("", "node"))

    def test_right_key(self) -> None:
        self.signers.verify(self.acme.node("laptop", by="admin"))
        self.signers.verify(self.acme.policy("read"))

    def test_wrong_key(self) -> None:
        self.refused(self.acme.node("laptop"), "key not allowed")
        self.refused(self.acme.policy("read", by="admin"), "key not allowed")
        self.refused(self.acme.policy("read", by="mallory"), "unknown signer")
        self.refused(Statement("policy", b"{}"), "unknown signer")

    def test_other_bytes(self) -> None:
        good = self.acme.policy("read")
        self.refused(Statement("policy", good.payload + b" ", good.signatures), "bad signature")
        self.refused(Statement("membership", good.payload, good.signatures), "bad signature")

    def test_one_of_several(self) -> None:
        both = add_signatures(self.acme.node("laptop"), signing_key("admin"), signing_key("mal"))
        self.signers.verify(both)
        (name, _), *_ = self.acme.policy("read").signatures
        forged = Statement("policy", b"{}", [(name, bytes(64))])
        self.refused(add_signatures(forged, signing_key("admin")), "bad signature")

    def test_another_type_of_the_envelope(self) -> None:
        """Tickets of a relay ride in the same envelope; who may sign them stands here too."""
        acme = Organisation(control=[*TYPES, "ticket"])
        signers = Signers(acme.signers)
        ticket = acme.statement("ticket", identifier("t"))
        signers.verify(ticket)
        self.refused(ticket, "key not allowed")

    def test_only_signers(self) -> None:
        error = self.assertRaises(StatementError, Signers, self.acme.policy("read"))
        self.assertEqual(error.reason, "unknown type")
