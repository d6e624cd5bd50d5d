from hashlib import sha256
from hmac import digest

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from twisted.trial.unittest import SynchronousTestCase

from border0.paths.errors import ProtocolError
from border0.paths.keys import PathKey, derive
from border0.wireguard.noise import StaticKey

A, B = StaticKey(bytes(range(32))), StaticKey(bytes(range(1, 33)))
PA, PB = PathKey(b"a" * 32), PathKey(b"b" * 32)
# Points of small order on Curve25519 and its twist, as RFC 7748 §6.1 warns of.
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


class KeyTests(SynchronousTestCase):
    def test_both_sides_agree_and_directions_differ(self) -> None:
        a, b = derive(PA, A, PB.public, B.public), derive(PB, B, PA.public, A.public)
        self.assertEqual((a.send, a.send_index), (b.receive, b.receive_index))
        self.assertEqual((a.receive, a.receive_index), (b.send, b.send_index))
        self.assertNotEqual(a.send, a.receive)
        self.assertNotEqual(a.send_index, a.receive_index)

    def test_by_the_definition(self) -> None:
        """RFC 5869 by hand, from the field tables alone."""

        def dh(private: X25519PrivateKey, public: bytes) -> bytes:
            return private.exchange(X25519PublicKey.from_public_bytes(public))

        low, high = sorted((A, B), key=lambda key: key.public)
        paths = {A.public: PA, B.public: PB}
        secret = dh(PA.private, PB.public) + dh(A.private, B.public)
        extracted = digest(b"".join(sorted((PA.public, PB.public))), secret, sha256)
        info = b"border0 paths v1" + low.public + high.public
        okm = block = b""
        for number in (1, 2, 3):
            block = digest(extracted, block + info + bytes((number,)), sha256)
            okm += block
        ours = derive(paths[low.public], low, paths[high.public].public, high.public)
        self.assertEqual(ours.send, okm[:32])
        self.assertEqual(ours.receive, okm[32:64])
        self.assertEqual(ours.send_index, okm[64:72])
        self.assertEqual(ours.receive_index, okm[72:80])

    def test_every_key_matters(self) -> None:
        made = {derive(PA, A, PB.public, B.public).send}
        made.add(derive(PathKey(b"c" * 32), A, PB.public, B.public).send)
        made.add(derive(PA, StaticKey(b"c" * 32), PB.public, B.public).send)
        made.add(derive(PA, A, PathKey(b"c" * 32).public, B.public).send)
        made.add(derive(PA, A, PB.public, StaticKey(b"c" * 32).public).send)
        self.assertEqual(len(made), 5)

    def test_a_vouched_path_key_alone_opens_nothing(self) -> None:
        """Who gives out path keys but holds no WireGuard key derives other keys."""
        false = PathKey(b"f" * 32)
        ours = derive(PA, A, false.public, B.public)
        theirs = derive(false, StaticKey(b"f" * 32), PA.public, A.public)
        self.assertNotEqual(ours.receive, theirs.send)
        self.assertNotEqual(ours.receive_index, theirs.send_index)

    def test_low_order_keys_are_refused(self) -> None:
        for bad in LOW_ORDER:
            self.assertRaises(ProtocolError, derive, PA, A, bad, B.public)
            self.assertRaises(ProtocolError, derive, PA, A, PB.public, bad)

    def test_malformed_and_own_keys_are_refused(self) -> None:
        for bad in (b"", bytes(31), bytes(33), PA.public):
            self.assertRaises(ProtocolError, derive, PA, A, bad, B.public)
        for bad in (b"", b"1" * 31, A.public):
            self.assertRaises(ProtocolError, derive, PA, A, PB.public, bad)
