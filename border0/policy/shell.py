"""Parses `permissions.ssh`.

The words of a command are matched elsewhere; here its patterns are only checked for syntax.
"""

import re
from collections.abc import Mapping

from border0.policy.model import Connection, NamespaceRule, SSHPermission
from border0.policy.reading import Reader

_KEYS = (
    "shell",
    "exec",
    "sftp",
    "agent_forwarding",
    "tcp_forwarding",
    "kubectl_exec",
    "docker_exec",
    "max_session_duration_seconds",
    "allowed_usernames",
)


def ssh(permissions: Reader) -> SSHPermission | None:
    """The `ssh` key of a `permissions` object, or None when it is absent.

    :raises PolicyError: an unknown key, a wrong type or value.
    """
    reader = permissions.child("ssh", _KEYS)
    if reader is None:
        return None
    command = reader.child("exec", ("commands", "commands_shell"))
    forwarding = reader.child("tcp_forwarding", ("allowed_connections",))
    kubectl = reader.child("kubectl_exec", ("allowed_namespaces",))
    docker = reader.child("docker_exec", ("allowed_containers",))
    return SSHPermission(
        everything=not reader.data,
        shell=reader.empty_object("shell"),
        exec=command is not None,
        exec_commands=_patterns(command, "commands"),
        exec_commands_shell=_patterns(command, "commands_shell"),
        sftp=reader.empty_object("sftp"),
        agent_forwarding=reader.empty_object("agent_forwarding"),
        tcp_forwarding=forwarding is not None,
        allowed_connections=_connections(forwarding),
        kubectl_exec=kubectl is not None,
        allowed_namespaces=_namespaces(kubectl),
        docker_exec=docker is not None,
        allowed_containers=None if docker is None else docker.strings("allowed_containers"),
        max_session_duration_seconds=reader.seconds("max_session_duration_seconds"),
        allowed_usernames=reader.strings("allowed_usernames"),
    )


def _patterns(reader: Reader | None, key: str) -> tuple[str, ...] | None:
    patterns = None if reader is None else reader.strings(key)
    if reader is None or patterns is None:
        return None
    for index, pattern in enumerate(patterns):
        try:
            re.compile(pattern)
        except re.error as error:
            raise reader.error(f"{key}[{index}]", f"not a regular expression: {error}") from None
    return patterns


def _connections(reader: Reader | None) -> tuple[Connection, ...] | None:
    if reader is None:
        return None
    entries = reader.children("allowed_connections", ("destination_address", "destination_port"))
    if entries is None:
        return None
    return tuple(
        Connection(e.string("destination_address"), e.string("destination_port")) for e in entries
    )


def _namespaces(reader: Reader | None) -> tuple[NamespaceRule, ...] | None:
    if reader is None:
        return None
    entries = reader.children("allowed_namespaces", ("namespace", "pod_selector"))
    if entries is None:
        return None
    result = []
    for entry in entries:
        namespace = entry.string("namespace")
        if not namespace:
            raise entry.error("namespace", "is missing")
        labels = entry.data.get("pod_selector", {})
        if not isinstance(labels, Mapping) or not all(
            isinstance(k, str) and isinstance(v, str) for k, v in labels.items()
        ):
            raise entry.error("pod_selector", "must be an object of strings")
        result.append(NamespaceRule(namespace, tuple(sorted(labels.items()))))
    return tuple(result)
