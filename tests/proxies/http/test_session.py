"""The proxy's machine: what crosses, what does not, and how a connection goes on or ends."""

from twisted.trial.unittest import SynchronousTestCase

from border0.policy.model import Subject
from border0.proxies.admission import Refusal
from border0.proxies.http.limits import (
    ABORT,
    ANSWER_SECONDS,
    BODY_SECONDS,
    HALF_CLOSED_SECONDS,
    HEAD_SECONDS,
    IDLE_SECONDS,
    LINGER,
    NOW,
)
from tests.proxies.http.script import HOST, Script, field

GET = b"GET /x?y=1 HTTP/1.1\r\nHost: shop\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
FORGERIES = (
    "X-Auth-Email x-auth-email X_Auth_Email X-AUTH_EMAIL X.Auth.Email X-Auth-Name X-Auth-Subject "
    "X_Auth_Subject X-Auth-Picture X-Auth-Sig X-Forwarded-For X_Forwarded_For X-Forwarded-Proto "
    "X-Forwarded-Host X-Forwarded-User X-Forwarded-Email Forwarded X-Real-IP X_Real_IP "
    "X-Remote-User Remote-User REMOTE_USER True-Client-IP X-Client-IP Proxy X-Original-URL"
)


class Fields(SynchronousTestCase):
    def sent(self, *lines, **more):
        head = b"".join(line + b"\r\n" for line in lines)
        script = Script(**more).client(b"GET / HTTP/1.1\r\nHost: shop\r\n" + head + b"\r\n")
        return script.connect().sent

    def test_identity(self):
        sent = self.sent()
        self.assertEqual(field(sent, b"x-auth-email"), [b"alice@example.org"])
        self.assertEqual(field(sent, b"x-auth-subject"), [b"alice@example.org"])
        self.assertEqual(field(sent, b"x-forwarded-for"), [b"100.64.0.2"])
        self.assertEqual(field(sent, b"x-forwarded-proto"), [b"http"])
        self.assertEqual(field(sent, b"x-forwarded-host"), [b"shop"])
        self.assertEqual(field(sent, b"host"), [HOST])

    def test_a_service_account_has_no_email(self):
        sent = self.sent(subject=Subject("", service_account="ci"))
        self.assertEqual(field(sent, b"x-auth-email"), [])
        self.assertEqual(field(sent, b"x-auth-subject"), [b"ci"])

    def test_a_user_cannot_break_out_of_the_field(self):
        sent = self.sent(subject=Subject("a\r\nX-Admin: yes\r\n\x00é"))
        self.assertEqual(field(sent, b"x-admin"), [])
        self.assertEqual(len(field(sent, b"x-auth-email")), 1)

    def test_forged_fields_do_not_cross(self):
        for name in FORGERIES.split():
            with self.subTest(name):
                sent = self.sent(name.encode() + b": evil", name.encode() + b": evil")
                self.assertNotIn(b"evil", sent)

    def test_forged_fields_do_not_cross_as_trailers(self):
        for name in FORGERIES.split():
            script = Script(headers=[(b"X-Key", b"k")]).client(
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
                + name.encode()
                + b": evil\r\nX_Key: evil\r\nContent-Length: 7\r\nHost: evil\r\nX-Sum: 5\r\n\r\n"
            )
            self.assertTrue(script.connect().sent.endswith(b"\r\n\r\n0\r\nX-Sum: 5\r\n\r\n"))

    def test_ours_cannot_be_named_in_connection(self):
        sent = self.sent(b"Connection: x-auth-email, x-forwarded-for, host, close")
        self.assertEqual(field(sent, b"x-auth-email"), [b"alice@example.org"])
        self.assertEqual(field(sent, b"host"), [HOST])

    def test_hop_by_hop_fields_do_not_cross(self):
        sent = self.sent(
            b"Connection: keep-alive, X-Mine",
            b"X-Mine: 1",
            b"Keep-Alive: 5",
            b"Proxy-Authorization: Basic eA==",
            b"Proxy-Connection: keep-alive",
            b"TE: gzip",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABk",
        ).lower()
        for name in (
            b"mine",
            b"keep-alive",
            b"proxy-",
            b"te:",
            b"upgrade",
            b"http2",
            b"connection",
        ):
            self.assertNotIn(b"\r\n" + name, sent)

    def test_other_fields_cross_as_they_are(self):
        lines = (
            b"Cookie: a=b; c=d",
            b"cookie: e=f",
            b"Authorization: Bearer x",
            b"X-Auth-Token: t",
        )
        sent = self.sent(*lines, b"Accept:  */*  ", b"X-\xc3\xa9: 1"[:2] + b"y: caf\xc3\xa9")
        for line in (*lines, b"Accept: */*", b"X-y: caf\xc3\xa9"):
            self.assertIn(b"\r\n" + line + b"\r\n", sent)

    def test_configured_fields_replace_the_clients(self):
        sent = self.sent(b"x_api_key: evil", b"X-API-Key: evil", headers=[(b"X-Api-Key", b"good")])
        self.assertEqual(field(sent, b"x-api-key"), [b"good"])
        self.assertNotIn(b"evil", sent)

    def test_te_trailers_crosses(self):
        sent = self.sent(b"TE: trailers, gzip", b"Connection: TE")
        self.assertEqual(field(sent, b"te"), [b"trailers"])
        self.assertEqual(field(sent, b"connection"), [b"TE"])

    def test_an_absolute_target_becomes_a_path(self):
        script = Script().client(b"GET http://other:81?q HTTP/1.1\r\nHost: shop\r\n\r\n").connect()
        self.assertTrue(script.sent.startswith(b"GET /?q HTTP/1.1\r\n"))
        self.assertEqual(field(script.sent, b"x-forwarded-host"), [b"other:81"])

    def test_an_answers_fields(self):
        script = (
            Script()
            .client(GET)
            .connect()
            .service(
                b"HTTP/1.1 302 Found\r\nLocation: http://elsewhere/\r\n"
                b"Set-Cookie: a\r\nset-cookie: b\r\n"
                b"Connection: X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n"
            )
        )
        self.assertEqual(field(script.got, b"location"), [b"http://elsewhere/"])
        self.assertEqual(field(script.got, b"set-cookie"), [b"a", b"b"])
        for name in (b"connection", b"x-mine", b"keep-alive"):
            self.assertEqual(field(script.got, name), [])


