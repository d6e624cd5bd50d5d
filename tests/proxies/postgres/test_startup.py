"""The client's first packets."""

from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.postgres import codec
from border0.proxies.postgres.startup import (
    CancelRequest,
    Startup,
    StartupRequest,
    WrongProtocol,
)

SSL = codec.SSL_REQUEST_PACKET
GSS = codec.U32.pack(8) + codec.U32.pack(codec.GSSENC_REQUEST)
START = codec.startup_message({"user": "alice", "application_name": "psql"})


def packet(code, body):
    return codec.U32.pack(len(body) + 8) + codec.U32.pack(code) + body


class Starts(SynchronousTestCase):
    def test_gss_then_tls_then_start(self):
        startup = Startup()
        self.assertEqual(startup.receive(GSS), b"N")
        self.assertEqual(startup.receive(SSL), b"N")
        self.assertEqual(startup.receive(START + b"rest"), b"")
        self.assertIsInstance(startup.request, StartupRequest)
        self.assertEqual(startup.request.parameters["application_name"], "psql")
        self.assertEqual(startup.rest, b"rest")

    def test_one_byte_at_a_time(self):
        startup = Startup()
        said = b"".join(startup.receive(bytes((byte,))) for byte in SSL + GSS + START)
        self.assertEqual(said, b"NN")
        self.assertEqual(startup.request.user, "alice")

    def test_newer_minors_and_options_are_negotiated(self):
        for code in (codec.PROTOCOL_3_0 + 2, codec.PROTOCOL_3_0):
            startup = Startup()
            said = startup.receive(packet(code, b"user\0a\0_pq_.x\0on\0\0"))
            expected = codec.negotiate_protocol_version(["_pq_.x"])
            self.assertEqual(said, expected)
            self.assertEqual(startup.request.parameters, {"user": "a"})
        self.assertEqual(Startup().receive(packet(codec.PROTOCOL_3_0, b"user\0a\0\0")), b"")

    def test_cancel_requests_of_both_lengths(self):
        for key in (b"abcd", bytes(range(256))):
            startup = Startup()
            startup.receive(codec.cancel_request(-77, key))
            self.assertIsInstance(startup.request, CancelRequest)
            self.assertEqual((startup.request.pid, startup.request.key), (-77, key))

    def test_the_database_that_is_meant(self):
        for asked, expected in (
            ({"user": "u"}, "conf"),
            ({"user": "u", "database": "u"}, "conf"),
            ({"user": "u", "database": "d"}, "d"),
            # The server looks at 63 bytes.
            ({"user": "u", "database": "d" * 64}, "d" * 63),
            ({"user": "u", "database": "d" * 62 + "\u00e9"}, "d" * 62 + "\udcc3"),
        ):
            self.assertEqual(StartupRequest(asked).database("conf", "app"), expected)
        self.assertEqual(StartupRequest({"user": "u"}).database(None, "app"), "app")


class WrongStarts(SynchronousTestCase):
    def refused(self, data):
        error = self.assertRaises(WrongProtocol, Startup().receive, data)
        return error.reply

    def test_bytes_before_the_answer_to_an_encryption_request(self):
        for request in (SSL, GSS):
            self.assertEqual(self.refused(request + START), b"")
            self.assertEqual(self.refused(request + b"\0"), b"")

    def test_other_protocols(self):
        http = codec.error_fields(self.refused(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[5:])
        self.assertEqual((http["S"], http["C"]), ("FATAL", "08P01"))
        self.assertIn("HTTP", http["M"])
        self.assertEqual(self.refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), b"")
        ssh = codec.error_fields(self.refused(b"SSH-2.0-OpenSSH_9.2\r\n")[5:])
        self.assertEqual(ssh["C"], "08P01")

    def test_lengths(self):
        for length in (0, 7, 10_001, 0x7FFFFFFF, 0xFFFFFFFF):
            self.assertIn(b"08P01", self.refused(codec.U32.pack(length) + bytes(4)))

    def test_malformed_parameters(self):
        for body in (b"", b"\0", b"user\0a", b"user\0\0\0", b"user\0a\0b\0\0", b"\0\0"):
            self.assertIn(b"FATAL", self.refused(packet(codec.PROTOCOL_3_0, body)))
        self.assertIn(b"0A000", self.refused(packet(2 << 16, b"user\0a\0\0")))
        self.assertIn(b"0A000", self.refused(packet((1234 << 16) + 5681, b"")))

    def test_encryption_is_asked_for_once(self):
        startup = Startup()
        startup.receive(SSL)
        self.assertRaises(WrongProtocol, startup.receive, SSL)
