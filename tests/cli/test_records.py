"""`border0 session|audit|recording|device`: what a person sees, and what a script gets."""

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.audit.adapters.archive import Recording
from border0.audit.events import LOCAL_ORGANISATION, Actor
from border0.audit.sessionlog import SessionLog
from border0.cli import recording
from border0.errors import Border0Error
from border0.keys import encode_key, generate_private_key, public_key

PROGRAM = [sys.executable, "-m", "border0.cli.main"]
EVIL = "/x\x1b[31m\n\u202e" + "y" * 200


def run(*arguments, folder="."):
    environment = {**os.environ, "TZ": "Etc/GMT-2", "COLUMNS": "300", "PYTHONUTF8": "1"}
    environment["BORDER0_HOME"] = "no-account"
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        env=environment,
    )


class State(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp())
        self.state = self.folder / "state"
        self.day = self.state / "recordings" / "2026" / "11" / "22"
        self.day.mkdir(parents=True)
        (self.state / "audit").mkdir()
        self.at = 1_795_352_400.0  # 2026-11-22T13:00:00Z
        self.audit = b""
        self.first = self.session("web", 1, [("http.request", {"path": EVIL, "status": 200})])
        self.second = self.session("shell", 2, [("ssh.exec", {"command": "uptime"})], end=False)
        denied = json.loads(self.audit.splitlines()[0]) | {
            "result": "denied",
            "reason": "no clause",
        }
        denied["id"] = denied.pop("session")[:-4] + "ffff"
        self.audit += json.dumps(denied).encode() + b'\n{"torn": '
        (self.state / "audit" / "2026-11-22.jsonl").write_bytes(self.audit)
        (self.day / f"{self.second}.cast").write_text(
            '{"version": 2, "width": 80, "height": 24}\n[0.1, "o", "hello "]\n'
            '[5.0, "i", "typed"]\n[9.0, "o", "world\\r\\n"]\n[9.5, "o", "to'
        )

    def session(self, socket, number, events, end=True):
        log = SessionLog(
            org=LOCAL_ORGANISATION,
            actor=Actor("alice@example.org", "laptop", "192.0.2.7"),
            socket=socket,
            recorded=True,
            now=lambda: self.at,
            random=bytes([number]) * 20,
            wake=lambda log: None,
        )
        log.start(protocol="http")
        for kind, fields in events:
            log.event(kind, **fields)
        self.at += 62.0
        if end:
            log.end(10, 2_400_000, "closed")
        lines, audit, _ = log.take()
        (self.day / f"{log.id}.jsonl").write_text("".join(lines))
        self.audit += "".join(text for _, text in audit).encode()
        return log.id

    def ask(self, *arguments):
        done = run(*arguments, "--state", self.state)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for line in done.stdout.splitlines():
            if "--json" not in arguments:
                if not line.startswith("recording:"):  # a path is never cut
                    self.assertLessEqual(len(line), 100, line)
                self.assertTrue(line.isprintable(), line)
        return done.stdout

    def test_sessions(self):
        text = self.ask("session", "ls")
        lines = text.splitlines()
        self.assertEqual(len(lines), 4)
        for word in ("alice@example.org", "web", "1:02", "2.4 MB", "closed", self.first[-12:]):
            self.assertIn(word, text)
        self.assertIn("live", text)
        self.assertIn("denied: no clause", text)
        self.assertIn("2026-11-22 15:00:00", text)
        self.assertIn("2026-11-22 13:00:00", self.ask("session", "ls", "--utc"))
        found = [json.loads(x) for x in self.ask("session", "ls", "--json").splitlines()]
        self.assertEqual({item["status"] for item in found}, {"closed", "live", "denied"})
        self.assertEqual(len(self.ask("session", "ls", "--live").splitlines()), 2)
        self.assertEqual(len(self.ask("session", "ls", "--user", "bob").splitlines()), 1)
        self.assertEqual(len(self.ask("session", "ls", "-n", "1").splitlines()), 2)

    def test_one_session(self):
        for name in (self.first, self.first[-12:]):
            text = self.ask("session", "show", name)
            self.assertIn(self.first, text)
            self.assertIn("\\x1b[31m\\n\\u202e", text)
            self.assertIn("session.end", text)
        items = [
            json.loads(x) for x in self.ask("session", "show", self.first, "--json").splitlines()
        ]
        self.assertEqual(items[0]["session"], self.first)
        self.assertEqual(items[2]["path"], EVIL)
        self.assertEqual(run("session", "show", "nothing", "--state", self.state).returncode, 1)

    def test_audit(self):
        text = self.ask("audit", "ls")
        self.assertEqual(len(text.splitlines()), 5)
        self.assertIn("no clause", self.ask("audit", "ls", "--denied"))
        self.assertEqual(len(self.ask("audit", "ls", "--type", "session.end").splitlines()), 2)
        items = [json.loads(x) for x in self.ask("audit", "ls", "--json").splitlines()]
        self.assertEqual(len(items), 4)

    def test_recordings(self):
        text = self.ask("recording", "ls")
        self.assertEqual(len(text.splitlines()), 4)
        self.assertIn("cast", text)
        kinds = [json.loads(x)["kind"] for x in self.ask("recording", "ls", "--json").splitlines()]
        self.assertEqual(sorted(kinds), ["cast", "jsonl", "jsonl"])
        self.assertIn("\\x1b[31m", self.ask("recording", "play", self.first))
        played = run("recording", "play", self.second[-12:], "--state", self.state)
        self.assertEqual(played.stdout, "hello world\n")
        self.assertEqual(run("recording", "play", "../x", "--state", self.state).returncode, 1)
        self.assertEqual(
            run("recording", "play", self.first[:4], "--state", self.state).returncode, 1
        )
        self.assertEqual(run("recording", "play", "x", "--speed", "0").returncode, 2)

    def test_speed_and_idle_limit(self):
        path = self.day / f"{self.second}.cast"
        played = Recording(self.second, "cast", path, 0, 0.0)
        for speed, limit, expected in ((1.0, None, [0.1, 4.9, 4.0]), (2.0, 1.0, [0.05, 0.5, 0.5])):
            waits, out = [], []
            recording.run(played, speed, limit, out.append, lambda: None, True, waits.append)
            self.assertEqual([round(wait, 6) for wait in waits], expected)
            self.assertEqual(out, ["hello ", "world\r\n"])
        path.write_text("nonsense\n")
        self.assertRaises(
            Border0Error, recording.run, played, 1.0, None, out.append, lambda: None, True
        )

    def test_where_the_records_are(self):
        config = self.folder / "connector.toml"
        # The upstreams' secrets are not needed to read records.
        config.write_text(
            '[connector]\nname = "lab"\n[[socket]]\nname = "x"\npassword = "from:env:ABSENT"\n'
        )
        for arguments in (("--config", "connector.toml"), ()):
            done = run("session", "ls", *arguments, folder=self.folder)
            self.assertEqual((done.returncode, len(done.stdout.splitlines())), (0, 4), done.stderr)
        done = run("session", "ls", "--state", self.folder / "absent")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no such folder", done.stderr)
        empty = self.folder / "empty"
        empty.mkdir()
        for noun in ("session", "audit", "recording"):
            self.assertEqual(run(noun, "ls", "--state", empty).returncode, 0)


