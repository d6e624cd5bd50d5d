"""Batches of records as calls with an answer: one at a time, over however many connections.

For whoever has the events of a `MapClient` and a way to let it act (`PushClient`, a follower that
has no connection yet). Not here: which records, and what to do after a refusal.
"""

from collections.abc import Callable, Iterable

from twisted.internet.defer import Deferred

from border0.control.push.client import MapClient
from border0.control.push.events import Event, Recorded

Act = Callable[[Callable[[MapClient, float], None]], None]  # such as `PushClient.act`


class RecordSender:
    """Call it with a batch of lines; tell it the machine's events by `happened`."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self._answer: Deferred[Recorded] | None = None

    def __call__(self, text: str) -> "Deferred[Recorded]":
        """Send record lines, joined by line feeds; fires with the server's answer.

        :raises ValueError: the last batch is not answered yet, or this is empty or too long.
        """

        def send(machine: MapClient, now: float) -> None:
            machine.send_records(text, now)

        self._act(send)
        answer = self._answer = Deferred()
        return answer

    def happened(self, events: Iterable[Event]) -> None:
        """Give the answer, if it is among these events; the next batch may be sent in it."""
        for event in events:
            if isinstance(event, Recorded) and self._answer is not None:
                answer, self._answer = self._answer, None
                answer.callback(event)
