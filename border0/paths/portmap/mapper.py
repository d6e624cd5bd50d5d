"""One outside port by whichever protocol the gateway speaks: PCP, NAT-PMP, then UPnP.

Source: RFC 6887 §9 (a gateway of the older protocol refuses the version); the order and the
250 ms between are ours: the newest first, none waits for another's silence to end.
Does not: open sockets (adapters/portmap.py does), or judge whether the address is public.
"""

from __future__ import annotations

from collections.abc import Callable

from border0.paths.portmap import http
from border0.paths.portmap.lease import Lost, Mapping
from border0.paths.portmap.natpmp import NatPmp
from border0.paths.portmap.pcp import Pcp
from border0.paths.portmap.upnp import Request, Upnp

NEXT_AFTER = 0.25
# A gateway that offers nothing today is asked again; one that refused for good, less often.
AGAIN = 600.0
AGAIN_FINAL = 3600.0

Machine = Pcp | NatPmp | Upnp


class Mapper:
    """Asks the three machines; the first that is given a port keeps it, the others stop.

    `gateway` is the IPv4 router, `client` our address towards it, `port` our UDP port.
    `mapping` is what is held now, `failure` why nothing is ("" while unknown).
    """

    def __init__(
        self, gateway: str, client: str, port: int, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.mapping: Mapping | None = None
        self.failure = ""
        self._make: tuple[Callable[[], Machine], ...] = (
            lambda: Pcp(gateway, client, port, random_bytes),
            lambda: NatPmp(gateway, port),
            lambda: Upnp(gateway, client, port, random_bytes),
        )
        self._machines: list[Machine] = []
        self._reasons: dict[str, Lost] = {}
        self._started = 0
        self._next: float | None = None  # when another machine begins, or all begin again
        self._datagrams: list[tuple[tuple[str, int], bytes]] = []
        self._requests: list[Request] = []
        self._events: list[Mapping | Lost] = []

    def ask(self, now: float) -> None:
        """Begin, or renew at once what is held (the network changed, the gateway restarted)."""
        if self.mapping is not None:
            self._machines[0].ask(now)
        else:
            self._begin(now)
        self._collect(now)

    def receive(self, datagram: bytes, source: tuple[str, int], now: float) -> bool:
        """Take a datagram of the gateway; False when no machine knew it."""
        taken = any(machine.receive(datagram, source, now) for machine in list(self._machines))
        self._collect(now)
        return taken

    def answered(self, request: Request, response: http.Response | None, now: float) -> None:
        """Take the answer to a request of `take_requests`, None when there was none."""
        for machine in self._machines:
            if isinstance(machine, Upnp):
                machine.answered(request, response, now)
        self._collect(now)

    def release(self) -> None:
        """Give back what is held and stop; `take_datagrams` and `take_requests` say how."""
        self._release_all()
        self._next = None
        self.mapping = None
        self.failure = "stopped"

    def next_deadline(self) -> float | None:
        """Return when `expire` has work to do."""
        times = [machine.next_deadline() for machine in self._machines]
        times.append(self._next)
        return min((time for time in times if time is not None), default=None)

    def expire(self, now: float) -> None:
        """Let the next machine begin, ask again, renew."""
        for machine in list(self._machines):
            deadline = machine.next_deadline()
            if deadline is not None and now >= deadline:
                machine.expire(now)
        self._collect(now)
        if self._next is not None and now >= self._next:
            if self._started < len(self._make):
                self._start_one(now)
            else:
                self._begin(now)
            self._collect(now)

    def take_datagrams(self) -> list[tuple[tuple[str, int], bytes]]:
        """Return (to, datagram) to send from a socket of our address towards the gateway."""
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def take_requests(self) -> list[Request]:
        """Return HTTP requests to send to the gateway."""
        requests, self._requests = self._requests, []
        return requests

    def take_events(self) -> list[Mapping | Lost]:
        """Return a Mapping for each new outside address, Lost when there is none any more."""
        events, self._events = self._events, []
        return events

    def _begin(self, now: float) -> None:
        self._release_all()
        self._reasons = {}
        self._started = 0
        self._start_one(now)

    def _release_all(self) -> None:
        for machine in self._machines:
            machine.release()
            self._drain(machine)
        self._machines = []

    def _start_one(self, now: float) -> None:
        machine = self._make[self._started]()
        self._started += 1
        self._machines.append(machine)
        self._next = now + NEXT_AFTER if self._started < len(self._make) else None
        machine.ask(now)

    def _collect(self, now: float) -> None:
        for machine in list(self._machines):
            for event in machine.take_events():
                if machine not in self._machines:
                    break
                if isinstance(event, Mapping):
                    self._won(machine, event)
                else:
                    self._lost(machine, event, now)
        for machine in self._machines:
            self._drain(machine)

    def _drain(self, machine: Machine) -> None:
        self._datagrams += machine.take_datagrams()
        if isinstance(machine, Upnp):
            self._requests += machine.take_requests()

    def _won(self, winner: Machine, mapping: Mapping) -> None:
        for machine in self._machines:
            if machine is not winner:
                machine.release()
                self._drain(machine)
        self._machines = [winner]
        self._next = None
        self._started = len(self._make)
        self.mapping = mapping
        self.failure = ""
        self._events.append(mapping)

    def _lost(self, machine: Machine, lost: Lost, now: float) -> None:
        self._machines.remove(machine)
        self._reasons[machine.name] = lost
        if self.mapping is not None:
            self.mapping = None
            self._events.append(lost)
            self._begin(now)
            return
        if self._started < len(self._make):
            self._start_one(now)
        elif not self._machines:
            final = all(lost.final for lost in self._reasons.values())
            self._next = now + (AGAIN_FINAL if final else AGAIN)
            self.failure = "; ".join(
                f"{name}: {lost.reason}" for name, lost in self._reasons.items()
            )
            self._events.append(Lost(self.failure, final=final))
