"""The real factories on loopback, with a door that admits everyone or nobody."""

import json
import os
import socket
import time

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from border0.audit.events import LOCAL_ORGANISATION, Actor
from border0.audit.sessionlog import SessionLog
from border0.policy.model import Subject
from border0.proxies.adapters import writethrough
from border0.proxies.admission import Admission, Refusal
from border0.proxies.http.adapter import FileServerFactory, HttpFactory
from border0.proxies.http.upstream import FileServer, HttpUpstream

BOUND = 512 * 1024


async def until(condition, seconds=20.0):
    """Come back when the condition holds."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("the condition never held")


class Door:
    """Admits everyone, or nobody, and keeps what the sessions wrote."""

    def __init__(self):
        self.refuse = self.broken = False
        self.seconds = None
        self.logs = []
        self.asked = []
        self.ended = 0
        self.last = None

    def __call__(self, remote, protocol):
        self.asked.append((remote, protocol))
        if self.broken:
            raise RuntimeError("the policy broke")
        if self.refuse:
            return Refusal("eng", "condition.who.group", 'policy "eng" does not apply')
        log = SessionLog(
            org=LOCAL_ORGANISATION,
            actor=Actor("alice@example.org", "laptop", remote[0]),
            socket="web",
            recorded=True,
            now=time.time,
            random=os.urandom(20),
            wake=lambda log: None,
        )
        self.logs.append(log)
        self.last = Admission(
            subject=Subject("alice@example.org", frozenset()),
            device="laptop",
            policies=(),
            log=log,
            socket="web",
            session_seconds=self.seconds,
            ended=self.count,
        )
        return self.last

    def count(self):
        self.ended += 1

    def lines(self):
        """Everything recorded since the last call."""
        return [json.loads(line) for log in self.logs for line in log.take()[0]]


class Case(TestCase):
    """A proxy or a file server; `self.port` is where it listens."""

    timeout = 60

    def setUp(self):
        self.door = Door()

    def listen(self, factory):
        listening = writethrough.listen(reactor, 0, factory, interface="127.0.0.1")
        self.port = listening.getHost().port
        self.addCleanup(listening.stopListening)
        self.addCleanup(lambda: ensureDeferred(until(lambda: not factory.sessions)))
        self.addCleanup(factory.stop)
        return factory

    def proxy(self, port, **more):
        keys = ("connect_seconds", "dial")
        options = {key: more.pop(key) for key in keys if key in more}
        upstream = HttpUpstream(more.pop("host", "127.0.0.1"), port, **more)
        return self.listen(HttpFactory(upstream, self.door, reactor, **options))

    def serve(self, folder):
        return self.listen(FileServerFactory(FileServer(str(folder)), self.door, reactor))

    def connect(self, receive_buffer=0):
        client = socket.socket()
        self.addCleanup(client.close)
        client.settimeout(30)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self.port))
        return client

    def upstream(self):
        server = socket.create_server(("127.0.0.1", 0))
        server.settimeout(30)
        self.addCleanup(server.close)
        return server


def read_until(sock, end):
    """Read up to and including `end`."""
    data = b""
    while end not in data:
        part = sock.recv(65536)
        if not part:
            break
        data += part
    return data


def read_all(sock):
    """Read until the other side ends."""
    parts = []
    while part := sock.recv(1 << 18):
        parts.append(part)
    return b"".join(parts)
