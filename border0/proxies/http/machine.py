"""What the machines of the proxy and of the file server share: the client's side of a connection.

After each call the adapter carries out, in this order, what the machine's own outputs ask for,
then `to_client`, `finished` and `closing`; `deadline` says when to call `expire`.
"""

from border0.proxies.admission import Refusal
from border0.proxies.http.exchange import Exchange
from border0.proxies.http.limits import HEAD_SECONDS, HOLD_LIMIT, IDLE_SECONDS, LINGER
from border0.proxies.http.reader import Reader


class Machine:
    """One client connection.

    :param now: seconds, monotonic.

    With a `refusal` every request is answered with it.
    """

    tunnel = False

    def __init__(self, now: float) -> None:
        self.refusal: Refusal | None = None
        self.to_client: list[bytes] = []
        self.finished: list[Exchange] = []
        self.closing = ""  # LINGER, NOW or ABORT, for ever
        self.deadline: float | None = now + HEAD_SECONDS
        self._requests = Reader(requests=True)
        self._exchange: Exchange | None = None
        self._client_ended = False

    @property
    def full(self) -> bool:
        """Whether so much waits that the client must not send more for now."""
        return self._requests.waiting > HOLD_LIMIT

    @property
    def busy(self) -> bool:
        """Whether a request is in progress."""
        return self._exchange is not None

    def receive(self, data: bytes, now: float) -> None:
        """Take bytes from the client."""
        if self.closing:
            return
        if self._exchange is None and self._requests.idle:
            self.deadline = now + HEAD_SECONDS
        self._requests.feed(data)
        self._advance(now)

    def _advance(self, now: float) -> None:
        """Take from the client's bytes what can be dealt with now."""
        raise NotImplementedError

    def _finish(self, exchange: Exchange, result: str = "ok", reason: str = "") -> None:
        """The exchange is over: its record is due."""
        exchange.result, exchange.reason = result, reason
        self.finished.append(exchange)
        self._exchange = None

    def _after(self, exchange: Exchange, now: float) -> None:
        """The response is out: the next request, or the end."""
        if exchange.close or self._client_ended:
            self.closing, self.deadline = LINGER, None
            return
        self.deadline = now + (IDLE_SECONDS if self._requests.idle else HEAD_SECONDS)
        self._advance(now)
