"""Seals and opens the packets of one direction of an SSH connection.

Source: RFC 4253 §6 (binary packet protocol), RFC 4344 (CTR), RFC 6668 (SHA-2 MACs), RFC 5647 with
OpenSSH's PROTOCOL §1.6 (AES-GCM negotiated as a cipher) and §1.5 (encrypt-then-MAC).

====== ======= ====================================================
offset size    name
====== ======= ====================================================
0      4       packet_length: of all that follows except the MAC
4      1       padding_length: 4 to 255
5      n       payload
5+n    p       padding
…      m       MAC, or the tag of AES-GCM
====== ======= ====================================================

The length travels encrypted in `Ctr`, in clear (but authenticated) in `EtmCtr` and `Gcm`. Keys are
derived elsewhere; sequence numbers are the caller's.
"""

import hmac
from collections.abc import Callable
from struct import Struct
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from border0.proxies.ssh.errors import ProtocolError

HEAD = 4
"""Bytes of a packet whose length is in clear that tell its length."""
BLOCK = 16

# name -> key size in bytes, whether it is AES-GCM
CIPHERS = {
    b"aes256-gcm@openssh.com": (32, True),
    b"aes128-gcm@openssh.com": (16, True),
    b"aes256-ctr": (32, False),
    b"aes192-ctr": (24, False),
    b"aes128-ctr": (16, False),
}
# name -> digest, key size in bytes, whether it is computed over the ciphertext
MACS = {
    b"hmac-sha2-256-etm@openssh.com": ("sha256", 32, True),
    b"hmac-sha2-512-etm@openssh.com": ("sha512", 64, True),
    b"hmac-sha2-256": ("sha256", 32, False),
    b"hmac-sha2-512": ("sha512", 64, False),
}
GCM_ONLY = tuple(name for name, (_, gcm) in CIPHERS.items() if gcm)

RandomBytes = Callable[[int], bytes]
_HEAD = Struct(">LB")
_UINT32 = Struct(">L")


class Padding:
    """Random padding, drawn from the source in blocks: one call for many packets."""

    __slots__ = ("_at", "_pool", "_source")

    def __init__(self, source: RandomBytes) -> None:
        self._source = source
        self._pool = b""
        self._at = 0

    def __call__(self, size: int) -> bytes:
        """So many random bytes."""
        at = self._at
        if at + size > len(self._pool):
            self._pool = self._source(4096)
            at = 0
        self._at = at + size
        return self._pool[at : at + size]


class Plain:
    """Before the first key exchange is over: no encryption, no MAC."""

    head = HEAD
    tail = 0
    block = 8
    counted = 4  # bytes of the length field that count towards whole blocks

    def __init__(self, padding: Padding | None = None) -> None:
        self._padding = padding

    def seal(self, _sequence: int, payload: bytes) -> bytes:
        """The packet of a payload."""
        pad = 8 - (len(payload) + 5) % 8
        if pad < 4:
            pad += 8
        assert self._padding is not None
        return _HEAD.pack(len(payload) + pad + 1, pad) + payload + self._padding(pad)

    def length(self, head: bytes) -> int:
        """packet_length of the packet that starts with `head`."""
        return int.from_bytes(head[:4], "big")

    def open(self, _sequence: int, packet: bytes) -> bytes:
        """The payload of a whole packet; raises ProtocolError."""
        return unpadded(packet[4:])


def unpadded(data: bytes) -> bytes:
    """The payload behind its padding_length; raises ProtocolError when there is none."""
    end = len(data) - data[0] if data else 0
    if end <= 1 or data[0] < 4:
        raise ProtocolError("a packet has no payload or too little padding")
    return data[1:end]


class Gcm:
    """AES-GCM; the length is the additional data, the nonce's last eight bytes count packets."""

    head = HEAD
    tail = 16
    block = BLOCK
    counted = 0

    def __init__(self, key: bytes, iv: bytes, padding: Padding | None = None) -> None:
        self._key = AESGCM(key)
        self._fixed = iv[:4]
        self._count = int.from_bytes(iv[4:12], "big")
        self._padding = padding

    def _nonce(self) -> bytes:
        count = self._count
        self._count = (count + 1) & 0xFFFF_FFFF_FFFF_FFFF
        return self._fixed + count.to_bytes(8, "big")

    def seal(self, _sequence: int, payload: bytes) -> bytes:
        """The packet of a payload."""
        pad = BLOCK - (len(payload) + 1) % BLOCK
        if pad < 4:
            pad += BLOCK
        assert self._padding is not None
        length = _UINT32.pack(len(payload) + pad + 1)
        clear = b"%c%b%b" % (pad, payload, self._padding(pad))
        return length + self._key.encrypt(self._nonce(), clear, length)

    def length(self, head: bytes) -> int:
        """packet_length of the packet that starts with `head`."""
        return int.from_bytes(head[:4], "big")

    def open(self, _sequence: int, packet: bytes) -> bytes:
        """The payload of a whole packet; raises ProtocolError."""
        try:
            return unpadded(self._key.decrypt(self._nonce(), packet[4:], packet[:4]))
        except InvalidTag:
            raise ProtocolError("a packet's tag is wrong") from None


