"""docs/protocols/relay.md says what the code does: its tables and numbers, read and compared."""

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.relay import codes, frames, limits
from border0.relay.handshake import LABEL
from border0.relay.ticket import TicketKeys

PAGE = (Path(__file__).parents[2] / "docs" / "protocols" / "relay.md").read_text("utf-8")


def table(heading: str) -> list[list[str]]:
    """The rows of the table whose head begins so."""
    _, found, rest = PAGE.partition(f"\n{heading}")
    assert found, heading
    rows = []
    for line in rest.splitlines()[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


class PageTests(SynchronousTestCase):
    def test_types(self) -> None:
        said = {int(row[0], 16): row[1] for row in table("| type | name | from |")}
        self.assertEqual(set(said), frames.TYPES)
        for kind, name in said.items():
            self.assertEqual(getattr(frames, name), kind)

    def test_close(self) -> None:
        said = {}
        for row in table("| code | CLOSE |"):
            for code, text in (row[:2], row[2:]):
                said[int(code)] = text
        self.assertEqual(set(said), set(codes.CLOSE_WORDS))
        for code, word in codes.CLOSE_WORDS.items():
            self.assertIn(word.split()[0], said[code])

    def test_health_and_gone(self) -> None:
        said = {int(code): text for code, text in table("| code | HEALTH |")}
        self.assertEqual(said, codes.HEALTH_WORDS)
        said = {int(code): text for code, text in table("| reason | GONE |")}
        self.assertEqual(said, codes.GONE_WORDS)

    def test_sizes(self) -> None:
        said = [int(re.sub(r"\D", "", row[1])) for row in table("| limit | value |")]
        self.assertEqual(said, [limits.MESSAGE, limits.HELLO_MESSAGE, limits.LOGIN_MESSAGE])
        self.assertIn(f"at most {limits.RECORD_BODY:,}", PAGE)
        self.assertIn(f"at most {limits.TICKET:,}", PAGE)

    def test_rates(self) -> None:
        columns = list(zip(*(row[1:] for row in table("| what | standard |")), strict=True))
        for name, column in zip(("standard", "low", "high"), columns, strict=True):
            said = tuple(float(cell.split()[0]) * 1e6 for cell in column)
            self.assertEqual(said, tuple(limits.RATES[name]))

    def test_words(self) -> None:
        target, interval = limits.CODEL_TARGET * 1000, limits.CODEL_INTERVAL * 1000
        asked, closed = limits.SILENT_ASKED, limits.SILENT_CLOSED
        for word in (
            limits.SUBPROTOCOL,
            limits.EXPORTER_LABEL,
            LABEL[:-1].decode(),
            f"status {codes.WEBSOCKET_STATUS} + code",
            f"target {target:.0f} ms, interval {interval:.0f} ms",
            f"older than {limits.DATA_OLDEST * 1000:.0f} ms (urgent: {limits.URGENT_OLDEST:.0f} s)",
            f"silent for {asked:.0f} s and closes (14) after {closed:.0f} s",
            f"above {limits.UNKNOWN_WARNED:,} within a minute",
            f"{limits.UNKNOWN_CLOSED:,} CLOSE 17",
            f"At most {limits.FLOWS:,} sources",
            f"more than {limits.QUEUE_BYTES // 1024} KiB",
        ):
            self.assertIn(word, re.sub(r"\s+", " ", PAGE))

    def test_the_file_of_keys(self) -> None:
        [example] = re.findall(r"```json\n(.*?)```", PAGE, re.S)
        self.assertEqual(len(TicketKeys.from_json(example.encode()).revoked), 1)
