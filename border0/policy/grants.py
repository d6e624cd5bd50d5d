"""What several policies together grant on one database: the input of statement verdicts."""

from border0.policy.sql.statements import EVERY_STATEMENT, NEEDS_WRITING, NEVER_BY_NAME


class Rule:
    """One entry of a policy: `statements` None = all of them. `clause` is its path."""

    __slots__ = ("clause", "policy", "statements")

    def __init__(self, policy: str, clause: str, statements: frozenset[str] | None) -> None:
        self.policy = policy
        self.clause = clause
        self.statements = statements


class DatabaseGrant:
    """The union of what the matched policies permit on `database`, minus what they deny.

    `unrestricted`: some policy permits everything and none denies anything; such a session is
    forwarded whatever its text. `read_only`: no policy grants any write, so that the session can
    be made read-only upstream. `max_session_seconds`: None = no limit. `key` is equal for grants
    that give equal verdicts; verdicts are cached under it.
    """

    __slots__ = (
        "allowed",
        "database",
        "denials",
        "denied",
        "key",
        "max_session_seconds",
        "policies",
        "read_only",
        "rules",
        "unrestricted",
    )

    def __init__(
        self,
        database: str,
        rules: tuple[Rule, ...],
        denials: tuple[Rule, ...] = (),
        max_session_seconds: float | None = None,
        policies: tuple[str, ...] = (),
    ) -> None:
        self.database = database
        self.rules = rules
        self.denials = denials
        self.max_session_seconds = max_session_seconds
        self.policies = policies
        everything = any(rule.statements is None for rule in rules)
        self.unrestricted = everything and not denials
        self.denied: frozenset[str] = frozenset().union(
            *(EVERY_STATEMENT if d.statements is None else d.statements for d in denials)
        )
        allowed: frozenset[str] = frozenset().union(
            *(EVERY_STATEMENT if r.statements is None else r.statements for r in rules)
        )
        if not self.unrestricted:
            allowed -= NEVER_BY_NAME
            if denials:
                # It might be just what is denied.
                allowed -= {"unclassified"}
        self.allowed = allowed - self.denied
        self.read_only = not self.unrestricted and self.allowed.isdisjoint(NEEDS_WRITING)
        self.key = (
            database,
            tuple((r.policy, r.clause, r.statements) for r in rules),
            tuple((d.policy, d.clause, d.statements) for d in denials),
        )

    def covers(self, names: frozenset[str]) -> bool:
        """Whether statements that amount to these names are allowed."""
        return names <= self.allowed

    def rule_for(self, names: frozenset[str]) -> Rule:
        """The first rule that allows all of these, else the first that allows any, else the
        first."""
        for rule in self.rules:
            if rule.statements is None or names <= rule.statements:
                return rule
        for rule in self.rules:
            if rule.statements is not None and names & rule.statements:
                return rule
        return self.rules[0]
