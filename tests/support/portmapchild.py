"""Keeps a port of the gateway open and tells: ``python -m tests.support.portmapchild PORT``.

One JSON object a line: {"mapping": [protocol, host, port, lifetime] or null, "failure": text} at
each change, {"received": text} for each datagram at PORT. Words on standard input: refresh, stop.
"""

import json
import sys

from twisted.internet import reactor, stdio
from twisted.internet.protocol import DatagramProtocol
from twisted.protocols.basic import LineReceiver

from border0.paths.adapters.portmap import PortMapping


def say(**words):
    print(json.dumps(words), flush=True)


class Inside(DatagramProtocol):
    def datagramReceived(self, datagram, addr):
        say(received=datagram.decode("latin-1"), source=addr[0])


class Orders(LineReceiver):
    delimiter = b"\n"

    def lineReceived(self, line):
        if line == b"refresh":
            mapping.refresh()
        elif line == b"stop":
            mapping.stop().addCallback(lambda _: reactor.stop())


def changed(found):
    told = [found.protocol, found.host, found.port, found.lifetime] if found else None
    say(mapping=told, failure=mapping.failure)


port = int(sys.argv[1])
mapping = PortMapping(reactor, port, changed)
reactor.listenUDP(port, Inside())
stdio.StandardIO(Orders())
reactor.callWhenRunning(mapping.start)
reactor.run()
