"""The control plane as a process of its own, browsers that talk to it over TLS, and people's homes.

It runs `twistd -n border0-control` in a folder of its own on a free port of loopback. A browser has
a loopback address of its own, so that one does not spend the rate limits of another.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.support import children
from tests.support.client import python_path
from tests.support.connector import TWISTD
from tests.support.web import Browser, Response

PATIENCE = 60.0
CODE = re.compile(r"^  code  ([B-Z]{4}-[B-Z]{4})$", re.M)
KEY = re.compile(r"^  key   ((?:[0-9a-f]{4} ){7}[0-9a-f]{4})$", re.M)
PAGE = re.compile(r"^Open (https://\S+)$", re.M)


def free_port() -> int:
    """A TCP port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class WebBrowser(Browser):
    """A browser of a person, at an address of loopback; it trusts the private authority only."""

    def __init__(self, control: ControlProcess, address: str) -> None:
        super().__init__(None, address)
        self.control, self.origin = control, control.url
        self.seen: list[Response] = []

    def exchange(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> Response:
        """One request over a connection of its own."""
        answer = self.control.request(method, path, headers, body, self.address)
        self.seen.append(answer)
        return answer

    def visit(self, url: str) -> Response:
        """Open a whole address, as one that was clicked or typed."""
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}" == self.origin, url
        return self.get(parts.path + (f"?{parts.query}" if parts.query else ""))

    def sign_in(self, login: str, password: str, code: str = "") -> Response:
        """Name and password, and the second factor if there is one to type."""
        if not self.location.startswith("/sign-in"):
            self.get("/sign-in")
        self.submit(login=login, password=password)
        return self.submit(code=code) if code else self.page

    def claim(self, typed: Typing) -> Response:
        """Open what a machine printed, and go on with the code that stands there."""
        self.visit(typed.page)
        return self.submit()

    def allow(self, typed: Typing) -> Response:
        """Confirm a machine after comparing code and key, as its owner should."""
        page = self.claim(typed)
        assert typed.code in page.text and typed.key in page.text, page.text
        return self.submit(answer="allow")


class Typing:
    """A command that waits for somebody to confirm it in a browser."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        assert child.stderr is not None
        said = ""
        while "Waiting" not in said:
            line = child.stderr.readline().decode()
            if not line:
                raise AssertionError(f"it ended: {said}")
            said += line
        self.said = said
        found = [pattern.search(said) for pattern in (CODE, KEY, PAGE)]
        assert all(found), said
        self.code, self.key, self.page = (match[1] for match in found if match)

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Wait for its end."""
        out, err = self.child.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess([], self.child.returncode, out.decode(), err.decode())


