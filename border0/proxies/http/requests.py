"""The file server's machine: takes requests in turn, asks for an answer, sends it.

Source: RFC 9112. Bodies of requests are read and thrown away. It opens no file: `wanted` is the
request that waits for `respond`, and after a head with a body the adapter sends `body_left` bytes
through `body_sent` before the next request is looked at.
"""

from border0.proxies.http import pages
from border0.proxies.http.exchange import Exchange
from border0.proxies.http.fields import client_head
from border0.proxies.http.limits import (
    ABORT,
    BODY_SECONDS,
    GONE,
    NOW,
)
from border0.proxies.http.machine import Machine
from border0.proxies.http.reader import End
from border0.proxies.http.wire import (
    Fields,
    HttpError,
    RequestHead,
    ResponseHead,
    host_and_path,
    keeps_alive,
    tokens,
)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BODY_LIMIT = 1 << 20  # bytes of a request's body that are read to keep the connection


class RequestSession(Machine):
    """One client connection that is answered here.

    :param now: seconds, monotonic.
    """

    def __init__(self, now: float) -> None:
        super().__init__(now)
        self.wanted: Exchange | None = None
        self.body_left = 0

    def client_ended(self, now: float) -> None:
        """The client sends no more."""
        self._client_ended = True
        exchange = self._exchange
        if exchange is None:
            self.closing = self.closing or NOW
        elif not exchange.complete:
            self.abandon("the client's request broke off")
        else:
            exchange.close = True

    def abandon(self, reason: str) -> None:
        """The client's connection is gone, or is to go at once."""
        exchange = self._exchange
        if exchange is not None:
            exchange.status = exchange.status or GONE
            self.wanted = None
            self._finish(exchange, "failed", reason)
        self.closing = NOW

    def expire(self, now: float) -> None:
        """Act on the deadline, when it is over."""
        if self.deadline is None or now < self.deadline or self.closing:
            return
        self.deadline = None
        if self._exchange is None and self._requests.idle:
            self.closing = NOW
        elif self._exchange is None or not self._exchange.complete:
            self._malformed(HttpError(408, "the request came too slowly"), now)

    def _advance(self, now: float) -> None:
        try:
            while not self.closing and self.wanted is None and not self.body_left:
                exchange = self._exchange
                part = self._requests.next()
                if part is None:
                    if self._client_ended and exchange is None:
                        self.closing = NOW
                    return
                if isinstance(part, RequestHead):
                    self._begin(part, now)
                elif exchange is None:
                    return
                elif isinstance(part, End):
                    exchange.complete, self.deadline = True, None
                    self.wanted = exchange
                elif isinstance(part, bytes):
                    exchange.bytes_in += len(part)
                    self.deadline = now + BODY_SECONDS
                    if exchange.bytes_in > BODY_LIMIT:
                        raise HttpError(413, "the request's body is too large")
        except HttpError as error:
            self._malformed(error, now)

    def _begin(self, head: RequestHead, now: float) -> None:
        exchange = self._exchange = Exchange(head, now)
        exchange.close = not keeps_alive(head)
        self.deadline = now + BODY_SECONDS
        exchange.host, exchange.target = host_and_path(head)
        if self.refusal is not None:
            lines = pages.refusal_text(self.refusal)
            self._page(exchange, 403, lines, now, result="denied", reason=self.refusal.reason)
        elif head.method not in (b"GET", b"HEAD"):
            reason = "only GET and HEAD are served here"
            allow = (b"Allow", b"GET, HEAD")
            exchange.close = exchange.close or bool(head.length)
            self._page(exchange, 405, [f"{reason}."], now, allow, reason=reason)
        elif head.length and b"100-continue" in tokens(head.values(b"expect")) and head.minor:
            self.to_client.append(CONTINUE)

    def respond(self, status: int, fields: Fields, length: int, now: float) -> None:
        """Send the head of the answer to `wanted`; `length` bytes of body follow by `body_sent`."""
        exchange, self.wanted = self.wanted, None
        assert exchange is not None and exchange.head is not None
        head = ResponseHead(1, status, pages.phrase(status).encode())
        head.fields = fields
        exchange.close = exchange.close or self._client_ended
        exchange.status, exchange.answered = status, True
        self.to_client.append(client_head(head, chunked=False, close=exchange.close))
        self.body_left = 0 if exchange.head.method == b"HEAD" else length
        if not self.body_left:
            self._finish(exchange)
            self._after(exchange, now)

    def fail(self, error: HttpError, now: float) -> None:
        """Answer `wanted` with an error."""
        exchange, self.wanted = self.wanted, None
        assert exchange is not None
        self._page(exchange, error.status, [f"{error}."], now, reason=str(error))

    def body_sent(self, count: int, now: float) -> None:
        """So many bytes of the body went out; 0: there are no more although there should be."""
        exchange = self._exchange
        if exchange is None:
            return
        exchange.bytes_out += count
        self.body_left -= count
        if not count:
            self.body_left = 0
            self._finish(exchange, "failed", "the file became shorter while it was sent")
            self.closing = ABORT
        elif not self.body_left:
            self._finish(exchange)
            self._after(exchange, now)

    def _malformed(self, error: HttpError, now: float) -> None:
        exchange = self._exchange
        if exchange is None:
            exchange = self._exchange = Exchange(None, now)
        exchange.close = True
        self._page(exchange, error.status, [f"{error}."], now, reason=str(error))

    def _page(
        self,
        exchange: Exchange,
        status: int,
        lines: list[str],
        now: float,
        *extra: tuple[bytes, bytes],
        result: str = "failed",
        reason: str = "",
    ) -> None:
        head, body = pages.answer(status, lines, exchange.head, *extra)
        if not exchange.complete:
            # For a request without a body the end is only a formality.
            part = None if exchange.close else self._requests.next()
            exchange.complete = isinstance(part, End)
            exchange.close = exchange.close or not exchange.complete
        self.to_client.append(client_head(head, chunked=False, close=exchange.close) + body)
        exchange.status, exchange.bytes_out = status, len(body)
        self._finish(exchange, result, reason)
        self._after(exchange, now)
