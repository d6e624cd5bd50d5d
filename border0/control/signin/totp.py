"""Second factors: codes by time, each used once, and recovery codes.

Source: RFC 6238 (TOTP: SHA-1, 6 digits, 30 s), §5.2 (one step either way, a code only once);
RFC 4226 §7.2. Recovery codes have 80 bits and are stored as digests.
"""

import base64
import hmac
import re
from collections.abc import Callable

import pyotp

from border0.control.signin.model import digest
from border0.secrets import Secret

PERIOD = 30
WINDOW = 1
RECOVERY_CODES = 10
ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"  # no 0 o 1 l i
_CODE = re.compile(r"[0-9]{6}", re.ASCII)
_RECOVERY = re.compile(rf"[{ALPHABET}]{{16}}")


def secret_from(random: bytes) -> Secret:
    """The shared secret in base32, from 20 random bytes."""
    return Secret(base64.b32encode(random[:20]).decode())


def link(secret: Secret, login: str, issuer: str) -> str:
    """The `otpauth:` address that authenticators read."""
    return pyotp.TOTP(secret.reveal()).provisioning_uri(name=login, issuer_name=issuer)


def matching_step(secret: Secret, code: str, now: float, newest: int) -> int | None:
    """The step whose code this is, above the `newest` used one and at most one step off.

    The store then raises its newest step to it in one transaction; only that makes it good.
    """
    code = "".join(code.split())
    if not _CODE.fullmatch(code):
        return None
    totp = pyotp.TOTP(secret.reveal())
    here = int(now) // PERIOD
    found = None
    for step in range(here - WINDOW, here + WINDOW + 1):
        fits = hmac.compare_digest(totp.generate_otp(step), code)
        if fits and step > newest and found is None:
            found = step
    return found


def recovery_codes(random: Callable[[int], bytes]) -> list[Secret]:
    """Ten new codes, each `xxxx-xxxx-xxxx-xxxx`."""
    return [Secret("-".join(_group(random) for _ in range(4))) for _ in range(RECOVERY_CODES)]


def recovery_digest(code: str) -> str:
    """The digest of a typed recovery code; empty when it cannot be one."""
    text = re.sub(r"[\s-]", "", code).lower()
    return digest("recovery", text) if _RECOVERY.fullmatch(text) else ""


def _group(random: Callable[[int], bytes]) -> str:
    letters = ""
    while len(letters) < 4:
        for byte in random(8):
            # 248 is the largest multiple of 31 below 256: no letter is more likely than another
            if byte < 248 and len(letters) < 4:
                letters += ALPHABET[byte % 31]
    return letters
