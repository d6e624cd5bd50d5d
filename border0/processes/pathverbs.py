"""What a process says of its ways to others: `debug peers`, `debug stats` and `netcheck`.

Each answer is what the tunnel's peering knows; a tunnel without one has peers of whose ways nothing
is known.
"""

from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from border0.processes import peeringstatus
from border0.processes.localsocket import Answer, Verb, refusal
from border0.processes.tunnel import Tunnel

# The refusal after which who asks looks for himself.
NOT_HERE = "none"


def of(tunnel: Tunnel, home: Path | None = None) -> dict[str, Verb]:
    """The verbs for a tunnel.

    :param home: the folder of a device, so that who asks knows that it is the one meant.
    """
    about: dict[str, Any] = {} if home is None else {"home": str(home)}

    def peers(request: dict[str, Any]) -> Answer:
        return {**about, **peeringstatus.peers(tunnel)}

    def stats(request: dict[str, Any]) -> Answer:
        return {**about, **peeringstatus.stats(tunnel)}

    def netcheck(request: dict[str, Any]) -> "Answer | Deferred[Answer]":
        if tunnel.peering is None:
            return refusal("this process does not ask STUN servers", NOT_HERE)
        asked = tunnel.peering.outside.ask_now()
        return asked.addCallback(lambda found: {**about, **peeringstatus.outside(found)})

    return {"debug peers": peers, "debug stats": stats, "netcheck": netcheck}
