"""What SSH policies grant: commands and evasions, files, forwarding, names, limits, denials."""

import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.policy.command import Complex, is_scp_server, words
from border0.policy.model import PolicyError
from border0.policy.parse import parse_policy
from border0.policy.ssh import SSHGrant

VECTORS = Path(__file__).parents[1] / "vectors" / "ssh_exec.json"


def grant(*documents, username="deploy", deny=None):
    policies = []
    for number, permissions in enumerate(documents, 1):
        document = {"permissions": {"ssh": permissions}}
        if deny is not None and number == len(documents):
            document["deny"] = {"ssh": deny}
        policies.append(parse_policy(f"p{number}", document))
    return SSHGrant(policies, username)


class Evasions(SynchronousTestCase):
    def test_vectors(self):
        data = json.loads(VECTORS.read_text("utf-8"))
        asked = grant(data["permissions"])
        wrong = [
            vector
            for vector in data["vectors"]
            if asked.exec(vector["command"].encode()).allowed != vector["allowed"]
        ]
        self.assertEqual(wrong, [])
        denied = [vector for vector in data["vectors"] if not vector["allowed"]]
        self.assertGreaterEqual(len(denied), 100)

    def test_a_rule_never_sees_more_than_one_plain_command(self):
        # With any pattern for the words, an operator outside quotes still needs commands_shell.
        data = json.loads(VECTORS.read_text("utf-8"))
        anything = grant({"exec": {"commands": ["(?s).*"]}})
        for vector in data["vectors"]:
            text = vector["command"]
            if any(operator in text for operator in ("$(", "&&", "; id", ">(", "|")):
                if "'" not in text:
                    self.assertFalse(anything.exec(text.encode()).allowed, vector)

    @settings(derandomize=True, database=None, deadline=None)
    @given(st.lists(st.text(alphabet="ab '\"\\$;|&<>*?~#\n\t!é", max_size=8), max_size=4))
    def test_quoted_words_come_back(self, given_words):
        import shlex

        given_words = ["cmd", *given_words]
        self.assertEqual(words(shlex.join(given_words)), given_words)

    @settings(derandomize=True, database=None, deadline=None, max_examples=500)
    @given(st.text(alphabet="ab'\"\\ $`;|&<>()*?[]{}~#!^\n\t\r=%é\u00a0", max_size=24))
    def test_agrees_with_posix_splitting_or_says_complex(self, text):
        import shlex

        try:
            found = words(text)
        except Complex:
            return
        self.assertEqual(found, shlex.split(text, comments=False, posix=True))

    def test_bytes_that_are_no_text(self):
        self.assertFalse(grant({"exec": {"commands": [".*"]}}).exec(b"uptime \xff").allowed)
        self.assertTrue(grant({"exec": {}}).exec(b"uptime \xff").allowed)
        self.assertFalse(grant({"exec": {}}).exec(b"uptime\0id").allowed)
        self.assertFalse(grant({}).exec(b"uptime\0id").allowed)

    def test_a_huge_command(self):
        self.assertFalse(grant({"exec": {"commands": ["a+"]}}).exec(b"a" * 100_000).allowed)


