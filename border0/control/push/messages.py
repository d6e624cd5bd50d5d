"""The wire of push: JSON text frames, one message each, told apart by the field `t`.

The server speaks first: challenge. The node answers with hello, whose signature is over
`proof(nonce, node)`. Then the server sends welcome and exactly one of resume, delta or full
(a map larger than one frame as begin, part ..., end), and later deltas, soft state, commands,
keepalives; each side may close with bye. A node sends its records in batches, one at a time, and
each is answered by recorded.

| field | meaning |
|---|---|
| from, to | organisation revisions between which a delta leads |
| map_hash | the fingerprint of the whole map at `to` (see `maphash`): 64 lower-case hex digits |
| put | statements to set: type, id, hash, and the envelope's exact text; one that is too long for a frame comes in `parts` consecutive pieces |
| drop | [type, id] of statements that the node no longer needs |
| batch, index | of begin, part, end: one number per map, the parts counted from 0 |
| batch, part, more | of records: a number that rises on one connection, the parts counted from 0, whether another part follows |
| wants | what a node can take besides: words, of which this server knows `tickets` |
| stamp, ttl | soft state: the higher stamp wins on one connection; seconds until it is forgotten |

A field that a reader does not know is ignored. Nothing here checks a statement: the envelope is
opaque, and whoever acts on one verifies it first.
"""  # noqa: E501

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from border0 import errors
from border0.control.push.issuing import MAX_TICKETS
from border0.control.push.issuing import Ticket as Ticket
from border0.control.push.offer import MAX_ENDPOINTS, sound
from border0.control.push.offer import PathOffer as PathOffer

SUBPROTOCOL = "border0.push.v1"
VERSION = 1
MAX_FRAME = 1024 * 1024  # bytes of one message to a node
MAX_NODE_FRAME = 64 * 1024  # bytes of one message from a node
MAX_PIECE = 128 * 1024  # characters of an envelope in one frame (at most six bytes each)
MAX_STATEMENT = 8 * 1024 * 1024  # bytes of one envelope
MAX_MAP = 256 * 1024 * 1024  # bytes of all envelopes of a node
MAX_ENTRIES = 1_000_000  # statements of a node
MAX_FACTS = 1024  # soft facts in one frame
MAX_STUN = 16
TICKETS = "tickets"  # what a node wants that takes tickets
MAX_RECORDS = 2 * 1024 * 1024  # bytes of one batch of records
MAX_RECORD_PARTS = 256  # frames of one batch of records
MAX_REFUSALS = 256  # sockets in one status
PROOF_CONTEXT = b"border0 push proof v1\x00"


class ProtocolError(errors.ProtocolError):
    """The other side sent something that the push protocol does not allow."""


Key = tuple[str, str]  # (type, id) of a statement

_Kind = Annotated[str, Meta(pattern=r"\A[a-z][a-z0-9_-]{0,31}\Z")]
_Id = Annotated[str, Meta(pattern=r"\A[0-9a-z][0-9a-z-]{0,63}\Z")]
_Hash = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Revision = Annotated[int, Meta(ge=0, le=2**53)]
_Count = Annotated[int, Meta(ge=0, le=MAX_ENTRIES * 2)]
_Seconds = Annotated[float, Meta(ge=0, le=86400.0)]
_Short = Annotated[str, Meta(max_length=256)]
_Base64 = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9+/]{0,344}={0,2}\Z")]
_Endpoint = Annotated[str, Meta(pattern=r"\A[\x21-\x7e]{1,128}\Z")]
_Endpoints = Annotated[list[_Endpoint], Meta(max_length=MAX_ENDPOINTS)]
_Word = Annotated[str, Meta(pattern=r"\A[a-z][a-z-]{0,31}\Z")]
_Server = Annotated[
    str, Meta(pattern=r"\A([A-Za-z0-9.-]{0,253}|\[[0-9A-Fa-f:.]{2,45}\]):[1-9][0-9]{0,4}\Z")
]


class Put(Struct):
    """One statement, or piece `part` of `parts` of it."""

    type: _Kind
    id: _Id
    hash: _Hash
    statement: Annotated[str, Meta(max_length=MAX_FRAME)]
    part: Annotated[int, Meta(ge=0, le=1023)] = 0
    parts: Annotated[int, Meta(ge=1, le=1024)] = 1


