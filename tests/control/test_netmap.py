"""The pruned view, kept as things change, equals a view made anew from the plain facts."""

import random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase

from border0.control.netmap import NetMap
from border0.control.push.maphash import fingerprint
from border0.control.push.messages import Key
from border0.control.reach import NOWHERE, static
from border0.policy import decide
from border0.policy.model import Policy, Subject
from border0.policy.parse import parse_policy

GROUPS = ("g0", "g1")
USERS = ("u0", "u1", "u2")
ACCOUNTS = ("a0",)
DEVICES = ("d0", "d1", "d2", "d3")
CONNECTORS = ("c0", "c1", "c2")
SOCKETS = ("s0", "s1", "s2")
POLICIES = ("p0", "p1", "p2")
PROTOCOLS = ("ssh", "database", "http")
KINDS = {
    "node": DEVICES + CONNECTORS,
    "socket": SOCKETS,
    "attachment": SOCKETS,
    "policy": POLICIES,
    "membership": USERS + ACCOUNTS,
    "head": ("org",),
    "signers": ("org",),
}
KEYS = [(kind, name) for kind, names in KINDS.items() for name in names]


class Facts:
    """The same facts, kept plainly; a view is made from nothing each time."""

    def __init__(self) -> None:
        self.statements: dict[Key, str] = {}
        self.subjects: dict[str, Subject] = {}
        self.devices: dict[str, tuple[str | None, bool]] = {}
        self.connectors: set[str] = set()
        self.sockets: dict[str, tuple[str, set[str]]] = {}
        self.policies: dict[str, Policy] = {}
        self.attachments: dict[str, set[str]] = {}

    def reaches(self, device: str, socket: str) -> bool:
        principal, active = self.devices[device]
        subject = Subject("") if principal is None else self.subjects.get(principal)
        if not active or subject is None or socket not in self.sockets:
            return False
        attached = [
            static(self.policies[name])
            for name in self.attachments.get(socket, ())
            if name in self.policies
        ]
        return decide.connect(attached, self.sockets[socket][0], subject, NOWHERE).allowed

    def member_reaches(self, principal: str, socket: str) -> bool:
        self.devices["probe"] = (principal, True)
        try:
            return self.reaches("probe", socket)
        finally:
            del self.devices["probe"]

    def view(self, node: str) -> dict[Key, str]:
        keys = {("node", node), ("head", "org"), ("signers", "org")}
        for socket, (_, hosts) in self.sockets.items():
            if node in self.devices and self.reaches(node, socket):
                keys.add(("socket", socket))
                keys |= {("node", host) for host in hosts}
            if node in hosts:
                keys |= {("socket", socket), ("attachment", socket)}
                keys |= {("policy", name) for name in self.attachments.get(socket, ())}
                for device, (principal, _) in self.devices.items():
                    if self.reaches(device, socket):
                        keys.add(("node", device))
                        if principal is not None:
                            keys.add(("membership", principal))
                for principal in USERS + ACCOUNTS:
                    if self.member_reaches(principal, socket):
                        keys.add(("membership", principal))
        return {key: self.statements[key] for key in keys if key in self.statements}


def who() -> st.SearchStrategy[dict[str, Any] | None]:
    lists = {
        "email": st.lists(st.sampled_from(["U0@x", "u1@x", "u2@x"]), max_size=2),
        "group": st.lists(st.sampled_from(GROUPS), max_size=2),
        "service_account": st.lists(st.sampled_from(["robot"]), max_size=1),
    }
    return st.none() | st.fixed_dictionaries({}, optional=lists)


permissions = st.fixed_dictionaries(
    {}, optional={name: st.just({}) for name in PROTOCOLS}
) | st.just({"ssh": {"shell": {}}, "database": {"allowed_databases": [{"database": "x"}]}})
conditions = st.fixed_dictionaries(
    {},
    optional={
        "where": st.just({"allowed_ip": ["10.0.0.0/8"]}),
        "when": st.just({"after": "2030-01-01"}),
    },
)