class Rules(SynchronousTestCase):
    def test_an_empty_object_permits_everything(self):
        asked = grant({})
        for verdict in (
            asked.login(),
            asked.shell(),
            asked.exec(b"rm -rf / ; true"),
            asked.sftp(),
            asked.agent(),
            asked.forward("anywhere", 1),
        ):
            self.assertTrue(verdict.allowed)
        self.assertTrue(asked.any_command)

    def test_only_what_is_named(self):
        asked = grant({"shell": {}})
        self.assertTrue(asked.shell().allowed)
        for verdict in (asked.exec(b"id"), asked.sftp(), asked.forward("a", 1), asked.agent()):
            self.assertFalse(verdict.allowed)
        self.assertEqual(
            asked.sftp().reason,
            'policy "p1" does not permit copying files (permissions.ssh.sftp)',
        )

    def test_lists_of_commands(self):
        self.assertTrue(grant({"exec": {}}).exec(b"a | b").allowed)
        self.assertFalse(grant({"exec": {"commands": []}}).exec(b"a").allowed)
        one = grant({"exec": {"commands": ["a"]}})
        self.assertFalse(one.exec(b"a | a").allowed)
        self.assertFalse(one.any_command)
        shell = grant({"exec": {"commands_shell": [r"a \| a"]}})
        self.assertTrue(shell.exec(b"a | a").allowed)
        self.assertFalse(shell.exec(b"a").allowed)

    def test_a_refused_command_says_which_clause(self):
        verdict = grant({"exec": {"commands": ["a"]}}).exec(b"a; b")
        self.assertEqual((verdict.policy, verdict.clause), ("p1", "permissions.ssh.exec.commands"))
        self.assertIn("commands_shell", verdict.reason)

    def test_scp_and_sftp_need_sftp(self):
        files = grant({"sftp": {}})
        for command in (b"scp -t /tmp", b"scp -rf /tmp", b"/usr/lib/openssh/sftp-server"):
            self.assertTrue(files.exec(command).allowed)
            self.assertFalse(grant({"exec": {}}).exec(command).allowed)
        self.assertFalse(files.exec(b"scp a b").allowed)
        self.assertFalse(files.exec(b"scp -t /tmp; id").allowed)
        self.assertFalse(files.exec(b"rsync --server . /tmp").allowed)
        rsync = grant({"exec": {"commands": ["rsync --server .*"]}})
        self.assertTrue(rsync.exec(b"rsync --server -vlogDtpre.iLsfxCIvu . /tmp").allowed)
        self.assertFalse(is_scp_server(["scp", "--", "-t"]))

    def test_forwarding(self):
        rules = [
            {"destination_address": "db.example", "destination_port": "5432"},
            {"destination_address": "10.0.0.0/8", "destination_port": "8000-8010"},
            {"destination_address": "*", "destination_port": "443"},
            {"destination_address": "::1"},
        ]
        asked = grant({"tcp_forwarding": {"allowed_connections": rules}})
        for host, port, allowed in (
            ("db.example", 5432, True),
            ("DB.example.", 5432, True),
            ("db.example", 5433, False),
            ("db.example.org", 5432, False),
            ("10.1.2.3", 8005, True),
            ("10.1.2.3", 8011, False),
            ("11.1.2.3", 8005, False),
            ("anything", 443, True),
            ("0:0::1", 9, True),
            ("::2", 9, False),
        ):
            self.assertEqual(asked.forward(host, port).allowed, allowed, (host, port))
        self.assertTrue(grant({"tcp_forwarding": {}}).forward("x", 1).allowed)
        nothing = grant({"tcp_forwarding": {"allowed_connections": []}})
        self.assertFalse(nothing.forward("x", 1).allowed)

    def test_names_and_limits_belong_to_their_policy(self):
        first = {"shell": {}, "allowed_usernames": ["deploy"], "max_session_duration_seconds": 60}
        second = {"exec": {"commands": ["id"]}, "allowed_usernames": ["root"]}
        deploy, root = grant(first, second), grant(first, second, username="root")
        self.assertTrue(deploy.shell().allowed)
        self.assertFalse(deploy.exec(b"id").allowed)
        self.assertFalse(root.shell().allowed)
        self.assertTrue(root.exec(b"id").allowed)
        self.assertEqual(deploy.max_session_seconds, 60)
        self.assertIsNone(root.max_session_seconds)
        nobody = grant(first, second, username="nobody")
        self.assertFalse(nobody.login().allowed)
        self.assertFalse(nobody.shell().allowed)
        self.assertIn("allowed_usernames", nobody.login().reason)
        self.assertFalse(grant({"shell": {}, "allowed_usernames": []}).login().allowed)

    def test_the_longest_limit_counts_and_none_is_the_longest(self):
        short = {"shell": {}, "max_session_duration_seconds": 60}
        self.assertEqual(
            grant(short, {"exec": {}, "max_session_duration_seconds": 90}).max_session_seconds, 90
        )
        self.assertIsNone(grant(short, {"exec": {}}).max_session_seconds)


class Denials(SynchronousTestCase):
    def test_deny_wins(self):
        asked = grant({}, {"shell": {}}, deny={"sftp": {}, "exec": {"commands": ["rm .*"]}})
        self.assertTrue(asked.shell().allowed)
        self.assertFalse(asked.sftp().allowed)
        self.assertFalse(asked.exec(b"scp -t x").allowed)
        self.assertTrue(asked.exec(b"id").allowed)
        self.assertFalse(asked.exec(b"rm -rf x").allowed)
        # What cannot be read might be just that.
        self.assertFalse(asked.exec(b"true; rm x").allowed)
        self.assertEqual(asked.sftp().clause, "deny.ssh.sftp")
        self.assertFalse(asked.any_command)

    def test_denied_names_and_destinations(self):
        asked = grant(
            {},
            username="root",
            deny={
                "allowed_usernames": ["root"],
                "tcp_forwarding": {"allowed_connections": [{"destination_address": "10.0.0.0/8"}]},
            },
        )
        self.assertFalse(asked.login().allowed)
        self.assertFalse(asked.forward("10.0.0.1", 1).allowed)
        self.assertTrue(asked.forward("11.0.0.1", 1).allowed)

    def test_a_limit_means_nothing_there(self):
        with self.assertRaises(PolicyError):
            grant({}, deny={"max_session_duration_seconds": 5})
