import copy
import json

from twisted.trial.unittest import SynchronousTestCase

from border0.errors import ConfigError
from border0.policy.model import PROTOCOLS, PolicyError
from border0.policy.parse import parse_policy

# The document of Border0's documentation, every key of version 2 in it.
WHOLE = json.loads(
    """{"permissions":{
  "ssh":{"shell":{},"exec":{"commands":["^uptime$"],"commands_shell":["a && b"]},"sftp":{},
    "agent_forwarding":{},
    "tcp_forwarding":{"allowed_connections":[
      {"destination_address":"10.1.2.3","destination_port":"8080"}, {}]},
    "kubectl_exec":{"allowed_namespaces":[{"namespace":"dev","pod_selector":{"app":"api"}}]},
    "docker_exec":{"allowed_containers":["web"]},
    "max_session_duration_seconds":1800,"allowed_usernames":["deploy"]},
  "database":{"allowed_databases":[{"database":"shop","allowed_query_types":["ReadOnly"]}],
    "max_session_duration_seconds":3600},
  "kubernetes":{"rules":[{"api_groups":[""],"namespaces":["dev"],"verbs":["get"],
    "resources":["pods"],"resource_names":[]}]},
  "aws_s3":{"rules":[{"buckets":["logs-*"],"paths":["/2026/**"],"actions":["list","read"]}]},
  "aws_access":{"aws_iam_role_arns":{"arn:aws:iam::000000000000:role/ro":
    {"max_session_duration_seconds":3600}}},
  "http":{},"tls":{},"vnc":{},"rdp":{},"vpn":{},"network":{}},
 "condition":{"who":{"email":["a@example.org"],"group":[],"service_account":["ci"]},
  "where":{"allowed_ip":["0.0.0.0/0"],"country":["NL"],"country_not":[]},
  "when":{"after":"2026-01-01T00:00:00Z","before":null,
    "time_of_day_after":"07:00 UTC","time_of_day_before":"19:00 UTC"}}}"""
)


def error(data: object) -> str:
    try:
        parse_policy("p", data)  # type: ignore[arg-type]
    except PolicyError as found:
        return str(found)
    return ""


def permit(**permissions: object) -> dict[str, object]:
    return {"permissions": permissions}


def databases(**entry: object) -> dict[str, object]:
    return permit(database={"allowed_databases": [{"database": "x", **entry}]})


def condition(**parts: object) -> dict[str, object]:
    return {"permissions": {}, "condition": parts}


class WholeDocumentTests(SynchronousTestCase):
    def test_everything_is_read(self) -> None:
        policy = parse_policy("p", WHOLE)
        granted = policy.permissions
        self.assertEqual(granted.protocols, frozenset(PROTOCOLS))
        self.assertEqual(granted.ssh.exec_commands, ("^uptime$",))
        self.assertEqual(granted.ssh.allowed_connections[0].destination_port, "8080")
        self.assertIsNone(granted.ssh.allowed_connections[1].destination_port)
        self.assertEqual(granted.ssh.allowed_namespaces[0].pod_selector, (("app", "api"),))
        self.assertEqual(granted.ssh.max_session_duration_seconds, 1800)
        self.assertFalse(granted.ssh.everything)
        self.assertEqual(granted.database.databases[0].query_types, ("ReadOnly",))
        self.assertEqual(granted.kubernetes[0].resource_names, ())
        self.assertEqual(granted.aws_s3[0].buckets, ("logs-*",))
        self.assertEqual(granted.aws_iam_role_arns, (("arn:aws:iam::000000000000:role/ro", 3600),))
        self.assertEqual(policy.condition.who.group, ())
        self.assertIsNone(policy.condition.when.before)
        self.assertEqual(policy.condition.when.time_of_day_after.hour, 7)

    def test_an_unknown_key_anywhere_is_an_error(self) -> None:
        def places(node: object, path: tuple[object, ...]) -> list[tuple[object, ...]]:
            found = [path] if isinstance(node, dict) else []
            items = node.items() if isinstance(node, dict) else enumerate(node)
            for key, value in items:
                if isinstance(value, (dict, list)):
                    found += places(value, (*path, key))
            return found

        # maps whose keys are the user's own
        free = ("pod_selector", "aws_iam_role_arns")
        checked = 0
        for path in places(WHOLE, ()):
            if path and path[-1] in free:
                continue
            document = copy.deepcopy(WHOLE)
            node = document
            for key in path:
                node = node[key]
            node["zzz"] = 1
            self.assertIn('unknown key "zzz"', error(document), path)
            checked += 1
        self.assertGreater(checked, 20)

    def test_null_is_absent(self) -> None:
        policy = parse_policy(
            "p",
            {
                "permissions": {
                    "ssh": None,
                    "database": {"allowed_databases": None, "max_session_duration_seconds": None},
                },
                "condition": None,
            },
        )
        self.assertEqual(policy.permissions.protocols, {"database"})
        self.assertIsNone(policy.permissions.database.databases)
        self.assertIsNone(policy.condition.who)

    def test_empty_object_is_everything(self) -> None:
        policy = parse_policy("p", permit(ssh={}, database={}))
        self.assertTrue(policy.permissions.ssh.everything)
        self.assertIsNone(policy.permissions.database.databases)


