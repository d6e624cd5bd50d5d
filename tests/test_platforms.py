"""Every module can be imported where it does not run: a platform's calls stay behind adapters."""

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

# Third parties are imported on the real platform first; only our own modules see the other one.
SCRIPT = """
import importlib, pkgutil, sys, types
import border0
names = [m.name for m in pkgutil.walk_packages(border0.__path__, "border0.")]
for name in names:
    importlib.import_module(name)
for name in [n for n in sys.modules if n == "border0" or n.startswith("border0.")]:
    del sys.modules[name]
sys.platform = sys.argv[1]
for name in sys.argv[2:]:
    # "+name" is a module that only the other platform has, "-name" one that it lacks
    sys.modules[name[1:]] = types.ModuleType(name[1:]) if name[0] == "+" else None
for module in names:
    importlib.import_module(module)
print(len(names))
"""


class Platforms(SynchronousTestCase):
    def importable(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=120
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(int(done.stdout), 100)

    def test_macos(self) -> None:
        self.importable("darwin")

    def test_windows(self) -> None:
        self.importable("win32", "-fcntl", "-pgparse", "+msvcrt")
