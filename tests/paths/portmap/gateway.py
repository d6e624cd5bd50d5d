"""A gateway in memory: answers PCP, NAT-PMP and UPnP as it is told to, and remembers mappings."""

import ipaddress
import re
import struct

from border0.paths.portmap.http import Response

ADDRESS = "192.168.1.1"
CLIENT = "192.168.1.2"
OUTSIDE = "198.18.0.11"

DESCRIPTION = """<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><URLBase>{base}</URLBase><device>
<deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>
<controlURL>/wrong</controlURL></service></serviceList>
<deviceList><device><deviceList><device><serviceList>{services}</serviceList></device></deviceList>
</device></deviceList></device></root>"""
SERVICE = """<service><serviceType>urn:schemas-upnp-org:service:{kind}</serviceType>
<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><controlURL>{url}</controlURL>
<eventSubURL>/evt</eventSubURL><SCPDURL>/WANIPCn.xml</SCPDURL></service>"""


def description(*services: tuple[str, str], base: str = "") -> bytes:
    """A description with services of (type after the last colon group, control URL)."""
    listed = "".join(SERVICE.format(kind=kind, url=url) for kind, url in services)
    return DESCRIPTION.format(base=base, services=listed).encode()


def fault(code: int) -> Response:
    """The answer that refuses an action."""
    body = (
        "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Body><s:Fault>"
        f"<detail><UPnPError xmlns='x'><errorCode>{code}</errorCode></UPnPError></detail>"
        "</s:Fault></s:Body></s:Envelope>"
    )
    return Response(500, {}, body.encode())


class Gateway:
    """What it speaks is in `speaks`; `mappings` is {outside port: (client, inside port)}."""

    def __init__(self, *speaks: str) -> None:
        self.speaks = set(speaks)
        self.mappings: dict[int, tuple[str, int]] = {}
        self.taken: set[int] = set()  # outside ports of others
        self.outside = OUTSIDE
        self.lifetime = 7200
        self.permanent_only = False
        self.location = f"http://{ADDRESS}:5000/rootDesc.xml"
        self.document = description(("WANIPConnection:1", "/ctl/IPConn"))
        self.actions: list[str] = []
        self.result = 0

    def udp(self, to: tuple[str, int], datagram: bytes) -> list[tuple[bytes, tuple[str, int]]]:
        """The answers to a datagram, with their source."""
        if to[1] == 1900:
            return self.search(to[0], datagram)
        if to != (ADDRESS, 5351):
            return []
        if datagram[0] == 2:
            answer = self.pcp(datagram) if "pcp" in self.speaks else self.other_version()
        else:
            answer = self.natpmp(datagram) if "nat-pmp" in self.speaks else b""
        return [(answer, to)] if answer else []

    def other_version(self) -> bytes:
        """What a gateway with NAT-PMP only says to PCP."""
        return struct.pack("!BBHI", 0, 128 + 1, 1, 5) if "nat-pmp" in self.speaks else b""

    def assign(self, client: str, inside: int, wanted: int) -> int:
        port = wanted or inside
        while port in self.taken or self.mappings.get(port, (client, inside)) != (client, inside):
            port += 1
        self.mappings[port] = (client, inside)
        return port

    def drop(self, client: str, inside: int) -> None:
        self.mappings = {k: v for k, v in self.mappings.items() if v != (client, inside)}

    def pcp(self, datagram: bytes) -> bytes:
        lifetime = int.from_bytes(datagram[4:8], "big")
        client = str(ipaddress.IPv6Address(datagram[8:24]).ipv4_mapped)
        inside, wanted = struct.unpack("!HH", datagram[40:44])
        port = 0
        if self.result == 0:
            self.drop(client, inside)
            if lifetime:
                port = self.assign(client, inside, wanted)
        head = struct.pack(
            "!BBBBII12x", 2, 0x81, 0, self.result, self.lifetime if lifetime else 0, 5
        )
        outside = b"\0" * 10 + b"\xff\xff" + ipaddress.ip_address(self.outside).packed
        return head + datagram[24:42] + struct.pack("!H", port) + outside

    def natpmp(self, datagram: bytes) -> bytes:
        if datagram[1] == 0:
            packed = ipaddress.ip_address(self.outside).packed
            return struct.pack("!BBHI4s", 0, 128, self.result, 5, packed)
        _, _, _, inside, wanted, lifetime = struct.unpack("!BBHHHI", datagram)
        self.drop(CLIENT, inside)
        port = self.assign(CLIENT, inside, wanted) if lifetime else 0
        life = self.lifetime if lifetime else 0
        return struct.pack("!BBHIHHI", 0, 129, self.result, 5, inside, port, life)

    def search(self, host: str, datagram: bytes) -> list[tuple[bytes, tuple[str, int]]]:
        found = re.search(rb"\nST: (\S+)", datagram)
        if "upnp" not in self.speaks or host not in (ADDRESS, "239.255.255.250") or not found:
            return []
        if not found[1].endswith(b":1"):
            return []
        answer = (
            "HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\n"
            f"ST: {found[1].decode()}\r\nLOCATION: {self.location}\r\n\r\n"
        )
        return [(answer.encode(), (ADDRESS, 1900))]

    def http(self, data: bytes) -> Response:
        """The answer to a request."""
        head, _, body = data.decode().partition("\r\n\r\n")
        if head.startswith("GET /rootDesc.xml "):
            return Response(200, {}, self.document)
        name = re.search(r'SOAPAction: "[^"]*#(\w+)"', head)
        if name is None:
            return Response(404, {}, b"")
        self.actions.append(name[1])
        arguments = dict(re.findall(r"<(New\w+)>([^<]*)</", body))
        port = int(arguments.get("NewExternalPort", 0))
        if name[1] == "GetExternalIPAddress":
            text = f"<a><NewExternalIPAddress>{self.outside}</NewExternalIPAddress></a>"
            return Response(200, {}, text.encode())
        if name[1] == "DeletePortMapping":
            self.mappings.pop(port, None)
            return Response(200, {}, b"<a/>")
        if self.permanent_only and arguments["NewLeaseDuration"] != "0":
            return fault(725)
        if port in self.taken:
            return fault(718)
        self.mappings[port] = (arguments["NewInternalClient"], int(arguments["NewInternalPort"]))
        return Response(200, {}, b"<a/>")