class ControlProcess:
    """A control plane in a folder of its own; `run` types commands in homes beside it."""

    def __init__(self, **settings: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="b0control-"))
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.state, self.log = self.folder / "state", self.folder / "log"
        self.said: list[str] = []
        self._children: list[subprocess.Popen[bytes]] = []
        self._browsers = 10
        table = {
            "url": self.url,
            "listen": [f"127.0.0.1:{self.port}"],
            "state_dir": "state",
            **settings,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        self.file = self.folder / "control.toml"
        self.file.write_text("[control]\n" + "\n".join(lines) + "\n")
        self.start()

    def start(self) -> None:
        """Start the process and wait until it serves."""
        self.log.unlink(missing_ok=True)
        self.child = children.spawn(
            [TWISTD, "-n", "--pidfile=", "border0-control", "--config", str(self.file),
             "--log-format", "json", "--log-level", "debug"],
            environment=self.environment("server"),
            folder=self.folder,
            output=self.log,
        )  # fmt: skip
        self.wait_for(f"ready: {self.url}")
        authority = next(iter((self.state / "authority").glob("*.pem")))
        self._tls = ssl.create_default_context(cafile=str(authority))

    def wait_for(self, text: str) -> None:
        """Wait until the log has a text."""

        def there() -> bool:
            assert self.child.poll() is None, self.log.read_text()
            return text in self.log.read_text()

        children.wait_until(there, PATIENCE, f"{text!r} in the log")

    @property
    def pin(self) -> str:
        """The pin of its authority, as it was printed."""
        found = re.search(r"sha256:[0-9a-f]{64}", self.log.read_text())
        assert found, self.log.read_text()
        return found[0]

    def link(self) -> str:
        """The set-up link in the state folder."""
        file = self.state / "setup-link"
        assert file.stat().st_mode & 0o077 == 0
        return file.read_text().strip()

    def fresh_link(self) -> str:
        """Another set-up link, made as an administrator does: SIGHUP."""
        before = self.link()
        self.child.send_signal(signal.SIGHUP)
        children.wait_until(lambda: self.link() != before, PATIENCE, "another link")
        return self.link()

    def request(
        self,
        method: str,
        path: str,
        headers: list[tuple[str, str]],
        body: bytes = b"",
        address: str = "127.0.0.1",
    ) -> Response:
        """One exchange from a loopback address."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1",
            self.port,
            timeout=PATIENCE,
            context=self._tls,
            source_address=(address, 0),
        )
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            if body or method != "GET":
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
            lines += [f"{name}: {value}" for name, value in answer.getheaders()]
            return Response("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + answer.read())

    def ask(
        self,
        method: str,
        path: str,
        token: str,
        value: Any = None,
        *,
        address: str = "127.0.0.1",
        headers: dict[str, str] | None = None,
    ) -> Response:
        """One request to the API."""
        sent = [("Authorization", f"Bearer {token}"), *(headers or {}).items()]
        body = b""
        if value is not None:
            body = json.dumps(value).encode()
            sent.append(("Content-Type", "application/json"))
        return self.request(method, f"/api/v1{path}", sent, body, address)

    def browser(self) -> WebBrowser:
        """Another browser, at another address."""
        self._browsers += 1
        return WebBrowser(self, f"127.0.0.{self._browsers}")

    def home(self, name: str) -> Path:
        """The home folder of a person or machine."""
        return self.folder / f"home-{name}"

    def environment(self, home: str, **more: str) -> dict[str, str]:
        """What programs get."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "BORDER0_HOME": str(self.home(home)),
            "PYTHONPATH": python_path(),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "LC_ALL": "C.UTF-8",
            **more,
        }

    def spawn(self, *words: str, home: str, **more: str) -> subprocess.Popen[bytes]:
        """Start `border0 WORDS` with pipes."""
        child = children.spawn(
            [sys.executable, "-P", "-m", "border0.cli.main", *words],
            environment=self.environment(home, **more),
            folder=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._children.append(child)
        return child

    def run(
        self, *words: str, home: str, status: int | None = 0, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `border0 WORDS` to its end, which must be `status` (None: any)."""
        child = self.spawn(*words, home=home, **more)
        try:
            out, err = (part.decode() for part in child.communicate(timeout=PATIENCE))
        finally:
            children.end(child, signal.SIGKILL)
        self.said += [out, err]
        assert "Traceback" not in err, err
        assert status in (None, child.returncode), (words, child.returncode, out, err)
        return subprocess.CompletedProcess(words, child.returncode, out, err)

    def told(self, *words: str, home: str) -> list[Any]:
        """The JSON objects that a command prints."""
        done = self.run(*words, "--json", home=home)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def login(self, home: str) -> Typing:
        """`border0 login`, waiting for a browser."""
        return Typing(self.spawn("login", self.url, "--ca", self.pin, home=home))

    def join(self, home: str, *words: str) -> Typing:
        """`border0 node join` without a code, waiting for a browser."""
        pin = () if self.home(home).exists() else ("--ca", self.pin)  # it knows it already
        return Typing(self.spawn("node", "join", self.url, *pin, *words, home=home))

    def token(self, home: str) -> str:
        """The token that a login left in a home."""
        return str(json.loads((self.home(home) / "account.json").read_text())["token"])

    def sql(self, statement: str, *values: object) -> list[Any]:
        """Do something to its database, as time or an accident would."""
        database = sqlite3.connect(self.state / "control.db", timeout=30)
        with contextlib.closing(database), database:
            return database.execute(statement, values).fetchall()

    def close(self) -> None:
        """End everything and remove the folder."""
        for home in self.folder.glob("home-*/client.sock"):
            with contextlib.suppress(Exception):
                self.run("client", "stop", home=home.parent.name.removeprefix("home-"))
        for child in reversed(self._children):
            children.end(child, signal.SIGTERM, patience=10)
        children.end(self.child, signal.SIGTERM, patience=20)
        shutil.rmtree(self.folder, ignore_errors=True)
