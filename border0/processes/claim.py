"""Who may be this device: one process at a time, and none while another starts.

The key's lock tells it, `client.starting` keeps clients from starting an agent meanwhile. Locks end
with their process, however it ends.
"""

import os
from pathlib import Path

from twisted.logger import Logger

from border0.errors import Border0Error, ConfigError
from border0.node import launch
from border0.node.localapi import NoAgent
from border0.node.lock import FileLock
from border0.node.nodeaddress import question
from border0.processes.client import LOCK_SECONDS
from border0.processes.keyfiles import beside

log = Logger(namespace="border0.node")


class Claim:
    """This process's right to be the device: the key's lock, and nobody else starting meanwhile.

    :raises Border0Error: another process has it and keeps it.
    """

    def __init__(self, home: Path, key_file: Path) -> None:
        owner = home.stat().st_uid
        if hasattr(os, "geteuid") and owner != os.geteuid():
            raise ConfigError(
                f"{home} belongs to user {owner}: a node is run by the user whose device it is; "
                "root's own is joined with: border0 node join URL"
            )
        self.starting = FileLock(home / "client.starting")
        if not self.starting.acquire(2 * launch.START_SECONDS):
            raise Border0Error("another program has been starting the tunnel for too long")
        self.key = FileLock(beside(key_file, ".lock"))
        try:
            self._take(home, key_file)
        except BaseException:
            self.starting.release()
            raise

    def _take(self, home: Path, key_file: Path) -> None:
        try:
            told = question(home, "status")
        except NoAgent:
            pass
        else:
            raise Border0Error(
                f"a node runs already, process {told['pid']}: border0 node stop ends it"
            )
        if (agent := launch.stop(home)) is not None:
            log.info("ended the tunnel of process {agent}: the node takes its place", agent=agent)
        if not self.key.acquire(LOCK_SECONDS):
            raise Border0Error(
                f"{key_file} is in use by process {self.key.holder() or 'unknown'}, "
                "which serves another folder or is ending: end it, or try again"
            )

    def settled(self) -> None:
        """The node serves: clients find it from now on."""
        self.starting.release()

    def give(self) -> None:
        """Let go; again is harmless."""
        self.starting.release()
        self.key.release()
