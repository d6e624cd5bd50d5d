"""Any bytes give an answer or a close, never an exception, however they are cut."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.http.limits import HOLD_LIMIT
from tests.proxies.http.script import Script

SETTINGS = settings(max_examples=300, derandomize=True, database=None, deadline=None)
WORDS = [
    b"GET / HTTP/1.1\r\n", b"POST /a HTTP/1.1\r\n", b"HEAD * HTTP/1.0\r\n", b"Host: a\r\n",
    b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"\r\n", b"\n", b"\r", b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n",
    b"0\r\nA: b\r\n\r\n", b" ", b":", b"\x00", b"\x16\x03\x01", b"\xff", b"A: b\r\n",
]  # fmt: skip
ANSWERS = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 101 X\r\n", b"HTTP/1.1 100 X\r\n",
    b"HTTP/1.1 204 X\r\n", b"HTTP/1.1 304 X\r\n", *WORDS[4:10], *WORDS[11:],
]  # fmt: skip
GOOD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"


def texts(words):
    return st.lists(st.sampled_from(words) | st.binary(max_size=4), max_size=24).map(b"".join)


def talk(request, answer, piece):
    """One conversation; the service is there at once and answers each connection the same."""
    script = Script()
    dials = 0
    data = (
        [request] if not piece else [request[i : i + piece] for i in range(0, len(request), piece)]
    )
    for part in data:
        script.client(part)
        while script.dials > dials:
            dials = script.dials
            script.connect()
    script.service(answer, piece)
    script.service_ends()
    while script.dials > dials and dials < 20:
        dials = script.dials
        script.connect()
        script.service_ends()
    script.client_ends()
    script.wait(1e6).wait(1e6)
    return script


class AnyBytes(SynchronousTestCase):
    @SETTINGS
    @given(st.binary(max_size=200) | texts(WORDS))
    def test_from_the_client(self, data):
        whole = talk(data, b"", 0)
        self.assertTrue(whole.session.closing)
        self.assertLessEqual(whole.session._requests.waiting, HOLD_LIMIT)
        for piece in (1, 3):
            again = talk(data, b"", piece)
            self.assertEqual(again.got, whole.got)
            self.assertEqual(again.session.closing, whole.session.closing)
            self.assertEqual(
                [(r.status, r.result, r.target) for r in again.records],
                [(r.status, r.result, r.target) for r in whole.records],
            )

    @SETTINGS
    @given(st.binary(max_size=200) | texts(ANSWERS), st.sampled_from([GOOD, UPGRADE, GOOD * 2]))
    def test_from_the_service(self, data, request):
        whole = talk(request, data, 0)
        self.assertTrue(whole.session.closing)
        self.assertGreaterEqual(len(whole.records), 1)
        again = talk(request, data, 1)
        self.assertEqual([r.status for r in again.records], [r.status for r in whole.records])
        self.assertEqual([r.result for r in again.records], [r.result for r in whole.records])
