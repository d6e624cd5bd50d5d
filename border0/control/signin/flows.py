"""What signing in takes, without any page: rate limits first, then hashes, then a new session.

Source: NIST SP 800-63B §5.2.2 (throttling). Every refusal says the same, whether the name or the
password was wrong.
"""

import os
from collections.abc import Awaitable, Callable
from inspect import isawaitable

from border0.control.api.errors import too_many
from border0.control.api.limits import Limiter, Rate, address_key
from border0.control.api.routes import AuditEntry
from border0.control.signin.forms import Visit
from border0.control.signin.model import LOCAL_ISSUER, Account, Accounts, Factors
from border0.control.signin.passwords import Hashing
from border0.control.signin.sessions import Sessions, clear_session, set_session
from border0.control.signin.totp import matching_step, recovery_digest
from border0.secrets import Secret

PER_LOGIN = Rate(10, 600.0)
PER_ADDRESS = Rate(30, 600.0)
CODES = Rate(5, 300.0)
WRONG = "The name or the password is wrong."


class SignIn:
    """Passwords, second factors and the sessions that they open."""

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        passwords: Hashing,
        audit: Callable[[AuditEntry], Awaitable[None] | None],
    ) -> None:
        self.accounts, self.sessions, self.passwords = accounts, sessions, passwords
        self._audit = audit
        self._by_login = Limiter(PER_LOGIN)
        self._by_address = Limiter(PER_ADDRESS)
        self._codes = Limiter(CODES)

    def throttle(self, visit: Visit) -> None:
        """Count one attempt of an address.

        :raises ApiError: 429.
        """
        wait = self._by_address.take(address_key(visit.address), visit.now)
        if wait:
            raise too_many(wait)

    async def password(self, visit: Visit, login: str, password: Secret) -> str:
        """The first factor: what is wrong, or the empty string and a session in `visit`.

        :raises ApiError: 429 before anything is hashed, 503 when too many hashes wait.
        """
        login = login.strip().lower()[:256]
        self.throttle(visit)
        wait = self._by_login.take(login, visit.now)
        if wait:
            raise too_many(wait)
        account = await self.accounts.find_login(login)
        if account is not None and account.issuer != LOCAL_ISSUER:
            account = None
        factors = None if account is None else await self.accounts.factors(account.id)
        stored = None if factors is None else factors.password
        good = await self.passwords.verify(stored, password)
        if account is None or factors is None:
            return WRONG
        if not good or account.disabled:
            await self.record(visit, account, "user.sign_in", "denied", "wrong password or locked")
            return WRONG
        self._by_login.forgive(login)
        if self.passwords.is_outdated(factors.password):
            renewed = await self.passwords.hash(password)
            await self.accounts.set_password(account.id, renewed)
        if factors.totp is None:
            await self.record(visit, account, "user.sign_in", "ok")
        await self.open(visit, account, mfa=False, full=factors.totp is None)
        return ""

    async def second_factor(self, visit: Visit, account: Account, code: str) -> str:
        """A code or recovery code: what is wrong, or the empty string and a full session.

        :raises ApiError: 429.
        """
        self.throttle(visit)
        wait = self._codes.take(account.id, visit.now)
        if wait:
            await self.record(visit, account, "user.sign_in", "denied", "too many codes")
            raise too_many(wait)
        factors = await self.accounts.factors(account.id)
        if factors is None or factors.totp is None or account.disabled:
            return "The code is wrong."
        if not await self._use_code(account, factors, factors.totp, code, visit.now):
            await self.record(visit, account, "user.sign_in", "denied", "wrong code")
            return "The code is wrong, or was used before. Wait for the next one."
        self._codes.forgive(account.id)
        await self.record(visit, account, "user.sign_in", "ok")
        await self.open(visit, account, mfa=True, full=True)
        return ""

    async def open(self, visit: Visit, account: Account, *, mfa: bool, full: bool) -> None:
        """A new session under a new id; the old one of this browser ends."""
        value = await self.sessions.begin(
            account.id,
            account.org,
            visit.now,
            visit.address,
            stage="full" if full else "password",
            mfa=mfa,
            replaces=visit.session_value,
        )
        visit.session_value, visit.account = value, account
        visit.session = await self.sessions.find(value, visit.now)
        visit.headers.append(set_session(value))

    async def close(self, visit: Visit) -> None:
        """Sign out."""
        if visit.session_value is not None:
            await self.sessions.end(visit.session_value)
        visit.session = visit.session_value = visit.account = None
        visit.headers.append(clear_session())

    async def load(self, visit: Visit) -> None:
        """Find the visitor's session and account; a locked account has none."""
        session = await self.sessions.find(visit.session_value, visit.now)
        if session is None:
            return
        account = await self.accounts.get(session.account)
        if account is None or account.disabled or account.org != session.org:
            return
        visit.session, visit.account = session, account

    async def record(
        self,
        visit: Visit,
        account: Account,
        action: str,
        result: str,
        reason: str = "",
        target: dict[str, str] | None = None,
    ) -> None:
        """Make one audit entry, or fail."""
        entry = AuditEntry(
            action,
            account.org,
            account.login,
            account.id,
            account.role,
            visit.address,
            result,
            target or {},
            visit.request_id,
            reason,
            {},
        )
        done = self._audit(entry)
        if isawaitable(done):
            await done

    async def _use_code(
        self, account: Account, factors: Factors, totp: Secret, code: str, now: float
    ) -> bool:
        step = matching_step(totp, code, now, factors.step)
        if step is not None:
            return await self.accounts.use_step(account.id, step)
        recovery = recovery_digest(code)
        return bool(recovery) and await self.accounts.use_recovery(account.id, recovery)


def random(size: int) -> bytes:
    """Random bytes of the system."""
    return os.urandom(size)
