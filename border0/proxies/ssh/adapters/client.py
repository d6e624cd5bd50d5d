"""The leg to the upstream: its host key is checked, then we log in with the connector's secret.

Source: RFC 4252 (authentication), RFC 4256 (keyboard-interactive), RFC 8332 (RSA with SHA-2).
"""

from typing import Any

from twisted.conch.ssh.keys import EncryptedKeyError, Key
from twisted.conch.ssh.service import SSHService
from twisted.internet import defer
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory
from twisted.python.failure import Failure

from border0.errors import ConfigError
from border0.proxies.endings import UPSTREAM_CLOSED, UPSTREAM_FAILED, UPSTREAM_UNREACHABLE
from border0.proxies.ssh import wire
from border0.proxies.ssh.adapters.connection import Connection
from border0.proxies.ssh.adapters.hostkeys import KnownHosts
from border0.proxies.ssh.adapters.transport import NO_MATCH, ClientWire
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.upstream import SSHUpstream, algorithms, judge
from border0.proxies.ssh.wire import Reader, boolean, printable, string, uint32
from border0.secrets import Secret

BANNERS = 8
_DONE = Failure(ConnectionDone())


def private_key(secret: Secret) -> Any:
    """The key of an OpenSSH or PEM text.

    :raises ValueError: no key, or one with a passphrase.
    """
    try:
        return Key.fromString(secret.reveal().encode())
    except EncryptedKeyError:
        raise ValueError("the private key has a passphrase; store it without one") from None
    except Exception:
        # Whatever the parser says may hold a piece of the key.
        raise ValueError("not a private key in OpenSSH or PEM format") from None