class Comparison(RuleBasedStateMachine):
    """Changes both, commits, and compares every view."""

    def __init__(self) -> None:
        super().__init__()
        self.facts = Facts()
        self.netmap = NetMap()
        self.before: dict[str, dict[Key, str]] = {}
        self.count = 0

    @rule(keys=st.sets(st.sampled_from(KEYS), min_size=1, max_size=12))
    def put(self, keys: set[Key]) -> None:
        for key in keys:
            self.count += 1
            self.facts.statements[key] = f"{self.count:064x}"
            self.netmap.put_statement(key, f"{self.count:064x}", str(self.count).encode())

    @rule(key=st.sampled_from(KEYS))
    def drop(self, key: Key) -> None:
        self.facts.statements.pop(key, None)
        self.netmap.drop_statement(key)

    @rule(
        user=st.sampled_from(USERS), groups=st.sets(st.sampled_from(GROUPS)), disabled=st.booleans()
    )
    def user(self, user: str, groups: set[str], disabled: bool) -> None:
        self.facts.subjects.pop(user, None)
        if not disabled:
            self.facts.subjects[user] = Subject(f"{user}@x", frozenset(groups))
        self.netmap.set_user(user, f"{user}@x", groups, disabled=disabled)

    @rule(there=st.booleans())
    def account(self, there: bool) -> None:
        self.facts.subjects.pop("a0", None)
        if there:
            self.facts.subjects["a0"] = Subject("", service_account="robot")
            self.netmap.set_service_account("a0", "robot")
        else:
            self.netmap.remove_principal("a0")

    @rule(
        device=st.sampled_from(DEVICES),
        owner=st.none() | st.sampled_from(USERS + ACCOUNTS),
        active=st.booleans(),
    )
    def device(self, device: str, owner: str | None, active: bool) -> None:
        self.facts.devices[device] = (owner, active)
        self.netmap.set_device(device, owner, active=active)

    @rule(device=st.sampled_from(DEVICES))
    def no_device(self, device: str) -> None:
        self.facts.devices.pop(device, None)
        self.netmap.remove_device(device)

    @rule(connector=st.sampled_from(CONNECTORS))
    def connector(self, connector: str) -> None:
        self.facts.connectors.add(connector)
        self.netmap.set_connector(connector)

    @rule(connector=st.sampled_from(CONNECTORS))
    def no_connector(self, connector: str) -> None:
        if connector in self.facts.connectors:
            for _, hosts in self.facts.sockets.values():
                hosts.discard(connector)
        self.facts.connectors.discard(connector)
        self.netmap.remove_connector(connector)

    @rule(
        socket=st.sampled_from(SOCKETS),
        protocol=st.sampled_from(PROTOCOLS),
        hosts=st.sets(st.sampled_from(CONNECTORS)),
    )
    def socket(self, socket: str, protocol: str, hosts: set[str]) -> None:
        self.facts.sockets[socket] = (protocol, set(hosts))
        self.netmap.set_socket(socket, protocol, hosts)

    @rule(socket=st.sampled_from(SOCKETS))
    def no_socket(self, socket: str) -> None:
        self.facts.sockets.pop(socket, None)
        self.netmap.remove_socket(socket)

    @rule(socket=st.sampled_from(SOCKETS), policies=st.sets(st.sampled_from(POLICIES)))
    def attach(self, socket: str, policies: set[str]) -> None:
        self.facts.attachments[socket] = policies
        self.netmap.set_attachment(socket, policies)

    @rule(
        name=st.sampled_from(POLICIES),
        who=who(),
        permits=permissions,
        denies=st.just({}) | permissions,
        condition=conditions,
    )
    def policy(
        self,
        name: str,
        who: dict[str, Any] | None,
        permits: dict[str, Any],
        denies: dict[str, Any],
        condition: dict[str, Any],
    ) -> None:
        condition = dict(condition) if who is None else {**condition, "who": who}
        document = {"permissions": permits, "deny": denies, "condition": condition}
        self.facts.policies[name] = parse_policy(name, document)
        self.netmap.set_policy(name, self.facts.policies[name])

    @rule(name=st.sampled_from(POLICIES))
    def no_policy(self, name: str) -> None:
        self.facts.policies.pop(name, None)
        self.netmap.remove_policy(name)

    @invariant()
    def same(self) -> None:
        changes = self.netmap.commit(self.netmap.revision + 1)
        after = {
            node: self.facts.view(node) for node in (*self.facts.devices, *self.facts.connectors)
        }
        for node, expected in after.items():
            view = self.netmap.view(node)
            assert view is not None
            assert view.entries() == expected, (node, view.entries(), expected)
            assert view.fingerprint == fingerprint(expected), node
            assert {key for key in KEYS if view.hash_of(key)} == set(expected), node
            peers = {name for kind, name in expected if kind == "node"} - {node}
            assert peers <= set(self.netmap.peers(node))
            told = changes.nodes.get(node, set()) | changes.everyone
            old = self.before.get(node)
            if old is not None:
                differs = {key for key in old | expected if old.get(key) != expected.get(key)}
                assert differs <= told, (node, differs - told)
        for node in (*DEVICES, *CONNECTORS):
            if node not in after:
                assert self.netmap.view(node) is None
                if node in self.before:
                    assert node in changes.nodes
        self.before = after


class Property(SynchronousTestCase):
    def test_incremental_view_is_the_naive_one(self) -> None:
        run_state_machine_as_test(
            Comparison,
            settings=settings(
                max_examples=120,
                stateful_step_count=40,
                derandomize=True,
                database=None,
                deadline=None,
            ),
        )

    def test_nothing_is_left_when_all_is_gone(self) -> None:
        netmap = NetMap()
        chance = random.Random(3)
        policy = parse_policy("p", {"permissions": {"ssh": {}}})
        for number in range(30):
            netmap.set_connector(f"c{number % 5}")
            netmap.set_user(f"u{number}", f"u{number}@x")
            netmap.set_device(f"d{number}", f"u{number}")
            netmap.set_policy(f"p{number}", policy)
            netmap.set_socket(f"s{number}", "ssh", {f"c{chance.randrange(5)}" for _ in range(3)})
            netmap.set_attachment(f"s{number}", {f"p{chance.randrange(30)}" for _ in range(3)})
            netmap.put_statement(("node", f"d{number}"), f"{number:064x}", b"")
        for number in chance.sample(range(30), 30):
            netmap.remove_connector(f"c{number % 5}")
            netmap.set_attachment(f"s{number}", ())
            netmap.remove_socket(f"s{number}")
            netmap.remove_policy(f"p{number}")
            netmap.remove_principal(f"u{number}")
            netmap.remove_device(f"d{number}")
            netmap.drop_statement(("node", f"d{number}"))
        netmap.commit(1)
        left = {
            name: value
            for name, value in {**vars(netmap), **vars(netmap._reach)}.items()
            if isinstance(value, dict | set) and value
        }
        self.assertEqual(left, {})
