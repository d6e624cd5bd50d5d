"""Which requests can come from our own pages: host names, browser origins, client addresses.

Source: RFC 6454 (Origin), Fetch Metadata (`Sec-Fetch-Site`), RFC 9110 §7.2 (Host), §15.5.20
(421), RFC 6797 (Strict-Transport-Security). It reads header values and knows no request object,
so that WebSocket endpoints can ask it as well.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from border0.control.api.errors import ApiError, bad_request, forbidden

_HOST = re.compile(r"([a-z0-9]([a-z0-9._-]{0,252}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(:[0-9]{1,5})?")

HEADERS: tuple[tuple[str, str], ...] = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Server", "border0"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
"""On every answer; a page has its own Content-Security-Policy."""
HSTS = ("Strict-Transport-Security", "max-age=31536000")


class Guard:
    """The host names under which this server is reached.

    :param hosts: names and addresses, without port (`control.example.org`, `127.0.0.1`, `::1`).
    :param scheme: what a browser sees; `http` is for tests and loopback only.
    :param trusted_proxies: addresses or networks whose `X-Forwarded-For` is believed.
    :raises ValueError: no host, a host that is none, another scheme, a network that is none.
    """

    def __init__(
        self, hosts: Iterable[str], *, scheme: str = "https", trusted_proxies: Iterable[str] = ()
    ) -> None:
        if scheme not in ("https", "http"):
            raise ValueError("the scheme is https or http")
        self.scheme = scheme
        self._hosts = frozenset(_bracketed(host.lower()) for host in hosts)
        matches = [_HOST.fullmatch(host) for host in self._hosts]
        if not matches or not all(match and not match[3] for match in matches):
            raise ValueError("the allowed hosts are host names or addresses without a port")
        self._proxies: list[IPv4Network | IPv6Network] = [ip_network(p) for p in trusted_proxies]

    def check_host(self, values: Sequence[str]) -> str:
        """The one Host header, lower case, with its port.

        :raises ApiError: none or several, no host at all, or one that is not ours (421).
        """
        if len(values) != 1:
            raise bad_request("exactly one Host header is needed", "bad_host")
        host = values[0].lower()
        match = _HOST.fullmatch(host)
        if match is None:
            raise bad_request("the Host header is not valid", "bad_host")
        if match[1] not in self._hosts:
            raise ApiError(421, "wrong_host", "this server does not answer for that host name")
        return host

    def origin(self, host: str) -> str:
        """The origin of our own pages under a checked `host`."""
        port = ":443" if self.scheme == "https" else ":80"
        return f"{self.scheme}://{host.removesuffix(port)}"

    def check_origin(self, host: str, values: Sequence[str], *, required: bool) -> None:
        """Refuse a foreign origin, `null`, several, or where `required` a missing one.

        :raises ApiError: 403, code `wrong_origin`.
        """
        if (not values and not required) or list(values) == [self.origin(host)]:
            return
        raise forbidden("the request does not come from this site's own pages", "wrong_origin")

    @staticmethod
    def check_fetch_site(values: Sequence[str], *, navigation: bool) -> None:
        """Refuse what the browser itself calls cross-site.

        :param navigation: following a link from elsewhere is fine, as it changes nothing.
        :raises ApiError: 403, code `cross_site`.
        """
        if navigation or not values or list(values) in (["same-origin"], ["none"]):
            return
        raise forbidden("the request comes from another site", "cross_site")

    def client_address(self, peer: str, forwarded: Sequence[str]) -> str:
        """The client's address: `peer`, or what trusted proxies say about it.

        `X-Forwarded-For` is read from its right end, past trusted proxies only.
        """
        if not self._trusted(peer):
            return peer
        address = peer
        for text in reversed(",".join(forwarded).split(",")):
            try:
                address = str(ip_address(text.strip()))
            except ValueError:
                break
            if not self._trusted(address):
                break
        return address

    def trusts(self, address: str) -> bool:
        """Whether this is one of the trusted proxies: through it come many clients."""
        return self._trusted(address)

    def _trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ip_address(host).version == 6 else host
    except ValueError:
        return host
