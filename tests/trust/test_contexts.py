"""Servers and clients over real TLS on loopback: what verifies, and all that does not."""

import ast
import datetime
import inspect
import time
from collections.abc import Generator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from twisted.internet import defer, reactor
from twisted.internet.endpoints import HostnameEndpoint, SSL4ServerEndpoint, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

import border0.trust
from border0.errors import ConfigError
from border0.trust import (
    PrivateCA,
    RenewingContext,
    client_context,
    pin_of,
    server_context,
    trust_root,
)
from border0.trust.authority import DAY

SECRET = b"one-time code: 1234"


class Echo(Protocol):
    """Keeps what applications said, and says it again."""

    def __init__(self, heard: list[bytes]) -> None:
        self.heard = heard

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(data)
        assert self.transport is not None
        self.transport.write(data)


class Say(Protocol):
    """Says the secret as soon as TLS stands, and gives back the answer."""

    def __init__(self) -> None:
        self.answer: defer.Deferred[bytes] = defer.Deferred()
        self.heard = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(SECRET)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.loseConnection()
        self.heard = data

    def connectionLost(self, reason: Any = None) -> None:
        if self.heard:
            self.answer.callback(self.heard)
        else:
            self.answer.errback(reason)


class Loopback(TestCase):
    """An authority, and servers of any context on 127.0.0.1."""

    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.authority = PrivateCA.create(self.folder, time.time())
        self.heard: list[bytes] = []

    @defer.inlineCallbacks
    def serve(
        self, context: Any, host: str = "127.0.0.1", factory: Factory | None = None
    ) -> Generator[Any, Any, int]:
        endpoint = SSL4ServerEndpoint(reactor, 0, context, interface=host)
        port = yield endpoint.listen(factory or Factory.forProtocol(lambda: Echo(self.heard)))
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def say(self, context: Any, port: int, host: str = "127.0.0.1") -> "defer.Deferred[bytes]":
        said = Say()
        endpoint = wrapClientTLS(context, HostnameEndpoint(reactor, host, port))
        endpoint.connect(Factory.forProtocol(lambda: said)).addErrback(said.connectionLost)
        return said.answer

    @defer.inlineCallbacks
    def refused(self, context: Any, port: int, host: str = "127.0.0.1") -> Generator[Any, Any, Any]:
        failure = yield self.assertFailure(self.say(context, port, host), Exception)
        self.assertEqual(self.heard, [])
        return failure


