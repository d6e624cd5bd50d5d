"""HTTP proxies that a client has to go through: which one, what to ask of it, what it answers.

The variables are those that curl and most programs read: `https_proxy` or `HTTPS_PROXY`, else
`all_proxy` or `ALL_PROXY`, and `no_proxy` or `NO_PROXY`: names, which stand for what is below them
too, addresses and networks, each perhaps with a port, or `*` for everything. This machine itself
is never asked for by a proxy.

Source: RFC 9110 §9.3.6 (CONNECT), §15.5.8 (407), RFC 7617 (Basic), RFC 9112 §4 (status line).
Does not: any I/O, or a way of logging in other than Basic.
"""

from base64 import b64encode
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import unquote, urlsplit

from border0.errors import ConfigError
from border0.secrets import Secret

MAX_HEAD = 16 * 1024  # bytes of an answer with its headers
PORTS = {"http": 80, "https": 443}
_NONE = Secret("")


class Proxy:
    """One proxy.

    `tls`: what is asked of it goes over TLS. `user` is "" when it wants no login.
    """

    __slots__ = ("host", "password", "port", "tls", "user")

    def __init__(
        self,
        host: str,
        port: int,
        tls: bool = False,
        user: str = "",
        password: Secret | None = None,
    ) -> None:
        self.host, self.port, self.tls = host, port, tls
        self.user, self.password = user, password or Secret("")

    def __str__(self) -> str:
        """It as a URL, without its password."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{name}:{self.port}"


def parse_proxy(text: str) -> Proxy:
    """`[http[s]://][USER:PASSWORD@]HOST[:PORT]`.

    :raises ConfigError: it is none; the text does not repeat the password.
    """
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ConfigError("the proxy is no URL: write http://HOST:PORT") from None
    if parts.scheme not in PORTS:
        raise ConfigError(f"{parts.scheme} proxies are not known here: write http://HOST:PORT")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    if not host or ":" in user or not (user + password).isprintable():
        raise ConfigError("the proxy has no host, or a login that cannot be sent")
    if not host.isascii() or any(sign in host for sign in " %\\"):
        raise ConfigError(f"{host!r} is no host of a proxy")
    tls = parts.scheme == "https"
    return Proxy(host, port or PORTS[parts.scheme], tls, user, Secret(password))


def proxy_for(host: str, port: int, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for a connection by TLS to `host`, as the environment says it; None: directly.

    :raises ConfigError: what the environment says is no proxy.
    """
    text = ""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        text = text or environment.get(name, "").strip()
    exempt = environment.get("no_proxy", "") or environment.get("NO_PROXY", "")
    if not text or is_exempt(host, port, exempt):
        return None
    return parse_proxy(text)


def is_exempt(host: str, port: int, exempt: str) -> bool:
    """Whether `NO_PROXY`, or what the host is, says to go there directly."""
    name = host.lower().rstrip(".")
    try:
        address = ip_address(name)
    except ValueError:
        address = None
    if name == "localhost" or (address is not None and address.is_loopback):
        return True
    for word in exempt.lower().replace(",", " ").split():
        if word == "*":
            return True
        entry, colon, number = word.rpartition(":")
        if colon and number.isdigit() and (entry.count(":") == 0 or entry.endswith("]")):
            if int(number) != port:
                continue
            word = entry
        word = word.removeprefix("[").removesuffix("]")
        if address is not None:
            try:
                if address in ip_network(word, strict=False):
                    return True
            except ValueError:
                continue
        else:
            word = word.removeprefix("*").strip(".")
            if word and (name == word or name.endswith(f".{word}")):
                return True
    return False


def request(proxy: Proxy, host: str, port: int) -> bytes:
    """What to send to the proxy for a way to `host`."""
    name = f"[{host}]" if ":" in host else host
    lines = [f"CONNECT {name}:{port} HTTP/1.1", f"Host: {name}:{port}"]
    if proxy.user:
        login = b64encode(f"{proxy.user}:{proxy.password.reveal()}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {login}")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


class Answer:
    """What the proxy says to a request.

    `done`: it has answered; then either `error` says why there is no way, or `rest` is what came
    from the other end already.
    """

    __slots__ = ("_head", "done", "error", "rest")

    def __init__(self) -> None:
        self._head = b""
        self.done, self.error, self.rest = False, "", b""

    def receive(self, data: bytes) -> None:
        """More of it came."""
        if self.done:
            self.rest += data
            return
        self._head += data
        head, complete, rest = self._head.partition(b"\r\n\r\n")
        if not complete:
            if len(self._head) > MAX_HEAD:
                self._end("it answers with more than any proxy does")
            elif not b"HTTP/1.".startswith(self._head[:7]):
                self._end("it does not speak HTTP")
            return
        line, _, headers = head.partition(b"\r\n")
        words = line.split(None, 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or len(words[1]) != 3:
            self._end("it does not speak HTTP")
        elif not words[1].isdigit() or words[1][:1] not in b"2345":
            self._end("it answers with a status that is none")
        elif words[1][:1] == b"2":
            self.done, self.rest = True, rest
        else:
            reason = words[2] if len(words) > 2 else b""
            self._end(_refusal(int(words[1]), reason, headers))
        self._head = b""

    def _end(self, why: str) -> None:
        self.done, self.error = True, why


def _refusal(status: int, reason: bytes, headers: bytes) -> str:
    if status in (401, 407):  # tinyproxy says 401 to who sends no login
        offered = {
            line.partition(b":")[2].split()[0].decode("ascii", "replace")
            for line in headers.split(b"\r\n")
            if line.lower().startswith((b"proxy-authenticate:", b"www-authenticate:"))
            and line.partition(b":")[2].split()
        }
        if not offered or any(name.lower() == "basic" for name in offered):
            return f"it wants another login ({status}): write USER:PASSWORD@ into its URL"
        return f"it wants a login of a kind that is not known here: {_clean(' '.join(offered))}"
    said = _clean(reason.decode("ascii", "replace"))
    return f"it refuses ({status} {said})" if said else f"it refuses ({status})"


def _clean(text: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in text[:100])
