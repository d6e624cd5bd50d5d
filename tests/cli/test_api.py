"""Whom the commands trust, what they send, and what they take for an answer."""

import contextlib
import io
import json
import os
import socket
import threading
import time
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

from border0.cli import account, api, contact
from border0.cli.api import ApiError, Client, UntrustedError, path, read_url
from border0.cli.main import status_of
from border0.errors import Border0Error, ConfigError
from border0.secrets import Secret
from border0.trust import PrivateCA, pin_of
from tests.cli.case import TOKEN, Commands
from tests.support.fakeapi import FakeApi, refusal

WHO = {"org": "o", "id": "u", "name": "alice@example.org", "role": "owner", "permissions": []}


class Trust(Commands):
    def client(self, server: FakeApi, authority: PrivateCA | None = None) -> Client:
        pem = (authority or server.authority).certificate
        return Client(server.url, authority=pem, token=Secret(TOKEN), sign_in="border0 login X")

    def other(self) -> PrivateCA:
        return PrivateCA.create(self.base / "other", time.time())

    def test_a_trusted_server(self) -> None:
        server = self.serve()
        server.routes["GET /whoami"] = WHO
        self.assertEqual(self.client(server).get("/whoami").body, WHO)
        self.assertEqual(server.asked[0].headers["authorization"], f"Bearer {TOKEN}")

    def test_another_authority(self) -> None:
        server = self.serve()
        error = self.assertRaises(UntrustedError, self.client(server, self.other()).get, "/whoami")
        self.assertIn("nothing was sent", str(error))
        self.assertIn("border0 login X", str(error))
        self.assertEqual(server.asked, [])

    def test_another_name(self) -> None:
        server = self.serve(names=("other.border0.internal",), addresses=("192.0.2.1",))
        self.assertRaises(UntrustedError, self.client(server).get, "/whoami")
        self.assertEqual(server.asked, [])

    def test_a_private_authority_is_not_in_the_systems_store(self) -> None:
        server = self.serve()
        self.assertRaises(UntrustedError, Client(server.url).get, "/whoami")
        self.assertEqual(server.asked, [])

    def test_an_expired_leaf(self) -> None:
        authority = self.other()
        chain = authority.leaf((), ("127.0.0.1",), time.time() - 90 * 86400, 30)
        server = self.serve(authority=authority, chain=chain)
        self.assertRaises(UntrustedError, self.client(server).get, "/whoami")
        self.assertEqual(server.asked, [])

    def test_first_contact(self) -> None:
        server = self.serve()
        host, port = read_url(server.url)[1:]
        pem = contact.pinned_authority(host, port, server.pin.upper().replace("SHA", "sha"))
        self.assertEqual(pem, server.authority.certificate)
        error = self.assertRaises(
            Border0Error, contact.pinned_authority, host, port, self.other().pin
        )
        self.assertIn(server.pin, str(error))
        self.assertIn("nothing was sent", str(error))
        leaf = "sha256:" + "0" * 64
        self.assertRaises(Border0Error, contact.pinned_authority, host, port, leaf)
        self.assertRaises(ConfigError, contact.pinned_authority, host, port, "sha256:1")
        self.assertEqual(server.asked, [])

    def test_the_pin_of_a_leaf_is_no_authority(self) -> None:
        from cryptography import x509

        server = self.serve()
        chain = server.authority.leaf((), ("127.0.0.1",), time.time())
        served = self.serve(authority=server.authority, chain=chain)
        host, port = read_url(served.url)[1:]
        pin = pin_of(x509.load_pem_x509_certificates(chain[0])[0])
        error = self.assertRaises(Border0Error, contact.pinned_authority, host, port, pin)
        self.assertIn("not an authority", str(error))

    def test_nobody_and_no_tls(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]

        def speak() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(100)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        error = self.assertRaises(
            Border0Error, contact.pinned_authority, "127.0.0.1", port, "sha256:" + "0" * 64
        )
        self.assertIn("does not speak TLS", str(error))
        error = self.assertRaises(Border0Error, Client(f"127.0.0.1:{port}").get, "/whoami")
        self.assertIn("does not speak HTTPS", str(error))
        thread.join()
        listener.close()
        error = self.assertRaises(
            Border0Error, contact.pinned_authority, "127.0.0.1", port, "sha256:" + "0" * 64
        )
        self.assertIn("is the control plane running there?", str(error))

    def test_a_silent_server(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        port = listener.getsockname()[1]
        error = self.assertRaises(
            Border0Error, contact.pinned_authority, "127.0.0.1", port, "sha256:" + "0" * 64, 0.2
        )
        self.assertIn("did not complete", str(error))

    def test_a_false_server_never_sees_a_code(self) -> None:
        """It shows the right authority beside a leaf of its own."""
        right = PrivateCA.create(self.base / "right", time.time())
        leaf, key = self.other().leaf((), ("127.0.0.1",), time.time())
        own = leaf.split(b"-----END CERTIFICATE-----\n")[0] + b"-----END CERTIFICATE-----\n"
        server = self.serve(authority=right, chain=(own + right.certificate, key))
        host, port = read_url(server.url)[1:]
        self.assertEqual(contact.pinned_authority(host, port, right.pin), right.certificate)
        self.fails("login", server.url, "--ca", right.pin, says="nothing was sent")
        self.sign_in(server)
        self.fails("whoami", says="not the trusted server")
        self.fails("connector", "invite", "gate", says="not the trusted server")
        self.assertEqual(server.asked, [])

    def test_an_authority_that_was_renewed(self) -> None:
        """The same key with a new certificate: the pin still tells it."""
        old = PrivateCA.create(self.base / "renewed", 0.0)
        server = self.serve(authority=PrivateCA.load(self.base / "renewed", time.time()))
        self.assertEqual(old.pin, server.pin)
        self.sign_in(server, authority=old.certificate.decode())
        server.routes["GET /whoami"] = WHO
        server.routes["GET /organization"] = {"name": "acme"}
        self.ask("whoami")
        kept = account.load(self.home)
        self.assertEqual(kept.authority.encode(), server.authority.certificate)
        self.assertEqual(kept.token, Secret(TOKEN))


class Answers(Commands):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve()
        self.sign_in(self.server)
        self.client = account.open_client(self.home, account.load(self.home), "border0 x ls")

    def refused(self, answer: Any) -> ApiError:
        self.server.routes["GET /x"] = answer
        error = self.assertRaises(ApiError, self.client.get, "/x")
        assert isinstance(error, ApiError)
        return error

    def test_refusals(self) -> None:
        error = self.refused(refusal(401, "sign in, or send a valid token"))
        self.assertEqual(status_of(error), 3)
        self.assertIn(f"border0 login {self.server.url} --ca {self.server.pin}", str(error))
        error = self.refused(refusal(403, "it needs the permission user.write", "forbidden"))
        self.assertEqual((status_of(error), error.code), (3, "forbidden"))
        error = self.refused(refusal(404, "there is no such socket"))
        self.assertEqual(status_of(error), 1)
        self.assertIn("`border0 x ls` lists what there is", str(error))
        self.assertIn("try again", str(self.refused(refusal(412, "version"))))
        status, body = refusal(422, "name: wrong")
        body["error"]["fields"] = [
            {"field": "name", "message": "wrong"},
            {"field": "port", "message": "too large"},
        ]
        self.assertEqual(str(self.refused((status, body))), "name: wrong; port: too large")

    def test_refusals_in_no_known_form(self) -> None:
        for body in (b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": {"fields": [1, 2]}}'):
            self.assertIn("answered with status 500", str(self.refused((500, body))))

    def test_a_terminal_is_safe(self) -> None:
        error = self.refused(refusal(422, "\x1b[31mred\u202e\n" + "y" * 100_000))
        self.assertTrue(str(error).isprintable())
        self.assertLess(len(str(error)), 700)

    def test_a_terminal_is_safe_from_every_error(self) -> None:
        from border0.cli import main as module

        def run(options: object) -> int:
            raise Border0Error("evil \x1b[2J\x07 name\nand a second line")

        with mock.patch("border0.cli.whoami.run", run):
            out = io.StringIO()
            with contextlib.redirect_stderr(out):
                self.assertEqual(1, module.main(["whoami"]))
        self.assertNotIn("\x1b", out.getvalue())
        self.assertEqual(2, out.getvalue().count("\n"))

    def test_redirects_are_not_followed(self) -> None:
        other = self.serve()
        self.server.routes["GET /x"] = (302, None, {"Location": f"{other.url}/api/v1/x"})
        error = self.assertRaises(Border0Error, self.client.get, "/x")
        self.assertIn("redirect", str(error))
        self.assertEqual((other.asked, len(self.server.asked)), ([], 1))

    def test_large_answers(self) -> None:
        self.patch(api, "ANSWER_LIMIT", 1 << 20)
        self.server.routes["GET /x"] = (200, b'"' + b"x" * (2 << 20) + b'"')
        error = self.assertRaises(Border0Error, self.client.get, "/x")
        self.assertIn("more than 1 MiB", str(error))
        self.server.routes["GET /x"] = (200, b"{}", {"X-" + "h" * 70000: "1"})
        self.assertRaises(Border0Error, self.client.get, "/x")
        self.server.routes["GET /x"] = (200, b"{", {"Content-Length": "5"})
        self.patch(api, "SECONDS", 0.3)
        self.assertRaises(Border0Error, self.client.get, "/x")

    def test_no_json(self) -> None:
        for body in (b"<html>", b"[1]", b"\xff", b"[" * 100_000, b"1"):
            self.server.routes["GET /x"] = (200, body)
            self.assertRaises(Border0Error, self.client.get, "/x")
        for listing in ({}, {"items": 3}, {"items": [3]}, {"list": "x"}):
            self.server.routes["GET /x"] = listing
            self.assertRaises(Border0Error, list, self.client.pages("/x"))

    def test_pages(self) -> None:
        def serve(asked: Any) -> Any:
            first = int(asked.query.get("cursor", "0"))
            last = min(first + int(asked.query["limit"]), 450)
            following = str(last) if last < 450 else ""
            items = [{"n": number} for number in range(first, last)]
            if asked.query["kind"] == "ours":
                return {"items": items, **({"next_cursor": following} if following else {})}
            return {"list": items, "pagination": {"next_cursor": following}}

        self.server.routes["GET /x"] = serve
        for kind in ("ours", "theirs"):
            found = [item["n"] for item in self.client.pages("/x", kind=kind, user="")]
            self.assertEqual(found, list(range(450)))
            self.assertNotIn("user", self.server.asked[-1].query)
            self.assertEqual(len(list(self.client.pages("/x", 201, kind=kind))), 201)
            self.assertEqual(self.server.asked[-1].query["limit"], "1")
        self.server.routes["GET /x"] = {"items": [{"n": 1}], "next_cursor": "again"}
        self.assertEqual(len(list(self.client.pages("/x"))), 2)

    def test_names_stay_in_their_segment(self) -> None:
        self.assertEqual(path("socket", "a b/../c?d#é"), "/socket/a%20b%2F..%2Fc%3Fd%23%C3%A9")

    def test_addresses(self) -> None:
        for text, url in (
            ("control.example.org", "https://control.example.org"),
            ("https://control.example.org:8443/", "https://control.example.org:8443"),
            ("https://control.example.org/api/v1/", "https://control.example.org"),
            ("https://control.example.org/b0", "https://control.example.org/b0"),
            ("[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
            ("https://CONTROL.example.org:443", "https://control.example.org"),
        ):
            self.assertEqual(read_url(text)[0], url)
        for text in (
            "http://control.example.org",
            "",
            "https://",
            "https://alice:secret@control.example.org",
            "https://control.example.org?x",
            "https://control.example.org:99999",
            "https://control\n.example.org",
            "https://cöntrol.example.org",
        ):
            self.assertRaises(ConfigError, read_url, text)

    def test_a_prefix_in_the_address(self) -> None:
        self.server.routes["GET /b0/api/v1/x"] = {"ok": 1}
        client = Client(f"{self.server.url}/b0", authority=self.server.authority.certificate)
        self.assertEqual(client.get("/x").body, {"ok": 1})


class Accounts(Commands):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.serve()
        self.server.routes["GET /whoami"] = WHO
        self.server.routes["GET /organization"] = {"name": "acme"}

    def test_none(self) -> None:
        for words in (["whoami"], ["socket", "ls"], ["logout"], ["session", "kill", "x"]):
            self.fails(*words, says="sign in: border0 login URL --ca sha256:")

    def test_the_file(self) -> None:
        self.sign_in(self.server)
        file = self.home / "account.json"
        self.assertEqual(file.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.home.stat().st_mode & 0o777, 0o700)
        self.assertEqual(json.loads(file.read_text())["token"], TOKEN)
        self.assertEqual([each.name for each in self.home.iterdir()], ["account.json"])
        file.chmod(0o644)
        self.fails("whoami", says=f"chmod 600 {file}")
        file.chmod(0o600)
        for text in ("", "[]", "{}", '{"url": "http://x"}', "[" * 100_000, "\xff"):
            file.write_text(text)
            self.fails("whoami", says="is no account")
        self.assertEqual(self.server.asked, [])

    def test_a_planted_file_is_not_written_through(self) -> None:
        target = self.base / "target"
        target.write_text("")
        (self.home / "account.new").symlink_to(target)
        self.sign_in(self.server)
        self.assertEqual(target.read_text(), "")

    def test_an_expired_token(self) -> None:
        self.sign_in(self.server)
        self.server.routes["GET /whoami"] = refusal(401, "sign in, or send a valid token")
        done = self.fails("whoami", status=3, says="does not know this token")
        self.assertIn(f"border0 login {self.server.url} --ca {self.server.pin}", done.err)

    def test_the_token_hides(self) -> None:
        self.sign_in(self.server)
        kept = account.load(self.home)
        client = account.open_client(self.home, kept)
        self.assertNotIn(TOKEN, repr(kept) + repr(client) + str(vars(client)))
        self.server.routes["GET /whoami"] = (200, b"[")
        try:
            client.get("/whoami")
        except Border0Error:
            text = io.StringIO()
            traceback.print_exc(file=text)
            self.assertNotIn(TOKEN, text.getvalue())

    def test_the_environment(self) -> None:
        variables = {"BORDER0_BASE_URL": f"{self.server.url}/api/v1", "BORDER0_AUTH_TOKEN": "b0s_x"}
        with mock.patch.dict(os.environ, {**variables, "BORDER0_CA": self.server.pin}):
            self.ask("whoami")
            self.assertEqual(self.server.asked[-1].headers["authorization"], "Bearer b0s_x")
        with mock.patch.dict(os.environ, variables):
            self.fails("whoami", says="not the trusted server")
        self.sign_in(self.server)
        with mock.patch.dict(os.environ, variables):
            self.ask("whoami")
        with mock.patch.dict(os.environ, {"BORDER0_AUTH_TOKEN": "b0s_y"}):
            self.ask("whoami")
            self.assertEqual(self.server.asked[-1].headers["authorization"], "Bearer b0s_y")
        with mock.patch.dict(os.environ, {"BORDER0_AUTH_TOKEN": "b0s_y\r\nX: 1"}):
            done = self.fails("whoami", says="is no token")
            self.assertNotIn("b0s_y", done.err)

    def test_the_kept_token_goes_to_its_own_server_only(self) -> None:
        self.sign_in(self.server)
        other = self.serve()
        other.routes["GET /whoami"] = WHO
        variables = {"BORDER0_BASE_URL": other.url, "BORDER0_CA": other.pin}
        with mock.patch.dict(os.environ, variables):
            self.fails("whoami", says="set BORDER0_AUTH_TOKEN")
        self.assertEqual(other.asked, [])

    def test_half_of_an_environment(self) -> None:
        with mock.patch.dict(os.environ, {"BORDER0_AUTH_TOKEN": "b0s_x"}):
            self.fails("whoami", says="needs BORDER0_BASE_URL")

    def test_a_home_that_cannot_be_written(self) -> None:
        file = Path(self.base / "file")
        file.write_text("")
        kept = account.Account(self.server.url, "", "", Secret(TOKEN))
        error = self.assertRaises(Border0Error, account.save, file / "home", kept)
        self.assertIn("--home DIR", str(error))
