"""No secret lies around in clear text: in logs, audit, answers, files, database, process list.

One control plane at log level debug goes through all that people do, with a canary for every
secret. Hashes and what is sealed may lie in the database. A literal password of an upstream is the
one exception: connectors need it, so it stands in its socket's configuration, and nowhere else.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pyotp

from tests.integration.test_control_people import MEMBER, OWNER, PAST, People, recovery_of, totp_of
from tests.support import children

OWNERS = "canary-7f3a-owner-password"
MEMBERS = "canary-19bc-member-password"
WRONG = "canary-d02e-mistyped-password"
UPSTREAM = "canary-e55a-upstream-password"
STRAY = "canary-41d7-in-the-wrong-place"
LISTS = (
    "/organization", "/organizations/iam/users", "/organizations/iam/groups", "/tokens",
    "/organizations/iam/service_accounts", "/organizations/iam/service_accounts/ci/tokens",
    "/devices", "/enrolment_keys", "/invites", "/socket", "/socket/shop-db", "/connectors",
    "/connector/lab", "/connector/token", "/policies", "/sessions", "/audit_events?limit=200",
    "/server_info", "/openapi.json", "/whoami",
)  # fmt: skip


def forms(secret: str) -> list[bytes]:
    """How a secret could lie around: as it is, in base64, in hex, what base32 stands for."""
    raw = secret.encode()
    found = [raw, base64.b64encode(raw)[:-4], raw.hex().encode()]
    if re.fullmatch(r"[A-Z2-7]{32}", secret):
        key = base64.b32decode(secret)
        found += [key, key.hex().encode(), base64.b64encode(key)]
        found.append(" ".join(secret[i : i + 4] for i in range(0, 32, 4)).encode())
    if "_" in secret:
        found.append(raw.split(b"_", 2)[-1])  # what is secret of it; the rest is an id
    if re.fullmatch(r"[a-z2-9]{4}(-[a-z2-9]{4}){3}", secret):
        found.append(raw.replace(b"-", b""))
    return [form for form in found if len(form) >= 16]


class Secrets(People):
    def setUp(self) -> None:
        super().setUp()
        self.canaries: dict[str, str] = {}
        self.answers: list[tuple[str, bytes]] = []
        self.logs = b""

    def add(self, name: str, secret: str) -> str:
        """Remember a secret; returns it."""
        self.assertGreaterEqual(len(secret), 16, name)
        self.canaries[name] = secret
        return secret

    def found_in(self, data: bytes) -> set[str]:
        """The names of the canaries that lie in some bytes."""
        return {n for n, s in self.canaries.items() if any(form in data for form in forms(s))}

    def ask(self, method: str, path: str, value: Any = None, status: int = 200, **more: str) -> Any:
        """A request by the owner, with whatever headers."""
        token = self.control.token("owner")
        answer = self.control.ask(method, path, token, value, headers=more)
        self.assertEqual(status, answer.status, answer.body)
        return answer.json() if answer.body else None

    def people(self) -> None:
        """Set-up, second factor, mistakes, sign-out, login."""
        owner, link = self.control.browser(), self.control.link()
        self.add("first link", link.partition("link=")[2])
        totp = self.add("owner's TOTP key", totp_of(owner.visit(link)))
        owner.submit(name="O", login=OWNER, password=WRONG, again=OWNERS)
        self.add("mistyped password", WRONG)
        self.add("owner's password", OWNERS)
        now = int(time.time())
        owner.submit(
            login=OWNER, name="O", password=OWNERS, again=OWNERS, code=pyotp.TOTP(totp).at(now)
        )
        codes = recovery_of(owner.page)
        self.assertEqual(10, len(codes))
        for number, code in enumerate(codes):
            self.add(f"recovery code {number}", code)
        self.keep_cookies("owner", owner)
        owner.submit()
        owner.sign_in(OWNER, WRONG)
        owner.sign_in(OWNER, OWNERS, codes[0])
        self.assertIn("signed in as", owner.page.text)
        self.keep_cookies("owner again", owner)
        self.signed_in("owner", owner)
        self.add("login token", self.control.token("owner"))
        made = self.control.run("user", "create", MEMBER, home="owner").stdout.strip()
        self.add("member's link", made.partition("link=")[2])
        alice = self.control.browser()
        alice.visit(made)
        self.add("member's TOTP key", totp_of(alice.page))
        self.add("member's password", MEMBERS)
        alice.submit(name="A", password=MEMBERS, again=MEMBERS)
        self.keep_cookies("member", alice)
        self.alice = alice

    def keep_cookies(self, who: str, browser: Any) -> None:
        for name, value in browser.cookies.items():
            self.add(f"{who}: {name}", value)
        self.add(f"{who}: form token", browser.form()["csrf"])

    def codes(self) -> None:
        """Device codes, invites, keys, tokens: made, used, used again."""
        run = self.control.run
        started = {"public_key": base64.b64encode(bytes(range(32))).decode(), "name": "x"}
        answer = self.control.request(
            "POST",
            "/api/v1/device_authorizations",
            [("Content-Type", "application/json")],
            json.dumps({**started, "purpose": "login"}).encode(),
        )
        code = self.add("device code", answer.json()["device_code"])
        poll = {"device_code": code, "public_key": started["public_key"]}
        for body in (poll, {**poll, "public_key": "x"}, {**poll, "device_code": code + "x"}):
            self.control.request(
                "POST",
                "/api/v1/device_authorizations/poll",
                [("Content-Type", "application/json")],
                json.dumps(body).encode(),
            )
        typing = self.control.join("alice", "--name", "laptop")
        self.alice.allow(typing)
        self.assertEqual(0, typing.finish().returncode)
        run("client", "hosts", home="alice")
        invite = run("device", "invite", "spare", home="owner").stdout.split()
        self.add("device invite", next(word for word in invite if word.startswith("b0i_")))
        run(*invite[1:], home="spare")
        run(*invite[1:], home="late", status=3)
        key = self.ask("POST", "/enrolment_keys", {"name": "fleet", "user": MEMBER}, 201)["key"]
        self.add("enrolment key", key)
        join = ("node", "join", self.control.url, key, "--ca", self.control.pin)
        run(*join, "--name", "fleet", home="fleet")
        run(*join, home="late", status=3)
        run("connector", "create", "lab", home="owner")
        token = run("connector", "token", "lab", home="owner").stdout.strip()
        self.add("connector token", token)
        run("connector", "join", self.control.url, token, "--ca", self.control.pin, home="lab")
        run("service-account", "create", "ci", home="owner")
        create = ("token", "create", "deploy", "--service-account", "ci", "--scope", "user.read")
        self.add("service token", run(*create, home="owner").stdout.strip())
        self.add("own token", run("token", "create", "mine", home="owner").stdout.strip())
        for name in ("service token", "own token", "connector token"):
            secret = self.canaries[name]
            self.control.ask("GET", "/organizations/iam/users", secret)
            self.control.ask("GET", "/organizations/iam/users", secret + "x")
            self.control.ask("GET", f"/organizations/iam/users?token={secret}", secret)

    def upstream(self) -> None:
        """A literal password of an upstream; and secrets where none belong."""
        self.add("upstream password", UPSTREAM)
        self.add("stray secret", STRAY)
        login = {"username": "app", "password": UPSTREAM}
        standard: dict[str, Any] = {
            "protocol": "postgres",
            "hostname": "db.example.org",
            "port": 5432,
            "authentication_type": "username_and_password",
            "username_and_password_auth_configuration": login,
        }
        database = {
            "database_service_type": "standard",
            "standard_database_service_configuration": standard,
        }
        (lab,) = (
            one
            for one in self.control.told("connector", "ls", home="owner")
            if one["name"] == "lab"
        )
        body = {
            "name": "shop-db",
            "socket_type": "database",
            "connector_ids": [lab["connector_id"]],
            "upstream_configuration": {
                "service_type": "database",
                "database_service_configuration": database,
            },
        }
        again = {"Idempotency-Key": "one-socket-please"}
        for _ in range(2):
            made = self.ask("POST", "/socket", body, 201, **again)
        self.answers.append(("POST /socket", json.dumps(made).encode()))
        self.ask("PUT", "/socket/shop-db", {"description": "the shop"})
        for wrong in (
            {**body, "name": "other", "password": STRAY},
            {**body, "name": "Not A Name", "upstream_configuration": {"password": STRAY}},
            {**body, "name": "other", "connector_ids": [STRAY]},
        ):
            self.ask("POST", "/socket", wrong, 422)
        raw = self.control.request(
            "POST",
            "/api/v1/socket",
            [
                ("Authorization", f"Bearer {self.control.token('owner')}"),
                ("Content-Type", "application/json"),
            ],
            b'{"password": "' + STRAY.encode(),
        )
        self.assertEqual(422, raw.status)
        self.answers.append(("half a body", raw.body))

    def ends(self) -> None:
        """What is written when access ends."""
        self.ask("PUT", "/device/laptop", {"expires_at": PAST})
        self.control.run("user", "update", MEMBER, "--disable", home="owner")
        self.alice.get("/done")
        self.alice.sign_in(MEMBER, MEMBERS)
        self.control.run("token", "revoke", "mine", home="owner")

    def machines(self) -> None:
        """The server's own keys, and those of the machines, lie in their own files alone."""
        for path in self.control.folder.rglob("*.key"):
            text = path.read_bytes()
            self.assertEqual(0, path.stat().st_mode & 0o077, path)
            name = f"file {path.relative_to(self.control.folder)}"
            lines = [x for x in text.decode("latin-1").splitlines() if not x.startswith("-----")]
            self.add(name, max(lines, key=len))

    def processes(self) -> bytes:
        """The command lines of all processes, and what our server's environment holds."""
        found = []
        for path in (
            *Path("/proc").glob("[0-9]*/cmdline"),
            Path(f"/proc/{self.control.child.pid}/environ"),
        ):
            try:
                found.append(path.read_bytes())
            except OSError:
                continue  # it has ended
        return b"\n".join(found)

    def rows(self) -> list[tuple[str, bytes]]:
        """Every value of the database, with where it stands."""
        database = sqlite3.connect(self.control.state / "control.db", timeout=30)
        self.addCleanup(database.close)
        tables = [
            n for (n,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
        ]
        found = []
        for table in tables:
            cursor = database.execute(f'SELECT * FROM "{table}"')
            names = [column[0] for column in cursor.description]
            for row in cursor:
                for name, value in zip(names, row, strict=True):
                    data = value if isinstance(value, bytes) else str(value).encode()
                    found.append((f"{table}.{name}", data))
        return found

    def test_no_secret_lies_around(self) -> None:
        self.people()
        waiting = self.control.login("waiting")
        self.codes()
        self.upstream()
        running = self.processes()
        self.ends()
        self.machines()
        for path in LISTS:
            self.answers.append((f"GET {path}", json.dumps(self.ask("GET", path)).encode()))
        self.assertIn(b'"socket.create"', dict(self.answers)["GET /audit_events?limit=200"])
        children.end(waiting.child)

        self.assertIn("member's TOTP key", self.found_in(self.alice.seen[0].body))  # it is a scan
        self.assertEqual({"upstream password"}, self.found_in(json.dumps(UPSTREAM).encode()))
        # Where a secret may be found: nowhere, but for the upstream's.
        self.assertEqual(set(), self.found_in(running), "the process list")
        for name, data in self.answers:
            self.assertEqual(set(), self.found_in(data), name)
        where = {(name, place) for place, data in self.rows() for name in self.found_in(data)}
        self.assertEqual({("upstream password", "sockets.upstream_configuration")}, where)
        self.files()
        children.end(self.control.child)
        self.files()

    def files(self) -> None:
        """Look through every file of the server, and every log."""
        self.assertEqual(0o700, self.control.state.stat().st_mode & 0o777)
        seen = 0
        for path in self.control.state.rglob("*"):
            if not path.is_file():
                continue
            seen += 1
            found = self.found_in(path.read_bytes())
            own = {f"file {path.relative_to(self.control.folder)}"}
            if path.name in ("control.db", "control.db-wal"):
                own.add("upstream password")
            if path.name == "setup-link":
                own.add("first link")  # used up
            self.assertEqual(set(), found - own, path)
        self.assertGreater(seen, 5)
        for path in (self.control.log, *self.control.folder.glob("home-*/*.log")):
            data = path.read_bytes()
            self.assertEqual(set(), self.found_in(data), path)
        self.assertIn(b"ready", self.control.log.read_bytes())
