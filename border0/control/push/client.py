"""The node's side of push: what it says, what it believes, when it doubts.

The machine lives as long as the node; connections come and go (`connected`, `disconnected`). It
asks for its whole map when a revision is missing or a fingerprint differs, and again until one
comes. It drops a connection on which nothing was heard for 90 seconds. It sends one batch of
records at a time, and again on the next connection until the server has answered it.

Not here: sockets, clocks, the machine key, when to connect again (`backoff`), and any judgement of
statements: what is in the map is what the server sent.
"""

from base64 import b64decode, b64encode
from collections import OrderedDict
from collections.abc import Callable, Mapping

from border0.control.push import messages as wire
from border0.control.push.backoff import BACKOFF_LAST as BACKOFF_LAST
from border0.control.push.backoff import backoff as backoff
from border0.control.push.events import (
    Applied,
    Behind,
    Bye,
    CommandReceived,
    Doubt,
    Event,
    InSync,
    Lost,
    Seen,
    SoftChanged,
    StunChanged,
    TicketsChanged,
)
from border0.control.push.issuing import FORGOTTEN, HeldTickets
from border0.control.push.messages import PathOffer, ProtocolError
from border0.control.push.nodemap import Gathering, NodeMap
from border0.control.push.said import report_of, status_of
from border0.control.push.softstate import SoftState
from border0.control.push.upload import UNANSWERED, Upload

OPENING = 30.0  # seconds until the server must have answered the hello
SILENT = 90.0  # seconds without a word after which the connection counts as dead
KEEPALIVE = 30.0
RESYNC_AGAIN = 10.0  # seconds until an unanswered question is asked again
MAX_ANSWERS = 1024  # commands remembered, so that none is done twice


