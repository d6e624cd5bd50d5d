"""Who gets in, and who is believed to be the relay."""

import hashlib
import hmac
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.relay import codes, frames, handshake
from border0.relay.errors import ProtocolError
from border0.relay.handshake import Challenge, Keys
from border0.relay.login import (
    ClientLogin,
    Desk,
    Failure,
    ServerLogin,
    normal_name,
)
from border0.relay.ticket import issue
from tests.relay.stage import (
    BINDING,
    NAME,
    ORG,
    RELAY,
    RELAY_KEY,
    UNIX,
    chance,
    client_login,
    desk,
    run,
    server_login,
    signed,
    signing,
    static,
    ticket,
    ticket_keys,
    verifier,
)

FUZZ = settings(max_examples=150, derandomize=True, database=None, deadline=None)
VECTOR = Path(__file__).parent.parent / "vectors" / "relay-login-v1.txt"
ALL_ZERO, LOW_ORDER = bytes(32), bytes.fromhex(
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
)  # fmt: skip


class LoginTests(SynchronousTestCase):
    def refused(self, client: ClientLogin, server: ServerLogin, code: int, by: str) -> Failure:
        """The login fails; `by` refused, with this code, and the other end heard of it."""
        self.assertIsNone(client.done)
        self.assertIsNone(server.done)
        assert client.failed is not None and server.failed is not None
        first, second = client.failed, server.failed
        if by == "relay":
            first, second = second, first
        self.assertEqual((first.code, first.remote), (code, False), first)
        self.assertEqual((second.code, second.remote), (code, True), second)
        return first

    def test_both_ends_agree(self) -> None:
        client, server = client_login(), server_login(desk(rate_of=lambda ticket: 1e6))
        sent = run(client, server)
        assert client.done is not None and server.done is not None
        self.assertEqual(server.done.key, static(1).public)
        self.assertEqual(server.done.ticket.org, ORG)
        self.assertEqual(server.done.counter, int(UNIX * 1000))
        self.assertEqual(client.done.session, server.done.session)
        self.assertEqual((client.done.relay, client.done.rate), (RELAY, 1_000_000))
        self.assertTrue(client.done.bound and server.done.bound and not server.done.browser)
        self.assertEqual(client.done.silence, 75)
        self.assertEqual([message[0] for message in sent], [1, 2, 3, 4])
        self.assertLess(len(sent[0]), 4096)
        self.assertTrue(all(len(message) <= 1024 for message in sent[1:]))
        self.assertIsNone(client.next_deadline())
        self.assertIsNone(server.next_deadline())

    def test_without_a_binding_where_the_map_says_so(self) -> None:
        client = client_login(binding=None)
        server = server_login(desk(binding="none"), binding=None)
        run(client, server)
        assert client.done is not None and server.done is not None
        self.assertFalse(client.done.bound or server.done.bound)

    def test_a_browser(self) -> None:
        client, server = client_login(binding=None, browser=True), server_login(origin=True)
        run(client, server)
        assert server.done is not None
        self.assertTrue(server.done.browser and not server.done.bound)

    def test_an_origin_that_is_not_allowed(self) -> None:
        client, server = client_login(binding=None, browser=True), server_login(origin=False)
        run(client, server)
        self.refused(client, server, codes.ORIGIN, "relay")

    def test_who_calls_itself_a_browser_and_is_none(self) -> None:
        client, server = client_login(binding=None, browser=True), server_login()
        run(client, server)
        self.refused(client, server, codes.ORIGIN, "relay")

    def test_a_native_client_with_an_origin(self) -> None:
        client, server = client_login(), server_login(origin=True)
        run(client, server)
        self.refused(client, server, codes.ORIGIN, "relay")

    def test_the_name_that_was_dialled(self) -> None:
        for name in ("RELAY.Example.com.", "192.0.2.7"):
            client, server = client_login(name=name), server_login()
            run(client, server)
            self.assertTrue(client.done)
        client, server = client_login(name="other.example.com"), server_login()
        run(client, server)
        self.refused(client, server, codes.WRONG_NAME, "relay")

    def test_names(self) -> None:
        self.assertEqual(normal_name("[2001:DB8::1]"), "2001:db8::1")
        for name in ("", "bücher.example", "."):
            self.assertRaises(ValueError, normal_name, name)

    def test_somebody_ends_tls_between(self) -> None:
        client, server = client_login(), server_login(binding=bytes(32))
        run(client, server)
        failure = self.refused(client, server, codes.BINDING, "client")
        self.assertIn("between", failure.text)

    def test_the_relay_refuses_the_mismatch_too(self) -> None:
        """The client is made to overlook it: then the proof is of another channel."""
        client, server = client_login(), server_login(binding=bytes(32))
        self.patch(handshake, "same", lambda one, other: True)
        [challenge] = server.receive(client.start()[0], 1.0, UNIX)
        [proof] = client.receive(challenge)
        self.patch(handshake, "same", hmac.compare_digest)
        server.receive(proof, 1.0, UNIX)
        assert server.failed is not None
        self.assertEqual(server.failed.code, codes.PROOF_FAILED)

    def test_a_client_without_binding_at_a_relay_that_wants_it(self) -> None:
        client, server = client_login(binding=None), server_login()
        run(client, server)
        self.refused(client, server, codes.BINDING, "relay")

    def test_a_client_with_binding_at_a_relay_that_has_none(self) -> None:
        client, server = client_login(), server_login(desk(binding="none"), binding=None)
        run(client, server)
        self.refused(client, server, codes.BINDING, "relay")

    def test_a_relay_behind_a_proxy_whose_entry_does_not_say_so(self) -> None:
        client, server = client_login(), server_login(binding=None)
        run(client, server)
        self.assertIn("TLS", self.refused(client, server, codes.BINDING, "relay").text)

    def test_a_middle_that_takes_the_flag_away(self) -> None:
        """It turns the bound flag off for a relay that would have it: the transcripts differ."""

        def wire(up: bool, message: bytes) -> bytes:
            if not up or message[0] != frames.HELLO:
                return message
            hello = handshake.parse_hello(message[4:])
            return handshake.pack_hello(hello._replace(flags=0))

        client, server = client_login(), server_login(desk(binding="none"), binding=None)
        run(client, server, wire)
        self.refused(client, server, codes.WRONG_RELAY, "client")

    def test_another_relay_key_than_in_the_map(self) -> None:
        client, server = client_login(), server_login(desk(key=static(501)))
        run(client, server)
        self.refused(client, server, codes.WRONG_RELAY, "client")

    def test_a_false_relay_that_shows_the_right_key(self) -> None:
        """It knows the public key of the relay, and all that passes, but not the private key."""
        false = Desk(
            relay=RELAY,
            key=static(501),
            names=[NAME],
            verify=verifier(ticket_keys()),
            random_bytes=chance(1),
        )

        def wire(up: bool, message: bytes) -> bytes:
            if up or message[0] != frames.CHALLENGE:
                return message
            return message[:4] + RELAY_KEY.public + message[36:]

        client, server = client_login(), server_login(false)
        sent = run(client, server, wire)
        self.refused(client, server, codes.WRONG_RELAY, "client")
        self.assertNotIn(frames.PROOF, [message[0] for message in sent])

    def test_a_relay_that_passes_the_login_on_to_another(self) -> None:
        """Relay A, of the same map, wants to be the client at relay B."""
        a, b = static(501), desk(names=["b.example.com"])
        client = client_login(relay_key=a.public, name="a.example.com")
        server = server_login(b)
        hello = handshake.parse_hello(client.start()[0][4:])._replace(name="b.example.com")
        [challenge] = server.receive(handshake.pack_hello(hello), 1.0, UNIX)
        [close] = client.receive(challenge)
        self.assertEqual(close[0], frames.CLOSE)
        with_a = challenge[:4] + a.public + challenge[36:]
        again = client_login(relay_key=a.public, name="a.example.com")
        [close] = again.receive(with_a)
        self.assertEqual(close[0], frames.CLOSE)
        assert again.failed is not None
        self.assertEqual(again.failed.code, codes.WRONG_RELAY)

    def test_a_stolen_public_key(self) -> None:
        """The thief has the victim's public key and ticket, and cannot answer the challenge."""
        victim, thief = static(1), static(2)
        client = client_login(2, ticket=signed(victim.public))
        client._key.public = victim.public
        hello = handshake.parse_hello(client.start()[0][4:])._replace(key=victim.public)
        client._hello = handshake.pack_hello(hello)
        server = server_login()
        [challenge] = server.receive(client._hello, 1.0, UNIX)
        keys = Keys(
            handshake.exchange(client._ephemeral, RELAY_KEY.public)
            + handshake.exchange(thief.private, handshake.parse_challenge(challenge[4:]).ephemeral),
            client._hello,
            challenge,
            BINDING,
        )
        server.receive(frames.pack_record(frames.PROOF, keys.proof()), 1.0, UNIX)
        assert server.failed is not None
        self.assertEqual(server.failed.code, codes.PROOF_FAILED)

    def test_somebody_elses_ticket(self) -> None:
        client, server = client_login(2, ticket=signed(static(1).public)), server_login()
        run(client, server)
        self.assertIn("another key", self.refused(client, server, codes.TICKET, "relay").text)

    def test_tickets_that_do_not_count(self) -> None:
        key = static(1).public
        for data, words in (
            (signed(key, issued=UNIX - 600, expires=UNIX), "expired"),
            (signed(key, relays=frozenset(("elsewhere",))), "other relays"),
            (issue(ticket(key), signing(9)), "no key of ours"),
            (issue(ticket(key, "12345678-1234-1234-1234-123456789012"), signing(1)), "may not"),
            (b"", "malformed"),
        ):
            client, server = client_login(ticket=data), server_login()
            run(client, server)
            self.assertIn(words, self.refused(client, server, codes.TICKET, "relay").text)

    def test_a_revoked_key(self) -> None:
        keys = ticket_keys()
        keys.revoke(static(1).public, UNIX + 600)
        client, server = client_login(), server_login(desk(verify=verifier(keys)))
        run(client, server)
        self.refused(client, server, codes.REVOKED, "relay")

    def test_a_login_again(self) -> None:
        """Everything that a client sent, sent again: the relay's ephemeral key is another."""
        sent = run(client_login(), server_login())
        again = server_login(desk(random_bytes=chance(8)))
        again.receive(sent[0], 1.0, UNIX)
        again.receive(sent[2], 1.0, UNIX)
        assert again.failed is not None and again.done is None
        self.assertEqual(again.failed.code, codes.PROOF_FAILED)

    def test_a_relays_answers_again(self) -> None:
        sent = run(client_login(), server_login())
        client = client_login(random_bytes=chance(9))
        client.receive(sent[1])
        assert client.failed is not None
        self.assertEqual(client.failed.code, codes.WRONG_RELAY)

    def test_a_changed_welcome(self) -> None:
        def wire(up: bool, message: bytes) -> bytes:
            if message[0] != frames.WELCOME:
                return message
            return message[:24] + bytes(4) + message[28:-1] + bytes((message[-1] ^ 1,))

        client, server = client_login(), server_login()
        run(client, server, wire)
        assert client.failed is not None
        self.assertEqual(client.failed.code, codes.PROOF_FAILED)
        self.assertIsNone(client.done)

    def test_keys_of_low_order(self) -> None:
        for bad in (ALL_ZERO, LOW_ORDER):
            hello = handshake.parse_hello(client_login().start()[0][4:])
            server = server_login()
            server.receive(handshake.pack_hello(hello._replace(ephemeral=bad)), 1.0, UNIX)
            assert server.failed is not None
            self.assertEqual(server.failed.code, codes.PROOF_FAILED)
            server = server_login()
            hello = hello._replace(key=bad, ticket=signed(bad))
            server.receive(handshake.pack_hello(hello), 1.0, UNIX)
            assert server.failed is not None
            self.assertEqual(server.failed.code, codes.PROOF_FAILED)
            client = client_login()
            client.receive(handshake.pack_challenge(Challenge(RELAY_KEY.public, bad, RELAY)))
            assert client.failed is not None
            self.assertEqual(client.failed.code, codes.PROOF_FAILED)

    def test_the_relays_own_key(self) -> None:
        client = client_login(500, relay_key=static(1).public)
        server = server_login()
        run(client, server)
        self.refused(client, server, codes.PROOF_FAILED, "relay")
        self.assertRaises(ValueError, client_login, 500)

    def test_a_counter_of_the_future(self) -> None:
        for ahead, taken in ((299, True), (301, False)):
            client = client_login(counter=int((UNIX + ahead) * 1000))
            server = server_login()
            run(client, server)
            self.assertEqual(server.done is not None, taken)
        self.refused(client, server, codes.CLOCK, "relay")

    def test_who_may_not_join_is_told_before_the_welcome(self) -> None:
        at = desk(admit=lambda client, now: Failure(codes.FULL, "this relay is full"))
        client, server = client_login(), server_login(at)
        sent = run(client, server)
        self.refused(client, server, codes.FULL, "relay")
        self.assertEqual([message[0] for message in sent], [1, 2, 3, frames.CLOSE])

    def test_who_is_not_proved_is_not_asked_about(self) -> None:
        asked: list[object] = []
        at = desk(admit=lambda client, now: asked.append(client))
        server = server_login(at)
        server.receive(client_login().start()[0], 1.0, UNIX)
        server.receive(frames.pack_record(frames.PROOF, bytes(32)), 1.0, UNIX)
        self.assertEqual(asked, [])

    def test_slow(self) -> None:
        client, server = client_login(), server_login()
        self.assertEqual((client.next_deadline(), server.next_deadline()), (10.0, 10.0))
        self.assertEqual((client.expire(9.9), server.expire(9.9)), ([], []))
        for side in (client, server):
            [close] = side.expire(10.0)
            self.assertEqual(close[:5].hex()[-2:], f"{codes.SLOW_LOGIN:02x}")
            self.assertIsNone(side.next_deadline())
            self.assertEqual(side.expire(99.0), [])

    def test_a_message_after_the_time(self) -> None:
        server = server_login()
        [close] = server.receive(client_login().start()[0], 10.0, UNIX)
        self.assertEqual(close[4], codes.SLOW_LOGIN)

    def test_out_of_order(self) -> None:
        server, client = server_login(), client_login()
        [close] = server.receive(frames.pack_record(frames.PROOF, bytes(32)), 1.0, UNIX)
        self.assertEqual(close[4], codes.MALFORMED)
        [close] = client.receive(frames.pack_record(frames.WELCOME, bytes(56)))
        self.assertEqual(close[4], codes.MALFORMED)

    def test_after_the_end_nothing_counts(self) -> None:
        server = server_login()
        server.receive(b"", 1.0, UNIX)
        self.assertEqual(server.receive(client_login().start()[0], 1.0, UNIX), [])
        self.assertIsNone(server.done)

    def test_sizes(self) -> None:
        for message in (
            frames.ping_record(bytes(8)) * 2,
            frames.pack_record(frames.HELLO, bytes(4093)),
            client_login().start()[0] + frames.pack_record(0x7E, b""),
        ):
            server = server_login()
            server.receive(message, 1.0, UNIX)
            assert server.failed is not None
            self.assertEqual(server.failed.code, codes.MALFORMED)
        client = client_login()
        client.receive(frames.pack_record(frames.CHALLENGE, bytes(1021)))
        assert client.failed is not None
        self.assertEqual(client.failed.code, codes.MALFORMED)

    def test_flags_in_a_login(self) -> None:
        sent = run(client_login(), server_login())
        server = server_login()
        server.receive(sent[0], 1.0, UNIX)
        server.receive(sent[2][:1] + b"\x01" + sent[2][2:], 1.0, UNIX)
        assert server.failed is not None
        self.assertEqual(server.failed.code, codes.MALFORMED)

    def test_the_other_end_gives_up(self) -> None:
        client = client_login()
        self.assertEqual(client.receive(frames.close_record(codes.FULL, "no\nroom")), [])
        self.assertEqual(client.failed, Failure(codes.FULL, "no?room", True))

    def test_misuse(self) -> None:
        self.assertRaises(ValueError, client_login, browser=True)
        self.assertRaises(ValueError, client_login, binding=b"short")
        self.assertRaises(ValueError, client_login, relay_key=b"short")
        self.assertRaises(ValueError, client_login, ticket=bytes(3073))
        self.assertRaises(ValueError, client_login, name="a" * 254)
        self.assertRaises(ValueError, desk, binding="perhaps")
        self.assertRaises(ValueError, desk, relay="No Id")

    @given(st.binary(max_size=400), st.booleans())
    @FUZZ
    def test_any_bytes_end_it_and_nothing_else(self, data: bytes, started: bool) -> None:
        server, client = server_login(), client_login()
        if started:
            client.receive(server.receive(client.start()[0], 1.0, UNIX)[0])
        server.receive(data, 1.0, UNIX)
        client.receive(data)
        for side in (server, client):
            self.assertIsNone(side.done)
            self.assertIsNotNone(side.failed)

    @given(st.integers(0, 3), st.integers(0, 10_000), st.integers(1, 255))
    @FUZZ
    def test_any_bit_counts(self, which: int, place: int, change: int) -> None:
        passed = [0]

        def wire(up: bool, message: bytes) -> bytes:
            passed[0] += 1
            if passed[0] != which + 1:
                return message
            at = place % len(message)
            return message[:at] + bytes((message[at] ^ change,)) + message[at + 1 :]

        client, server = client_login(), server_login()
        run(client, server, wire)
        self.assertIsNone(client.done)
        if which < 3:
            self.assertIsNone(server.done)

    @given(st.binary(max_size=500))
    @FUZZ
    def test_parsers(self, data: bytes) -> None:
        for read in (handshake.parse_hello, handshake.parse_challenge, handshake.parse_welcome):
            try:
                read(data)  # type: ignore[operator]
            except ProtocolError:
                continue


