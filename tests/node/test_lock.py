"""One process holds the lock, and its death frees it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.node.lock import FileLock

HOLD = """
import sys, time
from pathlib import Path
from border0.node.lock import FileLock
print(FileLock(Path(sys.argv[1])).acquire(), flush=True)
time.sleep(60)
"""


class Locks(SynchronousTestCase):
    def test_one_holder(self) -> None:
        path = Path(self.mktemp())
        first, second = FileLock(path), FileLock(path)
        self.assertTrue(first.acquire())
        self.assertFalse(second.acquire(0.1))
        self.assertEqual(second.holder(), str(os.getpid()))
        first.release()
        first.release()
        self.assertTrue(second.acquire())
        second.release()
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_a_killed_holder_lets_go(self) -> None:
        path = Path(self.mktemp()).absolute()
        child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        self.addCleanup(child.stdout.close)
        self.assertEqual(child.stdout.readline(), b"True\n")
        lock = FileLock(path)
        self.assertFalse(lock.acquire())
        self.assertEqual(lock.holder(), str(child.pid))
        child.send_signal(signal.SIGKILL)
        child.wait()
        self.assertTrue(lock.acquire(5))
        lock.release()
