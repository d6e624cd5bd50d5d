"""Transport data in batches: open the datagrams of one GRO buffer, seal packets into GSO bursts.

Source: WireGuard paper §5.4.6. Field table in `messages`.
Does not: look at inner packets, keep timers, or know endpoints. `open_batch` and `seal_batch` are
the whole surface that a compiled version would replace.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from border0.wireguard.limits import (
    BURST_BYTES,
    BURST_SEGMENTS,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
)
from border0.wireguard.messages import TRANSPORT, TRANSPORT_OVERHEAD
from border0.wireguard.noise import TransportKeys
from border0.wireguard.replay import ReplayWindow

_header = struct.Struct("<IIQ").pack
_nonce = struct.Struct("<4xQ").pack
_NONCE_START = bytes(4)

_Splitter = Callable[[bytes], Iterator[tuple[Any, ...]]]
_splitters: dict[int, _Splitter] = {}
_SPLITTER_LIMIT = 2048


class Session:
    """The keys of one finished handshake with `owner`; `counter` is the next one to send."""

    __slots__ = (
        "counter",
        "created",
        "decrypt",
        "encrypt",
        "initiator",
        "local_index",
        "owner",
        "refreshed",
        "reject_at",
        "remote_index",
        "window",
    )

    def __init__(self, keys: TransportKeys, owner: Any, *, initiator: bool, now: float) -> None:
        self.local_index = keys.local_index
        self.remote_index = keys.remote_index
        self.encrypt = ChaCha20Poly1305(keys.send).encrypt
        self.decrypt = ChaCha20Poly1305(keys.receive).decrypt
        self.counter = 0
        self.window = ReplayWindow()
        self.owner = owner
        self.initiator = initiator
        self.created = now
        self.refreshed = False  # a rekey was begun because data arrived late in its life
        self.reject_at = now + REJECT_AFTER_TIME

    def may_send(self, count: int, now: float) -> bool:
        """Tell whether `count` more messages may be sealed under this key."""
        return now < self.reject_at and self.counter + count <= REJECT_AFTER_MESSAGES


def _splitter(size: int) -> _Splitter:
    try:
        return _splitters[size]
    except KeyError:
        if len(_splitters) >= _SPLITTER_LIMIT:
            _splitters.clear()
        splitter = struct.Struct(f"<IIQ{size - 16}s").iter_unpack
        _splitters[size] = splitter
        return splitter


def open_batch(
    sessions: dict[int, Session], datagrams: bytes, size: int, now: float, opened: list[bytes]
) -> tuple[Session | None, int]:
    """Open equal datagrams of one session, from the start of `datagrams`, into `opened`.

    `size` is the length of each datagram, at least 32, and divides `len(datagrams)`. Stops before
    the first datagram that is not transport data or belongs to a second live session, since what
    came before may change which sessions exist. Returns the session (None when no datagram had
    one) and the bytes dealt with. Datagrams that do not authenticate, are replayed or have no
    live session leave no trace. A keepalive appends an empty packet.
    """
    session: Session | None = None
    index = -1
    place = 0
    live = False
    nonce = _nonce
    append = opened.append
    for kind, receiver, counter, box in _splitter(size)(datagrams):
        if kind != TRANSPORT:
            break
        if receiver != index:
            found = sessions.get(receiver)
            live = found is not None and now < found.reject_at
            if found is not None and live:
                if session is None:
                    session = found
                    decrypt = found.decrypt
                    window = found.window
                    expected = window.expected
                elif found is not session:
                    break
            index = receiver
        place += size
        if not live:
            continue
        try:
            packet = decrypt(nonce(counter), box, None)
        except InvalidTag:
            continue
        if counter == expected < REJECT_AFTER_MESSAGES:
            expected += 1
        else:
            window.expected = expected
            fresh = window.accept(counter)
            expected = window.expected
            if not fresh:
                continue
        append(packet)
    if session is not None:
        window.expected = expected
    return session, place


def seal_batch(session: Session, packets: list[bytes], mtu: int) -> list[tuple[int, list[bytes]]]:
    """Seal packets, in order, into bursts of (segment size, buffers).

    The buffers of a burst, joined, are datagrams of the segment size, of which the last may be
    shorter; at most 64 datagrams and 65,000 bytes. Packets are padded with zeros to a multiple
    of 16 but not beyond `mtu` bytes. An empty packet is a keepalive. The caller has asked
    `session.may_send`.
    """
    bursts: list[tuple[int, list[bytes]]] = []
    counter = session.counter
    receiver = session.remote_index
    encrypt = session.encrypt
    header = _header
    start = _NONCE_START
    buffers: list[bytes] = []
    append = buffers.append
    segment = 0  # size of the open burst's datagrams, 0 when none is open
    room = 0  # how many more bytes the open burst takes
    for packet in packets:
        size = len(packet)
        if size & 15 and size < mtu:
            padded = min((size + 15) & ~15, mtu)
            packet += bytes(padded - size)
            size = padded
        size += TRANSPORT_OVERHEAD
        if size > segment or size > room:
            buffers = []
            append = buffers.append
            bursts.append((size, buffers))
            segment = size
            room = min(BURST_BYTES, segment * BURST_SEGMENTS)
        head = header(TRANSPORT, receiver, counter)
        append(head)
        append(encrypt(start + head[8:], packet, None))
        counter += 1
        if size == segment:
            room -= size
        else:
            segment = 0  # a shorter datagram ends its burst
    session.counter = counter
    return bursts
