"""Reads records back: lines into events, events into sessions, recordings into steps.

Source: `docs/records.md`; asciicast version 2. Readers are bounded and forgive what a killed
writer leaves: a last line that is not whole, and lines that are no JSON object, are passed over.
It opens no file; `adapters/archive` does.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

LINE_LIMIT = 8 << 20
"""Longest line that is read, in bytes; the text of a statement may be large."""
Event = dict[str, Any]


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The whole lines of a stream; one without line feed, or longer than the limit, is none."""
    rest = b""
    skipping = False
    for chunk in chunks:
        parts = (rest + chunk).split(b"\n")
        rest = parts.pop()
        for part in parts:
            if not skipping and len(part) <= LINE_LIMIT:
                yield part
            skipping = False
        if len(rest) > LINE_LIMIT:
            rest, skipping = b"", True


def events(chunks: Iterable[bytes]) -> Iterator[Event]:
    """The records of a stream of bytes."""
    for line in lines(chunks):
        try:
            item = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(item, dict):
            yield item


def text(event: Mapping[str, Any], *path: str) -> str:
    """A member, or a member of a member, as text; "" when it is absent or of another kind."""
    item: Any = event
    for name in path:
        item = item.get(name) if isinstance(item, Mapping) else None
    return item if isinstance(item, str) else "" if item is None else json.dumps(item)


def sessions(found: Iterable[Event]) -> dict[str, Event]:
    """One summary for each session of an audit stream, in the order of their starts.

    A summary has `session`, `user`, `device`, `address`, `socket`, `protocol`, `started`, `ended`,
    `status`, `result`, `bytes_in`, `bytes_out`, and `policy`, `reason` where they are known. One
    that was refused has no `session`; its record's id stands in its place.
    """
    summaries: dict[str, Event] = {}
    for event in found:
        kind = text(event, "type")
        if kind not in ("session.start", "session.end"):
            continue
        name = text(event, "session") or text(event, "id")
        summary = summaries.get(name)
        if summary is None:
            summary = summaries[name] = {
                "session": name,
                "user": text(event, "actor", "user"),
                "device": text(event, "actor", "device"),
                "address": text(event, "actor", "address"),
                "socket": text(event, "socket"),
                "protocol": text(event, "protocol"),
                "started": text(event, "started") or text(event, "time"),
                "ended": "",
                "status": "live",
                "result": text(event, "result"),
                "bytes_in": None,
                "bytes_out": None,
                "policy": "",
                "reason": "",
            }
        if kind == "session.end":
            summary["ended"] = text(event, "ended") or text(event, "time")
            summary["status"] = text(event, "status")
            summary["result"] = text(event, "result")
            summary["bytes_in"] = event.get("bytes_in")
            summary["bytes_out"] = event.get("bytes_out")
        elif text(event, "result") != "ok":
            summary["ended"], summary["status"] = summary["started"], text(event, "result")
        summary["policy"] = text(event, "policy") or summary["policy"]
        summary["reason"] = text(event, "reason") or summary["reason"]
    return dict(sorted(summaries.items(), key=lambda item: str(item[1]["started"])))


def describe(event: Mapping[str, Any]) -> str:
    """What happened in one record, in a line of its own words; not escaped."""
    kind = text(event, "type")
    if kind == "query":
        return " ".join(text(event, "text").split())
    if kind == "http.request":
        return f"{text(event, 'method')} {text(event, 'path')} {text(event, 'status')}"
    if kind == "session.start":
        return text(event, "reason") or f"{text(event, 'protocol')} session".strip()
    if kind == "session.end":
        count = f"{text(event, 'bytes_in') or '?'} B in, {text(event, 'bytes_out') or '?'} B out"
        return f"{text(event, 'status')}, {count}"
    known = ("command", "path", "text", "file", "destination", "username", "reason")
    return " ".join(" ".join(text(event, name).split()) for name in known if name in event)


def printable(value: str) -> str:
    """The text with everything but printable characters escaped: fit for a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def cast_header(line: bytes) -> dict[str, Any] | None:
    """The header of an asciicast of version 2, None when it is none."""
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or header.get("version") != 2:
        return None
    return header


def cast_steps(
    found: Iterable[bytes], idle_limit: float | None = None
) -> Iterator[tuple[float, str, str]]:
    """(seconds to wait before it, kind, data) of an asciicast's events.

    :param found: its lines after the header.
    :param idle_limit: the longest wait that is not shortened, in seconds.
    """
    last = 0.0
    for line in found:
        try:
            at, kind, data = json.loads(line)
            moment = float(at)
        except (ValueError, TypeError, RecursionError):
            continue
        if not isinstance(kind, str) or not isinstance(data, str):
            continue
        wait = moment - last
        if not 0.0 <= wait < 1e9:  # also what is no number
            wait = 0.0
        last = moment
        whole = data.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
        yield (wait if idle_limit is None else min(wait, idle_limit)), kind, whole
