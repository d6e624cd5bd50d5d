"""Which header fields cross the proxy, and the heads that go out.

Source: RFC 9110 §7.6.1 (hop-by-hop fields), §7.6.3 (Via); RFC 7239 §1 for what X-Forwarded-* are.
A service behind the proxy believes the identity fields, so no client may send one: names are
compared without case and with every other character than letters and digits taken as a dash,
because servers that put fields into variables (`HTTP_X_AUTH_EMAIL`) no longer tell them apart.
"""

import re
from collections.abc import Sequence

from border0.policy.model import Subject
from border0.proxies.http.wire import (
    CHUNKED,
    Fields,
    RequestHead,
    ResponseHead,
    tokens,
)

VIA = b"1.1 border0"
HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    )
)
_FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host", b"expect", b"trailer"))
_FORGED_PREFIXES = (b"x-forwarded", b"x-border0", b"x-original-", b"x-webauth-")
# X-Auth-Token and X-Auth-Key are not here: services take them from clients as credentials.
_AUTH = b"email name subject picture sig kid timestamp request-id user username groups roles role"
_FORGED = frozenset(
    (
        b"client-ip",
        b"forwarded",
        b"proxy",  # HTTP_PROXY in the environment of a CGI program
        b"remote-addr",
        b"remote-email",
        b"remote-groups",
        b"remote-name",
        b"remote-user",
        b"true-client-ip",
        b"x-authenticated-user",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-real-ip",
        b"x-remote-user",
        b"x-rewrite-url",
    )
) | {b"x-auth-" + name for name in _AUTH.split()}
_NO_UPGRADE = frozenset((b"h2c", b"h2", b"http", b"tls"))
_ODD = re.compile(rb"[^0-9a-z]")
_UNFIT = re.compile("[\x00-\x1f\x7f]")


def canonical(name: bytes) -> bytes:
    """The name as the least careful server reads it."""
    return _ODD.sub(b"-", name.lower())


def is_forged(name: bytes) -> bool:
    """Whether only the proxy may send a field of this name."""
    plain = canonical(name)
    return plain in _FORGED or plain.startswith(_FORGED_PREFIXES)


def identity(subject: Subject, address: str) -> Fields:
    """The fields that tell a service who asks.

    :param address: the client's address inside the tunnel.
    """
    known = {
        b"X-Auth-Email": subject.user,
        b"X-Auth-Subject": subject.user or subject.service_account,
        b"X-Forwarded-For": address,
    }
    return [(name, _value(text)) for name, text in known.items() if text]


def _value(text: str) -> bytes:
    return _UNFIT.sub("?", text).strip().encode("utf-8", "replace")


def wants_upgrade(head: RequestHead) -> bytes:
    """The protocols that a request asks to change to, b"" when it asks for none that may pass.

    HTTP/2 without TLS may not: what follows would be requests that nobody here reads.
    """
    if head.minor == 0 or head.length or b"upgrade" not in tokens(head.values(b"connection")):
        return b""
    wanted = tokens(head.values(b"upgrade"))
    if not wanted or any(item.split(b"/")[0] in _NO_UPGRADE for item in wanted):
        return b""
    return b", ".join(wanted)


def upstream_head(
    head: RequestHead, target: bytes, host: bytes, own: Sequence[tuple[bytes, bytes]]
) -> tuple[bytes, bytes]:
    """A request as the service gets it, and the upgrade that it asks for (or b"").

    :param target: in origin form.
    :param host: what Host says.
    :param own: fields that the proxy adds; the client's of these names do not cross.
    """
    upgrade = wants_upgrade(head)
    dropped = set(tokens(head.values(b"connection")))
    reserved = {canonical(name) for name, _ in own}
    lines = [head.method + b" " + target + b" HTTP/1.1", b"Host: " + host]
    for name, value in head.fields:
        low = name.lower()
        if low in HOP_BY_HOP or low in dropped or low in (b"host", b"content-length"):
            continue
        if low == b"expect" and head.minor == 0:
            continue
        if is_forged(name) or canonical(name) in reserved:
            continue
        lines.append(name + b": " + value)
    if head.length == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    elif head.length or head.values(b"content-length"):
        lines.append(b"Content-Length: %d" % head.length)
    lines += [name + b": " + value for name, value in own]
    lines.append(b"Via: " + VIA)
    hops = []
    if upgrade:
        hops.append(b"Upgrade")
        lines.append(b"Upgrade: " + upgrade)
    if b"trailers" in tokens(head.values(b"te")):
        hops.append(b"TE")
        lines.append(b"TE: trailers")
    if hops:
        lines.append(b"Connection: " + b", ".join(hops))
    return b"\r\n".join(lines) + b"\r\n\r\n", upgrade


def client_head(head: ResponseHead, *, chunked: bool, close: bool, upgrade: bool = False) -> bytes:
    """A response as the client gets it.

    :param chunked: whether its body is sent in chunks (whatever framing it came with).
    :param close: whether the connection ends after it.
    :param upgrade: whether it changes the protocol.
    """
    dropped = set(tokens(head.values(b"connection")))
    lines = [b"HTTP/1.1 %d %s" % (head.status, head.reason)]
    for name, value in head.fields:
        low = name.lower()
        upgrades = low == b"upgrade" and (upgrade or head.status == 426)
        if not upgrades and (low in HOP_BY_HOP or low in dropped):
            continue
        if low == b"content-length" and (head.status < 200 or head.status == 204):
            continue
        lines.append(name + b": " + value)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked")
    hops = [b"Upgrade"] if upgrade else [b"close"] if close else []
    if hops:
        lines.append(b"Connection: " + b", ".join(hops))
    return b"\r\n".join(lines) + b"\r\n\r\n"


def trailer_block(trailers: Fields, own: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
    """The last chunk with the trailers that may cross."""
    reserved = {canonical(name) for name, _ in own}
    lines = [b"0"]
    for name, value in trailers:
        low = name.lower()
        if low in HOP_BY_HOP or low in _FRAMING or is_forged(name) or canonical(name) in reserved:
            continue
        lines.append(name + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"
