"""SSH as a user meets it: OpenSSH, a stock WireGuard client, the real connector, a real sshd."""

import hashlib
import os
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.support import children
from tests.support.connector import policy
from tests.support.counterparts import requires
from tests.support.openssh import OpenSSHServer, options
from tests.support.stage import Stage, shared

COUNTERPARTS = ("namespaces", "tun", "wg", "wireguard-go", "ssh", "sshd", "sftp-server")
BUILT_IN = "connector_built_in_ssh_service"


def socket(name, number, policies, configuration):
    return {
        "name": name,
        "socket_type": "ssh",
        "private_network_ipv4": f"100.126.0.{number}",
        "private_network_ipv6": f"fd62:6f72:6465:7231::{number:x}",
        "policies": policies,
        "upstream_configuration": {
            "service_type": "ssh",
            "ssh_service_configuration": configuration,
        },
    }


class Scene(Stage):
    def __init__(self):
        super().__init__()
        self.sshd = self.keep(OpenSSHServer(namespace=self.server), "stop")
        self.sshd.port = 2222
        self.sshd.start()
        standard = {
            "hostname": "127.0.0.1",
            "port": 2222,
            "ssh_authentication_type": "private_key",
            "private_key_auth_configuration": {
                "username": self.sshd.user,
                "private_key": f"from:file:{self.sshd.user_key}",
            },
            "host_keys": [self.sshd.public_key],
        }
        to_server = {
            "ssh_service_type": "standard",
            "standard_ssh_service_configuration": standard,
        }
        self.run_connector(
            {
                "local": {"allow": [BUILT_IN]},
                "policy": [
                    policy("all", {"ssh": {}}, {"who": {"group": ["eng"]}}),
                    policy("some", {"ssh": {"exec": {"commands": ["echo [a-z]+"]}}}),
                    policy("finance", {"ssh": {}}, {"who": {"group": ["finance"]}}),
                ],
                "socket": [
                    socket("web", 1, ["all"], to_server),
                    socket("some", 2, ["some"], to_server),
                    socket("closed", 3, ["finance"], to_server),
                    socket("here", 4, ["all"], {"ssh_service_type": BUILT_IN}),
                ],
            }
        )

    def ssh(self, *arguments, host="100.126.0.1", stdin=b"", settings=()):
        argv = ["ssh", *options(22, "/dev/null", *settings), f"alice@{host}", *arguments]
        with self.client.namespace.inside():
            return subprocess.run(argv, input=stdin, capture_output=True, timeout=60, check=False)


@requires(*COUNTERPARTS)
class Tunnel(SynchronousTestCase):
    timeout = 120

    def setUp(self):
        self.stage = shared(Scene)

    def test_a_command_over_both_families(self):
        for host in ("100.126.0.1", "fd62:6f72:6465:7231::1"):
            done = self.stage.ssh("cat; exit 7", host=host, stdin=b"hello")
            self.assertEqual((done.returncode, done.stdout), (7, b"hello"), done.stderr)

    def test_thirty_megabytes_each_way(self):
        data = os.urandom(30_000_000)
        done = self.stage.ssh("cat", stdin=data, settings=("RekeyLimit=1M",))
        self.assertEqual(
            hashlib.sha256(done.stdout).digest(), hashlib.sha256(data).digest(), done.stderr
        )

    def test_a_refusal_and_its_record(self):
        done = self.stage.ssh("id", host="100.126.0.2")
        self.assertIn(b'policy "some" does not permit this command', done.stderr)
        self.assertEqual(self.stage.ssh("echo fine", host="100.126.0.2").stdout, b"fine\n")
        line = self.stage.connector.wait_for_audit(type="ssh.exec", result="denied")
        self.assertEqual((line["policy"], line["command"]), ("some", "id"))
        self.assertEqual(line["actor"]["user"], "alice@example.org")

    def test_who_may_not_in_reads_why(self):
        done = self.stage.ssh("id", host="100.126.0.3")
        self.assertEqual(done.returncode, 255)
        self.assertIn(b'policy "finance" does not apply', done.stderr)

    def test_the_connector_s_own_shell(self):
        done = self.stage.ssh("echo $HOME", host="100.126.0.4")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout.startswith(b"/"))
        self.assertNotIn(b"canary", self.stage.ssh("env", host="100.126.0.4").stdout)

    def test_a_terminal_is_recorded(self):
        self.stage.ssh("-tt", "echo on the terminal")
        state = self.stage.connector.state

        def shown():
            casts = state.glob("recordings/*/*/*/*.cast")
            return any("on the terminal" in path.read_text() for path in casts)

        children.wait_until(shown, 30, "the recording is there")
