"""A policy as objects: what it permits, what it denies, under which condition.

Source: Border0's policy document, version 2. In every list None means that the key is absent
(unrestricted) and an empty tuple means nothing at all. A null in the document is an absent key.

This module holds values only; `parse` makes them and `decide` reads them.
"""

from dataclasses import dataclass, field
from datetime import datetime, time
from ipaddress import IPv4Network, IPv6Network

from border0.errors import ConfigError

PROTOCOLS = (
    "ssh",
    "database",
    "kubernetes",
    "aws_s3",
    "aws_access",
    "http",
    "tls",
    "vnc",
    "rdp",
    "vpn",
    "network",
)


class PolicyError(ConfigError):
    """A policy document is wrong; the text names the path, the key and the nearest valid key."""


@dataclass(frozen=True)
class Subject:
    """Who asks: a user by e-mail address and groups, or a service account by name."""

    user: str
    groups: frozenset[str] = frozenset()
    service_account: str = ""
    device: str = ""


@dataclass(frozen=True)
class Situation:
    """Where and when: underlay address and country (None = unknown) and an aware time."""

    address: str | None
    country: str | None
    time: datetime


@dataclass(frozen=True)
class Who:
    """`condition.who`; None = the key is absent."""

    email: tuple[str, ...] | None = None
    group: tuple[str, ...] | None = None
    service_account: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Where:
    """`condition.where`; an empty list is no restriction here, as in Border0's own documents."""

    allowed_ip: tuple[IPv4Network | IPv6Network, ...] = ()
    country: tuple[str, ...] = ()
    country_not: tuple[str, ...] = ()


@dataclass(frozen=True)
class When:
    """`condition.when`; instants are aware, times of day are UTC."""

    after: datetime | None = None
    before: datetime | None = None
    time_of_day_after: time | None = None
    time_of_day_before: time | None = None


@dataclass(frozen=True)
class Condition:
    """All three parts must hold; an absent part holds always."""

    who: Who | None = None
    where: Where | None = None
    when: When | None = None


@dataclass(frozen=True)
class Connection:
    """One `allowed_connections` entry; None or `*` = any."""

    destination_address: str | None = None
    destination_port: str | None = None


@dataclass(frozen=True)
class NamespaceRule:
    """One `allowed_namespaces` entry."""

    namespace: str
    pod_selector: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SSHPermission:
    """`permissions.ssh`. An empty object permits everything in it (`everything`)."""

    everything: bool = False
    shell: bool = False
    exec: bool = False
    exec_commands: tuple[str, ...] | None = None
    exec_commands_shell: tuple[str, ...] | None = None
    sftp: bool = False
    agent_forwarding: bool = False
    tcp_forwarding: bool = False
    allowed_connections: tuple[Connection, ...] | None = None
    kubectl_exec: bool = False
    allowed_namespaces: tuple[NamespaceRule, ...] | None = None
    docker_exec: bool = False
    allowed_containers: tuple[str, ...] | None = None
    max_session_duration_seconds: int | None = None
    allowed_usernames: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DatabaseRule:
    """One `allowed_databases` entry; `query_types` None = every statement."""

    database: str
    query_types: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DatabasePermission:
    """`permissions.database`; `databases` None = every database, every statement."""

    databases: tuple[DatabaseRule, ...] | None = None
    max_session_duration_seconds: int | None = None


@dataclass(frozen=True)
class KubernetesRule:
    """One `permissions.kubernetes.rules` entry."""

    api_groups: tuple[str, ...] | None = None
    namespaces: tuple[str, ...] | None = None
    verbs: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    resource_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class S3Rule:
    """One `permissions.aws_s3.rules` entry."""

    buckets: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None
    actions: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Permissions:
    """What a document permits (or, under `deny`, refuses), by protocol.

    `protocols` holds every protocol whose key is present; the other fields hold the details.
    """

    protocols: frozenset[str] = frozenset()
    ssh: SSHPermission | None = None
    database: DatabasePermission | None = None
    kubernetes: tuple[KubernetesRule, ...] | None = None
    aws_s3: tuple[S3Rule, ...] | None = None
    aws_iam_role_arns: tuple[tuple[str, int | None], ...] | None = None


@dataclass(frozen=True)
class Policy:
    """One policy document under its name."""

    name: str
    permissions: Permissions
    deny: Permissions = field(default_factory=Permissions)
    condition: Condition = field(default_factory=Condition)
