"""curl and a browser's WebSocket through the tunnel, to a real service and to the file server."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import children
from tests.support.connector import http, http_files, policy
from tests.support.counterparts import requires
from tests.support.stage import STRANGER, Stage, shared

WEB, SOCKET, FILES, DENIED, GONE, TRAP = (f"100.126.0.{number}" for number in range(1, 7))
HTTP_PORT, WEBSOCKET_PORT = 8001, 8002
COUNTERPARTS = ("namespaces", "tun", "wg", "wireguard-go", "curl", "websockets")
ENG = {"who": {"group": ["eng"]}}
MEGABYTE = 1 << 20
FORGED = (
    "X-Auth-Email x-auth-email X_Auth_Email X-AUTH-EMAIL X-Auth-Subject X-Auth-Name X_Auth_Name "
    "X-Forwarded-For X_Forwarded_For Forwarded X-Forwarded-User X-Real-IP Remote-User"
)


class Web(Stage):
    """A service, a folder, and a socket for each question."""

    def __init__(self):
        super().__init__()
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise

    def prepare(self):
        self.folder = Path(tempfile.mkdtemp(prefix="border0-web-"))
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.folder.chmod(0o755)
        self.root = self.folder / "root"
        (self.root / "docs").mkdir(parents=True)
        (self.root / "a.txt").write_text("0123456789")
        (self.root / ".env").write_text("hidden")
        (self.root / "out").symlink_to("../secret")
        (self.root / "<img src=x>.txt").write_text("x")
        (self.folder / "secret").write_text("secret")
        with open(self.root / "large", "wb") as large:
            large.truncate(200 * MEGABYTE)
        program = Path(__file__).with_name("http_upstream.py")
        self.upstream = self.server.spawn(
            [sys.executable, str(program), str(HTTP_PORT), str(WEBSOCKET_PORT)],
            output=self.folder / "upstream.log",
        )
        self._stack.callback(children.end, self.upstream)
        self.trap = self.keep(self.listener(), "close")
        self.trap.setblocking(False)
        trap = self.trap.getsockname()[1]
        self.run_connector(
            {
                "local": {"allow": ["connector_file_server"]},
                "policy": [
                    policy("eng-web", {"http": {}}, ENG),
                    policy("finance-only", {"http": {}}, {"who": {"group": ["finance"]}}),
                ],
                "socket": [
                    http("web", 1, HTTP_PORT, ["eng-web"], headers=[
                        {"key": "X-Api-Key", "value": "from:env:API_KEY"}]),
                    http("socket", 2, WEBSOCKET_PORT, ["eng-web"], host_header="ws.internal"),
                    http_files("files", 3, self.root, ["eng-web"]),
                    http("denied", 4, trap, ["finance-only"]),
                    http("gone", 5, 1, ["eng-web"]),
                    http("trap", 6, trap, ["eng-web"]),
                ],
            },
            environment={"API_KEY": "canary-api-key"},
        )  # fmt: skip
        self.wait_for_upstream()

    def wait_for_upstream(self):
        def listening():
            for port in (HTTP_PORT, WEBSOCKET_PORT):
                with self.server.inside():
                    import socket

                    try:
                        socket.create_connection(("127.0.0.1", port), 1).close()
                    except OSError:
                        return False
            return True

        children.wait_until(listening, 20, "the service listens")

    def curl(self, *words, timeout=120, input=b""):
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        return self.client.run(
            ["curl", "-sS", "--max-time", "100", *words],
            user=STRANGER,
            timeout=timeout,
            input=input,
            environment=environment,
        )

    def trapped(self):
        try:
            self.trap.accept()[0].close()
        except BlockingIOError:
            return False
        return True


class WebCase(SynchronousTestCase):
    timeout = 120

    def setUp(self):
        self.stage = shared(Web)

    def curl(self, *words, **options):
        done = self.stage.curl(*words, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def facts(self, *words, host=WEB, path="/facts"):
        return json.loads(self.curl(*words, f"http://{host}{path}"))

    def headers(self, *words):
        return [(name.lower(), value) for name, value in self.facts(*words)["headers"]]


@requires(*COUNTERPARTS)
class Proxy(WebCase):
    def test_the_service_learns_who_asks(self):
        headers = dict(self.headers())
        self.assertEqual(headers["x-auth-email"], "alice@example.org")
        self.assertEqual(headers["x-forwarded-for"], "100.64.0.2")
        self.assertEqual(headers["x-forwarded-host"], WEB)
        self.assertEqual(headers["host"], f"127.0.0.1:{HTTP_PORT}")
        self.assertEqual(headers["x-api-key"], "canary-api-key")

    def test_over_ipv6(self):
        facts = self.facts("-g", host="[fd62:6f72:6465:7231::1]")
        self.assertIn(["X-Forwarded-For", "fd62:6f72:6465:7230::2"], facts["headers"])

    def test_forged_fields(self):
        words = [word for name in FORGED.split() for word in ("-H", f"{name}: evil@example.org")]
        headers = self.headers(*words, "-H", "X_Api_Key: evil@example.org", "-H",
                               "Connection: x-auth-email")  # fmt: skip
        self.assertNotIn("evil@example.org", str(headers))
        names = [name for name, _ in headers]
        for name in ("x-auth-email", "x-auth-subject", "x-forwarded-for", "x-api-key"):
            self.assertEqual(names.count(name), 1, name)

    def test_methods_and_statuses(self):
        self.assertEqual(self.facts("-X", "DELETE")["method"], "DELETE")
        self.assertEqual(self.curl("-I", f"http://{WEB}/x").split()[1], "200")
        words = ("-o", "/dev/null", "-w", "%{http_code} %{redirect_url}")
        done = self.curl(*words, f"http://{WEB}/redirect")
        self.assertEqual(done, "302 http://elsewhere.example/x")
        self.assertEqual(self.curl("-w", "%{http_code}", f"http://{WEB}/empty"), "204")
        self.assertEqual(self.curl(f"http://{WEB}/until-close"), "until the end")
        self.assertEqual(self.curl("--http1.0", f"http://{WEB}/until-close"), "until the end")

    def test_many_requests_on_one_connection(self):
        urls = [f"http://{WEB}/{number}" for number in range(50)]
        words = [word for url in urls for word in ("-o", "/dev/null", url)]
        done = self.curl("-w", "%{num_connects}\n", *words)
        self.assertEqual(done.split().count("1"), 1)
        record = self.stage.connector.wait_for_record(type="http.request", path="/49")
        lines = self.stage.connector.recordings()[record["session"]]
        requests = [line for line in lines if line["type"] == "http.request"]
        self.assertEqual([line["path"] for line in requests], [f"/{n}" for n in range(50)])
        self.assertEqual(record["actor"]["user"], "alice@example.org")
        self.assertEqual((record["method"], record["status"]), ("GET", 200))

    def test_events_are_not_held_back(self):
        words = [sys.executable, "-c", READ_EVENTS, WEB]
        done = self.stage.client.run(words, timeout=60)
        delays = [float(line) for line in done.stdout.split()]
        self.assertEqual(len(delays), 3, done.stderr)
        # Each event is 0.3 s before the next; held back, the first would come 0.6 s late.
        self.assertLess(max(delays), 0.28)

    def test_uploads(self):
        file = self.stage.folder / "upload"
        data = os.urandom(3 * MEGABYTE)
        file.write_bytes(data)
        expected = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for words in (("-T", str(file)), ("-T", str(file), "-H", "Transfer-Encoding: chunked"),
                      ("-T", str(file), "-H", "Expect: 100-continue"),
                      ("-T", str(file), "-H", "Expect:")):  # fmt: skip
            self.assertEqual(json.loads(self.curl(*words, f"http://{WEB}/up")), expected)
        status = self.stage.curl("-o", "/dev/null", "-w", "%{http_code}", "-T", str(file),
                                 f"http://{WEB}/refuse").stdout  # fmt: skip
        self.assertEqual(status, "413")

    def test_large_bodies_leave_memory_flat(self):
        connector = self.stage.connector
        size = 200 * MEGABYTE
        self.curl("-o", "/dev/null", f"http://{WEB}/download?{MEGABYTE}")
        before = connector.memory("VmHWM")
        got = self.curl(
            "-o", "/dev/null", "-w", "%{size_download}", f"http://{WEB}/download?{size}"
        )
        self.assertEqual(int(got), size)
        answer = json.loads(self.curl("-T", str(self.stage.root / "large"), f"http://{WEB}/up"))
        self.assertEqual(answer["size"], size)
        self.assertLess(connector.memory("VmHWM") - before, 24 * MEGABYTE)

    def test_a_refused_user(self):
        self.stage.trapped()
        got = self.curl("-w", "%{http_code}", f"http://{DENIED}/secret")
        self.assertTrue(got.endswith("403"))
        for words in ("finance-only", "condition.who"):
            self.assertIn(words, got)
        self.assertFalse(self.stage.trapped(), "an upstream connection was opened")
        line = self.stage.connector.wait_for_audit(socket="denied", result="denied")
        self.assertEqual(line["policy"], "finance-only")

    def test_a_missing_service(self):
        got = self.curl("-w", "%{http_code}", f"http://{GONE}/")
        self.assertTrue(got.endswith("502"), got)
        self.assertIn("refuses connections", got)

    def test_garbage_reaches_no_service(self):
        self.stage.trapped()
        for data in (b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                     b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked"
                     b"\r\n\r\n0\r\n\r\n"):  # fmt: skip
            with self.stage.dial(TRAP, 80) as stream:
                stream.sendall(data)
                answer = b""
                while part := stream.recv(65536):
                    answer += part
            self.assertRegex(answer, rb"^HTTP/1.1 (400|505) ")
        self.assertFalse(self.stage.trapped())

    def test_no_secret_in_records(self):
        self.facts()
        self.stage.connector.wait_for_record(type="http.request")
        for file in self.stage.connector.state.rglob("*.jsonl"):
            self.assertNotIn("canary", file.read_text())
        self.assertNotIn("canary", self.stage.connector.log())


READ_EVENTS = """
import socket, sys, time
stream = socket.create_connection((sys.argv[1], 80), 20)
stream.sendall(b"GET /events HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
rest = b""
while data := stream.recv(65536):
    rest += data
    while b"\\n\\n" in rest:
        event, _, rest = rest.partition(b"\\n\\n")
        print(time.time() - float(event.split()[-1]))
"""
TALK = """
import json, os, sys
from websockets.sync.client import connect
with connect(f"ws://{sys.argv[1]}/chat", additional_headers={"X-Auth-Email": "evil"},
             origin="http://shop", max_size=None) as ws:
    print(ws.recv())
    for message in ("hello", os.urandom(3_000_000), "x" * 100_000):
        ws.send(message)
        assert ws.recv() == message
    ws.ping().wait(10)
"""


@requires(*COUNTERPARTS)
class WebSocket(WebCase):
    def test_messages_both_ways(self):
        done = self.stage.client.run([sys.executable, "-c", TALK, SOCKET], timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        headers = {name.lower(): value for name, value in json.loads(done.stdout).items()}
        self.assertEqual(headers["x-auth-email"], "alice@example.org")
        self.assertEqual(headers["host"], "ws.internal")
        record = self.stage.connector.wait_for_record(type="http.request", path="/chat")
        self.assertEqual((record["status"], record["result"]), (101, "ok"))
        self.assertGreater(record["bytes_in"], 3_000_000)


@requires(*COUNTERPARTS)
class Files(WebCase):
    def test_listing(self):
        page = self.curl(f"http://{FILES}/")
        for name in ("a.txt", "docs/", "&lt;img src=x&gt;.txt"):
            self.assertIn(name, page)
        for name in (".env", "<img", "<script"):
            self.assertNotIn(name, page)

    def test_files(self):
        self.assertEqual(self.curl(f"http://{FILES}/a.txt"), "0123456789")
        self.assertEqual(self.curl("-r", "2-4", f"http://{FILES}/a.txt"), "234")
        head = self.curl("-I", f"http://{FILES}/a.txt")
        tag = next(line.split()[1] for line in head.splitlines() if line.startswith("ETag"))
        code = ("-o", "/dev/null", "-w", "%{http_code}")
        self.assertEqual(self.curl(*code, "-H", f"If-None-Match: {tag}",
                                   f"http://{FILES}/a.txt"), "304")  # fmt: skip
        self.assertEqual(self.curl(*code, "-r", "100-", f"http://{FILES}/a.txt"), "416")
        self.assertEqual(self.curl(*code, "-X", "DELETE", f"http://{FILES}/a.txt"), "405")
        self.assertEqual(self.curl("-L", *code, f"http://{FILES}/docs"), "200")
        record = self.stage.connector.wait_for_record(type="http.request", path="/a.txt")
        self.assertEqual(record["actor"]["user"], "alice@example.org")

    def test_no_way_out(self):
        for path in ("/../secret", "/docs/../../secret", "/%2e%2e/secret", "/..%2fsecret",
                     "/%2e%2e%2fsecret", "/..%5csecret", "//secret", "/out", "/.env", "/%2eenv",
                     "/a.txt%00", "/docs/..;/secret", "/./a.txt", "/..\\secret"):  # fmt: skip
            got = self.curl("--path-as-is", "-w", "%{http_code}", f"http://{FILES}{path}")
            self.assertIn(got[-3:], ("404", "400"), path)
            self.assertNotIn("secret", got)
            self.assertNotIn("hidden", got)

    def test_a_large_file_leaves_memory_flat(self):
        connector = self.stage.connector
        self.curl(f"http://{FILES}/a.txt")
        before = connector.memory("VmHWM")
        got = self.curl("-o", "/dev/null", "-w", "%{size_download}", f"http://{FILES}/large")
        self.assertEqual(int(got), 200 * MEGABYTE)
        self.assertLess(connector.memory("VmHWM") - before, 16 * MEGABYTE)
