"""The answer to the API's question who a request comes from: a token, or a browser's session.

Role and state of the account are read at each request, so that a change of role, a lock or a
revocation counts at once.
"""

from border0.control.api.principals import Principal
from border0.control.api.resource import Credentials
from border0.control.signin.model import Accounts
from border0.control.signin.sessions import Sessions
from border0.control.signin.tokens import Tokens


class Authenticator:
    """An `Authenticate` for `ApiResource`."""

    def __init__(self, accounts: Accounts, sessions: Sessions, tokens: Tokens) -> None:
        self._accounts, self._sessions, self._tokens = accounts, sessions, tokens

    async def __call__(self, credentials: Credentials, now: float) -> Principal | None:
        """The caller, or None."""
        if credentials.token is not None:
            return await self._tokens.principal(credentials.token, credentials.address, now)
        value = credentials.session
        session = await self._sessions.find(value, now)
        if value is None or session is None or session.stage != "full":
            return None
        account = await self._accounts.get(session.account)
        if account is None or account.disabled or account.org != session.org:
            return None
        return Principal(
            account.org,
            account.id,
            account.login,
            account.role,
            "session",
            csrf=self._sessions.csrf(value),
            credential=session.digest,
        )
