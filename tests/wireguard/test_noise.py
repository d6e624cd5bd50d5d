import hmac
import random
import warnings
from hashlib import blake2s
from typing import Any

from noise.connection import Keypair, NoiseConnection
from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard import noise
from border0.wireguard.errors import ProtocolError
from border0.wireguard.transport import Session, open_batch, seal_batch

NAME = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
PROLOGUE = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
STAMP = bytes(range(12))


def keys(seed: int) -> list[bytes]:
    source = random.Random(seed)
    return [source.randbytes(32) for _ in range(4)]


def oracle(initiator: bool, private: bytes, ephemeral: bytes, remote: bytes, psk: bytes) -> Any:
    connection = NoiseConnection.from_name(NAME)
    connection.set_prologue(PROLOGUE)
    connection.set_psks(psk)
    (connection.set_as_initiator if initiator else connection.set_as_responder)()
    connection.set_keypair_from_private_bytes(Keypair.STATIC, private)
    connection.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
    if initiator:
        connection.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
    with warnings.catch_warnings():
        # It warns that the ephemeral key was given to it, which is the point here.
        warnings.simplefilter("ignore")
        connection.start_handshake()
    return connection


class OracleTests(SynchronousTestCase):
    """Every field against an independent Noise implementation, both roles."""

    def compare(self, seed: int, psk: bytes) -> tuple[bytes, bytes]:
        left_private, left_ephemeral, right_private, right_ephemeral = keys(seed)
        left, right = noise.StaticKey(left_private), noise.StaticKey(right_private)
        shared = left.shared_with(right.public)
        self.assertEqual(shared, right.shared_with(left.public))
        theirs = oracle(False, right_private, right_ephemeral, left.public, psk)
        mirror = oracle(True, left_private, left_ephemeral, right.public, psk)

        initiation, waiting = noise.create_initiation(
            left, shared, right.public, left_ephemeral, STAMP, 0x01020304
        )
        self.assertEqual(initiation[:8], b"\x01\0\0\0\x04\x03\x02\x01")
        self.assertEqual(initiation[8:], bytes(mirror.write_message(STAMP)))
        self.assertEqual(bytes(theirs.read_message(initiation[8:])), STAMP)

        state = noise.open_initiation(right, initiation + bytes(32))
        self.assertEqual(state.static, left.public)
        self.assertEqual(noise.open_timestamp(state, shared), STAMP)
        response, responder_keys = noise.create_response(state, psk, right_ephemeral, 0x0A0B0C0D)
        self.assertEqual(response[:12], b"\x02\0\0\0\x0d\x0c\x0b\x0a\x04\x03\x02\x01")
        self.assertEqual(response[12:], bytes(theirs.write_message(b"")))
        mirror.read_message(response[12:])
        initiator_keys = noise.open_response(left, waiting, psk, response + bytes(32))

        self.assertEqual(initiator_keys.send, responder_keys.receive)
        self.assertEqual(initiator_keys.receive, responder_keys.send)
        self.check_transport(initiator_keys, theirs)
        self.check_transport(responder_keys, mirror)
        return initiation, response

    def check_transport(self, ours: noise.TransportKeys, theirs: Any) -> None:
        session = Session(ours, None, initiator=True, now=0.0)
        for text in (b"a" * 16, b"b" * 32):
            ((_, buffers),) = seal_batch(session, [text], 1380)
            self.assertEqual(bytes(theirs.decrypt(buffers[1])), text)
            sealed = bytes(theirs.encrypt(text))
            head = b"\x04\0\0\0" + ours.local_index.to_bytes(4, "little")
            datagram = head + session.window.expected.to_bytes(8, "little") + sealed
            opened: list[bytes] = []
            open_batch({ours.local_index: session}, datagram, len(datagram), 0.0, opened)
            self.assertEqual(opened, [text])

    def test_with_and_without_preshared_key(self) -> None:
        for seed in range(8):
            self.compare(seed, bytes(32))
            self.compare(seed, random.Random(seed + 100).randbytes(32))

    def test_known_answer(self) -> None:
        """The same bytes as ever: a change on both sides at once would show here."""
        initiation, response = self.compare(7, b"\x11" * 32)
        self.assertEqual(
            blake2s(initiation + response).hexdigest(),
            "4406dec4e2d791d44af44a3b30323e472d1c78a1f0acd8c9b51364eea79b2df9",
        )

    def test_hmac_vector(self) -> None:
        # The KDF's building block, against the standard library's slow path.
        for size in (0, 1, 31, 32, 33, 64, 65, 200):
            data = bytes(range(size))
            self.assertEqual(
                noise.hmac_blake2s(b"k" * 32, data), hmac.new(b"k" * 32, data, blake2s).digest()
            )


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        a, self.ephemeral, b, self.other_ephemeral = keys(3)
        self.left, self.right = noise.StaticKey(a), noise.StaticKey(b)
        self.shared = self.left.shared_with(self.right.public)
        self.initiation, self.waiting = noise.create_initiation(
            self.left, self.shared, self.right.public, self.ephemeral, STAMP, 1
        )

    def respond(self, psk: bytes = bytes(32)) -> bytes:
        state = noise.open_initiation(self.right, self.initiation)
        noise.open_timestamp(state, self.shared)
        return noise.create_response(state, psk, self.other_ephemeral, 2)[0]

    def test_every_changed_byte_of_the_initiation(self) -> None:
        for place in range(8, 116):
            changed = bytearray(self.initiation)
            changed[place] ^= 0x40
            with self.assertRaises(ProtocolError):
                noise.open_timestamp(noise.open_initiation(self.right, bytes(changed)), self.shared)

    def test_every_changed_byte_of_the_response(self) -> None:
        response = self.respond()
        for place in range(8, 60):
            changed = bytearray(response)
            changed[place] ^= 0x40
            with self.assertRaises(ProtocolError):
                noise.open_response(self.left, self.waiting, bytes(32), bytes(changed))
        # None of that spoilt the state.
        keys = noise.open_response(self.left, self.waiting, bytes(32), response)
        self.assertEqual(keys.remote_index, 2)

    def test_other_preshared_key(self) -> None:
        with self.assertRaises(ProtocolError):
            noise.open_response(self.left, self.waiting, b"\x01" * 32, self.respond())

    def test_other_recipient(self) -> None:
        with self.assertRaises(ProtocolError):
            noise.open_initiation(noise.StaticKey(b"\x07" * 32), self.initiation)

    def test_low_order_ephemeral(self) -> None:
        for point in (bytes(32), b"\x01" + bytes(31)):
            with self.assertRaises(ProtocolError):
                noise.open_initiation(
                    self.right, self.initiation[:8] + point + self.initiation[40:]
                )

    def test_low_order_static(self) -> None:
        with self.assertRaises(ValueError):
            self.left.shared_with(bytes(32))
