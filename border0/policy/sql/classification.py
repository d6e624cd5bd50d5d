"""What was found out about one text: its statements, tables and functions.

Values only; `postgres` makes them, `gate` judges them, and they cross the process boundary as
plain lists.
"""

from border0.policy.sql.statements import CLASS_OF, gravest

_DATA = frozenset({"select", "insert", "update", "delete"})


class Statement:
    """One statement of a text.

    `names` are the statement names it amounts to (a CTE may add `delete` to `select`). `prepared`
    is the SQL-level prepared statement it makes (`effect` "prepare"), runs ("execute") or drops
    ("deallocate"; empty = all), and `body` what a PREPARE will run.
    """

    __slots__ = ("body", "effect", "names", "prepared")

    def __init__(
        self,
        names: frozenset[str],
        effect: str = "",
        prepared: str = "",
        body: frozenset[str] = frozenset(),
    ) -> None:
        self.names = names
        self.effect = effect
        self.prepared = prepared
        self.body = body


class Classification:
    """The finding for one text; `error` says why it is unclassified, else it is empty.

    `details` maps a statement name to what caused it ("function setval", "SET role").
    """

    __slots__ = ("details", "error", "functions", "klass", "stateful", "statements", "tables")

    def __init__(
        self,
        statements: tuple[Statement, ...],
        tables: tuple[str, ...] = (),
        functions: tuple[str, ...] = (),
        details: dict[str, str] | None = None,
        error: str = "",
    ) -> None:
        self.statements = statements
        self.tables = tables
        self.functions = functions
        self.details = details or {}
        self.error = error
        self.stateful = any(s.effect for s in statements)
        self.klass = gravest(name for s in statements for name in s.names)

    def maskable(self) -> bool:
        """Whether other numbers in the same text cannot change the finding."""
        return not self.error and all(s.names <= _DATA for s in self.statements)

    def pack(self) -> list[object]:
        """Plain lists and strings for JSON; `unpack` is the reverse."""
        return [
            [[sorted(s.names), s.effect, s.prepared, sorted(s.body)] for s in self.statements],
            list(self.tables),
            list(self.functions),
            self.details,
            self.error,
        ]


def unclassified(error: str) -> Classification:
    """The finding for a text that was not understood."""
    return Classification((Statement(frozenset({"unclassified"})),), error=error)


def unpack(data: object) -> Classification:
    """The finding that `pack` wrote; anything else is unclassified, never an exception."""
    try:
        statements, tables, functions, details, error = data  # type: ignore[misc]
        made = []
        for names, effect, prepared, body in statements:  # type: ignore[has-type]
            if not (CLASS_OF.keys() >= set(names) and CLASS_OF.keys() >= set(body)):
                return unclassified("the parser process gave an unknown answer")
            made.append(Statement(frozenset(names), str(effect), str(prepared), frozenset(body)))
        return Classification(
            tuple(made),
            tuple(map(str, tables)),  # type: ignore[has-type]
            tuple(map(str, functions)),  # type: ignore[has-type]
            {str(k): str(v) for k, v in details.items()},  # type: ignore[has-type]
            str(error),  # type: ignore[has-type]
        )
    except (TypeError, ValueError, AttributeError):
        return unclassified("the parser process gave an unknown answer")
