"""The connector's own shell as an upstream: programs run as the user that runs the connector.

Source: RFC 4254 §6. It has the face of an upstream's connection; policy and recording are those of
every session. A program gets a clean environment (nothing of the connector's own, where secrets
may be), no open files, a session of its own, and is hung up when its channel closes. SFTP and
forwarding are not part of it.
"""

import os
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.proxies.ssh import wire
from border0.proxies.ssh.adapters.end import Answer
from border0.proxies.ssh.wire import Reader, string, uint32

WINDOW = 1024 * 1024
"""Bytes of output that may be under way to the client."""
HANG_UP_SECONDS = 1.0
KILL_SECONDS = 5.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
USER_PATH = "/usr/local/bin:/usr/bin:/bin"
SIGNALS = ("ABRT", "ALRM", "HUP", "INT", "KILL", "PIPE", "QUIT", "TERM", "USR1", "USR2")
# Twisted makes a session only for a terminal's program; without one this does.
OWN_SESSION = "import os,sys;os.setsid();os.execv(sys.argv[1],sys.argv[2:])"

log = Logger(namespace="border0.ssh")


class Builtin:
    """What a session takes for its upstream's connection."""

    def __init__(self, session: Any, reactor: Any) -> None:
        self.session = session
        self.reactor = reactor
        self.sealed: Callable[[], None] = lambda: None
        self.ends: set[ProgramEnd] = set()

    def ask(self, kind: bytes, fields: bytes, owner: Any) -> "ProgramEnd":
        """Give a session; nothing else is to be had here."""
        end = ProgramEnd(self, owner)
        if kind == b"session":
            self.ends.add(end)
            owner.opened(end)
        else:
            owner.open_failed(end, wire.OPEN_PROHIBITED, "the built-in service forwards nothing")
        return end

    def close(self) -> None:
        """Hang up every program."""
        for end in list(self.ends):
            end.send_close()

    def disconnect(self) -> None:
        """As `close`: there is nothing to dial."""
        self.close()


