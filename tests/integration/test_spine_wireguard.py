"""What else a stock WireGuard may do: pre-shared keys, IPv6 underneath, roaming, many devices."""

import base64
import os
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import spine
from tests.integration.exchange import Echo, round_trip
from tests.support import children
from tests.support.connector import device, policy, tls
from tests.support.counterparts import requires
from tests.support.namespaces import Namespace, veth
from tests.support.stage import Stage
from tests.support.tunnel import WireGuardClient

MEGABYTE = 1 << 20


class Open(Stage):
    """An echo behind the connector; more devices may be added before ``prepare``."""

    def __init__(self):
        super().__init__()
        self.more = []
        self.echo = self.keep(Echo(self.listener()), "close")

    def prepare(self, **options):
        stream = tls("stream", 8, self.echo.listener.getsockname()[1], ["all"])
        stream["port"] = spine.STREAM_PORT
        configuration = {"policy": [policy("all", {"tls": {}})], "socket": [stream]}
        self.run_connector(configuration, more=tuple(self.more), **options)

    def guest(self, number, subnet, **options):
        """A further device in a namespace of its own; returns it and its endpoint's host."""
        home = self.keep(Namespace(), "close")
        address, _ = veth(self.server, home, subnet)
        return self.keep(WireGuardClient(home, number=number, **options), "stop"), address

    def pings(self, client, address=spine.STREAM):
        return client.run(["ping", "-c", "3", "-i", "0.3", "-W", "2", address]).returncode == 0


@requires(*spine.COUNTERPARTS, "ping")
class StockWireGuard(SynchronousTestCase):
    timeout = 90

    def setUp(self):
        self.stage = Open()
        self.addCleanup(self.stage.close)

    def test_a_preshared_key(self):
        stage = self.stage
        key = base64.b64encode(os.urandom(32)).decode()
        right, address = stage.guest(5, 5, preshared_key=key)
        wrong, other = stage.guest(
            6, 6, preshared_key=base64.b64encode(bytes(reversed(range(32)))).decode()
        )
        for name, client in (("right", right), ("wrong", wrong)):
            stage.more.append(
                device(
                    name, client.public_key, client.addresses, preshared_key="from:env:DEVICE_PSK"
                )
            )
        stage.prepare(environment={"DEVICE_PSK": key, "SHOP_PW": "unused"})
        right.start(stage.connector.public_key, f"{address}:32442")
        wrong.start(stage.connector.public_key, f"{other}:32442")
        self.assertTrue(stage.pings(right))
        self.assertFalse(stage.pings(wrong))
        self.assertEqual(wrong.last_handshake(), 0)
        self.assertTrue(stage.pings(stage.client))

    def test_ipv6_underneath(self):
        guest, _ = self.stage.guest(5, 5)
        self.stage.more.append(device("guest", guest.public_key, guest.addresses))
        self.stage.prepare()
        guest.start(self.stage.connector.public_key, "[fd00:0:0:5::1]:32442")
        self.assertTrue(self.stage.pings(guest))
        self.assertTrue(self.stage.pings(guest, spine.six(spine.STREAM)))

    def test_a_source_address_of_another_device_is_dropped(self):
        guest, address = self.stage.guest(5, 5)
        self.stage.more.append(device("guest", guest.public_key, guest.addresses))
        self.stage.prepare()
        guest.addresses = [*guest.addresses, "100.64.0.2/32"]  # alice's
        guest.start(self.stage.connector.public_key, f"{address}:32442")
        self.assertTrue(self.stage.pings(guest))
        argv = ["ping", "-I", "100.64.0.2", "-c", "2", "-W", "1", spine.STREAM]
        self.assertNotEqual(guest.run(argv).returncode, 0)

    def test_roaming_in_mid_transfer(self):
        stage = self.stage
        stage.prepare()
        with stage.dial(spine.STREAM, spine.STREAM_PORT) as stream:
            stream.settimeout(60)

            def roam():
                time.sleep(2)
                # a new source address, and a new port with it
                link = stage.home.run(["ip", "-br", "link", "show", "type", "veth"]).stdout
                name = link.split("@")[0]
                stage.home.ip("addr", "del", "198.18.1.2/24", "dev", name)
                stage.home.ip("addr", "add", "198.18.1.77/24", "dev", name)
                stage.client.wg("set", stage.client.interface, "listen-port", "45454")

            thread = threading.Thread(target=roam, daemon=True)
            thread.start()
            self.assertTrue(round_trip(stream, 8 * MEGABYTE, seconds=6))
            thread.join(10)
        self.assertEqual(stage.echo.connections, 1)
        saved = stage.connector.state / "endpoints.json"
        stage.connector.end()
        children.wait_until(saved.exists, 30, "endpoints are stored")
        self.assertIn("45454", saved.read_text())

    def test_ten_devices_at_once(self):
        stage = self.stage
        guests = [stage.guest(10 + n, 10 + n) for n in range(9)]
        for number, (guest, _) in enumerate(guests):
            stage.more.append(device(f"guest-{number}", guest.public_key, guest.addresses))
        stage.prepare()
        for guest, address in guests:
            guest.start(stage.connector.public_key, f"{address}:32442")
        results = {}

        def run(number, namespace):
            import socket

            with namespace.inside():
                stream = socket.create_connection((spine.STREAM, spine.STREAM_PORT), 20)
            with stream:
                stream.settimeout(40)
                results[number] = round_trip(stream, MEGABYTE)

        threads = [
            threading.Thread(target=run, args=(number, client.namespace), daemon=True)
            for number, client in enumerate([stage.client, *(guest for guest, _ in guests)])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(results, dict.fromkeys(range(10), True))