class Device(SynchronousTestCase):
    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.keys = {}
        for name in ("connector", "laptop", "phone"):
            self.keys[name] = generate_private_key()
            path = self.folder / f"{name}.key"
            path.write_text(encode_key(self.keys[name]) + "\n")
            path.chmod(0o600)
        text = '[connector]\nname = "lab"\n'
        for number, name in enumerate(("laptop", "phone"), 2):
            key = encode_key(public_key(self.keys[name]))
            text += f'[[device]]\nname = "{name}"\npublic_key = "{key}"\nuser = "a@example.org"\n'
            text += f'addresses = ["100.64.0.{number}/32"]\n'
        (self.folder / "connector.toml").write_text(text)

    def export(self, *arguments):
        return run("device", "export", "--wg-quick", *arguments, folder=self.folder)

    def test_export(self):
        done = self.export("--device", "laptop", "--endpoint", "connector.example.org")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertIn("PrivateKey = PRIVATE KEY OF THIS DEVICE", lines)
        self.assertIn("Address = 100.64.0.2/32", lines)
        self.assertIn("Endpoint = connector.example.org:32442", lines)
        self.assertIn("AllowedIPs = 100.126.0.0/24, fd62:6f72:6465:7231::/64", lines)
        self.assertIn(f"PublicKey = {encode_key(public_key(self.keys['connector']))}", lines)

    def test_with_a_private_key(self):
        arguments = ("--device", "phone", "--endpoint", "[2001:db8::1]:7", "--private-key-file")
        done = self.export(*arguments, "phone.key", "--json")
        facts = json.loads(done.stdout)
        self.assertEqual(facts["private_key"], encode_key(self.keys["phone"]))
        self.assertEqual(facts["endpoint"], "[2001:db8::1]:7")
        self.assertEqual(self.export(*arguments, "laptop.key").returncode, 1)

    def test_mistakes(self):
        for arguments, words in (
            (("--endpoint", "x"), "laptop, phone"),
            (("--endpoint", "x", "--device", "lapto"), "did you mean 'laptop'?"),
            (("--endpoint", "x:99999", "--device", "laptop"), "is no port"),
        ):
            done = self.export(*arguments)
            self.assertEqual(done.returncode, 1)
            self.assertIn(words, done.stderr)
        (self.folder / "connector.key").unlink()
        self.assertEqual(self.export("--endpoint", "x", "--device", "laptop").returncode, 1)
        self.assertFalse((self.folder / "connector.key").exists())
