"""Stands in for a node, an agent or a connector: a Unix socket that gives fixed answers."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Answer = Mapping[str, Any]


class LocalServer:
    """Answers each verb with its answers in turn, the last for ever; `asked` has the requests.

    An answer of "" is none: the connection is closed.
    """

    def __init__(self, path: Path, **answers: Answer | Sequence[Answer | str]) -> None:
        self.answers = {name.replace("_", " "): answer for name, answer in answers.items()}
        self.asked: list[dict[str, Any]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        # A thread in accept() does not see that the socket is closed.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as source:
                request = json.loads(source.readline())
                self.asked.append(request)
                answer = self._answer(str(request["verb"]))
                if answer:
                    connection.sendall(
                        json.dumps({"ok": True, "pid": 7, **answer}).encode() + b"\n"
                    )

    def _answer(self, verb: str) -> Any:
        found = self.answers.get(verb)
        if found is None:
            error = "this node does not know that request; it is of another version"
            return {"ok": False, "error": error, "kind": "config"}
        if isinstance(found, Mapping):
            return found
        count = sum(one["verb"] == verb for one in self.asked)
        return found[min(count, len(found)) - 1]
