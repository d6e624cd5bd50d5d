"""A message bus of our own: the real `dbus-daemon`, with sockets where a test wants them."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

from tests.support import children

CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  {listen}
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
    <allow user="*"/>
  </policy>
</busconfig>
"""


class PrivateBus:
    """A running bus at `address`, and at `also`, paths as the started daemon sees them.

    `start`: runs a command line as `children.spawn` does, for another namespace than ours.
    """

    def __init__(
        self,
        start: Callable[..., subprocess.Popen[bytes]] = children.spawn,
        also: str = "",
    ) -> None:
        # Not the test's own folder: a socket's path is short.
        self.folder = Path(tempfile.mkdtemp(prefix="b0bus"))
        self.address = f"unix:path={self.folder}/bus"
        addresses = [self.address, *([f"unix:path={also}"] if also else [])]
        listen = "".join(f"<listen>{escape(one)}</listen>" for one in addresses)
        file = self.folder / "bus.conf"
        file.write_text(CONFIGURATION.format(listen=listen))
        argv = ["dbus-daemon", f"--config-file={file}", "--nofork", "--print-address"]
        log = self.folder / "log"
        with open(log, "wb") as complaints:
            self._child = start(argv, stdout=subprocess.PIPE, stderr=complaints)
        assert self._child.stdout is not None
        if not self._child.stdout.readline().startswith(b"unix:"):
            text = log.read_text()
            self.close()
            raise AssertionError(f"dbus-daemon did not start: {text}")

    def close(self) -> None:
        """End the daemon; whoever is connected notices."""
        children.end(self._child)
        shutil.rmtree(self.folder, ignore_errors=True)
