"""Accounts, sessions, links, grants and tokens of sign-in, in the store.

What compares and changes is one change of the store: of two callers at once, one is told True. A
store that fails raises `StoreError`; it never answers with nothing instead. Secrets arrive here as
digests and hashes, but for a second factor's, which is sealed.
"""

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from border0.control.signin.model import (
    LOCAL_ISSUER,
    Account,
    Factors,
    Grant,
    Session,
    SetupLink,
    Token,
)
from border0.control.signin.sealing import Seal
from border0.control.signin.sessions import ABSOLUTE_SECONDS
from border0.control.store import (
    browser_sessions,
    credentials,
    device_grants,
    logins,
    setup_links,
    tokens,
    users,
)
from border0.control.store.errors import BrokenReference, Duplicate, Invalid, NotFound
from border0.control.store.logins import Login
from border0.control.store.store import Store
from border0.control.store.transaction import Tx
from border0.secrets import Secret

T = TypeVar("T")
ACTOR = "sign-in"
GRANT_LIMIT = 1000
NO_ORGANISATION = ""
"""For changes of rows that are named by a digest alone and recorded nowhere."""


class SqlSignIn:
    """Implements `Accounts`, `SignInState` and `TokenStore`.

    :param seal_key: 32 random bytes; may be the server's key, another is derived from it.
    :param grant_limit: how many machines may wait for a confirmation at once.
    :param session_seconds: the longest life of a browser's session, `Sessions`' `absolute`.
    """

    def __init__(
        self,
        store: Store,
        seal_key: bytes,
        *,
        grant_limit: int = GRANT_LIMIT,
        session_seconds: float = ABSOLUTE_SECONDS,
    ) -> None:
        self._store, self._seal = store, Seal(seal_key)
        self._grant_limit, self._session_seconds = grant_limit, session_seconds

    # Accounts

    async def find_login(self, login: str) -> Account | None:
        """The local user who types this, in any organisation."""
        return _account(await self._login(lambda connection: logins.by_login(connection, login)))

    async def get(self, account: str) -> Account | None:
        """A user by id."""
        return _account(await self._login(lambda connection: logins.by_id(connection, account)))

    async def factors(self, account: str) -> Factors | None:
        """How a local user signs in; None before they have a password.

        :raises SealError: the second factor was sealed with another key; never "has none".
        """
        user = await self._login(lambda connection: logins.by_id(connection, account))
        if user is None or not user.has_password:
            return None
        try:
            found = await self._store.read(lambda c: credentials.get(c, user.org, user.id))
        except NotFound:
            return None
        sealed = found.totp_secret
        return Factors(
            Secret(found.password_hash),
            None if sealed is None else self._seal.open(user.id, sealed),
            found.totp_step,
            tuple(found.recovery_hashes),
        )

    async def set_password(self, account: str, password: Secret) -> None:
        """Replace the hash.

        :raises NotFound: there is no such user.
        """
        org = await self._org(account)
        if not org:
            raise NotFound("user not found")
        hashed = password.reveal()
        await self._change(lambda tx: credentials.set_password(tx, account, hashed), org)

    async def use_step(self, account: str, step: int) -> bool:
        """Raise the newest used step; False when it is not below `step`."""
        org = await self._org(account)
        return await self._change(lambda tx: credentials.spend_totp(tx, account, step), org)

    async def use_recovery(self, account: str, digest: str) -> bool:
        """Remove one recovery code; False when it is not there."""
        org = await self._org(account)
        try:
            return await self._change(
                lambda tx: credentials.spend_recovery(tx, account, digest), org
            )
        except NotFound:
            return False

    async def create_owner(
        self, link: str, now: float, login: str, name: str, factors: Factors
    ) -> Account | None:
        """Spend the link and give its user a password; see `Accounts.create_owner`."""
        found = await self.link(link)
        if found is None:
            return None

        def set_up(tx: Tx) -> Account | None:
            if not setup_links.spend(tx, link, now):
                return None
            # It locks the organisation's row: two links of one user, in two processes, take turns.
            _ = tx.revision
            user = _whom(tx, found.account, login, name)
            if user is None:
                return None
            sealed = None
            if factors.totp is not None:
                sealed = self._seal.seal(user.id, factors.totp, tx.random)
            credentials.set_up(
                tx,
                user.id,
                login=user.login if found.account else login,
                password_hash=factors.password.reveal(),
                totp_secret=sealed,
                totp_step=factors.step,
                recovery_hashes=list(factors.recovery),
            )
            # Whatever else could have given this user a password.
            setup_links.end_all(tx, user.id)
            return _account(logins.in_organisation(tx.connection, tx.org, user.id))

        try:
            return await self._change(set_up, found.org)
        except Duplicate as error:
            if error.columns == ("login",):
                return None  # all is taken back: the link is not spent
            raise
        except NotFound:
            return None  # the organisation or user is gone

    # Sessions, links and grants

    async def add_session(self, session: Session) -> None:
        """Keep a new session; those that are too old go."""
        values, longest = session._asdict(), self._session_seconds
        await self._change(lambda tx: browser_sessions.add(tx, values, longest), session.org)

    async def session(self, digest: str) -> Session | None:
        """A session by the digest of its cookie."""
        found = await self._store.read(lambda c: browser_sessions.find(c, digest))
        return None if found is None else Session(**found)

    async def touch_session(self, digest: str, now: float) -> None:
        """It was seen now."""
        await self._change(lambda tx: browser_sessions.touch(tx, digest, now))

    async def drop_session(self, digest: str) -> None:
        """Forget it, if it is there."""
        await self._change(lambda tx: browser_sessions.drop(tx, digest))

    async def add_link(self, link: SetupLink) -> None:
        """Keep a set-up link; earlier ones for the same user end.

        :raises BrokenReference: there is no such user or organisation.
        """
        await self._change(lambda tx: keep_link(tx, link), link.org)

    async def link(self, digest: str) -> SetupLink | None:
        """An unspent set-up link."""
        found = await self._store.read(lambda c: setup_links.find(c, digest))
        return None if found is None else SetupLink(**found)

    async def add_grant(self, grant: Grant, now: float) -> bool:
        """Keep a grant and drop expired ones; False when its user code is in use or all full."""
        values, limit = grant._asdict(), self._grant_limit
        return await self._change(lambda tx: device_grants.add(tx, values, now, limit))

    async def grant_by_device(self, digest: str) -> Grant | None:
        """A grant by the digest of its device code."""
        found = await self._store.read(lambda c: device_grants.by_digest(c, digest))
        return None if found is None else Grant(**found)

    async def grant_by_user_code(self, code: str) -> Grant | None:
        """A grant by the code that people type."""
        found = await self._store.read(lambda c: device_grants.by_user_code(c, code))
        return None if found is None else Grant(**found)

    async def replace_grant(self, grant: Grant) -> bool:
        """Write it with `version` + 1; False when the stored version is another."""
        values = grant._asdict()
        return await self._change(lambda tx: device_grants.replace(tx, values))

    # Tokens

    async def add_token(self, token: Token) -> None:
        """Keep a new token.

        :raises BrokenReference: its user or service account does not exist.
        """
        await self._change(lambda tx: keep_token(tx, token), token.org, token.subject)

    async def token(self, token_id: str) -> Token | None:
        """A token by id, revoked ones included; not active when its owner is disabled."""
        found = await self._store.read(lambda c: tokens.anywhere(c, token_id))
        return None if found is None else token_record(found[0], active=not found[1])

    async def touch_token(self, token_id: str, now: float) -> None:
        """It was used now."""
        await self._change(lambda tx: tokens.touch(tx, token_id, now))

    # The store

    async def _change(
        self, function: Callable[[Tx], T], org: str = NO_ORGANISATION, actor: str = ACTOR
    ) -> T:
        return await self._store.change(function, org=org, actor=actor)

    async def _login(self, function: Callable[[Connection], Login | None]) -> Login | None:
        try:
            return await self._store.read(function)
        except Invalid:
            return None  # a text that no database takes is nobody's

    async def _org(self, account: str) -> str:
        user = await self._login(lambda connection: logins.by_id(connection, account))
        return "" if user is None else user.org