_Puts = Annotated[list[Put], Meta(max_length=MAX_ENTRIES)]
_Drops = Annotated[list[tuple[_Kind, _Id]], Meta(max_length=MAX_ENTRIES)]


class Message(Struct, tag_field="t"):
    """Base of every message."""


class Challenge(Message, tag="challenge"):
    """Server: 32 random bytes to sign, in base64."""

    nonce: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9+/]{43}=\Z")]


class Hello(Message, tag="hello", omit_defaults=True):
    """Node: who it is, what it holds, and the signature (base64) over `proof`.

    `wants`: the messages that came later than the protocol and that it knows.
    """

    node: _Id
    versions: Annotated[list[Annotated[int, Meta(ge=0, le=65535)]], Meta(max_length=16)]
    revision: _Revision
    map_hash: _Hash
    signature: _Base64
    token: _Short = ""  # for an authenticator that wants one beside the signature
    wants: Annotated[list[_Word], Meta(max_length=16)] = []


class Welcome(Message, tag="welcome", omit_defaults=True):
    """Server: the hello is good; keepalives come every so many seconds.

    `stun`: whom to ask how the outside sees a node; ":3478" is the control plane's own host.
    """

    version: int
    keepalive: Annotated[float, Meta(ge=1.0, le=600.0)]
    stun: Annotated[list[_Server], Meta(max_length=MAX_STUN)] = []


class Resume(Message, tag="resume"):
    """Server: the node's map is the one of this revision."""

    revision: _Revision
    map_hash: _Hash


class Delta(Message, tag="delta", rename={"since": "from"}):
    """Server: what leads from one revision to another."""

    since: _Revision
    to: _Revision
    map_hash: _Hash
    put: _Puts
    drop: _Drops


class Full(Message, tag="full"):
    """Server: the whole map."""

    to: _Revision
    map_hash: _Hash
    put: _Puts


class Begin(Message, tag="begin", rename={"since": "from"}):
    """Server: a map that needs several frames; nothing of it counts before its end."""

    batch: _Revision
    kind: Annotated[str, Meta(pattern=r"\A(delta|full)\Z")]
    since: _Revision
    to: _Revision
    map_hash: _Hash


class Part(Message, tag="part"):
    """Server: some of a begun map."""

    batch: _Revision
    index: _Count
    put: _Puts
    drop: _Drops


class End(Message, tag="end"):
    """Server: the begun map is whole when it had so many parts."""

    batch: _Revision
    parts: _Count


class EndpointsFact(Struct, omit_defaults=True):
    """Where a node was last heard of by itself (`address:port` texts, best first).

    `path` is a `PathOffer` or None, whatever came.
    """

    node: _Id
    stamp: _Revision
    ttl: _Seconds
    endpoints: _Endpoints
    path: Any = None

    def __post_init__(self) -> None:
        """Drop a path part that is none: the endpoints still count."""
        self.path = sound(self.path, len(self.endpoints))


class Endpoints(Message, tag="endpoints"):
    """Server: soft state of other nodes."""

    facts: Annotated[list[EndpointsFact], Meta(max_length=MAX_FACTS)]


class PresenceFact(Struct):
    """Whether a node is connected; the address it was seen at, and how many seconds ago."""

    node: _Id
    stamp: _Revision
    ttl: _Seconds
    online: bool
    address: Annotated[str, Meta(max_length=64)]
    age: _Seconds


class Presence(Message, tag="presence"):
    """Server: soft state of other nodes."""

    facts: Annotated[list[PresenceFact], Meta(max_length=MAX_FACTS)]


class Tickets(Message, tag="tickets"):
    """Server: what lets this node into relays for `ttl` seconds; all of them each time."""

    ttl: _Seconds
    tickets: Annotated[list[Ticket], Meta(max_length=MAX_TICKETS)]


