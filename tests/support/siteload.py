"""Work that must not be disturbed: an ssh session, a COPY, and bytes over TCP, all checked."""

from __future__ import annotations

import contextlib
import hashlib
import random
import signal
import socket
import subprocess
import threading
import time
from typing import Any

from tests.support import children
from tests.support.machines import Machine
from tests.support.namespaces import Namespace

MEBIBYTE = 1 << 20
BLOCK = random.Random(5).randbytes(MEBIBYTE)
PATIENCE = 120.0


class Source:
    """Two TCP services on loopback: one says 1 MiB, the other everything that it hears."""

    def __init__(self, place: Namespace, source: int, echo: int) -> None:
        self._listeners = []
        for port, serve in ((source, self._say), (echo, self._echo)):
            with place.inside():
                listener = socket.create_server(("127.0.0.1", port), backlog=32)
            self._listeners.append(listener)
            threading.Thread(target=self._accept, args=(listener, serve), daemon=True).start()

    def _accept(self, listener: socket.socket, serve: Any) -> None:
        while True:
            try:
                connection = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection, serve), daemon=True).start()

    @staticmethod
    def _one(connection: socket.socket, serve: Any) -> None:
        with connection, contextlib.suppress(OSError):
            serve(connection)

    @staticmethod
    def _say(connection: socket.socket) -> None:
        connection.sendall(BLOCK)
        connection.shutdown(socket.SHUT_WR)
        connection.recv(1)

    @staticmethod
    def _echo(connection: socket.socket) -> None:
        while data := connection.recv(1 << 16):
            connection.sendall(data)

    def close(self) -> None:
        """Listen no more."""
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


def exchange(device: Machine, where: str, source: Source, back: bool) -> None:
    """Get 1 MiB from a service; `back`: what is sent to it comes back."""
    child = device.spawn(device.command("client", "tcp", where, "--stdio"))
    try:
        out, errors = child.communicate(BLOCK if back else b"", PATIENCE)
    finally:
        children.end(child, signal.SIGKILL)
    assert child.returncode == 0, (where, child.returncode, errors)
    assert out == BLOCK, f"{where}: {len(out)} bytes came, or others than were sent"


