"""A machine asks the quickstart of another one how it looks from there."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.test_control_machines import printed
from tests.support import children
from tests.support.counterparts import requires
from tests.support.machines import Network


@requires("namespaces")
class Machines(SynchronousTestCase):
    timeout = 180

    def setUp(self) -> None:
        self.network = Network()
        self.addCleanup(self.network.close)
        self.hub, self.west = (self.network.machine() for _ in range(2))
        # Nothing is restarted or moved here: the usual ports, which nobody has in a namespace.
        child = self.hub.start("quickstart", "--listen", self.hub.address, "--no-demo")
        self.hub.wait_for("session ls", child)
        self.servers = [f"{self.hub.address}:{port}" for port in (3478, 3479)]

    def check(self, *words: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.west.said("node", "netcheck", "--json", *words))
        return found

    def test_a_node_is_told_and_asks(self) -> None:
        asked = [word for server in self.servers for word in ("--stun", server)]
        before = self.check(*asked)  # by whoever knows them
        self.seen(before)
        self.west.said(*printed(self.hub.said("device", "invite", "west"), "node"))
        node = self.west.start("node", "start")
        self.west.wait_for("ready:", node)
        contact = self.west.home / "control" / "contact.json"

        def told() -> bool:
            return json.loads(contact.read_bytes()).get("stun") == [":3478", ":3479"]

        children.wait_until(told, 30, "the welcome's servers in contact.json")
        self.seen(self.check())  # the node asks
        children.end(node)
        self.seen(self.check())  # what it kept is asked
        self.assertNotIn("Traceback", self.west.log.read_text() + self.hub.log.read_text())

    def seen(self, found: dict[str, Any]) -> None:
        answers = {each["server"]: each for each in found["servers"]}
        self.assertEqual(set(answers), set(self.servers))
        for each in answers.values():
            self.assertEqual(each["failure"], "", each)
            self.assertEqual(each["seen"].rpartition(":")[0], self.west.address)
        self.assertEqual(found["nat"]["4"]["class"], "open")