class Bodies(SynchronousTestCase):
    def test_a_length(self):
        script = Script().client(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab")
        self.assertEqual(script.sent, b"")
        script.connect().client(b"cde").service(OK)
        self.assertTrue(script.sent.endswith(b"\r\n\r\nabcde"))
        record = script.records[0]
        self.assertEqual((record.status, record.bytes_in, record.bytes_out), (200, 5, 2))

    def test_pieces_pass_at_once(self):
        script = Script().client(GET).connect()
        script.service(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        script.got = b""
        script.service(b"9\r\ndata: ")
        self.assertEqual(script.got, b"6\r\ndata: \r\n")
        script.service(b"1\n")
        self.assertTrue(script.got.endswith(b"2\r\n1\n\r\n"))

    def test_a_body_that_ends_with_the_connection_is_chunked(self):
        script = Script().client(GET * 2).connect().service(b"HTTP/1.0 200 OK\r\n\r\nabc")
        script.service_ends()
        self.assertTrue(script.got.endswith(b"3\r\nabc\r\n0\r\n\r\n"))
        self.assertEqual((script.releases, script.dials), (1, 2))
        self.assertFalse(script.session.closing)

    def test_http_1_0_gets_no_chunks(self):
        script = Script().client(b"GET / HTTP/1.0\r\n\r\n").connect()
        script.service(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        self.assertTrue(script.got.endswith(b"Connection: close\r\n\r\nabc"), script.got)
        self.assertEqual(script.session.closing, LINGER)

    def test_trailers_cross(self):
        script = Script().client(GET).connect()
        head = b"HTTP/1.1 200 OK\r\nTrailer: Sum\r\nTransfer-Encoding: chunked\r\n\r\n"
        script.service(head + b"3\r\nabc\r\n0\r\nSum: 5\r\n\r\n", 1)
        self.assertTrue(script.got.endswith(b"\r\n0\r\nSum: 5\r\n\r\n"))
        self.assertEqual(field(script.got, b"trailer"), [b"Sum"])

    def test_answers_without_a_body(self):
        for request, answer in (
            (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"),
            (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"),
        ):
            script = Script().client(GET.replace(b"GET", request)).connect().service(answer)
            self.assertEqual(len(script.records), 1)
            self.assertFalse(script.session.closing)
            self.assertTrue(script.got.endswith(b"\r\n\r\n"))

    def test_continue(self):
        script = Script().client(
            b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        script.connect()
        self.assertEqual(field(script.sent, b"expect"), [b"100-continue"])
        self.assertEqual(script.got, b"")
        script.service(b"HTTP/1.1 100 Continue\r\n\r\n").client(b"ab").service(OK)
        self.assertEqual(script.got[:25], b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertIn(b"HTTP/1.1 200 OK", script.got)

    def test_an_early_answer_ends_the_connection(self):
        script = Script().client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nab")
        script.connect().service(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        self.assertEqual((script.status(), script.session.closing), (413, LINGER))
        self.assertEqual(field(script.got, b"connection"), [b"close"])
        self.assertEqual(script.releases, 1)


class Connections(SynchronousTestCase):
    def test_requests_in_a_row_use_one_connection(self):
        script = Script().client(GET).connect().service(OK).client(GET).service(OK)
        self.assertEqual((script.dials, script.releases, len(script.records)), (1, 0, 2))

    def test_pipelined_requests_wait(self):
        script = Script().client(GET * 3).connect()
        self.assertEqual(script.sent.count(b"GET"), 1)
        script.service(OK)
        self.assertEqual(script.sent.count(b"GET"), 2)
        script.service(OK).service(OK)
        self.assertEqual(script.got.count(b"200 OK"), 3)

    def test_too_much_behind_a_request_holds_the_client(self):
        script = Script().client(GET + b"x" * 70000)
        self.assertTrue(script.session.full)

    def test_the_service_closes_an_idle_connection(self):
        script = Script().client(GET).connect().service(OK).service_ends()
        self.assertEqual(script.releases, 1)
        script.client(GET).connect().service(OK)
        self.assertEqual((script.dials, len(script.records)), (2, 2))

    def test_a_get_that_meets_the_close_is_repeated_once(self):
        script = Script().client(GET).connect().service(OK).client(GET).service_ends()
        self.assertEqual((script.dials, script.got.count(b"HTTP/1.1")), (2, 1))
        script.connect().service_ends()
        self.assertIn(b"HTTP/1.1 502 ", script.got)

    def test_a_post_is_never_repeated(self):
        post = GET.replace(b"GET", b"POST")
        script = Script().client(post).connect().service(OK).client(post).service_ends()
        self.assertEqual(script.dials, 1)
        self.assertIn(b"HTTP/1.1 502 ", script.got)

    def test_a_post_gets_a_new_connection_after_a_pause(self):
        script = Script().client(GET).connect().service(OK).wait(2)
        script.client(GET.replace(b"GET", b"POST"))
        self.assertEqual((script.releases, script.dials), (1, 2))

    def test_connection_close(self):
        script = Script().client(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        script.connect().service(OK)
        self.assertEqual((script.session.closing, script.releases), (LINGER, 1))
        script = Script().client(GET).connect()
        script.service(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertEqual((script.session.closing, script.releases), ("", 1))

    def test_the_client_half_closes(self):
        script = Script().client(GET).connect().client_ends().service(OK)
        self.assertTrue(script.got.endswith(b"hi"))
        self.assertEqual(script.session.closing, LINGER)
        script = Script().client(GET).connect().client_ends().wait(HALF_CLOSED_SECONDS)
        self.assertEqual((script.session.closing, script.releases), (NOW, 1))
        self.assertEqual((script.records[0].status, script.records[0].result), (499, "failed"))

    def test_the_client_leaves_in_a_request(self):
        script = Script().client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")
        script.connect().client_ends()
        self.assertEqual((script.session.closing, script.releases), (NOW, 1))


class Failures(SynchronousTestCase):
    def test_unreachable(self):
        script = Script().client(GET * 2)
        script.session.upstream_failed(502, "the service refuses connections", script.now)
        script.settle()
        self.assertEqual((script.status(), script.dials), (502, 2))
        self.assertIn(b"The service refuses connections.", script.got)
        record = script.records[0]
        self.assertEqual((record.status, record.result), (502, "failed"))

    def test_too_slow(self):
        script = Script().client(GET).connect().wait(ANSWER_SECONDS)
        self.assertEqual((script.status(), script.releases), (504, 1))

    def test_a_slow_client(self):
        script = Script().wait(HEAD_SECONDS)
        self.assertEqual((script.session.closing, script.got), (NOW, b""))
        script = Script().client(b"GET / HT").wait(HEAD_SECONDS)
        self.assertEqual(script.status(), 408)
        script = Script().client(GET).connect().service(OK).wait(IDLE_SECONDS)
        self.assertEqual(script.session.closing, NOW)
        script = Script().client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab")
        script.connect().wait(BODY_SECONDS)
        self.assertEqual((script.status(), script.releases), (408, 1))

    def test_pipelined_bytes_do_not_shorten_the_answer(self):
        script = Script().client(GET).connect().client(GET).wait(HEAD_SECONDS + 1)
        self.assertEqual(script.got, b"")

    def test_a_stream_may_be_silent(self):
        script = Script().client(GET).connect()
        script.service(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").wait(100_000)
        self.assertFalse(script.session.closing)

    def test_a_body_that_breaks_off(self):
        script = Script().client(GET).connect()
        script.service(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab").service_ends()
        self.assertEqual((script.session.closing, script.records[0].result), (NOW, "failed"))
        script = Script().client(GET).connect()
        script.service(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab"
        ).service_ends()
        self.assertEqual(script.session.closing, NOW)
        self.assertFalse(script.got.endswith(b"0\r\n\r\n"))
        script = Script().client(b"GET / HTTP/1.0\r\n\r\n").connect()
        script.service(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab"
        ).service_ends()
        self.assertEqual(script.session.closing, ABORT)

    def test_a_refusal(self):
        refusal = Refusal("eng", "condition.who.group", 'policy "eng" does not apply')
        script = Script(refusal=refusal).client(GET)
        self.assertEqual((script.status(), script.dials), (403, 0))
        for words in (b"eng", b"condition.who.group", b"does not apply"):
            self.assertIn(words, script.got)
        page = GET.replace(b"\r\n\r\n", b"\r\nAccept: text/html,*/*\r\n\r\n")
        evil = Refusal("<b>", "", "<script>")
        script = Script(refusal=evil).client(page)
        self.assertEqual(field(script.got, b"content-type"), [b"text/html; charset=utf-8"])
        self.assertNotIn(b"<script>", script.got)


class Upgrades(SynchronousTestCase):
    ASK = (
        b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
        b"Upgrade: websocket\r\n\r\n"
    )
    SWITCH = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    )

    def test_bytes_pass(self):
        script = Script().client(self.ASK + b"early").connect()
        self.assertEqual(field(script.sent, b"upgrade"), [b"websocket"])
        self.assertEqual(field(script.sent, b"connection"), [b"Upgrade"])
        self.assertFalse(script.sent.endswith(b"early"))
        script.service(self.SWITCH + b"hello")
        self.assertTrue(script.sent.endswith(b"early"))
        self.assertTrue(script.got.endswith(b"\r\n\r\nhello"))
        self.assertEqual(field(script.got, b"connection"), [b"Upgrade"])
        script.client(b"\x81\x00GET / HTTP/1.1\r\n").service(b"\x82")
        self.assertTrue(script.sent.endswith(b"GET / HTTP/1.1\r\n"))
        script.service_ends()
        record = script.records[0]
        self.assertEqual((record.status, record.result, record.bytes_out), (101, "ok", 6))
        self.assertEqual(record.bytes_in, 23)

    def test_refused_by_the_service(self):
        script = Script().client(self.ASK + GET).connect().service(OK).service(OK)
        self.assertEqual(script.got.count(b"200 OK"), 2)

    def test_http_2_without_tls_is_not_asked_for(self):
        for name in (b"h2c", b"H2C", b"websocket, h2c", b"TLS/1.0"):
            script = Script().client(self.ASK.replace(b"websocket", name)).connect()
            self.assertEqual(field(script.sent, b"upgrade"), [])
            script.service(self.SWITCH)
            self.assertEqual(script.status(), 502)

    def test_half_close(self):
        script = Script().client(self.ASK).connect().service(self.SWITCH).client_ends()
        self.assertTrue(script.session.end_upstream)
        script.service(b"last")
        self.assertTrue(script.got.endswith(b"last"))