class _Work:
    """A child that is talked to and listened to by two threads; it goes on from the start."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child, self.problem = child, ""
        self.sent = self.heard = 0
        self._ending = threading.Event()
        self._threads = [
            threading.Thread(target=run, daemon=True) for run in (self._say, self._hear)
        ]
        for thread in self._threads:
            thread.start()
        self.goes_on()

    def _say(self) -> None:
        raise NotImplementedError

    def _hear(self) -> None:
        raise NotImplementedError

    def goes_on(self) -> None:
        """Wait until what is sent from now on has come back."""
        raise NotImplementedError

    def _join(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def close(self) -> None:
        """End it however it is."""
        self._ending.set()
        children.end(self.child, signal.SIGKILL)


class Stream(_Work):
    """Bytes to the echo service at a steady pace, until `finish`; all of them come back."""

    SIZE = 16_384

    def __init__(self, child: subprocess.Popen[bytes], megabytes_per_second: float) -> None:
        self._pause = self.SIZE / megabytes_per_second / 1e6
        self._out, self._back = hashlib.sha256(), hashlib.sha256()
        super().__init__(child)

    def _say(self) -> None:
        stream, random_bytes = self.child.stdin, random.Random(7).randbytes
        assert stream is not None
        try:
            while not self._ending.wait(self._pause):
                block = random_bytes(self.SIZE)
                stream.write(block)
                stream.flush()
                self._out.update(block)
                self.sent += len(block)
            stream.close()
        except (OSError, ValueError) as error:
            self.problem = self.problem or f"after {self.sent} bytes: {error}"

    def _hear(self) -> None:
        stream = self.child.stdout
        assert stream is not None
        while data := stream.read1(1 << 16):  # type: ignore[attr-defined]
            self._back.update(data)
            self.heard += len(data)

    def goes_on(self, size: int = MEBIBYTE, seconds: float = 90.0) -> None:
        """Wait until so many bytes more have come back."""
        wanted = self.sent + size

        def there() -> bool:
            assert self.child.poll() is None and not self.problem, (
                self.child.returncode, self.problem,
            )  # fmt: skip
            return self.heard >= wanted

        children.wait_until(there, seconds, "bytes come back")

    def finish(self) -> int:
        """End it; how many bytes went to and fro.

        :raises AssertionError: it broke, or others came back than went.
        """
        self.goes_on()
        self._join()
        status = self.child.wait(PATIENCE)
        assert status == 0 and not self.problem, (status, self.problem)
        assert self.heard == self.sent, (self.heard, self.sent)
        assert self._back.digest() == self._out.digest(), "other bytes came back"
        return self.heard


class Shell(_Work):
    """A counter, line by line to a `cat` at the other end and back, until `finish`."""

    PAUSE = 0.05

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.longest = 0.0  # seconds without an answer
        self._times: dict[int, float] = {}
        super().__init__(child)

    def _say(self) -> None:
        stream = self.child.stdin
        assert stream is not None
        try:
            while not self._ending.wait(self.PAUSE):
                self.sent += 1
                self._times[self.sent] = time.monotonic()
                stream.write(b"%d\n" % self.sent)
                stream.flush()
            stream.close()
        except (OSError, ValueError) as error:
            self.problem = self.problem or f"after {self.sent} lines: {error}"

    def _hear(self) -> None:
        stream = self.child.stdout
        assert stream is not None
        while line := stream.readline():
            self.heard += 1
            if line != b"%d\n" % self.heard:
                self.problem = self.problem or f"{line!r} instead of {self.heard}"
            self.longest = max(self.longest, time.monotonic() - self._times.pop(self.heard, 0.0))

    def _check(self) -> None:
        if self.problem or self.child.poll() is not None:
            children.end(self.child, signal.SIGKILL) if self.problem else None
            errors = b""
            with contextlib.suppress(OSError, ValueError, AttributeError):
                errors = self.child.stderr.read()  # type: ignore[union-attr]
            raise AssertionError(
                f"the ssh session broke: {self.problem} status {self.child.returncode} {errors!r}"
            )

    def goes_on(self, lines: int = 3, seconds: float = 60.0) -> None:
        """Wait until lines that are sent from now on have come back."""
        wanted = self.sent + lines

        def there() -> bool:
            self._check()
            return self.heard >= wanted

        children.wait_until(there, seconds, "the ssh session answers")

    def begin(self) -> None:
        """Forget how long an answer took so far."""
        self.longest = 0.0

    def finish(self) -> int:
        """End it; how many lines went to and fro, none lost.

        :raises AssertionError: it broke, or lines are missing.
        """
        self._check()
        self._join()
        try:
            status = self.child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            status = None
        children.end(self.child, signal.SIGKILL)
        assert not self.problem, self.problem
        assert status == 0 and self.heard == self.sent, (status, self.heard, self.sent)
        return self.heard


class Copy:
    """COPY … FROM STDIN of rows of 1 kB at a steady pace; at the end COPY … TO STDOUT gets them.

    The SHA-256 of both must be the same.
    """

    ROWS = 64

    def __init__(self, device: Machine, megabytes_per_second: float) -> None:
        self.device = device
        self._pause = self.ROWS * 1e-3 / megabytes_per_second
        self._text = random.Random(6).randbytes(4096).hex()
        self._ending = threading.Event()
        self.sum, self.rows, self.problem = hashlib.sha256(), 0, ""
        self.table = f"t{time.monotonic_ns()}"
        self._psql(f"CREATE TABLE {self.table} (n int PRIMARY KEY, line text)")
        command = ("client", "psql", "shop-db", "-XAtqc", f"COPY {self.table} FROM STDIN")
        self.child = device.spawn(device.command(*command))
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _psql(self, statement: str) -> str:
        return self.device.said("client", "psql", "shop-db", "-XAtqc", statement)

    def _block(self) -> bytes:
        rows = []
        for number in range(self.rows, self.rows + self.ROWS):
            at = number * 7 % 7168
            rows.append(f"{number}\t{self._text[at : at + 1000]}\n")
        return "".join(rows).encode()

    def _feed(self) -> None:
        stream = self.child.stdin
        assert stream is not None
        try:
            while not self._ending.wait(self._pause):
                block = self._block()
                stream.write(block)
                stream.flush()
                self.sum.update(block)
                self.rows += self.ROWS
            stream.close()
        except (OSError, ValueError) as error:
            self.problem = f"after {self.rows} rows: {error}"

    def goes_on(self, rows: int = 500, seconds: float = 60.0) -> None:
        """Wait until more rows were taken."""
        wanted = self.rows + rows

        def there() -> bool:
            assert self.child.poll() is None and not self.problem, self._complaint()
            return self.rows >= wanted

        children.wait_until(there, seconds, "the COPY goes on")

    def _complaint(self) -> str:
        children.end(self.child, signal.SIGKILL)
        return f"the COPY broke: {self.problem}, status {self.child.returncode}"

    def finish(self, least: int = 0) -> int:
        """Let it end and read everything back; bytes that went each way.

        :param least: bytes that must have gone before it may end.
        :raises AssertionError: it broke, or something else came back.
        """
        self.goes_on(max(1, least // 1000 - self.rows), PATIENCE)
        self._ending.set()
        self._thread.join(PATIENCE)
        assert not self.problem, self._complaint()
        status = self.child.wait(PATIENCE)
        errors = self.child.stderr.read() if self.child.stderr else b""
        assert status == 0, (status, errors)
        children.end(self.child, signal.SIGKILL)
        words = f"COPY (SELECT n, line FROM {self.table} ORDER BY n) TO STDOUT"
        done = self.device.run("client", "psql", "shop-db", "-XAtqc", words, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        back = done.stdout.encode()
        assert hashlib.sha256(back).digest() == self.sum.digest(), (
            f"{len(back)} bytes came back of {self.rows} rows, or others"
        )
        return len(back)

    def close(self) -> None:
        """End it however it is."""
        self._ending.set()
        children.end(self.child, signal.SIGKILL)
