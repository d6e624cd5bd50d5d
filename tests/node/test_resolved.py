"""What is said to systemd-resolved: the command lines, their order, the journal, the refusals.

Here `busctl` is a script; with the real one and a bus: tests/integration/test_resolved.py.
"""

import os
import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.errors import Border0Error
from border0.node import programs, resolved
from border0.node.journal import Journal
from border0.node.resolved import Resolved, calls, leads_to
from border0.node.splitdns import choose, undo

BUSCTL = """#!/bin/sh
case " $* " in *" $(cat "$0.refuses") "*) echo noise >&2; cat "$0.why" >&2; exit 1 ;; esac
echo "$@" >> "$0.told"
"""
MANAGER = "org.freedesktop.resolve1 /org/freedesktop/resolve1 org.freedesktop.resolve1.Manager"
ZONE = "acme.border0.internal"


class Words(SynchronousTestCase):
    def test_addresses_of_both_families(self) -> None:
        last = calls(7, ["100.126.0.1", "fd62:6f72::1"], [ZONE, "b.internal"])[-2:]
        self.assertEqual(last[0], ["SetLinkDomains", "ia(sb)", "7", "2", ZONE, "true",
                                   "b.internal", "true"])  # fmt: skip
        six = ["10", "16", "253", "98", "111", "114", *["0"] * 11, "1"]
        self.assertEqual(
            last[1], ["SetLinkDNS", "ia(iay)", "7", "2", "2", "4", "100", "126", "0", "1", *six]
        )

    def test_no_word_is_taken_for_an_option(self) -> None:
        for call in calls(1, ["100.126.0.1", "::1"], [ZONE]):
            self.assertFalse([word for word in call if word.startswith("-")])


class Files(SynchronousTestCase):
    def test_which_lead_to_the_stub(self) -> None:
        path = Path(self.mktemp())
        for text, leads in (
            ("nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n", True),
            ("nameserver 127.0.0.53\nnameserver 127.0.0.54\n", True),
            ("nameserver 127.0.0.53\nnameserver 192.0.2.1\n", False),
            ("nameserver 127.0.0.1\n", False),
            ("# nameserver 127.0.0.53\nnameserver\n\xff", False),
            ("", False),
        ):
            path.write_text(text, "latin-1")
            self.assertEqual(leads_to(path), leads, text)
        for target, leads in (
            ("/run/systemd/resolve/stub-resolv.conf", True),
            # It names the servers that systemd-resolved knows: programs ask them without it.
            ("/run/systemd/resolve/resolv.conf", False),
        ):
            path.unlink()
            path.symlink_to(target)
            self.assertEqual(leads_to(path), leads, target)


