"""Cuts the bytes of one direction into messages: a head, pieces of a body, an end.

Source: RFC 9112 §2.2 (line ends), §6 (bodies), §7.1 (chunks). Body bytes are handed on as they
came, in the pieces in which they came; only what is not understood yet is kept. Errors are found
in the order of the bytes, so however they are cut, the same message gives the same answer.
"""

from border0.proxies.http.wire import (
    CHUNK_LINE_LIMIT,
    CHUNKED,
    CLOSE,
    FIELD_COUNT_LIMIT,
    HEAD_LIMIT,
    TRAILER_LIMIT,
    Fields,
    HttpError,
    RequestHead,
    ResponseHead,
    chunk_size,
    field_line,
    request_length,
    request_line,
    response_length,
    status_line,
)

_START, _FIELDS, _BODY, _SIZE, _CHUNK, _CHUNK_END, _TRAILERS, _REST, _RAW = range(9)


class End:
    """The end of a message, with the trailers of a chunked one."""

    __slots__ = ("trailers",)

    def __init__(self, trailers: Fields) -> None:
        self.trailers = trailers


class Reader:
    """One direction of one connection.

    :param requests: whether requests come this way, or responses.

    `method` is that of the request which the next response answers. After `raw()` everything is
    body, for ever (an upgraded connection).
    """

    __slots__ = ("_at", "_data", "_fields", "_head", "_left", "_requests", "_seen", "_state",
                 "method")  # fmt: skip

    def __init__(self, *, requests: bool) -> None:
        self._requests = requests
        self._data = b""
        self._at = 0
        self._state = _START
        self._head: RequestHead | ResponseHead | None = None
        self._fields: Fields = []
        self._left = 0  # bytes of the body or chunk that are still to come
        self._seen = 0  # bytes of this head or of these trailers so far
        self.method = b"GET"

    @property
    def waiting(self) -> int:
        """Bytes that were fed and not handed on yet."""
        return len(self._data) - self._at

    @property
    def idle(self) -> bool:
        """Whether the stream stands between two messages."""
        return self._state == _START and not self._seen and not self.waiting

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        rest = self._data[self._at :]
        self._data = rest + data if rest else data
        self._at = 0

    def raw(self) -> None:
        """From here on there are no messages."""
        self._state = _RAW

    def next(self) -> RequestHead | ResponseHead | End | bytes | None:
        """The next part of the stream, None when more bytes are needed.

        :raises HttpError: what comes next is no HTTP.
        """
        while True:
            state = self._state
            if state in (_BODY, _CHUNK):
                if self._left:
                    return self._piece()
                if state == _BODY:
                    return self._end([])
                self._state = _CHUNK_END
            elif state >= _REST:
                return self._all()
            elif state == _CHUNK_END:
                if self.waiting < 2:
                    if self.waiting and self._data[self._at] != 13:
                        raise HttpError(400, "a chunk is longer than it says")
                    return None
                if self._data[self._at : self._at + 2] != b"\r\n":
                    raise HttpError(400, "a chunk is longer than it says")
                self._at += 2
                self._state = _SIZE
            else:
                line = self._line()
                if line is None:
                    return None
                part = self._take_line(line)
                if part is not None:
                    return part

    def drain(self) -> bool:
        """Throw away what waits of the message in progress; whether its end was there."""
        try:
            while (part := self.next()) is not None:
                if isinstance(part, End):
                    return True
        except HttpError:
            pass
        return False

    def ended(self) -> End | None:
        """The sender's direction ended: the end of a body that lasts until then, else None."""
        return self._end([]) if self._state == _REST else None

    def _take_line(self, line: bytes) -> RequestHead | ResponseHead | End | None:
        state = self._state
        if state == _SIZE:
            self._left, self._seen = chunk_size(line), 0
            self._state = _CHUNK if self._left else _TRAILERS
        elif state == _START:
            if not line and self._requests and self._seen == 2:
                return None  # one empty line before a request is forgiven
            self._head = request_line(line) if self._requests else status_line(line)
            self._state = _FIELDS
        elif line:
            if len(self._fields) >= FIELD_COUNT_LIMIT:
                raise HttpError(431, "there are too many header fields")
            self._fields.append(field_line(line))
        elif state == _TRAILERS:
            trailers, self._fields = self._fields, []
            return self._end(trailers)
        else:
            return self._begin()
        return None

    def _begin(self) -> RequestHead | ResponseHead:
        head = self._head
        assert head is not None
        head.fields, self._fields = self._fields, []
        if isinstance(head, RequestHead):
            head.length = request_length(head)
        else:
            head.length = response_length(head, self.method)
        self._head, self._seen = None, 0
        if isinstance(head, ResponseHead) and head.status < 200:
            self._state = _START  # an interim response: the final one is still to come
        elif head.length == CHUNKED:
            self._state = _SIZE
        elif head.length == CLOSE:
            self._state = _REST
        else:
            self._state, self._left = _BODY, head.length
        return head

    def _end(self, trailers: Fields) -> End:
        self._state, self._seen = _START, 0
        return End(trailers)

    def _piece(self) -> bytes | None:
        waiting = self.waiting
        if not waiting:
            return None
        left = self._left
        if waiting <= left:
            self._left = left - waiting
            return self._all()
        at = self._at
        self._at = at + left
        self._left = 0
        return self._data[at : self._at]

    def _all(self) -> bytes | None:
        data = self._data[self._at :] if self._at else self._data
        self._data, self._at = b"", 0
        return data or None

    def _line(self) -> bytes | None:
        """One line without its CRLF; None until it is complete."""
        state, data, start = self._state, self._data, self._at
        limit = CHUNK_LINE_LIMIT if state == _SIZE else HEAD_LIMIT
        if state == _TRAILERS:
            limit = TRAILER_LIMIT
        if state == _START and not self._seen and self.waiting and self._requests:
            # The first byte tells another protocol from HTTP: do not wait for a line end.
            if not 0x21 <= data[start] <= 0x7E and data[start] != 13:
                request_line(data[start : start + 1])
        room = limit - self._seen
        found = data.find(b"\n", start, start + room)
        if found < 0:
            if len(data) - start >= room:
                raise HttpError(400 if state == _SIZE else 431, "a message's head is too large")
            return None
        if found == start or data[found - 1] != 13:
            raise HttpError(400, "a line ends without a carriage return")
        self._at = found + 1
        self._seen = 0 if state == _SIZE else self._seen + found + 1 - start
        return data[start : found - 1]
