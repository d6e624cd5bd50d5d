"""A control plane's HTTPS side in a thread, with whatever routes and certificate a test wants."""

from __future__ import annotations

import json
import ssl
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from border0.trust import PrivateCA

PREFIX = "/api/v1"
Answer = Any  # a body, or (status, body), or (status, body, headers)


class Asked:
    """One request: what a route's function gets, and what a test looks at afterwards."""

    def __init__(self, method: str, target: str, headers: dict[str, str], raw: bytes) -> None:
        self.method = method
        parts = urlsplit(target)
        self.path = parts.path.removeprefix(PREFIX)
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.headers = headers
        self.raw = raw

    @property
    def body(self) -> Any:
        return json.loads(self.raw) if self.raw else None


class FakeApi:
    """Serves `routes` ("METHOD /path" below the prefix) until `stop`."""

    def __init__(
        self,
        folder: Path,
        *,
        authority: PrivateCA | None = None,
        names: tuple[str, ...] = ("localhost",),
        addresses: tuple[str, ...] = ("127.0.0.1",),
        chain: tuple[bytes, bytes] | None = None,
    ) -> None:
        now = time.time()
        self.authority = authority or PrivateCA.open(folder, now)
        self.routes: dict[str, Callable[[Asked], Answer] | Answer] = {}
        self.asked: list[Asked] = []
        certificate, key = chain or self.authority.leaf(names, addresses, now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:
            file.write(certificate + key)
            file.flush()
            context.load_cert_chain(file.name)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    @property
    def pin(self) -> str:
        return self.authority.pin

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def calls(self, method: str = "") -> list[str]:
        """`METHOD /path` of what was asked, in order."""
        return [f"{one.method} {one.path}" for one in self.asked if method in ("", one.method)]

    def last(self, method: str, path: str) -> Asked:
        """The newest request of a route."""
        return [one for one in self.asked if (one.method, one.path) == (method, path)][-1]

    def answer(self, asked: Asked) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(asked)
        found = self.routes.get(f"{asked.method} {asked.path}", refusal(404, "nothing is here"))
        answer = found(asked) if callable(found) else found
        status, body, *more = answer if isinstance(answer, tuple) else (200, answer)
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        return status, raw, more[0] if more else {}


def refusal(status: int, message: str, code: str = "refused") -> tuple[int, Any]:
    """The API's error."""
    error = {"code": code, "message": message, "request_id": "0" * 32}
    return status, {"error": error, "error_message": message, "status_code": status}


def _handler(api: FakeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                pass  # a client that does not trust us, or has gone

        def serve(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body, more = api.answer(Asked(self.command, self.path, headers, raw))
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            if "Content-Length" not in more and status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = serve

        def log_message(self, *_: Any) -> None:
            """The test looks at `asked`."""

    return Handler
