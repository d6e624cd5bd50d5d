"""The texts that open something: tokens, enrolment keys and invites.

`<prefix>_<id of the organisation, 32 hexadecimal digits>_<43 characters of base64url>`: 256 random
bits, of which the database keeps only the SHA-256. The organisation is part of the text so that
its bearer's change runs in the right one; it proves nothing.
"""

import base64
import hashlib
import re
import uuid
from collections.abc import Callable

from border0.control.store.errors import Refused
from border0.secrets import Secret

_FORM = re.compile(r"b0[a-z]_([0-9a-f]{32})_[A-Za-z0-9_-]{43}")


def make(prefix: str, org: str, random: Callable[[int], bytes]) -> Secret:
    """A new text for an organisation."""
    secret = base64.urlsafe_b64encode(random(32)).decode().rstrip("=")
    return Secret(f"{prefix}_{uuid.UUID(org).hex}_{secret}")


def digest(text: str) -> str:
    """The SHA-256 of the whole text in hexadecimal: what is stored and looked up."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def organisation(text: str, what: str = "token") -> str:
    """The organisation's id that the text names; Refused ("malformed") if it is none of ours."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise Refused(what, "malformed")
    return str(uuid.UUID(found[1]))
