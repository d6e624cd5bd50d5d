"""Parses a Border0 v2 policy document, strictly.

A key that is present permits its protocol; an empty object permits everything in it. An absent
list (or null) is no restriction, an empty list permits nothing. Additive keys are `deny` (same
shape as `permissions`; wins), `require`, and per database `tables`, `columns`, `functions`,
`max_rows` and `max_seconds`. What this version cannot enforce is refused here, so that no rule is
accepted and then ignored.

Source: Border0's policy document, version 2 (`policy_data`). The sugar of its Terraform provider
(`allowed`, `use_*_list`) is not part of it.
"""

from collections.abc import Mapping

from border0.policy import conditions
from border0.policy.model import (
    PROTOCOLS,
    DatabasePermission,
    DatabaseRule,
    KubernetesRule,
    Permissions,
    Policy,
    S3Rule,
)
from border0.policy.reading import Reader, nearest
from border0.policy.shell import ssh
from border0.policy.sql.statements import QUERY_TYPES, is_query_type

_DATABASE_KEYS = ("database", "allowed_query_types")
_NOT_YET = ("tables", "columns", "functions", "max_rows", "max_seconds")
_REQUIREMENTS = ("mfa", "approval", "reason")
_KUBERNETES_KEYS = ("api_groups", "namespaces", "verbs", "resources", "resource_names")
_S3_KEYS = ("buckets", "paths", "actions")


def parse_policy(name: str, data: Mapping[str, object], where: str = "") -> Policy:
    """The policy that this `policy_data` describes.

    :param where: begins every message, such as the name of the file.
    :raises PolicyError: an unknown key, a wrong type or value, or a rule that this version
        cannot enforce.
    """
    prefix = f'{where}: policy "{name}": ' if where else f'policy "{name}": '
    root = Reader(data, "", prefix, ("permissions", "deny", "require", "condition"))
    requirements = root.child("require", _REQUIREMENTS)
    if requirements is not None and requirements.data:
        key = next(iter(requirements.data))
        raise requirements.error(
            key, "cannot be enforced by this version, so the policy is refused"
        )
    if not root.present("permissions") and not root.present("deny"):
        raise root.error("", '"permissions" is missing')
    return Policy(
        name=name,
        permissions=_permissions(root, "permissions"),
        deny=_deny(root),
        condition=conditions.parse_condition(root),
    )


def _permissions(root: Reader, key: str) -> Permissions:
    reader = root.child(key, PROTOCOLS)
    if reader is None:
        return Permissions()
    for protocol in ("http", "tls", "vnc", "rdp", "vpn", "network"):
        reader.empty_object(protocol)
    return Permissions(
        protocols=frozenset(reader.data),
        ssh=ssh(reader),
        database=_database(reader),
        kubernetes=_kubernetes(reader),
        aws_s3=_s3(reader),
        aws_iam_role_arns=_aws_access(reader),
    )


def _deny(root: Reader) -> Permissions:
    denied = _permissions(root, "deny")
    reader = root.child("deny", PROTOCOLS)
    if reader is None:
        return denied
    for protocol, value in reader.data.items():
        if protocol not in ("database", "ssh") and value:
            raise reader.error(
                protocol, "only {} can be denied by this version; its rules cannot be enforced"
            )
    if denied.database is not None:
        if denied.database.max_session_duration_seconds is not None:
            raise reader.error("database.max_session_duration_seconds", "has no meaning in deny")
    if denied.ssh is not None and denied.ssh.max_session_duration_seconds is not None:
        raise reader.error("ssh.max_session_duration_seconds", "has no meaning in deny")
    return denied


def _database(reader: Reader) -> DatabasePermission | None:
    inner = reader.child("database", ("allowed_databases", "max_session_duration_seconds"))
    if inner is None:
        return None
    entries = inner.children("allowed_databases", (*_DATABASE_KEYS, *_NOT_YET))
    rules = None if entries is None else tuple(map(_database_rule, entries))
    return DatabasePermission(rules, inner.seconds("max_session_duration_seconds"))


def _database_rule(entry: Reader) -> DatabaseRule:
    for key in _NOT_YET:
        if entry.present(key):
            raise entry.error(key, "cannot be enforced by this version, so the policy is refused")
    database = entry.string("database")
    if not database:
        raise entry.error("database", "is missing; * means any database")
    types = entry.strings("allowed_query_types")
    for index, name in enumerate(types or ()):
        if not is_query_type(name):
            raise entry.error(
                f"allowed_query_types[{index}]",
                f'unknown query type "{name}"; {nearest(name, QUERY_TYPES)}',
            )
    return DatabaseRule(database, types)


def _kubernetes(reader: Reader) -> tuple[KubernetesRule, ...] | None:
    inner = reader.child("kubernetes", ("rules",))
    entries = None if inner is None else inner.children("rules", _KUBERNETES_KEYS)
    if entries is None:
        return None
    return tuple(KubernetesRule(*(e.strings(key) for key in _KUBERNETES_KEYS)) for e in entries)


def _s3(reader: Reader) -> tuple[S3Rule, ...] | None:
    inner = reader.child("aws_s3", ("rules",))
    entries = None if inner is None else inner.children("rules", _S3_KEYS)
    if entries is None:
        return None
    return tuple(S3Rule(*(e.strings(key) for key in _S3_KEYS)) for e in entries)


def _aws_access(reader: Reader) -> tuple[tuple[str, int | None], ...] | None:
    inner = reader.child("aws_access", ("aws_iam_role_arns",))
    if inner is None or not inner.present("aws_iam_role_arns"):
        return None
    value = inner.data["aws_iam_role_arns"]
    names = list(value) if isinstance(value, Mapping) else []
    roles = inner.child("aws_iam_role_arns", names)
    if roles is None:
        return None
    result = []
    for arn in roles.data:
        role = roles.child(arn, ("max_session_duration_seconds",))
        seconds = None if role is None else role.seconds("max_session_duration_seconds")
        result.append((arn, seconds))
    return tuple(result)
