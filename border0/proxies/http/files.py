"""The file server's decisions: which path, which answer, which bytes of a file, which listing.

Source: RFC 9110 §13 (conditional requests), §14 (ranges); RFC 3986 §2.1 (percent encoding). It
touches no disk: `adapters/disk` opens what `path_of` names. A path has plain segments only:
nothing that climbs, no hidden names, nothing that a disk reads in another way than a person.
"""

import mimetypes
import re
from calendar import timegm
from collections.abc import Sequence
from email.utils import formatdate, parsedate
from html import escape
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from border0.proxies.http.wire import Fields, HttpError, RequestHead

LISTING_LIMIT = 10_000
SEGMENT_LIMIT = 255
INDEX = b"index.html"
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})?")
_RANGE = re.compile(rb"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))", re.IGNORECASE)
_TYPES = mimetypes.MimeTypes()
_ENCODED = {"gzip": "application/gzip", "bzip2": "application/x-bzip2", "xz": "application/x-xz"}
_TEXT = ("application/json", "application/javascript", "application/xml", "image/svg+xml")

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body{{font:15px/1.6 system-ui,sans-serif;max-width:60em;margin:3em auto;padding:0 1em;
color-scheme:light dark}}h1{{font-size:1.3em;overflow-wrap:anywhere}}
table{{border-collapse:collapse;width:100%}}th{{text-align:left;opacity:.7;font-weight:normal}}
td,th{{padding:.15em .8em .15em 0;overflow-wrap:anywhere}}
.n{{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}}
</style></head><body><h1>{title}</h1><table>
<tr><th>name</th><th class="n">size</th><th class="n">changed (UTC)</th></tr>
{rows}</table>{note}</body></html>
"""
_ROW = (
    '<tr><td><a href="{link}">{name}</a></td><td class="n">{size}</td><td class="n">{time}</td>'
    "</tr>\n"
)


class Entry(NamedTuple):
    """One line of a listing."""

    name: bytes
    folder: bool
    size: int
    modified: float  # seconds since 1970


class File(NamedTuple):
    """What is known of an open file."""

    name: bytes
    size: int
    modified_ns: int


class Answer(NamedTuple):
    """Status, fields, and the bytes of the file that make the body."""

    status: int
    fields: Fields
    start: int
    length: int


def path_of(target: bytes) -> tuple[list[bytes], bool]:
    """The decoded segments of a target, and whether it names a folder (ends in a slash).

    :raises HttpError: 400 for broken percent encoding and control characters, 404 for segments
        that no visible file has: `..`, `.`, empty ones, hidden ones, slashes and backslashes.
    """
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        raise HttpError(404, "there is no such file")
    parts = path[1:].split(b"/")
    folder = parts[-1] == b""
    if folder:
        parts.pop()
    return [_segment(part) for part in parts], folder


def _segment(raw: bytes) -> bytes:
    part = _PERCENT.sub(_decoded, raw)
    if any(byte < 32 or byte == 127 for byte in part):
        raise HttpError(400, "the path holds control characters")
    if not part or part.startswith(b".") or b"/" in part or b"\\" in part:
        raise HttpError(404, "there is no such file")
    if len(part) > SEGMENT_LIMIT:
        raise HttpError(404, "there is no such file")
    return part


def _decoded(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        raise HttpError(400, "the path's percent encoding is broken")
    return bytes((int(match[1], 16),))


def is_visible(name: bytes) -> bool:
    """Whether a listing shows a name, and `path_of` lets it through."""
    return (
        not name.startswith(b".")
        and b"\\" not in name
        and not any(byte < 32 or byte == 127 for byte in name)
    )


def folder_link(segments: Sequence[bytes]) -> bytes:
    """The path of a folder, percent encoded, with its slash at the end."""
    return "".join(["/", *(quote_from_bytes(part, safe="") + "/" for part in segments)]).encode()


def content_type(name: bytes) -> bytes:
    """The media type that a file's name promises."""
    kind, encoding = _TYPES.guess_type(name.decode("utf-8", "replace"))
    if encoding is not None:
        kind = _ENCODED.get(encoding, "application/octet-stream")
    kind = kind or "application/octet-stream"
    if kind.startswith("text/") or kind in _TEXT:
        kind += "; charset=utf-8"
    return kind.encode()


