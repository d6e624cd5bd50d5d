"""The real database fails under a running control plane, or its process is killed: nothing is
empty, nothing is let in, and it goes on by itself."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from unittest import SkipTest

from twisted.internet.threads import deferToThread

from tests.control.planes import PlaneCase
from tests.control.store.case import needs_postgresql
from tests.support import children
from tests.support.postgres import PostgresServer

DURABLE = {"synchronous_commit": "on", "full_page_writes": "on"}


def emails(*found):
    return {"permissions": {"database": {}}, "condition": {"who": {"email": list(found)}}}


class StorageCase(PlaneCase):
    timeout = 180

    async def begin(self):
        await super().begin()
        self.lab = await self.node("connector", "lab", number=1)
        self.laptop = await self.node("device", "laptop", self.owner, number=2)
        self.socket, self.policy = await self.service(self.lab, ["owner@example.org"])
        await self.waiter.until(lambda: self.told("owner@example.org"))

    def told(self, email):
        """Whether the connector has a policy for this address in force."""
        attached = self.lab.ledger.policies(self.socket, time.time())
        texts = [one.body["text"] for one in attached.policies]
        return not attached.missing and any(email in text for text in texts)

    def edit(self, email):
        return self.ask("PUT", f"/policy/{self.policy}", {"policy_data": emails(email)})

    async def fails(self, email):
        """A change that cannot be stored, and what is said and believed meanwhile."""
        answer = await self.edit(email)
        self.assertEqual(503, answer.status, answer.body)
        self.assertFalse(self.told(email))
        self.assertTrue(self.told("owner@example.org"))

    async def recovers(self, email):
        answer = await self.edit(email)
        self.assertEqual(200, answer.status, answer.body)
        await self.waiter.until(lambda: self.told(email))


class Locked(StorageCase):
    async def test_another_process_holds_the_database(self):
        other = sqlite3.connect(self.base / "state" / "control.db", isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        await self.fails("late@example.org")
        for path in ("/policies", "/socket"):
            self.assertEqual(200, (await self.ask("GET", path)).status)
        self.assertTrue(self.lab.connected)
        other.execute("ROLLBACK")
        await self.recovers("again@example.org")

    async def test_between_the_change_and_its_statement(self):
        """The change is stored, the database is locked, and signed as soon as it is free."""
        publisher = self.plane.fleet.organisations[self.org].publisher
        other = sqlite3.connect(self.base / "state" / "control.db", isolation_level=None)
        self.addCleanup(other.close)
        run = publisher._run
        locked = []

        def lock_first():
            if not locked:
                locked.append(other.execute("BEGIN IMMEDIATE"))
            run()

        self.patch(publisher, "_run", lock_first)
        answer = await self.edit("new@example.org")
        self.assertEqual(200, answer.status)
        await self.waiter.until(lambda: locked)
        await self.waiter.until(lambda: publisher._running is None and publisher._dirty)
        self.assertFalse(self.told("new@example.org"))
        self.flushLoggedErrors()
        other.execute("ROLLBACK")
        await self.waiter.until(lambda: self.told("new@example.org"))
        self.flushLoggedErrors()


class Full(StorageCase):
    async def begin(self):
        state = self.base / "state"
        state.mkdir(mode=0o700)
        if sys.platform != "linux" or os.geteuid() or shutil.which("mount") is None:
            raise SkipTest("a small file system of its own takes root")
        mount = ["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "none", str(state)]
        if subprocess.run(mount, capture_output=True).returncode:
            raise SkipTest("a small file system of its own cannot be mounted")
        self.addCleanup(subprocess.run, ["umount", "-l", str(state)], check=True)
        await super().begin()

    async def test_the_disk_is_full(self):
        filler = self.base / "state" / "filler"
        with filler.open("wb", 0) as file:
            try:
                while True:
                    file.write(b"x" * 4096)
            except OSError:
                pass
        for _ in range(60):  # what is left inside of the files themselves is used up first
            answer = await self.edit("late@example.org" * 1000)
            if answer.status != 200:
                break
        self.assertEqual(503, answer.status, answer.body)
        self.assertEqual(200, (await self.ask("GET", "/policies")).status)
        self.assertTrue(self.lab.connected)
        filler.unlink()
        await self.recovers("again@example.org")
        self.flushLoggedErrors()


@needs_postgresql
class Restarted(StorageCase):
    """PostgreSQL crashes, is away for a while, and is back."""

    async def begin(self):
        # Durable: a crash of a server that does not sync could lose what was answered.
        self.server = PostgresServer(auth="trust", settings={"fsync": "on", **DURABLE})
        self.addCleanup(self.server.stop)
        await deferToThread(self.server.start)
        self.server.create_database("control")
        url = f"postgresql://postgres@127.0.0.1:{self.server.port}/control"
        self.settings = {"database": url}
        await super().begin()

    async def test_it_goes_on(self):
        for turn in range(2):
            before = self.lab.ledger.revision
            await deferToThread(self.server.halt, signal.SIGQUIT)
            await self.fails("late@example.org")
            for path in ("/policies", "/socket", "/devices", "/sessions"):
                answer = await self.ask("GET", path)
                self.assertEqual(503, answer.status, path)
                self.assertNotIn(b"items", answer.body)
            self.assertEqual((True, before), (self.lab.connected, self.lab.ledger.revision))
            # A new connection is judged by what is in memory.
            await self.laptop.stopService()
            self.laptop.startService()
            await self.waiter.until(lambda: self.laptop.synced)
            await deferToThread(self.server.start)
            await self.recovers(f"again{turn}@example.org")
            await self.recovers("owner@example.org")
        self.flushLoggedErrors()


class Killed(StorageCase):
    """The process of its own is killed as soon as it has answered."""

    async def begin(self):
        await super().begin()
        await self.plane.close()
        (self.base / "control.toml").write_text(
            f'[control]\nurl = "{self.url}"\nlisten = ["127.0.0.1:{self.port}"]\n'
            'state_dir = "state"\n'
        )
        self.addCleanup(self.kill)

    def tearDown(self):
        """It was closed before."""

    def kill(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGKILL)
        self.child.wait(20)

    def start(self):
        log = self.base / "log"
        log.unlink(missing_ok=True)
        command = [
            sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n",
            "--pidfile=", "border0-control", "--config", str(self.base / "control.toml"),
        ]  # fmt: skip
        with log.open("wb") as output:
            self.child = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=self.base
            )
        children.wait_until(lambda: b"ready:" in log.read_bytes(), 40, "ready")

    async def test_what_was_answered_arrives(self):
        for turn in range(2):
            await deferToThread(self.start)
            email = f"turn{turn}@example.org"
            answer = await self.edit(email)
            self.kill()
            self.assertEqual(200, answer.status, answer.body)
            # It may have arrived before; after the next start it must.
            if turn % 2:
                await deferToThread(self.start)
                await self.waiter.until(lambda e=email: self.told(e))
                self.kill()
        await deferToThread(self.start)
        await self.waiter.until(lambda: self.told("turn1@example.org"))
        self.child.send_signal(signal.SIGTERM)
        await deferToThread(self.child.wait, 20)
