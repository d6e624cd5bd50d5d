"""What every process prints: one line an event, as text for people or as JSON for machines.

Control characters that a remote party sent are escaped, so that no log line can be forged and no
terminal sequence reaches an operator.
"""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
)
from zope.interface import directlyProvides

FORMATS = ("text", "json")
LEVELS = ("debug", "info", "warn", "error", "critical")


def printable(text: str) -> str:
    """`text` with every control character but the tab escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text
    )


def text_line(event: LogEvent) -> str:
    """`2026-01-31T12:00:00Z info  border0.connector: message`, tracebacks on further lines."""
    moment = datetime.fromtimestamp(event.get("log_time", 0.0), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    level = getattr(event.get("log_level"), "name", "info")
    head = (
        f"{moment} {level:<5} {event.get('log_namespace', '-')}: {printable(formatEvent(event))}\n"
    )
    if "log_failure" in event:
        classic = formatEventAsClassicLogText(event) or ""
        head += "".join(f"  {printable(line)}\n" for line in classic.splitlines()[1:])
    return head


def json_line(event: LogEvent) -> str:
    """One JSON object with time, level, source and message."""
    record = {
        "time": datetime.fromtimestamp(event.get("log_time", 0.0), UTC).isoformat(),
        "level": getattr(event.get("log_level"), "name", "info"),
        "source": event.get("log_namespace", "-"),
        "message": formatEvent(event),
    }
    if "log_failure" in event:
        record["traceback"] = formatEventAsClassicLogText(event) or ""
    return json.dumps(record) + "\n"


def observer(kind: str, level: str, stream: TextIO | None = None) -> Callable[[LogEvent], None]:
    """An observer that writes events of `level` and above to `stream` (standard output)."""
    line: Callable[[LogEvent], str] = json_line if kind == "json" else text_line
    out = sys.stdout if stream is None else stream
    lowest = LogLevel.lookupByName(level)

    def write(event: LogEvent) -> None:
        found: Any = event.get("log_level") or LogLevel.info
        if found < lowest:
            return
        # Twisted announces every factory and port by itself; people asked for our events.
        source = event.get("log_namespace", "")
        if source.startswith(("twisted.", "log_legacy")) and found < LogLevel.warn:
            return
        try:
            out.write(line(event))
            out.flush()
        except (OSError, ValueError):
            pass  # a closed terminal must not end the process

    directlyProvides(write, ILogObserver)
    return write
