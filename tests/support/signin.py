"""Storage of sign-in in memory, fast passwords, and all of it behind one site."""

from __future__ import annotations

import uuid
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.web.resource import Resource

from border0.control.api.guard import Guard
from border0.control.api.resource import ApiResource
from border0.control.api.routes import AuditEntry, Call, Table
from border0.control.api.site import ApiSite
from border0.control.signin.authenticate import Authenticator
from border0.control.signin.flows import SignIn
from border0.control.signin.grants import Approval, Grants
from border0.control.signin.links import SetupLinks
from border0.control.signin.model import (
    LOCAL_ISSUER,
    Account,
    Factors,
    Grant,
    Session,
    SetupLink,
    Token,
)
from border0.control.signin.resource import PATHS, STYLE_PATH, SignInPages
from border0.control.signin.routes import register
from border0.control.signin.sessions import Sessions
from border0.control.signin.tokens import Tokens
from border0.secrets import Secret
from tests.support.web import HOST, ORIGIN


def now_of(coroutine: Any) -> Any:
    """The result of what answers at once."""
    return result_of(ensureDeferred(coroutine))


def result_of(deferred: Deferred[Any]) -> Any:
    found: list[Any] = []
    deferred.addBoth(found.append)
    assert found, "nothing was answered at once"
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]


class MemoryState:
    """Implements `SignInState` and `TokenStore`."""

    def __init__(self, grant_limit: int = 1000) -> None:
        self.sessions: dict[str, Session] = {}
        self.links: dict[str, SetupLink] = {}
        self.grants: dict[str, Grant] = {}
        self.tokens: dict[str, Token] = {}
        self.grant_limit = grant_limit

    async def add_session(self, session: Session) -> None:
        self.sessions[session.digest] = session

    async def session(self, digest: str) -> Session | None:
        return self.sessions.get(digest)

    async def touch_session(self, digest: str, now: float) -> None:
        self.sessions[digest] = self.sessions[digest]._replace(seen=now)

    async def drop_session(self, digest: str) -> None:
        self.sessions.pop(digest, None)

    async def add_link(self, link: SetupLink) -> None:
        mine = (link.org, link.account)
        self.links = {d: o for d, o in self.links.items() if (o.org, o.account) != mine}
        self.links[link.digest] = link

    async def link(self, digest: str) -> SetupLink | None:
        return self.links.get(digest)

    async def add_grant(self, grant: Grant, now: float) -> bool:
        self.grants = {d: g for d, g in self.grants.items() if now < g.expires}
        codes = {other.user_code for other in self.grants.values()}
        if grant.user_code in codes or len(self.grants) >= self.grant_limit:
            return False
        self.grants[grant.digest] = grant
        return True

    async def grant_by_device(self, digest: str) -> Grant | None:
        return self.grants.get(digest)

    async def grant_by_user_code(self, code: str) -> Grant | None:
        return next((g for g in self.grants.values() if g.user_code == code), None)

    async def replace_grant(self, grant: Grant) -> bool:
        if self.grants[grant.digest].version != grant.version:
            return False
        self.grants[grant.digest] = grant._replace(version=grant.version + 1)
        return True

    async def add_token(self, token: Token) -> None:
        self.tokens[token.id] = token

    async def token(self, token_id: str) -> Token | None:
        return self.tokens.get(token_id)

    async def touch_token(self, token_id: str, now: float) -> None:
        self.tokens[token_id] = self.tokens[token_id]._replace(used=now)


