"""Classifies PostgreSQL text by its parse tree.

Everything that is not understood is `unclassified`: text with NUL, text that is not UTF-8 or does
not parse, a statement this module does not know. Nothing here raises on any input. The caller
bounds the text first (`limits`), because the parser is recursive C.

What a tree cannot show: what a function or operator that users defined does, what a view or a
rule reads, what search_path resolves to. ReadOnly therefore also needs a read-only session
upstream (`StatementGate.startup_parameters`).

Source: libpg_query 17 (`pgparse`); PostgreSQL 17 documentation part VI.
"""

from typing import Any

from border0.policy.sql import settings
from border0.policy.sql.classification import Classification, Statement, unclassified
from border0.policy.sql.kinds import DROPPED, DROPPED_TABLES, SIMPLE, TRANSACTION
from border0.policy.sql.walk import Findings, constant, walk

try:
    import pgparse
except ImportError:  # no wheel for this platform
    pgparse = None

_FALSE = frozenset({"false", "off", "0"})


def classify(sql: bytes) -> Classification:
    """What this text (without its trailing NUL) amounts to; never raises."""
    if pgparse is None:
        return unclassified("there is no SQL parser on this machine")
    if b"\0" in sql:
        return unclassified("the text contains a NUL")
    try:
        text = sql.decode("utf-8")
    except UnicodeDecodeError:
        return unclassified("the text is not UTF-8")
    try:
        tree = pgparse.parse(text)
    except pgparse.PGQueryError as error:
        return unclassified(f"the text does not parse: {str(error)[:200]}")
    except RecursionError:
        return unclassified("the text is nested too deeply")
    except Exception as error:  # the parser's JSON may be broken in ways nobody listed
        return unclassified(f"the parser failed: {type(error).__name__}")
    try:
        return _classify_tree(tree)
    except Exception as error:  # an unexpected tree must not pass, nor end the session
        return unclassified(f"the parse tree is not understood: {type(error).__name__}")


def _classify_tree(tree: list[dict[str, Any]]) -> Classification:
    statements = []
    tables: dict[str, None] = {}
    called: dict[str, None] = {}
    details: dict[str, str] = {}
    for item in tree:
        found = Findings()
        effect, prepared, body = _statement(item["stmt"], found)
        names = frozenset(found.names)
        statements.append(Statement(names, effect, prepared, body))
        tables.update(found.tables)
        called.update(found.functions)
        for name, cause in found.details.items():
            details.setdefault(name, cause)
    if not statements:
        statements.append(Statement(frozenset({"empty"})))
    unknown = any("unclassified" in s.names for s in statements)
    error = "a statement of a kind that is not known" if unknown else ""
    return Classification(tuple(statements), tuple(tables), tuple(called), details, error)


_Effect = tuple[str, str, frozenset[str]]
_NONE: _Effect = ("", "", frozenset())


def _statement(node: dict[str, Any], found: Findings) -> _Effect:
    """Classify one wrapped statement into `found`; returns what it does to prepared statements."""
    [(kind, body)] = node.items()
    special = _SPECIAL.get(kind)
    if special is not None:
        return special(body, found)
    found.add(SIMPLE.get(kind, "unclassified"))
    walk(body, found)
    return _NONE


def _select(body: dict[str, Any], found: Findings) -> _Effect:
    found.add("select")
    walk(body, found)
    return _NONE


def _explain(body: dict[str, Any], found: Findings) -> _Effect:
    found.add("explain")
    for option in body.get("options", ()):
        option = option["DefElem"]
        if option.get("defname") == "analyze" and _option_value(option) not in _FALSE:
            return _statement(body["query"], found)
    found.passive = True
    inner = Findings()
    inner.passive = True
    effect = _statement(body["query"], inner)
    found.tables.update(inner.tables)
    found.functions.update(inner.functions)
    # Planning may fold a call of a function, so what functions do counts; the rest is not run.
    for name, cause in inner.details.items():
        if cause.startswith(("function ", "set_config ")):
            found.add(name, cause)
    if "unclassified" in inner.names:
        found.add("unclassified")
    return effect if effect[0] == "execute" else _NONE


def _option_value(option: dict[str, Any]) -> str | None:
    """The value of an option as text; None when it has none (which means true)."""
    argument = option.get("arg")
    if argument is None:
        return None
    for kind, field, default in (
        ("String", "sval", ""),
        ("Integer", "ival", 0),
        ("Float", "fval", ""),
        ("Boolean", "boolval", False),
    ):
        if kind in argument:
            return str(argument[kind].get(field, default)).lower()
    value = constant(argument)
    return None if value is None else value.lower()


