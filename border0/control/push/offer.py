"""What a node tells of its ways besides its endpoints: what a peer needs for probes.

Unsigned soft state, as endpoints are; docs/protocols/paths.md says what it is good for. An offer
that is none, or that does not belong to its endpoints, counts as absent: the endpoints still count.

| field | meaning |
|---|---|
| key | the path key of the process as it runs: base64 of 32 bytes |
| generation | the edition of its candidates; rises with each change while the key stays |
| nat | the gateway before it, as it sees it itself |
| kinds | one for each endpoint: how it was found |
| calls | how often it asked its peers to look for it; rises, 0 where it never did |
| relays | ids of the relays at which it is, the one that it prefers first |

Not here: whether a key is any good (`paths.keys` refuses some), or which generation is newer.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

MAX_ENDPOINTS = 16
MAX_RELAYS = 8

_Relay = Annotated[str, Meta(pattern=r"\A[0-9a-z][0-9a-z-]{0,63}\Z")]
Kind = Literal["host", "mapped", "reflexive", "static"]
Nat = Literal["unknown", "easy", "hard", "blocked"]


class PathOffer(Struct, frozen=True):
    """The path part of a report, and of a fact about a node."""

    # 43 characters are 258 bits: of those that stand for the same 32 bytes only one is taken.
    key: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=\Z")]
    generation: Annotated[int, Meta(ge=1, lt=2**32)]
    nat: Nat
    kinds: Annotated[list[Kind], Meta(max_length=MAX_ENDPOINTS)]
    calls: Annotated[int, Meta(ge=0, lt=2**32)] = 0
    relays: Annotated[list[_Relay], Meta(max_length=MAX_RELAYS)] = []


def sound(value: object, endpoints: int) -> PathOffer | None:
    """The offer that JSON brought, or None if it is not one for so many endpoints."""
    if value is None:
        return None
    try:
        offer = msgspec.convert(value, PathOffer)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None
    return offer if len(offer.kinds) == endpoints else None


def own(offer: PathOffer | None, endpoints: int) -> PathOffer | None:
    """Our own offer, cut to the endpoints that can be told.

    :raises ValueError: nobody would take it.
    """
    if offer is None:
        return None
    kinds = offer.kinds[:MAX_ENDPOINTS]
    told = PathOffer(
        offer.key, offer.generation, offer.nat, kinds, offer.calls, offer.relays[:MAX_RELAYS]
    )
    if sound(msgspec.to_builtins(told), endpoints) is None:
        raise ValueError(f"an offer for {endpoints} endpoints that nobody would take: {offer}")
    return told
