"""Names of statements, the classes they belong to, and what a policy's query types mean.

Every statement that classification knows has a name (`delete`, `copy_to`, `admin_function`) and
every name belongs to one class. A policy lists `ReadOnly`, `ReadWrite`, a class or a statement;
all of them expand to a set of statement names, so that a verdict is a set comparison.

Source: Border0's `allowed_query_types`; its MySQL names (Revert, Lock_Tables) are accepted.
"""

from collections.abc import Iterable

_BY_CLASS: dict[str, tuple[str, ...]] = {
    # from harmless to grave: the gravest class in a text names the text
    "read": ("empty", "select", "show", "explain"),
    "transaction": (
        "begin",
        "commit",
        "rollback",
        "savepoint",
        "release",
        "rollback_to",
        "set_transaction",
    ),
    "session": ("set", "reset", "discard", "unlisten", "use"),
    "prepared": ("prepare", "execute", "deallocate"),
    "cursor": ("declare", "fetch", "move", "close"),
    "copy_out": ("copy_to",),
    "lock": ("lock", "select_for_update", "advisory_lock", "lock_tables", "unlock_tables"),
    "analyze": ("analyze",),
    "notify": ("listen", "notify"),
    "setting": ("set_other",),
    "read_only_switch": ("set_read_write",),
    "copy_in": ("copy_from",),
    "insert": ("insert", "replace"),
    "update": ("update",),
    "delete": ("delete",),
    "merge": ("merge",),
    "write": ("write_function",),
    "ddl": (
        "create",
        "alter",
        "drop",
        "truncate",
        "comment",
        "rename",
        "reindex",
        "cluster",
        "refresh",
        "create_table_as",
        "select_into",
    ),
    "dcl": (
        "grant",
        "revoke",
        "create_role",
        "alter_role",
        "drop_role",
        "alter_owner",
        "drop_owned",
        "alter_default_privileges",
        "row_policy",
        "security_label",
    ),
    "replication": ("replication_command", "replication_function", "publication", "subscription"),
    # CREATE FUNCTION is here, for a SELECT of that function runs what its text says
    "exec": ("do", "call", "text_function", "create_function"),
    "admin": (
        "vacuum",
        "checkpoint",
        "alter_system",
        "admin_function",
        "two_phase",
        "database",
        "tablespace",
        "extension",
        "foreign_data",
        "language",
        "event_trigger",
    ),
    "file_or_program": ("copy_file", "copy_program", "load", "file_function"),
    "guarded_setting": ("set_guarded",),
    # never granted by name: after these the parser would no longer read what the server reads
    "parser_setting": ("set_parser",),
    "function_call": ("function_call",),
    "unclassified": ("unclassified",),
}

CLASSES: tuple[str, ...] = tuple(_BY_CLASS)
CLASS_OF: dict[str, str] = {name: k for k, names in _BY_CLASS.items() for name in names}
RANK: dict[str, int] = {klass: rank for rank, klass in enumerate(CLASSES)}
NEVER_BY_NAME = frozenset({"set_parser", "function_call"})
EVERY_STATEMENT = frozenset(CLASS_OF)


def _classes(*classes: str) -> frozenset[str]:
    return frozenset(name for klass in classes for name in _BY_CLASS[klass])


WRITES = _classes("insert", "update", "delete", "merge", "write")
READ_ONLY = _classes("read", "transaction", "session", "prepared", "cursor", "copy_out")
READ_WRITE = (
    READ_ONLY
    | WRITES
    | _classes("ddl", "lock", "analyze", "copy_in", "setting", "read_only_switch")
)
# What a read-only transaction would refuse: a grant of any of these needs a writable session.
NEEDS_WRITING = (
    WRITES
    | _classes("ddl", "dcl", "lock", "analyze", "copy_in", "exec", "admin", "read_only_switch")
) - {"advisory_lock"}

_SPELLED = {
    "ReadOnly": READ_ONLY,
    "ReadWrite": READ_WRITE,
    "write": WRITES,
    "tcl": _classes("transaction"),
    "copy": frozenset({"copy_to", "copy_from"}),
    "start_transaction": frozenset({"begin"}),
    "end": frozenset({"commit"}),
    "abort": frozenset({"rollback"}),
    "revert": frozenset({"rollback"}),
    "deallocate_prepare": frozenset({"deallocate"}),
    "values": frozenset({"select"}),
    "table": frozenset({"select"}),
}


def _squeeze(name: str) -> str:
    return name.lower().replace("_", "").replace(" ", "").replace("-", "")


def _names() -> dict[str, frozenset[str]]:
    table = {_squeeze(name): frozenset({name}) for name in CLASS_OF if name not in NEVER_BY_NAME}
    for klass in CLASSES:
        if klass not in ("parser_setting", "function_call"):
            table[_squeeze(klass)] = _classes(klass)
    table.update((_squeeze(name), statements) for name, statements in _SPELLED.items())
    return table


_NAMES = _names()
QUERY_TYPES: tuple[str, ...] = (
    *_SPELLED,
    *(k for k in CLASSES if k not in ("parser_setting", "function_call")),
    *(name for name in CLASS_OF if name not in NEVER_BY_NAME),
)


def is_query_type(name: str) -> bool:
    """Whether `name` may stand in `allowed_query_types`; case, `_`, `-` and spaces are free."""
    return _squeeze(name) in _NAMES


def expand(query_types: Iterable[str]) -> frozenset[str]:
    """The statement names that these query types mean.

    :raises ValueError: an unknown query type (`parse` refuses those before).
    """
    statements: frozenset[str] = frozenset()
    for name in query_types:
        meant = _NAMES.get(_squeeze(name))
        if meant is None:
            raise ValueError(f"unknown query type {name!r}")
        statements |= meant
    return statements


def gravest(names: Iterable[str]) -> str:
    """The class that names a text holding these statements; `read` for none."""
    best = 0
    for name in names:
        rank = RANK[CLASS_OF[name]]
        if rank > best:
            best = rank
    return CLASSES[best]
