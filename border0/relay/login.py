"""Who is there: the two sides of a login, each one object for one connection.

Both ends show that they hold their keys (a MAC under a secret of ephemeral and static keys, see
`handshake`), for one name of the relay and one TLS channel. The relay shows it first: a client
answers nobody but the relay that its map names.

Nothing raises for what the other end sends: a side that refuses gives a CLOSE to send and says
why in `failed`. Times are monotonic, `unix` is the wall clock's.
Source: docs/protocols/relay.md. Does not: choose a relay (the map does), or register (`broker`).
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from border0.relay import codes, frames, handshake
from border0.relay.errors import ProtocolError
from border0.relay.handshake import BOUND, BROWSER, Challenge, Hello, Keys, Welcome
from border0.relay.limits import (
    CLOCK_AHEAD,
    EXPORTER_SIZE,
    HELLO_MESSAGE,
    LOGIN_MESSAGE,
    LOGIN_SECONDS,
    SILENT_CLOSED,
)
from border0.relay.ticket import Ticket
from border0.wireguard.noise import StaticKey

TLS_EXPORTER, NO_BINDING = "tls-exporter", "none"


class Failure(NamedTuple):
    """Why a login ended; `remote`: the other end said so."""

    code: int
    text: str
    remote: bool = False


class LoggedIn(NamedTuple):
    """The client at the other end of a relay's connection."""

    key: bytes
    ticket: Ticket
    counter: int
    session: bytes
    bound: bool
    browser: bool


class Admitted(NamedTuple):
    """The relay at the other end of a client's connection. `silence` in seconds, `rate` bytes/s."""

    relay: str
    session: bytes
    silence: int
    rate: int
    bound: bool


def normal_name(name: str) -> str:
    """A relay's name as both ends write it: lower case, no final dot, no brackets.

    ValueError for a name that is not ASCII (an internationalised one is dialled in its A-labels).
    """
    text = name.removeprefix("[").removesuffix("]").removesuffix(".").lower()
    if not text or not text.isascii():
        raise ValueError(f"not a name: {name!r}")
    return text


