"""The device-code grant: a machine waits while its owner confirms it in a browser.

Source: RFC 8628 §3.2 (codes), §3.5 (polling, slow_down), §5.1 (brute force), §5.4 (phishing),
§6.1 (an alphabet without vowels). A grant is bound to the machine's public key, from the start to
the poll, and to the one browser that typed its code. What a confirmed grant is worth is decided
by its caller.
"""

import base64
import binascii
import hmac
import secrets
from typing import NamedTuple

from border0.control.api.errors import busy, invalid
from border0.control.api.limits import Limiter, Rate, address_key
from border0.control.signin.model import Account, Grant, SignInState, digest
from border0.keys import fingerprint
from border0.secrets import Secret

SECONDS = 600.0
INTERVAL = 5.0
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
LENGTH = 8
PURPOSES = ("login", "device", "connector")
PER_ADDRESS = Rate(30, 600.0)


class Started(NamedTuple):
    """What the machine gets: the code for itself and the code for its owner."""

    device_code: Secret
    user_code: str
    expires_in: float
    interval: float


class Approval(NamedTuple):
    """A grant that its owner confirmed; handed out once."""

    public_key: str
    name: str
    purpose: str
    account: str
    org: str


class Polled(NamedTuple):
    """`pending`, `slow_down`, `denied`, `expired` (also: unknown, used, other key), `approved`."""

    status: str
    interval: float = INTERVAL
    approval: Approval | None = None


class Grants:
    """All grants that wait."""

    def __init__(self, state: SignInState) -> None:
        self._state = state
        self._started = Limiter(PER_ADDRESS)

    async def start(
        self, public_key: str, name: str, purpose: str, address: str, now: float
    ) -> Started:
        """Begin to wait for a confirmation.

        :param public_key: the machine's WireGuard key, base64.
        :param name: the machine's name, a DNS label; checked by the route.
        :raises ApiError: 422 for what is no key, 429 or 503 when there are too many.
        :raises ValueError: an unknown purpose.
        """
        if purpose not in PURPOSES:
            raise ValueError(f"unknown purpose {purpose!r}")
        key_bytes(public_key)
        if self._started.take(address_key(address), now):
            raise busy(60.0)
        for _ in range(5):
            device_code = secrets.token_urlsafe(32)
            user_code = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
            grant = Grant(
                digest("device code", device_code),
                user_code,
                public_key,
                name,
                purpose,
                address,
                now + SECONDS,
                INTERVAL,
            )
            if await self._state.add_grant(grant, now):
                return Started(Secret(device_code), shown(user_code), SECONDS, INTERVAL)
        raise busy(60.0)

    async def poll(self, device_code: str, public_key: str, now: float) -> Polled:
        """The machine asks whether it was confirmed; the approval is given out once."""
        grant = await self._state.grant_by_device(digest("device code", device_code))
        if grant is None or now >= grant.expires or grant.state == "spent":
            return Polled("expired")
        if not hmac.compare_digest(grant.public_key.encode(), public_key.encode()):
            return Polled("expired")
        if grant.state == "denied":
            return Polled("denied")
        if grant.state == "approved":
            if not await self._state.replace_grant(grant._replace(state="spent")):
                return Polled("expired")
            approval = Approval(
                grant.public_key, grant.name, grant.purpose, grant.account, grant.org
            )
            return Polled("approved", grant.interval, approval)
        early = now - grant.polled < grant.interval
        interval = min(grant.interval + 5.0, 60.0) if early else grant.interval
        await self._state.replace_grant(grant._replace(polled=now, interval=interval))
        return Polled("slow_down" if early else "pending", interval)

    async def claim(self, user_code: str, browser: str, now: float) -> Grant | None:
        """Bind the grant to the browser (its digest) that typed the code.

        None: no such code, too late, or another browser was first.
        """
        for _ in range(3):  # the machine's poll may come between
            grant = await self._live(user_code, now)
            if grant is None:
                return None
            if grant.state == "claimed":
                return grant if hmac.compare_digest(grant.browser, browser) else None
            if grant.state != "waiting":
                return None
            if await self._state.replace_grant(grant._replace(state="claimed", browser=browser)):
                return await self._live(user_code, now)
        return None

    async def claimed(self, user_code: str, browser: str, now: float) -> Grant | None:
        """The grant that this browser claimed, undecided."""
        grant = await self._live(user_code, now)
        if grant is None or grant.state != "claimed":
            return None
        return grant if hmac.compare_digest(grant.browser, browser) else None

    async def decide(
        self, user_code: str, browser: str, account: Account, approved: bool, now: float
    ) -> Grant | None:
        """Approve or deny it, once, from the browser that claimed it; None: it cannot be."""
        for _ in range(3):
            grant = await self.claimed(user_code, browser, now)
            if grant is None:
                return None
            decided = grant._replace(
                state="approved" if approved else "denied", account=account.id, org=account.org
            )
            if await self._state.replace_grant(decided):
                return decided
        return None

    async def _live(self, user_code: str, now: float) -> Grant | None:
        code = typed(user_code)
        grant = await self._state.grant_by_user_code(code) if code else None
        return grant if grant is not None and now < grant.expires else None


def shown(code: str) -> str:
    """`WDJB-MJHT`: how a code is shown."""
    return f"{code[:4]}-{code[4:]}"


def typed(text: str) -> str:
    """The code in what somebody typed; empty when it cannot be one."""
    code = "".join(c for c in text.upper() if c not in " -\u2010\u2011\u2013\t")
    return code if len(code) == LENGTH and set(code) <= set(ALPHABET) else ""


def key_bytes(public_key: str) -> bytes:
    """A WireGuard public key.

    :raises ApiError: 422, it is no 32 bytes in base64, or all zero.
    """
    try:
        key = base64.b64decode(public_key.encode("ascii"), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != 32 or not any(key) or base64.b64encode(key).decode() != public_key:
        raise invalid("public_key", "expected 32 bytes in base64")
    return key


def key_fingerprint(public_key: str) -> str:
    """What people compare of a machine's key; see `border0.keys.fingerprint`."""
    return fingerprint(key_bytes(public_key))
