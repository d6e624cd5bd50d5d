"""Cancel keys."""

import itertools

from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.postgres.cancel import CancelRegistry


class Cancels(SynchronousTestCase):
    def setUp(self):
        numbers = itertools.chain(
            [b"\x80\0\0\0", b"\xff\0\0\7", b"key1", b"\xff\0\0\7", b"\0\0\0\5", b"key2"]
        )
        self.registry = CancelRegistry(lambda count: next(numbers))
        self.cancelled = []
        self.pid, self.key = self.registry.issue("alice", lambda: self.cancelled.append(1))

    def test_process_ids_are_positive_and_unique(self):
        self.assertEqual(self.pid, 0x7F000007)
        second, _ = self.registry.issue("bob", lambda: self.cancelled.append(2))
        self.assertEqual(second, 5)
        self.assertEqual(len(self.registry), 2)

    def test_only_the_same_identity_with_the_key(self):
        self.assertFalse(self.registry.request(self.pid, self.key, "bob"))
        self.assertFalse(self.registry.request(self.pid, b"key0", "alice"))
        self.assertFalse(self.registry.request(self.pid, self.key + b"x", "alice"))
        self.assertFalse(self.registry.request(self.pid + 1, self.key, "alice"))
        self.assertEqual(self.cancelled, [])
        self.assertTrue(self.registry.request(self.pid, self.key, "alice"))
        self.assertEqual(self.cancelled, [1])

    def test_a_session_that_ended(self):
        self.registry.drop(self.pid)
        self.registry.drop(self.pid)
        self.assertFalse(self.registry.request(self.pid, self.key, "alice"))
