"""The records of sign-in, and the storage that it asks for.

Source: OpenID Connect Core §2 (a user is an issuer's subject, never an address of mail).
Every secret is kept as a digest, a hash or a `Secret`, so that no repr shows one. What compares
and changes (a step, a recovery code, a link, a grant's version) is atomic in the store. A store
that fails raises; it never answers with nothing instead.
"""

import hashlib
from collections.abc import Awaitable
from typing import NamedTuple, Protocol

from border0.secrets import Secret

LOCAL_ISSUER = "local"


class Account(NamedTuple):
    """A user of one organisation; `login` is what a local user types, lower case."""

    id: str
    org: str
    issuer: str
    subject: str
    login: str
    name: str
    role: str
    disabled: bool = False


class Factors(NamedTuple):
    """What a local user signs in with; a store keeps `totp` encrypted."""

    password: Secret
    totp: Secret | None = None
    step: int = 0  # of the newest code that was used
    recovery: tuple[str, ...] = ()  # digests of unused codes


class Session(NamedTuple):
    """A browser's session. `stage` is `password` while the second factor is missing."""

    digest: str
    account: str
    org: str
    stage: str  # "password" or "full"
    mfa: bool
    created: float
    seen: float
    address: str


class SetupLink(NamedTuple):
    """The right to set a first password, once.

    `account` is a user who has none yet; "" means the organisation's first owner: the one who is
    there without a password, else a new user.
    """

    digest: str
    org: str
    expires: float
    account: str = ""


class Grant(NamedTuple):
    """A machine that waits for somebody to confirm it in a browser."""

    digest: str  # of the device code
    user_code: str
    public_key: str  # base64
    name: str
    purpose: str  # "login", "device" or "connector"
    address: str
    expires: float
    interval: float
    polled: float = 0.0
    state: str = "waiting"  # "claimed", "approved", "denied", "spent"
    browser: str = ""  # digest of the browser that typed the code
    account: str = ""
    org: str = ""
    version: int = 0


class Token(NamedTuple):
    """A token as stored: everything but the secret.

    `active` is False when the service account it belongs to is disabled or gone.
    """

    id: str
    kind: str  # "service" or "user"
    org: str
    subject: str
    name: str
    digest: str
    scopes: frozenset[str] | None
    created: float
    expires: float
    revoked: float | None = None
    used: float = 0.0
    networks: tuple[str, ...] = ()
    active: bool = True


class Accounts(Protocol):
    """Users and their factors."""

    def find_login(self, login: str) -> Awaitable[Account | None]:
        """The local user of that name, in any organisation."""

    def get(self, account: str) -> Awaitable[Account | None]:
        """A user by id."""

    def factors(self, account: str) -> Awaitable[Factors | None]:
        """How a local user signs in."""

    def set_password(self, account: str, password: Secret) -> Awaitable[None]:
        """Replace the hash."""

    def use_step(self, account: str, step: int) -> Awaitable[bool]:
        """Raise the newest used step to `step`; False when it is not below it."""

    def use_recovery(self, account: str, digest: str) -> Awaitable[bool]:
        """Remove one recovery code; False when it is not there."""

    def create_owner(
        self, link: str, now: float, login: str, name: str, factors: Factors
    ) -> Awaitable[Account | None]:
        """Spend the set-up link of that digest and give its user these factors.

        A link for a user leaves their login and role as they are. One for the first owner takes
        `login`, and makes the user when no owner waits for a password.
        One transaction: None when the link is unknown, spent or expired, its user has a password
        or is disabled, or the login taken (then the link is not spent).
        """


class SignInState(Protocol):
    """What lives for minutes or hours: sessions, set-up links, device grants."""

    def add_session(self, session: Session) -> Awaitable[None]:
        """Keep a new session."""

    def session(self, digest: str) -> Awaitable[Session | None]:
        """A session by the digest of its cookie."""

    def touch_session(self, digest: str, now: float) -> Awaitable[None]:
        """It was seen now."""

    def drop_session(self, digest: str) -> Awaitable[None]:
        """Forget it, if it is there."""

    def add_link(self, link: SetupLink) -> Awaitable[None]:
        """Keep a set-up link; earlier ones for the same account of the organisation end."""

    def link(self, digest: str) -> Awaitable[SetupLink | None]:
        """An unspent set-up link."""

    def add_grant(self, grant: Grant, now: float) -> Awaitable[bool]:
        """Keep a grant and drop expired ones; False when its user code is in use or all full."""

    def grant_by_device(self, digest: str) -> Awaitable[Grant | None]:
        """A grant by the digest of its device code."""

    def grant_by_user_code(self, code: str) -> Awaitable[Grant | None]:
        """A grant by the code that people type."""

    def replace_grant(self, grant: Grant) -> Awaitable[bool]:
        """Write it with `version` + 1; False when the stored version is another."""


class TokenStore(Protocol):
    """Tokens by id."""

    def add_token(self, token: Token) -> Awaitable[None]:
        """Keep a new token."""

    def token(self, token_id: str) -> Awaitable[Token | None]:
        """A token by id, revoked ones included."""

    def touch_token(self, token_id: str, now: float) -> Awaitable[None]:
        """It was used now."""


def digest(purpose: str, secret: str) -> str:
    """SHA-256 of a random secret, apart for each purpose; for secrets of 80 bits and more only."""
    return hashlib.sha256(f"border0 {purpose} v1\0{secret}".encode()).hexdigest()
