"""Lines are one JSON object each, in the written format, whatever is put into them."""

import json
import uuid

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.audit import events
from border0.audit.events import LOCAL_ORGANISATION, Actor, record, timestamp, uuid7

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=200)
ALICE = Actor("alice@example.org", "alice-laptop", "100.64.0.2")
ID = "01a2035e-8709-7b38-8c3e-38c4473a24a1"
SESSION = "01a2035e-8709-7f96-9f4b-5864714a57f1"
NOW = 1795352856.329363

ANY_TEXT = st.text(st.characters(), max_size=300)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)


def replaced(item: object) -> object:
    """What a reader gets back: half surrogate pairs and infinite numbers have no JSON form."""
    if isinstance(item, str):
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in item)
    if isinstance(item, float) and item in (float("inf"), float("-inf")):
        return None
    if isinstance(item, list):
        return [replaced(i) for i in item]
    if isinstance(item, dict):
        return {replaced(k): replaced(v) for k, v in item.items()}
    return item


def parse(case: SynchronousTestCase, text: str) -> dict[str, object]:
    """Parse a line, after a look at its bytes: one line, printable ASCII, no key twice."""
    case.assertEqual(text[-1], "\n")
    case.assertTrue(all(" " <= c <= "~" for c in text[:-1]), ascii(text))

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        case.assertEqual(len(pairs), len(dict(pairs)))
        return dict(pairs)

    found = json.loads(text, object_pairs_hook=once)
    case.assertIsInstance(found, dict)
    return found


class GoldenTests(SynchronousTestCase):
    def test_session_end(self) -> None:
        self.assertEqual(
            record(
                "session.end",
                org=LOCAL_ORGANISATION,
                session=SESSION,
                actor=ALICE,
                socket="shop-db",
                result="failed",
                now_unix=NOW,
                id=ID,
                reason='said "no"\r\n',
                bytes_in=12,
                ratio=0.5,
                whole=True,
                missing=None,
                names=["\u00e9", b"\xff"],
            ),
            '{"v":1,"id":"01a2035e-8709-7b38-8c3e-38c4473a24a1",'
            '"time":"2026-11-22T13:07:36.329363Z","type":"session.end",'
            '"org":"00000000-0000-0000-0000-000000000000",'
            '"session":"01a2035e-8709-7f96-9f4b-5864714a57f1",'
            '"actor":{"user":"alice@example.org","device":"alice-laptop",'
            '"address":"100.64.0.2"},"socket":"shop-db","result":"failed",'
            '"reason":"said \\"no\\"\\r\\n","bytes_in":12,"ratio":0.5,"whole":true,'
            '"missing":null,"names":["\\u00e9","\\ufffd"]}\n',
        )

    def test_members_that_may_be_absent(self) -> None:
        text = record(
            "policy.update",
            org=LOCAL_ORGANISATION,
            actor=ALICE,
            result="ok",
            now_unix=NOW,
            id=ID,
            policy="eng",
        )
        found = parse(self, text)
        self.assertEqual(
            list(found), ["v", "id", "time", "type", "org", "actor", "result", "policy"]
        )

    def test_times(self) -> None:
        self.assertEqual(timestamp(0.0), "1970-01-01T00:00:00.000000Z")
        self.assertEqual(timestamp(NOW), "2026-11-22T13:07:36.329363Z")
        self.assertEqual(timestamp(59.9999999), "1970-01-01T00:01:00.000000Z")


class IdentifierTests(SynchronousTestCase):
    def test_version_7(self) -> None:
        # The example of RFC 9562, appendix A.6.
        random = (0xCC3 << 68 | 0x18C4DC0C0C07398F).to_bytes(10, "big")
        self.assertEqual(
            uuid7(1645557742.0, random),
            "017f22e2-79b0-7cc3-98c4-dc0c0c07398f",
        )

    @PROPERTY
    @given(st.integers(0, 4_000_000_000), st.binary(min_size=10, max_size=10))
    def test_shape(self, now: int, random: bytes) -> None:
        made = uuid.UUID(uuid7(float(now), random))
        self.assertEqual((made.version, made.variant), (7, uuid.RFC_4122))
        self.assertEqual(made.int >> 80, now * 1000)

    def test_misuse(self) -> None:
        self.assertRaises(ValueError, uuid7, NOW, bytes(9))
        self.assertRaises(ValueError, uuid7, -1.0, bytes(10))


class PropertyTests(SynchronousTestCase):
    @PROPERTY
    @given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, VALUES)
    def test_every_value_parses_back(
        self, user: str, device: str, address: str, socket: str, policy: str, reason: str, v: object
    ) -> None:
        text = record(
            "test.event",
            org=LOCAL_ORGANISATION,
            session=SESSION,
            actor=Actor(user, device, address),
            socket=socket,
            result="denied",
            now_unix=NOW,
            id=ID,
            policy=policy,
            reason=reason,
            extra=v,
        )
        found = parse(self, text)
        names = {"user": user, "device": device, "address": address}
        self.assertEqual(found["actor"], replaced(names))
        self.assertEqual(found.get("socket", ""), replaced(socket))
        self.assertEqual(found.get("policy", ""), replaced(policy))
        self.assertEqual(found.get("reason", ""), replaced(reason))
        self.assertEqual(found["extra"], replaced(v))
        self.assertEqual(found["result"], "denied")

    @PROPERTY
    @given(st.binary(max_size=200))
    def test_bytes_are_read_as_utf8(self, data: bytes) -> None:
        self.assertEqual(json.loads(events.literal(data)), data.decode("utf-8", "replace"))

    def test_long_text_is_cut(self) -> None:
        self.assertEqual(json.loads(events.literal("x" * 10, 5)), "xxxx\u2026")
        huge = events.literal(b"\xc3\xa9" * (1 << 20))
        self.assertEqual(len(json.loads(huge)), events.TEXT_LIMIT)

    def test_misuse(self) -> None:
        def attempt(type: str = "a.b", org: str = LOCAL_ORGANISATION, **more: object) -> None:
            given: dict[str, object] = {"result": "ok", "now_unix": NOW, "id": ID} | more
            record(type, org=org, actor=ALICE, **given)  # type: ignore[arg-type]

        attempt()
        for wrong in (
            {"type": "a b"},
            {"type": 'a","b'},
            {"org": "local"},
            {"org": LOCAL_ORGANISATION + "\n"},
            {"session": "x"},
            {"id": ID.upper()},
            {"result": "maybe"},
            {"v": 2},
            {"time": "now"},
            {"extra": object()},
        ):
            self.assertRaises(ValueError, attempt, **wrong)
        deep: object = 1
        for _ in range(40):
            deep = [deep]
        self.assertRaises(ValueError, attempt, extra=deep)