class MessageTests(SynchronousTestCase):
    def test_messages(self) -> None:
        for data, message in (
            ({}, 'the document: "permissions" is missing'),
            ([], "the document: must be an object, not a list"),
            (
                {"permisions": {}},
                'the document: unknown key "permisions"; did you mean "permissions"?',
            ),
            (
                permit(databse={}),
                'permissions: unknown key "databse"; did you mean "database"?',
            ),
            (
                permit(ssh={"shel": {}}),
                'permissions.ssh: unknown key "shel"; did you mean "shell"?',
            ),
            (
                permit(http={"paths": []}),
                'permissions.http: unknown key "paths"; no key is valid here',
            ),
            (permit(tls=[]), "permissions.tls: must be an object, not a list"),
            (permit(database=True), "permissions.database: must be an object, not a boolean"),
            (
                databases(allowed_query_types=["ReadOnyl"]),
                "permissions.database.allowed_databases[0].allowed_query_types[0]: "
                'unknown query type "ReadOnyl"; did you mean "ReadOnly"?',
            ),
            (
                databases(allowed_query_types="ReadOnly"),
                "permissions.database.allowed_databases[0].allowed_query_types: "
                "must be a list, not a string",
            ),
            (
                permit(database={"allowed_databases": [{}]}),
                "permissions.database.allowed_databases[0].database: "
                "is missing; * means any database",
            ),
            (
                permit(database={"max_session_duration_seconds": 0}),
                "permissions.database.max_session_duration_seconds: "
                "must be a positive whole number of seconds",
            ),
            (
                permit(ssh={"exec": {"commands": ["("]}}),
                "permissions.ssh.exec.commands[0]: not a regular expression: "
                "missing ), unterminated subpattern at position 0",
            ),
            (
                condition(who={"domain": ["example.org"]}),
                'condition.who: unknown key "domain"; valid here: email, group, service_account',
            ),
            (
                condition(where={"allowed_ip": ["10.0.0.0/33"]}),
                'condition.where.allowed_ip[0]: "10.0.0.0/33" is no address and no range in '
                "CIDR notation",
            ),
            (
                condition(where={"country": ["Netherlands"]}),
                'condition.where.country[0]: "Netherlands" is no two-letter country code '
                "(ISO 3166-1)",
            ),
            (
                condition(when={"after": "yesterday"}),
                'condition.when.after: "yesterday" is no time; write 2026-01-31T08:00:00Z or '
                "the date 2026-01-31",
            ),
            (
                condition(when={"time_of_day_after": "7:00"}),
                'condition.when.time_of_day_after: "7:00" is no time of day; write 07:00 UTC '
                "or 07:00:30 UTC",
            ),
            (
                {"permissions": {}, "require": {"mfa": True}},
                "require.mfa: cannot be enforced by this version, so the policy is refused",
            ),
            (
                {"deny": {"kubernetes": {"rules": []}}},
                "deny.kubernetes: only {} can be denied by this version; "
                "its rules cannot be enforced",
            ),
            (
                {"deny": {"database": {"max_session_duration_seconds": 5}}},
                "deny.database.max_session_duration_seconds: has no meaning in deny",
            ),
        ):
            self.assertEqual(error(data), f'policy "p": {message}')

    def test_what_cannot_be_enforced_is_refused(self) -> None:
        for key in ("tables", "columns", "functions", "max_rows", "max_seconds"):
            for value in ([], 1, ["x"]):
                self.assertEqual(
                    error(databases(**{key: value})),
                    f'policy "p": permissions.database.allowed_databases[0].{key}: '
                    "cannot be enforced by this version, so the policy is refused",
                )

    def test_where_begins_the_message(self) -> None:
        with self.assertRaises(ConfigError) as caught:
            parse_policy("p", {}, "connector.toml")
        self.assertTrue(str(caught.exception).startswith('connector.toml: policy "p": '))


NAMES = [
    *("ReadOnly", "READWRITE", "select", "Insert", "DDL", "Lock_Tables", "UNLOCK_TABLES"),
    *("Begin", "Commit", "Rollback", "Revert", "Release", "Analyze", "Replace", "Use", "dcl"),
    *("exec", "file_or_program", "Admin", "replication", "unclassified", "copy_in", "Explain"),
    *("Set", "Show", "Prepare", "Execute", "Deallocate", "DEALLOCATE PREPARE"),
]


class ValueTests(SynchronousTestCase):
    def test_times(self) -> None:
        for text in (
            "2026-01-31",
            "2026-01-31T08:00:00Z",
            "2026-01-31T08:00:00.123456789+02:00",
            "2026-01-31 08:00:00z",
            "",
        ):
            self.assertEqual(error(condition(when={"after": text, "before": text})), "", text)
        for text in ("2026-02-30", "2026-01-31T08:00:00", "2026-01-31T25:00:00Z", "1", "now"):
            self.assertIn("is no time", error(condition(when={"before": text})), text)

    def test_times_of_day(self) -> None:
        for text in ("00:00 UTC", "23:59:59 UTC"):
            self.assertEqual(error(condition(when={"time_of_day_after": text})), "")
        for text in ("24:00 UTC", "07:00", "07:00 CET", "07:00 UTC\n", "07:60 UTC"):
            self.assertIn("no time of day", error(condition(when={"time_of_day_after": text})))

    def test_addresses(self) -> None:
        for text in ("10.0.0.1", "10.0.0.1/8", "fd00::/8", "::1"):
            self.assertEqual(error(condition(where={"allowed_ip": [text]})), "")

    def test_query_types(self) -> None:
        for name in NAMES:
            self.assertEqual(error(databases(allowed_query_types=[name])), "", name)
        for name in ("parser_setting", "set_parser", "function_call", "", "*"):
            self.assertIn("unknown query type", error(databases(allowed_query_types=[name])))
