"""A private certificate authority: made once, pinned by its key, good for few names.

Source: RFC 5280 §4.2.1.9 (basic constraints) and §4.2.1.10 (name constraints): DNS names are
limited to `border0.internal` with what is below it, and `localhost`; IP addresses are not, so
that a server may move to another one. Leaves live in memory only; their keys are never written.
"""

import datetime
import os
import stat
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from border0.errors import ConfigError
from border0.trust.pins import load_authority, pin_of

DAY = 86400.0
AUTHORITY_DAYS = 3650.0
LEAF_DAYS = 30.0
BACKDATED = 3600.0  # seconds: a client's clock may be behind
DOMAINS = ("border0.internal", "localhost")
CERTIFICATE, KEY = "ca.pem", "ca.key"


class PrivateCA:
    """An authority whose files are `ca.pem` (0644) and `ca.key` (0600) in one folder.

    `pin` is what clients are told, `certificate` the PEM that servers send and clients trust.
    """

    __slots__ = ("_certificate", "_key", "pin")

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        if certificate.public_key() != key.public_key():
            raise ConfigError("the authority's certificate and key do not belong together")
        self._certificate = certificate
        self._key = key
        self.pin = pin_of(certificate)

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def create(cls, folder: Path, now: float) -> "PrivateCA":
        """A new authority in `folder` (made with mode 0700), valid from `now` (Unix seconds).

        :raises FileExistsError: there is a key; it is never overwritten.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write_new(folder / KEY, pem)
        certificate = _self_signed(key, now)
        _replace(folder / CERTIFICATE, certificate)
        return cls(certificate, key)

    @classmethod
    def load(cls, folder: Path, now: float) -> "PrivateCA":
        """The authority in `folder`; its certificate is renewed in its last third.

        The key, and with it the pin, stays. A certificate that is not there is made again.

        :raises ConfigError: unreadable, no authority, or a key that others can read.
        """
        path = folder / KEY
        try:
            mode = path.stat().st_mode
            key = serialization.load_pem_private_key(path.read_bytes(), None)
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from None
        except (TypeError, ValueError):
            raise ConfigError(f"{path}: not a private key") from None
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"{path} is open to others; run: chmod 600 {path}")
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{path}: not a key of this program")
        try:
            certificate = load_authority((folder / CERTIFICATE).read_bytes())
        except FileNotFoundError:  # stopped between the two files
            certificate = _self_signed(key, now)
            _replace(folder / CERTIFICATE, certificate)
        except OSError as error:
            raise ConfigError(f"{folder / CERTIFICATE}: {error.strerror}") from None
        authority = cls(certificate, key)
        if now > certificate.not_valid_after_utc.timestamp() - AUTHORITY_DAYS * DAY / 3:
            authority._certificate = _self_signed(key, now)
            _replace(folder / CERTIFICATE, authority._certificate)
        return authority

    @classmethod
    def open(cls, folder: Path, now: float) -> "PrivateCA":
        """The authority in `folder`, made when there is none.

        :raises ConfigError: as `load`.
        """
        return cls.load(folder, now) if (folder / KEY).exists() else cls.create(folder, now)

    def leaf(
        self, names: Iterable[str], addresses: Iterable[str], now: float, days: float = LEAF_DAYS
    ) -> tuple[bytes, bytes]:
        """(chain, key) in PEM for a server with these DNS names and IP addresses.

        The chain ends in the authority's own certificate, so that a first contact can read it.

        :raises ValueError: neither name nor address, a name that the authority may not sign for,
            an address that is none.
        """
        alternatives: list[x509.GeneralName] = []
        for name in names:
            if not any(name == domain or name.endswith("." + domain) for domain in DOMAINS):
                raise ValueError(f"{name}: only names below {' and '.join(DOMAINS)}")
            alternatives.append(x509.DNSName(name))
        alternatives += [x509.IPAddress(ip_address(address)) for address in addresses]
        if not alternatives:
            raise ValueError("a server without a name")
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        identifier = self._certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier.value)
        builder = (
            _builder(_name("border0 server"), self._certificate.subject, key, now, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(issuer, critical=False)
        )
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return certificate.public_bytes(serialization.Encoding.PEM) + self.certificate, pem


def _name(text: str) -> x509.Name:
    # No common name: old verifiers would read a host name in it.
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: float,
    days: float,
) -> x509.CertificateBuilder:
    def moment(unix: float) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(int(unix), datetime.UTC)

    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(now - BACKDATED))
        .not_valid_after(moment(now + days * DAY))
        .add_extension(identifier, critical=False)
    )


def _self_signed(key: ec.EllipticCurvePrivateKey, now: float) -> x509.Certificate:
    # The name carries a part of the key's fingerprint: two authorities never look alike.
    digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest
    name = _name(f"border0 private authority {digest.hex()[:16]}")
    permitted = [x509.DNSName(domain) for domain in DOMAINS]
    return (
        _builder(name, name, key, now, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .sign(key, hashes.SHA256())
    )


def _write_new(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, certificate: x509.Certificate) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    temporary.chmod(0o644)
    temporary.replace(path)
