"""`border0 client` through a real connector, run by a user without privileges."""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from tests.integration.client_stage import ClientCase, Flood
from tests.support import children
from tests.support.client import stranger
from tests.support.counterparts import requires

MEGABYTE = 1 << 20
BULK = random.Random(1).randbytes(20 * MEGABYTE)
DATABASE = ("postgresql-server", "psql")
NONSENSE = """
import socket, sys
for line in (
    b'hello\\n', b'[]\\n', b'{}\\n', b'x' * 100000, b'{"connect": 1}\\n', b'',
    b'{"connect": "echo", "rider": 99}\\n', b'{"ride": true}\\n', b'{"ride": true',
):
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    try:
        s.sendall(line)
        s.shutdown(1)
        s.recv(4096)
    except OSError:
        pass
    s.close()
"""


def read_line(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().decode()


class Case(ClientCase):
    def listening(self, *words: str, **options: Any) -> tuple[subprocess.Popen[bytes], str]:
        """Start a listener; return it and where it says it listens."""
        child = self.home.spawn(*words, **options)
        self.addCleanup(children.end, child, signal.SIGKILL)
        line = read_line(child)
        self.assertIn(" until Ctrl-C", line)
        return child, line.split(" is at ")[1].split()[0]

    def dial(self, where: str) -> socket.socket:
        host, _, port = where.rpartition(":")
        if host == "unix":
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(30)
            connection.connect(port)
        else:
            connection = socket.create_connection((host.strip("[]"), int(port)), 30)
        self.addCleanup(connection.close)
        return connection

    def exchange(self, connection: socket.socket, data: bytes) -> bytes:
        """Send everything with half-close while reading everything."""

        def send() -> None:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        parts = []
        while part := connection.recv(1 << 20):
            parts.append(part)
        sender.join(30)
        return b"".join(parts)


@requires(*DATABASE)
class StandardInputAndOutput(Case):
    def test_20_megabytes_each_way_and_half_close(self) -> None:
        done = self.home.run("tcp", "echo", "--stdio", input=BULK)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertTrue(done.stdout == BULK)
        done = self.home.run("tcp", "digest", "--stdio", input=BULK)
        wanted = f"{len(BULK)} {hashlib.sha256(BULK).hexdigest()}\n".encode()
        self.assertEqual((done.returncode, done.stdout), (0, wanted))

    def test_names_and_addresses_in_all_spellings(self) -> None:
        port = self.stage.echo.port
        for name in (
            "echo",
            f"echo:{port}",
            "echo.local.border0.internal",
            f"100.126.0.1:{port}",
            "100.126.0.1",
            f"[fd62:6f72:6465:7231::1]:{port}",
        ):
            done = self.home.run("tcp", name, "--stdio", input=b"over " + name.encode())
            self.assertEqual((done.returncode, done.stdout), (0, b"over " + name.encode()), name)

    def test_a_device_with_ipv6_alone(self) -> None:
        self.home.configuration["device"]["addresses"] = ["fd62:6f72:6465:7230::2/128"]
        self.home.save()
        done = self.home.run("tcp", "echo", "--stdio", input=b"six")
        self.assertEqual((done.returncode, done.stdout), (0, b"six"), done.stderr)

    def test_a_broken_pipe_is_quiet(self) -> None:
        child = self.home.spawn("tcp", "flood", "--stdio", stdin=subprocess.DEVNULL)
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdout is not None and child.stderr is not None
        self.assertEqual(len(child.stdout.read(MEGABYTE)), MEGABYTE)
        child.stdout.close()
        self.assertEqual(child.wait(20), 1)
        self.assertNotIn(b"Traceback", child.stderr.read())
        self.assertEqual(self.home.run("tcp", "echo", "--stdio", input=b"x").stdout, b"x")

    def test_ctrl_c(self) -> None:
        child = self.home.spawn("tcp", "echo", "--stdio")
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"here")
        child.stdin.flush()
        self.assertEqual(child.stdout.read(4), b"here")
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(20), 130)
        assert child.stderr is not None
        self.assertNotIn(b"Traceback", child.stderr.read())


