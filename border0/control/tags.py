"""The tags of sockets (`key=value` words in the store) and the rules that choose by them."""

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from border0.control.api.errors import invalid

TAG_LIMIT = 64
TagMap = dict[
    Annotated[str, msgspec.Meta(min_length=1, max_length=128)],
    Annotated[str, msgspec.Meta(max_length=256)],
]
TagList = list[Annotated[str, msgspec.Meta(min_length=1, max_length=385)]]


def tag_words(tags: TagMap | TagList) -> list[str]:
    """Tags as the store keeps them: `key=value`, or `key` for one without a value.

    :raises ApiError: 422.
    """
    pairs: Iterable[tuple[str, str]]
    if isinstance(tags, Mapping):
        pairs = tags.items()
    else:
        pairs = [(key, value) for key, _, value in (word.partition("=") for word in tags)]
    found = dict(pairs)
    if len(found) > TAG_LIMIT:
        raise invalid("tags", f"there are more than {TAG_LIMIT}")
    if any(not key or "=" in key for key in found):
        raise invalid("tags", "a tag's key is not empty and has no '='")
    return sorted(f"{key}={value}" if value else key for key, value in found.items())


def tag_map(words: Iterable[str]) -> dict[str, str]:
    """Tags as answers show them."""
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def meet(words: Iterable[str], rules: Iterable[Mapping[str, str]]) -> bool:
    """Whether tags have all pairs of one of the rules; a rule without pairs chooses nothing."""
    tags = tag_map(words)
    return any(
        bool(rule) and all(tags.get(key) == value for key, value in rule.items()) for rule in rules
    )
