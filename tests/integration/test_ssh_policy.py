"""Refusals, records and recordings of the SSH proxy, seen by OpenSSH's client and by asciinema."""

import os
import pty
import subprocess

from tests.integration.ssh_case import COUNTERPARTS, SSHCase, ssh
from tests.integration.test_ssh import Echo, read_until, size
from tests.support.children import wait_until
from tests.support.counterparts import requires
from tests.support.openssh import OpenSSHServer, keygen


@requires(*COUNTERPARTS)
class Refusals(SSHCase):
    def test_a_command_is_refused_on_its_stderr_and_the_session_lives(self):
        proxy = self.proxy(ssh(exec={"commands": ["echo [a-z]+"]}))
        control = self.folder() / "control"
        self.spawn(proxy, "-N", "-M", "-S", str(control), "alice@127.0.0.1")
        wait_until(control.exists, 15, "the master is there")

        def run(command):
            argv = ["ssh", "-F", "/dev/null", "-S", str(control), "alice@127.0.0.1", command]
            return subprocess.run(argv, capture_output=True, timeout=20, check=False)

        self.assertEqual(run("echo one").stdout, b"one\n")
        for command in ("echo ONE", "echo one; id", "id"):
            done = run(command)
            self.assertNotEqual(done.returncode, 0)
            self.assertEqual(done.stdout, b"")
            self.assertIn(b'policy "eng" does not permit this command', done.stderr)
            self.assertIn(b"permissions.ssh.exec.commands", done.stderr)
        self.assertEqual(run("echo two").stdout, b"two\n")
        denied = self.wait_for_record(proxy, type="ssh.exec", command="id")
        self.assertEqual((denied["result"], denied["policy"]), ("denied", "eng"))
        wait_until(
            lambda: [r for r in proxy.audit() if r.get("command") == "id"], 5, "it is audited"
        )

    def test_shell_sftp_and_forwarding_are_refused(self):
        echo = Echo()
        self.addCleanup(echo.close)
        proxy = self.proxy(ssh(exec={"commands": ["true"]}))
        done = self.ssh(proxy)
        self.assertIn(b"does not permit a shell (permissions.ssh.shell)", done.stderr)
        done = self.run_tool("sftp", proxy, "-b", "-", "alice@127.0.0.1", stdin=b"ls\n")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b"permissions.ssh.sftp", done.stderr)
        folder = self.folder()
        source = self.file(folder, 10)
        for mode in ("-O", "-s"):
            target = f"alice@127.0.0.1:{folder}/copy"
            done = self.run_tool("scp", proxy, mode, str(source), target)
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(b"permissions.ssh.sftp", done.stderr)
        done = self.ssh(proxy, "-W", f"127.0.0.1:{echo.port}", settings=("LogLevel=INFO",))
        self.assertIn(b"permissions.ssh.tcp_forwarding", done.stderr)
        self.assertEqual(self.ssh(proxy, "true").returncode, 0)
        kinds = {r["type"] for r in proxy.records() if r["result"] == "denied"}
        self.assertEqual(kinds, {"ssh.shell", "ssh.subsystem", "ssh.exec", "ssh.forward"})

    def test_destinations(self):
        echo = Echo()
        self.addCleanup(echo.close)
        rule = {"destination_address": "127.0.0.1", "destination_port": str(echo.port)}
        proxy = self.proxy(ssh(tcp_forwarding={"allowed_connections": [rule]}))
        child = self.spawn(proxy, "-W", f"127.0.0.1:{echo.port}", "alice@127.0.0.1")
        child.stdin.write(b"through\n")
        child.stdin.flush()
        self.assertEqual(child.stdout.readline(), b"through\n")
        self.assertEqual(self.ssh(proxy, "-W", f"localhost:{echo.port}").returncode, 255)

    def test_user_names(self):
        policy = ssh(exec={}, allowed_usernames=["alice"])
        proxy = self.proxy(policy, self.server.upstream(username_provider="prompt_client"))
        done = self.ssh(proxy, "-l", "bob", "true")
        self.assertIn(b"the upstream refuses", done.stderr)
        done = self.run_tool("ssh", proxy, "bob@127.0.0.1", "true")
        self.assertIn(b"does not permit the user name 'bob'", done.stderr)
        self.assertIn(b"permissions.ssh.allowed_usernames", done.stderr)
        end = self.wait_for_record(proxy, type="session.end", status="denied")
        self.assertEqual(end["result"], "denied")

    def test_who_is_not_admitted_reads_why(self):
        proxy = self.proxy(refuse=True)
        done = self.ssh(proxy, "true")
        self.assertEqual(done.returncode, 255)
        self.assertIn(b"only from the office", done.stderr)

    def test_variables_are_no_way_around_a_command_rule(self):
        proxy = self.proxy(ssh(exec={"commands": ["env"]}))
        done = self.ssh(proxy, "env", settings=("SetEnv=BASH_ENV=/tmp/x LC_ALL=C LD_PRELOAD=/x",))
        self.assertIn(b"LC_ALL=C", done.stdout)
        self.assertNotIn(b"BASH_ENV", done.stdout)
        self.assertNotIn(b"LD_PRELOAD", done.stdout)

    def test_agent_forwarding_by_policy(self):
        agent = subprocess.run(["ssh-agent", "-c"], capture_output=True, text=True, check=True)
        words = agent.stdout.replace(";", "").split()
        path, pid = words[2], int(words[5])
        self.addCleanup(os.kill, pid, 15)
        command = 'test -S "$SSH_AUTH_SOCK" && ssh-add -l; true'
        for policy, text in (
            (ssh(exec={}), b""),
            (ssh(exec={}, agent_forwarding={}), b"The agent has no identities.\n"),
        ):
            proxy = self.proxy(policy)
            done = self.ssh(proxy, "-A", command, settings=(f"IdentityAgent={path}",))
            self.assertEqual(done.stdout, text, done.stderr)