def keep_token(tx: Tx, token: Token) -> tokens.Token:
    """Keep a token that `Tokens.make` made, as part of a change of its organisation.

    :raises BrokenReference: its user or service account does not exist there.
    """
    service = token.kind == "service"
    return tokens.keep(
        tx,
        id=token.id,
        hash=token.digest,
        name=token.name,
        scopes=None if token.scopes is None else sorted(token.scopes),
        networks=token.networks,
        created=token.created,
        expires=token.expires,
        user_id=None if service else token.subject,
        service_account_id=token.subject if service else None,
    )


def token_record(stored: tokens.Token, *, active: bool = True) -> Token:
    """Sign-in's record of a stored token of the API."""
    return Token(
        stored.id,
        "user" if stored.service_account_id is None else "service",
        stored.org,
        stored.service_account_id or stored.user_id or "",
        stored.name,
        stored.hash,
        None if stored.scopes is None else frozenset(stored.scopes),
        stored.created,
        stored.expires,
        stored.revoked,
        stored.last_used or 0.0,
        tuple(stored.networks),
        active,
    )


def keep_link(tx: Tx, link: SetupLink) -> None:
    """Keep a link that `links.make` made, as part of a change of its organisation.

    :raises BrokenReference: its user does not exist there.
    :raises Invalid: the user has a password already.
    """
    if link.account:
        try:
            user = logins.in_organisation(tx.connection, tx.org, link.account)
        except NotFound:
            raise BrokenReference("the link's user does not exist") from None
        if user.has_password:
            raise Invalid("the user has a password already")
    setup_links.add(tx, link.digest, link.account, link.expires)


def _whom(tx: Tx, account: str, login: str, name: str) -> Login | None:
    """The user whom a link completes, made if need be; None when nobody may be completed."""
    if account:
        user = logins.in_organisation(tx.connection, tx.org, account)
        if user.disabled or user.has_password or user.issuer != LOCAL_ISSUER:
            return None
        users.update(tx, user.id, None, name=name)
        return user
    owner = logins.first_owner(tx.connection, tx.org)
    if owner is None:
        id = tx.new_id()
        users.create(
            tx,
            issuer=LOCAL_ISSUER,
            subject=id,
            id=id,
            email=_email(login),
            name=name,
            role="owner",
        )
        return logins.in_organisation(tx.connection, tx.org, id)
    users.update(tx, owner.id, None, name=name, email=owner.email or _email(login))
    return owner


def _email(login: str) -> str:
    return login if "@" in login else ""


def _account(user: Login | None) -> Account | None:
    if user is None:
        return None
    return Account(
        user.id,
        user.org,
        user.issuer,
        user.subject,
        user.login,
        user.name,
        user.role,
        user.disabled,
    )
