"""TLS contexts: servers that renew their leaf, clients that verify, always.

Source: RFC 6125 §6 (a server is known by the DNS name or IP address that was asked for). There is
no argument, variable or file here that turns verification off; who is trusted is the one choice.
"""

from collections.abc import Callable, Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet import ssl
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from border0.errors import ConfigError
from border0.trust.authority import DAY, LEAF_DAYS, PrivateCA
from border0.trust.pins import load_authority, parse_pin, pin_of, same_pin


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """What a TLS port of Twisted takes; `replace` changes the certificate while it listens.

    Args:
        chain: the leaf first, then what leads to the authority; PEM.
        key: the leaf's private key; PEM without a password.

    :raises ConfigError: no PEM, or two that do not belong together.
    """

    def __init__(self, chain: bytes, key: bytes) -> None:
        self._context = _server_context(chain, key)

    def replace(self, chain: bytes, key: bytes) -> None:
        """Serve this pair from the next connection on; the old one stays at a ConfigError."""
        self._context = _server_context(chain, key)

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """A connection with the certificate of now."""
        return SSL.Connection(self._context, None)


class RenewingContext(ServerContext):
    """A server of a private authority: its leaf is renewed when two thirds of its life are over.

    The leaf is looked at when somebody connects, so that there is no timer to miss.

    Args:
        authority: signs.
        names, addresses: DNS names and IP addresses of the server (see `PrivateCA.leaf`).
        clock: Unix seconds.
        days: life of a leaf.
    """

    def __init__(
        self,
        authority: PrivateCA,
        names: Iterable[str],
        addresses: Iterable[str],
        clock: Callable[[], float],
        days: float = LEAF_DAYS,
    ) -> None:
        self._authority = authority
        self._names, self._addresses = tuple(names), tuple(addresses)
        self._clock = clock
        self._days = days
        now = clock()
        super().__init__(*authority.leaf(self._names, self._addresses, now, days))
        self._born = now

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """A connection with a leaf that is good for a while."""
        now = self._clock()
        # also when the clock was set back to before the leaf's life
        if not self._born <= now < self._born + self._days * DAY * 2 / 3:
            self.replace(*self._authority.leaf(self._names, self._addresses, now, self._days))
            self._born = now
        return super().serverConnectionForTLS(protocol)


def server_context(chain: bytes, key: bytes) -> ServerContext:
    """A server with a certificate of its own, say a public one; see `ServerContext`."""
    return ServerContext(chain, key)


def trust_root(authority: bytes | None = None, pin: str | None = None) -> Any:
    """Whom to believe, as Twisted's client contexts and agents take it.

    :param authority: certificates in PEM, and only they; None is the system's store.
    :param pin: `authority` must be the one certificate of this pin.
    :raises ConfigError: no certificate, or not the pinned one.
    :raises ValueError: a pin without its authority, which `first_contact` brings.
    """
    if authority is None:
        if pin is not None:
            raise ValueError("a pin alone verifies nothing: first_contact brings its authority")
        return ssl.platformTrust()
    if pin is not None and not same_pin(pin_of(load_authority(authority)), parse_pin(pin)):
        raise ConfigError("the authority's certificate is not the pinned one")
    try:
        certificates = x509.load_pem_x509_certificates(authority)
    except ValueError:
        raise ConfigError("no certificate in PEM") from None
    return ssl.trustRootFromCertificates(
        [ssl.Certificate(crypto.X509.from_cryptography(one)) for one in certificates]
    )


def client_context(host: str, *, authority: bytes | None = None, pin: str | None = None) -> Any:
    """What `wrapClientTLS`, `connectSSL` and `startTLS` take; chain and name are verified.

    :param host: DNS name or IP address that the server must show.
    :raises ConfigError: as `trust_root`, or a host that is neither name nor address.
    """
    root = trust_root(authority, pin)
    try:
        return ssl.optionsForClientTLS(host, root)
    except (ValueError, UnicodeError):
        raise ConfigError(f"{host!r} is neither a DNS name nor an IP address") from None


def _server_context(chain: bytes, key: bytes) -> SSL.Context:
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise ConfigError("the server's certificate is no PEM") from None
    try:
        private = load_pem_private_key(key, None)
    except (TypeError, ValueError):
        raise ConfigError("the server's private key is no PEM without a password") from None
    leaf, *rest = [crypto.X509.from_cryptography(one) for one in certificates]
    if private.public_key() != certificates[0].public_key():
        raise ConfigError("the server's certificate and private key do not belong together")
    try:
        options = ssl.CertificateOptions(
            privateKey=crypto.load_privatekey(crypto.FILETYPE_PEM, key),
            certificate=leaf,
            extraCertChain=rest,
        )
        context: SSL.Context = options.getContext()
    except (SSL.Error, crypto.Error, ValueError):
        raise ConfigError("TLS does not take the server's certificate or key") from None
    return context
