"""The factories of HTTP sockets: the reverse proxy's and the file server's."""

from border0.proxies.http.adapters.factory import HttpFactory
from border0.proxies.http.adapters.fileserver import FileServerFactory

__all__ = ["FileServerFactory", "HttpFactory"]
