"""OpenSSH's client through the proxy to OpenSSH's server: what people and their tools do."""

import os
import pty
import select
import signal
import socket
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tests.integration.ssh_case import COUNTERPARTS, MEGABYTE, SSHCase
from tests.support.children import wait_until
from tests.support.counterparts import requires
from tests.support.openssh import options


def read_until(fd, text, seconds=15.0):
    """What a terminal shows until it shows `text`."""
    shown = b""
    end = time.monotonic() + seconds
    while text not in shown:
        left = end - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            raise AssertionError(f"{text!r} not in {shown!r}")
        shown += os.read(fd, 65536)
    return shown


@requires(*COUNTERPARTS)
class Commands(SSHCase):
    def test_streams_are_apart_and_the_status_is_passed_on(self):
        done = self.ssh(self.shared, "cat; echo problem >&2; exit 7", stdin=b"hello\n")
        self.assertEqual((done.returncode, done.stdout), (7, b"hello\n"))
        self.assertEqual(done.stderr, b"problem\n")

    def test_a_signal_ends_the_command(self):
        done = self.ssh(self.shared, "kill -TERM $$")
        self.assertEqual(done.returncode, 255)
        self.assertEqual(self.ssh(self.shared, "true").returncode, 0)

    def test_the_client_needs_no_key_and_no_password(self):
        done = self.ssh(
            self.shared,
            "echo in",
            settings=("PreferredAuthentications=none", "BatchMode=yes"),
        )
        self.assertEqual(done.stdout, b"in\n")

    def test_a_key_that_the_client_offers_is_accepted(self):
        for kind in ("ed25519", "rsa"):
            from tests.support.openssh import keygen

            key = keygen(self.folder() / "key", kind)
            done = self.ssh(
                self.shared,
                "-i",
                str(key),
                "echo in",
                settings=("PreferredAuthentications=publickey", "BatchMode=yes"),
            )
            self.assertEqual(done.stdout, b"in\n", done.stderr)

    def test_short_input_always_arrives_before_its_end(self):
        for _ in range(10):
            self.assertEqual(self.ssh(self.shared, "cat", stdin=b"hi\n").stdout, b"hi\n")

    def test_thirty_megabytes_each_way_with_new_keys_every_megabyte(self):
        data = os.urandom(30 * MEGABYTE)
        done = self.ssh(self.shared, "cat", stdin=data, settings=("RekeyLimit=1M",))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(done.stdout == data)

    def test_new_keys_at_our_own_wish(self):
        proxy = self.proxy(rekey_bytes=500_000)
        data = os.urandom(10 * MEGABYTE)
        done = self.ssh(proxy, "-v", "cat", stdin=data, settings=("LogLevel=DEBUG1",))
        self.assertTrue(done.stdout == data, done.stderr[-500:])
        self.assertGreater(done.stderr.count(b"SSH2_MSG_NEWKEYS received"), 10)

    def test_environment_and_language(self):
        done = self.ssh(
            self.shared, "echo $LC_MARK $MARK", settings=("SetEnv=LC_MARK=one MARK=two",)
        )
        self.assertEqual(done.stdout, b"one two\n")

    def test_twenty_sessions_at_once(self):
        def one(number):
            data = os.urandom(100_000)
            done = self.ssh(self.shared, f"cat; exit {number}", stdin=data)
            return done.returncode == number and done.stdout == data

        with ThreadPoolExecutor(20) as pool:
            self.assertEqual(list(pool.map(one, range(20))), [True] * 20)

    def test_many_channels_on_one_connection(self):
        control = self.folder() / "control"
        master = self.spawn(
            self.shared, "-N", "-M", "-S", str(control), "alice@127.0.0.1", stdin=subprocess.DEVNULL
        )
        wait_until(control.exists, 15, "the master is there")

        def one(number):
            argv = ["ssh", "-F", "/dev/null", "-S", str(control), "alice@127.0.0.1"]
            done = subprocess.run(
                [*argv, f"cat; exit {number}"],
                input=b"x" * 70_000,
                capture_output=True,
                timeout=60,
                check=False,
            )
            return done.returncode == number and len(done.stdout) == 70_000

        with ThreadPoolExecutor(10) as pool:
            self.assertEqual(list(pool.map(one, range(30))), [True] * 30)
        self.assertIsNone(master.poll())

    def test_other_algorithms(self):
        for settings in (
            ("Ciphers=aes128-ctr", "MACs=hmac-sha2-256"),
            ("Ciphers=aes192-ctr", "MACs=hmac-sha2-512"),
            ("Ciphers=aes256-ctr", "MACs=hmac-sha2-256-etm@openssh.com"),
            ("Ciphers=aes256-ctr", "MACs=hmac-sha2-512-etm@openssh.com"),
            ("Ciphers=aes256-gcm@openssh.com",),
            ("KexAlgorithms=ecdh-sha2-nistp256",),
            ("KexAlgorithms=ecdh-sha2-nistp521", "HostKeyAlgorithms=rsa-sha2-512"),
        ):
            data = os.urandom(2 * MEGABYTE)
            done = self.ssh(self.shared, "cat", stdin=data, settings=(*settings, "RekeyLimit=500K"))
            self.assertTrue(done.stdout == data, (settings, done.stderr))

    def test_old_algorithms_are_not_offered(self):
        for setting in ("Ciphers=aes128-cbc", "MACs=hmac-sha1", "HostKeyAlgorithms=ssh-rsa"):
            cipher = ("Ciphers=aes128-ctr",) if setting.startswith("MACs") else ()
            done = self.ssh(self.shared, "true", settings=(setting, *cipher))
            self.assertEqual(done.returncode, 255)
            self.assertIn(b"no algorithm", done.stderr)

    def test_strict_key_exchange(self):
        done = self.ssh(self.shared, "-v", "true", settings=("LogLevel=DEBUG3",))
        self.assertIn(b"resetting send seqnr", done.stderr)


