"""The address of a control plane: `https://host[:port][/path]`, nothing else."""

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import urlsplit

from border0.errors import ConfigError

DEFAULT_PORT = 443


class ControlUrl(NamedTuple):
    """Where the API and push are; `path` has no slash at its end."""

    host: str
    port: int
    path: str

    @property
    def text(self) -> str:
        """The URL in its one form, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        return f"https://{host}{port}{self.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether it names this machine."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_url(text: str) -> ControlUrl:
    """The address in `text`.

    :raises ConfigError: another scheme than https, no host, or more than an address.
    """
    example = "write https://HOST:PORT, as the control plane printed it"
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port or DEFAULT_PORT
        host.encode("ascii")
    except ValueError:
        raise ConfigError(f"{text!r} is no address of a control plane; {example}") from None
    if parts.scheme == "http":
        raise ConfigError(f"{text!r}: a control plane is reached by https only; {example}")
    if parts.scheme != "https" or not host or "%" in host or any(c.isspace() for c in text.strip()):
        raise ConfigError(f"{text!r} is no address of a control plane; {example}")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigError(f"{text!r} says more than where the control plane is; {example}")
    return ControlUrl(host, port, parts.path.rstrip("/"))
