"""Walks a parse tree and collects what it does: writes, locks, tables, function calls.

The tree is the parser's JSON as dicts and lists; the walk is a loop with its own stack, because
trees may be deeper than Python's. It looks at every node, so that a write cannot hide in a place
that nobody thought of.

A function is also called by column notation: `SELECT ('/etc/passwd'::text).pg_read_file`,
`$1.lo_unlink` and `x.pg_read_file FROM lower('…') x` run it (PostgreSQL documentation 8.16.5), so
the last part of every dotted name is looked up too.

Source: PostgreSQL 17 parsenodes.h as protobuf JSON: a field of one fixed type has no wrapper
(`relation` of DeleteStmt is a bare RangeVar, `larg` of SelectStmt a bare SelectStmt), and absent
fields are zero, false or empty.
"""

import re
from typing import Any

from border0.policy.sql import functions, settings
from border0.policy.sql.kinds import ALTERED, SIMPLE

_PLAIN = re.compile(r"[a-z_\x80-\U0010ffff][a-z0-9_$\x80-\U0010ffff]*\Z")
_NO_NAMES: frozenset[str] = frozenset()
# What INSERT … ON CONFLICT and MERGE do to rows, for the server asks for these rights too.
_ACTIONS = {
    "ONCONFLICT_UPDATE": "update",
    "CMD_INSERT": "insert",
    "CMD_UPDATE": "update",
    "CMD_DELETE": "delete",
}
_LEAVES = frozenset({"A_Const", "String", "alias", "withClause"})


def quoted(name: str) -> str:
    """A name as PostgreSQL would need it written: plain, or in double quotes."""
    return name if _PLAIN.match(name) else '"' + name.replace('"', '""') + '"'


def constant(node: Any) -> str | None:
    """The text of a constant node, or None when it is anything else.

    A cast counts only when it is to `text`; any other might change the value.
    """
    if not isinstance(node, dict):
        return None
    cast = node.get("TypeCast")
    if cast is not None:
        names = [n.get("String", {}).get("sval") for n in cast.get("typeName", {}).get("names", ())]
        if names not in (["text"], ["pg_catalog", "text"]):
            return None
        node = cast.get("arg", {})
    value = node.get("A_Const")
    if value is None:
        return None
    for kind, field in (("sval", "sval"), ("boolval", "boolval"), ("ival", "ival")):
        if kind in value:
            default: object = {"sval": "", "boolval": False, "ival": 0}[kind]
            found = value[kind].get(field, default)
            return ("on" if found else "off") if kind == "boolval" else str(found)
    if "fval" in value:
        return str(value["fval"].get("fval", ""))
    return None


class Findings:
    """What a walk has found so far; `passive` leaves out what is planned but not run."""

    __slots__ = ("details", "functions", "names", "passive", "tables")

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.tables: dict[str, None] = {}
        self.functions: dict[str, None] = {}
        self.details: dict[str, str] = {}
        self.passive = False

    def add(self, name: str, cause: str = "") -> None:
        """Note that the text amounts to the statement `name`, because of `cause`."""
        self.names.add(name)
        if cause:
            self.details.setdefault(name, cause)

    def table(self, parts: list[str]) -> None:
        """Note a relation by its parts, outermost first."""
        self.tables[".".join(map(quoted, parts))] = None

    def called(self, name: str) -> None:
        """Note a function that is called by this name, whatever its schema."""
        statement = functions.effect(name)
        if statement is not None:
            self.add(statement, f"function {name}")


def _range_variable(node: dict[str, Any], scope: frozenset[str], found: Findings) -> None:
    name = node.get("relname", "")
    schema = node.get("schemaname")
    if schema is None and name in scope:
        return  # a CTE
    parts = [p for p in (node.get("catalogname"), schema) if p]
    found.table([*parts, name])
    statement = functions.view_effect(name)
    if statement is not None:
        found.add(statement, f"reading {name}")


def _function_call(node: dict[str, Any], found: Findings) -> None:
    parts = [p.get("String", {}).get("sval", "") for p in node["funcname"] if isinstance(p, dict)]
    if not parts:
        return
    found.functions[".".join(map(quoted, parts))] = None
    name = functions.folded(parts[-1])
    if name != "set_config":
        found.called(name)
        return
    arguments = node.get("args", [])
    setting = constant(arguments[0]) if len(arguments) == 3 else None
    if setting is None:
        found.add("set_parser", "set_config of a name that is not a constant")
        return
    value = constant(arguments[1])
    statement = settings.judge(setting, settings.UNKNOWN if value is None else value)
    if statement != "set":
        found.add(statement, f"set_config of {setting}")


