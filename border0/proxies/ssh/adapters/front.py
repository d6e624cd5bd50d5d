"""The leg to the client: the tunnel is the identity, so every login is accepted, or told why not.

Source: RFC 4252. `none` is enough; whatever key or password a client offers is accepted without a
look at it, because who the client is was settled by the tunnel. What happens before the login is
bounded in bytes, messages and time.
"""

from typing import Any

from twisted.conch.ssh.service import SSHService
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from border0.proxies.ssh import wire
from border0.proxies.ssh.adapters.connection import Connection
from border0.proxies.ssh.adapters.relay import Session
from border0.proxies.ssh.adapters.transport import ServerWire
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.wire import Reader, boolean, string

METHODS = (b"none", b"publickey", b"password", b"keyboard-interactive")
USER_LIMIT = 256
_DONE = Failure(ConnectionDone())


class Welcome(SSHService):
    """Takes the client's user name; the session decides."""

    name = b"ssh-userauth"
    transport: Any

    def __init__(self) -> None:
        self._asked = False

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle one message of the login."""
        if messageNum != wire.USERAUTH_REQUEST:
            raise ProtocolError("a message does not belong into the login")
        if self._asked:
            return  # the answer to the first is on its way
        reader = Reader(packet)
        user = reader.string(USER_LIMIT)
        service = reader.string(64)
        method = reader.string(64)
        if service != Connection.name:
            raise ProtocolError("a service that does not exist here")
        if method not in METHODS:
            methods = b",".join(METHODS[1:])
            self.transport.sendPacket(wire.USERAUTH_FAILURE, string(methods) + boolean(False))
            return
        if method == b"publickey" and not reader.boolean():
            # Only a question whether the key would do; the signature comes next.
            self.transport.sendPacket(
                wire.USERAUTH_PK_OK, string(reader.string()) + string(reader.string())
            )
            return
        try:
            name = user.decode()
        except UnicodeDecodeError:
            raise ProtocolError("the user name is not UTF-8") from None
        self._asked = True
        self.transport.login(name)


class FrontWire(ServerWire):
    """The connection from the client."""

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self.session: Session | None = None
        self.supportedPublicKeys = factory.host_keys.algorithms
        self.peerExtensions = {}
        self.peer = ("", 0)
        self._login: Any = None

    def connectionMade(self) -> None:
        """Begin; the keys are offered when we know what the client is."""
        factory = self.factory
        self.begin(factory.reactor)
        peer = self.transport.getPeer()
        self.peer = peer.host, peer.port
        if hasattr(self.transport, "take"):
            self.transport.take = self.dataReceived
        self._login = factory.reactor.callLater(factory.login_seconds, self._late)
        factory.half_open_began(self)
        self.hello(keys_too=False)

    def _late(self) -> None:
        if self.gotVersion:
            self.fail(wire.BY_APPLICATION, "the login took too long")
        else:
            self.refuse("the login took too long")

    def login(self, user: str) -> None:
        """The client has said who it would like to be."""
        self._login.cancel()
        self.factory.half_open_ended(self)
        self.session = Session(self, self.factory, user)
        self.session.begin()

    def welcome(self, session: Session) -> None:
        """The upstream is there: the login has succeeded."""
        self.sendPacket(wire.USERAUTH_SUCCESS, b"")
        self.logged_in = True
        self.setService(Connection(session.near_handler))

    def ssh_SERVICE_REQUEST(self, packet: bytes) -> None:
        """Only the login can be asked for, and once."""
        name = Reader(packet).string(64)
        if self.sessionID is None or self.service is not None or name != Welcome.name:
            self.fail(wire.SERVICE_NOT_AVAILABLE, "this service is not available")
            return
        self.sendPacket(wire.SERVICE_ACCEPT, string(name))
        self.setService(Welcome())

    def ssh_EXT_INFO(self, packet: bytes) -> None:
        """Nothing of what a client can announce matters here."""

    def told(self, code: int, text: str) -> None:
        """The client leaves, and said so."""
        if self.session is not None:
            self.session.client_left(code, text)

    def failed(self, code: int, text: str) -> None:
        """We leave because of what the client did, or because the session is over."""
        if self.session is not None:
            self.session.client_failed(text)

    def connectionLost(self, reason: Failure = _DONE) -> None:  # type: ignore[override]
        """The client is gone."""
        super().connectionLost(reason)
        if self._login is not None and self._login.active():
            self._login.cancel()
        self.factory.half_open_ended(self)
        if self.session is not None:
            orderly = reason.check(ConnectionDone)
            self.session.client_gone("" if orderly else reason.getErrorMessage())
