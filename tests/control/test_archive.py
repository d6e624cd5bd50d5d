"""A backup holds what a control plane needs to go on as itself; a restore never overwrites."""

import io
import tarfile
import time

from twisted.internet.threads import deferToThread

from border0.control import archive
from border0.control.config import read
from border0.control.member.state import MemberState
from border0.errors import ConfigError
from tests.control.planes import PlaneCase

FOREIGN = (
    "keys/client.key", "keys/..", "keys/.", "keys//server.key", "/keys/server.key", "keys",
    "connector/node.json", "setup-link", "authority/a/b", "control.db/x",
)  # fmt: skip


class Archives(PlaneCase):
    def config(self, state):
        table = {"url": self.url, "listen": [f"127.0.0.1:{self.port}"], "state_dir": state}
        return read({"control": table}, self.base / "control.toml")

    async def test_a_restored_plane_goes_on_with_its_nodes(self):
        lab = await self.node("connector", "lab", number=1)
        socket_id, policy_id = await self.service(lab, ["owner@example.org"])
        await self.waiter.until(lambda: lab.ledger.current("policy", policy_id, time.time()))
        file = self.base / "backup"
        await deferToThread(archive.backup, self.config("state"), file)
        self.assertEqual(0o600, file.stat().st_mode & 0o777)
        # What happens after the backup is lost, and nodes that saw it go back with the others.
        data = {"permissions": {"tls": {}}}
        for _ in range(3):
            await self.good("PUT", f"/policy/{policy_id}", {"policy_data": data})
        await self.waiter.until(
            lambda: "tls" in lab.ledger.current("policy", policy_id, time.time()).body["text"]
        )
        pin = self.plane.pin
        await self.plane.close()
        await deferToThread(archive.restore, self.config("restored"), file)
        self.settings = {"state_dir": "restored"}
        self.plane = await self.opened()
        self.assertEqual(pin, self.plane.pin)
        await self.waiter.until(
            lambda: (
                lab.synced
                and "tls" not in lab.ledger.current("policy", policy_id, time.time()).body["text"]
            )
        )
        self.assertEqual(200, (await self.ask("GET", f"/socket/{socket_id}")).status)
        self.assertEqual(self.org, MemberState.open(self.base / "lab").org)

    async def test_nothing_is_overwritten_and_no_other_file_is_taken(self):
        file = self.base / "backup"
        await deferToThread(archive.backup, self.config("state"), file)
        with self.assertRaisesRegex(ConfigError, "keys already"):
            archive.restore(self.config("state"), file)
        for name, make in (
            ("missing", lambda path: None),
            ("garbage", lambda path: path.write_bytes(b"x" * 5000)),
            ("empty", lambda path: tarfile.open(path, "w").close()),
            ("climbing", self.climbing),
            *((f"foreign-{n}", self.foreign(one)) for n, one in enumerate(FOREIGN)),
        ):
            path = self.base / name
            make(path)
            error = self.assertRaises(
                ConfigError, archive.restore, self.config(f"state-{name}"), path
            )
            self.assertIn(name, str(error))
            self.assertFalse((self.base / f"state-{name}" / "keys").exists())
        self.assertFalse((self.base / "outside").exists())

    def foreign(self, name):
        """A backup that would bring a file that is no control plane's."""

        def make(path):
            with tarfile.open(path, "w") as tar:
                member = tarfile.TarInfo(name)
                member.size = 1
                tar.addfile(member, io.BytesIO(b"x"))

        return make

    def climbing(self, path):
        inner = self.base / "inner"
        inner.write_text("x")
        with tarfile.open(path, "w") as tar:
            tar.add(inner, "../outside")
