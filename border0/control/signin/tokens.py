"""Tokens for programs: prefix, id and 256 random bits, of which the store knows a digest.

Source: RFC 6750 (Bearer). `b0s_` is a service account's, `b0u_` a user's own. The text is shown
once. The digest covers prefix and id as well, so parts of two tokens never make a third. A plain
SHA-256 is right for 256 random bits; a slow hash would only invite load.

========= ====== ===============================
offset    size   name
========= ====== ===============================
0         4      prefix
4         32     id, hexadecimal
36        1      `_`
37        52     secret, base32 in lower case
========= ====== ===============================
"""

import base64
import hmac
import re
import secrets
import uuid
from collections.abc import Collection, Mapping
from ipaddress import ip_address, ip_network

from border0.control.api.principals import PERMISSIONS, Principal
from border0.control.signin.model import Accounts, Token, TokenStore, digest
from border0.secrets import Secret

PREFIXES = {"service": "b0s_", "user": "b0u_"}
LONGEST_SECONDS = 366 * 24 * 3600.0
TOUCH_SECONDS = 60.0
_TEXT = re.compile(r"(b0s_|b0u_)([0-9a-f]{32})_([a-z2-7]{52})")


class Tokens:
    """Makes tokens and knows them again."""

    def __init__(
        self,
        store: TokenStore,
        accounts: Accounts,
        permissions: Mapping[str, frozenset[str]] = PERMISSIONS,
    ) -> None:
        self._store, self._accounts, self._permissions = store, accounts, permissions

    def make(
        self,
        *,
        kind: str,
        org: str,
        subject: str,
        name: str,
        seconds: float,
        now: float,
        scopes: Collection[str] | None = None,
        networks: Collection[str] = (),
    ) -> tuple[Secret, Token]:
        """A new token, to be kept by whoever asks (`storage.keep_token` inside a change).

        Its text is known to nobody else and not kept.

        :param kind: `service` (with scopes, always) or `user`.
        :param scopes: the permissions it is for; who may give which is `principals.excess`.
        :param networks: the only addresses it is good from; none: any.
        :raises ValueError: unknown kind or scope, no scopes for a service, a bad network or time.
        """
        if kind not in PREFIXES:
            raise ValueError(f"unknown kind of token {kind!r}")
        if kind == "service" and not scopes:
            raise ValueError("a service account's token names its scopes")
        unknown = set(scopes or ()) - set(self._permissions)
        if unknown:
            raise ValueError(f"unknown scope {min(unknown)!r}")
        if not 0 < seconds <= LONGEST_SECONDS:
            raise ValueError("a token expires within a year")
        for network in networks:
            ip_network(network)
        token_id = str(uuid.uuid4())
        secret = base64.b32encode(secrets.token_bytes(32)).decode().rstrip("=").lower()
        text = f"{PREFIXES[kind]}{token_id.replace('-', '')}_{secret}"
        token = Token(
            token_id,
            kind,
            org,
            subject,
            name,
            digest("token", text),
            None if scopes is None else frozenset(scopes),
            now,
            now + seconds,
            networks=tuple(networks),
        )
        return Secret(text), token

    async def issue(
        self,
        *,
        kind: str,
        org: str,
        subject: str,
        name: str,
        seconds: float,
        now: float,
        scopes: Collection[str] | None = None,
        networks: Collection[str] = (),
    ) -> tuple[Secret, Token]:
        """`make`, and keep it."""
        text, token = self.make(
            kind=kind,
            org=org,
            subject=subject,
            name=name,
            seconds=seconds,
            now=now,
            scopes=scopes,
            networks=networks,
        )
        await self._store.add_token(token)
        return text, token

    async def principal(self, text: Secret, address: str, now: float) -> Principal | None:
        """Whose token it is; None for one that is forged, expired, revoked or from elsewhere."""
        parts = _TEXT.fullmatch(text.reveal())
        if parts is None:
            return None
        token = await self._store.token(str(uuid.UUID(parts[2])))
        if token is None or PREFIXES.get(token.kind) != parts[1]:
            return None
        if not hmac.compare_digest(token.digest, digest("token", text.reveal())):
            return None
        if token.revoked is not None or now >= token.expires or not token.active:
            return None
        if token.networks and not _inside(address, token.networks):
            return None
        if token.kind == "service":
            scopes = token.scopes or frozenset()
            found = Principal(token.org, token.subject, token.name, "service", "token", scopes)
        else:
            account = await self._accounts.get(token.subject)
            if account is None or account.disabled or account.org != token.org:
                return None
            found = Principal(
                account.org, account.id, account.login, account.role, "token", token.scopes
            )
        if now - token.used > TOUCH_SECONDS:
            await self._store.touch_token(token.id, now)
        return found._replace(credential=token.id)


def _inside(address: str, networks: Collection[str]) -> bool:
    try:
        here = ip_address(address)
    except ValueError:
        return False
    here = getattr(here, "ipv4_mapped", None) or here
    return any(here in ip_network(network) for network in networks)
