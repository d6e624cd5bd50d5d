"""The command line that every process of ours has: its file, how it logs, what it measures.

`--validate` reads the file, says what it holds and exits; a mistake is one line and a status.
"""

import os
import sys
from pathlib import Path
from typing import Any

from twisted.python import usage

from border0.errors import Border0Error
from border0.processes import logs


class ProcessOptions(usage.Options):
    """Each process names its `program` and its file, reads it and says what it holds."""

    program = ""
    optParameters = [
        ["log-format", None, "text", "How to log: text or json."],
        ["log-level", None, None, "debug, info, warn or error (or BORDER0_LOG_LEVEL; info)."],
        ["metrics-listen", None, None, "[ADDRESS:]PORT for /healthz, /readyz and /metrics."],
    ]
    optFlags = [["validate", None, "Check the file, say what it holds, and exit."]]
    compData = usage.Completions(optActions={"config": usage.CompleteFiles("*.toml")})

    loaded: Any

    def load(self, path: Path) -> Any:
        """Read the file; raises Border0Error."""
        raise NotImplementedError

    def told(self) -> str:
        """What the file that was read holds, in a few words."""
        raise NotImplementedError

    def postOptions(self) -> None:
        """Read the file before anything starts, so that a mistake is one clear line."""
        level = self["log-level"] or os.environ.get("BORDER0_LOG_LEVEL") or "info"
        self["log-level"] = level.lower()
        for name, allowed in (("log-format", logs.FORMATS), ("log-level", logs.LEVELS)):
            if self[name] not in allowed:
                self._exit(f"--{name} {self[name]}: expected one of {', '.join(allowed)}", 2)
        try:
            self.loaded = self.load(Path(self["config"]))
        except Border0Error as error:
            self._exit(str(error), 1)
        if self["validate"]:
            print(f"{self.loaded.file}: fine: {self.told()}")
            raise SystemExit(0)

    def _exit(self, message: str, status: int) -> None:
        print(f"{self.program}: {message}", file=sys.stderr)
        raise SystemExit(status)
