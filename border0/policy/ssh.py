"""What a set of matched policies grants one SSH session, question by question.

Policies unite; one that names `allowed_usernames` speaks only for sessions of these users; a `deny`
wins. Verdicts name the policy and its clause. Commands are matched whole: plain words joined by
single spaces against `exec.commands`, the command as it is against `exec.commands_shell`. What
happens inside an interactive shell is recorded, not judged.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import ip_address, ip_network

from border0.policy.command import Complex, is_scp_server, is_sftp_server, words
from border0.policy.model import Connection, Policy, SSHPermission

Rule = tuple[str, SSHPermission]


class Verdict:
    """An answer; `reason` is one sentence that a user may read."""

    __slots__ = ("allowed", "clause", "policy", "reason")

    def __init__(self, allowed: bool, policy: str, clause: str, reason: str) -> None:
        self.allowed = allowed
        self.policy = policy
        self.clause = clause
        self.reason = reason


class SSHGrant:
    """The union of what the matched policies permit to one user name, minus what they deny.

    :param matched: the policies of a decision that allowed the protocol `ssh`.
    :param username: the name at the upstream.
    """

    def __init__(self, matched: Sequence[Policy], username: str) -> None:
        self.username = username
        self._rules: list[Rule] = []
        self._others: list[str] = []
        self._denials: list[Rule] = []
        for policy in matched:
            denied = policy.deny.ssh
            if denied is not None:
                self._denials.append((policy.name, denied))
            permission = policy.permissions.ssh
            if permission is None:
                continue
            if permission.allowed_usernames is None or username in permission.allowed_usernames:
                self._rules.append((policy.name, permission))
            else:
                self._others.append(policy.name)
        # The largest limit counts, and none at all is the largest.
        limits = [p.max_session_duration_seconds for _, p in self._rules]
        known = [limit for limit in limits if limit is not None]
        self.max_session_seconds = (
            float(max(known)) if known and len(known) == len(limits) else None
        )

    @property
    def any_command(self) -> bool:
        """Whether every command is allowed, so that its environment is no way around a rule."""
        return any(_whole(p) or _any(p) for _, p in self._rules) and not any(
            p.exec or p.everything for _, p in self._denials
        )

    def login(self) -> Verdict:
        """May this user name be used at all?"""
        clause = "permissions.ssh.allowed_usernames"
        for name, denied in self._denials:
            users = denied.allowed_usernames
            if denied.everything or (users is not None and self.username in users):
                path = "deny.ssh" if denied.everything else "deny.ssh.allowed_usernames"
                return _no(name, path, f"denies the user name {self.username!r}")
        if self._rules:
            return Verdict(True, self._rules[0][0], clause, "")
        name = self._others[0] if self._others else ""
        return _no(name, clause, f"does not permit the user name {self.username!r}")

    def shell(self) -> Verdict:
        """May an interactive shell be started?"""
        return self._simple("shell", "a shell", lambda p: p.shell)

    def sftp(self) -> Verdict:
        """May files be copied by sftp or scp?"""
        return self._simple("sftp", "copying files", lambda p: p.sftp)

    def agent(self) -> Verdict:
        """May the user's agent be reached from the upstream?"""
        return self._simple("agent_forwarding", "agent forwarding", lambda p: p.agent_forwarding)

    def forward(self, host: str, port: int) -> Verdict:
        """May a connection to this destination be made from the upstream?"""
        what = f"a connection to {host} port {port}"
        return self._judge(
            "tcp_forwarding",
            what,
            lambda p: p.tcp_forwarding and _reaches(p.allowed_connections, host, port),
            lambda p: "tcp_forwarding.allowed_connections" if p.tcp_forwarding else "",
        )

    def exec(self, command: bytes) -> Verdict:
        """May this command be run?"""
        if b"\0" in command:
            return _no("", "permissions.ssh.exec", "permits no command with a NUL in it")
        plain: list[str] | None = None
        try:
            text = command.decode()
            plain = found = words(text)
        except UnicodeDecodeError:
            text, why = command.decode("utf-8", "surrogateescape"), "it is not UTF-8"
        except Complex as error:
            why = str(error)
        else:
            why = ""
            if is_scp_server(found) or is_sftp_server(found):
                return self.sftp()
        line = None if plain is None else " ".join(plain)
        what = "this command"
        if plain is None:
            what += f" ({why}: only commands_shell may permit it)"
        return self._judge(
            "exec",
            what,
            lambda p: p.exec and _runs(p, line, text),
            lambda p: "exec.commands" if p.exec else "",
            lambda p: p.exec and (line is None or _runs(p, line, text)),
        )

    def _simple(self, key: str, what: str, granted: Callable[[SSHPermission], bool]) -> Verdict:
        return self._judge(key, what, granted, lambda p: "")

    def _judge(
        self,
        key: str,
        what: str,
        granted: Callable[[SSHPermission], bool],
        narrower: Callable[[SSHPermission], str],
        denied: Callable[[SSHPermission], bool] | None = None,
    ) -> Verdict:
        for name, denial in self._denials:
            if denial.everything or (denied or granted)(denial):
                clause = "deny.ssh" if denial.everything else f"deny.ssh.{key}"
                return _no(name, clause, f"denies {what}")
        for name, permission in self._rules:
            if _whole(permission):
                return Verdict(True, name, "permissions.ssh", "")
            if granted(permission):
                return Verdict(True, name, f"permissions.ssh.{key}", "")
        name, clause = self._rules[0][0] if self._rules else "", key
        for owner, permission in self._rules:
            if narrow := narrower(permission):
                name, clause = owner, narrow
                break
        return _no(name, f"permissions.ssh.{clause}", f"does not permit {what}")


def _no(policy: str, clause: str, text: str) -> Verdict:
    by = f'policy "{policy}"' if policy else "no policy"
    text = text.replace("does not permit", "permits", 1) if not policy else text
    return Verdict(False, policy, clause, f"{by} {text} ({clause})")


def _whole(permission: SSHPermission) -> bool:
    """Whether everything is permitted: an object that names nothing but limits on the session."""
    return permission.everything


def _any(permission: SSHPermission) -> bool:
    """Whether any command may be run."""
    return (
        permission.exec
        and permission.exec_commands is None
        and permission.exec_commands_shell is None
    )


def _runs(permission: SSHPermission, line: str | None, text: str) -> bool:
    if _any(permission):
        return True
    if line is not None and any(_full(p, line) for p in permission.exec_commands or ()):
        return True
    return any(_full(p, text) for p in permission.exec_commands_shell or ())


def _full(pattern: str, text: str) -> bool:
    return _compiled(pattern).fullmatch(text) is not None


@lru_cache(512)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _reaches(allowed: tuple[Connection, ...] | None, host: str, port: int) -> bool:
    if allowed is None:
        return True
    return any(
        _is_host(rule.destination_address, host) and _is_port(rule.destination_port, port)
        for rule in allowed
    )


def _is_host(rule: str | None, host: str) -> bool:
    if rule is None or rule == "*":
        return True
    if rule.lower().rstrip(".") == host.lower().rstrip("."):
        return True
    try:
        # Written differently, an address is still the same one; a prefix means all of its own.
        return ip_address(host) in ip_network(rule, strict=False)
    except ValueError:
        return False


def _is_port(rule: str | None, port: int) -> bool:
    if rule is None or rule == "*":
        return True
    low, dash, high = rule.partition("-")
    try:
        return int(low) <= port <= int(high if dash else low)
    except ValueError:
        return False
