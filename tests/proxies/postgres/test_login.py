"""The upstream login against scripted servers."""

import hashlib

from scramp import ScramMechanism
from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.postgres import codec
from border0.proxies.postgres.codec import ProtocolError
from border0.proxies.postgres.login import Login, LoginFailed
from border0.proxies.postgres.upstream import upstream_parameters
from border0.secrets import Secret

PASSWORD = "pa55word-canary"
OK = codec.AUTHENTICATION_OK
READY = codec.ready_for_query(codec.IDLE)


def request(code, body=b""):
    return codec.message(b"R", codec.U32.pack(code) + body)


def make(mode="disable", password=PASSWORD):
    secret = None if password is None else Secret(password)
    return Login({"user": "app", "database": "d"}, secret, mode, "shop-db", "n" * 24)


class Logins(SynchronousTestCase):
    def assert_refused(self, login, data, sqlstate):
        error = self.assertRaises(LoginFailed, login.receive, data)
        fields = codec.error_fields(error.reply[5:])
        self.assertEqual((fields["S"], fields["C"]), ("FATAL", sqlstate))
        self.assertNotIn(PASSWORD, str(error) + str(fields))
        return fields

    def test_trust_and_greeting(self):
        login = make()
        self.assertTrue(login.start().endswith(b"user\0app\0database\0d\0\0"))
        status = codec.parameter_status("server_version", "15")
        key = codec.backend_key_data(-5, b"abcd")
        data = OK + status + key + READY + b"rest"
        for byte in data[:-4]:
            self.assertFalse(login.ready)
            login.receive(bytes((byte,)))
        self.assertTrue(login.ready)
        self.assertEqual(login.greeting, [status])
        self.assertEqual(login.parameters, {"server_version": "15"})
        self.assertEqual(login.key, (-5, b"abcd"))
        login = make()
        login.receive(data)
        self.assertEqual(login.rest, b"rest")

    def test_no_backend_key(self):
        login = make()
        login.receive(OK + READY)
        self.assertIsNone(login.key)

    def test_md5(self):
        inner = hashlib.md5(PASSWORD.encode() + b"app").hexdigest().encode()
        expected = b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode()
        self.assertEqual(make().receive(request(5, b"salt")), codec.message(b"p", expected + b"\0"))

    def test_clear_text_only_inside_tls(self):
        fields = self.assert_refused(make(), request(3), "08006")
        self.assertIn("tls_mode", fields["H"])
        login = make("require")
        self.assertEqual(login.start(), codec.SSL_REQUEST_PACKET)
        self.assertEqual(login.receive(b"S"), b"")
        self.assertTrue(login.tls_wanted)
        self.assertIn(b"app", login.secured(None))
        self.assertIn(PASSWORD.encode(), login.receive(request(3)))

    def test_tls_modes(self):
        login = make("prefer")
        login.start()
        self.assertIn(b"app", login.receive(b"N"))
        for mode in ("require", "verify-full"):
            login = make(mode)
            login.start()
            self.assert_refused(login, b"N", "08006")
        login = make("prefer")
        login.start()
        self.assertRaises(ProtocolError, login.receive, b"S" + OK)
        login = make("prefer")
        login.start()
        login.receive(b"S")
        self.assertRaises(ProtocolError, login.receive, OK)

    def scram(self, login, mechanisms, binding=None):
        """Play the server's part; returns the login after the server's last word."""
        offer = b"\0".join(name.encode() for name in mechanisms) + b"\0\0"
        answer = login.receive(request(10, offer))
        name, _, rest = answer[5:].partition(b"\0")
        mechanism = ScramMechanism(name.decode())
        salt, stored, key, count = mechanism.make_auth_info(PASSWORD, 4096)
        options = {} if binding is None else {"channel_binding": binding}
        server = mechanism.make_server(lambda user: (salt, stored, key, count), **options)
        server.set_client_first(rest[4:].decode())
        answer = login.receive(request(11, server.get_server_first().encode()))
        server.set_client_final(answer[5:].decode())
        return name, server.get_server_final().encode()

    def test_scram(self):
        login = make()
        name, final = self.scram(login, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"])
        self.assertEqual(name, b"SCRAM-SHA-256")
        login.receive(request(12, final) + OK + READY)
        self.assertTrue(login.ready)

    def test_scram_with_channel_binding(self):
        binding = ("tls-server-end-point", b"h" * 32)
        login = make("require")
        login.start()
        login.receive(b"S")
        login.secured(binding)
        name, final = self.scram(login, ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"], binding)
        self.assertEqual(name, b"SCRAM-SHA-256-PLUS")
        login.receive(request(12, final) + OK + READY)
        self.assertTrue(login.ready)

    def test_a_server_that_does_not_know_the_password(self):
        login = make()
        self.scram(login, ["SCRAM-SHA-256"])
        self.assertRaises(ProtocolError, login.receive, request(12, b"v=AAAA"))
        login = make()
        self.scram(login, ["SCRAM-SHA-256"])
        self.assertRaises(ProtocolError, login.receive, OK + READY)

    def test_a_billion_rounds(self):
        login = make()
        login.receive(request(10, b"SCRAM-SHA-256\0\0"))
        first = b"r=" + b"n" * 24 + b"xyz,s=c2FsdA==,i=1000000000"
        self.assertRaises(ProtocolError, login.receive, request(11, first))

    def test_what_is_not_spoken(self):
        for code in (2, 6, 7, 9, 99):
            self.assert_refused(make(), request(code), "08006")
        self.assert_refused(make(), request(10, b"OAUTHBEARER\0\0"), "08006")
        self.assert_refused(make(password=None), request(5, b"salt"), "08006")

    def test_the_servers_refusals(self):
        frame = codec.fatal("3D000", 'database "d" does not exist')
        error = self.assertRaises(LoginFailed, make().receive, frame)
        self.assertEqual(error.reply, frame)
        for state in ("28P01", "28000"):
            refusal = codec.fatal(state, 'password authentication failed for user "app-canary"')
            fields = self.assert_refused(make(), refusal, state)
            self.assertNotIn("app-canary", str(fields))
            self.assertIn("shop-db", fields["M"])
            self.assertIn("administrator", fields["H"])

    def test_out_of_order(self):
        for data in (READY, codec.parameter_status("a", "b"), OK + OK, request(12), request(11)):
            self.assertRaises(ProtocolError, make().receive, data)
        self.assertRaises(ProtocolError, make().receive, OK + codec.message(b"D"))
        self.assertRaises(ProtocolError, make().receive, b"R\0\0\0\1")
        self.assertRaises(ProtocolError, make().receive, b"R\0\1\0\1")
        talk = OK + codec.message(b"N", bytes(60_000)) * 20
        self.assertRaises(ProtocolError, make().receive, talk)

    def test_parameters_for_the_server(self):
        merged = upstream_parameters(
            {"user": "me", "database": "x", "application_name": "psql", "DateStyle": "ISO"},
            "app",
            "shop",
            {"datestyle": "German", "default_transaction_read_only": "on"},
        )
        self.assertEqual(
            merged,
            {
                "user": "app",
                "database": "shop",
                "application_name": "psql",
                "datestyle": "German",
                "default_transaction_read_only": "on",
            },
        )
