"""The key exchange of both legs: Conch's own arithmetic, with these repairs around it.

Source: RFC 4253 §7 to §9; RFC 8308 (extension negotiation); OpenSSH's PROTOCOL §1.10 (strict key
exchange). Changed from Conch: each direction changes keys on its own; AES-GCM, encrypt-then-MAC and
strict key exchange; old algorithms are gone; an hour of old keys is enough; what a client's keys
may sign with is not tied to our host keys.
"""

import os
from typing import Any

from twisted.conch.ssh import _kex
from twisted.conch.ssh.common import NS

from border0.proxies.ssh import wire
from border0.proxies.ssh.ciphers import CIPHERS, GCM_ONLY, MACS, Packets, Padding, packets
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.wire import Reader

REKEY_SECONDS = 3600.0
STRICT_CLIENT = b"kex-strict-c-v00@openssh.com"
STRICT_SERVER = b"kex-strict-s-v00@openssh.com"
KEX: list[bytes] = [
    name
    for name in (
        b"mlkem768x25519-sha256",
        b"curve25519-sha256",
        b"curve25519-sha256@libssh.org",
        b"ecdh-sha2-nistp256",
        b"ecdh-sha2-nistp384",
        b"ecdh-sha2-nistp521",
    )
    if name in _kex.getSupportedKeyExchanges()
]
USER_KEYS = (
    b"ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,"
    b"ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256"
)
"""What a client may sign with: not tied to the kinds of our host keys, as it is in Conch."""


class Keying:
    """Mix-in below `Wire`, which has the packets; Conch's class below it has the arithmetic."""

    supportedCiphers: list[bytes] = list(CIPHERS)
    supportedMACs: list[bytes] = list(MACS)
    supportedCompressions: list[bytes] = [b"none"]
    supportedKeyExchanges: list[bytes] = KEX
    isClient = False

    # Of Wire and of Conch's class.
    reactor: Any
    sessionID: bytes | None
    nextEncryptions: Any
    sendPacket: Any
    _send: Any
    _unhold: Any
    rekey: Any
    _padding: Padding
    _sealer: Packets
    _opener: Packets
    _next_opener: Packets | None
    _strict: bool
    _offered: bool
    _stopped: bool
    _rekey: Any
    _control: int
    _since_keys: int
    _packets_out: int
    _keyExchangeState: str
    _blockedByKeyExchange: Any
    incomingPacketSequence: int
    outgoingPacketSequence: int
    full: bool

    def sendKexInit(self) -> None:
        """Offer our algorithms."""
        offered = list(self.supportedKeyExchanges)
        if self.sessionID is None:
            offered += [b"ext-info-c", STRICT_CLIENT] if self.isClient else [
                b"ext-info-s", STRICT_SERVER]  # fmt: skip
        lists = [offered, self.supportedPublicKeys]  # type: ignore[attr-defined]
        lists += [self.supportedCiphers] * 2 + [self.supportedMACs] * 2
        lists += [self.supportedCompressions] * 2 + [[], []]
        body = os.urandom(16) + b"".join([NS(b",".join(names)) for names in lists]) + bytes(5)
        self.ourKexInitPayload = b"%c%b" % (wire.KEXINIT, body)
        self.sendPacket(wire.KEXINIT, body)
        self._keyExchangeState = "_KEY_EXCHANGE_REQUESTED"
        self._blockedByKeyExchange = []
        self.full = True

    def ssh_KEXINIT(self, packet: bytes) -> None:
        """The peer's offer. Rises to AES-GCM with a peer that can, unless our offer is out."""
        if self._offered:
            raise ProtocolError("a key exchange inside a key exchange")
        self._offered = True
        reader = Reader(packet, 16)
        lists = [reader.string().split(b",") for _ in range(8)]
        if self.sessionID is None:
            marker = STRICT_SERVER if self.isClient else STRICT_CLIENT
            self._strict = marker in lists[0]
            if self._strict and self.incomingPacketSequence != 1:
                raise ProtocolError("a message came before the key exchange")
        if not self.isClient and self._keyExchangeState == "_KEY_EXCHANGE_NONE":
            # The client's order decides, and OpenSSH's puts the slow ones first.
            if set(GCM_ONLY) & set(lists[2]) & set(lists[3]):
                self.supportedCiphers = list(GCM_ONLY)
        super().ssh_KEXINIT(packet)  # type: ignore[misc]

    def _keySetup(self, sharedSecret: bytes, exchangeHash: bytes) -> None:
        """Derive keys, say NEWKEYS, and send with the new ones from there on."""
        if not self._offered or self._next_opener is not None:
            raise ProtocolError("a message does not belong into the key exchange")
        first = self.sessionID is None
        if first:
            self.sessionID = exchangeHash
        keys = [
            self._getKey(bytes([c]), sharedSecret, exchangeHash)  # type: ignore[attr-defined]
            for c in b"ABCDEF"
        ]
        there, back = keys[0::2], keys[1::2]
        out, into = (there, back) if self.isClient else (back, there)
        agreed = self.nextEncryptions
        self._next_opener = packets(
            agreed.inCipType, agreed.inMACType, into[1], into[0], into[2], None
        )
        sealer = packets(
            agreed.outCipType, agreed.outMACType, out[1], out[0], out[2], self._padding
        )
        self._send(wire.NEWKEYS, b"")
        self._sealer = sealer
        if self._strict:
            self.outgoingPacketSequence = 0
        self._since_keys = self._packets_out = 0
        if first and not self.isClient:
            self.sendExtInfo([(b"server-sig-algs", USER_KEYS)])  # type: ignore[attr-defined]

    def ssh_NEWKEYS(self, packet: bytes) -> None:
        """The peer sends with new keys from here on."""
        if packet or self._next_opener is None:
            raise ProtocolError("NEWKEYS out of place")
        self._opener, self._next_opener = self._next_opener, None
        self._offered = False
        if self._strict:
            self.incomingPacketSequence = 0
        if self._rekey is not None and self._rekey.active():
            self._rekey.cancel()
        self._rekey = self.reactor.callLater(REKEY_SECONDS, self.rekey)
        self._keyExchangeState = "_KEY_EXCHANGE_NONE"
        waiting, self._blockedByKeyExchange = self._blockedByKeyExchange, None
        for kind, payload in waiting or ():
            self._send(kind, payload)
        if not self._stopped:
            self._control = 0
        self.secured()
        self._unhold()

    def secured(self) -> None:
        """Keys are in place, at first or again."""
