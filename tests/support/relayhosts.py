"""Real relay processes in a network, made known to the organisation that works there."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess

from tests.support import children
from tests.support.connector import TWISTD
from tests.support.machines import Machine
from tests.support.namespaces import Namespace
from tests.support.sites import Sites


class RelayHost:
    """`twistd border0-relay` on one machine; `name` in the map."""

    def __init__(self, sites: Sites, name: str, place: Namespace, address: str) -> None:
        self.sites, self.name, self.address = sites, name, address
        self.machine = Machine(place, address)
        self.file = self.machine.folder / "relay.toml"
        self.keys = self.machine.folder / "ticket-keys.json"
        sites.hub.said("relay", "ticket-keys", "--out", str(self.keys))
        self.file.write_text(
            f'[relay]\nnames = [{json.dumps(address)}]\nstate_dir = "state"\n'
            f'listen = [{json.dumps(address + ":443")}]\nticket_keys = "ticket-keys.json"\n'
            "drain_seconds = 1\n[stun]\nlisten = []\n"
        )
        self.child: subprocess.Popen[bytes]
        self.start()
        line = next(line for line in self.log().splitlines() if "ready: border0 relay" in line)
        words = shlex.split(line[line.index("border0 relay") :])[1:]
        sites.hub.said(*[name if word == "NAME" else word for word in words])

    def start(self) -> None:
        """Start it, and wait until it serves."""
        self.machine.log.unlink(missing_ok=True)
        with open(self.machine.log, "ab") as out:
            command = [TWISTD, "-n", "--pidfile=", "border0-relay", "--config", str(self.file)]
            self.child = self.machine.spawn(command, stdout=out, stderr=out)
        self.machine.wait_for("ready:", self.child)

    def log(self) -> str:
        """What it said since its last start."""
        return self.machine.log.read_text(errors="replace")

    def kill(self) -> None:
        """End it without a word."""
        children.end(self.child, signal.SIGKILL)

    def stop(self) -> None:
        """End it as an administrator does."""
        children.end(self.child, signal.SIGTERM)

    def close(self) -> None:
        """Take it out of the map and remove everything."""
        self.sites.hub.run("relay", "rm", self.name)
        self.kill()
        self.machine.close()