@requires(*COUNTERPARTS, "terminals")
class Terminals(SSHCase):
    def shell(self, proxy, *arguments, settings=()):
        near, far = pty.openpty()
        self.addCleanup(os.close, near)
        size(near, 33, 101)
        child = self.spawn(
            proxy,
            "-tt",
            "alice@127.0.0.1",
            *arguments,
            settings=settings,
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
        )
        os.close(far)
        return child, near

    def test_a_shell_with_resize_and_ctrl_c(self):
        proxy = self.proxy()
        child, fd = self.shell(proxy)
        os.write(fd, b"PS1=; stty -echo; echo rea''dy\n")
        read_until(fd, b"ready")
        os.write(fd, b"stty size\n")
        read_until(fd, b"33 101")
        size(fd, 50, 132)
        child.send_signal(signal.SIGWINCH)
        wait_until(lambda: self.sized(fd, b"50 132"), 30, "the size has arrived", 0.1)
        trap = b"trap 'echo ca''ught; exit 5' INT; echo ar''med; while :; do sleep 1; done"
        os.write(fd, b'exec sh -c "' + trap + b'"\n')
        read_until(fd, b"armed")
        os.write(fd, b"\x03")
        read_until(fd, b"caught")
        self.assertEqual(child.wait(15), 5)
        end = self.wait_for_record(proxy, type="ssh.exit")
        self.assertEqual(end["exit_status"], 5)

    @staticmethod
    def sized(fd, text):
        os.write(fd, b"stty size\n")
        return text in read_until(fd, b"\n")

    def test_a_client_that_is_killed_takes_its_shell_along(self):
        proxy = self.proxy()
        child, fd = self.shell(proxy, "echo pid $$.; exec sleep 1000")
        shown = read_until(fd, b".")
        pid = int(shown.split(b"pid ")[1].split(b".")[0])
        child.kill()
        child.wait()
        wait_until(lambda: not alive(pid), 15, "the command has ended")
        end = self.wait_for_record(proxy, type="session.end")
        self.assertEqual(end["status"], "client vanished")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def size(fd, rows, columns):
    import fcntl
    import termios

    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@requires(*COUNTERPARTS)
