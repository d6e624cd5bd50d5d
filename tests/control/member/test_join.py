"""Joining: the code goes to whom it must, what comes back is kept, a false server sees nothing."""

import json
import time
from typing import Any

from twisted.web.resource import Resource

from border0.control.member.join import authorize
from border0.control.member.state import (
    CONTACT_FILE,
    MAP_FILE,
    NODE_FILE,
    MemberState,
    load_machine_key,
)
from border0.control.member.url import parse_url
from border0.errors import Border0Error, ConfigError
from border0.trust import PrivateCA
from tests.control.member.case import WIREGUARD, Member
from tests.support.organisation import Organisation
from tests.support.plane import Answer, reactor


class Joining(Member):
    async def error(self, **more: Any) -> str:
        try:
            await self.joined(**more)
        except Border0Error as error:
            return str(error)
        raise AssertionError("it joined")

    async def test_what_is_kept(self) -> None:
        state = await self.joined()
        again = MemberState.open(self.folder)
        for name in ("url", "ca", "org", "org_name", "node", "name", "role", "network"):
            self.assertEqual(getattr(again, name), getattr(state, name), name)
        self.assertEqual(again.authority, self.plane.authority.certificate)
        self.assertEqual(again.load_ledger().signers.statement, self.plane.org.signers)
        self.assertLess(abs(again.load_contact().last - time.time()), 60)
        self.assertEqual(self.folder.stat().st_mode & 0o777, 0o700)
        for path in self.folder.iterdir():
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)
        said = json.dumps(self.plane.joins[0])
        self.assertNotIn(again.machine_key.private_bytes_raw().hex(), said)
        self.assertEqual(set(self.plane.joins[0]["facts"]), {"os", "hostname", "version"})

    async def test_joining_again_keeps_keys_and_what_was_believed(self) -> None:
        first = await self.joined()
        key = first.machine_key.private_bytes_raw()
        ledger = first.load_ledger()
        ledger.accept(self.plane.org.head(), time.time())
        first.save_ledger(ledger)
        (self.folder / MAP_FILE).write_bytes(b"kept")
        self.plane.chain.append(self.plane.org.publish_signers({"control": ("signers", "head")}))
        second = await self.joined()
        self.assertEqual(second.machine_key.private_bytes_raw(), key)
        self.assertEqual(second.load_ledger().revision, ledger.revision)
        self.assertEqual(second.load_ledger().signers.statement, self.plane.org.signers)
        self.assertTrue((self.folder / MAP_FILE).exists())
        self.plane.codes["b0i_good"] = "00000000-0000-4000-8000-000000000001"
        await self.joined()
        self.assertFalse((self.folder / MAP_FILE).exists())

    async def test_signers_that_do_not_follow_are_not_believed(self) -> None:
        await self.joined()
        self.plane.chain[:] = self.foreign()
        text = await self.error()
        self.assertIn("do not follow", text)
        self.assertEqual(
            MemberState.open(self.folder).load_ledger().signers.statement, self.plane.org.signers
        )

    def foreign(self) -> list[Any]:
        other = Organisation(now=time.time(), other=("signers",), control=("signers",))
        other.publish_signers({"other": ("signers",)}, by="other")
        return [other.signers]

    async def test_a_false_server_never_sees_the_code(self) -> None:
        other = PrivateCA.create(self.base / "other", time.time())
        text = await self.error(ca=other.pin)
        self.assertIn("nothing was sent", text)
        self.assertEqual(self.plane.joins, [])
        self.assertFalse(MemberState.exists(self.folder))

    async def test_a_false_leaf_beside_the_right_authority(self) -> None:
        """It shows the pinned authority, and a leaf that another one signed."""
        right = self.plane.authority
        false = PrivateCA.create(self.base / "false", time.time())
        await self.plane.stop()

        class Both:
            pin = right.pin

            def leaf(self, *words: Any) -> tuple[bytes, bytes]:
                chain, key = false.leaf(*words)
                return chain + right.certificate, key

        self.plane.authority = Both()
        await self.plane.start()
        text = await self.error()
        self.assertIn("not signed by the pinned authority", text)
        self.assertEqual(self.plane.joins, [])

    async def test_without_a_pin_the_system_decides(self) -> None:
        text = await self.error(ca="")
        self.assertIn("--ca sha256:", text)
        self.assertEqual(self.plane.joins, [])

    async def test_errors_say_what_to_do(self) -> None:
        self.assertIn("this code is not known", await self.error(code="b0i_bad"))
        self.assertIn("b0i_", await self.error(code="hello"))
        self.assertIn("b0e_", await self.error(code="b0t_good", role="device"))
        self.assertIn("lower-case letters", await self.error(name="My Laptop"))
        self.assertIn("https only", await self.error(url="http://127.0.0.1:1"))
        self.assertIn("sha256:", await self.error(ca="sha256:12"))
        self.assertIn("cannot reach", await self.error(url="https://127.0.0.1:1"))
        self.assertFalse((self.folder / NODE_FILE).exists())

    async def test_answers_that_are_none(self) -> None:
        good = self.plane.join

        for change in (
            {"signers": []},
            {"signers": ["x"]},
            {"network": {}},
            {"org": 5},
            {"role": "device"},
            {"approved": "yes"},
        ):
            self.plane.join = lambda body, c=change: (201, {**good(body)[1], **c})
            await self.plane.stop()
            await self.plane.start()
            self.assertIn("cannot be used", await self.error(), change)
        self.assertFalse((self.folder / NODE_FILE).exists())

    async def test_a_browser_confirms(self) -> None:
        polls = [
            {"status": "pending", "interval": 0.1},
            {"status": "approved", "interval": 0, "result": {"code": "b0i_good"}},
        ]
        started = {
            "device_code": "d", "user_code": "WDJB-MJHT", "verification_uri": "https://c/device",
            "verification_uri_complete": "https://c/device?code=WDJB-MJHT",
            "expires_in": 600, "interval": 0.1,
        }  # fmt: skip

        class Start(Resource):
            def render_POST(self, request: Any) -> bytes:
                return json.dumps(started).encode()

        grants = Start()
        grants.putChild(b"poll", Answer(lambda body: (200, polls.pop(0))))
        self.plane.posts["device_authorizations"] = grants
        await self.plane.stop()
        await self.plane.start()
        shown: list[tuple[str, str]] = []
        options: dict[str, Any] = {
            "url": self.plane.url, "ca": self.plane.authority.pin, "public_key": WIREGUARD,
            "name": "laptop", "purpose": "device", "show": lambda *words: shown.append(words),
        }  # fmt: skip
        self.assertEqual(await authorize(reactor, **options), {"code": "b0i_good"})
        self.assertEqual(shown, [("WDJB-MJHT", started["verification_uri_complete"])])
        for status, word in (("denied", "refused"), ("expired", "in time")):
            polls.append({"status": status, "interval": 0})
            with self.assertRaises(Border0Error) as caught:
                await authorize(reactor, **options)
            self.assertIn(word, str(caught.exception))


