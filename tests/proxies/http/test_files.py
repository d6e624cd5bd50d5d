"""The file server: what a path may name, what is answered, and that nothing outside is opened."""

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.http import files
from border0.proxies.http.adapters.disk import entries, open_below
from border0.proxies.http.limits import ABORT, LINGER
from border0.proxies.http.requests import RequestSession
from border0.proxies.http.wire import HttpError, RequestHead

FILE = files.File(b"a.txt", 100, 1_700_000_000_000_000_000)
SINCE = b"Tue, 14 Nov 2023 22:13:20 GMT"
TRICKS = (
    b"/../secret /a/../../secret /%2e%2e/secret /%2E%2E/secret /.%2e/secret /..%2fsecret "
    b"/%2e%2e%2fsecret /..%5csecret /..\\secret /a%2f..%2f..%2fsecret //secret /a//b /./a /%2e/a "
    b"/a/. /a/.. /.hidden /%2ehidden /a/.git/config /.. /%2f /%5c /C:%5csecret /%c0%ae%c0%ae/secret"
).split()


def head(*lines, method=b"GET"):
    request = RequestHead(method, b"/a.txt", 1)
    request.fields = [tuple(part.strip() for part in line.split(b":", 1)) for line in lines]
    return request


class Paths(SynchronousTestCase):
    def test_plain(self):
        self.assertEqual(files.path_of(b"/"), ([], True))
        self.assertEqual(files.path_of(b"/a/b%20c?x=/../"), ([b"a", b"b c"], False))
        self.assertEqual(files.path_of(b"/%C3%A9/"), (["é".encode()], True))
        self.assertEqual(files.path_of(b"/a..b/...c"[:5]), ([b"a..b"], False))

    def test_tricks(self):
        for path in TRICKS:
            if path == b"/%c0%ae%c0%ae/secret":
                continue  # no UTF-8, and no way up: a name like any other
            with self.subTest(path):
                error = self.assertRaises(HttpError, files.path_of, path)
                self.assertEqual(error.status, 404)
        for path in (b"/a%00b", b"/%0a", b"/%7f", b"/%", b"/%4", b"/%zz", b"/a%2"):
            self.assertEqual(self.assertRaises(HttpError, files.path_of, path).status, 400)

    @settings(max_examples=500, derandomize=True, database=None, deadline=None)
    @given(
        st.lists(
            st.sampled_from([b"..", b"%2e", b"/", b"%2f", b"a", b"\\", b"%5c", b"%00", b"~"]),
            max_size=8,
        )
    )
    def test_no_path_leaves(self, parts):
        try:
            segments, _ = files.path_of(b"/" + b"".join(parts))
        except HttpError:
            return
        for segment in segments:
            self.assertNotIn(b"/", segment)
            self.assertNotIn(segment, (b"", b".", b".."))


class Answers(SynchronousTestCase):
    def part(self, value, *more):
        answer = files.answer(head(b"Range: " + value, *more), FILE)
        return answer.status, answer.start, answer.length

    def test_ranges(self):
        self.assertEqual(self.part(b"bytes=0-9"), (206, 0, 10))
        self.assertEqual(self.part(b"bytes=90-"), (206, 90, 10))
        self.assertEqual(self.part(b"bytes=90-1000"), (206, 90, 10))
        self.assertEqual(self.part(b"bytes=-10"), (206, 90, 10))
        self.assertEqual(self.part(b"bytes=-1000"), (206, 0, 100))
        for outside in (b"bytes=100-", b"bytes=100-200", b"bytes=-0"):
            self.assertEqual(self.part(outside)[0], 416)
        for other in (b"bytes=9-0", b"lines=0-9", b"bytes=", b"bytes=0-1,3-4", b"bytes=a-b"):
            self.assertEqual(self.part(other), (200, 0, 100))

    def test_if_range(self):
        tag = files.etag(FILE)
        self.assertEqual(self.part(b"bytes=0-9", b"If-Range: " + tag)[0], 206)
        self.assertEqual(self.part(b"bytes=0-9", b"If-Range: " + SINCE)[0], 206)
        self.assertEqual(self.part(b"bytes=0-9", b'If-Range: "other"')[0], 200)

    def test_conditions(self):
        tag = files.etag(FILE)
        for line, status in (
            (b"If-None-Match: " + tag, 304),
            (b'If-None-Match: "x", W/' + tag, 304),
            (b"If-None-Match: *", 304),
            (b'If-None-Match: "x"', 200),
            (b"If-Modified-Since: " + SINCE, 304),
            (b"If-Modified-Since: Tue, 14 Nov 2023 22:13:19 GMT", 200),
            (b"If-Modified-Since: never", 200),
            (b"If-Modified-Since: Tue, 99 Nov 99999999999 22:13:20 GMT", 200),
        ):
            self.assertEqual(files.answer(head(line), FILE).status, status, line)

    def test_types(self):
        for name, kind in (
            (b"a.html", b"text/html; charset=utf-8"),
            (b"a.css", b"text/css; charset=utf-8"),
            (b"a.json", b"application/json; charset=utf-8"),
            (b"a.png", b"image/png"),
            (b"a.tar.gz", b"application/gzip"),
            (b"a.unheard-of", b"application/octet-stream"),
            (b"README", b"application/octet-stream"),
        ):
            self.assertEqual(files.content_type(name), kind)
        fields = files.answer(head(), FILE).fields
        self.assertIn((b"X-Content-Type-Options", b"nosniff"), fields)

    def test_a_listing_is_escaped(self):
        evil = b"<script>alert(1)</script>'\"&.txt"
        page = files.listing([b"<i>"], [files.Entry(evil, False, 1234567, 0.0)], True)
        self.assertNotIn(b"<script>", page)
        self.assertNotIn(b"<i>", page)
        self.assertIn(b'href="./%3Cscript%3E', page)
        self.assertIn(b"1.2 MB", page)
        self.assertIn(b"There are more", page)


