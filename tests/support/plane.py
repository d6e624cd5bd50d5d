"""A small control plane over loopback TLS in this process: join, push, and one organisation.

Every node sees everything that the organisation signed; `withheld` keys are left out.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from time import monotonic
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Site

from border0.control.member.join import join_message
from border0.control.push.adapters.driver import HubDriver
from border0.control.push.adapters.server import (
    Approach,
    Entry,
    PushFactory,
    Refusal,
    push_resource,
)
from border0.control.push.changelog import ChangeLog
from border0.control.push.messages import Key
from border0.control.push.server import Hub
from border0.statements import Statement
from border0.trust import PrivateCA, server_context
from tests.control.push.worlds import State
from tests.support.organisation import Organisation, identifier

reactor: Any = _reactor
NETWORK = {
    "services_v4": "100.126.0.0/24",
    "services_v6": "fd62:6f72:6465:7231::/64",
    "devices_v4": "100.64.0.0/16",
    "devices_v6": "fd62:6f72:6465:7230::/64",
}


class Answer(Resource):
    """Calls a function with the JSON of a POST."""

    isLeaf = True

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call = call

    def render_POST(self, request: Any) -> bytes:
        status, value = self.call(json.loads(request.content.read()))
        request.setResponseCode(status)
        request.setHeader(b"content-type", b"application/json")
        return json.dumps(value).encode()


class Plane:
    """One organisation's control plane; `await start()` before use, `await stop()` after."""

    def __init__(self, folder: Path, **signers: Any) -> None:
        self.org = Organisation(now=time.time(), **signers)
        self.authority = PrivateCA.create(folder / "ca", time.time())
        self.keys: dict[str, bytes] = {}  # machine keys by node
        self.codes = {"b0i_good": identifier("gate"), "b0t_good": identifier("gate")}
        self.joins: list[dict[str, Any]] = []
        self.posts: dict[str, Any] = {}  # more answers, by path below /api/v1
        self.configurations: dict[str, bytes] = {}
        self.withheld: set[Key] = set()
        self.chain: list[Statement] = [self.org.signers]
        self.answers: list[tuple[str, str, bool, str]] = []
        self.statuses: list[Any] = []
        self.stun: list[str] = []  # what a welcome names
        self.org.revision += 1  # that of the first head
        self.state = State(self.org.revision, self.held())
        self.port: Any = None
        self.number = 0  # of the port, also when it is closed
        self.host = "127.0.0.1"
        self.hosts: list[str] = []  # the Host field of those that followed

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.number}"

    async def start(self, port: int = 0) -> None:
        """Listen; a second start is a server without any memory of its connections."""
        self.hub = Hub(
            lambda node: self.state if node in self.keys else None,
            lambda node: [other for other in self.hub.sessions if other != node],
            ChangeLog(self.state.revision),
            random_bytes=os.urandom,
            stun=self.stun,
        )
        self.hub.answered = lambda *answer: self.answers.append(answer)
        self.driver = HubDriver(self.hub, reactor)
        factory = PushFactory(
            reactor, {self.org.id: self.driver}, self.authenticate, self.verify, os.urandom
        )
        root, api, v1, node = Resource(), Resource(), Resource(), Resource()
        root.putChild(b"api", api)
        api.putChild(b"v1", v1)
        v1.putChild(b"push", push_resource(factory))
        v1.putChild(b"node", node)
        node.putChild(b"join", Answer(self.join))
        for path, call in self.posts.items():
            v1.putChild(path.encode(), call if isinstance(call, Resource) else Answer(call))
        chain, key = self.authority.leaf(["localhost"], ["127.0.0.1", "::1"], time.time())
        endpoint = SSL4ServerEndpoint(
            reactor, port, server_context(chain, key), interface=self.host
        )
        self.port = await endpoint.listen(Site(root))
        self.number = int(self.port.getHost().port)

    async def stop(self) -> None:
        self.driver.stop(0.05)
        await self.port.stopListening()

    def authenticate(self, approach: Approach) -> Entry | Refusal:
        self.hosts.append(approach.headers.get("host", ""))
        known = approach.hello.node in self.keys
        return Entry(self.org.id, approach.hello.node) if known else Refusal("unknown", 0.1)

    def verify(self, node: str, message: bytes, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.keys[node]).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def join(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.joins.append(body)
        node = self.codes.get(body["code"])
        if node is None:
            error = {"code": "forbidden", "message": "this code is not known", "request_id": "r"}
            return 403, {"error": error}
        machine = base64.b64decode(body["machine_key"])
        message = join_message(body["code"], base64.b64decode(body["wireguard_key"]), machine)
        Ed25519PublicKey.from_public_bytes(machine).verify(
            base64.b64decode(body["signature"]), message
        )
        self.keys[node] = machine
        return 201, {
            "org": self.org.id,
            "org_name": "acme",
            "node": node,
            "name": body["name"],
            "role": body["role"],
            "approved": True,
            "network": NETWORK,
            "addresses": [] if body["role"] == "connector" else ["100.64.0.2"],
            "signers": [each.to_json() for each in self.chain],
        }

    def held(self, head: Statement | None = None) -> dict[Key, tuple[str, bytes]]:
        """What nodes get now."""
        head = head or self.org.head()
        statements = {**self.org.live, ("head", self.org.id): head}
        found = {key: (one.hash, one.encode()) for key, one in statements.items()}
        for socket, text in self.configurations.items():
            found["configuration", socket] = (hashlib.sha256(text).hexdigest(), text)
        return {key: entry for key, entry in found.items() if key not in self.withheld}

    def publish(self, *extra: Statement, head: Statement | None = None) -> None:
        """Send what the organisation holds now, with a new head, and `extra` that no head names."""
        self.org.revision = revision = max(self.org.revision, self.state.revision) + 1
        held = self.held(head)
        for one in extra:
            held[one.type, one.body["id"]] = (one.hash, one.encode())
        before = self.state.held
        changed = {key for key in {*held, *before} if held.get(key) != before.get(key)}
        self.state = State(revision, held)
        self.hub.changed(revision, {}, changed, monotonic())

    def socket(self, name: str, configuration: dict[str, Any], **members: Any) -> str:
        """A socket with its configuration, hosted by the connector `gate`; its id."""
        text = json.dumps(configuration).encode()
        id = identifier(name)
        self.configurations[id] = text
        fields = {
            "name": name,
            "addresses": ["100.126.0.1"],
            "port": 5432,
            "socket_type": configuration["socket_type"],
            "connectors": [identifier("gate")],
            "configuration_hash": hashlib.sha256(text).hexdigest(),
        }
        self.org.publish("socket", id, **{**fields, **members})
        return id
