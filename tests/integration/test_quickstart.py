"""`border0 quickstart` as a person without privileges uses it, with a real PostgreSQL exposed."""

import json
import re
import shutil
import signal
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.support import children
from tests.support.client import ClientHome, stranger
from tests.support.counterparts import requires
from tests.support.postgres import PostgresServer

PASSWORD = "canary-2b9e-of-the-shop"


class Newcomer(ClientHome):
    """A home that quickstart fills; any `border0` command in it."""

    def __init__(self) -> None:
        super().__init__()
        self.key.unlink()
        self.key.parent.rmdir()
        if stranger()[1] is not None:
            self.folder.chmod(0o777)
        self.quick = self.folder / "quick"

    def border0(
        self, *words: str, user: str | None = None, **options: object
    ) -> "subprocess.Popen[bytes]":
        """Start `border0 WORDS` as the stranger, or as another user where a stranger can."""
        program, known = stranger()
        user = user if known is not None and user is not None else known
        settings = {"BORDER0_HOME": str(self.quick), "SHOP_PW": PASSWORD}
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return children.spawn(
            [program, "-P", "-m", "border0.cli.main", *words],
            user=user,
            environment=self.environment(**settings),
            folder=self.folder,
            **{**pipes, **options},
        )

    def border0_stop(self) -> None:
        """End the tunnel, whoever still rides on it."""
        self.border0("client", "stop").communicate(timeout=60)

    def said(self, *words: str, user: str | None = None) -> str:
        """Run a command to its end; its output, when it succeeded."""
        child = self.border0(*words, user=user)
        output, errors = child.communicate(timeout=60)
        assert child.returncode == 0, (words, child.returncode, output, errors)
        return output.decode()


@requires("postgresql-server", "psql")
class Quickstart(SynchronousTestCase):
    timeout = 150

    def setUp(self) -> None:
        self.home = Newcomer()
        self.addCleanup(shutil.rmtree, self.home.folder, ignore_errors=True)
        self.addCleanup(self.home.border0_stop)

    def test_the_check_needs_no_privileges(self) -> None:
        said = self.home.said("quickstart", "--check", user="postgres")  # who has a shell
        self.assertIn("All of it works", said)
        if stranger()[1] is not None:
            self.assertIn("demo-ssh ran", said)

    @requires("root")
    def test_the_check_of_a_user_without_a_shell(self) -> None:
        said = self.home.said("quickstart", "--check")
        self.assertIn("All of it works", said)
        self.assertIn("demo-ssh is left out", said)

    def start(self, *words: str) -> "subprocess.Popen[bytes]":
        log = self.home.folder / "log"
        log.unlink(missing_ok=True)
        child = self.home.border0("quickstart", *words, output=log, stdout=None, stderr=None)
        self.addCleanup(children.end, child)

        def answers() -> bool:
            assert child.poll() is None, log.read_text()
            if "client hosts" not in log.read_text() and "hosts " not in log.read_text():
                return False
            probe = self.home.border0("client", "tcp", "demo-http", "--stdio")
            probe.communicate(timeout=60)
            return probe.returncode == 0

        children.wait_until(answers, 60, "quickstart serves")
        # Lines before it tell what is taken or left out here.
        advice = log.read_text()[log.read_text().index(" runs in ") :]
        self.assertLess(len(advice.splitlines()), 10, log.read_text())
        return child

    def test_a_database_of_mine(self) -> None:
        postgres = PostgresServer()
        self.addCleanup(postgres.stop)
        postgres.start()
        postgres.create_role("app", PASSWORD, "LOGIN")
        postgres.create_database("shop", "app")
        url = f"postgres://app@127.0.0.1:{postgres.port}/shop"
        child = self.start("--expose", url, "--password", "from:env:SHOP_PW")
        keys = {path.name: path.read_text() for path in (self.home.quick / "keys").iterdir()}
        answer = self.home.said("client", "psql", "shop-db", "-XAtc", "SELECT 6 * 7")
        self.assertEqual(answer, "42\n")
        hosts = json.loads(self.home.said("client", "hosts", "--json"))
        self.assertIn("shop-db", [one["name"] for one in hosts])
        children.wait_until(
            lambda: "shop-db" in self.home.said("session", "ls", "--state", str(self.home.quick)),
            10,
            "the session is listed",
        )
        child.send_signal(signal.SIGINT)
        child.wait(20)
        for path in self.home.quick.rglob("*"):
            if path.is_file():
                self.assertNotIn(PASSWORD.encode(), path.read_bytes(), path)
        self.start()
        again = {path.name: path.read_text() for path in (self.home.quick / "keys").iterdir()}
        self.assertEqual(
            {k: v for k, v in again.items() if k in keys and k.endswith(".key")},
            {k: v for k, v in keys.items() if k.endswith(".key")},
        )
        self.assertEqual(self.home.said("client", "psql", "shop-db", "-XAtc", "SELECT 1"), "1\n")
        self.assertIsNone(re.search(r"Traceback", (self.home.folder / "log").read_text()))
