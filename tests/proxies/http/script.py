"""Drives the proxy's machine in memory: bytes in, bytes out, a service that the test plays."""

from border0.policy.model import Subject
from border0.proxies.http import fields
from border0.proxies.http.session import Session

HOST = b"shop.internal:8080"


class Script:
    """One client connection; `sent` is what the service got, `got` what the client got."""

    def __init__(self, headers=(), subject=None, **more):
        own = [*fields.identity(subject or Subject("alice@example.org"), "100.64.0.2"), *headers]
        self.now = 100.0
        self.session = Session(HOST, own, self.now)
        for name, value in more.items():
            setattr(self.session, name, value)
        self.sent = b""
        self.got = b""
        self.dials = 0
        self.releases = 0
        self.connected = False
        self.records = []

    def settle(self):
        session = self.session
        if session.release:
            session.release, self.connected = False, False
            self.releases += 1
        if session.connect:
            session.connect = False
            self.dials += 1
        self.sent += b"".join(session.to_upstream)
        self.got += b"".join(session.to_client)
        session.to_upstream, session.to_client = [], []
        self.records += session.finished
        session.finished = []

    def client(self, data, piece=0):
        for part in pieces(data, piece):
            self.session.receive(part, self.now)
            self.settle()
        return self

    def connect(self):
        self.connected = True
        self.session.upstream_ready(self.now)
        self.settle()
        return self

    def service(self, data, piece=0):
        for part in pieces(data, piece):
            self.session.upstream_received(part, self.now)
            self.settle()
        return self

    def service_ends(self):
        self.session.upstream_ended(self.now)
        self.settle()
        return self

    def client_ends(self):
        self.session.client_ended(self.now)
        self.settle()
        return self

    def wait(self, seconds):
        self.now += seconds
        self.session.expire(self.now)
        self.settle()
        return self

    def status(self):
        """The status of the first answer that the client got."""
        return int(self.got.split(b" ", 2)[1]) if self.got else 0


def pieces(data, size):
    if not size:
        return [data]
    return [data[at : at + size] for at in range(0, len(data), size)]


def field(head, name):
    """The values of a field in the first head of `head`."""
    lines = head.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    found = [line.partition(b":") for line in lines]
    return [value.strip() for key, _, value in found if key.lower() == name.lower()]
