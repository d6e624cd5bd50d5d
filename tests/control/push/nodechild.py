"""A node in a process of its own: PORT CA NODE FILE; the file holds its map and may be there."""

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from border0.control.push.client import MapClient
from border0.control.push.events import Applied
from border0.control.push.nodemap import NodeMap
from tests.control.push.stage import connect_to, key_of

port, authority, name, file = sys.argv[1:]
path = Path(file)
state = NodeMap.load(path.read_bytes()) if path.exists() else None
machine = MapClient(name, key_of(name).sign, state)


def happened(events: list[Any]) -> None:
    if any(isinstance(event, Applied) for event in events):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(machine.map.dump())
        os.replace(fresh, path)


connect_to(int(port), Path(authority).read_bytes(), name, happened, machine=machine).startService()
reactor.run()  # type: ignore[attr-defined]
