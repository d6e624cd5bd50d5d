"""The channels of a session: each request is judged, then passed on or refused as SSH refuses.

Source: RFC 4254 §6 (sessions), §7 (forwarding); OpenSSH's PROTOCOL §2.1 (eow), §2.5 (agent). A
refused request leaves the session as it was: CHANNEL_FAILURE or OPEN_FAILURE, and for commands the
reason on the channel's stderr.
"""

from typing import Any

from border0.policy.command import Complex, is_scp_server, is_sftp_server, program, words
from border0.policy.ssh import Verdict
from border0.proxies.ssh import recording, wire
from border0.proxies.ssh.adapters.end import Answer, End
from border0.proxies.ssh.wire import Reader, printable, string

RECORDER_SECONDS = 0.05
"""How often a terminal whose recording waits for the disk is looked at again."""
REFUSAL_SECONDS = 0.1
"""Between a refusal's text and the refusal: OpenSSH drops text that comes with it in one read."""
SAFE_ENVIRONMENT = frozenset((b"LANG", b"LANGUAGE", b"TERM", b"COLORTERM", b"NO_COLOR", b"TZ"))
ENVIRONMENT_LIMIT = 100


class Relayed:
    """Two ends of one channel."""

    def __init__(self, session: Any, near: Any) -> None:
        self.session = session
        self.near = near
        self.far: Any = None
        self.number = session.add(self)
        self.bytes_in = 0
        self.bytes_out = 0
        self._finished = False
        near.owner = self

    def join(self, kind: bytes, fields: bytes) -> None:
        """Ask the upstream for its end."""
        if self.session.far is None:
            self.near.refuse(wire.OPEN_CONNECT_FAILED, "the upstream is gone")
            self.session.remove(self)
            return
        self.far = self.session.far.ask(kind, fields, self)

    def opened(self, end: Any) -> None:
        """The asked end is there."""
        near, far = self.near, self.far
        if far is None:
            far = self.far = end  # it answered within `ask`
        near.take, far.take = self.from_near, self.from_far
        near.sent, far.sent = self.near_sent, near.credit
        near.confirm()

    def open_failed(self, end: Any, code: int, text: str) -> None:
        """The asked end is refused."""
        self.near.refuse(code, text)
        self.session.remove(self)

    def from_near(self, code: int, data: bytes) -> None:
        """The client's data."""
        self.bytes_in += len(data)
        if code or self.far.closed or self.far.close_sent:
            self.near.credit(len(data))
        else:
            self.far.write(0, data)

    def from_far(self, code: int, data: bytes) -> None:
        """The upstream's data; what the client no longer wants is taken and dropped."""
        self.bytes_out += len(data)
        if self.near.closed or self.near.close_sent:
            self.far.credit(len(data))
        else:
            self.near.write(code, data)

    def near_sent(self, count: int) -> None:
        """The client's leg took bytes of the upstream."""
        self.far.credit(count)

    def got_eof(self, end: Any) -> None:
        """One side sends no more."""
        (self.far if end is self.near else self.near).send_eof()

    def got_close(self, end: Any) -> None:
        """One side is done: the other's close follows what is queued for it.

        A client may close before the upstream has told the exit status: it is answered when the
        upstream closes too.
        """
        if end is self.far:
            self.near.send_close()
            self.far.close_now()
        else:
            self.far.send_close()

    def got_request(self, end: Any, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        """Channels that are not sessions have no requests."""
        if answer is not None:
            answer(False)

    def gone(self, end: Any) -> None:
        """One end is closed by both; the channel is over when the other is."""
        other = self.far if end is self.near else self.near
        if other is None or (other.closed and other.close_sent):
            self.finish()
            self.session.remove(self)

    def finish(self) -> None:
        """Write what there is to write at the end, once."""
        if not self._finished:
            self._finished = True
            self.ended()

    def ended(self) -> None:
        """The channel's last words."""


class ForwardChannel(Relayed):
    """A connection that the upstream makes for the client (`-L`, `-W`)."""

    target: dict[str, Any]

    def begin(self, fields: Reader) -> None:
        """Judge the destination, then ask for it."""
        whole = fields.rest()
        host = printable(fields.string(), 255)
        port = fields.uint32()
        self.target = {"host": host, "port": port}
        verdict = self.session.grant.forward(host, port)
        self.session.log_verdict("ssh.forward", verdict, channel=self.number, **self.target)
        if not verdict.allowed:
            self.near.refuse(wire.OPEN_PROHIBITED, verdict.reason)
            self.session.remove(self)
            return
        self.join(b"direct-tcpip", whole)

    def open_failed(self, end: Any, code: int, text: str) -> None:
        """The upstream does not get there."""
        self.session.log.event(
            "ssh.forward_end", result="failed", reason=text, channel=self.number, **self.target
        )
        super().open_failed(end, code, text)

    def ended(self) -> None:
        """Count."""
        self.session.log.event(
            "ssh.forward_end",
            channel=self.number,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            **self.target,
        )


class AgentChannel(Relayed):
    """The upstream's way to the client's agent: asked by the upstream, given by the client."""

    def begin(self) -> None:
        """Ask the client."""
        self.session.log.event("ssh.agent", channel=self.number)
        self.far = self.session.near.ask(b"auth-agent@openssh.com", b"", self)


class SessionChannel(Relayed):
    """A shell, a command or a subsystem."""

    def __init__(self, session: Any, near: End) -> None:
        super().__init__(session, near)
        self.keeper: recording.Nothing = recording.Nothing()
        self._started = ""
        self._terminal: tuple[str, int, int] | None = None
        self._variables = 0
        self._exit: dict[str, Any] = {}
        self._held = 0
        self._holding: Any = None

    def begin(self) -> None:
        """Ask the upstream for a session."""
        self.join(b"session", b"")

    # Data.

    def from_near(self, code: int, data: bytes) -> None:
        """What the client types or sends."""
        if not self._started:
            self.near.credit(len(data))  # nobody is there to read it
            return
        self.keeper.to_upstream(data)
        super().from_near(code, data)

    def from_far(self, code: int, data: bytes) -> None:
        """What the program writes."""
        self.keeper.to_client(code, data)
        super().from_far(code, data)

    def near_sent(self, count: int) -> None:
        """The client took bytes: ask for more, unless the recording is behind."""
        if self._held or self.keeper.busy:
            self._held += count
            if self._holding is None:
                self._wait()
        else:
            self.far.credit(count)

    def _wait(self) -> None:
        self._holding = self.session.factory.reactor.callLater(RECORDER_SECONDS, self._look)

    def _look(self) -> None:
        self._holding = None
        if self.keeper.busy:
            self._wait()
        else:
            held, self._held = self._held, 0
            self.far.credit(held)

    # Requests.

    def got_request(self, end: Any, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        """Judge or pass on."""
        if end is self.far:
            self._from_upstream(kind, fields, answer)
            return
        handle = _REQUESTS.get(kind)
        if handle is None or self.far.close_sent:
            if kind not in _QUIET:
                self.session.denied("ssh.request", kind, channel=self.number)
            if answer is not None:
                answer(False)
            return
        handle(self, kind, fields, answer)

    def _from_upstream(self, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        if kind in (b"exit-status", b"exit-signal"):
            rest = fields.rest()
            if kind == b"exit-status":
                self._exit = {"exit_status": fields.uint32()}
            else:
                self._exit = {"exit_signal": printable(fields.string(), 32)}
            self.near.request(kind, rest, behind=True)
        elif kind == b"eow@openssh.com":
            self.near.request(kind, b"")
        if answer is not None:
            answer(False)

    def _pass(self, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        self.far.request(kind, fields.rest(), answer)

    def _environment(self, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        rest = fields.rest()
        name = fields.string(256)
        fields.string(32 * 1024)
        self._variables += 1
        safe = name in SAFE_ENVIRONMENT or name.startswith(b"LC_")
        if self._variables <= ENVIRONMENT_LIMIT and (safe or self.session.grant.any_command):
            self.far.request(kind, rest, answer)
        elif answer is not None:
            answer(False)

    def _pty(self, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        rest = fields.rest()
        term = printable(fields.string(256), 64)
        columns, rows = fields.uint32(), fields.uint32()
        if self._started or self._terminal is not None:
            if answer is not None:
                answer(False)
            return
        self._terminal = term, columns, rows
        self.far.request(kind, rest, answer)

    def _window(self, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        rest = fields.rest()
        columns, rows = fields.uint32(), fields.uint32()
        if self._terminal is not None:
            self.keeper.resize(columns, rows)
            self._terminal = self._terminal[0], columns, rows
        self.far.request(kind, rest, answer)

    def _shell(self, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        self._start("ssh.shell", self.session.grant.shell(), kind, b"", answer, {})

    def _command(self, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        rest = fields.rest()
        command = fields.string()
        verdict = self.session.grant.exec(command)
        self._start("ssh.exec", verdict, kind, rest, answer, {"command": command})

    def _subsystem(self, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        name = fields.string(256)
        if name == b"sftp":
            verdict = self.session.grant.sftp()
        else:
            clause, shown = "permissions.ssh", printable(name, 60)
            text = f"no policy permits the subsystem {shown!r} ({clause})"
            verdict = Verdict(False, "", clause, text)
        self._start("ssh.subsystem", verdict, kind, string(name), answer, {"subsystem": name})

    def _start(
        self,
        type: str,
        verdict: Verdict,
        kind: bytes,
        fields: bytes,
        answer: Answer | None,
        what: dict[str, Any],
    ) -> None:
        if self._started:
            if answer is not None:
                answer(False)
            return
        log = self.session.log
        terminal = self._terminal
        if terminal is not None:
            what = {**what, "terminal": terminal[0], "columns": terminal[1], "rows": terminal[2]}
        if not verdict.allowed:
            self.session.log_verdict(type, verdict, channel=self.number, **what)
            self.near.write(wire.STDERR, f"border0: {verdict.reason}\r\n".encode())
            if answer is not None:
                self.session.factory.reactor.callLater(REFUSAL_SECONDS, answer, False)
            return
        command = what.get("command", b"")
        try:
            self.keeper, more = self._keep(type, command)
        except OSError as error:
            log.fail(f"a terminal cannot be recorded: {error.strerror}")
            if answer is not None:
                answer(False)
            return
        self._started = type
        self.session.log_verdict(type, verdict, channel=self.number, **what, **more)
        self.far.request(kind, fields, answer)

    def _keep(self, type: str, command: bytes) -> tuple[recording.Nothing, dict[str, Any]]:
        """What is kept of this program, and what its record says about that; raises OSError."""
        log = self.session.log
        if log.open_cast is None:
            return recording.Nothing(), {}
        if type == "ssh.subsystem":
            return recording.Files(log, self.number), {}
        if self._terminal is not None:
            term, columns, rows = self._terminal
            cast = log.open_cast()
            title = f"{self.session.grant.username}@{self.session.socket}"
            shown = printable(command, 4096)
            cast.begin(columns, rows, title=title, command=shown, term=term)
            return recording.Terminal(cast), {"recording": cast.name}
        if type == "ssh.exec":
            try:
                found = words(command.decode())
            except (UnicodeDecodeError, Complex):
                found = []
            if is_sftp_server(found):
                return recording.Files(log, self.number), {}
            if is_scp_server(found) or (program(found) == "rsync" and "--server" in found):
                return recording.Nothing(), {}
        return recording.Output(log, self.number), {}

    def _agent(self, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        verdict = self.session.grant.agent()
        self.session.log_verdict("ssh.agent_forwarding", verdict, channel=self.number)
        if verdict.allowed:
            self.session.agent_granted = True
            self.far.request(kind, b"", answer)
        elif answer is not None:
            answer(False)

    # The end.

    def ended(self) -> None:
        """Close the recording and count."""
        if self._holding is not None:
            self._holding.cancel()
            self._holding = None
        self.keeper.end()
        if self._started:
            self.session.log.event(
                "ssh.exit",
                channel=self.number,
                bytes_in=self.bytes_in,
                bytes_out=self.bytes_out,
                **self._exit,
            )


_QUIET = frozenset((b"keepalive@openssh.com", b"winadj@putty.projects.tartarus.org"))
_REQUESTS = {
    b"env": SessionChannel._environment,
    b"pty-req": SessionChannel._pty,
    b"window-change": SessionChannel._window,
    b"shell": SessionChannel._shell,
    b"exec": SessionChannel._command,
    b"subsystem": SessionChannel._subsystem,
    b"signal": SessionChannel._pass,
    b"break": SessionChannel._pass,
    b"xon-xoff": SessionChannel._pass,
    b"eow@openssh.com": SessionChannel._pass,
    b"auth-agent-req@openssh.com": SessionChannel._agent,
}
