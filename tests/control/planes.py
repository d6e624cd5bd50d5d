"""A whole control plane in this process, over TLS on loopback, with people, nodes and a browser."""

from __future__ import annotations

import json
import socket
import uuid
from pathlib import Path
from typing import Any

import treq
from treq.client import HTTPClient
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS

from border0.control.config import ControlConfig, read
from border0.control.member.follower import Follower
from border0.control.member.join import join
from border0.control.plane import ControlPlane
from border0.control.store import invites, users
from border0.trust import trust_root
from tests.control.push.stage import Waiter, forget_handshake_timers

reactor: Any = _reactor


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Answer:
    """Status and body of one exchange."""

    def __init__(self, status: int, body: bytes, headers: Any) -> None:
        self.status, self.body, self.headers = status, body, headers

    def json(self) -> Any:
        return json.loads(self.body)


class PlaneCase(TestCase):
    """`self.plane` is open; `self.owner` and `self.token` are its first user's."""

    timeout = 90
    settings: dict[str, Any] = {}
    tables: dict[str, Any] = {}  # of the file, beside [control]

    def setUp(self) -> Deferred[None]:
        self.addCleanup(forget_handshake_timers)
        self.base = Path(self.mktemp()).absolute()
        self.base.mkdir(parents=True)
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.waiter = Waiter()
        return Deferred.fromCoroutine(self.begin())

    async def begin(self) -> None:
        self.plane = await self.opened()
        self.org = next(iter(self.plane.fleet.organisations))
        self.owner, self.token = await self.person("owner@example.org", "owner")

    def tearDown(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.plane.close())

    def configured(self, table: dict[str, Any]) -> ControlConfig:
        """What the file says."""
        return read({"control": table, **self.tables}, self.base / "control.toml")

    async def opened(self) -> ControlPlane:
        """A start of the process."""
        table = {
            "url": self.url,
            "listen": [f"127.0.0.1:{self.port}"],
            "state_dir": "state",
            **self.settings,
        }
        plane = ControlPlane(reactor, self.configured(table))
        await plane.open()
        self.agent = Agent(
            reactor, BrowserLikePolicyForHTTPS(trust_root(plane.authority)), connectTimeout=5
        )
        self.http = HTTPClient(self.agent)
        return plane

    async def restart(self) -> None:
        """The process ends and starts again."""
        await self.plane.close()
        self.plane = await self.opened()

    async def person(self, email: str, role: str = "member") -> tuple[str, str]:
        """A user's id and token."""
        id = str(uuid.uuid4())
        await self.plane.store.change(
            lambda tx: users.create(
                tx, issuer="local", subject=id, id=id, email=email, name=email, role=role
            ),
            org=self.org,
            actor="test",
        )
        text, _ = await self.plane.tokens.issue(
            kind="user",
            org=self.org,
            subject=id,
            name="test",
            seconds=1e6,
            now=self.plane.wall(),
        )
        return id, text.reveal()

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """One request to the API; as the owner unless a token is given ("" = none)."""
        sent = dict(headers or {})
        token = self.token if token is None else token
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            sent["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        response = await self.http.request(
            method, f"{self.url}/api/v1{path}", headers=sent, data=data, allow_redirects=False
        )
        return Answer(response.code, await treq.content(response), response.headers)

    async def good(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON of a request that must succeed."""
        answer = await self.ask(method, path, body, **more)
        self.assertLess(answer.status, 300, answer.body)
        return answer.json() if answer.body else None

    async def code(self, kind: str, name: str, user: str = "") -> str:
        """A one-time invite."""
        payload = {"name": name, "user_id": user, "approved": True}
        _, text = await self.plane.store.change(
            lambda tx: invites.issue(tx, kind=kind, expires=tx.now + 900, payload=payload),
            org=self.org,
            actor="test",
        )
        return text.reveal()

    async def node(self, kind: str, name: str, user: str = "", number: int = 1) -> Follower:
        """A machine that joined and follows, in sync."""
        folder = self.base / name
        state = await join(
            reactor,
            url=self.url,
            ca=self.plane.pin,
            code=await self.code(kind, name, user),
            role=kind,
            name=name,
            wireguard_key=bytes([number]) * 32,
            ssh_host_key="",
            folder=folder,
        )
        follower = self.follower(state)
        await self.waiter.until(lambda: follower.synced)
        return follower

    def follower(self, state: Any) -> Follower:
        """A started follower of a membership; `commands` collects what it is told to do."""
        commands: list[Any] = []

        def command(one: Any) -> None:
            commands.append(one)
            self.waiter([])

        follower = Follower(
            reactor,
            state,
            changed=lambda _: self.waiter([]),
            command=command,
            uniform=lambda: 0.02,
        )
        follower.commands = commands  # type: ignore[attr-defined]
        self.addCleanup(lambda: follower.running and follower.stopService())
        follower.startService()
        return follower

    async def service(self, connector: Follower, emails: list[str]) -> tuple[str, str]:
        """A database socket at a connector and its policy: their ids."""
        policy = await self.good(
            "POST",
            "/policies",
            {
                "name": "eng",
                "policy_data": {
                    "permissions": {"database": {}},
                    "condition": {"who": {"email": emails}},
                },
            },
        )
        upstream = {
            "service_type": "database",
            "database_service_configuration": {
                "database_service_type": "standard",
                "standard_database_service_configuration": {
                    "protocol": "postgres",
                    "hostname": "db.example.org",
                    "port": 5432,
                    "authentication_type": "username_and_password",
                    "username_and_password_auth_configuration": {
                        "username": "app",
                        "password": "from:env:SHOP_PW",
                    },
                },
            },
        }
        socket = await self.good(
            "POST",
            "/socket",
            {
                "name": "shop-db",
                "socket_type": "database",
                "connector_ids": [connector.state.node],
                "policies": [policy["id"]],
                "upstream_configuration": upstream,
            },
        )
        return socket["socket_id"], policy["id"]
