"""The first contact: read a server's chain without trust, compare the pin, close.

What comes back is the authority's certificate; who sends anything connects again with
`client_context` and that certificate, which verifies. A false server may show the right
authority's certificate beside a leaf of its own: it passes here and fails there. So this is the
only place that completes a handshake unverified, and nothing can be written through it.
"""

from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from twisted.internet import defer, error
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IHandshakeListener, IOpenSSLClientConnectionCreator
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from border0 import privatefile
from border0.errors import ConfigError
from border0.trust.errors import TrustError
from border0.trust.pins import is_authority, load_authority, parse_pin, pin_of, same_pin

CONTACT_SECONDS = 15.0
MAXIMUM_CHAIN = 10


def first_contact(
    reactor: Any,
    host: str,
    port: int,
    pin: str,
    *,
    seconds: float = CONTACT_SECONDS,
    way: Any = None,
) -> "defer.Deferred[bytes]":
    """The certificate (PEM) of the authority with this pin, as the server shows it.

    The connection is closed when the result is there; no byte of any application went over it.

    :param seconds: for the whole of it.
    :param way: an endpoint that gets there, through a proxy say; None: directly.
    :raises ConfigError: a pin or host that is none.
    :return: fails with TrustError (another server, no TLS, too slow), or with Twisted's
        ConnectError or DNSLookupError when nobody answers.
    """
    pin = parse_pin(pin)
    where = f"{host}:{port}"
    reader = _Reader()
    chain = reader.chain
    direct: Any = HostnameEndpoint(reactor, host, port, timeout=seconds)
    endpoint = wrapClientTLS(_Unverified(host), way or direct)
    reader.connecting = endpoint.connect(Factory.forProtocol(lambda: reader))
    reader.connecting.addErrback(reader.stop)
    late = reactor.callLater(seconds, reader.stop, Failure(error.TimeoutError()))

    def compare(chain: list[x509.Certificate]) -> bytes:
        return _pinned(chain, pin, where)

    def failed(failure: Failure) -> Failure:
        if failure.check(error.TimeoutError):
            text = f"{where} did not complete a TLS handshake in {seconds:g} s"
        elif failure.check(SSL.Error, error.ConnectionDone, error.ConnectionLost):
            text = f"{where} did not complete a TLS handshake"
        else:
            return failure
        return Failure(TrustError(f"{text}; nothing was sent to it"))

    def finished(result: Any) -> Any:
        if late.active():
            late.cancel()
        return result

    chain.addBoth(finished)
    chain.addErrback(failed)
    return chain.addCallback(compare)


def remembered_authority(
    reactor: Any, host: str, port: int, pin: str, path: Path, now: float, *, way: Any = None
) -> "defer.Deferred[bytes]":
    """The authority's certificate (PEM) from `path`, or by a first contact, then kept there.

    A file that is not the pinned authority's, or whose certificate has expired at `now` (Unix
    seconds), is replaced; `way` is as in `first_contact`. Raises and fails as
    `first_contact`, and with OSError.
    """
    try:
        kept = path.read_bytes()
        certificate = load_authority(kept)
        if same_pin(pin_of(certificate), parse_pin(pin)):
            if now < certificate.not_valid_after_utc.timestamp():
                return defer.succeed(kept)
    except FileNotFoundError:
        pass
    except ConfigError:
        parse_pin(pin)  # a wrong pin is the caller's mistake, a wrong file is replaced

    def keep(certificate: bytes) -> bytes:
        privatefile.replace(path, certificate)
        return certificate

    return first_contact(reactor, host, port, pin, way=way).addCallback(keep)


def _pinned(chain: list[x509.Certificate], pin: str, where: str) -> bytes:
    shown = []
    for certificate in chain:
        try:
            this = pin_of(certificate)
        except Exception:  # a key that `cryptography` does not know is not the pinned one
            continue
        shown.append(this)
        if same_pin(this, pin):
            if not is_authority(certificate):
                raise TrustError(f"{where}: the pinned key is not an authority's")
            return certificate.public_bytes(Encoding.PEM)
    last = f"the last of them {shown[-1]}" if shown else "none that can be read"
    raise TrustError(
        f"{where} is not the server that is pinned: none of its {len(chain)} certificates has "
        f"the key {pin} ({last}); nothing was sent to it"
    )


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """A handshake that believes anybody; `_Reader` ends the connection right after it."""

    def __init__(self, host: str) -> None:
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_verify(SSL.VERIFY_NONE, _anybody)
        self._name: bytes | None = None
        try:
            ip_address(host)
        except ValueError:
            try:
                self._name = host.encode("idna")
            except UnicodeError:
                raise ConfigError(f"{host!r} is neither a DNS name nor an IP address") from None

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._name:
            connection.set_tlsext_host_name(self._name)
        return connection


def _anybody(*_: object) -> bool:
    return True


@implementer(IHandshakeListener)
class _Reader(Protocol):
    """Takes the chain when the handshake is done, and closes. It never writes."""

    transport: Any

    def __init__(self) -> None:
        self.connecting: defer.Deferred[Any] | None = None
        self.chain: defer.Deferred[list[x509.Certificate]] = defer.Deferred(self._cancelled)
        self._read: list[x509.Certificate] | None = None
        self._failure: Failure | None = None

    def handshakeCompleted(self) -> None:
        found = []
        for one in (self.transport.getHandle().get_peer_cert_chain() or [])[:MAXIMUM_CHAIN]:
            try:
                found.append(one.to_cryptography())
            except Exception:  # what breaks its encoding, in whatever way, is not the pinned one
                continue
        self._read = found
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Nobody asked the server anything: what it says is not read."""

    def stop(self, failure: Failure) -> None:
        """End with this failure, as soon as the connection is closed."""
        self._failure = self._failure or failure
        if self.transport is not None:
            self.transport.abortConnection()
            return
        if self.connecting is not None:
            self.connecting.cancel()
        self._end(self._failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._read is None:
            self._end(self._failure or reason)
        elif not self.chain.called:
            self.chain.callback(self._read)

    def _end(self, failure: Failure) -> None:
        if not self.chain.called:
            self.chain.errback(failure)

    def _cancelled(self, _: object) -> None:
        self.stop(Failure(defer.CancelledError()))
