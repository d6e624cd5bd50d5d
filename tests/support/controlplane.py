"""Routes on a real database behind a real `ApiSite`, where everything answers at once."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from border0.control.api.guard import Guard
from border0.control.api.principals import PERMISSIONS, Principal
from border0.control.api.resource import ApiResource, Credentials
from border0.control.api.routes import Table
from border0.control.api.site import ApiSite
from border0.control.routes.desk import Desk
from border0.control.routes.owned import owns
from border0.control.signin.authenticate import Authenticator
from border0.control.signin.sessions import Sessions
from border0.control.signin.storage import SqlSignIn
from border0.control.signin.tokens import Tokens
from border0.control.store import (
    audit_events,
    connectors,
    devices,
    enrolment_keys,
    groups,
    invites,
    organisations,
    policies,
    relays,
    service_accounts,
    sessions,
    sockets,
    users,
)
from border0.control.store import tokens as token_rows
from border0.control.store.database import Database
from border0.control.store.transaction import Change, Tx
from tests.support.signin import result_of
from tests.support.web import HOST, Response, exchange

ACME = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
UNKNOWN = "00000000-0000-4000-8000-000000000000"
START = 1_800_000_000.0
URL = "https://control.test:8443"
PIN = "sha256:" + "ab" * 32


class DirectStore:
    """Has `read` and `change` of a `Store`; runs them in the caller's turn."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.announced: list[Any] = []
        self.broken: Exception | None = None

    def read(self, function: Callable[[Connection], Any]) -> Deferred[Any]:
        try:
            if self.broken is not None:
                raise self.broken
            return succeed(self.database.read(function))
        except Exception:
            return fail()

    def change(self, function: Callable[[Tx], Any], *, org: str, actor: str) -> Deferred[Any]:
        if self.broken is not None:
            return fail(self.broken)
        (outcome,), announced = self.database.commit([Change(function, org, actor)])
        self.announced += announced
        return succeed(outcome.value) if outcome.error is None else fail(outcome.error)


