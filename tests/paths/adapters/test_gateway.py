"""The routing table of Linux, and lines that are none."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths.adapters import gateway
from border0.paths.adapters.gateway import default_gateway

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
LAN = "eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"


def default(router: str, metric: int, flags: str = "0003", mask: str = "00000000") -> str:
    return f"eth0\t00000000\t{router}\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n"


class Table(SynchronousTestCase):
    def found(self, *lines: str) -> str | None:
        return default_gateway(HEAD + "".join(lines), "little")

    def test_the_lowest_metric(self) -> None:
        one, two = default("0100A8C0", 600), default("FE00A8C0", 100)
        self.assertEqual(self.found(LAN, one), "192.168.0.1")
        self.assertEqual(self.found(one, LAN, two), "192.168.0.254")

    def test_the_other_byte_order(self) -> None:
        table = HEAD + default("C0A80001", 0)
        self.assertEqual(default_gateway(table, "big"), "192.168.0.1")

    def test_none(self) -> None:
        for line in (
            LAN,
            default("00000000", 0, "0001"),  # a point-to-point link
            default("0100A8C0", 0, "0002"),  # down
            default("0100A8C0", 0, mask="00000080"),  # half of everything
            "eth0\t00000000\n",
            "\n",
        ):
            self.assertIsNone(self.found(line), line)
        self.assertIsNone(default_gateway(""))

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(st.text("0123ABCxyz \t\n", max_size=200))
    def test_any_text(self, text: str) -> None:
        default_gateway(HEAD + text)

    def test_elsewhere_than_on_linux(self) -> None:
        self.patch(gateway.sys, "platform", "darwin")
        self.assertIsNone(gateway.find_gateway())
