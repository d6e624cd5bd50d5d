"""Keys, tickets and logins for the tests of the relay, without chance or clocks."""

from __future__ import annotations

import random
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from border0.relay.broker import Broker
from border0.relay.connection import Connection
from border0.relay.limits import Rate
from border0.relay.login import ClientLogin, Desk, LoggedIn, ServerLogin
from border0.relay.ticket import Ticket, TicketKeys, issue
from border0.wireguard.noise import StaticKey

UNIX = 1_790_000_000.0
ORG = "11111111-2222-3333-4444-555555555555"
OTHER_ORG = "99999999-2222-3333-4444-555555555555"
NODE = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
RELAY = "relay-fra"
NAME = "relay.example.com"
BINDING = bytes(range(32))


def chance(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def static(number: int) -> StaticKey:
    return StaticKey(number.to_bytes(2, "big") * 16)


def signing(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32)


def raw(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


SIGNER = signing(1)
RELAY_KEY = static(500)


def ticket(key: bytes, org: str = ORG, **changes: object) -> Ticket:
    made = Ticket(org, NODE, key, frozenset((RELAY,)), UNIX - 5, UNIX + 595)
    return made._replace(**changes)  # type: ignore[arg-type]


def signed(key: bytes, org: str = ORG, **changes: object) -> bytes:
    return issue(ticket(key, org, **changes), SIGNER)


def ticket_keys() -> TicketKeys:
    return TicketKeys({raw(SIGNER): frozenset((ORG, OTHER_ORG))})


def verifier(keys: TicketKeys) -> Callable[[bytes, float], Ticket]:
    return lambda data, now: keys.verify(data, RELAY, now)


def desk(**changes: object) -> Desk:
    settings: dict[str, object] = {
        "relay": RELAY,
        "key": RELAY_KEY,
        "names": [NAME, "192.0.2.7"],
        "verify": verifier(ticket_keys()),
        "random_bytes": chance(7),
        **changes,
    }
    return Desk(**settings)  # type: ignore[arg-type]


def client_login(number: int = 1, **changes: object) -> ClientLogin:
    key = static(number)
    settings: dict[str, object] = {
        "key": key,
        "relay_key": RELAY_KEY.public,
        "name": NAME,
        "binding": BINDING,
        "ticket": signed(key.public),
        "counter": int(UNIX * 1000),
        "random_bytes": chance(number),
        "now": 0.0,
        **changes,
    }
    return ClientLogin(**settings)  # type: ignore[arg-type]


def server_login(
    at: Desk | None = None, binding: bytes | None = BINDING, origin: bool | None = None
) -> ServerLogin:
    return ServerLogin(at or desk(), binding=binding, origin=origin, now=0.0)


def run(
    client: ClientLogin,
    server: ServerLogin,
    wire: Callable[[bool, bytes], bytes] = lambda up, message: message,
) -> list[bytes]:
    """The whole login; `wire(up, message)` may change what passes. Return what was sent."""
    sent: list[bytes] = []
    up = client.start()
    while up:
        down: list[bytes] = []
        for message in up:
            sent.append(message)
            down += server.receive(wire(True, message), 1.0, UNIX)
        up = []
        for message in down:
            sent.append(message)
            up += client.receive(wire(False, message))
    return sent


def logged_in(number: int, org: str = ORG, counter: int = 1, rate: str = "standard") -> LoggedIn:
    key = static(number).public
    return LoggedIn(key, ticket(key, org, rate=rate), counter, bytes(16), True, False)


class House:
    """A Broker, and a transport for each of its clients that may rest or be slow."""

    def __init__(self, org_rate: Rate | None = None, **changes: object) -> None:
        self.now = 1000.0
        self.keys = ticket_keys()
        self.broker = Broker(
            verify=verifier(self.keys),
            unix=lambda: UNIX + self.now - 1000.0,
            random_bytes=chance(3),
            org_rate=org_rate,
            **changes,  # type: ignore[arg-type]
        )
        self.sent: dict[Connection, list[bytes]] = {}
        self.closed: list[tuple[Connection, int, str]] = []

    def join(self, number: int, org: str = ORG, counter: int = 1, **more: str) -> Connection:
        client = logged_in(number, org, counter, **more)
        refusal = self.broker.may_join(client, self.now)
        assert refusal is None, refusal
        return self.broker.register(number, client, self.now)

    def say(self, connection: Connection, *records: bytes) -> None:
        self.broker.receive(connection, b"".join(records), self.now)
        self.flush()

    def flush(self) -> None:
        for connection in self.broker.take_ready():
            while message := self.broker.take_message(connection, self.now):
                self.sent.setdefault(connection, []).append(message)
        self.closed += self.broker.take_closing()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, from deadline to deadline."""
        end = self.now + seconds
        while (due := self.broker.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.broker.expire(self.now)
            self.flush()
        self.now = end

    def got(self, connection: Connection) -> bytes:
        return b"".join(self.sent.pop(connection, []))
