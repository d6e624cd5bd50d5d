"""Indexes of counts and of sets from which the empty rows go."""


def count(table: dict[str, dict[str, int]], one: str, other: str, change: int) -> bool:
    """Change a count; whether it went from or to nothing."""
    row = table.setdefault(one, {})
    before = row.get(other, 0)
    after = before + change
    if after:
        row[other] = after
    else:
        del row[other]
        if not row:
            del table[one]
    return before == 0 or after == 0


def join(table: dict[str, set[str]], one: str, other: str, comes: bool) -> None:
    """Put into a set of an index, or take out; an empty set goes too."""
    if comes:
        table.setdefault(one, set()).add(other)
    else:
        table[one].discard(other)
        if not table[one]:
            del table[one]