def _copy(body: dict[str, Any], found: Findings) -> _Effect:
    incoming = body.get("is_from", False)
    if body.get("is_program"):
        found.add("copy_program", "COPY with PROGRAM")
    elif body.get("filename"):
        found.add("copy_file", "COPY with a file of the server")
    else:
        found.add("copy_from" if incoming else "copy_to")
    if "query" in body:
        _statement(body["query"], found)
    elif not incoming:
        found.add("select")
    walk({k: v for k, v in body.items() if k != "query"}, found)
    return _NONE


def _set(body: dict[str, Any], found: Findings) -> _Effect:
    kind = body["kind"]
    name = body.get("name", "")
    arguments = body.get("args", [])
    if kind == "VAR_RESET_ALL":
        # Settings that came with the start-up message are restored, the pinned ones too.
        found.add("reset")
    elif kind == "VAR_SET_MULTI":
        if name != "TRANSACTION SNAPSHOT":
            _transaction_options(arguments, found)
        found.add("set_transaction")
    else:
        if kind in ("VAR_RESET", "VAR_SET_DEFAULT"):
            value: str | None = None
        elif kind == "VAR_SET_VALUE":
            values = [constant(a) for a in arguments]
            value = settings.UNKNOWN
            if len(values) == 1 and values[0] is not None:
                value = values[0]
        else:
            value = settings.UNKNOWN
        statement = settings.judge(name, value)
        if statement == "set":
            found.add("reset" if kind == "VAR_RESET" else "set")
        else:
            found.add(statement, f"{'RESET' if kind == 'VAR_RESET' else 'SET'} {name.lower()}")
    walk(arguments, found)
    return _NONE


def _transaction_options(options: list[Any], found: Findings) -> None:
    for option in options:
        option = option["DefElem"]
        if option.get("defname") == "transaction_read_only":
            if _option_value(option) != "1":
                found.add("set_read_write", "READ WRITE")
        elif option.get("defname") not in ("transaction_isolation", "transaction_deferrable"):
            found.add("unclassified")


def _transaction(body: dict[str, Any], found: Findings) -> _Effect:
    found.add(TRANSACTION.get(body["kind"], "unclassified"))
    _transaction_options(body.get("options", []), found)
    return _NONE


def _prepare(body: dict[str, Any], found: Findings) -> _Effect:
    inner = Findings()
    _statement(body["query"], inner)
    found.names.update(inner.names)
    found.details.update(inner.details)
    found.tables.update(inner.tables)
    found.functions.update(inner.functions)
    found.add("prepare")
    return ("prepare", body["name"], frozenset(inner.names))


def _execute(body: dict[str, Any], found: Findings) -> _Effect:
    found.add("execute")
    walk(body.get("params", []), found)
    return ("execute", body["name"], frozenset())


def _deallocate(body: dict[str, Any], found: Findings) -> _Effect:
    found.add("deallocate")
    return ("deallocate", body.get("name", ""), frozenset())


def _discard(body: dict[str, Any], found: Findings) -> _Effect:
    found.add("discard")
    if body.get("target", "DISCARD_ALL") == "DISCARD_ALL":
        return ("deallocate", "", frozenset())
    return _NONE


def _declare(body: dict[str, Any], found: Findings) -> _Effect:
    found.add("declare")
    return _statement(body["query"], found)


def _fetch(body: dict[str, Any], found: Findings) -> _Effect:
    found.add("move" if body.get("ismove") else "fetch")
    return _NONE


def _create_table_as(body: dict[str, Any], found: Findings) -> _Effect:
    if not found.passive:
        found.add("create_table_as", "CREATE TABLE AS")
    walk(body.get("into", {}), found)
    return _statement(body["query"], found)


def _vacuum(body: dict[str, Any], found: Findings) -> _Effect:
    found.add("vacuum" if body.get("is_vacuumcmd") else "analyze")
    walk(body, found)
    return _NONE


def _drop(body: dict[str, Any], found: Findings) -> _Effect:
    kind = body.get("removeType", "")
    found.add(DROPPED.get(kind, "drop"))
    if kind in DROPPED_TABLES:
        for item in body.get("objects", ()):
            parts = item.get("List", {}).get("items", ())
            found.table([p.get("String", {}).get("sval", "") for p in parts])
    return _NONE


def _grant(body: dict[str, Any], found: Findings) -> _Effect:
    found.add("grant" if body.get("is_grant") else "revoke")
    walk(body, found)
    return _NONE


_SPECIAL = {
    "SelectStmt": _select,
    "ExplainStmt": _explain,
    "CopyStmt": _copy,
    "VariableSetStmt": _set,
    "TransactionStmt": _transaction,
    "PrepareStmt": _prepare,
    "ExecuteStmt": _execute,
    "DeallocateStmt": _deallocate,
    "DiscardStmt": _discard,
    "DeclareCursorStmt": _declare,
    "FetchStmt": _fetch,
    "CreateTableAsStmt": _create_table_as,
    "VacuumStmt": _vacuum,
    "DropStmt": _drop,
    "GrantStmt": _grant,
    "GrantRoleStmt": _grant,
}
