from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard import inner
from tests.wireguard.link import ip_packet

OURS = [ip_address(text).packed for text in ("10.0.0.1", "fd00::1")]


def accepted(packets: list[bytes]) -> list[bytes]:
    out: list[bytes] = []
    owner = object()
    inner.accept(packets, owner, lambda source: owner if source in OURS else None, out)
    return out


class InnerTests(SynchronousTestCase):
    def test_padding_is_cut(self) -> None:
        for source, to in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
            packet = ip_packet(source, to, b"body")
            self.assertEqual(accepted([packet + bytes(12), packet]), [packet, packet])

    def test_every_packet_is_checked(self) -> None:
        good = ip_packet("10.0.0.1", "10.0.0.2")
        foreign = ip_packet("10.0.0.3", "10.0.0.2")
        foreign6 = ip_packet("fd00::3", "fd00::2")
        good6 = ip_packet("fd00::1", "fd00::2")
        mixed = [foreign, good, foreign, good6, good, b"", foreign6, good6]
        self.assertEqual(accepted(mixed), [good, good6, good, good6])

    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(st.sampled_from([b"\x45", b"\x60", b"\x46", b""]), st.binary(max_size=80))
    def test_any_bytes(self, first: bytes, rest: bytes) -> None:
        packet = first + rest
        for got in accepted([packet]):
            self.assertTrue(packet.startswith(got))
            self.assertGreaterEqual(len(got), 20 if got[0] >> 4 == 4 else 40)
        unrouted: list[bytes] = []
        routed: dict[int, list[bytes]] = {}
        inner.route([packet], lambda to: 1 if len(to) in (4, 16) else None, routed, unrouted)
        self.assertEqual(routed.get(1, []) + unrouted, [packet])
