"""Maps as frames: statements as JSON, made once for all nodes that get them, and joined by commas.

What the members mean stands in `messages`.
"""

import msgspec

from border0.control.push.messages import MAX_PIECE, MAX_STATEMENT, Key, Put

_encode = msgspec.json.Encoder().encode


def put_pieces(key: Key, digest: str, envelope: bytes) -> list[bytes]:
    """A statement as JSON for `put`: one piece, or several for an envelope that is very long.

    :raises ValueError: the envelope is not UTF-8, or longer than MAX_STATEMENT.
    """
    if len(envelope) > MAX_STATEMENT:
        raise ValueError(f"statement {key} has {len(envelope)} bytes; {MAX_STATEMENT} are allowed")
    text = envelope.decode("utf-8")
    if len(text) <= MAX_PIECE:
        return [_encode(Put(*key, digest, text))]
    cuts = range(0, len(text), MAX_PIECE)
    return [
        _encode(Put(*key, digest, text[cut : cut + MAX_PIECE], index, len(cuts)))
        for index, cut in enumerate(cuts)
    ]


def delta_frame(since: int, to: int, map_hash: str, puts: bytes, drops: list[Key]) -> bytes:
    """The frame of a `delta` from pieces joined by commas."""
    head = f'{{"t":"delta","from":{since},"to":{to},"map_hash":"{map_hash}","put":['
    return b"".join((head.encode(), puts, b'],"drop":', _encode(drops), b"}"))


def full_frame(to: int, map_hash: str, puts: bytes) -> bytes:
    """The frame of a `full` from pieces joined by commas."""
    head = f'{{"t":"full","to":{to},"map_hash":"{map_hash}","put":['
    return b"".join((head.encode(), puts, b"]}"))


def part_frame(batch: int, index: int, puts: bytes, drops: list[Key]) -> bytes:
    """The frame of a `part` from pieces joined by commas."""
    head = f'{{"t":"part","batch":{batch},"index":{index},"put":['
    return b"".join((head.encode(), puts, b'],"drop":', _encode(drops), b"}"))