@requires(*COUNTERPARTS)
class Upstreams(SSHCase):
    def test_a_wrong_host_key_is_refused_and_says_what_to_do(self):
        other = keygen(self.folder() / "other")
        line = other.with_suffix(".pub").read_text()
        proxy = self.proxy(upstream=self.server.upstream(host_keys=[line]))
        done = self.ssh(proxy, "true")
        self.assertEqual(done.returncode, 255)
        self.assertIn(b"an administrator puts the new key into host_keys", done.stderr)
        end = self.wait_for_record(proxy, type="session.end")
        self.assertEqual(end["status"], "upstream failed")

    def test_first_use_is_remembered(self):
        server = OpenSSHServer().start()
        self.addCleanup(server.stop)
        upstream = server.upstream(host_keys=[], host_key_policy="first-use")
        proxy = self.proxy(upstream=upstream)
        self.assertEqual(self.ssh(proxy, "true").returncode, 0)
        self.assertEqual(self.ssh(proxy, "true").returncode, 0)
        known = proxy.state / "ssh" / "known_hosts.json"
        self.assertIn(server.public_key.split()[1], known.read_text())
        other = keygen(self.folder() / "other")
        other_key = other.with_suffix(".pub").read_text().split()[1]
        known.write_text(known.read_text().replace(server.public_key.split()[1], other_key))
        self.assertIn(b"somebody is in between", self.ssh(proxy, "true").stderr)

    def test_rsa_and_ecdsa_user_keys(self):
        for kind in ("rsa", "ecdsa"):
            server = OpenSSHServer(user_key=kind).start()
            self.addCleanup(server.stop)
            proxy = self.proxy(upstream=server.upstream())
            self.assertEqual(self.ssh(proxy, "echo in").stdout, b"in\n")

    def test_a_wrong_key_is_an_upstream_failure_without_secrets(self):
        key = keygen(self.folder() / "key").read_text()
        proxy = self.proxy(upstream=self.server.upstream(private_key=key))
        done = self.ssh(proxy, "true")
        self.assertIn(b"the upstream refuses the connector's login", done.stderr)
        middle = key.splitlines()[3]
        self.assertNotIn(middle, proxy.everything())

    @requires("namespaces", "openssl")
    def test_a_password_that_only_the_connector_has(self):
        password = "canary: pass word \u00fc"
        server = OpenSSHServer(password=password).start()
        self.addCleanup(server.stop)
        proxy = self.proxy(upstream=server.upstream())
        done = self.ssh(proxy, "-v", "id -un; env")
        self.assertEqual(done.stdout.split()[0], server.user.encode(), done.stderr)
        self.assertNotIn(b"canary", done.stdout + done.stderr)
        self.assertNotIn("canary", proxy.everything())
        proxy = self.proxy(upstream=server.upstream(password=password + "?"))
        done = self.ssh(proxy, "true")
        self.assertIn(b"the upstream refuses the connector's login", done.stderr)
        self.assertNotIn("canary", proxy.everything() + done.stderr.decode())

    def test_nobody_there(self):
        proxy = self.proxy(upstream=self.server.upstream(port=1))
        done = self.ssh(proxy, "true")
        self.assertIn(b"the upstream cannot be reached", done.stderr)
        end = self.wait_for_record(proxy, type="session.end")
        self.assertEqual(end["status"], "upstream unreachable")

    def test_our_host_keys_stay(self):
        state = self.folder()
        seen = []
        for _ in range(2):
            proxy = self.proxy(state=state)
            argv = ["ssh-keyscan", "-p", str(proxy.port), "127.0.0.1"]
            scan = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
            seen.append(sorted(line.split(" ", 1)[1] for line in scan.splitlines() if line))
            proxy.stop(keep=True)
        self.assertEqual(seen[0], seen[1])
        self.assertEqual([line.split()[0] for line in seen[0]], ["ssh-ed25519", "ssh-rsa"])


