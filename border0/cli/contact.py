"""The first contact, blocking: read a server's chain without trust, compare the pin, close.

Source: RFC 7469 §2.4 (why the key is pinned). Not one byte is written over a connection made here.
The result is the authority with which `api` connects again, verified; there a server that shows
the right authority beside a leaf of its own fails, before it saw a code or a token.
"""

import socket
import ssl
import time
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from border0.errors import Border0Error
from border0.trust.pins import is_authority, parse_pin, pin_of, same_pin

SECONDS = 15.0
MAXIMUM_CHAIN = 10


def pinned_authority(
    host: str, port: int, pin: str, seconds: float = SECONDS, what: str = "the control plane"
) -> bytes:
    """The certificate (PEM) of the authority with this pin, as the server shows it.

    :param seconds: for the whole of it.
    :param what: who should be there, for the errors.
    :raises ConfigError: a pin that is none.
    :raises Border0Error: nobody answers, no TLS, or another server.
    """
    pin = parse_pin(pin)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    shown = []
    for encoded in _chain(host, port, where, seconds, what)[:MAXIMUM_CHAIN]:
        try:
            certificate = x509.load_der_x509_certificate(encoded)
            shown.append(pin_of(certificate))
        except Exception:  # what breaks its encoding, in whatever way, is not the pinned one
            continue
        if same_pin(shown[-1], pin):
            if not is_authority(certificate):
                raise Border0Error(f"{where}: the key of --ca is not an authority's")
            return certificate.public_bytes(Encoding.PEM)
    last = f"it shows {shown[-1]}" if shown else "it shows no certificate that can be read"
    raise Border0Error(
        f"{where} is not the server of {pin}: {last}; nothing was sent to it. "
        f"Compare --ca with what {what} printed"
    )


def _chain(host: str, port: int, where: str, seconds: float, what: str) -> list[bytes]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # here alone: the pin is compared, and nothing is sent
    deadline = time.monotonic() + seconds
    try:
        with socket.create_connection((host, port), timeout=seconds) as plain:
            plain.settimeout(max(0.1, deadline - time.monotonic()))
            with context.wrap_socket(plain, server_hostname=host) as connection:
                return _shown(connection)
    except socket.gaierror:
        raise Border0Error(f"{host}: no such host; check the address") from None
    except TimeoutError:
        raise Border0Error(f"{where} did not complete a TLS handshake in {seconds:g} s") from None
    except ssl.SSLError:
        raise Border0Error(f"{where} does not speak TLS; nothing was sent to it") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no connection"
        raise Border0Error(f"{where}: {reason}; is {what} running there?") from None


def _shown(connection: ssl.SSLSocket) -> list[bytes]:
    """The chain as sent, DER. Python 3.13 has a method for it; before, it lies one level down."""
    source: Any = connection
    if not hasattr(source, "get_unverified_chain"):
        source = source._sslobj
    found: list[Any] = source.get_unverified_chain() or []
    # before 3.13: objects that encode themselves, 2 standing for DER
    return [one if isinstance(one, bytes) else one.public_bytes(2) for one in found]
