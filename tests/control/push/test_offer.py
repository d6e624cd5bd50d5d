"""The path part: what it says is read exactly, and what is none never costs the endpoints."""

import json
from base64 import b64encode
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.control.push import messages as wire
from border0.control.push.messages import PathOffer, ProtocolError
from border0.control.push.offer import sound
from border0.control.push.said import report_of
from tests.support.counterparts import takes_long

EXAMPLES = 300 if takes_long() else 100
fixed = settings(max_examples=EXAMPLES, derandomize=True, database=None, deadline=None)
KEY = b64encode(bytes(range(32))).decode()
WHERE = ["192.0.2.1:7", "[2001:db8::1]:7"]
GOOD: dict[str, Any] = {
    "key": KEY,
    "generation": 3,
    "nat": "hard",
    "kinds": ["host", "reflexive"],
}
OFFER = PathOffer(KEY, 3, "hard", ["host", "reflexive"])
words = st.sampled_from([*GOOD, "new"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=50)
    | st.sampled_from([*GOOD.values(), "host", "mapped", "static"]),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(words, inner, max_size=5),
    max_leaves=30,
)


def report(path: object, where: list[str] | None = None) -> wire.Report:
    told = {"t": "report", "endpoints": WHERE if where is None else where, "path": path}
    message = wire.parse_to_server(json.dumps(told).encode())
    assert isinstance(message, wire.Report)
    return message


def fact(path: object) -> wire.EndpointsFact:
    one = {"node": "n2", "stamp": 1, "ttl": 60, "endpoints": WHERE, "path": path}
    message = wire.parse_to_node(json.dumps({"t": "endpoints", "facts": [one]}).encode())
    assert isinstance(message, wire.Endpoints)
    return message.facts[0]


