"""Which principal may reach which socket, kept as it changes.

A principal is a user, a service account or a device of its own. It may reach a socket when a
policy attached to the socket permits its protocol and names the principal (`condition.who`, judged
by the policy room), and no attached policy surely denies the whole protocol to it. Addresses,
countries and times change by themselves: a permission with such a condition counts as reachable, a
denial with one does not. So the answer is never too small; the connector decides for good.

Three inverted indexes (e-mail address, group, service account) find the policies of a principal and
the principals of a policy; only pairs that a change can affect are judged again.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from border0.policy import decide, explain
from border0.policy.model import (
    PROTOCOLS,
    Condition,
    Permissions,
    Policy,
    Situation,
    Subject,
    When,
    Where,
)

NOWHERE = Situation(None, None, datetime(1970, 1, 1, tzinfo=UTC))
_EVERYONE = ("everyone", "")
_K = TypeVar("_K")


def static(policy: Policy) -> Policy:
    """The policy without conditions that change by themselves: permits more, denies less."""
    condition = policy.condition
    fixed = condition.where in (None, Where()) and condition.when in (None, When())
    deny = policy.deny if fixed else Permissions()
    return replace(policy, deny=deny, condition=Condition(who=condition.who))


class _Static:
    """One policy, ready to be asked."""

    __slots__ = ("denies", "marks", "matched", "permits", "who")

    def __init__(self, policy: Policy) -> None:
        fixed = static(policy)
        self.who = Policy(policy.name, Permissions(), condition=fixed.condition)
        self.permits = policy.permissions.protocols
        self.denies = frozenset(p for p in fixed.deny.protocols if _denies_all(fixed, p))
        self.matched: set[str] = set()
        who = fixed.condition.who
        if who is None:
            self.marks = {_EVERYONE}
        else:
            self.marks = {("email", email.lower()) for email in who.email or ()}
            self.marks |= {("group", group) for group in who.group or ()}
            self.marks |= {("account", name) for name in who.service_account or ()}

    def names(self, subject: Subject) -> bool:
        steps = explain.steps(self.who, subject, NOWHERE)
        return all(step.outcome == explain.MET for step in steps)


def _denies_all(policy: Policy, protocol: str) -> bool:
    """Whether its `deny` refuses the whole protocol, asked of the policy room."""
    granting = replace(policy, permissions=Permissions(frozenset((protocol,))))
    anyone = replace(granting, condition=Condition())
    return not decide.connect((anyone,), protocol, Subject(""), NOWHERE).allowed


def _marks(subject: Subject) -> set[tuple[str, str]]:
    marks = {("group", group) for group in subject.groups}
    marks.add(_EVERYONE)
    if subject.user:
        marks.add(("email", subject.user.lower()))
    if subject.service_account:
        marks.add(("account", subject.service_account))
    return marks


class Reach:
    """All pairs of one organisation; `toggled(principal, socket, reachable)` tells each change."""

    def __init__(self, toggled: Callable[[str, str, bool], None]) -> None:
        self._toggled = toggled
        self._subjects: dict[str, Subject] = {}
        self._policies: dict[str, _Static] = {}
        self._matched: dict[str, set[str]] = {}  # principal -> policies that name it
        self._principals_by: dict[tuple[str, str], set[str]] = {}
        self._policies_by: dict[tuple[str, str], set[str]] = {}
        self._sockets: dict[str, tuple[str, frozenset[str]]] = {}  # protocol, policies
        self._attached: dict[str, set[str]] = {}  # policy -> sockets
        self._reaches: dict[str, set[str]] = {}
        self._reachers: dict[str, set[str]] = {}

    def sockets_of(self, principal: str) -> frozenset[str] | set[str]:
        """The sockets that a principal may reach."""
        return self._reaches.get(principal, frozenset())

    def principals_of(self, socket: str) -> frozenset[str] | set[str]:
        """The principals that may reach a socket."""
        return self._reachers.get(socket, frozenset())

    def set_principal(self, principal: str, subject: Subject | None) -> None:
        """Add or change a principal; None removes it (or it is disabled)."""
        old = self._subjects.pop(principal, None)
        if old is not None:
            for mark in _marks(old):
                _discard(self._principals_by, mark, principal)
        before = self._matched.pop(principal, set())
        after: set[str] = set()
        if subject is not None:
            self._subjects[principal] = subject
            candidates: set[str] = set()
            for mark in _marks(subject):
                self._principals_by.setdefault(mark, set()).add(principal)
                candidates |= self._policies_by.get(mark, set())
            after = {name for name in candidates if self._policies[name].names(subject)}
            self._matched[principal] = after
        for name in before - after:
            self._policies[name].matched.discard(principal)
        for name in after - before:
            self._policies[name].matched.add(principal)
        sockets: set[str] = set()
        for name in before ^ after:
            sockets |= self._attached.get(name, set())
        for socket in sockets:
            self._judge(principal, socket)

    def set_policy(self, name: str, policy: Policy | None) -> None:
        """Add or change a policy; None removes it."""
        old = self._policies.pop(name, None)
        affected: set[str] = set()
        if old is not None:
            affected |= old.matched
            for mark in old.marks:
                _discard(self._policies_by, mark, name)
            for principal in old.matched:
                self._matched[principal].discard(name)
        if policy is not None:
            new = self._policies[name] = _Static(policy)
            for mark in new.marks:
                self._policies_by.setdefault(mark, set()).add(name)
                for principal in self._principals_by.get(mark, ()):
                    if principal not in new.matched and new.names(self._subjects[principal]):
                        new.matched.add(principal)
                        self._matched[principal].add(name)
            affected |= new.matched
        for socket in list(self._attached.get(name, ())):
            for principal in affected:
                self._judge(principal, socket)

    def set_socket(self, socket: str, protocol: str, policies: Iterable[str]) -> None:
        """Add or change a socket and the policies attached to it.

        :raises ValueError: a protocol that no policy can name.
        """
        if protocol not in PROTOCOLS:
            raise ValueError(f"unknown protocol {protocol!r}")
        attached = frozenset(policies)
        old = self._sockets.get(socket, ("", frozenset()))[1]
        for name in old - attached:
            _discard(self._attached, name, socket)
        for name in attached - old:
            self._attached.setdefault(name, set()).add(socket)
        self._sockets[socket] = (protocol, attached)
        affected = set(self._reachers.get(socket, ()))
        for name in attached:
            if name in self._policies:
                affected |= self._policies[name].matched
        for principal in affected:
            self._judge(principal, socket)

    def remove_socket(self, socket: str) -> None:
        """Remove a socket; nothing happens when it is not there."""
        _, attached = self._sockets.pop(socket, ("", frozenset[str]()))
        for name in attached:
            _discard(self._attached, name, socket)
        for principal in list(self._reachers.get(socket, ())):
            self._judge(principal, socket)

    def _judge(self, principal: str, socket: str) -> None:
        """Judge one pair, and tell it when it changed."""
        matched = self._matched.get(principal)
        held = self._sockets.get(socket)
        reachable = False
        if matched and held is not None:
            protocol, attached = held
            for name in attached & matched:
                policy = self._policies[name]
                if protocol in policy.denies:
                    reachable = False
                    break
                reachable = reachable or protocol in policy.permits
        if reachable is (socket in self._reaches.get(principal, ())):
            return
        if reachable:
            self._reaches.setdefault(principal, set()).add(socket)
            self._reachers.setdefault(socket, set()).add(principal)
        else:
            _discard(self._reaches, principal, socket)
            _discard(self._reachers, socket, principal)
        self._toggled(principal, socket, reachable)


def _discard(index: dict[_K, set[str]], key: _K, value: str) -> None:
    """Take a value out of an index of sets; an empty set goes too."""
    held = index.get(key)
    if held is not None:
        held.discard(value)
        if not held:
            del index[key]
