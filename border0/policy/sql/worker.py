"""The child process that parses large texts: frames in, frames out, until its input ends.

Run as `python -m border0.policy.sql.worker`. It may die: a text that exhausts the stack
of the parser ends this process and nothing else. It holds no secret and opens no file.

A frame, both ways:

    offset  size  name
    0       4     length of the body, big-endian
    4       n     body: the text (in), the packed classification as JSON (out)

At its start it writes one empty frame: from then on it answers.
"""

import json
import sys
from typing import BinaryIO

from border0.policy.sql.classification import unclassified
from border0.policy.sql.postgres import classify

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

MEMORY = 1024 * 1024 * 1024
# Deeper trees than the main process could take; far below what exhausts this one's stack.
RECURSION = 5_000


def _limit() -> None:
    sys.setrecursionlimit(RECURSION)
    if resource is None:
        return
    for limit, value in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CORE, 0)):
        try:
            resource.setrlimit(limit, (value, value))
        except (ValueError, OSError):
            pass  # a lower limit is already set


def _write(out: BinaryIO, body: bytes) -> None:
    out.write(len(body).to_bytes(4, "big") + body)
    out.flush()


def serve(incoming: BinaryIO, out: BinaryIO) -> None:
    """Answer every frame of `incoming` until it ends."""
    _write(out, b"")
    while True:
        head = incoming.read(4)
        if len(head) < 4:
            return
        length = int.from_bytes(head, "big")
        sql = incoming.read(length)
        if len(sql) < length:
            return
        try:
            answer = classify(sql)
        except MemoryError:
            answer = unclassified("the text needs too much memory")
        _write(out, json.dumps(answer.pack()).encode())


def main() -> None:
    """Serve standard input and output."""
    _limit()
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