class FakeNodes:
    """Nobody is connected, except for whom a test says."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}
        self.killed: list[tuple[str, str, str, str]] = []

    def online(self, org: str, node: str) -> bool:
        return node in self.addresses

    def address(self, org: str, node: str) -> str:
        return self.addresses.get(node, "")

    def refusals(self, org: str, connector: str) -> dict[str, str]:
        return {}

    def kill(self, org: str, connector: str, session: str, reason: str) -> Deferred[bool]:
        self.killed.append((org, connector, session, reason))
        return succeed(True)

    def ticket_keys(self, org: str) -> list[bytes]:
        return [bytes(32)]

    def revoked(self, org: str) -> dict[str, float]:
        return {}

    def relays_here(self, org: str) -> dict[str, dict[str, float]]:
        return {}


class Populated(NamedTuple):
    url: str
    users: dict[str, str]
    callers: dict[str, Principal]


@cache
def populated() -> Populated:
    """A database in a file, made once."""
    folder = Path(tempfile.mkdtemp(prefix="border0-routes-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return populate(f"sqlite:///{folder}/control.db")


def populate(url: str) -> Populated:
    """Put two organisations into an empty database; who is in them."""
    filled = Populated(url, {}, {})
    database = Database(url, clock=lambda: START)
    database.open()
    for org, name in ((ACME, "acme"), (OTHER, "other")):
        change = Change(lambda tx, name=name: _populate(tx, name, filled), org, "test")
        (outcome,), _ = database.commit([change])
        assert outcome.error is None, outcome.error
    database.close()
    return filled


def _populate(tx: Tx, name: str, filled: Populated) -> None:
    organisations.create(tx, name=name)
    for role in users.ROLES:
        email = f"{role}@{name}"
        user = users.create(tx, issuer="local", subject=email, email=email, role=role)
        filled.users[email] = user.id
        filled.callers[email] = Principal(tx.org, user.id, email, role, "token")
    robot = service_accounts.create(tx, name="robot", role="admin")
    filled.users[f"service@{name}"] = robot.id
    filled.callers[f"service@{name}"] = Principal(
        tx.org, robot.id, "robot", "service", "token", frozenset(PERMISSIONS)
    )


class ControlPlane(SynchronousTestCase):
    """Two organisations, each with one user of every role; `call` asks as one of them.

    A caller's token is `<role>@<organisation's name>`; `as_token` makes others. Tokens and cookies
    that the routes and sign-in made are good as well.
    """

    timeout = 120

    def register(self, table: Table, desk: Desk) -> None:
        """Add the routes under test."""
        raise NotImplementedError

    def setUp(self) -> None:
        self.folder = folder = Path(tempfile.mkdtemp(prefix="border0-routes-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.clock = Clock()
        filled = self.filled(folder)
        self.users = dict(filled.users)
        self.callers = dict(filled.callers)
        self.database = Database(filled.url, clock=self.now)
        self.addCleanup(self.database.close)
        self.database.open()
        self.store = DirectStore(self.database)
        self.nodes = FakeNodes()
        self.desk = Desk(self.store, self.nodes)  # type: ignore[arg-type]
        self.wire()
        self.table = self.new_table()
        self.register(self.table, self.desk)
        self.api = ApiResource(
            self.table,
            guard=Guard([HOST]),
            authenticate=self.authenticate,
            audit=self.desk.record,
            clock=self.now,
            owns=owns(self.desk),
        )
        root = Resource()
        root.putChild(b"api", self.api)
        self.site = ApiSite(root, self.clock)

    def filled(self, folder: Path) -> Populated:
        """A populated database of this test's own."""
        made = populated()
        shutil.copy(made.url.removeprefix("sqlite:///"), folder / "control.db")
        return made._replace(url=f"sqlite:///{folder}/control.db")

    def new_table(self) -> Table:
        """The table that routes are put into."""
        return Table()

    def wire(self) -> None:
        """Make what sign-in offers to routes."""
        self.sign_in = SqlSignIn(self.store, bytes(range(32)))  # type: ignore[arg-type]
        self.sessions = Sessions(self.sign_in, bytes(range(32)))
        self.tokens = Tokens(self.sign_in, self.sign_in)
        self.authenticator = Authenticator(self.sign_in, self.sessions, self.tokens)

    def now(self) -> float:
        return START + self.clock.seconds()

    async def authenticate(self, credentials: Credentials, now: float) -> Principal | None:
        if credentials.token is not None and credentials.token.reveal() in self.callers:
            return self.callers[credentials.token.reveal()]
        return await self.authenticator(credentials, now)

    def as_token(self, base: str, *scopes: str) -> str:
        """A token of the same caller that is only good for `scopes`."""
        name = f"{base}:{','.join(scopes)}"
        self.callers[name] = self.callers[base]._replace(scopes=frozenset(scopes))
        return name

    def write(self, function: Callable[[Tx], Any], org: str = ACME) -> Any:
        return result_of(self.store.change(function, org=org, actor="test"))

    def read(self, function: Callable[[Connection], Any]) -> Any:
        return self.database.read(function)

    def call(
        self,
        method: str,
        path: str,
        value: Any = None,
        *,
        who: str = "owner@acme",
        status: int | None = None,
        headers: list[tuple[str, str]] | None = None,
    ) -> Response:
        """One request; a status other than `status` fails the test."""
        self.clock.advance(1.0)
        response = exchange(
            self.site, method, f"/api/v1{path}", value=value, token=who, headers=headers
        )
        if status is not None:
            self.assertEqual(response.status, status, response.raw)
        return response

    def ok(self, method: str, path: str, value: Any = None, **more: Any) -> Any:
        """The JSON of an answer that is no refusal."""
        response = self.call(method, path, value, **more)
        self.assertLess(response.status, 300, response.raw)
        return response.json() if response.body else None

    def refused(self, status: int, method: str, path: str, value: Any = None, **more: Any) -> str:
        """The sentence of an answer that refuses."""
        response = self.call(method, path, value, status=status, **more)
        text: str = response.json()["error"]["message"]
        return text

    def events(self, org: str = ACME) -> list[dict[str, Any]]:
        """The audit events so far, oldest first."""
        found = self.read(lambda connection: audit_events.page(connection, org, limit=1000))
        return [json.loads(event.line) for event in reversed(found.items)]

    def last_event(self) -> dict[str, Any]:
        return self.events()[-1]

    def make(self, kind: str, org: str = ACME, name: str = "thing") -> str:
        """The id of a new object."""

        def change(tx: Tx) -> Any:
            if kind == "user":
                return users.create(tx, issuer="local", subject=name, email=f"{name}@example.org")
            if kind == "group":
                return groups.create(tx, name=name)
            if kind == "service_account":
                return service_accounts.create(tx, name=name, role="member")
            if kind == "connector":
                return connectors.create(tx, name=name)
            if kind == "relay":
                key = b64encode(name.encode().ljust(32, b".")).decode()
                return relays.create(tx, name=name, names=["relay.example.org"], public_key=key)
            if kind == "device":
                return self.make_device(tx, name)
            if kind == "enrolment_key":
                return enrolment_keys.issue(tx, name=name, expires=tx.now + 60, tags=["x"])[0]
            if kind == "invite":
                return invites.issue(tx, kind="device", expires=tx.now + 60)[0]
            if kind == "policy":
                return policies.create(tx, name=name, text="{}")
            if kind == "socket":
                return sockets.create(
                    tx, name=name, socket_type="http", port=80, upstream_configuration={}
                )
            if kind == "session":
                return self.make_session(tx, name)
            if kind == "token":
                robot = service_accounts.find(tx.connection, tx.org, "robot")
                assert robot is not None
                return token_rows.issue(
                    tx,
                    kind="api",
                    name=name,
                    scopes=["socket.read"],
                    expires=tx.now + 60,
                    service_account_id=robot.id,
                )[0]
            raise ValueError(kind)

        made: str = self.write(change, org).id
        return made

    @staticmethod
    def make_session(tx: Tx, name: str) -> sessions.Session:
        session = sessions.Session(tx.new_id(), tx.now, socket=name)
        sessions.report(tx, session)
        return session

    @staticmethod
    def make_device(tx: Tx, name: str, user: str | None = None, **more: Any) -> devices.Device:
        return devices.create(
            tx,
            name=name,
            wireguard_key=f"key of {name}",
            machine_key=f"machine of {name}",
            user_id=user,
            tags=[] if user else ["lab"],
            **more,
        )
