"""Judges the statements of one database session by its grant.

Pure: texts in, verdicts out; a large text leaves through `submit` and its verdict comes back by
callback. It follows what changes the meaning of later statements: SQL-level prepared statements,
and the server's report of settings under which the parser would read a text differently.

What is judged is the text. A ReadOnly grant also needs the session to be read-only upstream
(`startup_parameters`), because functions, views and operators of users cannot be seen through.
"""

import json
from collections.abc import Callable

from border0.policy.grants import DatabaseGrant
from border0.policy.sql import settings, startup
from border0.policy.sql.cache import StatementCache
from border0.policy.sql.classification import Classification, Statement, unclassified
from border0.policy.sql.limits import MAXIMUM_SUBMITTED, fits
from border0.policy.sql.postgres import classify
from border0.policy.sql.shape import mask
from border0.policy.sql.statements import CLASS_OF, EVERY_STATEMENT, RANK
from border0.policy.sql.verdict import Verdict, literal

Answer = Callable[[Verdict], None]
Submit = Callable[[bytes, Callable[[Classification], None]], None]

MAXIMUM_PREPARED = 10_000
_REPLICATION_COMMANDS = frozenset(
    {
        b"IDENTIFY_SYSTEM",
        b"TIMELINE_HISTORY",
        b"CREATE_REPLICATION_SLOT",
        b"ALTER_REPLICATION_SLOT",
        b"DROP_REPLICATION_SLOT",
        b"READ_REPLICATION_SLOT",
        b"START_REPLICATION",
        b"BASE_BACKUP",
        b"UPLOAD_MANIFEST",
    }
)