class Telling(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.program = self.folder / "busctl"
        self.program.write_text(BUSCTL)
        self.program.chmod(0o755)
        self.refuse("nothing")
        self.patch(os, "environ", {"PATH": f"{self.folder}:/usr/bin:/bin"})
        self.index = 7
        self.patch(resolved, "index_of", lambda name: self.index if name == "border0" else 0)
        self.journal = Journal(self.folder / "journal")
        self.link = Resolved(self.journal, "border0")

    def refuse(self, word: str, why: str = "Call failed: Link border0 is managed.") -> None:
        Path(f"{self.program}.refuses").write_text(word)
        Path(f"{self.program}.why").write_text(why + "\n")

    def told(self) -> list[str]:
        """What busctl was told to call since the last time."""
        file = Path(f"{self.program}.told")
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        start = f"--system --timeout=5 --quiet call {MANAGER} "
        self.assertTrue(all(line.startswith(start) for line in lines), lines)
        return [line.removeprefix(start) for line in lines]

    def left(self) -> list[str]:
        """What the next process undoes."""
        return undo(Journal(self.folder / "journal"))

    def test_servers_come_last(self) -> None:
        self.link.use(["100.126.0.1"], [ZONE])
        wanted = [
            "SetLinkDNSSEC is 7 no",
            "SetLinkDNSOverTLS is 7 no",
            "SetLinkDefaultRoute ib 7 false",
            f"SetLinkDomains ia(sb) 7 1 {ZONE} true",
            "SetLinkDNS ia(iay) 7 1 2 4 100 126 0 1",
        ]
        self.assertEqual(self.told(), wanted)
        self.link.use(["100.126.0.1"], [ZONE])
        self.link.look()
        self.assertEqual(self.told(), [])
        self.link.use([], [ZONE])
        self.assertEqual(self.told(), ["RevertLink i 7"])
        self.link.restore()
        self.assertEqual((self.told(), self.left()), ([], []))

    def test_in_the_journal_before_it_is_said(self) -> None:
        self.refuse("SetLinkDNSSEC")
        error = self.assertRaises(Border0Error, self.link.use, ["100.126.0.1"], [ZONE])
        self.assertEqual(str(error), "systemd-resolved, SetLinkDNSSEC: Link border0 is managed.")
        self.assertEqual(self.told(), [])
        self.assertIn("restored systemd-resolved's border0", self.left()[0])
        self.assertEqual(self.told(), ["RevertLink i 7"])
        self.assertEqual(self.left(), [])

    def test_what_was_refused_is_said_again(self) -> None:
        self.refuse("SetLinkDNS")
        self.assertRaises(Border0Error, self.link.use, ["100.126.0.1"], [ZONE])
        self.refuse("nothing")
        self.link.use(["100.126.0.1"], [ZONE])
        self.assertEqual(self.told()[-1], "SetLinkDNS ia(iay) 7 1 2 4 100 126 0 1")
        self.assertEqual(len(self.journal.entries), 1)

    def test_the_next_process_finds_no_interface(self) -> None:
        for other in (0, 8):  # none, and another one of that name
            self.index = 7
            Resolved(Journal(self.journal.path), "border0").use(["100.126.0.1"], [ZONE])
            self.told()
            self.index = other
            self.assertEqual((self.left(), self.told()), ([], []))
            self.assertFalse(self.journal.path.exists())

    def test_an_interface_that_goes_meanwhile(self) -> None:
        self.link.use(["100.126.0.1"], [ZONE])
        self.refuse("RevertLink", "Call failed: Link 7 not known")
        self.assertRaises(Border0Error, self.link.restore)
        here = [7, 0]
        self.patch(resolved, "index_of", lambda name: here.pop(0))
        self.assertFalse(self.link.restore())
        self.assertEqual(self.left(), [])

    def test_what_cannot_be_reverted_stays(self) -> None:
        self.link.use(["100.126.0.1"], [ZONE])
        self.refuse("RevertLink", "Call failed: Connection timed out")
        self.assertEqual(
            self.left(),
            ["cannot restore what a killed node changed: "
             "systemd-resolved, RevertLink: Connection timed out"],
        )  # fmt: skip
        self.refuse("nothing")
        self.assertIn("restored", self.left()[0])

    def test_no_interface_to_speak_of(self) -> None:
        self.index = 0
        error = self.assertRaises(Border0Error, self.link.use, ["100.126.0.1"], [ZONE])
        self.assertIn("no interface border0", str(error))
        self.assertEqual((self.told(), self.left()), ([], []))

    def test_chosen_when_the_bus_answers(self) -> None:
        path = self.folder / "resolv.conf"
        path.symlink_to("/run/systemd/resolve/stub-resolv.conf")
        self.assertEqual(choose(self.journal, "border0", path).name, "systemd-resolved")
        self.assertIn("org.freedesktop.DBus.Peer Ping",
                      Path(f"{self.program}.told").read_text())  # fmt: skip
        self.refuse("Ping", "Call failed: The name is not activatable")
        self.assertEqual(choose(self.journal, "border0", path).name, "resolv.conf")
        self.patch(programs, "find", lambda name: None)
        self.assertEqual(choose(self.journal, "border0", path).name, "resolv.conf")


class Index(SynchronousTestCase):
    def test_of_an_interface(self) -> None:
        index, name = socket.if_nameindex()[0]
        self.assertEqual(resolved.index_of(name), index)
        for none in ("nothere0", "x" * 300):
            self.assertEqual(resolved.index_of(none), 0)
