"""The control plane as one service: store, nodes, sign-in, API and pages behind one TLS site.

It is composed here and started in order: nothing listens before the store is open, every
organisation's statements are signed and its map is loaded. A start that fails is one clear error.
"""

import time
import uuid
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.web.resource import Resource

from border0 import __version__
from border0.control import enrol, ingest
from border0.control.answers import SqlAnswers
from border0.control.api.errors import forbidden
from border0.control.api.guard import Guard
from border0.control.api.principals import Principal, permits
from border0.control.api.resource import ApiResource
from border0.control.api.routes import Call, Table
from border0.control.api.site import ApiSite
from border0.control.config import WILDCARDS, ControlConfig
from border0.control.fleet import Fleet
from border0.control.keyring import Keyring
from border0.control.ports import listen
from border0.control.push.adapters.server import push_resource
from border0.control.relayservice import PATH, RelayService, retire
from border0.control.routes import registry
from border0.control.routes.desk import Desk
from border0.control.routes.owned import owns
from border0.control.signin import routes as signin_routes
from border0.control.signin.authenticate import Authenticator
from border0.control.signin.flows import SignIn
from border0.control.signin.grants import Approval, Grants
from border0.control.signin.links import SetupLinks
from border0.control.signin.passwords import Passwords
from border0.control.signin.resource import NEEDS, PATHS, STYLE_PATH, SignInPages
from border0.control.signin.sessions import Sessions
from border0.control.signin.storage import SqlSignIn
from border0.control.signin.tokens import Tokens
from border0.control.store import credentials, invites, organisations
from border0.control.store.store import Store
from border0.control.stunservice import StunService
from border0.secrets import Secret
from border0.trust import PrivateCA, RenewingContext, server_context

LOGIN_SECONDS = 30 * 86_400.0
CODE_SECONDS = 300.0
Metric = tuple[str, str, str, list[tuple[dict[str, str], float]]]
TRIM_SECONDS = 86_400.0
BACKLOG = 2048  # of a relay's clients that come all at once
log = Logger(namespace="border0.control")


