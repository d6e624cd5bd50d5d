"""The benchmarks run: one short round each. Figures are for people, not asserted here."""

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.counterparts import requires, slow

ROOT = Path(__file__).resolve().parents[2]


class Benchmarks(SynchronousTestCase):
    timeout = 180

    def run_quickly(self, module, *options):
        done = subprocess.run(
            [sys.executable, "-m", module, "--quick", *options],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=150,
        )
        self.assertEqual(done.returncode, 0, done.stderr[-2000:])
        self.assertIn("border0", done.stdout)

    @slow
    @requires("postgresql-server", "pgbench", "pgbouncer", "haproxy", "psql")
    def test_postgres(self):
        self.run_quickly("bench.postgres")

    @slow
    @requires("namespaces", "tun", "wg", "wireguard-go")
    def test_dataplane(self):
        self.run_quickly("bench.dataplane")

    @slow
    @requires("namespaces", "tun", "wg", "wireguard-go", "ssh", "sshd", "sftp-server")
    def test_ssh_through_the_tunnel(self):
        self.run_quickly("bench.ssh", "--tunnel-only")

    @requires("haproxy")
    def test_relay(self):
        self.run_quickly("bench.relay")

    def test_push(self):
        self.run_quickly("bench.push")