@requires(*COUNTERPARTS, "asciinema")
class Recordings(SSHCase):
    @requires("terminals")
    def test_a_terminal_is_a_cast_that_asciinema_reads(self):
        from asciinema.asciicast import open_from_url

        proxy = self.proxy()
        near, far = pty.openpty()
        self.addCleanup(os.close, near)
        size(near, 24, 80)
        child = self.spawn(proxy, "-tt", "alice@127.0.0.1", stdin=far, stdout=far, stderr=far,
                           start_new_session=True)  # fmt: skip
        os.close(far)
        os.write(near, b"PS1=; stty -echo; printf 'caf\\303\\251 \\377 rea''dy\\n'\n")
        read_until(near, b"ready")
        size(near, 40, 100)
        os.write(
            near, b"while test \"$(stty size)\" != '40 100'; do sleep .1; done; echo si''zed\n"
        )
        child.send_signal(28)
        read_until(near, b"sized")
        os.write(near, b"exit\n")
        child.wait(15)
        shell = self.wait_for_record(proxy, type="ssh.shell")
        self.wait_for_record(proxy, type="session.end")
        (cast,) = proxy.casts()
        self.assertEqual(cast.name, shell["recording"])
        with open_from_url(str(cast)) as recording:
            events = list(recording.events())
            self.assertEqual(recording.v2_header["width"], 80)
        text = "".join(event[2] for event in events if event[1] == "o")
        self.assertIn("caf\u00e9 \ufffd ready", text)
        self.assertEqual([e[2] for e in events if e[1] == "r"][-1], "100x40")
        played = subprocess.run(
            ["python", "-m", "asciinema", "cat", str(cast)], capture_output=True, check=False
        )
        self.assertIn("ready", played.stdout.decode(errors="replace") + text)

    @requires("terminals")
    def test_each_terminal_of_a_session_has_its_own(self):
        proxy = self.proxy()
        control = self.folder() / "control"
        master = self.spawn(proxy, "-N", "-M", "-S", str(control), "alice@127.0.0.1")
        wait_until(control.exists, 15, "the master is there")
        for word in ("one", "two"):
            argv = ["ssh", "-F", "/dev/null", "-tt", "-S", str(control), "alice@127.0.0.1"]
            subprocess.run(
                [*argv, f"echo {word}"], stdin=subprocess.DEVNULL, capture_output=True, check=False
            )
        master.terminate()
        end = self.wait_for_record(proxy, type="session.end")
        names = [path.name for path in proxy.casts()]
        self.assertEqual(names, [f"{end['session']}.2.cast", f"{end['session']}.cast"])
        self.assertIn("one", proxy.casts()[1].read_text())
        self.assertIn("two", proxy.casts()[0].read_text())

    def test_commands_and_their_output(self):
        import base64

        proxy = self.proxy()
        self.ssh(proxy, "echo out; echo problem >&2; cat >/dev/null", stdin=b"secret")
        self.wait_for_record(proxy, type="session.end")
        streams = {r["stream"]: base64.b64decode(r["data"]) for r in proxy.records("ssh.output")}
        self.assertEqual(streams, {"stdout": b"out\n", "stderr": b"problem\n"})
        self.assertNotIn(base64.b64encode(b"secret").decode(), proxy.everything())

    def test_nothing_is_kept_where_recording_is_off(self):
        proxy = self.proxy(recorded=False)
        self.ssh(proxy, "-tt", "echo hello")
        self.assertEqual(proxy.casts(), [])
        self.assertEqual(proxy.records(), [])


