"""The build that runs is the build that was asked for, and a plugin folder owns no __init__.py."""

import os
from pathlib import Path

import twisted.plugins
from twisted.trial.unittest import SynchronousTestCase

import border0
from border0._build_info import build_info


class Build(SynchronousTestCase):
    def test_kind(self) -> None:
        expected = os.environ.get("BORDER0_EXPECT_BUILD")
        self.assertEqual(build_info().kind, expected or "pure")
        if expected:  # only the environment that installs a wheel says what it expects
            self.assertIn("site-packages", border0.__file__)
            self.assertNotEqual(build_info().reason, "source tree")

    def test_twisted_keeps_its_own_plugin_package(self) -> None:
        ours = Path(border0.__file__).parent.parent / "twisted"
        if "site-packages" not in str(ours):
            self.assertFalse((ours / "__init__.py").exists())
            self.assertFalse((ours / "plugins" / "__init__.py").exists())
        self.assertIn("pluginPackagePaths", Path(twisted.plugins.__file__).read_text("utf-8"))
