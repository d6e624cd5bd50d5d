from datetime import UTC, datetime, timedelta, timezone

from twisted.trial.unittest import SynchronousTestCase

from border0.policy.decide import Decision, connect, database
from border0.policy.grants import DatabaseGrant
from border0.policy.model import Policy, Situation, Subject
from border0.policy.parse import parse_policy

NOON = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
ALICE = Subject("alice@example.org", frozenset({"eng"}), device="laptop")
ROBOT = Subject("", service_account="ci")
HERE = Situation("198.51.100.7", "NL", NOON)


def policy(name: str = "p", deny: object = None, **condition: object) -> Policy:
    document = {"permissions": {"tls": {}}, "condition": condition}
    if deny is not None:
        document["deny"] = deny
    return parse_policy(name, document)


def ask(*policies: Policy, subject: Subject = ALICE, situation: Situation = HERE) -> Decision:
    return connect(policies, "tls", subject, situation)


class ConnectTests(SynchronousTestCase):
    def test_default_deny(self) -> None:
        decision = ask()
        self.assertFalse(decision.allowed)
        self.assertEqual(decision.policy, "")
        self.assertEqual(decision.reason, "no policy is attached to this service")

    def test_no_condition_is_everyone(self) -> None:
        decision = ask(policy())
        self.assertTrue(decision.allowed)
        self.assertEqual(decision.reason, 'policy "p" permits tls (permissions.tls)')
        self.assertEqual(len(decision.matched), 1)

    def test_another_protocol(self) -> None:
        decision = connect([policy()], "ssh", ALICE, HERE)
        self.assertFalse(decision.allowed)
        self.assertEqual(decision.clause, "permissions.ssh")
        self.assertRaises(ValueError, connect, [policy()], "gopher", ALICE, HERE)

    def test_union(self) -> None:
        decision = ask(policy("a", who={"email": ["bob@example.org"]}), policy("b"), policy("c"))
        self.assertTrue(decision.allowed)
        self.assertEqual(decision.policy, "b")
        self.assertEqual([p.name for p in decision.matched], ["b", "c"])

    def test_trace_has_every_policy_and_clause(self) -> None:
        decision = ask(
            policy("a", who={"email": ["bob@example.org"]}, where={"country": ["NL"]}),
            policy("b", when={"before": "2026-01-01"}),
        )
        self.assertEqual(
            [(s.policy, s.clause, s.outcome) for s in decision.trace],
            [
                ("a", "permissions.tls", "met"),
                ("a", "condition.who.email", "not met"),
                ("a", "condition.where.country", "met"),
                ("b", "permissions.tls", "met"),
                ("b", "condition.when.before", "not met"),
            ],
        )

    def test_the_nearest_policy_is_named(self) -> None:
        decision = ask(
            parse_policy("far", {"permissions": {"ssh": {}}}),
            policy("near", who={"group": ["eng"]}, where={"country": ["DE"]}),
        )
        self.assertEqual(decision.policy, "near")
        self.assertEqual(
            decision.reason,
            'policy "near" does not apply: country NL is not listed (condition.where.country)',
        )


class WhoTests(SynchronousTestCase):
    def test_table(self) -> None:
        for who, subject, clause in (
            ({"email": ["Alice@Example.org"]}, ALICE, ""),
            ({"email": ["bob@example.org"]}, ALICE, "condition.who.email"),
            ({"email": ["bob@example.org"], "group": ["eng"]}, ALICE, ""),
            ({"email": ["bob@example.org"], "group": ["ops"]}, ALICE, "condition.who"),
            ({"email": ["alice@example.org"], "group": []}, ALICE, ""),
            ({"email": [], "group": ["ops"]}, ALICE, "condition.who.group"),
            ({"email": [], "group": [], "service_account": []}, ALICE, "condition.who"),
            ({}, ALICE, "condition.who"),
            ({"service_account": ["ci"]}, ROBOT, ""),
            ({"service_account": ["ci"]}, ALICE, "condition.who.service_account"),
            ({"service_account": [""]}, ALICE, "condition.who.service_account"),
            ({"email": [""]}, ROBOT, "condition.who.email"),
            ({"group": ["eng"]}, ROBOT, "condition.who.group"),
        ):
            decision = ask(policy(who=who), subject=subject)
            self.assertEqual(decision.allowed, not clause, who)
            if clause:
                self.assertEqual(decision.clause, clause, who)

    def test_message(self) -> None:
        self.assertEqual(
            ask(policy("eng", who={"group": ["ops"]})).reason,
            'policy "eng" does not apply: alice@example.org is in none of its groups '
            "(condition.who.group)",
        )


