"""A ``tls`` socket passes any TCP; ping, closed ports and unknown keys get what they should."""

import hashlib
import os
import socket
import struct
import threading
import time

from tests.integration import spine
from tests.integration.spine import SpineCase
from tests.support.counterparts import requires
from tests.support.namespaces import Namespace, veth
from tests.support.tunnel import WireGuardClient

MEGABYTE = 1024 * 1024


def read_all(stream):
    """Read until the end; return the bytes' digest and their number."""
    digest, size = hashlib.sha256(), 0
    while block := stream.recv(256 * 1024):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


class StreamCase(SpineCase):
    def serve(self, conversation):
        """Accept one connection next to the connector and run a function on it in a thread."""
        outcome = []

        def run():
            self.stage.stream.settimeout(30)
            stream, _ = self.stage.stream.accept()
            with stream:
                stream.settimeout(60)
                outcome.append(conversation(stream))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 1)

        def result():
            thread.join(60)
            self.assertTrue(outcome, "the upstream's side of the conversation did not end")
            return outcome[0]

        return result

    def dial(self, address=spine.STREAM):
        stream = self.stage.dial(address, spine.STREAM_PORT)
        self.addCleanup(stream.close)
        stream.settimeout(60)
        return stream


@requires(*spine.COUNTERPARTS)
class AnyTCP(StreamCase):
    def exchange(self, address):
        data = os.urandom(8 * MEGABYTE)
        back = os.urandom(8 * MEGABYTE)

        def upstream(stream):
            seen = read_all(stream)  # ends at the client's half-close, the way back stays open
            stream.sendall(back)
            return seen

        result = self.serve(upstream)
        stream = self.dial(address)
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)
        self.assertEqual(read_all(stream), (hashlib.sha256(back).hexdigest(), len(back)))
        self.assertEqual(result(), (hashlib.sha256(data).hexdigest(), len(data)))

    def test_half_close_by_the_client_over_ipv4(self):
        self.exchange(spine.STREAM)

    def test_half_close_by_the_client_over_ipv6(self):
        self.exchange(spine.six(spine.STREAM))

    def test_half_close_by_the_upstream(self):
        data = os.urandom(2 * MEGABYTE)

        def upstream(stream):
            stream.sendall(b"all I have to say")
            stream.shutdown(socket.SHUT_WR)
            return read_all(stream)

        result = self.serve(upstream)
        stream = self.dial()
        self.assertEqual(read_all(stream)[1], 17)
        stream.sendall(data)
        stream.close()
        self.assertEqual(result(), (hashlib.sha256(data).hexdigest(), len(data)))

    def test_a_reset_by_the_upstream_reaches_the_client(self):
        def upstream(stream):
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

        self.serve(upstream)
        stream = self.dial()
        try:
            self.assertEqual(stream.recv(1), b"")
        except ConnectionResetError:
            pass

    def test_a_stalled_reader_stops_the_writer(self):
        written = []

        def upstream(stream):
            stream.settimeout(2)
            block = bytes(256 * 1024)
            try:
                while sum(written) < 400 * MEGABYTE:
                    written.append(stream.send(block))
            except TimeoutError:
                pass

        before = self.stage.connector.memory()
        result = self.serve(upstream)
        stream = self.dial()
        self.assertTrue(stream.recv(1))
        result()
        self.assertLess(sum(written), 64 * MEGABYTE)
        self.assertLess(self.stage.connector.memory() - before, 16 * MEGABYTE)

    def test_a_hundred_connections(self):
        def upstream(listener, count):
            def run():
                for _ in range(count):
                    stream, _ = listener.accept()
                    with stream:
                        stream.sendall(stream.recv(100))

            return threading.Thread(target=run, daemon=True)

        self.stage.stream.settimeout(30)
        thread = upstream(self.stage.stream, 100)
        thread.start()
        streams = [self.dial() for _ in range(100)]
        for number, stream in enumerate(streams):
            stream.sendall(b"%d" % number)
        for number, stream in enumerate(streams):
            self.assertEqual(stream.recv(100), b"%d" % number)
        thread.join(10)


@requires(*spine.COUNTERPARTS, "ping")
class TheNetwork(SpineCase):
    def test_ping_over_both_families(self):
        for address in (spine.WRITE, spine.six(spine.WRITE)):
            for size in ("56", "1200", "4000"):  # the last one travels in fragments
                argv = ["ping", "-n", "-c", "3", "-i", "0.2", "-W", "3", "-s", size, address]
                done = self.stage.client.run(argv)
                self.assertIn(" 0% packet loss", done.stdout, done.stdout + done.stderr)

    def test_a_port_without_a_service_gets_rst(self):
        for address in (spine.WRITE, spine.six(spine.WRITE)):
            started = time.monotonic()
            with self.assertRaises(ConnectionRefusedError):
                self.stage.dial(address, 4444)
            self.assertLess(time.monotonic() - started, 20)

    def test_an_unknown_key_gets_silence(self):
        self.stage.client.run(["ping", "-c", "1", spine.WRITE])
        elsewhere = Namespace()
        self.addCleanup(elsewhere.close)
        address, _ = veth(self.stage.server, elsewhere, 9)
        stranger = WireGuardClient(elsewhere, number=77)
        self.addCleanup(stranger.stop)
        stranger.start(self.stage.connector.public_key, f"{address}:32442")
        done = stranger.run(["ping", "-c", "3", "-W", "1", spine.WRITE])
        self.assertNotEqual(done.returncode, 0)
        received, sent = stranger.transfer()
        self.assertEqual(received, 0)
        self.assertGreater(sent, 0)

    def test_bytes_that_are_not_authentic_get_silence(self):
        with self.stage.home.inside():
            probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(probe.close)
        sizes = {1: 148, 2: 92, 3: 64, 4: 1452}
        for kind, size in sizes.items():
            head = struct.pack("<I", kind)
            for data in (head + os.urandom(size - 4), head, head + bytes(size - 4)):
                probe.sendto(data, (self.stage.address, 32442))
        for size in (0, 1, 3, 4, 31, 32, 1400):
            probe.sendto(os.urandom(size), (self.stage.address, 32442))
        # Whatever comes back would come before the answer to this, over the same wire.
        done = self.stage.client.run(["ping", "-c", "2", "-W", "3", spine.WRITE])
        self.assertEqual(done.returncode, 0, done.stdout)
        probe.settimeout(0.5)
        with self.assertRaises(TimeoutError):
            probe.recv(2000)
