"""twistd with WireGuard's rekey interval cut to seconds, so that a test sees many rekeys.

``python -m tests.support.quick_rekey -n border0-connector ...``: only the connector's own clock for
"this session is old" is changed, and only in this process; the protocol is the same.
"""

import importlib
import pkgutil
import sys

SECONDS = 2.0


def lower() -> None:
    """Set REKEY_AFTER_TIME wherever a module of the room has it."""
    room = importlib.import_module("border0.wireguard")
    for found in pkgutil.iter_modules(room.__path__):
        if found.name != "adapters":
            module = importlib.import_module(f"border0.wireguard.{found.name}")
            if hasattr(module, "REKEY_AFTER_TIME"):
                module.REKEY_AFTER_TIME = SECONDS  # type: ignore[attr-defined]


if __name__ == "__main__":
    from twisted.scripts.twistd import run

    lower()
    sys.argv[0] = "twistd"
    run()
