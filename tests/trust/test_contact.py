"""The first contact: a false server never sees an application byte."""

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet import defer, error, reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from border0.errors import ConfigError
from border0.trust import (
    PrivateCA,
    TrustError,
    client_context,
    first_contact,
    load_authority,
    parse_pin,
    pin_of,
    remembered_authority,
    server_context,
)
from border0.trust.authority import AUTHORITY_DAYS, DAY
from border0.trust.contact import _pinned
from tests.trust.test_contexts import SECRET, Echo, Loopback


class Talkative(Echo):
    """Speaks first, and notes when the client is gone."""

    def __init__(self, heard: list[bytes], gone: "defer.Deferred[None]") -> None:
        super().__init__(heard)
        self.gone = gone

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"tell me your code")

    def connectionLost(self, reason: Any = None) -> None:
        self.gone.callback(None)


class Contact(Loopback):
    def contact(self, port: int, pin: str = "", **more: Any) -> "defer.Deferred[bytes]":
        return first_contact(reactor, "127.0.0.1", port, pin or self.authority.pin, **more)

    def server(self, authority: PrivateCA, extra: bytes = b"") -> Any:
        chain, key = authority.leaf([], ["127.0.0.1"], time.time())
        return server_context(chain + extra, key)

    @defer.inlineCallbacks
    def plain(self, protocol: Any) -> Generator[Any, Any, int]:
        port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            Factory.forProtocol(protocol)
        )
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    @defer.inlineCallbacks
    def test_read_close_and_connect_verified(self) -> Generator[Any, Any, None]:
        gone: defer.Deferred[None] = defer.Deferred()
        first = Factory.forProtocol(lambda: Talkative(self.heard, gone))
        port = yield self.serve(self.server(self.authority), factory=first)
        certificate = yield self.contact(port)
        self.assertEqual(certificate, self.authority.certificate)
        yield gone  # closed by us, without a word
        self.assertEqual(self.heard, [])
        port = yield self.serve(self.server(self.authority))
        trusted = client_context("127.0.0.1", authority=certificate, pin=self.authority.pin)
        answer = yield self.say(trusted, port)
        self.assertEqual((answer, self.heard), (SECRET, [SECRET]))

    @defer.inlineCallbacks
    def test_by_name(self) -> Generator[Any, Any, None]:
        chain, key = self.authority.leaf(["localhost"], [], time.time())
        port = yield self.serve(server_context(chain, key))
        certificate = yield first_contact(reactor, "localhost", port, self.authority.pin)
        self.assertEqual(certificate, self.authority.certificate)

    @defer.inlineCallbacks
    def test_a_false_server(self) -> Generator[Any, Any, None]:
        other = PrivateCA.create(self.folder / "other", time.time())
        gone: defer.Deferred[None] = defer.Deferred()
        factory = Factory.forProtocol(lambda: Talkative(self.heard, gone))
        port = yield self.serve(self.server(other), factory=factory)
        failure = yield self.assertFailure(self.contact(port), TrustError)
        self.assertIn(self.authority.pin, str(failure))
        self.assertIn(other.pin, str(failure))
        yield gone
        self.assertEqual(self.heard, [])

    @defer.inlineCallbacks
    def test_a_false_server_that_shows_the_right_authority_too(self) -> Generator[Any, Any, None]:
        """The authority's certificate is public. The second connection verifies and fails."""
        other = PrivateCA.create(self.folder / "other", time.time())
        port = yield self.serve(self.server(other, extra=self.authority.certificate))
        certificate = yield self.contact(port)
        self.assertEqual(certificate, self.authority.certificate)
        trusted = client_context("127.0.0.1", authority=certificate, pin=self.authority.pin)
        yield self.refused(trusted, port)

    @defer.inlineCallbacks
    def test_the_pinned_key_is_a_leaf(self) -> Generator[Any, Any, None]:
        chain, key = self.authority.leaf([], ["127.0.0.1"], time.time())
        leaf, _ = x509.load_pem_x509_certificates(chain)
        port = yield self.serve(server_context(chain, key))
        failure = yield self.assertFailure(self.contact(port, pin_of(leaf)), TrustError)
        self.assertIn("not an authority", str(failure))

    @defer.inlineCallbacks
    def test_a_server_that_does_not_speak(self) -> Generator[Any, Any, None]:
        received: list[bytes] = []
        port = yield self.plain(lambda: Echo(received))
        lost = yield self.plain(Closing)
        noise = yield self.plain(Noise)
        failure = yield self.assertFailure(self.contact(lost), TrustError)
        self.assertIn("did not complete", str(failure))
        yield self.assertFailure(self.contact(noise), TrustError)
        # An echo answers a ClientHello with a ClientHello.
        yield self.assertFailure(self.contact(port), TrustError)
        self.assertTrue(all(SECRET not in data for data in received))

    @defer.inlineCallbacks
    def test_a_server_that_waits(self) -> Generator[Any, Any, None]:
        port = yield self.plain(Protocol)
        failure = yield self.assertFailure(self.contact(port, seconds=0.2), TrustError)
        self.assertIn("0.2 s", str(failure))

    @defer.inlineCallbacks
    def test_cancelled(self) -> Generator[Any, Any, None]:
        connected: defer.Deferred[Protocol] = defer.Deferred()
        port = yield self.plain(lambda: Closed(connected))
        going = self.contact(port)
        server = yield connected
        going.cancel()
        yield self.assertFailure(going, defer.CancelledError)
        yield server.gone

    @defer.inlineCallbacks
    def test_nobody_there(self) -> Generator[Any, Any, None]:
        port = yield TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory())
        number = port.getHost().port
        yield port.stopListening()
        yield self.assertFailure(self.contact(number), error.ConnectError)

    @defer.inlineCallbacks
    def test_remembered(self) -> Generator[Any, Any, None]:
        path, now = Path(self.mktemp()), time.time()

        def ask(port: int, pin: str, at: float = now) -> "defer.Deferred[bytes]":
            return remembered_authority(reactor, "127.0.0.1", port, pin, path, at)

        port = yield self.serve(self.server(self.authority))
        certificate = yield ask(port, self.authority.pin)
        self.assertEqual(path.read_bytes(), certificate)
        again = yield ask(1, self.authority.pin)  # nobody is asked
        self.assertEqual(again, certificate)
        # Expired, of another authority, or no certificate: the server is asked again.
        late = now + (AUTHORITY_DAYS + 1) * DAY
        yield self.assertFailure(ask(1, self.authority.pin, late), error.ConnectError)
        other = PrivateCA.create(self.folder / "other", now)
        for content in (other.certificate, b"garbage", b""):
            path.write_bytes(content)
            again = yield ask(port, self.authority.pin)
            self.assertEqual((again, path.read_bytes()), (certificate, certificate))
        yield self.assertFailure(ask(port, other.pin), TrustError)
        self.assertEqual(path.read_bytes(), certificate)
        self.assertRaises(ConfigError, ask, port, "sha256:")