class ClientLogin:
    """A node's side. Send what `start` and `receive` return; then ask `done` and `failed`.

    :param key: our WireGuard key.
    :param relay_key: the relay's public key, as the map has it.
    :param name: the relay's name or address, as dialled.
    :param binding: the TLS exporter's 32 bytes; None only if the map says "none", or in a browser.
    :param ticket: the control plane's, as received.
    :param counter: Unix milliseconds, more than any that this key was used with before.
    """

    __slots__ = ("_binding", "_ephemeral", "_hello", "_key", "_keys", "_relay", "_relay_key",
                 "_step", "deadline", "done", "failed")  # fmt: skip

    def __init__(
        self,
        *,
        key: StaticKey,
        relay_key: bytes,
        name: str,
        binding: bytes | None,
        ticket: bytes,
        counter: int,
        random_bytes: Callable[[int], bytes],
        now: float,
        browser: bool = False,
    ) -> None:
        if len(relay_key) != frames.KEY_SIZE or relay_key == key.public:
            raise ValueError("the relay's key has 32 bytes and is not ours")
        if binding is not None and (browser or len(binding) != EXPORTER_SIZE):
            raise ValueError("a binding has 32 bytes, and a browser has none")
        self._key = key
        self._relay_key = relay_key
        self._binding = binding or b""
        self._ephemeral = X25519PrivateKey.from_private_bytes(random_bytes(32))
        flags = (BOUND if binding is not None else 0) | (BROWSER if browser else 0)
        public = self._ephemeral.public_key().public_bytes_raw()
        hello = Hello(key.public, public, counter, flags, normal_name(name), ticket)
        self._hello = handshake.pack_hello(hello)
        self._keys: Keys | None = None
        self._relay = ""
        self._step = frames.CHALLENGE
        self.deadline = now + LOGIN_SECONDS
        self.done: Admitted | None = None
        self.failed: Failure | None = None

    def start(self) -> list[bytes]:
        """The first message."""
        return [self._hello]

    def next_deadline(self) -> float | None:
        """When `expire` is due."""
        return self.deadline if self.done is None and self.failed is None else None

    def expire(self, now: float) -> list[bytes]:
        """Give up if it took too long."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return []
        return self._fail(codes.SLOW_LOGIN, "the relay did not answer in time")

    def receive(self, message: bytes) -> list[bytes]:
        """Take a message of the relay; return what is to be sent."""
        if self.done is not None or self.failed is not None:
            return []
        try:
            refusal = _close(message)
            if refusal is not None:
                self.failed = refusal
                return []
            body = handshake.only_record(message, self._step, LOGIN_MESSAGE)
            if self._keys is None:
                return self._prove(message, handshake.parse_challenge(body))
            self._finish(message, handshake.parse_welcome(body), self._keys)
        except ProtocolError as error:
            return self._fail(error.code, error.text)
        return []

    def _prove(self, message: bytes, challenge: Challenge) -> list[bytes]:
        if challenge.key != self._relay_key:
            raise ProtocolError("the relay has another key than in the map", codes.WRONG_RELAY)
        shared = handshake.exchange(self._ephemeral, challenge.key)
        shared += handshake.exchange(self._key.private, challenge.ephemeral)
        keys = Keys(shared, self._hello, message, self._binding)
        if not handshake.same(keys.relay_mac(), challenge.mac):
            raise ProtocolError("the relay does not hold its key", codes.WRONG_RELAY)
        if not handshake.same(keys.binding_mac(), challenge.binding_mac):
            raise ProtocolError("someone between ends the TLS connection", codes.BINDING)
        self._keys = keys
        self._relay = challenge.relay
        self._step = frames.WELCOME
        return [frames.pack_record(frames.PROOF, keys.proof())]

    def _finish(self, message: bytes, welcome: Welcome, keys: Keys) -> None:
        if not handshake.same(keys.welcome_mac(message), welcome.mac):
            raise ProtocolError("the relay's answer does not authenticate", codes.PROOF_FAILED)
        self.done = Admitted(
            self._relay, welcome.session, welcome.silence, welcome.rate, bool(self._binding)
        )

    def _fail(self, code: int, text: str) -> list[bytes]:
        self.failed = Failure(code, text)
        return [frames.close_record(code, text)]


class Desk:
    """What every login of one relay is measured by; its members may change at any time.

    :param verify: a ticket's bytes and the Unix time to the ticket; raises ProtocolError.
    :param admit: asked last, before WELCOME: a Failure refuses (`Broker.may_join`).
    :param rate_of: bytes a second that a client with this ticket may send.
    :param binding: "tls-exporter" or "none", as the relay's entry in the map says.
    """

    __slots__ = ("admit", "binding", "key", "names", "random_bytes", "rate_of", "relay", "verify")

    def __init__(
        self,
        *,
        relay: str,
        key: StaticKey,
        names: Collection[str],
        verify: Callable[[bytes, float], Ticket],
        random_bytes: Callable[[int], bytes],
        binding: str = TLS_EXPORTER,
        admit: Callable[[LoggedIn, float], Failure | None] = lambda client, now: None,
        rate_of: Callable[[Ticket], float] = lambda ticket: 0.0,
    ) -> None:
        if binding not in (TLS_EXPORTER, NO_BINDING):
            raise ValueError(f"no such binding: {binding}")
        if not frames.ID.fullmatch(relay):
            raise ValueError(f"no id of a relay: {relay!r}")
        self.relay = relay
        self.key = key
        self.names = frozenset(normal_name(name) for name in names)
        self.verify = verify
        self.random_bytes = random_bytes
        self.binding = binding
        self.admit = admit
        self.rate_of = rate_of


class ServerLogin:
    """The relay's side of one connection.

    :param binding: the TLS exporter's 32 bytes, or None if TLS does not end here.
    :param origin: None without an Origin header, else whether the allow-list has it.
    """

    __slots__ = ("_binding", "_client", "_desk", "_keys", "_origin", "deadline", "done", "failed")

    def __init__(
        self, desk: Desk, *, binding: bytes | None, origin: bool | None, now: float
    ) -> None:
        self._desk = desk
        self._binding = binding
        self._origin = origin
        self._keys: Keys | None = None
        self._client: LoggedIn | None = None
        self.deadline = now + LOGIN_SECONDS
        self.done: LoggedIn | None = None
        self.failed: Failure | None = None

    def next_deadline(self) -> float | None:
        """When `expire` is due."""
        return self.deadline if self.done is None and self.failed is None else None

    def expire(self, now: float) -> list[bytes]:
        """Give up if it took too long."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return []
        return self._fail(codes.SLOW_LOGIN, "the login took longer than ten seconds")

    def receive(self, message: bytes, now: float, unix: float) -> list[bytes]:
        """Take a message of the client; return what is to be sent."""
        if self.done is not None or self.failed is not None:
            return []
        if now >= self.deadline:
            return self.expire(now)
        try:
            refusal = _close(message)
            if refusal is not None:
                self.failed = refusal
                return []
            if self._keys is None or self._client is None:
                body = handshake.only_record(message, frames.HELLO, HELLO_MESSAGE)
                return self._challenge(message, handshake.parse_hello(body), unix)
            body = handshake.only_record(message, frames.PROOF, LOGIN_MESSAGE)
            return self._welcome(body, self._keys, self._client, now)
        except ProtocolError as error:
            return self._fail(error.code, error.text)

    def _challenge(self, message: bytes, hello: Hello, unix: float) -> list[bytes]:
        desk = self._desk
        if hello.name not in desk.names:
            raise ProtocolError("this relay has another name", codes.WRONG_NAME)
        browser, bound = bool(hello.flags & BROWSER), bool(hello.flags & BOUND)
        self._check_channel(browser, bound)
        if hello.counter > (unix + CLOCK_AHEAD) * 1000:
            raise ProtocolError("the connection counter is in the future", codes.CLOCK)
        # The ticket before the keys: a signature that is not there costs an attacker more than us.
        ticket = desk.verify(hello.ticket, unix)
        if ticket.public_key != hello.key:
            raise ProtocolError("ticket: it is for another key", codes.TICKET)
        if hello.key == desk.key.public:
            raise ProtocolError("the key is the relay's own", codes.PROOF_FAILED)
        ephemeral = X25519PrivateKey.from_private_bytes(desk.random_bytes(32))
        shared = handshake.exchange(desk.key.private, hello.ephemeral)
        shared += handshake.exchange(ephemeral, hello.key)
        public = ephemeral.public_key().public_bytes_raw()
        blank = handshake.pack_challenge(Challenge(desk.key.public, public, desk.relay))
        binding = self._binding if bound else None
        self._keys = Keys(shared, message, blank, binding or b"")
        session = desk.random_bytes(handshake.SESSION_SIZE)
        self._client = LoggedIn(hello.key, ticket, hello.counter, session, bound, browser)
        return [self._keys.complete_challenge()]

    def _check_channel(self, browser: bool, bound: bool) -> None:
        if browser != (self._origin is not None):
            raise ProtocolError("a browser, and nothing else, names its origin", codes.ORIGIN)
        if browser:
            if not self._origin:
                raise ProtocolError("this origin is not allowed", codes.ORIGIN)
            if bound:
                raise ProtocolError("a browser cannot bind", codes.BINDING)
            return
        wanted = self._desk.binding == TLS_EXPORTER
        if bound != wanted:
            raise ProtocolError(
                f"this relay's channel binding is {self._desk.binding!r}", codes.BINDING
            )
        if wanted and self._binding is None:
            raise ProtocolError("TLS does not end at this relay", codes.BINDING)

    def _welcome(self, body: bytes, keys: Keys, client: LoggedIn, now: float) -> list[bytes]:
        if not handshake.same(keys.proof(), body):
            raise ProtocolError("the proof does not authenticate", codes.PROOF_FAILED)
        refusal = self._desk.admit(client, now)
        if refusal is not None:
            return self._fail(refusal.code, refusal.text)
        rate = min(0xFFFFFFFF, int(self._desk.rate_of(client.ticket)))
        blank = handshake.pack_welcome(Welcome(client.session, int(SILENT_CLOSED), rate))
        self.done = client
        return [blank[: -handshake.MAC_SIZE] + keys.welcome_mac(blank)]

    def _fail(self, code: int, text: str) -> list[bytes]:
        self.failed = Failure(code, text)
        self._keys = None
        return [frames.close_record(code, text)]


def _close(message: bytes) -> Failure | None:
    """What a CLOSE in place of a login message says; it is not authenticated, only believed."""
    if not message or message[0] != frames.CLOSE:
        return None
    code, text = frames.parse_coded(handshake.only_record(message, frames.CLOSE, LOGIN_MESSAGE))
    return Failure(code, text, remote=True)
