"""Commands to nodes that are not answered yet: kept to be sent again, until their time is over."""

from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from border0.control.push import messages as wire
from border0.control.push.messages import ProtocolError

MAX_COMMANDS = 256  # unanswered ones of one node


class Commands:
    """Those of one hub.

    :param random_bytes: makes their ids.
    :param answered: is told node, command, ok and detail, once for each command.
    """

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        answered: Callable[[str, str, bool, str], None],
    ) -> None:
        self._random_bytes = random_bytes
        self._answered = answered
        self._waiting: dict[str, dict[str, tuple[bytes, float]]] = {}

    def add(
        self, node: str, verb: str, arguments: Mapping[str, str], until: float
    ) -> tuple[str, bytes]:
        """A new command's id and frame; of too many for one node the oldest is given up.

        :raises ValueError: a verb or arguments that no command may have.
        """
        name = str(UUID(bytes=self._random_bytes(16), version=4))
        frame = wire.encode(wire.Command(name, verb, dict(arguments)))
        try:
            wire.parse_to_node(frame)
        except ProtocolError as error:
            raise ValueError(str(error)) from None
        waiting = self._waiting.setdefault(node, {})
        if len(waiting) >= MAX_COMMANDS:
            oldest = next(iter(waiting))
            del waiting[oldest]
            self._answered(node, oldest, False, "too many commands wait for this node")
        waiting[name] = (frame, until)
        return name, frame

    def frames(self, node: str) -> Iterable[bytes]:
        """What a node that has just connected must be sent (again)."""
        return [frame for frame, _ in self._waiting.get(node, {}).values()]

    def acknowledge(self, node: str, message: wire.Ack) -> None:
        """The node's answer; one that nobody waits for is ignored."""
        waiting = self._waiting.get(node, {})
        if waiting.pop(message.id, None) is not None:
            if not waiting:
                del self._waiting[node]
            self._answered(node, message.id, message.ok, message.detail)

    def expire(self, now: float) -> None:
        """Give up those whose time is over."""
        for node, waiting in list(self._waiting.items()):
            for name in [name for name, (_, until) in waiting.items() if until <= now]:
                del waiting[name]
                self._answered(node, name, False, "the node did not answer in time")
            if not waiting:
                self._waiting.pop(node, None)
