"""TLS to the database server: contexts for the four modes, and the channel binding.

Source: PostgreSQL documentation, "SSL Support" (the meaning of the modes); RFC 5929 §4.1
(tls-server-end-point). `prefer` and `require` encrypt without knowing the server, `verify-full`
checks chain and name. There is no fall-back to clear text after a failed handshake.
"""

from typing import Any

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL, crypto
from twisted.internet import ssl

from border0.errors import ConfigError
from border0.proxies.adapters.tls import authorities
from border0.proxies.postgres.upstream import UpstreamSettings


def client_context(upstream: UpstreamSettings) -> Any:
    """What `startTLS` takes; None when the mode is `disable`.

    :raises ConfigError: a certificate or key that cannot be read.
    """
    if upstream.tls_mode == "disable":
        return None
    identity = _identity(upstream)
    if upstream.tls_mode != "verify-full":
        return _Unverified(identity)
    if upstream.ca_certificate:
        trust: Any = ssl.trustRootFromCertificates(authorities(upstream.ca_certificate))
    else:
        trust = ssl.platformTrust()
    return ssl.optionsForClientTLS(upstream.host, trust, identity)


class _Unverified:
    """An encrypting context that checks nothing about the server."""

    def __init__(self, identity: Any) -> None:
        options: dict[str, Any] = {"lowerMaximumSecurityTo": None}
        if identity is not None:
            options["privateKey"] = identity.privateKey.original
            options["certificate"] = identity.original
        self._options = ssl.CertificateOptions(
            raiseMinimumTo=ssl.TLSVersion.TLSv1_2,
            **{name: value for name, value in options.items() if value is not None},
        )

    def getContext(self) -> Any:
        return self._options.getContext()


def _identity(upstream: UpstreamSettings) -> ssl.PrivateCertificate | None:
    if not upstream.certificate:
        return None
    if upstream.key is None:
        raise ConfigError("certificate is set and key is missing")
    try:
        pem = upstream.certificate + "\n" + upstream.key.reveal()
        pair: ssl.PrivateCertificate = ssl.PrivateCertificate.loadPEM(pem.encode())
        return pair
    except (crypto.Error, SSL.Error, ValueError):
        raise ConfigError("certificate and key are no PEM pair") from None


def channel_binding(transport: Any) -> tuple[str, bytes] | None:
    """The tls-server-end-point binding of a connection on which TLS stands."""
    peer = transport.getPeerCertificate()
    if peer is None:
        return None
    certificate = peer.to_cryptography()
    try:
        algorithm = certificate.signature_hash_algorithm
    except Exception:  # an algorithm that `cryptography` does not know
        return None
    if algorithm is None:
        return None  # Ed25519 and the like: RFC 5929 leaves the hash undefined
    if algorithm.name in ("md5", "sha1"):
        algorithm = hashes.SHA256()
    return "tls-server-end-point", certificate.fingerprint(algorithm)