class WhereTests(SynchronousTestCase):
    def test_table(self) -> None:
        for where, address, country, clause in (
            ({"allowed_ip": ["198.51.100.0/24"]}, "198.51.100.7", None, ""),
            ({"allowed_ip": ["198.51.100.0/24"]}, "::ffff:198.51.100.7", None, ""),
            ({"allowed_ip": ["198.51.100.0/24"]}, "203.0.113.1", None, "allowed_ip"),
            ({"allowed_ip": ["fd00::/8"]}, "198.51.100.7", None, "allowed_ip"),
            ({"allowed_ip": ["fe80::/10"]}, "fe80::1%eth0", None, ""),
            ({"allowed_ip": ["0.0.0.0/0"]}, None, None, "allowed_ip"),
            ({"allowed_ip": ["0.0.0.0/0"]}, "garbage", None, "allowed_ip"),
            ({"allowed_ip": []}, None, None, ""),
            ({"country": ["nl"]}, None, "NL", ""),
            ({"country": ["NL"]}, None, "DE", "country"),
            ({"country": ["NL"]}, None, None, "country"),
            ({"country": []}, None, None, ""),
            ({"country_not": ["DE"]}, None, "NL", ""),
            ({"country_not": ["DE"]}, None, "de", "country_not"),
            ({"country_not": ["DE"]}, None, None, "country_not"),
            ({"country_not": []}, None, None, ""),
        ):
            decision = ask(policy(where=where), situation=Situation(address, country, NOON))
            self.assertEqual(decision.allowed, not clause, (where, address, country))
            if clause:
                self.assertEqual(decision.clause, f"condition.where.{clause}")


class WhenTests(SynchronousTestCase):
    def at(self, text: str, **when: str) -> str:
        moment = datetime.fromisoformat(text)
        decision = ask(policy(when=when), situation=Situation(None, None, moment))
        return "" if decision.allowed else decision.clause.removeprefix("condition.when.")

    def test_instants(self) -> None:
        after = {"after": "2026-01-01T00:00:00Z"}
        self.assertEqual(self.at("2026-01-01T00:00:00+00:00", **after), "")
        self.assertEqual(self.at("2025-12-31T23:59:59+00:00", **after), "after")
        self.assertEqual(self.at("2026-01-01T00:30:00+01:00", **after), "after")
        before = {"before": "2026-01-01"}
        self.assertEqual(self.at("2025-12-31T23:59:59+00:00", **before), "")
        self.assertEqual(self.at("2026-01-01T00:00:00+00:00", **before), "before")

    def test_time_of_day(self) -> None:
        day = {"time_of_day_after": "07:00 UTC", "time_of_day_before": "19:00 UTC"}
        self.assertEqual(self.at("2026-01-01T07:00:00+00:00", **day), "")
        self.assertEqual(self.at("2026-01-01T06:59:59+00:00", **day), "time_of_day_after")
        self.assertEqual(self.at("2026-01-01T19:00:00+00:00", **day), "time_of_day_before")
        self.assertEqual(self.at("2026-01-01T20:30:00+02:00", **day), "")

    def test_window_over_midnight(self) -> None:
        night = {"time_of_day_after": "22:00 UTC", "time_of_day_before": "06:00:30 UTC"}
        for text, clause in (
            ("2026-01-01T22:00:00+00:00", ""),
            ("2026-01-01T23:59:59+00:00", ""),
            ("2026-01-02T00:00:00+00:00", ""),
            ("2026-01-02T06:00:29+00:00", ""),
            ("2026-01-02T06:00:30+00:00", "time_of_day_after"),
            ("2026-01-02T12:00:00+00:00", "time_of_day_after"),
        ):
            self.assertEqual(self.at(text, **night), clause, text)

    def test_window_without_length(self) -> None:
        same = {"time_of_day_after": "12:00 UTC", "time_of_day_before": "12:00 UTC"}
        self.assertNotEqual(self.at("2026-01-01T12:00:00+00:00", **same), "")

    def test_naive_time_is_our_own_mistake(self) -> None:
        situation = Situation(None, None, datetime(2026, 1, 1))
        self.assertRaises(ValueError, ask, policy(), situation=situation)

    def test_zones(self) -> None:
        zone = timezone(timedelta(hours=-8))
        moment = datetime(2026, 1, 1, 23, 30, tzinfo=zone)
        decision = ask(
            policy(when={"time_of_day_after": "07:00 UTC", "time_of_day_before": "08:00 UTC"}),
            situation=Situation(None, None, moment),
        )
        self.assertTrue(decision.allowed)


