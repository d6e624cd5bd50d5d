"""Whom TLS believes: a private authority, pins, contexts that verify, the first contact.

An adapter throughout: it uses Twisted, pyOpenSSL, files and randomness.
"""

from border0.trust.authority import PrivateCA
from border0.trust.contact import first_contact, remembered_authority
from border0.trust.contexts import (
    RenewingContext,
    ServerContext,
    client_context,
    server_context,
    trust_root,
)
from border0.trust.errors import TrustError
from border0.trust.pins import load_authority, parse_pin, pin_of

__all__ = [
    "PrivateCA",
    "RenewingContext",
    "ServerContext",
    "TrustError",
    "client_context",
    "first_contact",
    "load_authority",
    "parse_pin",
    "pin_of",
    "remembered_authority",
    "server_context",
    "trust_root",
]