class StatementGate:
    """One per session. `submit` parses large texts elsewhere; without it they are unclassified."""

    __slots__ = (
        "_cache",
        "_distrust",
        "_grant",
        "_prepared",
        "_replication",
        "_submit",
        "_table",
        "_verdicts",
    )

    def __init__(
        self, grant: DatabaseGrant, cache: StatementCache, submit: Submit | None = None
    ) -> None:
        self._grant = grant
        self._cache = cache
        self._submit = submit
        self._table = cache.table(grant)
        self._verdicts = self._table.verdicts
        self._prepared: dict[str, frozenset[str]] = {}
        self._distrust: dict[str, str] = {}
        self._replication = False

    def decide(self, sql: bytes, answered: Answer | None = None) -> Verdict | None:
        """The verdict on a text without its trailing NUL; never raises on any text.

        None means that the text is being parsed elsewhere: `answered` is called once, later.
        """
        verdict = self._verdicts.get(sql)
        if verdict is not None:
            return verdict
        return self._decide_unseen(sql, answered)

    def _decide_unseen(self, sql: bytes, answered: Answer | None) -> Verdict | None:
        if self._distrust or self._replication:
            return self._decide_special(sql)
        shape = mask(sql)
        if shape is not None:
            known = self._table.shapes.get(shape)
            if known is not None:
                # Not remembered: texts with numbers in them seldom come again, and thousands of
                # them would push everything else out of the processor's caches.
                verdict, plain = known
                return verdict.with_text(f'"{sql.decode()}"' if plain else literal(sql))
        found = self._cache.classified(sql)
        if found is None:
            if not fits(sql):
                return self._decide_large(sql, answered)
            found = classify(sql)
            if found.stateful or self._grant.unrestricted:
                self._cache.remember_class(sql, found)
        verdict = self._judge(sql, found)
        if not found.stateful:
            self._table.remember(sql, verdict, shape if found.maskable() else None)
        return verdict

    def _decide_special(self, sql: bytes) -> Verdict:
        """The verdict while texts cannot be trusted, or in a replication session; not cached."""
        if self._replication:
            words = sql.split(None, 1)
            if words and words[0].rstrip(b";").upper() in _REPLICATION_COMMANDS:
                command = Statement(frozenset({"replication_command"}))
                return self._judge(sql, Classification((command,)))
        if self._distrust:
            return self._judge(sql, unclassified(next(iter(self._distrust.values()))))
        found = classify(sql) if fits(sql) else unclassified("the text is too large")
        return self._judge(sql, found)

    def _decide_large(self, sql: bytes, answered: Answer | None) -> Verdict | None:
        if self._grant.unrestricted:
            return self._judge(sql, unclassified("the text is too large to be parsed here"))
        if self._submit is None or answered is None or len(sql) > MAXIMUM_SUBMITTED:
            return self._judge(sql, unclassified("the text is too large"))
        reply = answered

        def classified(found: Classification) -> None:
            if self._distrust:
                found = unclassified(next(iter(self._distrust.values())))
            reply(self._judge(sql, found))

        self._submit(sql, classified)
        return None

    def decide_function_call(self) -> Verdict:
        """The verdict on the protocol's FunctionCall, which names a function by number only."""
        found = Classification((Statement(frozenset({"function_call"})),))
        return self._judge(b"(function call)", found)

    def parameter_status(self, name: str, value: str) -> None:
        """Note a ParameterStatus of the server.

        While it reports a setting under which the parser would misread texts, or that a read-only
        session may write (a user's function can do that), every statement is unclassified.
        """
        if self._grant.unrestricted:
            return
        if name == "standard_conforming_strings":
            bad = value.lower() != "on"
        elif name == "client_encoding":
            bad = settings.is_unsafe_encoding(value)
        elif name == "default_transaction_read_only" and self._grant.read_only:
            bad = value.lower() != "on"
        else:
            return
        if bad:
            self._distrust[name] = f"nothing is judged while {name} is {value[:40]}"
        else:
            self._distrust.pop(name, None)
        self._choose_table()

    def startup_parameters(self) -> dict[str, str]:
        """What the start-up message to the server must carry for this grant to hold."""
        return startup.required(self._grant)

    def check_startup(self, parameters: dict[str, str]) -> Verdict | None:
        """The refusal of a client's start-up parameters, or None when they may pass."""
        refusal = startup.refusal(self._grant, parameters)
        if refusal is None:
            self._replication = startup.asks_replication(parameters)
            self._choose_table()
            return None
        cause, klass = refusal
        rule = self._grant.rules[0]
        reason = f'policy "{rule.policy}" does not allow {cause} at start-up ({rule.clause})'
        return Verdict(False, '""', klass, "[]", rule.policy, rule.clause, reason)

    def _choose_table(self) -> None:
        special = bool(self._distrust) or (self._replication and not self._grant.unrestricted)
        self._verdicts = {} if special else self._table.verdicts

    def _judge(self, sql: bytes, found: Classification) -> Verdict:
        grant = self._grant
        tables = json.dumps(found.tables) if found.tables else "[]"
        if grant.unrestricted:
            rule = grant.rule_for(EVERY_STATEMENT)
            return Verdict(True, literal(sql), found.klass, tables, rule.policy)
        needed: frozenset[str] = frozenset()
        made: dict[str, frozenset[str]] = {}
        for statement in found.statements:
            needed |= statement.names
            if statement.effect == "prepare":
                before = made.get(statement.prepared, self._prepared.get(statement.prepared))
                made[statement.prepared] = statement.body | (before or frozenset())
            elif statement.effect == "execute":
                name = statement.prepared
                needed |= made.get(name, self._prepared.get(name, frozenset({"unclassified"})))
        missing = needed - grant.allowed
        klass = max((CLASS_OF[n] for n in needed), key=RANK.__getitem__, default=found.klass)
        if missing:
            return self._denial(sql, found, klass, tables, missing)
        if found.stateful:
            self._follow(found)
        return Verdict(True, literal(sql), klass, tables, grant.rule_for(needed).policy)

    def _follow(self, found: Classification) -> None:
        """Note what an allowed text does to the session's prepared statements.

        A name keeps every body it may stand for: whether the server accepted a PREPARE is not
        known yet. After DEALLOCATE the name is unknown.
        """
        prepared = self._prepared
        for statement in found.statements:
            if statement.effect == "prepare":
                if statement.prepared in prepared or len(prepared) < MAXIMUM_PREPARED:
                    before = prepared.get(statement.prepared, frozenset())
                    prepared[statement.prepared] = before | statement.body
            elif statement.effect == "deallocate":
                if statement.prepared:
                    prepared.pop(statement.prepared, None)
                else:
                    prepared.clear()

    def _denial(
        self, sql: bytes, found: Classification, klass: str, tables: str, missing: frozenset[str]
    ) -> Verdict:
        grant = self._grant
        worst = max(sorted(missing), key=lambda name: RANK[CLASS_OF[name]])
        rule = next((d for d in grant.denials if worst in (d.statements or ())), None)
        if rule is None:
            rule = grant.rule_for(missing)
        if worst == "unclassified":
            if not found.error:
                what = "EXECUTE of a statement that this session did not prepare"
            else:
                what = f"a statement that cannot be classified: {found.error}"
        else:
            label = worst.upper().replace("_", " ")
            what = found.details.get(worst, label)
            if what.startswith("function "):
                what = f"the {what}"
            if worst == "function_call":
                what = "a call of a function by its number"
        reason = (
            f'policy "{rule.policy}" does not allow {what} '
            f'on database "{grant.database}" ({rule.clause})'
        )
        return Verdict(False, literal(sql), klass, tables, rule.policy, rule.clause, reason)
