"""The resolver's file: rendered, kept in the journal first, restored only while it is ours."""

import json
import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.node.journal import Journal
from border0.node.splitdns import COMMENT, ResolvConf, choose, render, undo

OURS = ["100.126.0.1"]
quick = settings(max_examples=300, derandomize=True, database=None, deadline=None)


class Render(SynchronousTestCase):
    def test_first_and_nothing_else_changes(self) -> None:
        text = "# mine\nsearch lan\nnameserver 192.0.2.1\nnameserver ::1\noptions edns0\n"
        wanted = [COMMENT, "# mine", "search lan", "nameserver 100.126.0.1", *text.splitlines()[2:]]
        self.assertEqual(render(text, OURS).splitlines(), wanted)
        self.assertEqual(render(render(text, OURS), OURS), render(text, OURS))

    def test_without_a_server_this_machine_is_still_asked(self) -> None:
        self.assertEqual(
            render("", OURS), f"{COMMENT}\nnameserver 100.126.0.1\nnameserver 127.0.0.1\n"
        )

    def test_the_order_counts(self) -> None:
        text = "nameserver 192.0.2.1\noptions rotate\noptions rotate edns0\n"
        self.assertNotIn("rotate", render(text, OURS))
        self.assertIn("options edns0", render(text, OURS))

    @quick
    @given(st.lists(st.text(max_size=30), max_size=8))
    def test_any_file(self, lines: list[str]) -> None:
        found = [
            line.split()[1]
            for line in render("\n".join(lines), OURS).splitlines()
            if line.split()[:1] == ["nameserver"] and len(line.split()) > 1
        ]
        self.assertEqual(found[:1], OURS)


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "resolv.conf"
        self.path.write_text("nameserver 192.0.2.1\n")
        self.journal = Journal(self.folder / "journal")
        self.file = ResolvConf(self.journal, self.path)

    def left(self) -> list[str]:
        """What the next process undoes."""
        return undo(Journal(self.folder / "journal"))

    def test_used_and_restored(self) -> None:
        self.path.chmod(0o600)
        self.file.use(OURS, [])
        self.assertIn(OURS[0], self.path.read_text())
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.file.use(["fd62::1"], [])
        self.assertNotIn(OURS[0], self.path.read_text())
        self.file.use([], [])
        self.assertEqual(self.path.read_text(), "nameserver 192.0.2.1\n")
        self.assertEqual(os.listdir(self.folder), ["resolv.conf"])
        self.assertEqual(self.left(), [])

    def test_the_next_process_undoes(self) -> None:
        self.file.use(OURS, [])
        self.assertIn(f"restored {self.path}", self.left()[0])
        self.assertEqual(self.path.read_text(), "nameserver 192.0.2.1\n")
        self.assertEqual(self.left(), [])

    def test_what_cannot_be_undone_stays(self) -> None:
        entry = {"kind": "resolvconf", "record": "tun0.border0"}
        self.journal.add(entry)
        self.patch(os, "environ", {"PATH": str(self.folder)})
        program = self.folder / "resolvconf"
        program.write_text("#!/bin/sh\necho it is broken >&2\nexit 1\n")
        program.chmod(0o755)
        self.assertIn("it is broken", self.left()[0])
        program.write_text("#!/bin/sh\n")
        self.assertIn("restored", self.left()[0])
        self.assertEqual(self.left(), [])

    def test_a_kill_between_the_journal_and_the_file(self) -> None:
        def killed(data: bytes, mode: int) -> None:
            raise KeyboardInterrupt

        self.patch(self.file, "_put", killed)
        self.assertRaises(KeyboardInterrupt, self.file.use, OURS, [])
        self.left()
        self.assertEqual(self.path.read_text(), "nameserver 192.0.2.1\n")

    def test_no_file_before(self) -> None:
        self.path.unlink()
        self.file.use(OURS, [])
        self.file.look()
        self.file.restore()
        self.assertFalse(self.path.exists())

    def test_another_programs_file(self) -> None:
        self.file.use(OURS, [])
        self.path.write_text("nameserver 192.0.2.9\n")
        self.file.look()
        self.assertIn(OURS[0], self.path.read_text())
        self.file.restore()
        self.assertEqual(self.path.read_text(), "nameserver 192.0.2.9\n")
        self.file.use(OURS, [])
        self.path.write_text("nameserver 192.0.2.8\n")
        self.file.restore()
        self.assertEqual(self.path.read_text(), "nameserver 192.0.2.8\n")
        self.assertEqual(self.left(), [])

    def test_journals_that_make_no_sense(self) -> None:
        for text in (
            "", "x", "[]", "{}", '{"undo": 3}', '{"undo": [3]}', '{"undo": [{}]}',
            '{"undo": [{"kind": "resolv.conf"}]}', '{"undo": [{"kind": "unheard"}]}',
            json.dumps({"undo": [{"kind": "resolv.conf", "path": str(self.path), "ours": "%"}]}),
            "[" * 100000,
        ):  # fmt: skip
            (self.folder / "journal").write_text(text)
            self.left()
            self.assertEqual(self.path.read_text(), "nameserver 192.0.2.1\n", text)

    def test_how_it_is_chosen(self) -> None:
        self.assertEqual(choose(self.journal, "border0", self.path).name, "resolv.conf")
        self.patch(os, "environ", {"PATH": str(self.folder)})
        (self.folder / "resolvconf").write_text("#!/bin/sh\n")
        (self.folder / "resolvconf").chmod(0o755)
        self.path.write_text("# Generated by resolvconf\nnameserver 192.0.2.1\n")
        self.assertEqual(choose(self.journal, "border0", self.path).name, "resolvconf")
        self.path.write_text("# not by resolvconf, it only says so\n"[:5])
        self.assertEqual(choose(self.journal, "border0", self.path).name, "resolv.conf")