class MemoryAccounts:
    """Implements `Accounts`; shares the links of a `MemoryState`."""

    def __init__(self, state: MemoryState) -> None:
        self.state = state
        self.accounts: dict[str, Account] = {}
        self.of: dict[str, Factors] = {}

    def add(self, org: str, login: str, role: str, factors: Factors | None = None) -> Account:
        user = str(uuid.uuid4())
        account = Account(user, org, LOCAL_ISSUER, user, login, login.title(), role)
        self.accounts[user] = account
        if factors is not None:
            self.of[user] = factors
        return account

    def change(self, account: Account, **fields: Any) -> None:
        self.accounts[account.id] = self.accounts[account.id]._replace(**fields)

    async def find_login(self, login: str) -> Account | None:
        return next((a for a in self.accounts.values() if a.login == login), None)

    async def get(self, account: str) -> Account | None:
        return self.accounts.get(account)

    async def factors(self, account: str) -> Factors | None:
        return self.of.get(account)

    async def set_password(self, account: str, password: Secret) -> None:
        self.of[account] = self.of[account]._replace(password=password)

    async def use_step(self, account: str, step: int) -> bool:
        if step <= self.of[account].step:
            return False
        self.of[account] = self.of[account]._replace(step=step)
        return True

    async def use_recovery(self, account: str, digest: str) -> bool:
        left = self.of[account].recovery
        if digest not in left:
            return False
        rest = tuple(code for code in left if code != digest)
        self.of[account] = self.of[account]._replace(recovery=rest)
        return True

    async def create_owner(
        self, link: str, now: float, login: str, name: str, factors: Factors
    ) -> Account | None:
        found = self.state.links.get(link)
        if found is None or now >= found.expires:
            return None
        account = self._whom(found)
        if found.account:
            if account is None or account.disabled or account.id in self.of:
                return None
        elif await self.find_login(login) not in (None, account):
            return None
        del self.state.links[link]
        if account is None:
            account = self.add(found.org, login, "owner")
        if not found.account:
            self.change(account, login=login)
        self.of[account.id] = factors
        self.change(account, name=name)
        return self.accounts[account.id]

    def _whom(self, link: SetupLink) -> Account | None:
        if link.account:
            return self.accounts.get(link.account)
        owners = (a for a in self.accounts.values() if (a.org, a.role) == (link.org, "owner"))
        return next((a for a in owners if a.id not in self.of and not a.disabled), None)


class PlainPasswords:
    """Hashes that take no time; counts what would have been hashed."""

    def __init__(self) -> None:
        self.count = 0
        self.outdated = False

    async def hash(self, password: Secret) -> Secret:
        self.count += 1
        return Secret(f"hash of {password.reveal()}")

    async def verify(self, stored: Secret | None, password: Secret) -> bool:
        self.count += 1
        return stored is not None and stored == Secret(f"hash of {password.reveal()}")

    def is_outdated(self, stored: Secret) -> bool:
        return self.outdated


class Control:
    """A whole control plane's sign-in and API in memory."""

    start = 1_750_000_000.0

    def __init__(
        self,
        table: Table | None = None,
        owns: Any = None,
        storage: Any = None,
        answers: Any = None,
        **site: Any,
    ) -> None:
        """`storage`: in place of the one in memory, an `Accounts` that is the rest as well."""
        self.clock = Clock()
        self.audit: list[AuditEntry] = []
        self.audit_broken = False
        self.state: Any = storage or MemoryState()
        self.accounts: Any = storage or MemoryAccounts(self.state)
        self.passwords = PlainPasswords()
        self.sessions = Sessions(self.state, bytes(range(32)))
        self.links = SetupLinks(self.state)
        self.grants = Grants(self.state)
        self.tokens = Tokens(self.state, self.accounts)
        self.approvals: list[Approval] = []
        self.guard = Guard([HOST, "127.0.0.1", "::1"])
        self.table = table or Table()
        register(self.table, self.grants, self._complete, ORIGIN)
        self.sign_in = SignIn(self.accounts, self.sessions, self.passwords, self._record)
        self.pages = SignInPages(
            self.sign_in, self.links, self.grants, guard=self.guard, clock=self.now
        )
        self.api = ApiResource(
            self.table,
            guard=self.guard,
            authenticate=Authenticator(self.accounts, self.sessions, self.tokens),
            audit=self._record,
            clock=self.now,
            owns=owns,
            answers=answers,
        )
        root = Resource()
        root.putChild(b"api", self.api)
        for path in (*PATHS, STYLE_PATH):
            root.putChild(path.encode().split(b"/")[1], self.pages)
        self.site = ApiSite(root, self.clock, **site)

    def now(self) -> float:
        return self.start + self.clock.seconds()

    def _record(self, entry: AuditEntry) -> None:
        if self.audit_broken:
            raise OSError("the disk is full")
        self.audit.append(entry)

    async def _complete(self, approval: Approval, call: Call) -> dict[str, str]:
        self.approvals.append(approval)
        return {"org": approval.org}

    def token(
        self, account: Account, *, kind: str = "user", seconds: float = 1e7, **more: Any
    ) -> str:
        made = self.tokens.issue(
            kind=kind,
            org=account.org,
            subject=account.id,
            name="test",
            seconds=seconds,
            now=self.now(),
            **more,
        )
        text: Secret = now_of(made)[0]
        return text.reveal()

    def link(self, org: str, account: str = "") -> str:
        text: Secret = now_of(self.links.issue(org, ORIGIN, self.now(), account))
        return text.reveal().removeprefix(ORIGIN)
