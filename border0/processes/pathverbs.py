"""What a process says of its ways to others: `debug peers`, `debug stats` and `netcheck`.

Each answer is what the tunnel's peering knows; a tunnel without one has peers of whose ways nothing
is known.
"""

import time
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from border0.processes.localsocket import Answer, Verb, refusal
from border0.processes.tunnel import Tunnel

# The refusal after which who asks looks for himself.
NOT_HERE = "none"


def of(tunnel: Tunnel, home: Path | None = None) -> dict[str, Verb]:
    """The verbs for a tunnel.

    :param home: the folder of a device, so that who asks knows that it is the one meant.
    """
    about: dict[str, Any] = {} if home is None else {"home": str(home)}

    def peering() -> Any:
        return getattr(tunnel, "peering", None)

    def peers(request: dict[str, Any]) -> Answer:
        found = peering()
        listed = [] if found is None else found.peers()
        return {**about, "now": time.time(), "peers": listed}

    def stats(request: dict[str, Any]) -> Answer:
        found = peering()
        return {**about, **({"port": tunnel.port} if found is None else found.stats())}

    def netcheck(request: dict[str, Any]) -> "Answer | Deferred[Answer]":
        found = peering()
        if found is None:
            return refusal("this process does not ask STUN servers", NOT_HERE)
        # It may ask its servers anew before it answers.
        return maybeDeferred(found.netcheck).addCallback(lambda answer: {**about, **answer})

    return {"debug peers": peers, "debug stats": stats, "netcheck": netcheck}
