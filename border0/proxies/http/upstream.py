"""What an HTTP socket leads to: a service, or a folder of the connector's machine."""

from dataclasses import dataclass, field


@dataclass
class HttpUpstream:
    """An HTTP/1.1 server.

    :param scheme: `http`, or `https` with chain and name verified.
    :param host_header: what Host says to it; empty for `hostname` (and the port, unless usual).
    :param headers: fields added to every request; their values may be secrets.
    :param ca_certificate: PEM of the authority, None for the system's.
    """

    host: str
    port: int
    scheme: str = "http"
    host_header: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list, repr=False)
    ca_certificate: str | None = None

    @property
    def host_value(self) -> bytes:
        """The value of Host."""
        if self.host_header:
            return self.host_header.encode()
        name = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.scheme == "https" else 80
        return (name if self.port == usual else f"{name}:{self.port}").encode()


@dataclass
class FileServer:
    """A folder of the connector's machine, served for reading."""

    top_level_directory: str
