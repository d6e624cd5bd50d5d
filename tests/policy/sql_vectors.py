"""Loads the SQL corpora and builds the grants that the tests judge by."""

import json
from pathlib import Path

from border0.policy.decide import database
from border0.policy.grants import DatabaseGrant
from border0.policy.parse import parse_policy
from border0.policy.sql.cache import StatementCache
from border0.policy.sql.gate import StatementGate

FOLDER = Path(__file__).parent.parent / "vectors" / "sql"


def load(name: str) -> list[dict[str, str]]:
    data = json.loads((FOLDER / f"{name}.json").read_text())
    assert data["origin"], name
    return data["vectors"]


def grant(*types: str, database_name: str = "shop", **deny: list[str]) -> DatabaseGrant:
    """The grant of one policy `rule` with these query types; none = unrestricted."""
    entry: dict[str, object] = {"database": "*"}
    if types:
        entry["allowed_query_types"] = list(types)
    document: dict[str, object] = {"permissions": {"database": {"allowed_databases": [entry]}}}
    if "deny" in deny:
        denied = {"database": "*", "allowed_query_types": deny["deny"]}
        document["deny"] = {"database": {"allowed_databases": [denied]}}
    found = database([parse_policy("rule", document)], database_name)
    assert isinstance(found, DatabaseGrant)
    return found


def gate(*types: str, **deny: list[str]) -> StatementGate:
    return StatementGate(grant(*types, **deny), StatementCache())
