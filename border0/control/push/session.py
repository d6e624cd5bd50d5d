"""One connected node as the server sees it: what it was told last and what it must still be told.

Changes are never queued as messages: a session holds the keys of statements that changed, and looks
up their newest state when it may write. A reader that is slower than the changes skips to the
newest, and what is held for it is bounded by its map. A map larger than one frame is cut lazily, a
frame whenever the transport can take one.

Not here: who is told what and when (`server.Hub`), sockets and clocks.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Protocol

from border0.control.push import frames
from border0.control.push import messages as wire
from border0.control.push.issuing import Wish
from border0.control.push.maphash import text
from border0.control.push.messages import Key

FRAME = 256 * 1024  # bytes of statements after which a frame is closed; a piece may overshoot
SLACK = 256  # pending keys beyond which they are compared with the size of the map


class View(Protocol):
    """The map of one node as it is now. The envelope of an entry is asked for by `fetch`."""

    @property
    def revision(self) -> int:
        """The organisation's revision."""

    @property
    def fingerprint(self) -> int:
        """The sum of `maphash` over all entries."""

    def entries(self) -> Mapping[Key, str]:
        """The hash of each statement; a copy or a mapping that does not change."""

    def hash_of(self, key: Key) -> str | None:
        """The hash of one statement, None when the map has it not."""

    def fetch(self, key: Key) -> bytes:
        """The envelope of one statement of the map."""


RANK = {"signers": 0, "head": 2}  # who may sign comes first, what must be there last


def order(keys: Iterable[Key]) -> list[Key]:
    """Keys in the order in which a node should read them."""
    return sorted(keys, key=lambda key: (RANK.get(key[0], 1), key))


class PieceCache:
    """Statements as JSON, kept while one round of flushes lasts: many nodes get the same ones."""

    def __init__(self) -> None:
        self._pieces: dict[tuple[Key, str], list[bytes]] = {}
        self._joined: dict[frozenset[tuple[Key, str]], bytes] = {}

    def pieces(self, key: Key, digest: str, envelope: bytes) -> list[bytes]:
        """The pieces of one statement."""
        found = self._pieces.get((key, digest))
        if found is None:
            found = self._pieces[key, digest] = frames.put_pieces(key, digest, envelope)
        return found

    def joined(self, puts: list[tuple[Key, str]], view: View) -> bytes | None:
        """A short list of statements for one frame; None when they do not fit."""
        name = frozenset(puts)
        found = self._joined.get(name)
        if found is None:
            pieces: list[bytes] = []
            size = 0
            for key, digest in puts:
                more = self.pieces(key, digest, view.fetch(key))
                size += sum(map(len, more))
                if len(more) > 1 or size > FRAME:
                    return None
                pieces += more
            found = self._joined[name] = b",".join(pieces)
        return found

    def clear(self) -> None:
        """End of the round."""
        self._pieces.clear()
        self._joined.clear()


class _Batch:
    """A map on its way in several frames."""

    __slots__ = ("done", "drops", "index", "number", "pieces", "puts")

    def __init__(self, number: int, puts: list[tuple[Key, str, bytes]], drops: list[Key]) -> None:
        self.number = number
        self.puts = puts[::-1]
        self.drops = drops[::-1]
        self.pieces: list[bytes] = []
        self.index = 0
        self.done = False

    def frame(self, cache: PieceCache) -> bytes:
        """The next part, or the end."""
        chosen: list[bytes] = []
        size = 0
        while size < FRAME and (self.pieces or self.puts):
            if not self.pieces:
                self.pieces = cache.pieces(*self.puts.pop())[::-1]
            if chosen and size + len(self.pieces[-1]) > 3 * FRAME:
                break
            chosen.append(self.pieces.pop())
            size += len(chosen[-1])
        drops: list[Key] = []
        while size < FRAME and self.drops:
            drops.append(self.drops.pop())
            size += 128
        if chosen or drops:
            self.index += 1
            return frames.part_frame(self.number, self.index - 1, b",".join(chosen), drops)
        self.done = True
        return wire.encode(wire.End(self.number, self.index))


