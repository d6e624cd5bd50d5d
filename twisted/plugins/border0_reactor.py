"""Makes `twistd --reactor border0` known: epoll with a short way to relays (Linux)."""

from twisted.application.reactors import Reactor

border0_reactor = Reactor(
    "border0",
    "border0.processes.lean",
    "epoll with a short way from the poll to a relay; what `border0 connector start` uses on Linux",
)