class Disk(SynchronousTestCase):
    def setUp(self):
        self.base = Path(self.mktemp())
        self.root = self.base / "root"
        (self.root / "sub").mkdir(parents=True)
        (self.base / "secret").write_text("secret")
        (self.base / "rootlike").mkdir()
        (self.base / "rootlike" / "secret").write_text("secret")
        (self.root / "a.txt").write_text("inside")
        (self.root / ".hidden").write_text("hidden")
        (self.root / "sub" / "b.txt").write_text("inside")
        for name, target in (
            ("out", "../secret"),
            ("absolute", str((self.base / "secret").resolve())),
            ("folder-out", ".."),
            ("alike", "../rootlike"),
            ("in", "sub/b.txt"),
            ("folder-in", "sub"),
            ("loop", "loop"),
            ("gone", "nothing"),
        ):
            (self.root / name).symlink_to(target)
        os.mkfifo(self.root / "pipe")

    def read(self, *segments):
        opened = open_below(str(self.root), [part.encode() for part in segments])
        try:
            return "folder" if opened.folder else os.pread(opened.fd, 100, 0).decode()
        finally:
            os.close(opened.fd)

    def test_inside(self):
        self.assertEqual(self.read(), "folder")
        self.assertEqual(self.read("a.txt"), "inside")
        self.assertEqual(self.read("sub", "b.txt"), "inside")
        self.assertEqual(self.read("in"), "inside")
        self.assertEqual(self.read("folder-in", "b.txt"), "inside")

    def test_outside(self):
        before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
        for path in (
            ("out",),
            ("absolute",),
            ("folder-out",),
            ("folder-out", "secret"),
            ("alike",),
            ("alike", "secret"),
            ("loop",),
            ("gone",),
            ("pipe",),
            ("none",),
            ("a.txt", "x"),
            ("..",),
            ("..", "secret"),
            ("x" * 5000,),
            ("a\0b",),
        ):
            with self.subTest(path):
                error = self.assertRaises(HttpError, self.read, *path)
                self.assertEqual(error.status, 404)
        if before:
            self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_a_link_in_the_place_of_a_folder_is_not_followed(self):
        # What the path was when it was resolved is not what it is when it is opened.
        from border0.proxies.http.adapters import disk

        home = os.fsencode(self.root.resolve())
        error = self.assertRaises(
            OSError, disk._open_steps, home, [b"folder-out", b"secret"], b"secret"
        )
        self.assertIsNotNone(error)

    def test_entries(self):
        opened = open_below(str(self.root), [])
        self.addCleanup(os.close, opened.fd)
        found, cut = entries(opened)
        names = sorted(entry.name for entry in found)
        self.assertFalse(cut)
        for name in (b"a.txt", b"sub", b"in", b"folder-in"):
            self.assertIn(name, names)
        for name in (b".hidden", b"pipe", b"loop", b"gone"):
            self.assertNotIn(name, names)

    def test_the_folder_itself_may_be_a_link(self):
        link = self.base / "link"
        link.symlink_to("root")
        opened = open_below(str(link), [b"a.txt"])
        os.close(opened.fd)


class Machine(SynchronousTestCase):
    def talk(self, data, *answers, piece=0):
        session = RequestSession(0.0)
        parts = [data] if not piece else [data[i : i + piece] for i in range(0, len(data), piece)]
        queue = list(answers)
        for part in parts:
            session.receive(part, 0.0)
            while session.wanted is not None:
                answer = queue.pop(0)
                session.respond(200, [(b"Content-Length", b"%d" % len(answer))], len(answer), 0.0)
                if session.body_left:
                    session.to_client.append(answer)
                    session.body_sent(len(answer), 0.0)
        return session, b"".join(session.to_client)

    def test_requests_in_turn(self):
        get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for piece in (0, 1):
            session, got = self.talk(get + get.replace(b"GET", b"HEAD") + get, b"a", b"b", b"c",
                                     piece=piece)  # fmt: skip
            self.assertEqual(
                [got.count(b"200 OK"), got[-1:], got.count(b"\r\n\r\nb")], [3, b"c", 0]
            )
            self.assertEqual(session.closing, "")
            self.assertEqual([e.bytes_out for e in session.finished], [1, 0, 1])

    def test_methods(self):
        for method in (b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH"):
            request = method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
            _, got = self.talk(request + request.replace(method, b"GET"), b"a")
            self.assertTrue(got.startswith(b"HTTP/1.1 405 "))
            self.assertIn(b"Allow: GET, HEAD\r\n", got)
            self.assertIn(b"200 OK", got)
        _, got = self.talk(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        self.assertIn(b"Connection: close", got)

    def test_garbage(self):
        session, got = self.talk(b"\x16\x03\x01")
        self.assertEqual((got[:12], session.closing), (b"HTTP/1.1 400", LINGER))

    def test_a_file_that_shrinks(self):
        session = RequestSession(0.0)
        session.receive(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0.0)
        session.respond(200, [], 10, 0.0)
        session.body_sent(4, 0.0)
        session.body_sent(0, 0.0)
        self.assertEqual((session.closing, session.finished[0].result), (ABORT, "failed"))