@requires(*DATABASE)
class Refusals(Case):
    def refused(self, name: str, status: int, *texts: str) -> None:
        began = time.monotonic()
        done = self.home.run("tcp", name, "--stdio")
        self.assertLess(time.monotonic() - began, 30)
        error = done.stderr.decode()
        self.assertEqual((done.returncode, done.stdout), (status, b""), error)
        self.assertNotIn("Traceback", error)
        for text in texts:
            self.assertIn(text, error)

    def test_unknown_names(self) -> None:
        self.refused("ecko", 1, "no service is called 'ecko'", "did you mean 'echo'?")
        self.refused("192.0.2.1:80", 1, "no service address", "border0 client hosts")
        self.refused("100.126.0.77", 1, "say which port")
        self.refused("echo:99999", 1, "not a port")

    def test_what_the_connector_does_not_serve(self) -> None:
        self.refused("unserved", 125, "serves nothing at unserved (100.126.0.99 port 4)")
        self.refused("echo:1", 125, "serves nothing at echo (100.126.0.1 port 1)")

    def test_a_policy_and_a_dead_upstream(self) -> None:
        for name in ("denied", "gone"):
            self.refused(name, 125, f"the connection to {name} was broken off", "audit log")

    def test_a_silent_connector_is_named_within_ten_seconds(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            port = silent.getsockname()[1]
            self.home.configuration["connector"][0]["endpoint"] = f"127.0.0.1:{port}"
            self.home.save()
            began = time.monotonic()
            self.refused(
                "echo",
                125,
                f"the connector lab at 127.0.0.1 port {port} does not answer",
                self.home.public_key,
            )
            self.assertLess(time.monotonic() - began, 15)  # 8 of patience, and a loaded machine

    def test_a_connector_whose_name_is_unknown(self) -> None:
        self.home.configuration["connector"][0]["endpoint"] = "nowhere.invalid:1"
        self.home.save()
        self.refused("echo", 125, "cannot look up nowhere.invalid")

    def test_a_host_name_as_endpoint(self) -> None:
        port = self.stage.endpoint.rpartition(":")[2]
        self.home.configuration["connector"][0]["endpoint"] = f"localhost:{port}"
        self.home.save()
        done = self.home.run("tcp", "echo", "--stdio", input=b"by name")
        self.assertEqual((done.returncode, done.stdout), (0, b"by name"), done.stderr)

    def test_mistakes_in_the_file(self) -> None:
        self.home.configuration["device"]["adresses"] = []
        self.home.save()
        self.refused("echo", 1, "unknown key 'adresses'", "did you mean 'addresses'?")
        self.home.file.unlink()
        self.refused("echo", 1, "client.toml: no such file", "--home")

    def test_a_key_open_to_others(self) -> None:
        self.home.key.chmod(0o644)
        self.refused("echo", 1, "is open to others", "chmod 600")

    def test_a_file_that_changes_is_followed(self) -> None:
        self.assertEqual(self.home.run("tcp", "echo", "--stdio", input=b"a").stdout, b"a")
        sockets = self.home.configuration["socket"]
        sockets[0]["name"] = "parrot"
        self.home.save()
        self.assertEqual(self.home.run("tcp", "parrot", "--stdio", input=b"b").stdout, b"b")
        self.refused("echo", 1, "no service is called 'echo'")
        self.home.key.write_text(self.stage.connector.public_key + "\n")
        sockets[0]["name"] = "echo"
        self.home.save()
        self.refused("echo", 1, "new key", "border0 client stop")


@requires(*DATABASE)
class Listeners(Case):
    def test_a_port_and_a_socket_file(self) -> None:
        path = self.home.folder / "echo.sock"
        for at in ("127.0.0.1:0", "0", "[::1]:0", f"unix:{path}"):
            child, where = self.listening("tcp", "echo", "--listen", at)
            self.assertTrue(self.exchange(self.dial(where), BULK) == BULK, at)
            several = [self.dial(where) for _ in range(10)]
            for number, one in enumerate(several):
                one.sendall(b"%d" % number)
            self.assertEqual([one.recv(9) for one in several], [b"%d" % n for n in range(10)])
            child.send_signal(signal.SIGINT)
            self.assertEqual(child.wait(20), 0)
            assert child.stderr is not None
            self.assertEqual(child.stderr.read(), b"")
        self.assertFalse(path.exists())

    def test_a_socket_file_is_this_users_alone_and_a_dead_one_is_replaced(self) -> None:
        path = self.home.folder / "echo.sock"
        child, _ = self.listening("tcp", "echo", "--listen", f"unix:{path}")
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        done = self.home.run("tcp", "echo", "--listen", f"unix:{path}")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"somebody listens", done.stderr)
        child.kill()
        child.wait()
        self.assertTrue(path.exists())
        self.listening("tcp", "echo", "--listen", f"unix:{path}")
        file = self.home.folder / "precious"
        file.write_text("x")
        done = self.home.run("tcp", "echo", "--listen", f"unix:{file}")
        self.assertIn(b"is not a socket", done.stderr)
        self.assertEqual(file.read_text(), "x")

    def test_others_are_kept_out_unless_asked_for(self) -> None:
        for words in (["tcp", "echo"], ["socks"]):
            done = self.home.run(*words, "--listen", "0.0.0.0:0")
            self.assertEqual(done.returncode, 2)
            self.assertIn(b"--allow-others", done.stderr)
        self.assertEqual(self.home.agent(), 0)
        _, where = self.listening("tcp", "echo", "--listen", "0.0.0.0:0", "--allow-others")
        self.assertEqual(self.exchange(self.dial(where), b"x"), b"x")

    def test_a_taken_port_is_named(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = self.home.run("tcp", "echo", "--listen", f"127.0.0.1:{port}")
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"cannot listen on 127.0.0.1 port {port}".encode(), done.stderr)

    def test_a_denied_connection_is_reset_and_the_listener_lives(self) -> None:
        child, where = self.listening("tcp", "denied", "--listen", "127.0.0.1:0")
        with self.assertRaises(ConnectionResetError):
            self.dial(where).recv(1)
        assert child.stderr is not None
        self.assertIn(b"a policy may refuse it", child.stderr.readline())
        self.assertIsNone(child.poll())

    def test_a_stalled_reader_leaves_memory_flat(self) -> None:
        flood: Flood = self.stage.flood
        _, where = self.listening("tcp", "flood", "--listen", "127.0.0.1:0")
        warm = self.dial(where)
        self.assertTrue(warm.recv(MEGABYTE))
        warm.close()
        agent = self.home.agent()
        before = children.memory(agent)
        flood.sent = 0
        stalled = self.dial(where)
        self.assertTrue(stalled.recv(1))
        self.settled(flood)
        self.assertLess(flood.sent, 60 * MEGABYTE)
        self.assertLess(children.memory(agent) - before, 24 * MEGABYTE)
        seen = 1
        while part := stalled.recv(MEGABYTE):
            seen += len(part)
        self.assertEqual(seen, Flood.SIZE)
        self.assertLess(children.memory(agent, "VmHWM") - before, 32 * MEGABYTE)

    def settled(self, flood: Flood) -> None:
        """Wait until the flood has stood still for two seconds."""
        last, since = -1, time.monotonic()

        def still() -> bool:
            nonlocal last, since
            if flood.sent != last:
                last, since = flood.sent, time.monotonic()
            return time.monotonic() - since > 2

        children.wait_until(still, 60, "the flood waits for its reader", 0.1)