@requires("ssh", "sftp")
class BuiltIn(SSHCase):
    def start(self, policy=None, **more):
        more.setdefault("environment", {"CANARY": "canary-9a7c"})
        from tests.integration.ssh_proxy import EVERYTHING, ProxyProcess

        proxy = ProxyProcess(None, {"all": policy or EVERYTHING}, **more)
        self.addCleanup(proxy.stop)
        return proxy

    def test_commands(self):
        proxy = self.start()
        done = self.ssh(proxy, "cat; echo problem >&2; exit 7", stdin=b"hello")
        self.assertEqual((done.returncode, done.stdout), (7, b"hello"))
        self.assertEqual(done.stderr, b"problem\n")

    def test_the_connector_s_environment_stays_its_own(self):
        proxy = self.start()
        done = self.ssh(proxy, "env; ls /proc/self/fd | wc -l")
        self.assertNotIn(b"canary", done.stdout)
        self.assertIn(b"HOME=", done.stdout)
        self.assertLessEqual(int(done.stdout.split()[-1]), 5)

    def test_bytes_are_exact(self):
        proxy = self.start()
        data = os.urandom(10_000_000)
        self.assertTrue(self.ssh(proxy, "cat", stdin=data).stdout == data)

    def test_a_shell(self):
        proxy = self.start()
        near, far = pty.openpty()
        self.addCleanup(os.close, near)
        size(near, 33, 101)
        child = self.spawn(proxy, "-tt", "alice@127.0.0.1", stdin=far, stdout=far, stderr=far,
                           start_new_session=True)  # fmt: skip
        os.close(far)
        os.write(near, b"PS1=; stty -echo; echo rea''dy\n")
        read_until(near, b"ready")
        os.write(near, b"stty size\n")
        read_until(near, b"33 101")
        trap = b"trap 'echo ca''ught; exit 4' INT; echo ar''med; while :; do sleep 1; done"
        os.write(near, b'exec sh -c "' + trap + b'"\n')
        read_until(near, b"armed")
        os.write(near, b"\x03")
        read_until(near, b"caught")
        self.assertEqual(child.wait(15), 4)
        self.wait_for_record(proxy, type="session.end")
        self.assertIn("caught", proxy.casts()[0].read_text())

    def test_policy_applies(self):
        proxy = self.start(ssh(exec={"commands": ["echo [a-z]+"]}))
        self.assertEqual(self.ssh(proxy, "echo fine").stdout, b"fine\n")
        self.assertIn(b"does not permit", self.ssh(proxy, "id").stderr)
        self.assertIn(b"does not permit a shell", self.ssh(proxy).stderr)

    def test_files_and_forwarding_are_not_part_of_it(self):
        proxy = self.start()
        done = self.run_tool("sftp", proxy, "-b", "-", "alice@127.0.0.1", stdin=b"ls\n")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(
            b"forwards nothing",
            self.ssh(proxy, "-W", "127.0.0.1:1", settings=("LogLevel=INFO",)).stderr,
        )

    def test_a_client_that_leaves_takes_its_program_along(self):
        for options in ((), ("-tt",)):
            proxy = self.start()
            child = self.spawn(proxy, *options, "alice@127.0.0.1", "echo $$.; exec sleep 1000")
            pid = int(child.stdout.readline().split(b".")[0])
            child.kill()
            wait_until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), 30, "it has ended")
