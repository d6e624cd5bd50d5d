"""UPnP: find the gateway's control page and ask it for a port.

Source: UPnP Device Architecture 1.1 §1.3, InternetGatewayDevice:1 WANIPConnection:1 §2.4; the
formats are in igd.py.
Does not: open connections. HTTP requests come out of `take_requests` and their answers go into
`answered`; one is under way at a time.

    search -> description -> outside address -> mapping -> held (renewed at half its life)
"""

from __future__ import annotations

from collections.abc import Callable

from border0.paths.errors import ProtocolError
from border0.paths.portmap import http, igd
from border0.paths.portmap.lease import LIFETIME, Lease, Lost, Mapping

HTTP_TIMEOUT = 5.0
_MAX_CONFLICTS = 4


class Request:
    """An HTTP exchange with the gateway: send `data` to (host, port), give the answer back."""

    __slots__ = ("data", "host", "port")

    def __init__(self, host: str, port: int, data: bytes) -> None:
        self.host = host
        self.port = port
        self.data = data


class Upnp:
    """One mapping, asked for, renewed and given back."""

    name = "upnp"

    def __init__(
        self, gateway: str, client: str, port: int, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._gateway = gateway
        self._client = client
        self._port = port
        self._random = random_bytes
        self._lease = Lease()
        self._step: Callable[[http.Response, float], None] | None = None  # who reads the answer
        self._pending: Request | None = None
        self._page: igd.Url | None = None
        self._services: list[igd.Service] = []
        self._host = ""
        self._outside = port
        self._lifetime = LIFETIME
        self._conflicts = 0
        self._mapping: Mapping | None = None
        self._datagrams: list[tuple[tuple[str, int], bytes]] = []
        self._requests: list[Request] = []
        self._events: list[Mapping | Lost] = []

    def ask(self, now: float) -> None:
        """Ask for the mapping, or renew it at once."""
        self._forget_step()
        self._begin(now)

    def receive(self, datagram: bytes, source: tuple[str, int], now: float) -> bool:
        """Take our gateway's answer to a search; False leaves the datagram to others."""
        if source[0] != self._gateway or self._page is not None or not self._lease.asking:
            return False
        try:
            self._page = igd.parse_found(datagram, self._gateway)
        except ProtocolError:
            return False
        self._describe(now)
        return True

    def answered(self, request: Request, data: http.Response | None, now: float) -> None:
        """Take the answer to a request, None when there was none."""
        if request is not self._pending:
            return
        step, self._step, self._pending = self._step, None, None
        if step is None:
            return
        if data is None and self._mapping is not None and self._services:
            # A gateway that has restarted may serve its page elsewhere.
            self._page, self._services = None, []
            self._lease.settled()
            self._search(now)
            return
        if data is None:
            self._lose("the gateway's control page does not answer", final=False)
            return
        try:
            step(data, now)
        except ProtocolError as error:
            self._lose(str(error), final=True)

    def release(self) -> None:
        """Give the mapping back; nobody waits for the answer."""
        if self._mapping is not None and self._services:
            service = self._services[0]
            data = igd.delete_mapping(service, self._gateway, self._mapping.port)
            self._requests.append(Request(self._gateway, service.control.port, data))
        self._mapping = None
        self._forget_step()
        self._lease.clear()

    def next_deadline(self) -> float | None:
        """Return when `expire` has work to do."""
        return self._lease.next_deadline()

    def expire(self, now: float) -> None:
        """Search again, renew, or tell that the mapping is gone."""
        due = self._lease.due(now)
        if due == Lease.ASK:
            if self._lease.asking:
                self._search(now)
            else:
                self._begin(now)
        elif due == Lease.ENDED:
            self._lose("not renewed", final=False)
        elif due == Lease.FAILED:
            self._lose("no answer", final=False)

    def take_datagrams(self) -> list[tuple[tuple[str, int], bytes]]:
        """Return (to, datagram) to send; the group's address needs a TTL of 2."""
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def take_requests(self) -> list[Request]:
        """Return HTTP requests to send."""
        requests, self._requests = self._requests, []
        return requests

    def take_events(self) -> list[Mapping | Lost]:
        """Return a Mapping when it is new or has another address, Lost when there is none."""
        events, self._events = self._events, []
        return events

    # Steps

    def _begin(self, now: float) -> None:
        self._lease.settled()
        self._conflicts = 0
        if self._mapping is not None and self._services:
            self._address(now)
        else:
            self._page = None
            self._services = []
            self._search(now)

    def _search(self, now: float) -> None:
        for device in igd.DEVICES:
            for host in (igd.SSDP_GROUP, self._gateway):
                self._datagrams.append(((host, igd.SSDP_PORT), igd.search(device, host)))
        self._lease.asked(now)

    def _describe(self, now: float) -> None:
        assert self._page is not None
        fields: dict[str, str] = {}
        data = http.request("GET", self._gateway, self._page.port, self._page.path, fields)
        self._send(self._page.port, data, self._described, now)

    def _described(self, response: http.Response, now: float) -> None:
        assert self._page is not None
        if response.status != 200:
            raise ProtocolError("the gateway does not describe itself")
        self._services = igd.parse_description(response.body, self._page, self._gateway)
        self._address(now)

    def _address(self, now: float) -> None:
        service = self._services[0]
        data = igd.outside_address(service, self._gateway)
        self._send(service.control.port, data, self._addressed, now)

    def _addressed(self, response: http.Response, now: float) -> None:
        try:
            self._host = igd.parse_address(response)
        except ProtocolError:
            # A gateway with several lines offers several services; the one that is up has one.
            if len(self._services) < 2:
                raise
            del self._services[0]
            self._address(now)
            return
        self._map(now)

    def _map(self, now: float) -> None:
        service = self._services[0]
        data = igd.add_mapping(
            service, self._gateway, self._outside, self._client, self._port, self._lifetime
        )
        self._send(service.control.port, data, self._mapped, now)

    def _mapped(self, response: http.Response, now: float) -> None:
        fault = igd.parse_fault(response)
        if fault == igd.PERMANENT_ONLY and self._lifetime:
            self._lifetime = 0
            self._map(now)
        elif fault == igd.CONFLICT and self._conflicts < _MAX_CONFLICTS:
            self._conflicts += 1
            self._outside = 1024 + int.from_bytes(self._random(2), "big") % (65_536 - 1024)
            self._map(now)
        elif fault:
            raise ProtocolError(f"the gateway refuses with {fault}")
        else:
            self._hold(now)

    def _hold(self, now: float) -> None:
        mapping = Mapping(self.name, self._host, self._outside, self._port, self._lifetime, now)
        self._lease.granted(self._lifetime, now)
        if not mapping.same(self._mapping):
            self._events.append(mapping)
        self._mapping = mapping

    def _send(
        self,
        port: int,
        data: bytes,
        step: Callable[[http.Response, float], None],
        now: float,
    ) -> None:
        self._pending = Request(self._gateway, port, data)
        self._step = step
        self._requests.append(self._pending)
        self._lease.wait(now, HTTP_TIMEOUT)

    def _forget_step(self) -> None:
        self._step = None
        self._pending = None

    def _lose(self, reason: str, *, final: bool) -> None:
        self._mapping = None
        self._forget_step()
        self._lease.clear()
        self._events.append(Lost(reason, final=final))
