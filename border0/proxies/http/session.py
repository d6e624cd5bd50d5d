"""The proxy's machine: one client connection, and one upstream connection at a time.

Source: RFC 9112 (messages, §9 connections), RFC 9110 §7 (intermediaries), §15.2 (1xx), §7.8
(Upgrade). Requests are taken one after the other; bytes behind the current one wait. Bodies pass
in the pieces in which they come. It opens no connection and reads no clock: after each call the
adapter looks at `release`, `connect`, `to_upstream` and `end_upstream`, in this order. With a
`refusal` no connection is asked for.
"""

from collections.abc import Sequence

from border0.proxies.http import fields, pages
from border0.proxies.http.exchange import Exchange
from border0.proxies.http.limits import (
    ABORT,
    ANSWER_SECONDS,
    BODY_SECONDS,
    GONE,
    HALF_CLOSED_SECONDS,
    INTERIM_LIMIT,
    NOW,
    REFUSED_METHODS,
    STALE_SECONDS,
)
from border0.proxies.http.machine import Machine
from border0.proxies.http.reader import End, Reader
from border0.proxies.http.wire import (
    CHUNKED,
    CLOSE,
    HttpError,
    RequestHead,
    ResponseHead,
    host_and_path,
    keeps_alive,
)


class Session(Machine):
    """One client connection.

    :param host: what Host says to the service.
    :param own: the fields that the proxy adds, save X-Forwarded-Host.
    :param now: seconds, monotonic.
    """

    def __init__(self, host: bytes, own: Sequence[tuple[bytes, bytes]], now: float) -> None:
        self._host = host
        self._own = [*own, (b"X-Forwarded-Proto", b"http")]
        self._reserved = [*self._own, (b"X-Forwarded-Host", b"")]
        super().__init__(now)
        self._responses = Reader(requests=False)
        self._dialling = False
        self._upstream = False
        self._used = False  # the upstream connection has answered a request before
        self._idle_since = 0.0
        self._interim = 0
        self._upstream_keeps = True
        self.tunnel = False
        self.to_upstream: list[bytes] = []
        self.connect = False
        self.release = False
        self.end_upstream = False

    # -- what the client does ---------------------------------------------------------------

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the client."""
        if self.tunnel:
            exchange = self._exchange
            if exchange is not None:
                exchange.bytes_in += len(data)
            self.to_upstream.append(data)
        else:
            super().receive(data, now)

    def client_ended(self, now: float) -> None:
        """The client sends no more."""
        self._client_ended = True
        exchange = self._exchange
        if self.tunnel:
            self.end_upstream = True
        elif exchange is None:
            self.closing = self.closing or NOW
        elif not exchange.complete:
            self.abandon("the client's request broke off")
        else:
            exchange.close = True
            if not exchange.answered:
                self.deadline = now + HALF_CLOSED_SECONDS

    def abandon(self, reason: str) -> None:
        """The client's connection is gone, or is to go at once."""
        exchange = self._exchange
        if exchange is not None:
            if self.tunnel:
                self._finish(exchange)
            else:
                exchange.status = exchange.status or GONE
                self._finish(exchange, "failed", reason)
        self._drop_upstream()
        self.closing = NOW

    def _advance(self, now: float) -> None:
        try:
            while not self.closing and not self.tunnel:
                exchange = self._exchange
                if exchange is None:
                    part = self._requests.next()
                    if part is None:
                        if self._client_ended:
                            self.closing = NOW
                        return
                    assert isinstance(part, RequestHead)
                    self._begin(part, now)
                elif exchange.complete or not self._upstream:
                    return
                else:
                    part = self._requests.next()
                    if part is None:
                        return
                    self._pass_on(exchange, part, now)
        except HttpError as error:
            self._malformed(error, now)

    def _begin(self, head: RequestHead, now: float) -> None:
        exchange = self._exchange = Exchange(head, now)
        exchange.close = not keeps_alive(head)
        self.deadline = None
        exchange.host, exchange.target = host_and_path(head)
        if head.method in REFUSED_METHODS:
            raise HttpError(405, f"{head.method.decode()} is not served here")
        if self.refusal is not None:
            lines = pages.refusal_text(self.refusal)
            self._reply(exchange, 403, lines, self.refusal.reason, now, "denied")
            return
        own = [*self._own, (b"X-Forwarded-Host", exchange.host)]
        if not exchange.host:
            own.pop()
        exchange.outgoing, exchange.upgrade = fields.upstream_head(
            head, exchange.target, self._host, own
        )
        stale = self._used and not exchange.repeatable and now - self._idle_since > STALE_SECONDS
        if self._upstream and stale:
            self._drop_upstream()
        if self._upstream:
            self._send_head(exchange, now)
        else:
            self._dial()

    def _send_head(self, exchange: Exchange, now: float) -> None:
        assert exchange.head is not None
        self._responses.method = exchange.head.method
        self._interim = 0
        self.to_upstream.append(exchange.outgoing)
        self.deadline = now + BODY_SECONDS

    def _pass_on(self, exchange: Exchange, part: object, now: float) -> None:
        head = exchange.head
        assert head is not None
        if isinstance(part, bytes):
            exchange.bytes_in += len(part)
            self.deadline = None if exchange.answered else now + BODY_SECONDS
            if head.length == CHUNKED:
                self.to_upstream += (b"%x\r\n" % len(part), part, b"\r\n")
            else:
                self.to_upstream.append(part)
        elif isinstance(part, End):
            exchange.complete = True
            if head.length == CHUNKED:
                self.to_upstream.append(fields.trailer_block(part.trailers, self._reserved))
            self.deadline = None if exchange.answered else now + ANSWER_SECONDS

    def _malformed(self, error: HttpError, now: float) -> None:
        """What the client sent cannot be understood or is not served: answer, then close."""
        exchange = self._exchange
        if exchange is None:
            exchange = self._exchange = Exchange(None, now)
        self._drop_upstream()
        if exchange.answered:
            self._cut(exchange, str(error))
            return
        exchange.close = True
        self._reply(exchange, error.status, [f"{error}."], str(error), now)

    # -- what the upstream does -------------------------------------------------------------

    def _dial(self) -> None:
        self._dialling = self.connect = True

    def upstream_ready(self, now: float) -> None:
        """The connection that `connect` asked for stands."""
        self._dialling, self._upstream, self._used = False, True, False
        self._upstream_keeps = True
        self._responses = Reader(requests=False)
        exchange = self._exchange
        if exchange is None or self.closing:
            self._drop_upstream()
            return
        self._send_head(exchange, now)
        self._advance(now)

    def upstream_failed(self, status: int, reason: str, now: float) -> None:
        """The connection that `connect` asked for cannot be made."""
        self._dialling = False
        exchange = self._exchange
        if exchange is not None:
            self._bad_gateway(exchange, status, reason, now)

    def upstream_received(self, data: bytes, now: float) -> None:
        """Take bytes from the service."""
        exchange = self._exchange
        if not self._upstream:
            return
        if self.tunnel:
            if exchange is not None:
                exchange.bytes_out += len(data)
            self.to_client.append(data)
            return
        if exchange is None:
            self._drop_upstream()  # an answer that nobody asked for
            return
        self._responses.feed(data)
        try:
            while self._upstream and not self.tunnel:
                if self._exchange is not exchange:
                    return
                part = self._responses.next()
                if part is None:
                    return
                self._answer(exchange, part, now)
        except HttpError as error:
            self._lost(exchange, f"the service's answer is malformed: {error}", now)

    def upstream_ended(self, now: float) -> None:
        """The service sends no more: its connection is closed, or closing."""
        exchange = self._exchange
        if not self._upstream:
            return
        if self.tunnel:
            self.abandon("")
            return
        if exchange is None:
            self._drop_upstream()
            return
        end = self._responses.ended()
        if end is not None:
            self._answer(exchange, end, now)
        elif self._used and self._responses.idle and exchange.repeatable and not exchange.tried:
            # It closed an idle connection at the very moment of our request.
            exchange.tried = True
            self._drop_upstream()
            self._dial()
        else:
            self._lost(exchange, "the service closed the connection before its answer", now)

    def _answer(self, exchange: Exchange, part: object, now: float) -> None:
        if isinstance(part, bytes):
            exchange.bytes_out += len(part)
            if exchange.chunked:
                self.to_client += (b"%x\r\n" % len(part), part, b"\r\n")
            else:
                self.to_client.append(part)
        elif isinstance(part, ResponseHead):
            if part.status < 200:
                self._interim_answer(exchange, part)
            else:
                self._final_answer(exchange, part)
        elif isinstance(part, End):
            if exchange.chunked:
                self.to_client.append(fields.trailer_block(part.trailers))
            self._used, self._idle_since = True, now
            if not self._upstream_keeps or not exchange.complete or self._responses.waiting:
                self._drop_upstream()
            self._finish(exchange)
            self._after(exchange, now)

    def _interim_answer(self, exchange: Exchange, head: ResponseHead) -> None:
        self._interim += 1
        if head.status == 101:
            if not exchange.upgrade or not exchange.complete:
                raise HttpError(502, "it changes the protocol and nobody asked for that")
            exchange.status, exchange.answered = 101, True
            self.to_client.append(fields.client_head(head, chunked=False, close=False,
                                                     upgrade=True))  # fmt: skip
            self._become_tunnel()
        elif self._interim > INTERIM_LIMIT:
            raise HttpError(502, "there is no end to its interim answers")
        elif exchange.head is not None and exchange.head.minor:
            self.to_client.append(fields.client_head(head, chunked=False, close=False))

    def _become_tunnel(self) -> None:
        """From here on bytes pass unread, those first that came early."""
        self.tunnel, self.deadline = True, None
        exchange = self._exchange
        for reader, out in ((self._requests, self.to_upstream), (self._responses, self.to_client)):
            reader.raw()
            early = reader.next()
            if isinstance(early, bytes):
                out.append(early)
                if exchange is not None and reader is self._requests:
                    exchange.bytes_in += len(early)
                elif exchange is not None:
                    exchange.bytes_out += len(early)
        if self._client_ended:
            self.end_upstream = True

    def _final_answer(self, exchange: Exchange, head: ResponseHead) -> None:
        request = exchange.head
        assert request is not None
        exchange.status, exchange.answered = head.status, True
        self._upstream_keeps = keeps_alive(head) and head.length != CLOSE
        unsized = head.length in (CHUNKED, CLOSE)
        exchange.chunked = unsized and request.minor == 1
        exchange.open_ended = unsized and not exchange.chunked
        if not exchange.complete or self._client_ended or exchange.open_ended:
            exchange.close = True
        self.deadline = None
        self.to_client.append(
            fields.client_head(head, chunked=exchange.chunked, close=exchange.close)
        )

    # -- endings ----------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        """Act on the deadline, when it is over."""
        if self.deadline is None or now < self.deadline or self.closing:
            return
        self.deadline = None
        exchange = self._exchange
        if exchange is None:
            if self._requests.idle:
                self.closing = NOW
            else:
                self._malformed(HttpError(408, "the request came too slowly"), now)
        elif self._client_ended:
            self.abandon("the client left before the answer")
        elif not exchange.complete:
            self._malformed(HttpError(408, "the request's body came too slowly"), now)
        else:
            reason = f"the service gave no answer within {ANSWER_SECONDS:.0f} seconds"
            self._drop_upstream()
            self._bad_gateway(exchange, 504, reason, now)

    def _lost(self, exchange: Exchange, reason: str, now: float) -> None:
        """The upstream connection is of no more use in the middle of an exchange."""
        self._drop_upstream()
        if exchange.answered:
            self._cut(exchange, reason)
        else:
            self._bad_gateway(exchange, 502, reason, now)

    def _cut(self, exchange: Exchange, reason: str) -> None:
        """A response breaks off: the client must see that the body is not whole."""
        self._finish(exchange, "failed", reason)
        self.closing = ABORT if exchange.open_ended else NOW

    def _bad_gateway(self, exchange: Exchange, status: int, reason: str, now: float) -> None:
        lines = [f"{reason[:1].upper()}{reason[1:]}.", "An administrator must look at the service."]
        if not exchange.complete:
            exchange.complete = self._requests.drain()
        self._reply(exchange, status, lines, reason, now)

    def _reply(
        self,
        exchange: Exchange,
        status: int,
        lines: list[str],
        reason: str,
        now: float,
        result: str = "failed",
    ) -> None:
        """Our own answer to the request in progress."""
        head, body = pages.answer(status, lines, exchange.head)
        if not exchange.complete:
            exchange.close = True
        self.to_client.append(fields.client_head(head, chunked=False, close=exchange.close) + body)
        exchange.status, exchange.answered, exchange.bytes_out = status, True, len(body)
        self._finish(exchange, result, reason)
        self._after(exchange, now)

    def _after(self, exchange: Exchange, now: float) -> None:
        if exchange.close or self._client_ended:
            self._drop_upstream()
        super()._after(exchange, now)

    def _drop_upstream(self) -> None:
        if self._upstream or self._dialling:
            self.release = True
        self._upstream = self._dialling = self.connect = False
        self.to_upstream.clear()
