"""The real busctl over a real dbus-daemon; systemd-resolved is a DOUBLE of its bus interface.

A link is set, changed and reverted; what is refused comes back in one line.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from border0.errors import Border0Error
from border0.node import resolved
from border0.node.journal import Journal
from border0.node.resolved import Resolved
from border0.node.splitdns import choose, undo
from tests.support.bus import PrivateBus
from tests.support.counterparts import requires
from tests.support.resolvedouble import Link, ResolvedDouble

ZONE = "acme.border0.internal"
SERVERS = ["100.126.0.1", "fd62:6f72:6465:7231::1"]


@requires("busctl", "dbus-daemon", "jeepney")
class Bus(SynchronousTestCase):
    def setUp(self) -> None:
        self.bus = PrivateBus()
        self.addCleanup(self.bus.close)
        self.names = {1: "lo", 7: "border0"}
        self.double = ResolvedDouble(self.bus.address, name_of=self.name_of)
        self.addCleanup(self.double.close)
        environment = mock.patch.dict(os.environ, DBUS_SYSTEM_BUS_ADDRESS=self.bus.address)
        environment.start()
        self.addCleanup(environment.stop)
        self.patch(resolved, "index_of", self.index_of)
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.journal = Journal(self.folder / "journal")
        self.link = Resolved(self.journal, "border0")

    def name_of(self, index: int) -> str:
        if index not in self.names:
            raise OSError("no such index")
        return self.names[index]

    def index_of(self, name: str) -> int:
        return next((index for index, one in self.names.items() if one == name), 0)

    def why(self, link: Resolved | None = None) -> str:
        """Why it is refused, in one line."""
        link = link or self.link
        text = str(self.assertRaises(Border0Error, link.use, SERVERS, [ZONE]))
        self.assertEqual(len(text.splitlines()), 1)
        self.assertTrue(text.startswith("systemd-resolved, SetLink"), text)
        return text

    def test_set_changed_and_reverted(self) -> None:
        self.link.use(SERVERS, [ZONE, "other.internal"])
        wanted = Link("border0", SERVERS, [(ZONE, True), ("other.internal", True)],
                      False, "no", "no", ("no", "no"))  # fmt: skip
        self.assertEqual(self.double.links, {7: wanted})
        self.link.use(SERVERS[1:], [ZONE])
        self.assertEqual(self.double.links[7].dns, SERVERS[1:])
        self.assertEqual(self.double.links[7].domains, [(ZONE, True)])
        self.link.restore()
        self.assertEqual(self.double.links, {})

    def test_the_next_process_reverts(self) -> None:
        self.link.use(SERVERS, [ZONE])
        self.assertIn("restored", undo(Journal(self.journal.path))[0])
        self.assertEqual(self.double.links, {})
        self.link.use(SERVERS[:1], [ZONE])
        del self.names[7]
        self.assertEqual(undo(Journal(self.journal.path)), [])
        self.assertFalse(self.journal.path.exists())

    def test_what_is_refused(self) -> None:
        self.double.managed.add("border0")
        self.assertIn("Link border0 is managed.", self.why())
        self.assertIn("is loopback", self.why(Resolved(Journal(self.folder / "lo"), "lo")))
        self.double.managed.clear()
        self.patch(resolved, "TIMEOUT", 1)
        self.double.stubborn = "SetLinkDomains"
        self.assertIn("SetLinkDomains: Connection timed out", self.why())
        self.double.close()
        self.assertIn("org.freedesktop.resolve1", self.why())
        self.bus.close()
        self.assertIn("SetLinkDNSSEC: ", self.why())

    def test_chosen_while_it_answers(self) -> None:
        path = self.folder / "resolv.conf"
        path.write_text("nameserver 127.0.0.53\n")
        self.assertEqual(choose(self.journal, "border0", path).name, "systemd-resolved")
        self.double.close()
        self.assertEqual(choose(self.journal, "border0", path).name, "resolv.conf")
        self.bus.close()
        self.assertEqual(choose(self.journal, "border0", path).name, "resolv.conf")

    def test_the_double_knows_a_wrong_call(self) -> None:
        def call(*words: str) -> str:
            argv = ["busctl", "--system", "call", resolved.SERVICE, resolved.OBJECT,
                    resolved.MANAGER, *words]  # fmt: skip
            return subprocess.run(argv, capture_output=True, text=True, check=False).stderr

        for words, why in (
            (("SetLinkDNS", "ia(iayq)", "7", "0"), "has ia(iay)"),
            (("SetLinkDNS", "ia(iay)", "7", "1", "10", "4", "1", "2", "3", "4"), "Invalid address"),
            (("SetLinkDNSSEC", "is", "7", "off"), "Invalid DNSSEC"),
            (("SetLinkDomains", "ia(sb)", "7", "1", "a..b", "true"), "Invalid search domain"),
            (("SetLinkDNSSEC", "is", "9", "no"), "Link 9 not known"),
            (("FlushEverything",), "Unknown method"),
        ):
            self.assertIn(why, call(*words))
        self.assertEqual(call("SetLinkDNSSEC", "is", "7", "no"), "")
