"""Browser sessions: a random cookie, its digest in the store, limits by idleness and by age.

Source: RFC 6265bis §4.1.3.2 (`__Host-`); OWASP session management (a new id at each change of
rights). A second cookie names the browser and holds no right; forms are bound to both by their
CSRF token, and so a visitor who is not signed in costs no storage.
"""

import hashlib
import hmac
import secrets

from border0.control.api.resource import COOKIE
from border0.control.signin.model import Session, SignInState, digest
from border0.secrets import Secret

BROWSER_COOKIE = "__Host-border0-browser"
IDLE_SECONDS = 3600.0
ABSOLUTE_SECONDS = 12 * 3600.0
SECOND_FACTOR_SECONDS = 600.0
TOUCH_SECONDS = 60.0
_ATTRIBUTES = "; Path=/; Secure; HttpOnly; SameSite=Lax"


class Sessions:
    """The sessions of all browsers.

    :param key: 32 random bytes that stay the same across restarts; forms made with another fail.
    """

    def __init__(
        self,
        state: SignInState,
        key: bytes,
        *,
        idle: float = IDLE_SECONDS,
        absolute: float = ABSOLUTE_SECONDS,
    ) -> None:
        if len(key) < 32:
            raise ValueError("the key has at least 32 bytes")
        self._state, self._key = state, key
        self._idle, self._absolute = idle, absolute

    def derive(self, purpose: str, *parts: str) -> bytes:
        """32 bytes that only this server can make from `parts`."""
        text = "\0".join(("border0", purpose, *parts)).encode()
        return hmac.new(self._key, text, hashlib.sha256).digest()

    async def begin(
        self,
        account: str,
        org: str,
        now: float,
        address: str,
        *,
        stage: str,
        mfa: bool,
        replaces: Secret | None,
    ) -> Secret:
        """A new session under a new id; the one it `replaces` ends. Returns the cookie's value."""
        if replaces is not None:
            await self.end(replaces)
        value = Secret(secrets.token_urlsafe(32))
        session = Session(_digest(value), account, org, stage, mfa, now, now, address)
        await self._state.add_session(session)
        return value

    async def find(self, value: Secret | None, now: float) -> Session | None:
        """The live session of a cookie; what is too old or idle ends here."""
        if value is None or not value.reveal():
            return None
        session = await self._state.session(_digest(value))
        if session is None:
            return None
        longest = self._absolute if session.stage == "full" else SECOND_FACTOR_SECONDS
        if now - session.created > longest or now - session.seen > self._idle:
            await self._state.drop_session(session.digest)
            return None
        if now - session.seen > TOUCH_SECONDS:
            await self._state.touch_session(session.digest, now)
        return session

    async def end(self, value: Secret) -> None:
        """Sign out."""
        await self._state.drop_session(_digest(value))

    def csrf(self, value: Secret) -> str:
        """What the API wants in its CSRF header from the holder of this session."""
        return self.derive("csrf", _digest(value)).hex()

    def form_token(self, browser: str, value: Secret | None) -> str:
        """What a form of this browser and session must send back."""
        session = _digest(value) if value is not None else ""
        return self.derive("form", browser, session).hex()


def new_browser() -> str:
    """A name for a browser that has none."""
    return secrets.token_urlsafe(32)


def browser_digest(browser: str) -> str:
    """What a grant remembers of the browser."""
    return digest("browser", browser)


def set_session(value: Secret) -> tuple[str, str]:
    """The header that gives a browser its session."""
    return "Set-Cookie", f"{COOKIE}={value.reveal()}{_ATTRIBUTES}"


def clear_session() -> tuple[str, str]:
    """The header that takes it away."""
    return "Set-Cookie", f"{COOKIE}=; Max-Age=0{_ATTRIBUTES}"


def set_browser(browser: str) -> tuple[str, str]:
    """The header that names a browser."""
    return "Set-Cookie", f"{BROWSER_COOKIE}={browser}; Max-Age=31536000{_ATTRIBUTES}"


def _digest(value: Secret) -> str:
    return digest("session", value.reveal())
