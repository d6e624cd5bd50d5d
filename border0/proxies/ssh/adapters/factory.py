"""Serves one SSH socket: what its sessions share, how many logins may wait, how the upstream is
reached.
"""

from collections import OrderedDict
from collections.abc import Callable
from getpass import getuser
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from border0.proxies.adapters import writethrough
from border0.proxies.admission import Admit
from border0.proxies.ssh.adapters.builtin import Builtin
from border0.proxies.ssh.adapters.client import Dialer
from border0.proxies.ssh.adapters.front import FrontWire
from border0.proxies.ssh.adapters.hostkeys import HostKeys, KnownHosts
from border0.proxies.ssh.upstream import BuiltinSSH, SSHUpstream

CONNECT_SECONDS = 10.0
LOGIN_SECONDS = 30.0
HALF_OPEN = 400
"""Connections without a login; of one address a quarter. Beyond that the oldest goes."""


class SshFactory(ServerFactory):
    """A listener's sessions.

    :param upstream: an SSH server, or the connector's own shell.
    :param admit: asked once per login, before the upstream is dialled; it audits a refusal.
    :param host_keys: what clients see.
    :param known_hosts: what upstreams showed at first use.
    :param login_seconds: how long a client may take until it has logged in.
    :param dial: (reactor, host, port, factory, timeout) -> an object with `disconnect()`.
    """

    noisy = False

    def __init__(
        self,
        upstream: SSHUpstream | BuiltinSSH,
        admit: Admit,
        reactor: Any,
        host_keys: HostKeys,
        known_hosts: KnownHosts,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        login_seconds: float = LOGIN_SECONDS,
        half_open: int = HALF_OPEN,
        dial: Callable[..., Any] = writethrough.connect,
    ) -> None:
        self.upstream, self.admit, self.reactor = upstream, admit, reactor
        self.host_keys, self.known_hosts = host_keys, known_hosts
        self.publicKeys, self.privateKeys = host_keys.public, host_keys.private
        self.connect_seconds, self.login_seconds = connect_seconds, login_seconds
        self.dial = dial
        self.sessions: set[Any] = set()
        self._half_open_limit = half_open
        self.half_open: OrderedDict[FrontWire, None] = OrderedDict()

    def buildProtocol(self, addr: IAddress | None) -> FrontWire:
        """A new connection; it is not admitted yet."""
        return FrontWire(self)

    def half_open_began(self, front: FrontWire) -> None:
        """Another connection without a login."""
        waiting = self.half_open
        waiting[front] = None
        same = [other for other in waiting if other.peer[0] == front.peer[0]]
        crowded = len(same) > self._half_open_limit // 4
        if crowded or len(waiting) > self._half_open_limit:
            oldest = same[0] if crowded else next(iter(waiting))
            del waiting[oldest]
            oldest.refuse("too many connections wait for a login")

    def half_open_ended(self, front: FrontWire) -> None:
        """It has logged in, or is gone."""
        self.half_open.pop(front, None)

    def username(self, asked: str) -> str:
        """The name at the upstream."""
        upstream = self.upstream
        if isinstance(upstream, BuiltinSSH) or upstream.username_provider == "use_connector_user":
            return getuser()
        return asked if upstream.username_provider == "prompt_client" else upstream.username

    def reach(self, session: Any, username: str) -> Any:
        """Reach the upstream for an admitted session; it hears `far_ready` or `far_failed`."""
        upstream = self.upstream
        if isinstance(upstream, BuiltinSSH):
            session.far_wire = builtin = Builtin(session, self.reactor)
            session.far_ready(builtin)
            return builtin
        dialer = Dialer(session, upstream, username, self.known_hosts, self.reactor)
        return self.dial(self.reactor, upstream.host, upstream.port, dialer, self.connect_seconds)

    def stop(self, reason: str = "the connector stops") -> None:
        """End every session, and connections that never became one."""
        for session in list(self.sessions):
            session.stop(reason)
        for front in list(self.half_open):
            front.close()
