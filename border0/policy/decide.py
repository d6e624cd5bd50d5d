"""Decides whether a subject may use a protocol, and which statements on which database.

Default deny; several policies unite; a `deny` that applies wins. The decision carries a trace with
every policy and clause that was looked at. `sql/` judges single statements by the grant made here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from border0.policy.explain import MET, NOT_MET, Step, steps
from border0.policy.grants import DatabaseGrant, Rule
from border0.policy.model import (
    PROTOCOLS,
    DatabasePermission,
    Permissions,
    Policy,
    Situation,
    Subject,
)
from border0.policy.sql.statements import expand


@dataclass(frozen=True)
class Decision:
    """Whether it is allowed, and why: `reason` is one sentence that a user may read.

    `policy` and `clause` name what decided (empty when no policy is attached at all); `matched`
    are the policies whose permission and condition hold, and those whose `deny` applies.
    """

    allowed: bool
    policy: str
    clause: str
    reason: str
    trace: tuple[Step, ...] = ()
    matched: tuple[Policy, ...] = ()


def connect(
    policies: Sequence[Policy], protocol: str, subject: Subject, situation: Situation
) -> Decision:
    """Whether `subject` may open a session of `protocol` now.

    :raises ValueError: a protocol that no policy can name.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"unknown protocol {protocol!r}")
    if not policies:
        return Decision(False, "", "", "no policy is attached to this service")
    trace: list[Step] = []
    matched: list[Policy] = []
    refused: Step | None = None
    nearest: tuple[int, Step] | None = None
    granted: Policy | None = None
    for policy in policies:
        clauses = steps(policy, subject, situation)
        if protocol in policy.deny.protocols:
            applies = all(s.outcome != NOT_MET for s in clauses)
            whole = _denies_all(policy.deny, protocol)
            step = Step(
                policy.name,
                f"deny.{protocol}",
                NOT_MET if applies and whole else MET,
                "it applies" if applies else "its condition does not hold",
            )
            trace.append(step)
            if applies:
                if whole and refused is None:
                    refused = step
        permitted = protocol in policy.permissions.protocols
        step = Step(
            policy.name,
            f"permissions.{protocol}",
            MET if permitted else NOT_MET,
            f"{protocol} is {'' if permitted else 'not '}permitted",
        )
        trace.append(step)
        trace.extend(clauses)
        denies = protocol in policy.deny.protocols and all(s.outcome != NOT_MET for s in clauses)
        failed = next((s for s in (step, *clauses) if s.outcome != MET), None)
        if failed is None:
            granted = granted or policy
            matched.append(policy)
        else:
            if denies:
                # Only its denials count: what it permits was not reached.
                matched.append(replace(policy, permissions=Permissions()))
            passed = sum(s.outcome == MET for s in (step, *clauses)) if permitted else -1
            if nearest is None or passed > nearest[0]:
                nearest = (passed, failed)
    if refused is not None:
        reason = f'policy "{refused.policy}" denies {protocol} ({refused.clause})'
        return Decision(False, refused.policy, refused.clause, reason, tuple(trace))
    if granted is not None:
        clause = f"permissions.{protocol}"
        reason = f'policy "{granted.name}" permits {protocol} ({clause})'
        return Decision(True, granted.name, clause, reason, tuple(trace), tuple(matched))
    assert nearest is not None  # some policy was there, and none was granted
    failed = nearest[1]
    reason = f'policy "{failed.policy}" does not apply: {failed.detail} ({failed.clause})'
    return Decision(False, failed.policy, failed.clause, reason, tuple(trace))


def _denies_all(denied: Permissions, protocol: str) -> bool:
    """Whether a `deny` refuses the whole protocol; otherwise its rules are asked one by one."""
    if protocol == "database":
        return denied.database is None or denied.database.databases is None
    return protocol != "ssh" or denied.ssh is None or denied.ssh.everything


def database(matched: Sequence[Policy], database: str) -> DatabaseGrant | Decision:
    """What the matched policies grant on this database, or why it is refused.

    `matched` are the policies of a `Decision` that allowed the protocol `database`.
    """
    rules: list[Rule] = []
    denials: list[Rule] = []
    names: list[str] = []
    limits: list[int | None] = []
    clause = "permissions.database.allowed_databases"
    for policy in matched:
        for path, denied in _entries(policy.deny.database, "deny", database):
            denials.append(Rule(policy.name, path, denied))
            if denied is None:
                reason = f'policy "{policy.name}" denies database "{database}" ({path})'
                return Decision(False, policy.name, path, reason)
        permission = policy.permissions.database
        granted = _entries(permission, "permissions", database)
        if granted and permission is not None:
            rules.extend(Rule(policy.name, path, allowed) for path, allowed in granted)
            names.append(policy.name)
            limits.append(permission.max_session_duration_seconds)
    if not rules:
        holders = [p.name for p in matched if p.permissions.database is not None]
        name = holders[0] if holders else ""
        by = f'policy "{name}"' if name else "no policy"
        verb = "does not permit" if name else "permits"
        reason = f'{by} {verb} database "{database}" ({clause})'
        return Decision(False, name, clause, reason)
    # the largest limit counts, and none at all is the largest
    known = [limit for limit in limits if limit is not None]
    seconds = float(max(known)) if len(known) == len(limits) else None
    return DatabaseGrant(database, tuple(rules), tuple(denials), seconds, tuple(names))


def _entries(
    permission: DatabasePermission | None, root: str, database: str
) -> list[tuple[str, frozenset[str] | None]]:
    """(path, statements or None for all) of every entry that names this database."""
    if permission is None:
        return []
    if permission.databases is None:
        return [(f"{root}.database", None)]
    found: list[tuple[str, frozenset[str] | None]] = []
    for index, rule in enumerate(permission.databases):
        if rule.database not in ("*", database):
            continue
        path = f"{root}.database.allowed_databases[{index}]"
        if rule.query_types is None:
            found.append((path, None))
        else:
            found.append((f"{path}.allowed_query_types", expand(rule.query_types)))
    return found