class Offers(SynchronousTestCase):
    def test_what_was_said_is_what_is_read(self) -> None:
        self.assertEqual(report(GOOD).path, OFFER)
        self.assertEqual(fact(GOOD).path, OFFER)
        self.assertEqual(report({**GOOD, "later": {"a": [1]}}).path, OFFER, "unknown is ignored")
        self.assertEqual(report({**GOOD, "kinds": []}, []).path, PathOffer(KEY, 3, "hard", []))
        for message in (wire.Report(WHERE, OFFER), wire.Report(WHERE)):
            self.assertEqual(wire.parse_to_server(wire.encode(message)), message)
        one = wire.Endpoints([wire.EndpointsFact("n2", 1, 60.0, WHERE, OFFER)])
        self.assertEqual(wire.parse_to_node(wire.encode(one)), one)

    def test_what_has_no_path_part_says_nothing_of_it(self) -> None:
        """Readers of before get what they know."""
        self.assertNotIn(b"path", wire.encode(wire.Report(WHERE)))
        self.assertNotIn(b"path", wire.encode(wire.EndpointsFact("n2", 1, 60.0, WHERE)))
        self.assertNotIn(b"stun", wire.encode(wire.Welcome(1, 30.0)))
        self.assertIsNone(report(None).path)

    def test_what_is_none_costs_only_itself(self) -> None:
        bad: list[object] = [
            0, "", [], {}, True, [GOOD], "x" * 1000,
            {"key": KEY},
            {**GOOD, "generation": 0},
            {**GOOD, "generation": -1},
            {**GOOD, "generation": 2**32},
            {**GOOD, "generation": 1.5},
            {**GOOD, "generation": True},
            {**GOOD, "generation": "3"},
            {**GOOD, "nat": "soft"},
            {**GOOD, "nat": None},
            {**GOOD, "kinds": ["host"]},
            {**GOOD, "kinds": ["host"] * 3},
            {**GOOD, "kinds": ["host"] * 7_000},
            {**GOOD, "kinds": ["host", "relay"]},
            {**GOOD, "kinds": ["host", "peer-reflexive"]},
            {**GOOD, "kinds": ["host", None]},
            {**GOOD, "kinds": {"host": 1, "mapped": 2}},
        ]  # fmt: skip
        for key in (
            "",
            KEY[:-1],
            KEY + "=",
            KEY + "\n",
            "\n" + KEY,
            KEY.replace("A", "-", 1),
            KEY.replace("A", "é", 1),
            KEY[:-2] + "9=",  # two bits that stand for nothing
            b64encode(bytes(31)).decode(),
            b64encode(bytes(33)).decode(),
            b64encode(bytes(10_000)).decode(),
            7,
        ):
            bad.append({**GOOD, "key": key})
        for value in bad:
            for message in (report(value), fact(value)):
                self.assertIsNone(message.path, repr(value)[:200])
                self.assertEqual(message.endpoints, WHERE)
        self.assertIsNone(fact({**GOOD, "kinds": ["host"] * 10_000}).path)
        with self.assertRaises(ProtocolError, msg="longer than a node's frame"):
            report({**GOOD, "kinds": ["host"] * 10_000})

    @fixed
    @given(values)
    def test_any_json(self, value: Any) -> None:
        message = report(value)
        self.assertEqual(message.endpoints, WHERE)
        self.assertEqual(message.path, sound(value, len(WHERE)))
        if message.path is not None:
            self.assertEqual(len(message.path.kinds), len(WHERE))
            self.assertGreaterEqual(message.path.generation, 1)
            self.assertEqual(wire.parse_to_server(wire.encode(message)), message)

    @fixed
    @given(st.dictionaries(words, values, max_size=5))
    def test_any_members_over_a_good_offer(self, members: dict[str, Any]) -> None:
        self.assertEqual(fact({**GOOD, **members}).endpoints, WHERE)

    def test_too_many_endpoints_are_no_message_whatever_comes_with_them(self) -> None:
        many = ["192.0.2.1:7"] * 10_000
        offers = ({**GOOD, "kinds": ["host"] * 10_000}, GOOD, None)
        for offer in offers:
            with self.assertRaises(ProtocolError):
                report(offer, many)
        with self.assertRaises(ProtocolError):
            report(GOOD, [*WHERE, "a b"])

    def test_our_own_mistakes(self) -> None:
        for offer in (
            PathOffer("", 3, "hard", ["host", "host"]),
            PathOffer(KEY, 0, "hard", ["host", "host"]),
            PathOffer(KEY, 3, "soft", ["host", "host"]),  # type: ignore[arg-type]
            PathOffer(KEY, 3, "hard", ["host"]),
            PathOffer(KEY, 3, "hard", ["host"] * 3),
            PathOffer(KEY, 3, "hard", ["host", "relay"]),  # type: ignore[list-item]
        ):
            self.assertRaises(ValueError, report_of, WHERE, offer)

    def test_only_the_best_sixteen_are_told(self) -> None:
        where = [f"192.0.2.1:{port}" for port in range(1, 40)]
        told = report_of(where, PathOffer(KEY, 1, "easy", ["mapped"] * 39))
        self.assertEqual(told.endpoints, where[:16])
        self.assertEqual(told.path.kinds, ["mapped"] * 16)
        self.assertEqual(wire.parse_to_server(wire.encode(told)), told)


class Welcomes(SynchronousTestCase):
    def read(self, stun: object) -> wire.ToNode:
        told = {"t": "welcome", "version": 1, "keepalive": 30, "stun": stun}
        return wire.parse_to_node(json.dumps(told).encode())

    def test_servers(self) -> None:
        names = [":3478", "stun.example.org:3478", "192.0.2.1:1", "[2001:db8::1]:65535"]
        for stun in ([], names, [":3478"] * 16):
            self.assertEqual(self.read(stun), wire.Welcome(1, 30.0, stun))
        self.assertEqual(
            wire.parse_to_node(b'{"t":"welcome","version":1,"keepalive":30}'),
            wire.Welcome(1, 30.0),
            "a control plane of before names none",
        )

    def test_what_names_no_server_is_no_welcome(self) -> None:
        for stun in (
            None, ":3478", {":3478": 1}, [3478], [None], [""], [":"], [":0"], [":03478"],
            [":3478\n"], [":123456"], ["a b:1"], ["a:b:1"], ["[x]:1"], ["é.org:1"],
            ["user@host:1"], ["stun:host:1"], ["h" * 254 + ":1"], [":3478"] * 17,
            [":3478"] * 10_000,
        ):  # fmt: skip
            with self.assertRaises(ProtocolError, msg=repr(stun)[:80]):
                self.read(stun)