def etag(file: File) -> bytes:
    """A validator that changes with size and time of change."""
    return b'"%x-%x"' % (file.modified_ns, file.size)


def answer(request: RequestHead, file: File) -> Answer:
    """The answer to a GET or HEAD of a file; of a HEAD no bytes are to be sent all the same."""
    tag = etag(file)
    seconds = file.modified_ns // 1_000_000_000
    validators: Fields = [
        (b"ETag", tag),
        (b"Last-Modified", formatdate(seconds, usegmt=True).encode()),
        (b"Cache-Control", b"private, no-cache"),
    ]
    if _unchanged(request, tag, seconds):
        return Answer(304, validators, 0, 0)
    fields = [
        (b"Content-Type", content_type(file.name)),
        (b"X-Content-Type-Options", b"nosniff"),
        (b"Accept-Ranges", b"bytes"),
        *validators,
    ]
    part = _range(request, file, tag, seconds)
    if part is None:
        return Answer(200, [*fields, _length(file.size)], 0, file.size)
    start, length = part
    if length <= 0:
        where = b"bytes */%d" % file.size
        return Answer(416, [(b"Content-Range", where), _length(0), *validators], 0, 0)
    where = b"bytes %d-%d/%d" % (start, start + length - 1, file.size)
    return Answer(206, [*fields, (b"Content-Range", where), _length(length)], start, length)


def _length(size: int) -> tuple[bytes, bytes]:
    return b"Content-Length", b"%d" % size


def _unchanged(request: RequestHead, tag: bytes, seconds: int) -> bool:
    wanted = request.values(b"if-none-match")
    if wanted:
        items = [item.strip() for value in wanted for item in value.split(b",")]
        return any(item == b"*" or item.removeprefix(b"W/") == tag for item in items)
    since = request.values(b"if-modified-since")
    known = _date(since[0]) if len(since) == 1 else None
    return known is not None and seconds <= known


def _date(value: bytes) -> int | None:
    try:
        parsed = parsedate(value.decode("ascii"))
        return None if parsed is None else timegm((*parsed[:6], 0, 0, 0))
    except (ValueError, OverflowError):
        return None


def _range(request: RequestHead, file: File, tag: bytes, seconds: int) -> tuple[int, int] | None:
    """(start, length) of the one range asked for; length <= 0: it lies outside. None: send all."""
    values = request.values(b"range")
    match = _RANGE.fullmatch(values[0].replace(b" ", b"")) if len(values) == 1 else None
    if match is None or request.method != b"GET":
        return None
    condition = request.values(b"if-range")
    if condition and condition[0] != tag and _date(condition[0]) != seconds:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(int(suffix), file.size)
        return file.size - length, length
    start = int(first)
    if start >= file.size:
        return start, 0
    end = file.size - 1 if last is None else min(int(last), file.size - 1)
    if last is not None and int(last) < start:
        return None
    return start, end - start + 1


def listing(segments: Sequence[bytes], entries: Sequence[Entry], cut: bool) -> bytes:
    """The page of a folder; `cut`: there are more entries than these."""
    shown = sorted(entries, key=lambda entry: (not entry.folder, entry.name.lower(), entry.name))
    rows = []
    if segments:
        rows.append(_ROW.format(link="../", name="../", size="", time=""))
    for entry in shown:
        slash = "/" if entry.folder else ""
        rows.append(
            _ROW.format(
                link=escape("./" + quote_from_bytes(entry.name, safe="") + slash),
                name=escape(entry.name.decode("utf-8", "replace")) + slash,
                size="" if entry.folder else size_text(entry.size),
                time=formatdate(entry.modified, usegmt=True)[5:-4],
            )
        )
    title = escape(b"/".join([b"", *segments, b""]).decode("utf-8", "replace"))
    note = "<p>There are more; this is a part.</p>" if cut else ""
    return _PAGE.format(title=title, rows="".join(rows), note=note).encode()


def size_text(size: int) -> str:
    """A size for people: 17 B, 2.4 MB."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