@implementer(IPushProducer)
class ProgramEnd(ProcessProtocol):
    """One program, with the face of a channel's end."""

    def __init__(self, far: Builtin, owner: Any) -> None:
        self.far, self.owner = far, owner
        self.take: Callable[[int, bytes], None] = lambda code, data: None
        self.sent: Callable[[int], None] = lambda count: None
        self.closed = False
        self.close_sent = False
        self._environment: dict[str, str] = {}
        self._pty: tuple[str, tuple[int, int, int, int]] | None = None
        self._program: Any = None
        self._under_way = 0
        self._paused = False
        self._full = False
        self._eof = False
        self._queue: deque[bytes] = deque()
        self._killer: Any = None

    # Requests.

    def request(
        self, kind: bytes, fields: bytes, answer: Answer | None = None, *, behind: bool = False
    ) -> None:
        """What the client asks; the session has judged it."""
        reader = Reader(fields)
        done = False
        if kind == b"env":
            name, value = reader.string(), reader.string()
            if b"\0" not in name + value and b"=" not in name and name:
                self._environment[os.fsdecode(name)] = os.fsdecode(value)
                done = True
        elif kind == b"pty-req":
            term = reader.string().decode("ascii", "replace").replace("\0", "")
            self._pty = term, self._size(reader)
            done = True
        elif kind == b"window-change" and self._pty is not None:
            self._pty = self._pty[0], self._size(reader)
            self._resize()
            done = True
        elif kind in (b"shell", b"exec") and self._program is None:
            done = self._start(reader.string() if kind == b"exec" else None)
        elif kind == b"signal":
            done = self._signal(reader.string().decode("ascii", "replace"))
        if answer is not None:
            answer(done)

    @staticmethod
    def _size(reader: Reader) -> tuple[int, int, int, int]:
        columns, rows, width, height = (min(reader.uint32(), 0xFFFF) for _ in range(4))
        return rows, columns, width, height

    def _start(self, command: bytes | None) -> bool:
        import pwd

        user = pwd.getpwuid(os.getuid())
        shell = user.pw_shell or "/bin/sh"
        path = PATH if user.pw_uid == 0 else USER_PATH
        home = user.pw_dir if os.path.isdir(user.pw_dir) else "/"
        environment = {
            **self._environment,
            "HOME": home,
            "USER": user.pw_name,
            "LOGNAME": user.pw_name,
            "SHELL": shell,
            "PATH": path,
        }
        if self._pty is not None and self._pty[0]:
            environment["TERM"] = self._pty[0]
        name = os.path.basename(shell)
        arguments: list[str | bytes] = [f"-{name}"] if command is None else [name, "-c", command]
        program = shell
        if self._pty is None:
            program = sys.executable
            arguments = [program, "-I", "-S", "-c", OWN_SESSION, shell, *arguments]
        try:
            self._program = self.far.reactor.spawnProcess(
                self, program, arguments, environment, home, usePTY=self._pty is not None
            )
        except Exception:
            log.failure("a program could not be started")
            return False
        self._resize()
        target = self._program if self._pty is not None else self._program.pipes[0]
        target.registerProducer(self, True)
        return True

    def _resize(self) -> None:
        if self._program is None or self._pty is None:
            return
        import fcntl
        import struct
        import termios

        try:
            size = struct.pack("HHHH", *self._pty[1])
            fcntl.ioctl(self._program.fileno(), termios.TIOCSWINSZ, size)
        except OSError:
            pass  # it has just ended

    def _signal(self, name: str) -> bool:
        import signal

        if name not in SIGNALS or self._program is None or self._program.pid is None:
            return False
        try:
            os.killpg(self._program.pid, getattr(signal, f"SIG{name}"))
        except OSError:
            return False
        return True

    # Input.

    def write(self, code: int, data: bytes) -> None:
        """Input for the program."""
        if self._program is None or self.close_sent:
            self.sent(len(data))
        elif self._full or self._queue:
            self._queue.append(data)
        else:
            self._program.write(data)
            self.sent(len(data))

    def send_eof(self) -> None:
        """No more input follows."""
        self._eof = True
        if not self._queue:
            self._end_input()

    def _end_input(self) -> None:
        if self._program is None or self.close_sent:
            return
        if self._pty is None:
            if 0 in self._program.pipes:
                self._program.pipes[0].unregisterProducer()
            self._program.closeStdin()
        else:
            self._program.write(b"\x04")

    def pauseProducing(self) -> None:
        """The program does not read."""
        self._full = True

    def resumeProducing(self) -> None:
        """The program reads again."""
        self._full = False
        while self._queue and not self._full:
            data = self._queue.popleft()
            self._program.write(data)
            self.sent(len(data))
        if self._eof and not self._queue:
            self._end_input()

    def stopProducing(self) -> None:
        """The program closed its input: what follows is dropped."""
        self._full = False
        while self._queue:
            self.sent(len(self._queue.popleft()))

    # Output.

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Output of the program."""
        self._under_way += len(data)
        if self._under_way > WINDOW and not self._paused:
            self._paused = True
            self._program.pauseProducing()
        # No larger pieces than a channel's packets; a read brings up to 64 KiB.
        self.take(wire.STDERR if childFD == 2 else 0, data)
        self.far.sealed()
        self.far.session.flush()

    def outReceived(self, data: bytes) -> None:
        """Output of a program on a terminal."""
        self.childDataReceived(1, data)

    def credit(self, count: int) -> None:
        """The client took output."""
        self._under_way -= count
        if self._paused and self._under_way < WINDOW // 2 and self._program is not None:
            self._paused = False
            self._program.resumeProducing()

    # The end.

    def processEnded(self, reason: Failure) -> None:
        """The program has ended and its output is read."""
        if self._killer is not None and self._killer.active():
            self._killer.cancel()
        value: Any = reason.value
        if reason.check(ProcessDone) or value.signal is None:
            self.owner.got_request(self, b"exit-status", Reader(uint32(value.exitCode or 0)), None)
        else:
            name = next((s for s in SIGNALS if value.signal == _number(s)), "KILL")
            fields = string(name.encode()) + b"\0" + string(b"") + string(b"")
            self.owner.got_request(self, b"exit-signal", Reader(fields), None)
        self.owner.got_eof(self)
        self._over()
        self.far.session.flush()

    def _over(self) -> None:
        self.closed = self.close_sent = True
        self._queue.clear()
        self.far.ends.discard(self)
        self.owner.got_close(self)
        self.owner.gone(self)

    def close_now(self) -> None:
        """Nothing is left to close: the program has ended."""

    def send_close(self) -> None:
        """The client is done: hang the program up, and end it when that does not."""
        if self.close_sent:
            return
        self.close_sent = True
        self._queue.clear()
        if self._program is None:
            self._over()
            return
        if self._program.pid is not None:
            # A program on a terminal is hung up by the terminal. Others may be about to end.
            if self._pty is not None:
                self._program.loseConnection()
            else:
                self._program.closeStdin()
            self._killer = self.far.reactor.callLater(HANG_UP_SECONDS, self._hang_up)
        if self._paused:
            self._paused = False
            self._program.resumeProducing()

    def _hang_up(self) -> None:
        self._signal("HUP")
        self._killer = self.far.reactor.callLater(KILL_SECONDS, self._signal, "KILL")


def _number(name: str) -> int:
    import signal

    return int(getattr(signal, f"SIG{name}"))
