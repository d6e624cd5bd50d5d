"""A pin: SHA-256 of an authority's SubjectPublicKeyInfo, written `sha256:<64 hex digits>`.

Source: RFC 7469 §2.4 (why the key is pinned, not the certificate: it outlives the certificate).
"""

import hashlib
import hmac
import re

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from border0.errors import ConfigError

_PIN = re.compile(r"sha256:[0-9a-f]{64}")


def pin_of(certificate: x509.Certificate) -> str:
    """The pin of this certificate's key."""
    key = certificate.public_key()
    return (
        "sha256:"
        + hashlib.sha256(
            key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        ).hexdigest()
    )


def parse_pin(text: str) -> str:
    """The pin in its one form; raises ConfigError for what is none."""
    pin = text.strip().lower()
    if not _PIN.fullmatch(pin):
        raise ConfigError("a pin is sha256: and 64 hexadecimal digits")
    return pin


def same_pin(one: str, other: str) -> bool:
    """Whether two pins are the same."""
    return hmac.compare_digest(one.encode(), other.encode())


def load_authority(pem: bytes) -> x509.Certificate:
    """The one certificate of an authority in `pem`.

    :raises ConfigError: no certificate, several of them, or one that is no authority's.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigError("no certificate in PEM") from None
    if len(certificates) != 1:
        raise ConfigError(f"{len(certificates)} certificates instead of one")
    if not is_authority(certificates[0]):
        raise ConfigError("the certificate is not an authority's")
    return certificates[0]


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it says of itself, with its own signature, that it signs others."""
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        certificate.verify_directly_issued_by(certificate)
    except Exception:  # a foreign certificate may break any rule of its encoding
        return False
    return basic.value.ca
