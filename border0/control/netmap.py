"""The pruned view: which signed statements each device and each connector needs.

A device gets itself, the sockets that its user may reach (`reach`) and the connectors that host
them. A connector gets itself, its sockets, their attachments, all policies that these name (those
that deny too), and the devices and memberships of everybody who may reach one of them. Every other
kind of statement (head, signers, ...) goes to all. Device and connector see each other or not at
all.

The view is kept as the organisation changes: what is counted per pair of principal and connector
is the number of sockets that join them, so that the last one to go takes both out of each other's
view. Statements are opaque here: a hash and an envelope under (type, id). Owners change the map,
call `commit` and hand its answer to the hub in one turn, so that no view is seen half changed.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from border0.control.counts import count, join
from border0.control.push.maphash import MODULUS, digest
from border0.control.push.messages import Key
from border0.control.reach import Reach
from border0.policy.model import Policy, Subject

_PRUNED = frozenset(("node", "socket", "policy", "attachment", "membership", "configuration"))
_HOSTED = ("socket", "attachment", "configuration")  # what a connector gets of each socket of its


@dataclass(slots=True)
class Changes:
    """The statements that a commit put or dropped, by node and for all nodes."""

    revision: int
    nodes: dict[str, set[Key]]
    everyone: set[Key]


class NodeView:
    """The map of one node as it is now (a `push.session.View`)."""

    __slots__ = ("_map", "_node")

    def __init__(self, netmap: "NetMap", node: str) -> None:
        self._map = netmap
        self._node = node

    @property
    def revision(self) -> int:
        """The revision of the last commit."""
        return self._map.revision

    @property
    def fingerprint(self) -> int:
        """The sum over all entries."""
        return self._map.fingerprint(self._node)

    def entries(self) -> dict[Key, str]:
        """The hash of each statement."""
        return self._map.entries(self._node)

    def hash_of(self, key: Key) -> str | None:
        """The hash of one statement, None when the node does not need it or there is none."""
        return self._map.hash_of(key) if self._map.sees(self._node, key) else None

    def fetch(self, key: Key) -> bytes:
        """The envelope of one statement."""
        return self._map.envelope(key)


class NetMap:
    """The statements of one organisation and who needs which."""

    def __init__(self, revision: int = 0) -> None:
        self.revision = revision
        self._loading = True
        self._reach = Reach(self._toggled)
        self._statements: dict[Key, tuple[str, bytes, int]] = {}  # hash, envelope, digest
        self._common: dict[Key, None] = {}
        self._common_sum = 0
        self._sums: dict[str, int] = {}
        self._touched: dict[str, set[Key]] = {}
        self._everyone: set[Key] = set()
        self._devices: dict[str, str] = {}  # active or not -> principal; "" while not active
        self._owned: dict[str, set[str]] = {}  # principal -> active devices
        self._connectors: set[str] = set()
        self._hosts: dict[str, frozenset[str]] = {}  # socket -> connectors
        self._hosted: dict[str, set[str]] = {}  # connector -> sockets
        self._protocols: dict[str, str] = {}
        self._attachments: dict[str, frozenset[str]] = {}  # socket -> policies
        self._links: dict[str, dict[str, int]] = {}  # principal -> connector -> sockets
        self._visitors: dict[str, set[str]] = {}  # connector -> principals
        self._policy_users: dict[str, dict[str, int]] = {}  # policy -> connector -> sockets
        self._policies_at: dict[str, set[str]] = {}  # connector -> policies

    # -- facts ------------------------------------------------------------------------------

    def put_statement(self, key: Key, hashed: str, envelope: bytes) -> None:
        """Add or replace a statement."""
        self._statement(key, (hashed, envelope, digest(key, hashed)))

    def drop_statement(self, key: Key) -> None:
        """Remove a statement; nothing happens when it is not there."""
        self._statement(key, None)

    def set_user(
        self, user: str, email: str, groups: Iterable[str] = (), *, disabled: bool = False
    ) -> None:
        """Add or change a user; `groups` holds both ids and names, as policies use either."""
        subject = None if disabled else Subject(email, frozenset(groups))
        self._reach.set_principal(user, subject)

    def set_service_account(self, account: str, name: str, *, disabled: bool = False) -> None:
        """Add or change a service account."""
        subject = None if disabled else Subject("", service_account=name)
        self._reach.set_principal(account, subject)

    def remove_principal(self, principal: str) -> None:
        """Remove a user or a service account; its devices reach nothing any more."""
        self._reach.set_principal(principal, None)

    def set_device(self, device: str, principal: str | None, *, active: bool = True) -> None:
        """Add or change a device of a user or service account, or of nobody (None).

        One that is not active (not approved, expired, locked) sees itself and is seen by nobody.
        """
        if device not in self._devices:
            self._devices[device] = ""
            self._enter(device, ("node", device))
        own = f"device:{device}"
        new = (own if principal is None else principal) if active else ""
        self._own(device, new)
        self._reach.set_principal(own, Subject("", device=device) if new == own else None)

    def remove_device(self, device: str) -> None:
        """Remove a device; nothing happens when it is not there."""
        if device in self._devices:
            self._own(device, "")
            self._reach.set_principal(f"device:{device}", None)
            self._leave(device, ("node", device))
            self._touched.setdefault(device, set()).add(("node", device))
            del self._devices[device]

    def set_connector(self, connector: str) -> None:
        """Add a connector."""
        if connector not in self._connectors:
            self._connectors.add(connector)
            self._enter(connector, ("node", connector))

    def remove_connector(self, connector: str) -> None:
        """Remove a connector; it hosts nothing any more."""
        if connector in self._connectors:
            for socket in list(self._hosted.get(connector, ())):
                self._host(socket, self._hosts[socket] - {connector})
            self._leave(connector, ("node", connector))
            self._touched.setdefault(connector, set()).add(("node", connector))
            self._connectors.discard(connector)

    def set_socket(self, socket: str, protocol: str, connectors: Iterable[str]) -> None:
        """Add or change a socket: the protocol as policies name it, and who hosts it.

        :raises ValueError: a protocol that no policy can name.
        """
        self._reach.set_socket(socket, protocol, self._attachments.get(socket, ()))
        self._protocols[socket] = protocol
        self._host(socket, frozenset(connectors))

    def remove_socket(self, socket: str) -> None:
        """Remove a socket; its attachment is kept until `set_attachment` clears it."""
        if self._protocols.pop(socket, None) is not None:
            self._host(socket, frozenset())
            self._reach.remove_socket(socket)

    def set_attachment(self, socket: str, policies: Iterable[str]) -> None:
        """Set the policies of a socket, which need not be there yet."""
        new = frozenset(policies)
        old = self._attachments.pop(socket, frozenset())
        if new:
            self._attachments[socket] = new
        for connector in self._hosts.get(socket, ()):
            self._count_policies(connector, new - old, 1)
            self._count_policies(connector, old - new, -1)
        if socket in self._protocols:
            self._reach.set_socket(socket, self._protocols[socket], new)

    def set_policy(self, name: str, policy: Policy) -> None:
        """Add or change a policy under its id."""
        self._reach.set_policy(name, policy)

    def remove_policy(self, name: str) -> None:
        """Remove a policy; attachments may go on naming it."""
        self._reach.set_policy(name, None)

    def commit(self, revision: int) -> Changes:
        """End a change: what it put or dropped for whom.

        The first commit ends the loading of what was there before; it tells of nothing.

        :raises ValueError: the revision is not higher than the last one.
        """
        if revision <= self.revision:
            raise ValueError(f"revision {revision} does not follow {self.revision}")
        self.revision = revision
        changes = Changes(revision, self._touched, self._everyone)
        if self._loading:
            self._loading = False
            changes = Changes(revision, {}, set())
        self._touched, self._everyone = {}, set()
        return changes

    # -- questions --------------------------------------------------------------------------

    def view(self, node: str) -> NodeView | None:
        """The map of a node; None when there is no such device or connector."""
        if node in self._devices or node in self._connectors:
            return NodeView(self, node)
        return None

    def peers(self, node: str) -> list[str]:
        """The nodes that see this one, which are those that it sees."""
        if node in self._devices:
            return list(self._links.get(self._devices[node], ()))
        visitors = self._visitors.get(node, ())
        return [device for each in visitors for device in self._owned.get(each, ())]

    def viewers(self, key: Key) -> Collection[str]:
        """The nodes that need a statement of a pruned kind."""
        kind, name = key
        if kind == "node":
            known = name in self._devices or name in self._connectors
            return {name, *self.peers(name)} if known else self.peers(name)
        if kind == "policy":
            return self._policy_users.get(name, {}).keys()
        if kind == "membership":
            return self._links.get(name, {}).keys()
        found = set(self._hosts.get(name, ()))
        if kind == "socket":
            for principal in self._reach.principals_of(name):
                found |= self._owned.get(principal, set())
        return found

    def sees(self, node: str, key: Key) -> bool:
        """Whether a node needs a statement."""
        kind, name = key
        if kind not in _PRUNED:
            return True
        if kind == "node":
            if name == node:
                return True
            device, connector = (node, name) if node in self._devices else (name, node)
            return connector in self._links.get(self._devices.get(device, ""), ())
        if node in self._devices:
            return kind == "socket" and name in self._reach.sockets_of(self._devices[node])
        if kind == "policy":
            return name in self._policies_at.get(node, ())
        if kind == "membership":
            return name in self._visitors.get(node, ())
        return name in self._hosted.get(node, ())

    def entries(self, node: str) -> dict[Key, str]:
        """The hash of every statement that a node needs."""
        keys: list[Key] = [*self._common, ("node", node)]
        keys += [("node", peer) for peer in self.peers(node)]
        if node in self._devices:
            principal = self._devices[node]
            keys += [("socket", socket) for socket in self._reach.sockets_of(principal)]
        else:
            for socket in self._hosted.get(node, ()):
                keys += [(kind, socket) for kind in _HOSTED]
            keys += [("policy", policy) for policy in self._policies_at.get(node, ())]
            keys += [("membership", each) for each in self._visitors.get(node, ())]
        statements = self._statements
        return {key: held[0] for key in keys if (held := statements.get(key)) is not None}

    def fingerprint(self, node: str) -> int:
        """The sum of `maphash` over `entries`, without making them."""
        return (self._sums.get(node, 0) + self._common_sum) % MODULUS

    def hash_of(self, key: Key) -> str | None:
        """The hash of a statement; None when there is none."""
        held = self._statements.get(key)
        return held[0] if held is not None else None

    def envelope(self, key: Key) -> bytes:
        """The envelope of a statement.

        :raises KeyError: there is none.
        """
        return self._statements[key][1]

    # -- bookkeeping ------------------------------------------------------------------------

    def _statement(self, key: Key, new: tuple[str, bytes, int] | None) -> None:
        old = self._statements.pop(key, None)
        if new is not None:
            self._statements[key] = new
        if old == new:
            return
        change = (new[2] if new is not None else 0) - (old[2] if old is not None else 0)
        if key[0] not in _PRUNED:
            self._common_sum = (self._common_sum + change) % MODULUS
            self._everyone.add(key)
            if new is None:
                del self._common[key]
            else:
                self._common[key] = None
            return
        for node in self.viewers(key):
            self._note(node, key, change)

    def _note(self, node: str, key: Key, change: int) -> None:
        sums = self._sums
        total = sums.get(node, 0) + change  # exact, so never negative; the modulus comes later
        if total:
            sums[node] = total
        else:
            sums.pop(node, None)
        if not self._loading:
            touched = self._touched.get(node)
            if touched is None:
                touched = self._touched[node] = set()
            touched.add(key)

    def _enter(self, node: str, key: Key) -> None:
        held = self._statements.get(key)
        if held is not None:
            self._note(node, key, held[2])

    def _leave(self, node: str, key: Key) -> None:
        held = self._statements.get(key)
        if held is not None:
            self._note(node, key, -held[2])

    def _toggled(self, principal: str, socket: str, reachable: bool) -> None:
        move = self._enter if reachable else self._leave
        for device in self._owned.get(principal, ()):
            move(device, ("socket", socket))
        for connector in self._hosts.get(socket, ()):
            self._link(principal, connector, 1 if reachable else -1)

    def _link(self, principal: str, connector: str, change: int) -> None:
        """Count one socket more or less that joins a principal and a connector."""
        if not count(self._links, principal, connector, change):
            return
        move = self._enter if change > 0 else self._leave
        for device in self._owned.get(principal, ()):
            move(device, ("node", connector))
            move(connector, ("node", device))
        move(connector, ("membership", principal))
        join(self._visitors, connector, principal, change > 0)

    def _own(self, device: str, principal: str) -> None:
        """Give a device to another principal, or to none ("")."""
        old = self._devices[device]
        if old == principal:
            return
        self._devices[device] = principal
        for owner, move in ((old, self._leave), (principal, self._enter)):
            if owner:
                join(self._owned, owner, device, owner == principal)
                for socket in self._reach.sockets_of(owner):
                    move(device, ("socket", socket))
                for connector in self._links.get(owner, ()):
                    move(device, ("node", connector))
                    move(connector, ("node", device))

    def _host(self, socket: str, connectors: frozenset[str]) -> None:
        """Change who hosts a socket."""
        old = self._hosts.pop(socket, frozenset())
        if connectors:
            self._hosts[socket] = connectors
        attached = self._attachments.get(socket, frozenset())
        for connector in old ^ connectors:
            comes = connector in connectors
            move = self._enter if comes else self._leave
            for kind in _HOSTED:
                move(connector, (kind, socket))
            join(self._hosted, connector, socket, comes)
            self._count_policies(connector, attached, 1 if comes else -1)
            for principal in self._reach.principals_of(socket):
                self._link(principal, connector, 1 if comes else -1)

    def _count_policies(self, connector: str, policies: Iterable[str], change: int) -> None:
        for policy in policies:
            if count(self._policy_users, policy, connector, change):
                move = self._enter if change > 0 else self._leave
                move(connector, ("policy", policy))
                join(self._policies_at, connector, policy, change > 0)