class Login(SSHService):
    """Logs in with each of our credentials, at most once."""

    name = b"ssh-userauth"
    transport: Any

    def __init__(self, upstream: SSHUpstream, username: str, session: Any) -> None:
        self.username = username
        self.session = session
        self._password = upstream.password
        self._key: Any = private_key(upstream.private_key) if upstream.private_key else None
        self._left = [b"publickey"] if self._key is not None else []
        if self._password is not None:
            self._left += [b"password", b"keyboard-interactive"]
        self._trying = b""
        self._banners = 0

    def serviceStarted(self) -> None:
        """Begin with the best we have; `none` when there is nothing."""
        self._try(self._left.pop(0) if self._left else b"none")

    def _try(self, method: bytes) -> None:
        self._trying = method
        if method == b"publickey":
            self._sign()
        elif method == b"password" and self._password is not None:
            self._ask(method, boolean(False) + string(self._password.reveal().encode()))
        elif method == b"keyboard-interactive":
            self._ask(method, string(b"") + string(b""))
        else:
            self._ask(method, b"")

    def _ask(self, method: bytes, fields: bytes) -> None:
        head = string(self.username.encode()) + string(Connection.name) + string(method)
        self.transport.sendPacket(wire.USERAUTH_REQUEST, head + fields)

    def _sign(self) -> None:
        key = self._key
        kind = algorithm = key.sshType()
        if kind == b"ssh-rsa":
            known = self.transport.peerExtensions.get(b"server-sig-algs", b"").split(b",")
            old = known != [b""] and b"rsa-sha2-512" not in known and b"rsa-sha2-256" in known
            algorithm = b"rsa-sha2-256" if old else b"rsa-sha2-512"
        fields = boolean(True) + string(algorithm) + string(key.blob())
        signed = (
            string(self.transport.sessionID)
            + bytes([wire.USERAUTH_REQUEST])
            + string(self.username.encode())
            + string(Connection.name)
            + string(b"publickey")
            + fields
        )
        signature = key.sign(signed, signatureType=algorithm)
        self._ask(b"publickey", fields + string(signature))

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle one message of the login."""
        reader = Reader(packet)
        if messageNum == wire.USERAUTH_SUCCESS:
            self.transport.logged_in = True
            self.transport.setService(Connection(self.session.far_handler))
        elif messageNum == wire.USERAUTH_FAILURE:
            self._failed(reader.string().split(b","))
        elif messageNum == wire.USERAUTH_BANNER:
            self._banners += 1
            if self._banners > BANNERS:
                raise ProtocolError("too many banners")
            self.session.banner(reader.string())
        elif messageNum == wire.USERAUTH_INFO_REQUEST and self._trying == b"keyboard-interactive":
            self._answer(reader)
        else:
            raise ProtocolError("a message does not belong into the login")

    def _answer(self, reader: Reader) -> None:
        for _ in range(3):
            reader.string()
        count = reader.uint32()
        if count > 1 or self._password is None:
            raise ProtocolError("the upstream asks more than a password")
        answers = b""
        if count:
            reader.string()
            if reader.boolean():
                raise ProtocolError("the upstream asks for something that is not a password")
            answers = string(self._password.reveal().encode())
        self.transport.sendPacket(wire.USERAUTH_INFO_RESPONSE, uint32(count) + answers)

    def _failed(self, methods: list[bytes]) -> None:
        while self._left:
            method = self._left.pop(0)
            if method in methods:
                self._try(method)
                return
        names = ", ".join(printable(name, 40) for name in methods[:8])
        self.session.far_failed(
            UPSTREAM_FAILED,
            f"the upstream refuses the connector's login (it takes: {names})",
        )
        self.transport.close()


class UpstreamWire(ClientWire):
    """The connection to the upstream."""

    def __init__(
        self, session: Any, upstream: SSHUpstream, username: str, known: KnownHosts, reactor: Any
    ) -> None:
        self.session, self.upstream, self.username = session, upstream, username
        self._known, self._reactor = known, reactor
        self.peerExtensions = {}
        self._why = ""
        self._pinned: tuple[bytes, ...] = ()
        self._new_keys: tuple[bytes, ...] = ()

    def connectionMade(self) -> None:
        """Begin; which host keys we ask for follows from those that are pinned."""
        upstream = self.upstream
        self.begin(self._reactor)
        try:
            self._pinned = upstream.host_keys
            if not self._pinned and upstream.host_key_policy == "first-use":
                self._pinned = self._known.get(upstream.host, upstream.port)
        except ConfigError as error:
            self.session.far_failed(UPSTREAM_FAILED, str(error))
            self.close()
            return
        self.supportedPublicKeys = algorithms(self._pinned)
        if hasattr(self.transport, "take"):
            self.transport.take = self.dataReceived
        self.hello()

    def verifyHostKey(self, hostKey: bytes, fingerprint: bytes) -> Any:
        """Conch asks; a key that is not believed fails the exchange with our words."""
        upstream = self.upstream
        if not self._pinned and upstream.host_key_policy == "first-use":
            self._pinned = self._new_keys = (hostKey,)
        why = judge(hostKey, self._pinned)
        if why:
            self._why = why
            return defer.fail(ProtocolError(why))
        return defer.succeed(True)

    def secured(self) -> None:
        """Ask for the login, once."""
        if self.service is None and not self.gone and not hasattr(self, "instance"):
            try:
                # Now it has proved that it holds the key.
                for key in self._new_keys:
                    self._known.add(self.upstream.host, self.upstream.port, key)
                login = Login(self.upstream, self.username, self.session)
            except (ValueError, ConfigError) as error:
                self.session.far_failed(UPSTREAM_FAILED, str(error))
                self.close()
                return
            self.requestService(login)

    def ssh_SERVICE_ACCEPT(self, packet: bytes) -> None:
        """The login may begin."""
        if self.service is not None:
            raise ProtocolError("a service was accepted twice")
        super().ssh_SERVICE_ACCEPT(packet)

    def failed(self, code: int, text: str) -> None:
        """We leave; the session hears why."""
        if self._why:
            self.session.far_failed(UPSTREAM_FAILED, self._why)
        elif text == NO_MATCH:
            self.session.far_failed(
                UPSTREAM_FAILED,
                "the upstream and the connector have no algorithm in common"
                + (", or it has no host key of the pinned kind" if self._pinned else ""),
            )
        else:
            self.session.far_failed(UPSTREAM_FAILED, f"the upstream broke the protocol: {text}")

    def told(self, code: int, text: str) -> None:
        """The upstream leaves, and said why."""
        self.session.far_failed(UPSTREAM_FAILED, f"the upstream closed the connection: {text}")

    def refuse(self, text: str) -> None:
        """What answers there is not SSH."""
        self.session.far_failed(UPSTREAM_FAILED, f"the upstream does not speak SSH: {text}")
        self.close()

    def connectionLost(self, reason: Failure = _DONE) -> None:  # type: ignore[override]
        """The upstream is gone."""
        super().connectionLost(reason)
        why = "" if reason.check(ConnectionDone) else f": {reason.getErrorMessage()}"
        self.session.far_failed(UPSTREAM_CLOSED, f"the upstream closed the connection{why}")


class Dialer(ClientFactory):
    """Makes the upstream's side of one session."""

    noisy = False

    def __init__(
        self, session: Any, upstream: SSHUpstream, username: str, known: KnownHosts, reactor: Any
    ) -> None:
        self._arguments = session, upstream, username, known, reactor
        self.session = session

    def buildProtocol(self, addr: IAddress | None) -> UpstreamWire:
        """The protocol of the connection that stands."""
        protocol = self.session.far_wire = UpstreamWire(*self._arguments)
        return protocol

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """Nobody answers there."""
        self.session.far_failed(
            UPSTREAM_UNREACHABLE,
            f"the upstream cannot be reached: {reason.getErrorMessage()}",
        )
