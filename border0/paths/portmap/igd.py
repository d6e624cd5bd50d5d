"""What a UPnP gateway says and is told: search, description, and the three actions we need.

Source: UPnP Device Architecture 1.1 §1.3 (search), §2.3 (description), §3.2 (control);
InternetGatewayDevice:1 WANIPConnection:1 §2.4 (GetExternalIPAddress, AddPortMapping,
DeletePortMapping and their error codes).
Does not: send anything; upnp.py is the machine. Trusts nothing: an answer may name only the
gateway itself, XML has no document type, and everything has a size.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urljoin, urlsplit
from xml.parsers import expat
from xml.sax.saxutils import escape

from border0.paths.errors import ProtocolError
from border0.paths.portmap import http

SSDP_GROUP = "239.255.255.250"
SSDP_PORT = 1900

DEVICES = (
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
)
# The better first: version 2 also takes leases where version 1 may insist on permanent ones.
SERVICES = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)

CONFLICT = 718
SAME_PORTS_ONLY = 724
PERMANENT_ONLY = 725

_MAX_PATH = 512
_MAX_DEPTH = 32
_MAX_SERVICES = 4
_MAX_TEXT = 1024


class Url:
    """A place on the gateway: `port` and `path` (with query)."""

    __slots__ = ("path", "port")

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self.path = path

    def __repr__(self) -> str:
        return f"Url({self.port}, {self.path!r})"


class Service:
    """A connection service: its type and where it is controlled."""

    __slots__ = ("control", "kind")

    def __init__(self, kind: str, control: Url) -> None:
        self.kind = kind
        self.control = control


def search(device: str, host: str = SSDP_GROUP) -> bytes:
    """Return an M-SEARCH for a device type, to the group or to one host."""
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {host}:{SSDP_PORT}",
        'MAN: "ssdp:discover"',
        "MX: 1",
        f"ST: {device}",
        "",
        "",
    )
    return "\r\n".join(lines).encode("ascii")


def parse_found(datagram: bytes, gateway: str) -> Url:
    """Return where the description is; ProtocolError for anything but our gateway's answer."""
    head, blank, _ = datagram.partition(b"\r\n\r\n")
    if len(datagram) > 2048 or not blank:
        raise ProtocolError("no answer to a search")
    status, fields = http.parse_head(head)
    if status != 200 or fields.get("st") not in DEVICES:
        raise ProtocolError("no gateway")
    return _url(fields.get("location", ""), gateway)


def parse_description(document: bytes, base: Url, gateway: str) -> list[Service]:
    """Return the connection services, best first; ProtocolError when there is none."""
    reader = _Reader({"serviceType", "controlURL", "URLBase"}, "service")
    elements = reader.read(document)
    start = f"http://{gateway}:{base.port}{base.path}"
    for group in elements:
        if group.get("URLBase"):
            start = group["URLBase"]
    services: list[Service] = []
    for group in elements:
        kind = group.get("serviceType", "")
        if kind not in SERVICES or len(services) == _MAX_SERVICES:
            continue
        try:
            place = urljoin(start, group.get("controlURL", ""))
        except ValueError:
            continue
        try:
            services.append(Service(kind, _url(place, gateway)))
        except ProtocolError:
            continue
    if not services:
        raise ProtocolError("the gateway offers no connection to control")
    return sorted(services, key=lambda service: SERVICES.index(service.kind))


def action(service: Service, gateway: str, name: str, arguments: dict[str, str]) -> bytes:
    """Return the HTTP request of one action."""
    inner = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in arguments.items())
    body = (
        '<?xml version="1.0"?>\r\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">'
        f'<s:Body><u:{name} xmlns:u="{service.kind}">{inner}</u:{name}></s:Body></s:Envelope>\r\n'
    ).encode()
    fields = {
        "Content-Type": 'text/xml; charset="utf-8"',
        "SOAPAction": f'"{service.kind}#{name}"',
    }
    control = service.control
    return http.request("POST", gateway, control.port, control.path, fields, body)


def outside_address(service: Service, gateway: str) -> bytes:
    """Return the request GetExternalIPAddress."""
    return action(service, gateway, "GetExternalIPAddress", {})


