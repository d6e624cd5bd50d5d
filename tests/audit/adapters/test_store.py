"""The record store with real files: modes, days, full disks, overruns, close."""

import errno
import json
import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SkipTest, TestCase

from border0.audit.adapters import linefile, store, writer
from border0.audit.adapters.linefile import LineFile
from border0.audit.adapters.store import RecorderError, RecordStore
from border0.audit.events import Actor
from border0.audit.sessionlog import SessionLog
from tests.support.counterparts import requires

reactor: Any = any_reactor
ALICE = Actor("alice", "laptop", "100.64.0.2")
MIDNIGHT = 1795305600.0
"""2026-11-22T00:00:00Z."""


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The records of a file, which must consist of whole lines."""
    data = path.read_bytes()
    assert data.endswith(b"\n") or not data, data[-80:]
    return [json.loads(line) for line in data.splitlines()]


def query(log: SessionLog, text: str = '"select 1"', decision: str = "allowed") -> None:
    """Write one statement."""
    log.query(
        text, "read", "[]", at=MIDNIGHT, duration_ms=1, rows=1, status="ok", decision=decision
    )


async def until(condition: Any, seconds: float = 20.0) -> None:
    """Come back when `condition()` holds."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await deferLater(reactor, 0.02)
    raise AssertionError("the condition never held")


class StoreCase(TestCase):
    """A store in a folder of its own."""

    def setUp(self) -> None:
        self.now = MIDNIGHT + 3600
        self.root = Path(tempfile.mkdtemp(prefix="border0-records-"))
        self.addCleanup(subprocess.run, ["rm", "-rf", str(self.root)], check=True)

    def make(self, root: Path | None = None, **more: Any) -> RecordStore:
        made = RecordStore(root or self.root / "state", reactor, wall=lambda: self.now, **more)
        self.addCleanup(made.close)
        return made

    def recording(self, log: SessionLog, day: str = "2026/11/22") -> Path:
        return self.root / "state" / "recordings" / day / f"{log.id}.jsonl"

    def audit(self, day: str = "2026-11-22") -> Path:
        return self.root / "state" / "audit" / f"{day}.jsonl"


