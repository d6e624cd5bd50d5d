"""Where a device is: by the control plane while it is there, then by what has not changed."""

from twisted.trial.unittest import SynchronousTestCase

from border0.connector.config import DeviceEntry
from border0.connector.whereabouts import Whereabouts
from border0.control.push.events import Seen

KEY = bytes(32)
LIMIT = 86400.0


class Control:
    def __init__(self) -> None:
        self.connected = True
        self.seen: Seen | None = None
        self.away = 0.0

    def presence(self, node: str) -> Seen | None:
        return self.seen if node == "n" else None

    def absence(self) -> float:
        return self.away


class Where(SynchronousTestCase):
    def setUp(self) -> None:
        self.control = Control()
        self.source: tuple[str, float] | None = ("203.0.113.9", 1.0)
        self.now = 1000.0
        self.where = Whereabouts(self.control, lambda _: self.source, LIMIT, lambda: self.now)
        self.devices = [DeviceEntry("d", KEY, None, [], "u", frozenset(), id="n")]
        self.where.follow(self.devices)

    def address(self) -> str | None:
        found = self.where(KEY)
        return None if found is None else found[0]

    def lose(self) -> None:
        self.control.connected = False
        self.where.follow(self.devices)

    def test_as_the_control_plane_sees_it(self) -> None:
        self.assertIsNone(self.address())
        self.control.seen = Seen(True, "198.51.100.7", 500.0)
        self.assertEqual(self.address(), "198.51.100.7")
        self.now = 1101.0
        self.assertIsNone(self.address())
        self.control.seen = Seen(True, "198.51.100.8", 1100.0)
        self.assertEqual(self.address(), "198.51.100.8")
        self.assertIsNone(self.where(bytes(31) + b"\x01"))

    def test_without_contact_the_last_one_stands_until_the_limit(self) -> None:
        self.control.seen = Seen(True, "198.51.100.7", 900.0)
        self.lose()
        self.now += 7200.0
        self.control.away = 7200.0
        self.assertEqual(self.address(), "198.51.100.7")
        self.source = None  # silent, but not elsewhere
        self.assertEqual(self.address(), "198.51.100.7")
        self.control.away = LIMIT + 1
        self.assertIsNone(self.address())

    def test_a_device_that_moved_is_unknown_also_when_it_returns(self) -> None:
        self.control.seen = Seen(True, "198.51.100.7", 900.0)
        self.lose()
        self.source = ("203.0.113.10", 0.0)
        self.assertIsNone(self.address())
        self.source = ("203.0.113.9", 0.0)
        self.assertIsNone(self.address())
        self.control.connected = True
        self.where.follow(self.devices)
        self.assertEqual(self.address(), "198.51.100.7")

    def test_one_that_was_silent_may_only_come_from_where_it_was_seen(self) -> None:
        for source, known in (("198.51.100.7", True), ("203.0.113.9", False)):
            self.control.connected = True
            self.source = None
            self.control.seen = Seen(True, "198.51.100.7", self.now)
            self.where.follow(self.devices)
            self.lose()
            self.source = (source, 0.0)
            self.assertEqual(self.address() is not None, known, source)

    def test_what_was_too_old_when_the_contact_was_lost_stays_unknown(self) -> None:
        self.control.seen = Seen(True, "198.51.100.7", 100.0)
        self.lose()
        self.assertIsNone(self.address())
        self.control.seen = Seen(True, "198.51.100.7", self.now)
        self.where.follow(self.devices)  # nobody told it that; it is still away
        self.assertIsNone(self.address())