def add_mapping(
    service: Service, gateway: str, outside: int, client: str, inside: int, lifetime: int
) -> bytes:
    """Return the request AddPortMapping for UDP; lifetime 0 is a permanent one."""
    arguments = {
        "NewRemoteHost": "",
        "NewExternalPort": str(outside),
        "NewProtocol": "UDP",
        "NewInternalPort": str(inside),
        "NewInternalClient": client,
        "NewEnabled": "1",
        "NewPortMappingDescription": "border0",
        "NewLeaseDuration": str(lifetime),
    }
    return action(service, gateway, "AddPortMapping", arguments)


def delete_mapping(service: Service, gateway: str, outside: int) -> bytes:
    """Return the request DeletePortMapping for UDP."""
    arguments = {"NewRemoteHost": "", "NewExternalPort": str(outside), "NewProtocol": "UDP"}
    return action(service, gateway, "DeletePortMapping", arguments)


def parse_address(response: http.Response) -> str:
    """Return the outside address; ProtocolError when there is none (the line is down)."""
    if response.status != 200:
        raise ProtocolError("the gateway knows no address")
    text = _single(response.body, "NewExternalIPAddress")
    try:
        address = ipaddress.IPv4Address(text.strip())
    except ValueError:
        raise ProtocolError("no address") from None
    if address.is_unspecified or address.is_multicast:
        raise ProtocolError("no outside address")
    return str(address)


def parse_fault(response: http.Response) -> int:
    """Return the error code of an action, 0 when it was done; ProtocolError without a code."""
    if response.status == 200:
        return 0
    text = _single(response.body, "errorCode").strip()
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 4):
        raise ProtocolError("an error without a code")
    return int(text)


def _single(document: bytes, name: str) -> str:
    for group in _Reader({name}, "").read(document):
        if name in group:
            return group[name]
    raise ProtocolError(f"no {name}")


def _url(text: str, gateway: str) -> Url:
    try:
        parts = urlsplit(text)
        port = parts.port or 80
    except ValueError:
        raise ProtocolError("not a URL") from None
    path = (parts.path or "/") + ("?" + parts.query if parts.query else "")
    visible = all("!" <= char <= "~" for char in path)
    if parts.scheme != "http" or parts.hostname != gateway or parts.username is not None:
        raise ProtocolError("a URL that is not the gateway's")
    if not path.startswith("/") or len(path) > _MAX_PATH or not visible:
        raise ProtocolError("not a path")
    return Url(port, path)


class _Reader:
    """Collects the texts of some elements, grouped by the element `group` (or all in one)."""

    def __init__(self, wanted: set[str], group: str) -> None:
        self._wanted = wanted
        self._group = group
        self._depth = 0
        self._name = ""
        self._text: list[str] = []
        self._size = 0
        self._current: dict[str, str] = {}
        self._groups: list[dict[str, str]] = [self._current]

    def read(self, document: bytes) -> list[dict[str, str]]:
        """Return the groups; ProtocolError for what is no XML or more than it needs to be."""
        if len(document) > http.LARGEST:
            raise ProtocolError("the document is too long")
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._data
        try:
            parser.Parse(document, True)
        except expat.ExpatError as error:
            raise ProtocolError("not XML") from error
        except (LookupError, ValueError) as error:  # encodings that Python has not, or refuses
            raise ProtocolError("not XML that can be read") from error
        return self._groups

    def _doctype(self, *_: object) -> None:
        raise ProtocolError("a document type")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ProtocolError("elements too deep")
        self._name = name.rpartition(":")[2]
        self._text, self._size = [], 0
        if self._name == self._group:
            self._current = {}
            self._groups.append(self._current)

    def _end(self, name: str) -> None:
        self._depth -= 1
        plain = name.rpartition(":")[2]
        if plain == self._name and plain in self._wanted:
            self._current.setdefault(plain, "".join(self._text).strip())
        self._name = ""
        if plain == self._group:
            self._current = self._groups[0]

    def _data(self, data: str) -> None:
        if self._name in self._wanted:
            self._size += len(data)
            if self._size > _MAX_TEXT:
                raise ProtocolError("a text too long")
            self._text.append(data)
