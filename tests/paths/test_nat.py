"""The class of a gateway from what servers saw; the emulated network has the real packets."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths import nat
from border0.paths.nat import NatView, classify
from border0.paths.stunclient import Observation, Report

S1, S1B, S2 = ("192.0.2.1", 3478), ("192.0.2.1", 443), ("192.0.2.2", 3478)
ME = ("198.51.100.7", 40_001)
OTHER = ("198.51.100.7", 50_002)
THIRD = ("198.51.100.7", 60_003)
POOL = ("198.51.100.8", 40_001)


def found(*pairs, asked=3, **local):
    return classify(4, pairs, asked=asked, **local)


class Classes(SynchronousTestCase):
    def test_easy(self) -> None:
        result = found((S1, ME), (S1B, ME), (S2, ME), local_port=40_001)
        self.assertEqual(result.kind, nat.EASY)
        self.assertEqual(result.mapping, nat.ENDPOINT_INDEPENDENT)
        self.assertEqual(result.addresses, [ME])
        self.assertTrue(result.port_kept)
        self.assertFalse(result.pooled)

    def test_address_and_port_dependent(self) -> None:
        result = found((S1, ME), (S1B, OTHER), (S2, THIRD), local_port=1)
        self.assertEqual(result.kind, nat.HARD)
        self.assertEqual(result.mapping, nat.ADDRESS_AND_PORT_DEPENDENT)
        # Nobody else would see any of these, but it opens gateways that look at the host alone.
        self.assertEqual(result.addresses, [min(ME, OTHER, THIRD)])
        self.assertFalse(result.port_kept)

    def test_address_dependent(self) -> None:
        result = found((S1, ME), (S1B, ME), (S2, OTHER))
        self.assertEqual(result.kind, nat.HARD)
        self.assertEqual(result.mapping, nat.ADDRESS_DEPENDENT)
        self.assertEqual(result.addresses[0], ME)
        self.assertIsNone(result.port_kept)

    def test_two_servers_that_differ_leave_the_mapping_open(self) -> None:
        result = found((S1, ME), (S2, OTHER))
        self.assertEqual((result.kind, result.mapping), (nat.HARD, ""))

    def test_a_pool_of_outside_addresses_is_hard(self) -> None:
        result = found((S1, ME), (S2, POOL), local_port=40_001)
        self.assertEqual(result.kind, nat.HARD)
        self.assertTrue(result.pooled)
        self.assertTrue(result.port_kept)

    def test_open(self) -> None:
        result = found((S1, ME), local_hosts=["10.0.0.1", ME[0]], local_port=ME[1])
        self.assertEqual((result.kind, result.addresses), (nat.OPEN, [ME]))
        # The same host with another port is still a translation.
        self.assertEqual(found((S1, ME), (S2, ME), local_hosts=[ME[0]], local_port=5).kind, "easy")

    def test_a_lone_observation_is_told_but_proves_nothing(self) -> None:
        result = found((S1, ME))
        self.assertEqual((result.kind, result.mapping), (nat.UNKNOWN, ""))
        self.assertEqual(result.addresses, [ME])

    def test_blocked_and_unasked(self) -> None:
        self.assertEqual(found().kind, nat.BLOCKED)
        self.assertEqual(found(asked=0).kind, nat.UNKNOWN)

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from([S1, S1B, S2]), st.sampled_from([ME, OTHER, POOL])),
            max_size=6,
            unique_by=lambda pair: pair[0],
        )
    )
    def test_properties(self, pairs) -> None:
        result = found(*pairs)
        views = {ours for _, ours in pairs}
        self.assertEqual(result, found(*reversed(pairs)))  # order is nothing
        self.assertTrue(set(result.addresses) <= views)
        if result.kind == nat.EASY:
            self.assertEqual(len(views), 1)
            self.assertEqual(result.mapping, nat.ENDPOINT_INDEPENDENT)
        if result.kind == nat.HARD:
            self.assertGreater(len(views), 1)
        if not pairs:
            self.assertEqual(result.kind, nat.BLOCKED)


class View(SynchronousTestCase):
    def setUp(self) -> None:
        self.view = NatView()

    def round(self, now: float, *pairs, unanswered=()):
        seen = [Observation(server, host, port, 0.01, now) for server, (host, port) in pairs]
        for observation in seen:
            self.view.observe(observation)
        self.view.end_round(Report(seen, list(unanswered)))

    def test_families_are_apart(self) -> None:
        six = ("2001:db8::1", 3478, 0, 0)
        mapped = ("::ffff:192.0.2.1", 3478, 0, 0)
        self.view.set_local(["2001:db8::9"], 7)
        self.round(0.0, (six, ("2001:db8::9", 7)), (mapped, ME), (S2, ME))
        self.assertEqual(self.view.nat(6, 0.0).kind, nat.OPEN)
        self.assertEqual(self.view.nat(4, 0.0).kind, nat.EASY)

    def test_what_is_old_does_not_count(self) -> None:
        self.round(0.0, (S1, ME), (S2, ME))
        self.assertEqual(self.view.nat(4, nat.FRESH).kind, nat.EASY)
        self.assertEqual(self.view.nat(4, nat.FRESH + 1).kind, nat.BLOCKED)

    def test_a_restarted_gateway_is_not_a_hard_one(self) -> None:
        self.round(0.0, (S1, ME), (S2, ME))
        self.view.observe(Observation(S1, *OTHER, 0.01, 22.0))
        self.assertNotEqual(self.view.nat(4, 22.0).kind, nat.HARD)
        self.assertEqual(self.view.nat(4, 22.0).addresses, [OTHER])
        self.view.observe(Observation(S2, *OTHER, 0.01, 22.1))
        self.assertEqual(self.view.nat(4, 22.1).kind, nat.EASY)

    def test_a_gateway_that_became_hard_is_seen(self) -> None:
        self.round(0.0, (S1, ME), (S2, ME))
        self.round(22.0, (S1, OTHER), (S2, THIRD))
        self.assertEqual(self.view.nat(4, 22.0).kind, nat.HARD)

    def test_a_server_that_fell_silent_is_forgotten(self) -> None:
        self.round(0.0, (S1, ME), (S2, OTHER))
        self.round(22.0, (S1, ME), unanswered=[S2])
        self.assertEqual(self.view.nat(4, 22.0).kind, nat.UNKNOWN)
        self.round(44.0, unanswered=[S1, S2])
        self.assertEqual(self.view.nat(4, 44.0).kind, nat.BLOCKED)
        self.view.forget()
        self.assertEqual(self.view.nat(4, 44.0).kind, nat.UNKNOWN)

    def test_a_server_without_a_name_is_our_mistake(self) -> None:
        self.view._seen["nobody"] = Observation("nobody", *ME, None, 0.0)
        self.assertRaises(ValueError, self.view.nat, 4, 0.0)
