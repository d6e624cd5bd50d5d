"""A real sshd, the SSH proxy as a process in front of it, OpenSSH's programs as clients."""

import atexit
import functools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.ssh_proxy import EVERYTHING, ProxyProcess
from tests.support.children import wait_until
from tests.support.openssh import OpenSSHServer, options, program

COUNTERPARTS = ("ssh", "sshd", "sftp", "sftp-server")
MEGABYTE = 1_000_000


def ssh(**permissions):
    """A policy document about SSH."""
    return {"permissions": {"ssh": permissions}}


@functools.cache
def shared_server():
    """An sshd for the rest of the test process."""
    server = OpenSSHServer().start()
    atexit.register(server.stop)
    return server


@functools.cache
def shared_proxy():
    """A proxy that permits everything, for the rest of the test process."""
    proxy = ProxyProcess(shared_server().upstream(), {"all": EVERYTHING})
    atexit.register(proxy.stop)
    return proxy


class SSHCase(SynchronousTestCase):
    """Shared server and proxy; a proxy of its own for each test that asks for one."""

    timeout = 120

    @property
    def server(self):
        return shared_server()

    @property
    def shared(self):
        return shared_proxy()

    def proxy(self, policy=EVERYTHING, upstream=None, **more):
        policies = policy if "permissions" not in policy else {"eng": policy}
        proxy = ProxyProcess(upstream or self.server.upstream(), policies, **more)
        self.addCleanup(proxy.stop)
        return proxy

    def command(self, proxy, *arguments, settings=(), name="ssh"):
        argv = [program(name), *options(proxy.port, "/dev/null", *settings)]
        return [*argv, *arguments]

    def ssh(self, proxy, *arguments, settings=(), stdin=b"", timeout=60):
        return subprocess.run(
            self.command(proxy, "alice@127.0.0.1", *arguments, settings=settings),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def spawn(self, proxy, *arguments, settings=(), **streams):
        streams = {
            "stdin": subprocess.PIPE,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        } | streams
        child = subprocess.Popen(self.command(proxy, *arguments, settings=settings), **streams)
        self.addCleanup(self.end, child)
        return child

    @staticmethod
    def end(child):
        if child.poll() is None:
            child.send_signal(signal.SIGKILL)
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass

    def run_tool(self, name, proxy, *arguments, settings=(), stdin=b"", timeout=60):
        return subprocess.run(
            self.command(proxy, *arguments, settings=settings, name=name),
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
        )

    def folder(self):
        path = Path(tempfile.mkdtemp(prefix="border0-ssh-test-"))
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path

    def file(self, folder, size, name="data"):
        path = folder / name
        path.write_bytes(os.urandom(size))
        return path

    def dial(self, proxy):
        raw = socket.create_connection(("127.0.0.1", proxy.port), 20)
        self.addCleanup(raw.close)
        return raw

    def wait_for_record(self, proxy, **wanted):
        def found():
            return [
                record
                for record in proxy.records()
                if all(record.get(key) == wanted[key] for key in wanted)
            ]

        wait_until(found, 30, f"a record with {wanted}", 0.05)
        return found()[-1]
