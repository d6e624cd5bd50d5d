"""One request and its response: what is known of it, and its record."""

from border0.audit.events import Value
from border0.proxies.http.wire import RequestHead

PATH_LIMIT = 4096
METHOD_LIMIT = 64
REPEATABLE = frozenset((b"GET", b"HEAD", b"OPTIONS"))


class Exchange:
    """A request in progress.

    :param head: the client's; None when it could not be read.
    :param now: seconds, monotonic.
    """

    __slots__ = (
        "answered",
        "bytes_in",
        "bytes_out",
        "chunked",
        "close",
        "complete",
        "head",
        "host",
        "open_ended",
        "outgoing",
        "reason",
        "result",
        "started",
        "status",
        "target",
        "tried",
        "upgrade",
    )

    def __init__(self, head: RequestHead | None, now: float) -> None:
        self.head = head
        self.host = b""
        self.target = b"" if head is None else head.target
        self.started = now
        self.outgoing = b""  # the head as the upstream gets it
        self.upgrade = b""
        self.complete = False  # the request has come to its end
        self.answered = False  # the head of the final response has been sent on
        self.chunked = False  # the response's body is sent in chunks
        self.close = False  # the client's connection ends after the response
        self.open_ended = False  # the body ends with the connection
        self.tried = False  # it was repeated on a new connection already
        self.status = 0
        self.bytes_in = 0  # of the request's body
        self.bytes_out = 0  # of the response's body
        self.result = "ok"
        self.reason = ""

    @property
    def repeatable(self) -> bool:
        """Whether sending it twice does what sending it once does, and nothing of it is lost."""
        head = self.head
        return head is not None and head.method in REPEATABLE and not head.length

    def fields(self, now: float) -> dict[str, Value]:
        """The members of its `http.request` record."""
        head = self.head
        return {
            "method": b"" if head is None else head.method[:METHOD_LIMIT],
            "path": _shown(self.target),
            "host": self.host[:255],
            "status": self.status,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "duration_ms": round((now - self.started) * 1000.0, 3),
            "decision": "denied" if self.result == "denied" else "allowed",
        }


def _shown(target: bytes) -> bytes:
    return target if len(target) <= PATH_LIMIT else target[:PATH_LIMIT] + b"..."
