"""Policies and their versions as answers show them."""

import json
from typing import Any

import msgspec
from sqlalchemy import Connection

from border0.control.routes.fields import time_text
from border0.control.store import attachments, policies, service_accounts, users
from border0.control.store.policies import Policy, PolicyVersion


class PolicyAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A policy with the text in force; `socket_ids` are those it is attached to directly."""

    id: str
    name: str
    version: str
    description: str
    org_id: str
    org_wide: bool
    policy_data: dict[str, Any]
    socket_ids: list[str]
    tag_rules: list[dict[str, str]]
    deleted: bool
    version_number: int
    author: str
    etag_version: int
    created_at: str | None
    updated_at: str | None


class VersionLine(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One version of a policy; `reverts` is the number of the one that it repeats."""

    number: int
    author: str
    comment: str
    reverts: int | None
    created_at: str | None


class VersionAnswer(VersionLine, forbid_unknown_fields=True, kw_only=True):
    """One version with its text, and what it changed as a unified diff."""

    policy_data: dict[str, Any]
    diff: str


def authors(connection: Connection, org: str, ids: set[str]) -> dict[str, str]:
    """What the users and service accounts among these ids are called; others keep their id."""
    people = users.among(connection, org, ids)
    programs = service_accounts.among(connection, org, ids)
    names = {id: one.email or one.name for id, one in people.items()}
    names |= {id: one.name for id, one in programs.items()}
    return {id: names.get(id) or id for id in ids}


def describe(connection: Connection, org: str, found: list[Policy]) -> list[PolicyAnswer]:
    """Policies as answers, in a few questions for all."""
    versions = policies.in_force(connection, org, found)
    names = authors(connection, org, {one.author for one in versions.values()})
    attached = attachments.of_policies(connection, org, [one.id for one in found])
    return [
        PolicyAnswer(
            id=one.id,
            name=one.name,
            version="v2",
            description=one.description,
            org_id=one.org,
            org_wide=one.org_wide,
            policy_data=json.loads(versions[one.id].text),
            socket_ids=attached[one.id],
            tag_rules=one.tag_rules,
            deleted=False,
            version_number=one.current,
            author=names[versions[one.id].author],
            etag_version=one.version,
            created_at=time_text(one.created),
            updated_at=time_text(one.updated),
        )
        for one in found
    ]


def version_line(one: PolicyVersion, names: dict[str, str]) -> dict[str, Any]:
    """The members that every answer about a version has."""
    return {
        "number": one.number,
        "author": names[one.author],
        "comment": one.comment,
        "reverts": one.reverts,
        "created_at": time_text(one.created),
    }
