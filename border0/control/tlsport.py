"""TLS for a server's port, such that a connection that ends leaves nothing behind.

Twisted keeps the error of a connection that ends without TLS's own good-bye, the error's frames
keep the connection, and the frames the error: some 40 KiB that live until the collector looks at
what is old. Where thousands come and go that is most of the memory. So what ends is told first
that no more will come, and no error is made.
"""

from typing import Any

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure


class _Transport(BufferingTLSTransport):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        connection: SSL.Connection | None = self.getHandle()
        if connection is not None:
            said = connection.get_shutdown()
            if not said & SSL.RECEIVED_SHUTDOWN:
                # What was complete has been given on as it came.
                connection.set_shutdown(said | SSL.RECEIVED_SHUTDOWN)
                if reason.check(ConnectionDone) is not None:
                    reason = Failure(ConnectionLost("it ended without the good-bye of TLS"))
        super().connectionLost(reason)


class _Factory(TLSMemoryBIOFactory):
    protocol = _Transport


def with_tls(context: Any, factory: Any) -> TLSMemoryBIOFactory:
    """A factory for a plain port that speaks TLS, as `IReactorSSL.listenSSL` makes it."""
    return _Factory(context, False, factory)