class Verified(Loopback):
    @defer.inlineCallbacks
    def test_addresses(self) -> Generator[Any, Any, None]:
        leaf = self.authority.leaf([], ["127.0.0.1", "::1"], time.time())
        for host in ("127.0.0.1", "::1"):
            port = yield self.serve(server_context(*leaf), host)
            trusted = client_context(
                host, authority=self.authority.certificate, pin=self.authority.pin
            )
            answer = yield self.say(trusted, port, host)
            self.assertEqual(answer, SECRET)

    @defer.inlineCallbacks
    def test_names(self) -> Generator[Any, Any, None]:
        leaf = self.authority.leaf(["localhost", "lab.border0.internal"], [], time.time())
        port = yield self.serve(server_context(*leaf))
        for name in ("localhost", "lab.border0.internal"):
            trusted = client_context(name, authority=self.authority.certificate)
            answer = yield self.say(trusted, port)
            self.assertEqual(answer, SECRET)

    @defer.inlineCallbacks
    def test_another_name_or_address(self) -> Generator[Any, Any, None]:
        leaf = self.authority.leaf(["localhost"], ["127.0.0.2"], time.time())
        port = yield self.serve(server_context(*leaf))
        for name in ("lab.border0.internal", "127.0.0.1", "::1"):
            yield self.refused(client_context(name, authority=self.authority.certificate), port)

    @defer.inlineCallbacks
    def test_another_authority(self) -> Generator[Any, Any, None]:
        other = PrivateCA.create(self.folder / "other", time.time())
        port = yield self.serve(server_context(*other.leaf([], ["127.0.0.1"], time.time())))
        trusted = client_context("127.0.0.1", authority=self.authority.certificate)
        yield self.refused(trusted, port)
        yield self.refused(client_context("127.0.0.1"), port)  # nor does the system know it

    @defer.inlineCallbacks
    def test_expired_and_not_yet_valid(self) -> Generator[Any, Any, None]:
        trusted = client_context("127.0.0.1", authority=self.authority.certificate)
        for moment in (time.time() - 3 * DAY, time.time() + DAY):
            leaf = self.authority.leaf([], ["127.0.0.1"], moment, 1)
            port = yield self.serve(server_context(*leaf))
            yield self.refused(trusted, port)

    @defer.inlineCallbacks
    def test_a_name_outside_the_constraint(self) -> Generator[Any, Any, None]:
        """Even who has the authority's key cannot be the server of a public name with it."""
        for names, works in (("lab.border0.internal", True), ("example.org", False)):
            port = yield self.serve(server_context(*self.by_hand(x509.DNSName(names))))
            trusted = client_context(names, authority=self.authority.certificate)
            if works:
                yield self.say(trusted, port)
                self.heard.clear()
            else:
                yield self.refused(trusted, port)

    def by_hand(
        self, name: x509.GeneralName, chain: bytes = b"", signing: Any = None
    ) -> tuple[bytes, bytes]:
        """A leaf that `PrivateCA.leaf` would not sign, by the authority or the leaf of `chain`."""
        now = datetime.datetime.now(datetime.UTC)
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.load_pem_x509_certificates(chain or self.authority.certificate)[0]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .sign(signing or self.authority._key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        private = key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(pem) + chain, private

    @defer.inlineCallbacks
    def test_a_leaf_is_no_authority(self) -> Generator[Any, Any, None]:
        chain, key = self.authority.leaf([], ["127.0.0.1"], time.time())
        signing = serialization.load_pem_private_key(key, None)
        name = x509.IPAddress(ip_address("127.0.0.1"))
        trusted = client_context("127.0.0.1", authority=self.authority.certificate)
        port = yield self.serve(server_context(*self.by_hand(name)))
        yield self.say(trusted, port)
        self.heard.clear()
        port = yield self.serve(server_context(*self.by_hand(name, chain, signing)))
        yield self.refused(trusted, port)

    @defer.inlineCallbacks
    def test_the_certificate_is_replaced_while_the_port_listens(self) -> Generator[Any, Any, None]:
        other = PrivateCA.create(self.folder / "other", time.time())
        context = server_context(*self.authority.leaf([], ["127.0.0.1"], time.time()))
        port = yield self.serve(context)
        trusted = client_context("127.0.0.1", authority=other.certificate)
        yield self.refused(trusted, port)
        self.assertRaises(ConfigError, context.replace, b"garbage", b"")
        context.replace(*other.leaf([], ["127.0.0.1"], time.time()))
        answer = yield self.say(trusted, port)
        self.assertEqual(answer, SECRET)

    @defer.inlineCallbacks
    def test_a_leaf_renews_itself(self) -> Generator[Any, Any, None]:
        moment = time.time() - 25 * DAY
        context = RenewingContext(self.authority, [], ["127.0.0.1"], lambda: moment)
        port = yield self.serve(context)
        trusted = client_context("127.0.0.1", authority=self.authority.certificate)
        yield self.say(trusted, port)
        first = leaf_of(context)
        moment += 19 * DAY
        self.assertEqual(leaf_of(context).serial_number, first.serial_number)
        moment = time.time()  # two thirds of 30 days are over
        yield self.say(trusted, port)
        second = leaf_of(context)
        self.assertNotEqual(second.serial_number, first.serial_number)
        self.assertGreater(second.not_valid_after_utc.timestamp(), moment + 29 * DAY)
        moment -= 40 * DAY  # the clock was wrong, and is set back
        third = leaf_of(context)
        self.assertLess(third.not_valid_before_utc.timestamp(), moment)


def leaf_of(context: RenewingContext) -> x509.Certificate:
    """What the next connection is served."""
    found = context.serverConnectionForTLS(None).get_certificate()
    assert found is not None
    return found.to_cryptography()


class Arguments(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.authority = PrivateCA.create(self.folder, time.time())

    def test_pin_and_authority(self) -> None:
        other = PrivateCA.create(self.folder / "other", time.time())
        pem = self.authority.certificate
        trust_root(pem, self.authority.pin)
        trust_root(pem + other.certificate)  # a file of several, without a pin
        for authority, pin in (
            (pem, other.pin),
            (pem, "sha256:"),
            (pem + other.certificate, self.authority.pin),
            (b"", None),
            (b"garbage", self.authority.pin),
        ):
            self.assertRaises(ConfigError, trust_root, authority, pin)
        self.assertRaises(ValueError, trust_root, None, self.authority.pin)

    def test_hosts(self) -> None:
        for host in ("", "a" * 64 + ".example", "exa mple\ud800"):
            error = self.assertRaises(
                ConfigError, client_context, host, authority=self.authority.certificate
            )
            self.assertIn("neither", str(error))

    def test_servers(self) -> None:
        chain, key = self.authority.leaf(["localhost"], [], time.time())
        _, other = self.authority.leaf(["localhost"], [], time.time())
        for pair in ((chain, other), (chain, b"garbage"), (b"garbage", key), (b"", key)):
            self.assertRaises(ConfigError, server_context, *pair)

    def test_nothing_switches_verification_off(self) -> None:
        """No argument does, and one class alone makes a context that does not verify."""
        self.assertEqual(list(inspect.signature(client_context).parameters), HOST)
        self.assertEqual(list(inspect.signature(trust_root).parameters), HOST[1:])
        folder = Path(border0.trust.__file__).parent
        found = []
        for path in folder.glob("*.py"):
            tree = ast.parse(path.read_text("utf-8"))
            for place in tree.body:
                names = {node.attr for node in ast.walk(place) if isinstance(node, ast.Attribute)}
                if "VERIFY_NONE" in names or "set_verify" in names:
                    found.append((path.name, getattr(place, "name", "")))
                self.assertFalse(names & {"environ", "getenv", "_create_unverified_context"})
        self.assertEqual(found, [("contact.py", "_Unverified")])
        self.assertNotIn("_Unverified", border0.trust.__all__)

    def test_pin_is_of_the_key_alone(self) -> None:
        certificate = x509.load_pem_x509_certificate(self.authority.certificate)
        self.assertEqual(pin_of(certificate), self.authority.pin)


HOST = ["host", "authority", "pin"]