@requires("curl", *DATABASE)
class Socks(Case):
    def curl(self, where: str, url: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        argv = ["curl", "-sS", "--max-time", "30", "--http0.9", *words, where, url]
        return subprocess.run(argv, capture_output=True, check=False, timeout=60)

    def test_curl_by_name_and_by_address(self) -> None:
        _, where = self.listening("socks", "--listen", "127.0.0.1:0")
        port = self.stage.echo.port
        for host in ("echo", "echo.local.border0.internal", "100.126.0.1"):
            url = f"telnet://{host}:{port}"
            # It ends when the service does, and this service does not.
            child = children.spawn(
                ["curl", "-sSN", "--max-time", "30", "--socks5-hostname", where, url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            self.addCleanup(children.end, child)
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(b"hello")
            child.stdin.flush()
            self.assertEqual(child.stdout.read(5), b"hello", host)

    def test_refusals_are_the_protocols_own(self) -> None:
        _, where = self.listening("socks", "--listen", "127.0.0.1:0")
        for host, code in (
            (b"ecko", 4),
            (b"example.org", 4),
            (b"unserved", 5),
        ):
            connection = self.dial(where)
            connection.sendall(b"\x05\x01\x00")
            self.assertEqual(connection.recv(2), b"\x05\x00")
            connection.sendall(b"\x05\x01\x00\x03" + bytes([len(host)]) + host + b"\x00\x50")
            self.assertEqual(connection.recv(10)[:2], bytes([5, code]), host)
            self.assertEqual(connection.recv(1), b"")

    def test_20_megabytes(self) -> None:
        _, where = self.listening("socks", "--listen", "127.0.0.1:0")
        connection = self.dial(where)
        port = self.stage.echo.port.to_bytes(2, "big")
        connection.sendall(b"\x05\x01\x00\x05\x01\x00\x03\x04echo" + port)
        answer = b""
        while len(answer) < 12:
            answer += connection.recv(12 - len(answer))
        self.assertEqual(answer[:4], b"\x05\x00\x05\x00")
        self.assertTrue(self.exchange(connection, BULK) == BULK)


@requires(*DATABASE)
class Psql(Case):
    def test_queries_copies_and_statuses(self) -> None:
        def psql(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
            return self.home.run("psql", "shop-db", "-XAtqw", "-d", "shop", *words, **options)

        done = psql("-c", "SELECT current_user")
        self.assertEqual((done.returncode, done.stdout), (0, b"app\n"), done.stderr)
        file = self.home.folder / "rows.tsv"
        rows = "".join(f"{n}\tname {n}\n" for n in range(20_000))
        file.write_text(rows)
        file.chmod(0o644)
        load = f"\\copy t FROM '{file}'"
        done = psql("-c", "TRUNCATE t", "-c", load, "-c", "SELECT count(*) FROM t")
        self.assertEqual((done.returncode, done.stdout), (0, b"20000\n"), done.stderr)
        done = psql("-c", "\\copy (SELECT * FROM t ORDER BY id) TO STDOUT")
        self.assertEqual(done.stdout.decode(), rows)
        self.assertEqual(psql("-c", "SELECT nonsense").returncode, 1)
        done = psql("-v", "ON_ERROR_STOP=1", input=b"SELECT 1;\nSELECT nonsense;\n")
        self.assertEqual((done.returncode, done.stdout), (3, b"1\n"))

    def test_without_a_database_it_is_the_upstreams(self) -> None:
        done = self.home.run("psql", "shop-db", "-XAtqwc", "SELECT current_database()")
        self.assertEqual((done.returncode, done.stdout), (0, b"app\n"), done.stderr)

    def test_ctrl_c_cancels_the_query_and_leaves_psql(self) -> None:
        child = self.home.spawn("psql", "shop-db", "-XAtqw", "-d", "shop")
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdin is not None and child.stderr is not None
        child.stdin.write(b"SELECT 'at work', pg_sleep(60);\nSELECT 'still here';\n")
        child.stdin.flush()
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%at work%pg_sleep(60)%'"
        working = f"{sleeping} AND state = 'active' AND pid <> pg_backend_pid()"
        children.wait_until(lambda: self.stage.postgres.sql(working) == "1", 20, "it works", 0.1)
        # As a terminal: the whole foreground group hears it. psql in a script ends.
        os.killpg(child.pid, signal.SIGINT)
        children.wait_until(lambda: self.stage.postgres.sql(working) == "0", 20, "it ends", 0.1)
        child.stdin.close()
        status = child.wait(30)
        self.assertEqual(status, 3, child.stderr.read())

    def test_a_policy_gives_125_and_the_databases_words(self) -> None:
        done = self.home.run("psql", "denied-db", "-XAtqwc", "SELECT 1")
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"permission denied: policy", done.stderr)

    def test_an_unreachable_connector_gives_125(self) -> None:
        self.home.configuration["connector"][0]["endpoint"] = "nowhere.invalid:1"
        self.home.save()
        done = self.home.run("psql", "shop-db", "-XAtqwc", "SELECT 1")
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"cannot look up nowhere.invalid", done.stderr)

    def test_without_psql_it_says_what_to_install(self) -> None:
        folder = self.home.folder / "bin"
        folder.mkdir()
        done = self.home.run("psql", "shop-db", settings={"PATH": str(folder)})
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"psql is not installed", done.stderr)
        self.assertIn(b"border0 client tcp shop-db --listen", done.stderr)

    def test_the_users_own_settings_do_not_lead_elsewhere(self) -> None:
        settings = {"PGHOSTADDR": "192.0.2.1", "PGHOST": "example.org", "PGSERVICE": "x"}
        settings |= {"PGREQUIREAUTH": "scram-sha-256", "PGSSLMODE": "verify-full"}
        done = self.home.run("psql", "shop-db", "-XAtqwc", "SELECT 7", settings=settings)
        self.assertEqual((done.returncode, done.stdout), (0, b"7\n"), done.stderr)


@requires(*DATABASE)
class OneOwner(Case):
    def test_25_programs_from_a_cold_start(self) -> None:
        """20 streams and 5 psql at once; the first to end ends long before the others."""
        data = BULK[:MEGABYTE]
        self.assertEqual(self.home.agent(), 0)
        first = self.home.spawn("tcp", "echo", "--stdio")
        riders = [self.home.spawn("tcp", "echo", "--stdio") for _ in range(19)]
        queries = [
            self.home.spawn("psql", "shop-db", "-XAtqw", "-d", "shop", "-c", f"SELECT {n}")
            for n in range(5)
        ]
        for child in (first, *riders, *queries):
            self.addCleanup(children.end, child, signal.SIGKILL)
        self.assertEqual(first.communicate(b"first", 60), (b"first", b""))
        self.assertEqual(first.returncode, 0)
        for number, child in enumerate(queries):
            out, err = child.communicate(timeout=60)
            self.assertEqual((child.returncode, out), (0, b"%d\n" % number), err)
        outs: list[bytes] = [b""] * len(riders)

        def talk(number: int) -> None:
            outs[number] = riders[number].communicate(bytes([number]) + data, 60)[0]

        threads = [threading.Thread(target=talk, args=(n,)) for n in range(len(riders))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        for number, child in enumerate(riders):
            self.assertEqual(child.returncode, 0)
            self.assertTrue(outs[number] == bytes([number]) + data, number)
        self.assertEqual(self.agents(), [self.home.agent()])

    def agents(self) -> list[int]:
        """All agent processes of this home."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"border0.processes.client" in words and str(self.home.folder).encode() in words:
                    found.append(int(entry.name))
        return found

    def test_a_killed_owner_is_replaced(self) -> None:
        riders = [self.home.spawn("tcp", "echo", "--stdio") for _ in range(3)]
        listener, _ = self.listening("tcp", "echo", "--listen", "127.0.0.1:0")
        for child in riders:
            self.addCleanup(children.end, child, signal.SIGKILL)
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(b"hello")
            child.stdin.flush()
            self.assertEqual(child.stdout.read(5), b"hello")
        # One has said everything and only waits for the service: it must not take this for an end.
        flooded = self.home.spawn("tcp", "flood", "--stdio", stdin=subprocess.DEVNULL)
        self.addCleanup(children.end, flooded, signal.SIGKILL)
        self.stage.flood.sent = 0
        assert flooded.stdout is not None
        flooded.stdout.read(1)
        before = self.home.agent()
        os.kill(before, signal.SIGKILL)
        for child in (*riders, flooded):
            _, err = child.communicate(timeout=20)
            self.assertEqual(child.returncode, 125, err)
            self.assertIn(b"the process that held the tunnel ended", err)
        self.assertEqual(listener.wait(20), 125)
        done = self.home.run("tcp", "echo", "--stdio", input=b"again")
        self.assertEqual((done.returncode, done.stdout), (0, b"again"), done.stderr)
        self.assertNotIn(self.home.agent(), (0, before))

    def test_stop(self) -> None:
        child = self.home.spawn("tcp", "echo", "--stdio")
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"x")
        child.stdin.flush()
        child.stdout.read(1)
        done = self.home.run("stop")
        self.assertEqual(done.returncode, 0)
        self.assertIn(b"ended the tunnel", done.stdout)
        self.assertEqual(child.wait(20), 125)
        # It has let go of everything; what remains of it is the system's to clear away.
        self.assertFalse((self.home.folder / "client.sock").exists())
        with self.home.key.with_name("client.key.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        children.wait_until(lambda: not self.home.agent(), 20, "the agent's process is gone")
        self.assertIn(b"no tunnel was in use", self.home.run("stop").stdout)
        self.assertEqual(self.home.run("tcp", "echo", "--stdio", input=b"y").stdout, b"y")

    def test_it_leaves_when_nobody_rides(self) -> None:
        settings = {"BORDER0_CLIENT_IDLE": "1"}
        done = self.home.run("tcp", "echo", "--stdio", input=b"x", settings=settings)
        self.assertEqual(done.stdout, b"x")
        children.wait_until(lambda: not self.home.agent(), 20, "the agent leaves")
        self.assertFalse((self.home.folder / "client.sock").exists())

    def test_its_files_are_this_users_alone(self) -> None:
        self.home.run("tcp", "echo", "--stdio", input=b"x")
        for name in ("client.sock", "client.log", "keys/client.key.lock"):
            self.assertEqual((self.home.folder / name).stat().st_mode & 0o077, 0, name)

    def test_another_users_program_is_turned_away(self) -> None:
        if os.geteuid() != 0 or self.home.agent.__self__.folder.stat().st_uid == 0:  # type: ignore[attr-defined]
            return
        self.home.run("tcp", "echo", "--stdio", input=b"x")
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.connect(str(self.home.folder / "client.sock"))
        with self.assertRaises(OSError):
            connection.sendall(b'{"stop": true}\n')
            if not connection.recv(1):
                raise ConnectionError("turned away")
        self.assertTrue(self.home.agent())

    def test_a_second_home_with_the_same_key_is_told_who_holds_it(self) -> None:
        self.home.run("tcp", "echo", "--stdio", input=b"x")
        other = self.home.folder / "other"
        shutil.copytree(self.home.folder / "keys", other / "keys")
        other.chmod(0o777)
        words = ["--home", str(other), "--config", str(self.home.file)]
        done = self.home.run("tcp", "echo", "--stdio", *words)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"in use by process {self.home.agent()}".encode(), done.stderr)

    def test_a_connector_that_restarts(self) -> None:
        child = self.home.spawn("tcp", "echo", "--stdio")
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"x")
        child.stdin.flush()
        child.stdout.read(1)
        self.stage.connector.restart(signal.SIGKILL)
        # It has forgotten keys and connections; what is said now finds that out.
        child.stdin.write(b"y")
        child.stdin.flush()
        self.assertEqual(child.wait(60), 125)
        done = self.home.run("tcp", "echo", "--stdio", input=b"again")
        self.assertEqual((done.returncode, done.stdout), (0, b"again"), done.stderr)


@requires(*DATABASE)
class Garbage(Case):
    def test_nonsense_on_the_local_socket_harms_nobody(self) -> None:
        child = self.home.spawn("tcp", "echo", "--stdio")
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"x")
        child.stdin.flush()
        child.stdout.read(1)
        program, user = stranger()
        path = str(self.home.folder / "client.sock")
        done = children.spawn([program, "-c", NONSENSE, path], user=user, folder="/")
        self.assertEqual(done.wait(30), 0)
        child.stdin.write(b"y")
        child.stdin.close()
        self.assertEqual(child.stdout.read(), b"y")
        self.assertEqual(child.wait(20), 0)
        self.assertNotIn("Traceback", (self.home.folder / "client.log").read_text())