class Command(Message, tag="command"):
    """Server: do this once and acknowledge it; it may come again after a reconnect."""

    id: _Id
    verb: Annotated[str, Meta(pattern=r"\A[a-z][a-z._-]{0,31}\Z")]
    arguments: Annotated[
        dict[
            Annotated[str, Meta(max_length=64)],
            Annotated[str, Meta(max_length=1024)],
        ],
        Meta(max_length=16),
    ]


class Ack(Message, tag="ack"):
    """Node: the command is done, or why not."""

    id: _Id
    ok: bool
    detail: _Short = ""


class Applied(Message, tag="applied"):
    """Node: its map is now that of this revision."""

    revision: _Revision


class Resync(Message, tag="resync"):
    """Node: it missed something; it wants its whole map, and this is what it has."""

    revision: _Revision
    reason: _Short = ""


class Report(Message, tag="report", omit_defaults=True):
    """Node: its own endpoints, best first; `path` is a `PathOffer` or None, whatever came."""

    endpoints: _Endpoints
    path: Any = None

    def __post_init__(self) -> None:
        """Drop a path part that is none: the endpoints still count."""
        self.path = sound(self.path, len(self.endpoints))


class Records(Message, tag="records"):
    """Node: part `part` of a batch of record lines, which are joined by line feeds."""

    batch: _Revision
    part: Annotated[int, Meta(ge=0, lt=MAX_RECORD_PARTS)]
    more: bool
    data: Annotated[str, Meta(min_length=1, max_length=MAX_NODE_FRAME)]


class Recorded(Message, tag="recorded"):
    """Server: the batch is stored, or why not; then it may come again, as another batch."""

    batch: _Revision
    ok: bool
    detail: _Short = ""


class Status(Message, tag="status"):
    """Node: the sockets that it does not serve, and why; all of them each time."""

    refusals: Annotated[dict[_Id, _Short], Meta(max_length=MAX_REFUSALS)]


class Keepalive(Message, tag="keepalive"):
    """Either side, when it was silent for a while; the server's says what the node should have."""

    revision: _Revision = 0
    map_hash: str = ""


class Bye(Message, tag="bye"):
    """Either side, before it closes: one word why, and how many seconds to stay away."""

    reason: _Word
    retry_after: _Seconds = 0.0


ToNode = (
    Challenge
    | Welcome
    | Resume
    | Delta
    | Full
    | Begin
    | Part
    | End
    | Endpoints
    | Presence
    | Tickets
    | Command
    | Recorded
    | Keepalive
    | Bye
)
ToServer = Hello | Ack | Applied | Resync | Report | Records | Status | Keepalive | Bye

_to_node: msgspec.json.Decoder[ToNode] = msgspec.json.Decoder(ToNode)
_to_server: msgspec.json.Decoder[ToServer] = msgspec.json.Decoder(ToServer)
_encode = msgspec.json.Encoder().encode

T = TypeVar("T")


def parse_to_node(frame: bytes) -> ToNode:
    """A message from the server.

    :raises ProtocolError: any bytes that are not exactly one.
    """
    return _parse(_to_node, frame, MAX_FRAME)


def parse_to_server(frame: bytes) -> ToServer:
    """A message from a node.

    :raises ProtocolError: any bytes that are not exactly one.
    """
    return _parse(_to_server, frame, MAX_NODE_FRAME)


def _parse(decoder: "msgspec.json.Decoder[T]", frame: bytes, limit: int) -> T:
    if len(frame) > limit:
        raise ProtocolError(f"a message of {len(frame)} bytes; at most {limit} are allowed")
    try:
        return decoder.decode(frame)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ProtocolError(f"not a push message: {error}") from None


def encode(message: Message) -> bytes:
    """The frame of a message.

    :raises ValueError: it is longer than a frame may be.
    """
    frame = _encode(message)
    if len(frame) > MAX_FRAME:
        raise ValueError(f"a {type(message).__name__} of {len(frame)} bytes fits in no frame")
    return frame


def proof(nonce: bytes, node: str) -> bytes:
    """What the machine key signs: the context, the nonce and the node's id.

    :raises ValueError: the nonce has not 32 bytes.
    """
    if len(nonce) != 32:
        raise ValueError("a nonce has 32 bytes")
    return PROOF_CONTEXT + nonce + node.encode("ascii")