class NodeSession:
    """Made by `Hub.attach`; the adapter calls `Hub.receive`, `pause`, `Hub.writable` with it."""

    __slots__ = (
        "_batch",
        "_batches",
        "_close",
        "_write",
        "address",
        "applied",
        "at",
        "closed",
        "full",
        "full_after",
        "last_heard",
        "last_sent",
        "map_hash",
        "node",
        "outbox",
        "paused_since",
        "pending",
        "soft",
        "wish",
    )

    def __init__(
        self,
        node: str,
        write: Callable[[bytes], None],
        close: Callable[[str], None],
        now: float,
        address: str = "",
    ) -> None:
        self.node = node
        self.address = address
        self.at = 0  # the revision that the node has when everything written has arrived
        self.map_hash = text(0)
        self.applied = -1  # the newest revision that the node said it has
        self.pending: set[Key] = set()
        self.full = False
        self.full_after = now
        self.soft: set[str] = set()  # nodes whose soft facts it must be told
        self.outbox: list[bytes] = []  # commands held while the transport is full
        self.wish: Wish | None = None  # of tickets, if it takes any
        self.paused_since: float | None = None
        self.last_sent = self.last_heard = now
        self.closed = False
        self._write = write
        self._close = close
        self._batch: _Batch | None = None
        self._batches = 0

    @property
    def dirty(self) -> bool:
        """Whether there is something that it must still be told."""
        wish = self.wish is not None and self.wish.due
        return bool(self.full or self.pending or self.soft or self.outbox or self._batch or wish)

    def pause(self, now: float) -> None:
        """The transport can take no more."""
        if self.paused_since is None:
            self.paused_since = now

    def send(self, frame: bytes, now: float) -> None:
        """Write a frame at once."""
        if not self.closed:
            self.last_sent = now
            self._write(frame)

    def bye(self, reason: str, retry_after: float, now: float) -> None:
        """Say why, and close."""
        self.send(wire.encode(wire.Bye(reason, retry_after)), now)
        self.drop(reason)

    def drop(self, reason: str) -> None:
        """Close; nothing is written any more."""
        if not self.closed:
            self.closed = True
            self.pending.clear()
            self.soft.clear()
            self.outbox.clear()
            self._batch = None
            self._close(reason)

    def want_full(self) -> None:
        """Send the whole map at the next flush."""
        self.full = True
        self.pending.clear()

    def note(self, keys: Collection[Key], entries: Callable[[], int]) -> None:
        """These statements changed for this node; `entries()` is the size of its map."""
        if not self.full:
            self.pending.update(keys)
            if len(self.pending) > SLACK and len(self.pending) > entries() + SLACK:
                self.want_full()

    def flush(self, view: View, cache: PieceCache, now: float) -> None:
        """Write what is due, as far as the transport takes it."""
        while self.outbox and self.paused_since is None:
            self.send(self.outbox.pop(0), now)
        self._pump(cache, now)
        if self._batch is not None or self.paused_since is not None or self.closed:
            return
        if self.full:
            if now >= self.full_after:
                self.full_after = now + 1.0
                self.full = False
                self.pending.clear()
                self._map(view, order(view.entries()), [], True, cache, now)
        elif self.pending:
            keys = self.pending
            self.pending = set()
            puts = order(key for key in keys if view.hash_of(key) is not None)
            drops = sorted(keys.difference(puts))
            self._map(view, puts, drops, False, cache, now)

    def _map(
        self,
        view: View,
        keys: list[Key],
        drops: list[Key],
        full: bool,
        cache: PieceCache,
        now: float,
    ) -> None:
        """Write a delta or a full map: in one frame when it fits, else begin a batch."""
        since, to = self.at, view.revision
        hashed = text(view.fingerprint)
        self.at, self.map_hash = to, hashed
        puts = [(key, digest) for key in keys if (digest := view.hash_of(key)) is not None]
        if len(puts) + len(drops) <= 1024:
            joined = cache.joined(puts, view)
            if joined is not None:
                if full:
                    self.send(frames.full_frame(to, hashed, joined), now)
                else:
                    self.send(frames.delta_frame(since, to, hashed, joined, drops), now)
                return
        self._batches += 1
        # The envelopes as they are now: references only, however long the transport takes.
        held = [(key, digest, view.fetch(key)) for key, digest in puts]
        self._batch = _Batch(self._batches, held, drops)
        kind = "full" if full else "delta"
        self.send(wire.encode(wire.Begin(self._batches, kind, since, to, hashed)), now)
        self._pump(cache, now)

    def _pump(self, cache: PieceCache, now: float) -> None:
        while self._batch is not None and self.paused_since is None and not self.closed:
            batch = self._batch
            self.send(batch.frame(cache), now)
            if batch.done:
                self._batch = None
