"""What revoke.py measures on: a control plane, a connector and a client, each a real process.

All on loopback, each in a home of its own: `border0 quickstart` (its own connector idles), a second
connector that joined with a printed code, and `border0 client tcp --listen` of a device of its own
user. Behind the connector stands an echo in this process.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import shlex
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.support import children
from tests.support.client import free_udp_port, python_path

ALLOW = '\n[local]\nallow = ["127.0.0.1:{port}"]\n'
USER, SERVICE, DEVICE = "alice@example.org", "shop", "laptop"
PATIENCE = 60.0


class Echo(socketserver.BaseRequestHandler):
    """What came goes back; the server is told when it is over."""

    server: EchoServer

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(65536):
                self.request.sendall(data)
        self.server.cut.put(time.monotonic())


class EchoServer(socketserver.ThreadingTCPServer):
    """The service behind the connector."""

    daemon_threads = allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.cut: queue.SimpleQueue[float] = queue.SimpleQueue()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A session that was cut is what this is about."""


class Home:
    """The folder of one machine, and what runs in it."""

    def __init__(self, name: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"b0{name}-"))
        self.log = self.folder / "log"
        self.running: list[subprocess.Popen[bytes]] = []

    def spawn(self, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
        """Start `border0 WORDS`."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "BORDER0_HOME": str(self.folder / "home"),
            "PYTHONPATH": python_path(),
            "PYTHONUNBUFFERED": "1",
        }
        argv = [sys.executable, "-P", "-m", "border0.cli.main", *words]
        child = children.spawn(argv, environment=environment, folder=self.folder, **streams)
        self.running.append(child)
        return child

    def serve(self, until: str, *words: str) -> subprocess.Popen[bytes]:
        """Start `border0 WORDS` and wait until it says `until`."""
        self.log.unlink(missing_ok=True)
        child = self.spawn(*words, output=self.log)

        def there() -> bool:
            if child.poll() is not None:
                raise RuntimeError(self.log.read_text())
            return until in self.log.read_text()

        children.wait_until(there, PATIENCE, f"{until!r} of {' '.join(words)}")
        return child

    def said(self, *words: str) -> str:
        """What a command prints that must succeed."""
        child = self.spawn(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, errors = child.communicate(timeout=PATIENCE)
        self.running.remove(child)
        if child.returncode:
            raise RuntimeError(f"border0 {' '.join(words)}: {errors.decode()}")
        return out.decode()

    def close(self) -> None:
        for child in reversed(self.running):
            children.end(child)
        shutil.rmtree(self.folder, ignore_errors=True)


class Api:
    """The owner's requests, over one TLS connection that stays open."""

    def __init__(self, account: Path) -> None:
        found = json.loads(account.read_text())
        host, _, port = found["url"].removeprefix("https://").partition(":")
        trust = ssl.create_default_context(cadata=found["authority"])
        self._connection = http.client.HTTPSConnection(host, int(port), context=trust, timeout=20)
        self._headers = {
            "Authorization": f"Bearer {found['token']}",
            "Content-Type": "application/json",
        }

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON; anything but success is an error."""
        data = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, f"/api/v1{path}", data, self._headers)
            answer = self._connection.getresponse()
        except (http.client.HTTPException, ConnectionError):  # it was idle for too long
            self._connection.close()
            self._connection.request(method, f"/api/v1{path}", data, self._headers)
            answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text) if text else None


class Session:
    """One connection through the tunnel; `cut` is when the client saw its end (monotonic)."""

    def __init__(self, port: int) -> None:
        self.cut = 0.0
        self.began = int(time.time() * 1000)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._socket.sendall(b"x")
        if self._socket.recv(1) != b"x":
            self._socket.close()
            raise ConnectionError("not let in")
        self._socket.settimeout(30)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                self._socket.recv(1)
            except TimeoutError:
                return
        self.cut = time.monotonic()

    def ended(self) -> float:
        """Wait for the cut."""
        self._reader.join()
        self._socket.close()
        if not self.cut:
            raise RuntimeError("the session was not cut within 30 s")
        return self.cut


class Stage:
    """Everything started, one service, one policy, one device; `api` is the owner's."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.hub, self.lab, self.laptop = (Home(name) for name in ("hub", "lab", "laptop"))
        for home in (self.hub, self.lab, self.laptop):
            stack.callback(home.close)
        echo = self.echo = EchoServer()
        threading.Thread(target=echo.serve_forever, daemon=True).start()
        stack.callback(echo.shutdown)
        self.hub.serve("session ls", "quickstart", "--no-demo")
        self.api = Api(self.hub.folder / "home" / "account.json")
        self.api.ask("POST", "/organizations/iam/users", {"email": USER})
        self._connector(echo.server_address[1])
        self.policy(True, method="POST")
        self.hub.said(
            *("socket", "create", SERVICE, "--upstream", f"tcp://127.0.0.1:{echo.server_address[1]}"),
            *("--connector", "lab", "--policy", "bench"),
        )  # fmt: skip
        self._forward: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.join()

    def _connector(self, port: int) -> None:
        words = self._printed("connector", "lab")
        self.lab.said(*words, "--listen-port", str(free_udp_port()))
        file = self.lab.folder / "connector.toml"
        file.write_text(file.read_text() + ALLOW.format(port=port))
        self.lab.serve("ready:", "connector", "start")

    def _printed(self, noun: str, name: str, *more: str) -> list[str]:
        """The words of the joining command that an invite prints."""
        words = shlex.split(self.hub.said(noun, "invite", name, *more).strip().splitlines()[-1])
        return words[words.index("join") - 1 :]

    def join(self) -> None:
        """Make the device one of the organisation, and open its forward."""
        self.laptop.said(*self._printed("device", DEVICE, "--user", USER))
        self.forward()

    def forward(self) -> None:
        """(Re)start the client; whatever held its tunnel is ended."""
        if self._forward is not None:
            children.end(self._forward)
            self.laptop.running.remove(self._forward)
        self.laptop.said("client", "stop")
        # The news that the service is there may still be on its way.
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._forward = self.laptop.serve(
                    "until Ctrl-C", "client", "tcp", SERVICE, "--listen", "0"
                )
                break
            except RuntimeError:
                self.laptop.running.pop()
                if time.monotonic() > deadline:
                    raise
        self.port = int(self.laptop.log.read_text().split(" until ")[0].rpartition(":")[2])

    def deafen(self) -> None:
        """Kill what holds the tunnel: nobody hears the control plane at this device any more."""
        lock = next(self.laptop.folder.rglob("*.lock"))
        os.kill(int(lock.read_text()), signal.SIGKILL)

    def session(self) -> Session:
        """A live session; what the last round took away may take a moment to come back."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return Session(self.port)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def policy(self, allows: bool, method: str = "PUT") -> None:
        """Let the user in, or nobody."""
        who = {"who": {"email": [USER if allows else "nobody@example.org"]}}
        body: dict[str, Any] = {"policy_data": {"permissions": {"tls": {}}, "condition": who}}
        if method == "POST":
            body["name"] = "bench"
        self.api.ask(method, "/policies" if method == "POST" else "/policy/bench", body)

    def live(self, session: Session) -> str:
        """The session's id, as soon as its connector has told it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            for item in self.api.ask("GET", f"/sessions?socket={SERVICE}&live=true")["list"]:
                id = str(item["session_id"])
                if int(id.replace("-", "")[:12], 16) >= session.began:  # UUID version 7
                    return id
            time.sleep(0.2)
        raise RuntimeError("the live session was not listed")