class MapClient:
    """One node.

    Attributes: `map`; of other nodes `endpoints`, `paths` (which came with the endpoints) and
    `presence`; `stun`, the servers that the last welcome named; `tickets`, for relays.

    :param sign: the Ed25519 signature of the machine key over a message.
    :param state: the map from the disk, to start from.
    """

    def __init__(
        self,
        node: str,
        sign: Callable[[bytes], bytes],
        state: NodeMap | None = None,
        *,
        token: str = "",
    ) -> None:
        self.node = node
        self.map = state if state is not None else NodeMap()
        self.token = token
        self.synced = False  # the server said on this connection that the map is the newest
        self.endpoints: SoftState[list[str]] = SoftState()
        self.paths: SoftState[PathOffer | None] = SoftState()
        self.presence: SoftState[Seen] = SoftState()
        self._sign = sign
        self._write: Callable[[bytes], None] | None = None
        self._state = "off"  # off, challenge, hello, welcomed, open
        self._opened = self._heard = self._sent = 0.0
        self._asked: float | None = None
        self._older = False
        self._gathering: tuple[wire.Begin, Gathering] | None = None
        self._events: list[Event] = []
        self._answers: OrderedDict[str, wire.Ack | None] = OrderedDict()
        self.stun: list[str] = []
        self.tickets = HeldTickets()
        self._reported: wire.Report | None = None
        self._status: wire.Status | None = None
        self._upload = Upload()

    # -- the connection ---------------------------------------------------------------------

    def connected(self, write: Callable[[bytes], None], now: float) -> None:
        """A connection is open; frames go to `write`, the server speaks first."""
        self._reset()
        self._write = write
        self._state = "challenge"
        self._opened = self._heard = self._sent = now
        for facts in (self.endpoints, self.paths, self.presence):
            facts.restart()

    def disconnected(self, now: float) -> None:
        """The connection is gone; everything that was learnt stays."""
        if self._state != "off":
            self._events.append(Lost())
        self._reset()

    def _reset(self) -> None:
        self._write = None
        self._state = "off"
        self._gathering = None
        self._asked = None
        self.synced = False
        self._upload.disconnected()

    def _send(self, message: wire.Message, now: float) -> None:
        if self._write is not None:
            self._sent = now
            self._write(wire.encode(message))

    def take_events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def report(self, endpoints: list[str], now: float, path: PathOffer | None = None) -> None:
        """Tell the own endpoints (best first, at most 16), now and on each later connection.

        :raises ValueError: the path part does not belong to the endpoints, or is none.
        """
        self._reported = report_of(endpoints, path)
        if self._state == "open":
            self._send(self._reported, now)

    def status(self, refusals: Mapping[str, str], now: float) -> None:
        """Tell which sockets (ids) are not served, and why; all of them each time.

        It is told now and on each later connection.

        :raises ValueError: an id that no socket has.
        """
        self._status = status_of(refusals)
        if self._state == "open":
            self._send(self._status, now)

    def send_records(self, text: str, now: float) -> int:
        """Send a batch of record lines, joined by line feeds; `Recorded` tells the answer.

        It is held until then, and sent from its beginning on each later connection.

        :return: the number of the batch.
        :raises ValueError: the last one is not answered yet, or this one is empty or too long.
        """
        number = self._upload.begin(text)
        if self._state == "open":
            self._upload_now(now)
        return number

    def _upload_now(self, now: float) -> None:
        if self._write is not None and self._upload.text:
            self._sent = now
            self._upload.write(self._write, now)

    def answer(self, command: str, ok: bool, detail: str, now: float) -> None:
        """Acknowledge a command.

        :raises ValueError: none of this id was received lately.
        """
        if command not in self._answers:
            raise ValueError(f"no command {command}")
        ack = self._answers[command] = wire.Ack(command, ok, detail[:256])
        if self._state == "open":
            self._send(ack, now)

    def leave(self, now: float) -> None:
        """Tell the server that this is no accident; the caller closes."""
        if self._write is not None:
            self._send(wire.Bye("leaving"), now)

    # -- time -------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `expire` wants to be called; None without a connection."""
        if self._state == "off":
            return None
        deadlines = [self._heard + SILENT, self._sent + KEEPALIVE]
        if self._state != "open":
            deadlines.append(self._opened + OPENING)
        if self._asked is not None:
            deadlines.append(self._asked + RESYNC_AGAIN)
        if self._upload.written is not None:
            deadlines.append(self._upload.written + UNANSWERED)
        return min(deadlines)

    def expire(self, now: float) -> str:
        """Do what is due. A text that is not empty says why the caller must close."""
        if self._state == "off":
            return ""
        if now >= self._heard + SILENT:
            return "silent"
        if self._state != "open":
            return "no answer" if now >= self._opened + OPENING else ""
        if self._asked is not None and now >= self._asked + RESYNC_AGAIN:
            if self._older:
                return "behind"  # what it answers is older than what we have: try another time
            self._asked = None
            self._doubt("no answer to a resync", now)
        if self._upload.written is not None and now >= self._upload.written + UNANSWERED:
            return "records unanswered"
        if now >= self._sent + KEEPALIVE:
            self._send(wire.Keepalive(), now)
        return ""

    # -- messages ---------------------------------------------------------------------------

    def receive(self, frame: bytes, now: float) -> None:
        """One message of the server.

        :raises ProtocolError: it is none, or none that may come now; the caller closes.
        """
        if self._state == "off":
            return
        message = wire.parse_to_node(frame)
        self._heard = now
        if isinstance(message, wire.Bye):
            if message.reason in FORGOTTEN:
                self.tickets.clear()
            self._events.append(Bye(message.reason, message.retry_after))
        elif self._state == "challenge":
            self._challenged(message, now)
        elif self._state == "hello":
            self._welcomed(message)
        elif isinstance(message, wire.Resume | wire.Delta | wire.Full | wire.Begin):
            self._open(now)
            self._map_message(message, now)
        elif self._state != "open":
            self._early(message, now)
        elif isinstance(message, wire.Part | wire.End):
            self._batch_message(message, now)
        elif isinstance(message, wire.Keepalive):
            if message.revision > self.map.revision and self._gathering is None:
                self._doubt("behind the keepalive", now)
        else:
            self._other(message, now)

    def _challenged(self, message: wire.ToNode, now: float) -> None:
        if not isinstance(message, wire.Challenge):
            raise ProtocolError("the server does not begin with a challenge")
        proof = wire.proof(b64decode(message.nonce), self.node)
        signature = b64encode(self._sign(proof)).decode()
        hello = wire.Hello(
            self.node,
            [wire.VERSION],
            self.map.revision,
            self.map.map_hash,
            signature,
            self.token,
            [wire.TICKETS],
        )
        self._state = "hello"
        self._send(hello, now)

    def _welcomed(self, message: wire.ToNode) -> None:
        if not isinstance(message, wire.Welcome) or message.version != wire.VERSION:
            raise ProtocolError("the server does not welcome this version")
        self._state = "welcomed"
        if message.stun != self.stun:
            self.stun = message.stun
            self._events.append(StunChanged(message.stun))

    def _open(self, now: float) -> None:
        if self._state == "welcomed":
            self._state = "open"
            if self._reported is not None:
                self._send(self._reported, now)
            if self._status is not None:
                self._send(self._status, now)
            self._upload_now(now)

    def _early(self, message: wire.ToNode, now: float) -> None:
        """Commands held for this node may come before its map, nothing else may."""
        if not isinstance(message, wire.Command):
            raise ProtocolError(f"a {type(message).__name__} before the map")
        self._open(now)
        self._other(message, now)

    def _map_message(
        self, message: wire.Resume | wire.Delta | wire.Full | wire.Begin, now: float
    ) -> None:
        self._gathering = None
        if isinstance(message, wire.Begin):
            self._gathering = (message, Gathering())
            return
        if isinstance(message, wire.Resume):
            if message.map_hash != self.map.map_hash:
                self._doubt("another map", now)
            elif message.revision >= self.map.revision:
                self.map.revision = message.revision
                self._settled(now)
                self._events.append(InSync(message.revision))
            return
        gathering = Gathering()
        full = isinstance(message, wire.Full)
        gathering.add(message.put, [] if isinstance(message, wire.Full) else message.drop)
        since = message.to if isinstance(message, wire.Full) else message.since
        self._apply(full, since, message.to, message.map_hash, gathering, now)

    def _batch_message(self, message: wire.Part | wire.End, now: float) -> None:
        if self._gathering is None:
            self._doubt("a part of nothing", now)
            return
        begin, gathering = self._gathering
        expected = message.index if isinstance(message, wire.Part) else message.parts
        if begin.batch != message.batch or expected != gathering.parts:
            self._gathering = None
            self._doubt("a part is missing", now)
        elif isinstance(message, wire.Part):
            gathering.add(message.put, message.drop)
        else:
            self._gathering = None
            full = begin.kind == "full"
            self._apply(full, begin.since, begin.to, begin.map_hash, gathering, now)

    def _apply(
        self, full: bool, since: int, to: int, map_hash: str, gathering: Gathering, now: float
    ) -> None:
        gathering.finish()
        if to < self.map.revision:
            if full:
                self._older = True
                self._events.append(Behind(to))
                if self._asked is None:
                    self._asked = now
                self.synced = False
            return  # an old delta repeats what is known
        if not full and (since > self.map.revision or self._asked is not None):
            self._doubt("a revision is missing", now)
            return
        done = self.map.apply(to, map_hash, gathering.puts, gathering.drops, full=full)
        if done is None:
            self._doubt("another fingerprint", now)
            return
        for kind, name in done[1]:
            if kind == "node":  # when it comes back, the server tells the same facts again
                for facts in (self.endpoints, self.paths, self.presence):
                    facts.forget(name)
        self._settled(now)
        self._send(wire.Applied(to), now)
        self._events.append(Applied(to, full, *done))

    def _settled(self, now: float) -> None:
        self.synced = True
        self._asked = None
        self._older = False

    def _doubt(self, reason: str, now: float) -> None:
        """Ask for the whole map, unless that was just done."""
        self.synced = False
        if self._asked is None:
            self._asked = now
            self._older = False
            self._send(wire.Resync(self.map.revision, reason), now)
            self._events.append(Doubt(reason))

    def _other(self, message: wire.ToNode, now: float) -> None:
        if isinstance(message, wire.Endpoints):
            for where in message.facts:
                ttl, stamp = where.ttl, where.stamp
                if self.endpoints.put(where.node, stamp, ttl, where.endpoints, now):
                    self.paths.put(where.node, stamp, ttl, where.path, now)
                    self._events.append(SoftChanged("endpoints", where.node))
        elif isinstance(message, wire.Presence):
            for fact in message.facts:
                seen = Seen(fact.online, fact.address, now - fact.age)
                if self.presence.put(fact.node, fact.stamp, fact.ttl, seen, now):
                    self._events.append(SoftChanged("presence", fact.node))
        elif isinstance(message, wire.Tickets):
            self.tickets.replace(message.tickets, message.ttl, now)
            self._events.append(TicketsChanged())
        elif isinstance(message, wire.Command):
            self._command(message, now)
        elif isinstance(message, wire.Recorded):
            if (event := self._upload.answered(message)) is not None:
                self._events.append(event)
        else:
            raise ProtocolError(f"a {type(message).__name__} may not come now")

    def _command(self, message: wire.Command, now: float) -> None:
        if message.id in self._answers:
            ack = self._answers[message.id]
            if ack is not None:
                self._send(ack, now)
            return
        self._answers[message.id] = None
        while len(self._answers) > MAX_ANSWERS:
            self._answers.popitem(last=False)
        event = CommandReceived(message.id, message.verb, message.arguments)
        self._events.append(event)