class ControlPlane(MultiService):
    """Everything of one control plane but its process.

    :param wall: seconds since 1970.
    """

    def __init__(
        self, reactor: Any, config: ControlConfig, wall: Callable[[], float] = time.time
    ) -> None:
        super().__init__()
        self.reactor, self.config, self.wall = reactor, config, wall
        self.setName("control")
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.keyring = Keyring(config.state_dir)
        self.pin = ""
        self.authority: bytes | None = None  # PEM, of the private authority
        self._tls = self._context()
        self.ready = False
        self.ports: list[Any] = []
        self.stun = StunService(reactor, config)
        self.relay: RelayService | None = None
        self.store: Store
        self.fleet: Fleet
        self.accounts: SqlSignIn
        self.tokens: Tokens
        self.links: SetupLinks
        self._passwords = Passwords(reactor)
        self._trim = LoopingCall(self._trim_now)

    # TLS.

    def _context(self) -> Any:
        config = self.config
        if config.certificate is not None and config.private_key is not None:
            return server_context(config.certificate.read_bytes(), config.private_key.read_bytes())
        authority = PrivateCA.open(config.state_dir / "authority", self.wall())
        self.pin, self.authority = authority.pin, authority.certificate
        names, addresses = self._names()
        return RenewingContext(authority, names, addresses, self.wall)

    def _names(self) -> tuple[list[str], list[str]]:
        """What this server is reached by: DNS names and addresses."""
        hosts = [self.config.host, "localhost", "127.0.0.1", "::1"]
        hosts += [host for host, _ in self.config.listen if host not in WILDCARDS]
        names, addresses = [], []
        for host in dict.fromkeys(hosts):
            try:
                addresses.append(str(ip_address(host)))
            except ValueError:
                names.append(host)
        return names, addresses

    def reload(self) -> None:
        """Read certificate and key again; ConfigError or OSError keep what is."""
        config = self.config
        if config.certificate is not None and config.private_key is not None:
            self._tls.replace(config.certificate.read_bytes(), config.private_key.read_bytes())

    # Life.

    async def open(self) -> None:
        """Open the store, load everything, listen.

        :raises Border0Error: the database or a file cannot be used.
        :raises CannotListenError: an address is taken (ConfigError: one of STUN).
        """
        config, (names, addresses) = self.config, self._names()
        guard = Guard([*names, *addresses], trusted_proxies=config.trusted_proxies)
        self.store = await Store.open(
            config.database.reveal(), reactor=self.reactor, clock=self.wall
        )
        self.fleet = Fleet(
            self.store, self.reactor, guard, self.keyring.signing_key, self._records, self.wall,
            config.stun.told, ticket_key=self.keyring.ticket_key,
        )  # fmt: skip
        for org in await self._organisations():
            await self.fleet.add(org)
        if config.relay is not None:
            self.relay = RelayService(
                self.reactor, config, config.relay, self.keyring, self.fleet, self.pin, self.wall
            )
        self._passwords.start()
        site = ApiSite(self._resource(guard), self.reactor, proxy=guard.trusts)
        self.stun.start()
        backlog = BACKLOG if self.relay is not None else 50
        self.ports = listen(self.reactor, config.listen, site, self._tls, backlog)
        if self.relay is not None:
            await self.relay.register()
        else:
            await retire(self.keyring, self.fleet)
        self._trim.clock = self.reactor
        self._trim.start(TRIM_SECONDS, now=False).addErrback(lambda _: None)
        self.ready = True

    async def close(self) -> None:
        """Tell the nodes, finish what is under way, let the database go."""
        self.ready = False
        if self._trim.running:
            self._trim.stop()
        self.stun.stop()
        ports, self.ports = self.ports, []
        for port in ports:
            await port.stopListening()
        relay, self.relay = self.relay, None
        if relay is not None:
            await relay.stop()
        if hasattr(self, "fleet"):
            await self.fleet.stop()
            self._passwords.stop()
        if hasattr(self, "store"):
            await self.store.close()

    def stopService(self) -> "Deferred[None]":
        """Drain, then stop."""
        super().stopService()
        return Deferred.fromCoroutine(self.close())

    async def _organisations(self) -> list[str]:
        """The ids of all organisations; the first one is made at the first start."""
        page = await self.store.read(lambda connection: organisations.page(connection, limit=1000))
        if page.items:
            return [one.id for one in page.items]
        name, org = self.config.organisation, str(uuid.uuid4())
        await self.store.change(
            lambda tx: organisations.create(tx, name=name), org=org, actor="first start"
        )
        return [org]

    async def _trim_now(self) -> None:
        try:
            await self.store.trim()
        except Exception:
            log.failure("old changes could not be removed; trying again tomorrow")

    async def setup_link(self) -> Secret | None:
        """A link for the first owner of the first organisation; None when one can sign in."""
        org = next(iter(self.fleet.organisations))
        if await self.store.read(lambda c: credentials.an_owner_signs_in(c, org)):
            return None
        return await self.links.issue(org, self.config.url, self.wall())

    def metrics(self) -> list[Metric]:
        """Nodes and what they were told, for Prometheus."""
        if not self.ready:
            return []
        relayed = [] if self.relay is None else self.relay.metrics()
        return [*self.fleet.metrics(), *self.stun.metrics(), *relayed]

    # What is served.

    def _resource(self, guard: Guard) -> Resource:
        state = SqlSignIn(self.store, self.keyring.server_key)
        sessions = Sessions(state, self.keyring.server_key)
        self.accounts = state
        self.tokens = Tokens(state, state)
        self.links = SetupLinks(state)
        grants = Grants(state)
        desk = Desk(self.store, self.fleet)
        table = Table()
        signin_routes.register(table, grants, self._complete, self.config.url)
        enrol.register(table, desk, self.fleet.settled, self.fleet.signers)
        registry.register(table, desk, tokens=self.tokens, base_url=self.config.url, pin=self.pin)
        api = ApiResource(
            table,
            guard=guard,
            authenticate=Authenticator(state, sessions, self.tokens),
            audit=desk.record,
            clock=self.wall,
            owns=owns(desk),
            answers=SqlAnswers(self.store),
            version=__version__,
        )
        sign_in = SignIn(state, sessions, self._passwords, desk.record)
        command = f"border0 login {self.config.url}" + (f" --ca {self.pin}" if self.pin else "")
        pages = SignInPages(
            sign_in, self.links, grants, guard=guard, clock=self.wall, command=command
        )
        root = _Root(pages)
        root.putChild(b"api", _Api(api, push_resource(self.fleet.factory)))
        if self.relay is not None:
            root.putChild(PATH.encode()[1:], self.relay.resource())
            root.putChild(b"healthz", self.relay.health())
        for path in (*PATHS, STYLE_PATH):
            root.putChild(path.encode().split(b"/")[1], pages)
        return root

    async def _complete(self, approval: Approval, call: Call) -> dict[str, str]:
        """What a machine gets whose owner confirmed it in a browser."""
        now = self.wall()
        who = await self.accounts.get(approval.account)
        if who is None or who.disabled:
            raise forbidden("whoever confirmed this may not sign in any more")
        confirmed_by = Principal(who.org, who.id, who.name, who.role, "session")
        if not permits(confirmed_by, NEEDS[approval.purpose]):
            raise forbidden("whoever confirmed this may not do so any more")
        if approval.purpose == "login":
            text, _ = await self.tokens.issue(
                kind="user",
                org=approval.org,
                subject=approval.account,
                name=f"login from {approval.name}",
                seconds=LOGIN_SECONDS,
                now=now,
            )
            found = await self.store.read(lambda c: organisations.get(c, approval.org))
            return {"token": text.reveal(), "org": approval.org, "org_name": found.name}
        payload = {
            "name": approval.name,
            "user_id": approval.account if approval.purpose == "device" else "",
            "wireguard_key": approval.public_key,
            "approved": approval.purpose == "connector",
        }
        code: tuple[Any, Secret] = await self.store.change(
            lambda tx: invites.issue(
                tx, kind=approval.purpose, expires=tx.now + CODE_SECONDS, payload=payload
            ),
            org=approval.org,
            actor=approval.account,
        )
        return {"code": code[1].reveal()}

    def _records(self, org: str, connector: str, text: str) -> "Deferred[object]":
        """Store a batch; the answer says what was not taken."""
        lines = [line for line in text.split("\n") if line]

        def told(done: ingest.Ingested) -> str:
            refused = done.refused
            return f"{len(refused)} lines refused: {refused[0].reason}" if refused else ""

        return self.store.change(
            lambda tx: ingest.ingest(tx, connector, lines), org=org, actor=connector
        ).addCallback(told)


class _Root(Resource):
    """What has no other place is a page: the start, or that there is none."""

    def __init__(self, pages: Resource) -> None:
        super().__init__()
        self._pages = pages

    def getChild(self, path: bytes, request: Any) -> Resource:
        """The pages, whatever the path."""
        return self._pages


class _Api(Resource):
    """`/api/v1/push` is the nodes' WebSocket, everything else the route table's."""

    def __init__(self, api: Resource, push: Any) -> None:
        super().__init__()
        self._api, self._push = api, push

    def getChild(self, path: bytes, request: Any) -> Any:
        """The push resource, or the API with the whole path."""
        if [path, *request.postpath] == [b"v1", b"push"]:
            request.postpath.clear()
            return self._push
        request.postpath.insert(0, request.prepath.pop())
        return self._api
