"""The lean reactor, each time in a process of its own."""

import subprocess
import sys
import textwrap

from twisted.trial.unittest import SynchronousTestCase

HEAD = """
from border0.processes import lean
lean.install()
import threading
from twisted.internet import protocol, reactor
from twisted.internet.protocol import Factory, ClientFactory
from border0.proxies.adapters import writethrough

class Side(protocol.Protocol):
    def dataReceived(self, data):
        received(self, data)
    def connectionLost(self, reason):
        print("lost", flush=True)

port = writethrough.listen(reactor, 0, Factory.forProtocol(Side), interface="127.0.0.1")

class Caller(protocol.Protocol):
    def connectionMade(self):
        self.transport.write(b"ping")
    def dataReceived(self, data):
        print("answer", data.decode(), flush=True)
        answered()

def dial():
    factory = ClientFactory.forProtocol(Caller)
    writethrough.connect(reactor, "127.0.0.1", port.getHost().port, factory, 5)

reactor.callWhenRunning(dial)
"""


class Lean(SynchronousTestCase):
    if not sys.platform.startswith("linux"):
        skip = "epoll is Linux's"

    def run_script(self, script):
        done = subprocess.run(
            [sys.executable, "-c", HEAD + textwrap.dedent(script)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.split("\n")[:-1]

    def test_stop_from_within_a_read(self):
        out = self.run_script("""
            def received(side, data): side.transport.write(data)
            def answered(): reactor.stop()
            reactor.run()
            print("stopped")
        """)
        self.assertEqual(out[0], "answer ping")
        self.assertEqual(out[-1], "stopped")

    def test_stop_by_signal_while_idle(self):
        out = self.run_script("""
            import os, signal
            def received(side, data): side.transport.write(data)
            def answered(): threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
            reactor.run()
            print("stopped")
        """)
        self.assertEqual(out[-1], "stopped")

    def test_timers_and_threads_while_idle(self):
        out = self.run_script("""
            def received(side, data): side.transport.write(data)
            def answered():
                reactor.callLater(0.1, print, "timer", flush=True)
                wake = lambda: reactor.callFromThread(reactor.stop)
                reactor.callLater(0.2, threading.Thread(target=wake).start)
            reactor.run()
            print("stopped")
        """)
        self.assertIn("timer", out)
        self.assertEqual(out[-1], "stopped")

    def test_a_failing_protocol_loses_its_connection(self):
        out = self.run_script("""
            def received(side, data):
                reactor.callLater(0.2, reactor.stop)
                raise RuntimeError("broken")
            reactor.run()
        """)
        self.assertEqual(out, ["lost"])