class Files(Member):
    async def test_damage_says_to_join_again(self) -> None:
        self.assertFalse(MemberState.exists(self.folder))
        self.assertRaises(ConfigError, MemberState.open, self.folder)
        await self.joined()
        path = self.folder / NODE_FILE
        good = json.loads(path.read_text())
        for bad in (
            b"{",
            b"[]",
            b"{}",
            json.dumps({**good, "v": 2}).encode(),
            json.dumps({**good, "url": "ftp://x"}).encode(),
            json.dumps({**good, "role": "king"}).encode(),
            json.dumps({**good, "ca": "x"}).encode(),
            json.dumps({**good, "network": {"services_v4": "x"}}).encode(),
        ):
            path.write_bytes(bad)
            error = self.assertRaises(ConfigError, MemberState.open, self.folder)
            self.assertIn("join again", str(error))
        path.write_text(json.dumps(good))
        (self.folder / CONTACT_FILE).write_bytes(b'{"last": "x"')
        self.assertEqual(MemberState.open(self.folder).load_contact().last, 0.0)
        for odd in (b'{"last": NaN}', b'{"last": Infinity}', b"[]", b'{"endpoints": 5}'):
            (self.folder / CONTACT_FILE).write_bytes(odd)
            self.assertEqual(MemberState.open(self.folder).load_contact().last, 0.0, odd)
        (self.folder / "machine.key").chmod(0o644)
        error = self.assertRaises(ConfigError, MemberState.open, self.folder)
        self.assertIn("chmod 600", str(error))
        (self.folder / "machine.key").write_bytes(b"x")
        (self.folder / "machine.key").chmod(0o600)
        self.assertRaises(ConfigError, load_machine_key, self.folder, create=True)

    def test_urls(self) -> None:
        for text, expected in (
            ("https://Control.example:8443/", ("control.example", 8443, "")),
            ("https://[::1]:9/b0/", ("::1", 9, "/b0")),
            ("https://a.example", ("a.example", 443, "")),
        ):
            url = parse_url(text)
            self.assertEqual(tuple(url), expected)
            self.assertEqual(parse_url(url.text), url)
        for bad in ("", "x", "http://a", "https://", "https://u@a", "https://a/?q", "https://a b"):
            self.assertRaises(ConfigError, parse_url, bad)
        self.assertTrue(parse_url("https://[::1]:9").is_loopback)
        self.assertTrue(parse_url("https://localhost:9").is_loopback)
        self.assertFalse(parse_url("https://192.0.2.1").is_loopback)
