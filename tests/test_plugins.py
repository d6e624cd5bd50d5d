"""`twistd` lists our plugins, each resolves, and listing loads neither a reactor nor border0."""

import subprocess
import sys

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SkipTest, SynchronousTestCase

NAMES = ["border0-connector", "border0-control", "border0-node", "border0-relay"]
LISTING = """
import sys
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
names = sorted(p.tapname for p in getPlugins(IServiceMaker) if p.tapname.startswith("border0"))
print(names)
loaded = [m for m in sys.modules if m == "border0" or m == "twisted.internet.reactor"]
print(loaded)
"""


class Plugins(SynchronousTestCase):
    def test_listing_is_light(self) -> None:
        done = subprocess.run([sys.executable, "-c", LISTING], capture_output=True, text=True)
        self.assertEqual(done.stdout.splitlines(), [str(NAMES), "[]"], done.stderr)

    def test_each_resolves(self) -> None:
        makers = {plugin.tapname: plugin for plugin in getPlugins(IServiceMaker)}
        for name in NAMES:
            maker = makers[name]
            self.assertTrue(callable(maker.options))
            self.assertTrue(callable(maker.makeService))

    def test_our_reactor_installs(self) -> None:
        if sys.platform != "linux":
            raise SkipTest("the reactor is for Linux")
        code = (
            "from twisted.application.reactors import installReactor; "
            "print(type(installReactor('border0')).__name__)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        self.assertEqual(done.stdout, "LeanReactor\n", done.stderr)

    def test_help_teaches(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "twisted", "--help"], capture_output=True, text=True
        )
        self.assertIn("border0-connector", done.stdout)
