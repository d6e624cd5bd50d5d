"""The routes over a real store: requests as they come over a connection, nodes that are made up."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource

from border0.control.api.guard import Guard
from border0.control.api.principals import Principal
from border0.control.api.resource import ApiResource, Credentials
from border0.control.api.routes import Table
from border0.control.api.site import ApiSite
from border0.control.routes import audit, connector, explain, policy, relay, session, socket
from border0.control.routes.desk import Desk
from border0.control.routes.owned import owns
from border0.control.store import Store, audit_events, organisations, users
from tests.support.web import HOST, Response, Wire, raw_request

ACME = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
NOWHERE = "99999999-9999-4999-8999-999999999999"
START = 1_800_000_000.0
DAY = 86_400.0
POSTGRES = {
    "service_type": "database",
    "database_service_configuration": {
        "database_service_type": "standard",
        "standard_database_service_configuration": {
            "protocol": "postgres",
            "hostname": "10.0.0.5",
            "port": 5433,
            "authentication_type": "username_and_password",
            "username_and_password_auth_configuration": {
                "username": "app",
                "password": "from:env:SHOP_PW",
            },
        },
    },
}
TLS = {
    "service_type": "tls",
    "tls_service_configuration": {
        "tls_service_type": "standard",
        "standard_tls_service_configuration": {"hostname": "10.0.0.6", "port": 6379},
    },
}
READ_ONLY = {
    "permissions": {
        "database": {
            "allowed_databases": [{"database": "shop", "allowed_query_types": ["ReadOnly"]}]
        }
    },
    "condition": {"who": {"group": ["eng"]}, "where": {"allowed_ip": ["192.0.2.0/24"]}},
}


class MadeUpNodes:
    """Implements `Nodes` as a test says."""

    def __init__(self) -> None:
        self.connected: dict[tuple[str, str], str] = {}
        self.refused: dict[tuple[str, str], dict[str, str]] = {}
        self.kills: list[tuple[str, ...]] = []
        self.outcome: Any = True
        self.out: dict[str, float] = {}
        self.live: dict[str, dict[str, float]] = {}

    def online(self, org: str, node: str) -> bool:
        return (org, node) in self.connected

    def address(self, org: str, node: str) -> str:
        return self.connected.get((org, node), "")

    def refusals(self, org: str, connector: str) -> dict[str, str]:
        return self.refused.get((org, connector), {})

    def ticket_keys(self, org: str) -> list[bytes]:
        return [org.encode()[:32]]

    def revoked(self, org: str) -> dict[str, float]:
        return self.out

    def relays_here(self, org: str) -> dict[str, dict[str, float]]:
        return self.live

    def kill(self, org: str, connector: str, session: str, reason: str) -> Deferred[bool]:
        self.kills.append((org, connector, session, reason))
        return fail(self.outcome) if isinstance(self.outcome, Exception) else succeed(self.outcome)


class RoutesCase(TestCase):
    """Two organisations; whoever calls is named by the token: `owner`, `auditor`, `other` …"""

    timeout = 60

    async def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="border0-routes-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.now = START
        self.store = await Store.open(f"sqlite:///{folder}/control.db", clock=lambda: self.now)
        self.addCleanup(self.store.close)
        for org, name in ((ACME, "acme"), (OTHER, "other")):
            await self.store.change(
                lambda tx, name=name: organisations.create(tx, name=name), org=org, actor="test"
            )
        self.principals = {
            "owner": await self._user(ACME, "owner"),
            "admin": await self._user(ACME, "admin"),
            "auditor": await self._user(ACME, "auditor"),
            "member": await self._user(ACME, "member"),
            "other": await self._user(OTHER, "owner"),
        }
        self.nodes = MadeUpNodes()
        self.desk = Desk(self.store, self.nodes)
        self.table = Table()
        for module in (socket, policy, explain, connector, relay, session, audit):
            module.register(self.table, self.desk)
        api = ApiResource(
            self.table,
            guard=Guard([HOST]),
            authenticate=self._authenticate,
            audit=self.desk.record,
            clock=lambda: self.now,
            owns=owns(self.desk),
        )
        root = Resource()
        root.putChild(b"api", api)
        self.site = ApiSite(root, Clock())

    async def _user(self, org: str, role: str) -> Principal:
        email = f"{role}@{'acme' if org == ACME else 'other'}.test"
        made = await self.change(
            lambda tx: users.create(tx, issuer="local", subject=email, email=email, role=role),
            org=org,
        )
        return Principal(org, made.id, email, role, "token")

    async def _authenticate(self, credentials: Credentials, now: float) -> Principal | None:
        return self.principals.get(credentials.token.reveal() if credentials.token else "")

    # -- the store, beside the API ------------------------------------------------------------

    def change(self, function: Any, org: str = ACME) -> Any:
        return self.store.change(function, org=org, actor="test")

    def read(self, function: Any) -> Any:
        return self.store.read(function)

    async def records(self, type: str = "", org: str = ACME) -> list[dict[str, Any]]:
        """The audit events, newest first."""
        wanted = {"type": type} if type else {}
        page = await self.read(lambda c: audit_events.page(c, org, limit=1000, **wanted))
        return [json.loads(one.line) for one in page.items]

    # -- requests -----------------------------------------------------------------------------

    async def call(
        self, method: str, path: str, value: Any = None, *, by: str = "owner", match: str = ""
    ) -> Response:
        headers = [("Authorization", f"Bearer {by}"), ("Connection", "close")]
        body = b""
        if value is not None:
            body = json.dumps(value).encode()
            headers.append(("Content-Type", "application/json"))
        if match:
            headers.append(("If-Match", match))
        wire = Wire(self.site)
        done: Deferred[None] = Deferred()
        end = wire.transport.loseConnection

        def closed() -> None:
            end()
            if not done.called:
                done.callback(None)

        wire.transport.loseConnection = wire.transport.abortConnection = closed
        wire.send(raw_request(method, f"/api/v1{path}", headers, body))
        await done
        return wire.response()

    async def ok(self, method: str, path: str, value: Any = None, **more: Any) -> Any:
        """The answer's JSON; the request must succeed."""
        response = await self.call(method, path, value, **more)
        self.assertIn(response.status, (200, 201, 204), response.raw)
        return response.json() if response.body else None

    async def refused(
        self, status: int, method: str, path: str, value: Any = None, **more: Any
    ) -> str:
        """The sentence of a refusal with this status; both forms of it are checked."""
        response = await self.call(method, path, value, **more)
        self.assertEqual(response.status, status, response.raw)
        found = response.json()
        self.assertEqual(found["status_code"], status)
        self.assertEqual(found["error_message"], found["error"]["message"])
        message: str = found["error"]["message"]
        return message

    async def new_connector(self, name: str = "lab", by: str = "owner") -> str:
        made = await self.ok("POST", "/connector", {"name": name}, by=by)
        id: str = made["connector_id"]
        return id

    async def new_policy(self, name: str = "eng-read", by: str = "owner", **more: Any) -> str:
        body = {"name": name, "policy_data": READ_ONLY, **more}
        id: str = (await self.ok("POST", "/policies", body, by=by))["id"]
        return id

    async def new_socket(self, name: str = "shop-db", by: str = "owner", **more: Any) -> str:
        body = {"name": name, "socket_type": "database", "upstream_configuration": POSTGRES}
        id: str = (await self.ok("POST", "/socket", {**body, **more}, by=by))["socket_id"]
        return id