class Closing(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class Noise(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"SSH-2.0-noise\r\n" * 10)


class Closed(Protocol):
    """Says when it is connected and when it is gone."""

    def __init__(self, connected: "defer.Deferred[Protocol]") -> None:
        self.here = connected
        self.gone: defer.Deferred[None] = defer.Deferred()

    def connectionMade(self) -> None:
        self.here.callback(self)

    def connectionLost(self, reason: Any = None) -> None:
        self.gone.callback(None)


class Arguments(SynchronousTestCase):
    def test_pins_and_hosts(self) -> None:
        pin = parse_pin("sha256:" + "ab" * 32)
        for host, bad in (("localhost", "sha256:ab"), ("localhost", ""), ("a" * 64 + ".b", pin)):
            self.assertRaises(ConfigError, first_contact, Clock(), host, 1, bad)

    def test_a_copy_of_the_key_under_another_signature(self) -> None:
        """A certificate with the pinned key that this key did not sign is no authority's."""
        folder = Path(self.mktemp())
        mine = PrivateCA.create(folder, time.time())
        der = bytearray(load_authority(mine.certificate).public_bytes(Encoding.DER))
        der[-1] ^= 1
        forged = x509.load_der_x509_certificate(bytes(der))
        self.assertEqual(pin_of(forged), mine.pin)
        self.assertRaises(TrustError, _pinned, [forged], mine.pin, "here")
