"""Terminal recordings: the format, characters in pieces, and what cannot happen in a line."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.audit.asciicast import Cast


def events(*lines):
    return [json.loads(line) for text in lines for line in text.splitlines()]


class Casts(SynchronousTestCase):
    def test_header(self):
        text = Cast(5.0).header(
            101, 33, 1_800_000_000, title="t", command="id", environment={"TERM": "xterm"}
        )
        self.assertEqual(
            json.loads(text),
            {
                "version": 2,
                "width": 101,
                "height": 33,
                "timestamp": 1_800_000_000,
                "title": "t",
                "command": "id",
                "env": {"TERM": "xterm"},
            },
        )

    def test_an_unknown_size_is_eighty_by_twenty_four(self):
        head = json.loads(Cast(0).header(0, 0, 0))
        self.assertEqual((head["width"], head["height"]), (80, 24))
        head = json.loads(Cast(0).header(4_000_000_000, 1, 0))
        self.assertEqual((head["width"], head["height"]), (2000, 1))

    def test_output_and_resize(self):
        cast = Cast(10.0)
        found = events(cast.output(b"hi\r\n", 10.5), cast.resize(80, 25, 11.25))
        self.assertEqual(found, [[0.5, "o", "hi\r\n"], [1.25, "r", "80x25"]])

    def test_time_never_runs_back(self):
        self.assertEqual(events(Cast(10.0).output(b"x", 9.0))[0][0], 0)

    def test_characters_in_pieces(self):
        cast = Cast(0)
        data = "é€😀".encode()
        lines = [cast.output(data[n : n + 1], n) for n in range(len(data))]
        self.assertEqual([e[2] for e in events(*lines)], ["é", "€", "😀"])

    def test_what_is_no_character(self):
        cast = Cast(0)
        self.assertEqual(events(cast.output(b"a\xffb", 1))[0][2], "a\ufffdb")
        self.assertEqual(cast.output(b"\xe2\x82", 2), "")
        self.assertEqual(events(cast.end(3))[0][2], "\ufffd")
        self.assertEqual(cast.end(4), "")

    @settings(derandomize=True, database=None, deadline=None)
    @given(st.lists(st.binary(max_size=40), max_size=10))
    def test_lines_are_whole_ascii_and_hold_everything(self, pieces):
        cast = Cast(0)
        lines = [cast.output(piece, n) for n, piece in enumerate(pieces)] + [cast.end(99)]
        text = "".join(lines)
        self.assertTrue(all(" " <= c <= "~" for c in text.replace("\n", "")))
        shown = "".join(event[2] for event in events(*lines))
        self.assertEqual(shown, b"".join(pieces).decode("utf-8", "replace"))

    def test_asciinema_reads_it(self):
        try:
            from asciinema.asciicast import open_from_url
        except ImportError:
            self.skipTest("the Python package asciinema is missing")
        path = self.mktemp()
        cast = Cast(0)
        with open(path, "w", encoding="ascii") as file:
            file.write(cast.header(80, 24, 1) + cast.output(b"one", 1) + cast.output(b"two", 2.5))
        with open_from_url(path) as recording:
            self.assertEqual(
                [list(event) for event in recording.events()], [[1, "o", "one"], [2.5, "o", "two"]]
            )
