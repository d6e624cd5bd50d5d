"""Certificates of the authorities that a proxy trusts for its upstream."""

from OpenSSL import SSL, crypto
from twisted.internet import ssl

from border0.errors import ConfigError

_BEGIN = "-----BEGIN CERTIFICATE-----"


def authorities(pem: str) -> list[ssl.Certificate]:
    """The certificates in a PEM text.

    :raises ConfigError: there is none, or one cannot be read.
    """
    parts = [_BEGIN + part for part in pem.split(_BEGIN)[1:]]
    try:
        found = [ssl.Certificate.loadPEM(part.encode()) for part in parts]
    except (crypto.Error, SSL.Error, ValueError):
        found = []
    if not found:
        raise ConfigError("ca_certificate holds no PEM certificate")
    return found
