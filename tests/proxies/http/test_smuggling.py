"""Requests that two readers could understand differently reach no service."""

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.proxies.http.script import Script

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "http" / "requests.json").read_text("utf-8")
)
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Requests(SynchronousTestCase):
    def test_vectors(self):
        for vector in VECTORS["vectors"]:
            request = vector["request"].encode("latin-1")
            for piece in (0, 1):
                with self.subTest(vector["name"], piece=piece):
                    script = Script().client(request, piece)
                    if vector["status"]:
                        self.assertEqual(script.status(), vector["status"], script.got)
                        self.assertEqual((script.dials, script.sent), (0, b""))
                        self.assertTrue(script.session.closing)
                        self.assertEqual(script.records[0].result, "failed")
                    else:
                        self.assertEqual(script.dials, 1)
                        script.connect().service(OK)
                        self.assertEqual(script.status(), 200)

    def test_bodies(self):
        for vector in VECTORS["bodies"]:
            for piece in (0, 1):
                with self.subTest(vector["name"], piece=piece):
                    script = Script().client(CHUNKED).connect()
                    script.client(vector["body"].encode("latin-1"), piece)
                    self.assertEqual(script.status(), 400)
                    self.assertEqual(script.releases, 1)
                    self.assertNotIn(b"\r\n0\r\n", script.sent)

    def test_heads_have_a_limit(self):
        for head, status in (
            (b"GET /" + b"a" * 70000, 431),
            (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n", 414),
            (b"GET / HTTP/1.1\r\nX: " + b"a" * 70000, 431),
            (b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 300, 431),
            (b"GET / HTTP/1.1\r\n" + (b"X: " + b"a" * 1000 + b"\r\n") * 70, 431),
        ):
            for piece in (0, 997):
                script = Script().client(head, piece)
                self.assertEqual((script.status(), script.dials), (status, 0))
        script = Script().client(CHUNKED).connect().client(b"3;" + b"a" * 2000)
        self.assertEqual(script.status(), 400)
        script = Script().client(CHUNKED).connect().client(b"0\r\n" + b"a: b\r\n" * 4000)
        self.assertEqual(script.status(), 431)

    def test_what_is_sent_on_has_one_framing(self):
        script = Script().client(CHUNKED + b"3;x=y\r\nabc\r\n0\r\nX: y\r\n\r\n").connect()
        self.assertTrue(script.sent.endswith(b"3\r\nabc\r\n0\r\nX: y\r\n\r\n"), script.sent)
        self.assertEqual(script.sent.lower().count(b"transfer-encoding"), 1)
        self.assertNotIn(b"content-length", script.sent.lower())
        script = Script()
        script.client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0003\r\n\r\nabcGET").connect()
        self.assertIn(b"Content-Length: 3\r\n", script.sent)
        self.assertTrue(script.sent.endswith(b"\r\n\r\nabc"))


class Answers(SynchronousTestCase):
    def test_a_malformed_answer_is_a_502(self):
        for answer in (
            b"nonsense\r\n",
            b"SSH-2.0-OpenSSH\r\n",
            b"HTTP/2.0 200 OK\r\n",
            b"HTTP/1.1 20 OK\r\n",
            b"HTTP/1.1 200 OK\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n" * 40,
            b"HTTP/1.1 200 OK\r\nA: " + b"a" * 70000,
        ):
            for piece in (0, 1):
                with self.subTest(answer[:40], piece=piece):
                    script = Script().client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").connect()
                    script.service(answer, piece)
                    final = script.got.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
                    self.assertTrue(final.startswith(b"HTTP/1.1 502 "), final[:80])
                    self.assertEqual(script.releases, 1)
                    self.assertNotIn(b"nonsense", script.got)

    def test_bytes_behind_an_answer_are_not_the_next_one(self):
        evil = OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        script = Script().client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2).connect()
        script.service(evil)
        self.assertEqual((script.releases, script.dials), (1, 2))
        self.assertNotIn(b"evil", script.got)
        script.connect().service(OK)
        self.assertEqual(script.got.count(b"200 OK"), 2)

    def test_bytes_that_nobody_asked_for(self):
        script = Script().client(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").connect().service(OK)
        script.service(OK)
        self.assertEqual(script.releases, 1)
        self.assertEqual(script.got.count(b"200 OK"), 1)