class Files(SSHCase):
    def test_scp_in_both_modes_and_directions(self):
        for mode in ("-O", "-s"):
            folder = self.folder()
            source = self.file(folder, 5 * MEGABYTE)
            there, back = folder / "there", folder / "back"
            target = f"alice@127.0.0.1:{there}"
            done = self.run_tool("scp", self.shared, mode, str(source), target)
            self.assertEqual(done.returncode, 0, done.stderr)
            done = self.run_tool("scp", self.shared, mode, target, str(back))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(back.read_bytes() == source.read_bytes())

    def test_sftp(self):
        proxy = self.proxy()
        folder = self.folder()
        source = self.file(folder, 3 * MEGABYTE)
        batch = (
            f"put {source} {folder}/one\nrename {folder}/one {folder}/two\nmkdir {folder}/sub\n"
            f"get {folder}/two {folder}/back\nls {folder}\nrm {folder}/two\nrmdir {folder}/sub\n"
            f"-get {folder}/none {folder}/none\nchmod 600 {folder}/back\n"
        )
        done = self.run_tool("sftp", proxy, "-b", "-", "alice@127.0.0.1", stdin=batch.encode())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue((folder / "back").read_bytes() == source.read_bytes())
        self.wait_for_record(proxy, type="session.end")
        told = [
            (r["type"], r["path"].replace(str(folder), ""), r["result"])
            for r in proxy.records()
            if r["type"].startswith("sftp.")
        ]
        for event in (
            ("sftp.open", "/one", "ok"),
            ("sftp.close", "/one", "ok"),
            ("sftp.rename", "/one", "ok"),
            ("sftp.mkdir", "/sub", "ok"),
            ("sftp.remove", "/two", "ok"),
            ("sftp.rmdir", "/sub", "ok"),
            ("sftp.setstat", "/back", "ok"),
            ("sftp.list", "/", "ok"),
        ):
            self.assertIn(event, told)
        closed = proxy.records("sftp.close")
        self.assertEqual([r["written"] for r in closed if "/one" in r["path"]], [3 * MEGABYTE])
        self.assertEqual([r["read"] for r in closed if "/two" in r["path"]], [3 * MEGABYTE])

    @requires("rsync")
    def test_rsync(self):
        folder = self.folder()
        (folder / "tree").mkdir()
        for number in range(20):
            self.file(folder / "tree", 1000 * number, f"f {number}")
        shell = " ".join(["ssh", *options(self.shared.port)])
        for _ in range(2):
            argv = ["rsync", "-a", "-e", shell, f"{folder}/tree/", f"alice@127.0.0.1:{folder}/copy"]
            done = subprocess.run(argv, capture_output=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
        for path in (folder / "tree").iterdir():
            self.assertEqual(path.read_bytes(), (folder / "copy" / path.name).read_bytes())


class Echo:
    """A service next to the upstream."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    @staticmethod
    def serve(connection):
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def close(self):
        self.socket.close()


@requires(*COUNTERPARTS)
class Forwarding(SSHCase):
    def setUp(self):
        self.echo = Echo()
        self.addCleanup(self.echo.close)

    def test_w(self):
        target = f"127.0.0.1:{self.echo.port}"
        child = self.spawn(self.shared, "-W", target, "alice@127.0.0.1")
        child.stdin.write(b"through\n")
        child.stdin.flush()
        self.assertEqual(child.stdout.readline(), b"through\n")

    def test_l(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.spawn(
            self.shared,
            "-N",
            "-L",
            f"127.0.0.1:{port}:127.0.0.1:{self.echo.port}",
            "alice@127.0.0.1",
        )

        def connected():
            try:
                return socket.create_connection(("127.0.0.1", port), 5)
            except ConnectionRefusedError:
                return None

        wait_until(lambda: connected() is not None, 15, "the forward listens")
        data = os.urandom(3 * MEGABYTE)
        raw = connected()
        self.addCleanup(raw.close)
        sender = threading.Thread(target=raw.sendall, args=(data,))
        sender.start()
        got = b""
        while len(got) < len(data):
            got += raw.recv(65536)
        sender.join()
        self.assertTrue(got == data)

    def test_remote_forwarding_x11_and_agent_are_refused_and_the_session_lives(self):
        policy = {"permissions": {"ssh": {"exec": {}}}}
        proxy = self.proxy(policy)
        done = self.ssh(
            proxy, "-R", "0:127.0.0.1:1", "echo alive; exit 3", settings=("LogLevel=INFO",)
        )
        self.assertEqual((done.returncode, done.stdout), (3, b"alive\n"))
        self.assertIn(b"remote port forwarding failed", done.stderr)
        done = self.ssh(proxy, "-X", "echo alive", settings=("XAuthLocation=/bin/true",))
        self.assertEqual(done.stdout, b"alive\n")
        self.wait_for_record(proxy, type="ssh.listen", result="denied")


@requires(*COUNTERPARTS)
class Trouble(SSHCase):
    def test_a_broken_pipe_ends_the_command(self):
        done = subprocess.run(
            ["sh", "-c", '"$@" yes | head -c 100', "sh",
             *self.command(self.shared, "alice@127.0.0.1")],
            capture_output=True,
            timeout=30,
            check=False,
        )  # fmt: skip
        self.assertEqual(done.stdout, b"y\n" * 50)

    def test_the_upstream_is_killed(self):
        proxy = self.proxy()
        child = self.spawn(proxy, "alice@127.0.0.1", "kill -9 $PPID")
        _, complaint = child.communicate(timeout=20)
        self.assertEqual(child.returncode, 255)
        self.assertIn(b"the upstream closed the connection", complaint)
        end = self.wait_for_record(proxy, type="session.end")
        self.assertEqual(end["status"], "upstream closed")

    def test_a_stalled_reader_leaves_memory_flat(self):
        proxy = self.proxy()
        self.ssh(proxy, "true")
        before = proxy.rss()
        child = self.spawn(proxy, "alice@127.0.0.1", "head -c 400000000 /dev/zero; echo done >&2")
        time.sleep(4)
        self.assertIsNone(child.poll())
        self.assertLess(proxy.rss() - before, 16 * MEGABYTE)
        count = 0
        while piece := child.stdout.read(1 << 20):
            count += len(piece)
        self.assertEqual(count, 400_000_000)
        self.assertLess(proxy.rss() - before, 24 * MEGABYTE)

    def test_a_stalled_command_leaves_memory_flat(self):
        proxy = self.proxy()
        self.ssh(proxy, "true")
        before = proxy.rss()
        child = self.spawn(proxy, "alice@127.0.0.1", "sleep 4; wc -c", stdin=subprocess.PIPE)
        feeder = threading.Thread(target=self.feed, args=(child, 400))
        feeder.start()
        time.sleep(3)
        self.assertLess(proxy.rss() - before, 16 * MEGABYTE)
        feeder.join()
        self.assertEqual(child.stdout.read().strip(), b"400000000")

    @staticmethod
    def feed(child, megabytes):
        block = bytes(MEGABYTE)
        for _ in range(megabytes):
            child.stdin.write(block)
        child.stdin.close()

    def test_the_longest_time_is_over(self):
        proxy = self.proxy(
            {"permissions": {"ssh": {"exec": {}, "max_session_duration_seconds": 1}}}
        )
        done = self.ssh(proxy, "sleep 30")
        self.assertEqual(done.returncode, 255)
        self.assertIn(b"longest time", done.stderr)
        self.assertEqual(self.wait_for_record(proxy, type="session.end")["status"], "session limit")

    def test_a_recorder_that_fails_ends_the_session(self):
        proxy = self.proxy(recorder_fails=True)
        done = self.ssh(proxy, "sleep 30")
        self.assertEqual(done.returncode, 255)
        self.assertIn(b"the disk is full", done.stderr)

    def test_stopping_tells_the_client(self):
        proxy = self.proxy()
        child = self.spawn(proxy, "alice@127.0.0.1", "echo here; sleep 30")
        self.assertEqual(child.stdout.readline(), b"here\n")
        proxy.process.terminate()
        _, complaint = child.communicate(timeout=15)
        self.assertIn(b"the connector stops", complaint)
