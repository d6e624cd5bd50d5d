"""Sealed probe packets between two peers: one counter out, one replay window in.

| offset | size | name |
|---|---|---|
| 0 | 4 | magic F1 50 54 01; the last byte is the version |
| 4 | 8 | index of this direction |
| 12 | 8 | counter, big-endian |
| 20 | n + 16 | the body, sealed |

The seal is ChaCha20-Poly1305 with 4 zero bytes and the counter as nonce, bytes 0 to 19 associated.

Source: RFC 8439 §2.8; RFC 4303 §3.4.3 for the form of the replay window.
Does not: know bodies (`probe`) or addresses.
"""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from border0.paths.keys import DirectionKeys

MAGIC = b"\xf1PT\x01"
_HEADER = struct.Struct(">4s8sQ")
HEADER_SIZE = _HEADER.size
OVERHEAD = HEADER_SIZE + 16
WINDOW = 1024
# Each channel of one process begins in an epoch of its own, so that the same pair of keys, met
# again, never sees a nonce twice.
EPOCH_BITS = 40
_EPOCH_SIZE = 1 << EPOCH_BITS
_LAST = (1 << 64) - 1
_KEPT = (1 << WINDOW) - 1


def looks_like_probe(data: bytes) -> bool:
    """Tell a probe from everything else on the shared port, by its first bytes and its length."""
    return len(data) > OVERHEAD and data.startswith(MAGIC)


class Window:
    """Which counters were seen: bit 0 of `bits` is `newest`; all below `floor` count as seen."""

    __slots__ = ("bits", "floor", "newest")

    def __init__(self, floor: int = 0) -> None:
        self.floor = floor
        self.newest = -1
        self.bits = 0

    def accept(self, counter: int) -> bool:
        """Note an authenticated counter; False when it was seen or is too old."""
        if counter < self.floor:
            return False
        ahead = counter - self.newest
        if ahead > 0:
            self.bits = (self.bits << ahead | 1) & _KEPT if ahead < WINDOW else 1
            self.newest = counter
            return True
        if ahead <= -WINDOW:
            return False
        bit = 1 << -ahead
        if self.bits & bit:
            return False
        self.bits |= bit
        return True


class Channel:
    """The sealed way to one peer and back. `epoch` is new for each channel of the process.

    `floor`: counters below it are refused, for a channel that goes on where one stopped.
    """

    __slots__ = ("_decrypt", "_encrypt", "_prefix", "counter", "end", "index", "window")

    def __init__(self, keys: DirectionKeys, epoch: int, floor: int = 0) -> None:
        self._encrypt = ChaCha20Poly1305(keys.send).encrypt
        self._decrypt = ChaCha20Poly1305(keys.receive).decrypt
        self._prefix = keys.send_index
        self.index = keys.receive_index
        self.counter = epoch << EPOCH_BITS
        self.end = min(self.counter + _EPOCH_SIZE, _LAST)
        if epoch < 0 or self.counter >= _LAST:
            raise ValueError("no epoch is left")
        self.window = Window(floor)

    def seal(self, body: bytes) -> bytes:
        """Return the packet; ValueError when the epoch's counters are used up."""
        counter = self.counter
        if counter >= self.end:
            raise ValueError("the counters of this channel are used up")
        self.counter = counter + 1
        header = _HEADER.pack(MAGIC, self._prefix, counter)
        return header + self._encrypt(bytes(4) + header[12:], body, header)

    def open(self, data: bytes) -> bytes | None:
        """Return the body of a fresh packet of the peer, else None; then nothing has changed."""
        if len(data) <= OVERHEAD:
            return None
        header = data[:HEADER_SIZE]
        try:
            body = self._decrypt(bytes(4) + header[12:], data[HEADER_SIZE:], header)
        except InvalidTag:
            return None
        return body if self.window.accept(int.from_bytes(header[12:], "big")) else None


def index_of(data: bytes) -> bytes:
    """Return the index under which a probe is looked up."""
    return data[4:12]
