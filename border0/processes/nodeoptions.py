"""The command line of a node: whose device it is, and what it does to this machine."""

import os
from pathlib import Path

from border0.keys import load_private_key
from border0.node.config import ClientConfig, load
from border0.node.followed import Place, find_place
from border0.processes.options import ProcessOptions


class Options(ProcessOptions):
    """The command line of `twistd border0-node`."""

    program = "border0-node"
    synopsis = "[--home DIR] [--config FILE] [options]"
    longdesc = (
        "Keeps this device's tunnel open: programs reach services with border0 client or, with "
        "--tun (Linux, root), directly through an interface."
    )
    optParameters = [
        ["home", None, None, "The device's folder (BORDER0_HOME; ~/.border0)."],
        ["config", "c", None, "The device's file (HOME/client.toml)."],
        ["interface", None, "border0", "What --tun calls its interface."],
    ]
    optFlags = [
        ["tun", None, "Make an interface with routes and names for every program."],
        ["no-dns", None, "With --tun: leave this machine's resolver alone."],
    ]

    home: Path
    loaded: Place | ClientConfig

    def postOptions(self) -> None:
        """Find the folder and the file in it."""
        chosen = self["home"] or os.environ.get("BORDER0_HOME") or Path.home() / ".border0"
        self.home = Path(chosen).absolute()
        self["config"] = str(Path(self["config"] or self.home / "client.toml").absolute())
        super().postOptions()

    @property
    def file(self) -> Path:
        """The device's file."""
        return Path(self["config"])

    def load(self, path: Path) -> Place | ClientConfig:
        """Read the file, and see that the key is there."""
        loaded = find_place(path) or load(path)
        load_private_key(loaded.private_key_file, create=False)
        return loaded

    def told(self) -> str:
        """Whom it follows, or what stands in it."""
        if isinstance(self.loaded, ClientConfig):
            return f"device {self.loaded.name!r} with {len(self.loaded.services)} services"
        return "device that follows a control plane"