class RecordStoreTests(StoreCase):
    async def test_a_session_leaves_its_recording_and_audit_lines(self) -> None:
        made = self.make()
        log = made.open_session(actor=ALICE, socket="db", recorded=True)
        self.assertTrue(self.recording(log).exists())
        log.start()
        query(log)
        query(log, '"drop"', "denied")
        log.end(10, 20, "closed")
        refusal = made.audit("session.start", actor=ALICE, result="denied", reason="who")
        await made.close()
        found = lines_of(self.recording(log))
        self.assertEqual(
            [line["type"] for line in found], ["session.start", "query", "query", "session.end"]
        )
        self.assertEqual({line["session"] for line in found}, {log.id})
        audit = lines_of(self.audit())
        self.assertEqual(audit[0]["id"], refusal)
        self.assertEqual(audit[1:], [found[0], found[2], found[3]])
        self.assertEqual((made.lost, made.backlog), (0, 0))

    async def test_files_and_folders_are_for_the_owner_alone(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        made = self.make()
        log = made.open_session(actor=ALICE, socket="db", recorded=True)
        log.end(0, 0, "closed")
        await made.close()
        for path in (self.root / "state").rglob("*"):
            mode = path.stat().st_mode & 0o777
            self.assertEqual(mode, 0o700 if path.is_dir() else 0o600, path)
        self.assertEqual((self.root / "state").stat().st_mode & 0o777, 0o700)

    async def test_lines_are_written_without_waiting_for_the_end(self) -> None:
        made = self.make()
        log = made.open_session(actor=ALICE, socket="db", recorded=True)
        log.start()
        query(log)
        await until(lambda: len(self.recording(log).read_bytes().splitlines()) == 2)
        self.assertEqual(len(lines_of(self.audit())), 1)

    async def test_without_a_recording_there_is_no_file(self) -> None:
        made = self.make()
        log = made.open_session(actor=ALICE, socket="db", recorded=False)
        log.start()
        query(log)
        log.end(0, 0, "closed")
        await made.close()
        self.assertFalse((self.root / "state" / "recordings").exists())
        self.assertEqual(len(lines_of(self.audit())), 2)

    async def test_midnight(self) -> None:
        made = self.make()
        self.now = MIDNIGHT - 0.5
        log = made.open_session(actor=ALICE, socket="db", recorded=True)
        log.start()
        made.audit("test.event", actor=ALICE, result="ok", when="before")
        self.now = MIDNIGHT
        made.audit("test.event", actor=ALICE, result="ok", when="after")
        log.end(0, 0, "closed")
        self.now = MIDNIGHT + 86400
        made.audit("test.event", actor=ALICE, result="ok", when="next")
        await made.close()
        types = [(line["type"], line.get("when")) for line in lines_of(self.audit("2026-11-21"))]
        self.assertEqual(types, [("test.event", "before"), ("session.start", None)])
        types = [(line["type"], line.get("when")) for line in lines_of(self.audit())]
        self.assertEqual(types, [("test.event", "after"), ("session.end", None)])
        self.assertEqual(len(lines_of(self.audit("2026-11-23"))), 1)
        # A recording stays in the folder of the day on which it began.
        self.assertEqual(len(lines_of(self.recording(log, "2026/11/21"))), 2)

    async def test_a_second_run_appends_and_cuts_a_torn_line(self) -> None:
        for number in range(2):
            made = self.make()
            made.audit("test.event", actor=ALICE, result="ok", number=number)
            await made.close()
            with self.audit().open("ab") as file:
                file.write(b'{"v":1,"torn')
        made = self.make()
        made.audit("test.event", actor=ALICE, result="ok", number=2)
        await made.close()
        self.assertEqual([line["number"] for line in lines_of(self.audit())], [0, 1, 2])

    async def test_close_ends_what_is_open_and_admits_nothing_more(self) -> None:
        made = self.make()
        log = made.open_session(actor=ALICE, socket="db", recorded=True)
        log.start()
        await made.close()
        await made.close()
        last = lines_of(self.recording(log))[-1]
        self.assertEqual(
            (last["type"], last["status"], last["bytes_in"]), ("session.end", "interrupted", None)
        )
        self.assertRaises(
            RecorderError, made.open_session, actor=ALICE, socket="db", recorded=False
        )

    async def test_a_folder_that_cannot_be_made_refuses_the_session(self) -> None:
        (self.root / "state").write_text("a file")
        made = self.make()
        error = self.assertRaises(
            RecorderError, made.open_session, actor=ALICE, socket="db", recorded=True
        )
        self.assertNotIn(str(self.root), str(error))
        made.open_session(actor=ALICE, socket="db", recorded=False).start()
        await until(lambda: not made.healthy)
        self.flushLoggedErrors()

    async def test_a_disk_that_fails_at_sync(self) -> None:
        def broken(file: LineFile) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        made = self.make()
        log = made.open_session(actor=ALICE, socket="db", recorded=True)
        failed: Deferred[str] = Deferred()
        log.on_failure = failed.callback
        sync = LineFile.sync
        self.patch(linefile.LineFile, "sync", broken)
        log.start()
        self.assertIn(os.strerror(errno.EIO), await failed)
        await until(lambda: not made.healthy)
        self.patch(linefile.LineFile, "sync", sync)
        await until(lambda: made.healthy)
        self.flushLoggedErrors()

    async def test_the_names_of_new_recordings_are_synced_together(self) -> None:
        synced: list[Path] = []
        self.patch(writer, "sync_folder", synced.append)
        made = self.make()
        logs = [made.open_session(actor=ALICE, socket="db", recorded=True) for _ in range(50)]
        for log in logs:
            log.start()
            log.end(0, 0, "closed")
        await made.close()
        self.assertEqual(set(synced), {self.recording(logs[0]).parent, self.audit().parent})
        self.assertLess(len(synced), 10)

    async def test_a_disk_that_fails_at_the_sync_of_a_folder(self) -> None:
        def broken(folder: Path) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        self.patch(writer, "sync_folder", broken)
        made = self.make()
        log = made.open_session(actor=ALICE, socket="db", recorded=True)
        failed: Deferred[str] = Deferred()
        log.on_failure = failed.callback
        log.start()
        self.assertIn(os.strerror(errno.EIO), await failed)
        await until(lambda: not made.healthy)
        self.flushLoggedErrors()

    async def test_a_session_that_outruns_the_disk_ends(self) -> None:
        made = self.make(limit=1 << 20)
        gate = threading.Event()
        self.addCleanup(gate.set)
        append = LineFile.append

        def stuck(file: LineFile, data: bytes) -> None:
            gate.wait(30)
            append(file, data)

        self.patch(linefile.LineFile, "append", stuck)
        log = made.open_session(actor=ALICE, socket="db", recorded=True)
        other = made.open_session(actor=ALICE, socket="db", recorded=False)
        failed: Deferred[str] = Deferred()
        log.on_failure = failed.callback
        log.start()
        text = '"' + "x" * 1000 + '"'
        for _ in range(3000):
            query(log, text)
        self.assertLess(made.backlog, 2 << 20)
        self.assertIn(store.OVERRUN, await failed)
        self.assertFalse(other.failed)
        self.assertRaises(RecorderError, made.open_session, actor=ALICE, socket="d", recorded=True)
        log.end(0, 0, "recorder failed", log.failed, "failed")
        gate.set()
        await made.close()
        self.assertGreater(made.lost, 0)
        found = lines_of(self.recording(log))
        self.assertEqual(found[-1]["status"], "recorder failed")
        self.assertLess(len(found), 1100)


class FullDiskTests(StoreCase):
    """The state folder is on a file system of 64 KiB."""

    @requires("root")
    def setUp(self) -> None:
        super().setUp()
        (self.root / "state").mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "border0-test", str(self.root / "state")],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise SkipTest("a tmpfs cannot be mounted here: " + done.stderr.decode().strip())
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.root / "state")], check=False)
        self.filler = self.root / "state" / "filler"

    def fill(self) -> None:
        with self.filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    async def test_a_session_ends_with_a_clear_reason(self) -> None:
        made = self.make()
        log = made.open_session(actor=ALICE, socket="db", recorded=True)
        plain = made.open_session(actor=ALICE, socket="db", recorded=False)
        failed: Deferred[str] = Deferred()
        log.on_failure = failed.callback
        log.start()
        plain.start()
        await until(lambda: self.recording(log).stat().st_size > 0)
        self.fill()
        for _ in range(20):
            query(log)
        reason = await failed
        self.assertIn("No space left on device", reason)
        self.assertFalse(plain.failed)
        self.assertTrue(lines_of(self.recording(log)), "whole lines only")

        # No new session whose recording is required, the others go on.
        error = self.assertRaises(
            RecorderError, made.open_session, actor=ALICE, socket="db", recorded=True
        )
        self.assertIn("No space left on device", str(error))

        # The end is kept in memory until there is room again.
        log.end(1, 2, "recorder failed", reason, "failed")
        for _ in range(20):
            made.audit("test.event", actor=ALICE, result="ok", filler="x" * 1000)
        await until(lambda: not made.healthy)
        self.filler.unlink()
        await until(lambda: made.healthy)
        await made.close()
        audit = lines_of(self.audit())
        self.assertEqual(len(audit), len({line["id"] for line in audit}))
        self.assertEqual(
            [(line["type"], line.get("status")) for line in audit if line["type"] == "session.end"],
            [("session.end", "recorder failed"), ("session.end", "interrupted")],
        )
        self.flushLoggedErrors()
