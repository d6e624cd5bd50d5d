"""The page behind the example's `hello` socket: proof that a request came through the tunnel."""

from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from border0.connector.config import ConnectorConfig
from border0.connector.upstreams import TcpUpstream
from border0.errors import ConfigError

PAGE = (
    "It works: this request came through WireGuard, through a TCP/IP stack in user space and\n"
    "through a policy, and left a record in the connector's state folder.\n"
)


class _Hello(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        return PAGE.encode()


def hello_service(reactor: Any, config: ConnectorConfig) -> StreamServerEndpointService:
    """An HTTP server at the upstream of socket `hello`; raises ConfigError when there is none."""
    for entry in config.sockets:
        if entry.name == "hello" and isinstance(entry.upstream, TcpUpstream):
            site = Site(_Hello())
            site.noisy = False
            upstream = entry.upstream
            endpoint = TCP4ServerEndpoint(reactor, upstream.port, interface=upstream.host)
            service = StreamServerEndpointService(endpoint, site)
            service.setName("hello")
            return service
    raise ConfigError(f"{config.file}: --hello needs a tls socket named 'hello'")