def _dotted(fields: Any, found: Findings) -> None:
    """Look up the names of a dotted expression: column notation calls functions."""
    for part in fields:
        name = part.get("String", {}).get("sval") if isinstance(part, dict) else None
        if name is not None:
            found.called(name)


_Pending = list[tuple[Any, frozenset[str], bool]]


def walk(root: Any, found: Findings) -> None:
    """Collect into `found` everything below `root` (a node, its body, or a list of them)."""
    # (subtree, names of CTEs it may see, whether its own WITH clause is already taken)
    pending: _Pending = [(root, _NO_NAMES, False)]
    while pending:
        subtree, scope, taken = pending.pop()
        stack: list[Any] = [subtree]
        while stack:
            node = stack.pop()
            if isinstance(node, list):
                stack.extend(reversed(node))
                continue
            if not isinstance(node, dict):
                continue
            if not taken and "withClause" in node:
                _with_clause(node, scope, pending)
                continue
            taken = False
            if "relname" in node:
                _range_variable(node, scope, found)
            elif "funcname" in node:
                _function_call(node, found)
            _children(node, stack, pending, found)


def _children(node: dict[str, Any], stack: list[Any], pending: _Pending, found: Findings) -> None:
    """Note what the keys of a node tell, and push what is below them."""
    for key, value in reversed(node.items()):
        if key in _LEAVES or not isinstance(value, (dict, list)):
            continue
        if key == "ColumnRef":
            fields = value.get("fields", ())  # type: ignore[union-attr]
            if len(fields) > 1:
                _dotted(fields[1:], found)
            continue
        if key == "fromClause" or key == "usingClause":
            found.add("select")
        elif key == "sourceRelation":
            if "RangeVar" in value:
                found.add("select")
        elif key == "onConflictClause" or key == "MergeWhenClause":
            action = _ACTIONS.get(value.get("action") or value.get("commandType", ""))  # type: ignore[union-attr]
            if action is not None:
                found.add(action)
        elif key == "indirection" or key == "objname":
            _dotted(value, found)
        elif key == "arg" and "defname" in node:
            # Operators and aggregates that are made run the functions they are made of.
            _dotted([value, *value.get("TypeName", {}).get("names", ())], found)  # type: ignore[union-attr]
        elif key == "AlterTableCmd":
            altered = ALTERED.get(value.get("subtype", ""))  # type: ignore[union-attr]
            if altered is not None:
                found.add(altered)
        elif key == "intoClause":
            if not found.passive:
                found.add("select_into", "SELECT INTO")
        elif key == "lockingClause":
            if not found.passive:
                found.add("select_for_update", "SELECT FOR UPDATE or SHARE")
            continue
        elif key == "relation" and "relname" in value:
            # what is written to is never a CTE
            if value["relname"] == "pg_settings" and "targetList" in node:  # type: ignore[call-overload]
                found.add("set_parser", "UPDATE of pg_settings")
            pending.append((value, _NO_NAMES, False))
            continue
        elif key.endswith("Stmt") and key != "SelectStmt" and key[0].isupper():
            # (`selectStmt` is a field of InsertStmt, its content is wrapped)
            if not found.passive:
                found.add(SIMPLE.get(key, "unclassified"))
        stack.append(value)


def _with_clause(node: dict[str, Any], scope: frozenset[str], pending: _Pending) -> None:
    """Leave the CTEs and the body for later, each with the names that it may see."""
    clause = node["withClause"]
    expressions = [c.get("CommonTableExpr", {}) for c in clause.get("ctes", ())]
    names = [c.get("ctename", "") for c in expressions]
    later: _Pending = []
    if clause.get("recursive"):
        scope = scope | frozenset(names)
        later.extend((expression, scope, False) for expression in expressions)
    else:
        for name, expression in zip(names, expressions, strict=True):
            later.append((expression, scope, False))
            scope = scope | {name}
    later.append((node, scope, True))
    pending.extend(reversed(later))
