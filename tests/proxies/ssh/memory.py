"""The front of the proxy and a scripted peer in memory, without keys: messages in, messages out."""

import os
import tempfile
from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from border0.audit.events import LOCAL_ORGANISATION, Actor
from border0.audit.sessionlog import SessionLog
from border0.policy.model import Subject
from border0.policy.parse import parse_policy
from border0.proxies.admission import Admission
from border0.proxies.ssh import wire
from border0.proxies.ssh.adapters.connection import Connection
from border0.proxies.ssh.adapters.factory import SshFactory
from border0.proxies.ssh.adapters.front import FrontWire
from border0.proxies.ssh.adapters.hostkeys import HostKeys, KnownHosts
from border0.proxies.ssh.adapters.relay import Session
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.upstream import SSHUpstream
from border0.proxies.ssh.wire import string, uint32

_keys = []


def host_keys():
    """Keys for the whole run."""
    if not _keys:
        folder = tempfile.TemporaryDirectory(prefix="border0-hostkeys-")
        _keys.append((HostKeys(Path(folder.name)), folder))
    return _keys[0][0]


class FakeTransport:
    """What a leg writes; nothing is ever full."""

    def __init__(self, host="100.64.0.2"):
        self.host = host
        self.data = b""
        self.lost = self.aborted = False
        self.producer = None

    def write(self, data):
        self.data += data

    def loseConnection(self):
        self.lost = True

    def abortConnection(self):
        self.aborted = True

    def registerProducer(self, producer, streaming):
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def setTcpNoDelay(self, on):
        pass

    def setTcpKeepAlive(self, on):
        pass

    def getPeer(self):
        return IPv4Address("TCP", self.host, 40000)


class FakeLeg:
    """An SSH transport whose packets are kept as (number, payload)."""

    def __init__(self):
        self.full = self.gone = False
        self.sent = []
        self.transport = FakeTransport()
        self.service = None

    def sendPacket(self, kind, payload):
        self.sent.append((kind, payload))

    def sendUnimplemented(self):
        self.sent.append((wire.UNIMPLEMENTED, b""))

    def take(self):
        """What was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent


class FakeFront(FakeLeg):
    """The client's leg as the session sees it."""

    peer = ("100.64.0.2", 40000)
    otherVersionString = b"SSH-2.0-test"

    def __init__(self):
        super().__init__()
        self.reason = None

    def welcome(self, session):
        self.session = session

    def fail(self, code, text):
        self.reason = text

    def close(self):
        self.gone = True


def make_factory(permissions=None, **options):
    """A factory with a clock of its own; `factory.lines` collects what is recorded."""
    policies = [parse_policy("eng", {"permissions": {"ssh": permissions or {}}})]
    lines = []

    def admit(remote, protocol):
        log = SessionLog(
            org=LOCAL_ORGANISATION,
            actor=Actor("alice", "laptop", remote[0]),
            socket="box",
            recorded=True,
            now=lambda: 1.0,
            random=bytes(20),
            wake=lambda log: lines.extend(log.take()[0]),
        )
        return Admission(Subject("alice"), "laptop", policies, log, "box")

    factory = SshFactory(
        SSHUpstream("upstream", username="app"),
        admit,
        Clock(),
        host_keys(),
        KnownHosts(Path("/nonexistent/known_hosts.json")),
        dial=lambda *arguments: FakeDialling(),
        **options,
    )
    factory.lines = lines
    return factory


class FakeDialling:
    def disconnect(self):
        pass


class Pair:
    """A session with both connections made; `client` and `upstream` speak raw messages."""

    def __init__(self, permissions=None):
        self.factory = make_factory(permissions)
        self.front = FakeFront()
        self.session = Session(self.front, self.factory, "alice")
        self.session.begin()
        self.near_leg, self.far_leg = self.front, FakeLeg()
        self.near, self.far = (
            Connection(self.session.near_handler),
            Connection(self.session.far_handler),
        )
        self.near.transport, self.far.transport = self.near_leg, self.far_leg
        self.far.serviceStarted()
        self.near.serviceStarted()

    def client(self, kind, payload=b""):
        """A message of the client."""
        self.near.packetReceived(kind, bytes([kind]) + payload)

    def upstream(self, kind, payload=b""):
        """A message of the upstream."""
        self.far.packetReceived(kind, bytes([kind]) + payload)

    def open(self, window=1 << 20, packet=32768):
        """A session channel: 0 on each side of the proxy, 7 at the client, 9 at the upstream."""
        fields = string(b"session") + uint32(7) + uint32(window) + uint32(packet)
        self.client(wire.CHANNEL_OPEN, fields)
        confirmation = uint32(0) + uint32(9) + uint32(window) + uint32(packet)
        self.upstream(wire.CHANNEL_OPEN_CONFIRMATION, confirmation)
        self.near_leg.take()
        self.far_leg.take()

    def exec(self, command=b"id"):
        """Run a command on the channel."""
        fields = uint32(0) + string(b"exec") + b"\1" + string(command)
        self.client(wire.CHANNEL_REQUEST, fields)


def dial(factory, host="100.64.0.2"):
    """A connection of a client that has said nothing yet."""
    front = FrontWire(factory)
    front.factory = factory
    front.makeConnection(FakeTransport(host))
    return front


__all__ = ["FakeLeg", "FakeTransport", "Pair", "ProtocolError", "dial", "make_factory", "os"]