class VectorTests(SynchronousTestCase):
    """The login of tests/vectors/relay-login-v1.txt, and its keys by their definition."""

    def test_the_login(self) -> None:
        lines = [line for line in VECTOR.read_text("utf-8").splitlines() if line[:1] not in "#"]
        vector = {name: bytes.fromhex(value) for name, value in map(str.split, lines)}
        values = iter([vector["relay-ephemeral-private"], vector["session"]])
        at = desk(
            random_bytes=lambda size: next(values),
            verify=lambda data, now: ticket(static(1).public),
            rate_of=lambda ticket: 12_500_000,
        )
        client = client_login(
            ticket=vector["ticket"], random_bytes=lambda size: vector["client-ephemeral-private"]
        )
        self.assertEqual(client._key.private.private_bytes_raw(), vector["client-private"])
        self.assertEqual(RELAY_KEY.private.private_bytes_raw(), vector["relay-private"])
        server = server_login(at, vector["binding"])
        names = ("hello", "challenge", "proof", "welcome")
        self.assertEqual(run(client, server), [vector[name] for name in names])

    def test_its_keys_by_their_definition(self) -> None:
        lines = [line for line in VECTOR.read_text("utf-8").splitlines() if line[:1] not in "#"]
        v = {name: bytes.fromhex(value) for name, value in map(str.split, lines)}

        def dh(private: bytes, public: bytes) -> bytes:
            peer = X25519PublicKey.from_public_bytes(public)
            return X25519PrivateKey.from_private_bytes(private).exchange(peer)

        def mac(key: bytes, *data: bytes) -> bytes:
            return hmac.new(key, b"".join(data), "sha256").digest()

        label = b"border0 relay login v1\0"
        ours, theirs = v["hello"][36:68], v["challenge"][36:68]
        secret = dh(v["relay-private"], ours) + dh(v["client-private"], theirs)
        t1 = hashlib.sha256(label + v["hello"] + v["challenge"][:-64]).digest()
        prk, blocks = mac(t1, secret), [b""]
        for number in range(1, 5):
            blocks.append(mac(prk, blocks[-1], label, bytes((number,))))
        _, k1, k2, k3, k4 = blocks
        self.assertEqual(v["challenge"][-64:-32], mac(k1, t1))
        self.assertEqual(v["challenge"][-32:], mac(k2, t1, v["binding"]))
        t2 = hashlib.sha256(label + v["hello"] + v["challenge"]).digest()
        self.assertEqual(v["proof"][4:], mac(k3, t2, v["binding"]))
        t3 = label + v["hello"] + v["challenge"] + v["proof"] + v["welcome"][:-32]
        self.assertEqual(v["welcome"][-32:], mac(k4, hashlib.sha256(t3).digest(), v["binding"]))