class DenyTests(SynchronousTestCase):
    def test_deny_wins_over_every_policy(self) -> None:
        decision = ask(policy("yes"), policy("no", deny={"tls": {}}, who={"group": ["eng"]}))
        self.assertFalse(decision.allowed)
        self.assertEqual(decision.reason, 'policy "no" denies tls (deny.tls)')

    def test_deny_needs_its_condition(self) -> None:
        decision = ask(policy("yes"), policy("no", deny={"tls": {}}, who={"group": ["ops"]}))
        self.assertTrue(decision.allowed)

    def test_what_is_unknown_does_not_lift_a_deny(self) -> None:
        no = parse_policy("no", {"deny": {"tls": {}}, "condition": {"where": {"country": ["DE"]}}})
        for country, allowed in (("NL", True), ("DE", False), (None, False)):
            situation = Situation(None, country, NOON)
            self.assertEqual(ask(policy("yes"), no, situation=situation).allowed, allowed)

    def test_an_unknown_condition_denies_but_does_not_grant(self) -> None:
        both = parse_policy(
            "both",
            {
                "permissions": {"database": {}},
                "deny": {
                    "database": {
                        "allowed_databases": [{"database": "x", "allowed_query_types": ["Delete"]}]
                    }
                },
                "condition": {"where": {"country": ["DE"]}},
            },
        )
        read = parse_policy(
            "read",
            {
                "permissions": {
                    "database": {
                        "allowed_databases": [{"database": "*", "allowed_query_types": ["Delete"]}]
                    }
                }
            },
        )
        decision = connect([both, read], "database", ALICE, Situation(None, None, NOON))
        self.assertTrue(decision.allowed)
        grant = database(decision.matched, "x")
        self.assertEqual(grant.allowed, frozenset())
        self.assertEqual(database(decision.matched, "y").allowed, frozenset({"delete"}))


class DatabaseTests(SynchronousTestCase):
    def make(self, name: str, seconds: int | None = None, **databases: object) -> Policy:
        entries = [
            {"database": d.replace("any", "*"), **({} if t is None else {"allowed_query_types": t})}
            for d, t in databases.items()
        ]
        permission: dict[str, object] = {"allowed_databases": entries}
        if seconds is not None:
            permission["max_session_duration_seconds"] = seconds
        return parse_policy(name, {"permissions": {"database": permission}})

    def test_unrestricted(self) -> None:
        grant = database([parse_policy("p", {"permissions": {"database": {}}})], "x")
        self.assertIsInstance(grant, DatabaseGrant)
        self.assertTrue(grant.unrestricted)
        self.assertFalse(grant.read_only)
        self.assertTrue(database([self.make("p", any=None)], "x").unrestricted)

    def test_another_database(self) -> None:
        decision = database([self.make("p", shop=["ReadOnly"])], "hr")
        self.assertFalse(decision.allowed)
        self.assertEqual(
            decision.reason,
            'policy "p" does not permit database "hr" (permissions.database.allowed_databases)',
        )

    def test_names_are_exact(self) -> None:
        for name in ("Shop", "shop ", "shop\0", "*", ""):
            self.assertFalse(database([self.make("p", shop=None)], name).allowed, name)

    def test_empty_list_is_no_database(self) -> None:
        self.assertFalse(database([self.make("p")], "x").allowed)

    def test_read_only(self) -> None:
        for types, read_only in (
            (["ReadOnly"], True),
            (["Select"], True),
            (["ReadOnly", "Listen"], True),
            (["ReadOnly", "Delete"], False),
            (["ReadWrite"], False),
            (["exec"], False),
        ):
            grant = database([self.make("p", any=types)], "x")
            self.assertEqual(grant.read_only, read_only, types)
        union = database([self.make("a", any=["ReadOnly"]), self.make("b", x=["Insert"])], "x")
        self.assertFalse(union.read_only)

    def test_the_largest_duration_counts(self) -> None:
        def seconds(*policies: Policy) -> float | None:
            return database(policies, "x").max_session_seconds

        self.assertEqual(seconds(self.make("a", 60, any=[]), self.make("b", 90, x=[])), 90.0)
        self.assertIsNone(seconds(self.make("a", 60, any=[]), self.make("b", x=[])))
        self.assertEqual(seconds(self.make("a", 60, any=[]), self.make("b", y=[])), 60.0)

    def test_deny_of_a_database(self) -> None:
        no = parse_policy("no", {"deny": {"database": {"allowed_databases": [{"database": "hr"}]}}})
        yes = self.make("yes", any=None)
        decision = connect([yes, no], "database", ALICE, HERE)
        self.assertTrue(decision.allowed)
        self.assertTrue(database(decision.matched, "shop").unrestricted)
        refused = database(decision.matched, "hr")
        self.assertEqual(
            refused.reason, 'policy "no" denies database "hr" (deny.database.allowed_databases[0])'
        )