class EtmCtr:
    """AES-CTR, MAC over the ciphertext."""

    head = HEAD
    block = BLOCK
    counted = 0

    def __init__(
        self, context: Any, digest: str, mac_key: bytes, padding: Padding | None = None
    ) -> None:
        self._update = context.update
        self._digest = digest
        self._mac_key = mac_key
        self._padding = padding
        self.tail = len(hmac.digest(mac_key, b"", digest))

    def seal(self, sequence: int, payload: bytes) -> bytes:
        """The packet of a payload."""
        pad = BLOCK - (len(payload) + 1) % BLOCK
        if pad < 4:
            pad += BLOCK
        assert self._padding is not None
        clear = b"%c%b%b" % (pad, payload, self._padding(pad))
        packet: bytes = _UINT32.pack(len(clear)) + self._update(clear)
        return packet + hmac.digest(self._mac_key, _UINT32.pack(sequence) + packet, self._digest)

    def length(self, head: bytes) -> int:
        """packet_length of the packet that starts with `head`."""
        return int.from_bytes(head[:4], "big")

    def open(self, sequence: int, packet: bytes) -> bytes:
        """The payload of a whole packet; raises ProtocolError."""
        end = len(packet) - self.tail
        mac = hmac.digest(self._mac_key, _UINT32.pack(sequence) + packet[:end], self._digest)
        if not hmac.compare_digest(mac, packet[end:]):
            raise ProtocolError("a packet's MAC is wrong")
        return unpadded(self._update(packet[4:end]))


class Ctr(EtmCtr):
    """AES-CTR, MAC over the clear packet, length encrypted."""

    head = BLOCK
    counted = 4
    _first = b""

    def seal(self, sequence: int, payload: bytes) -> bytes:
        """The packet of a payload."""
        pad = BLOCK - (len(payload) + 5) % BLOCK
        if pad < 4:
            pad += BLOCK
        assert self._padding is not None
        clear = _HEAD.pack(len(payload) + pad + 1, pad) + payload + self._padding(pad)
        mac: bytes = hmac.digest(self._mac_key, _UINT32.pack(sequence) + clear, self._digest)
        sealed: bytes = self._update(clear)
        return sealed + mac

    def length(self, head: bytes) -> int:
        """packet_length of the packet that starts with `head`; call it once a packet."""
        self._first = self._update(head)
        return int.from_bytes(self._first[:4], "big")

    def open(self, sequence: int, packet: bytes) -> bytes:
        """The payload of a whole packet, after `length`; raises ProtocolError."""
        end = len(packet) - self.tail
        clear = self._first + self._update(packet[BLOCK:end])
        mac = hmac.digest(self._mac_key, _UINT32.pack(sequence) + clear, self._digest)
        if not hmac.compare_digest(mac, packet[end:]):
            raise ProtocolError("a packet's MAC is wrong")
        return unpadded(clear[4:])


Packets = Plain | Gcm | EtmCtr


def packets(
    cipher: bytes, mac: bytes, key: bytes, iv: bytes, mac_key: bytes, padding: Padding | None
) -> Packets:
    """One direction's cipher: with a source of padding it seals, without it opens.

    :raises ValueError: a name that is not in `CIPHERS` or `MACS`.
    """
    try:
        size, gcm = CIPHERS[cipher]
        if gcm:
            return Gcm(key[:size], iv[:12], padding)
        digest, mac_size, etm = MACS[mac]
    except KeyError:
        raise ValueError("an algorithm was agreed on that does not exist here") from None
    both = Cipher(algorithms.AES(key[:size]), modes.CTR(iv[:BLOCK]))
    context = both.decryptor() if padding is None else both.encryptor()
    return (EtmCtr if etm else Ctr)(context, digest, mac_key[:mac_size], padding)
