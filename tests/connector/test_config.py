"""The stand-alone file: what it accepts, and that each mistake names file, key and remedy."""

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from border0.connector.config import ConnectorConfig, load
from border0.connector.upstreams import TcpUpstream
from border0.errors import ConfigError
from border0.proxies.postgres.upstream import PostgresUpstream

KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
CANARY = "canary-5e31-password"
GOOD = f"""
[connector]
name = "lab"
[[device]]
name = "alice-laptop"
public_key = "{KEY}"
addresses = ["100.64.0.2/32", "fd62:6f72:6465:7230::2/128"]
user = "alice@example.org"
groups = ["eng"]
[[socket]]
name = "shop-db"
socket_type = "database"
private_network_ipv4 = "100.126.0.1"
private_network_ipv6 = "fd62:6f72:6465:7231::1"
policies = ["eng-read"]
[socket.upstream_configuration]
service_type = "database"
[socket.upstream_configuration.database_service_configuration]
database_service_type = "standard"
[socket.upstream_configuration.database_service_configuration.standard_database_service_configuration]
protocol = "postgres"
hostname = "127.0.0.1"
port = 5433
authentication_type = "username_and_password"
username_and_password_auth_configuration = {{ username = "app", password = "from:env:SHOP_PW" }}
[[socket]]
name = "cache"
socket_type = "tls"
private_network_ipv4 = "100.126.0.3"
[socket.upstream_configuration]
service_type = "tls"
[socket.upstream_configuration.tls_service_configuration]
tls_service_type = "standard"
[socket.upstream_configuration.tls_service_configuration.standard_tls_service_configuration]
hostname = "127.0.0.1"
port = 6379
[[policy]]
name = "eng-read"
policy_data = {{ permissions = {{ database = {{}} }} }}
"""

# (what is replaced, by what, what the message must say)
MISTAKES = [
    ('name = "lab"', 'name = "lab"\nlisten_prot = 1', "did you mean 'listen_port'?"),
    ('name = "lab"', "", "connector: the key 'name' is missing"),
    ('name = "lab"', 'name = "Lab_1"', "lower-case letters"),
    ('name = "lab"', 'name = "lab"\nlisten_port = 70000', "70000 is not between 0 and 65535"),
    ('name = "lab"', 'name = "lab"\nlisten_port = "1"', "expected a whole number, found a string"),
    ('name = "lab"', 'name = "lab"\nmtu = 900', "900 is not between 1280 and 9000"),
    ('name = "lab"', 'name = "lab"\nlisten_address = "here"', "'here' is not an IP address"),
    ('name = "lab"', 'name = "lab"\nadvertise = ["host.example:9"]', "write ADDRESS:PORT"),
    ('name = "lab"', 'name = "lab"\nadvertise = ["192.0.2.1"]', "write ADDRESS:PORT"),
    ('name = "lab"', 'name = "lab"\nadvertise = ["192.0.2.1:0"]', "write ADDRESS:PORT"),
    ('name = "lab"', 'name = "lab"\nadvertise = ["::1:9"]', "write ADDRESS:PORT"),
    ('name = "lab"', 'name = "lab"\nadvertise = ["[192.0.2.1]:9"]', "write ADDRESS:PORT"),
    ("[connector]", "[conector]", "connector"),
    ("[connector]", "[control]\nurl = 'x'\n[connector]", "no address of a control plane"),
    ("[connector]", "[control]\nurl = 'https://c'\n[connector]", "the control plane says it"),
    (f'public_key = "{KEY}"', 'public_key = "abc"', "expected a WireGuard public key"),
    ("100.64.0.2/32", "100.64.0.0/16", "single addresses (/32, /128)"),
    ("100.64.0.2/32", "10.0.0.2/32", "inside 100.64.0.0/16"),
    ("100.126.0.1", "100.127.0.1", "outside the service range 100.126.0.0/24"),
    ('policies = ["eng-read"]', 'policies = ["eng-raed"]', "did you mean 'eng-read'?"),
    ('protocol = "postgres"', 'protocol = "postgresql"', "did you mean 'postgres'?"),
    ('socket_type = "tls"', 'socket_type = "tsl"', "did you mean 'tls'?"),
    ('hostname = "127.0.0.1"\nport = 6379', "port = 6379", "the key 'hostname' is missing"),
    ('username = "app"', 'usernam = "app"', "the key 'username' is missing"),
    ("from:env:SHOP_PW", "from:env:ABSENT_VARIABLE", "ABSENT_VARIABLE is not set"),
    ("from:env:SHOP_PW", "from:vault:x", "known are env, file and cmd"),
    ("from:env:SHOP_PW", "from:file:absent.txt", "No such file"),
    ('user = "alice@example.org"', "", "exactly one of user and service_account"),
    ("100.126.0.3", '100.126.0.1"\nport = 5432\ndescription = "', "belongs to both"),
    ('name = "cache"', 'name = "shop-db"', "the socket name shop-db is given twice"),
    ("policy_data =", "policy_file = 'x.json'\npolicy_data =", "exactly one of policy_data"),
    ("permissions = { database", "permisions = { database", "permissions"),
    ("[connector]", "[connector", "not valid TOML"),
]


HTTP = """
[[socket]]
name = "wiki"
socket_type = "http"
private_network_ipv4 = "100.126.0.7"
[socket.upstream_configuration]
service_type = "http"
[socket.upstream_configuration.http_service_configuration]
http_service_type = "standard"
[socket.upstream_configuration.http_service_configuration.standard_http_service_configuration]
hostname = "wiki.internal"
port = 8443
scheme = "https"
host_header = "wiki"
headers = [{ key = "X-Api-Key", value = "from:env:SHOP_PW" }]
"""
FILES = """
[[socket]]
name = "files"
socket_type = "http"
private_network_ipv4 = "100.126.0.8"
[socket.upstream_configuration.http_service_configuration]
http_service_type = "connector_file_server"
[socket.upstream_configuration.http_service_configuration.fileserver_http_service_configuration]
top_level_directory = "."
"""
ALLOW = '[local]\nallow = ["connector_file_server"]\n'
HTTP_MISTAKES = [
    ('scheme = "https"', 'scheme = "ftp"', "scheme"),
    ('scheme = "https"', 'scheme = "http"\nca_certificate = "x"', "only https"),
    ('host_header = "wiki"', 'host_header = "wi\\nki"', "expected a host name"),
    ("X-Api-Key", "X_Api_Key", "letters, digits and dashes"),
    ("X-Api-Key", "X-Auth-Email", "the proxy's own"),
    ("X-Api-Key", "Transfer-Encoding", "the proxy's own"),
    ("X-Api-Key", "host", "the proxy's own"),
    ("from:env:SHOP_PW", "a\\nb", "no control characters"),
    ("from:env:SHOP_PW", "x" * 4097, "at most 4096"),
    ("port = 8443", "prot = 8443", "did you mean 'port'?"),
    ('"standard"', '"connector_file_server"', '[local] allow = ["connector_file_server"]'),
]


class Load(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        os.environ["SHOP_PW"] = CANARY
        self.addCleanup(os.environ.pop, "SHOP_PW", None)

    def read(self, text: str) -> ConnectorConfig:
        path = self.folder / "connector.toml"
        path.write_text(text)
        return load(path)

    def test_a_good_file(self) -> None:
        config = self.read(GOOD)
        database, cache = config.sockets
        self.assertEqual((config.name, config.listen_port, config.mtu), ("lab", 32442, 1380))
        self.assertEqual(database.port, 5432)
        self.assertEqual(cache.port, 6379)
        self.assertTrue(database.recording_enabled)
        assert isinstance(database.upstream, PostgresUpstream)
        assert isinstance(cache.upstream, TcpUpstream)
        self.assertEqual(database.upstream.port, 5433)
        self.assertEqual(database.upstream.tls_mode, "prefer")
        assert database.upstream.password is not None
        self.assertEqual(database.upstream.password.reveal(), CANARY)
        self.assertEqual(config.state_dir, self.folder.resolve() / "state")
        self.assertNotIn(CANARY, repr(config))

    def test_a_ca_certificate_means_verify_full(self) -> None:
        (self.folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
        text = GOOD.replace(
            'authentication_type = "username_and_password"',
            'authentication_type = "username_and_password"\nca_certificate = "from:file:ca.pem"',
        )
        upstream: Any = self.read(text).sockets[0].upstream
        self.assertEqual(upstream.tls_mode, "verify-full")

    def test_a_policy_file(self) -> None:
        (self.folder / "p.json").write_text('{"permissions": {"tls": {}}}')
        text = GOOD[: GOOD.index("policy_data")] + 'policy_file = "p.json"\n'
        self.assertIn("eng-read", self.read(text).policies)

    def test_http(self) -> None:
        upstream: Any = self.read(GOOD + HTTP).sockets[-1].upstream
        self.assertEqual((upstream.host, upstream.port), ("wiki.internal", 8443))
        self.assertEqual((upstream.scheme, upstream.host_value), ("https", b"wiki"))
        self.assertEqual(upstream.headers, [("X-Api-Key", CANARY)])
        config = self.read(GOOD + HTTP)
        self.assertEqual(config.sockets[-1].port, 80)
        self.assertNotIn(CANARY, repr(config))
        upstream.host_header = ""
        self.assertEqual(upstream.host_value, b"wiki.internal:8443")

    def test_http_mistakes(self) -> None:
        for old, new, expected in HTTP_MISTAKES:
            self.assertIn(old, HTTP)
            with self.subTest(new[:40]):
                text = GOOD + HTTP.replace(old, new, 1)
                error = self.assertRaises(ConfigError, self.read, text)
                self.assertIn(expected, str(error))
                self.assertNotIn(CANARY, str(error))

    def test_the_file_server_needs_permission(self) -> None:
        error = self.assertRaises(ConfigError, self.read, GOOD + FILES)
        self.assertIn('[local] allow = ["connector_file_server"]', str(error))
        upstream: Any = self.read(ALLOW + GOOD + FILES).sockets[-1].upstream
        self.assertEqual(upstream.top_level_directory, str(self.folder.resolve()))
        text = ALLOW + GOOD + FILES.replace('"."', '"absent"')
        self.assertIn("is no folder", str(self.assertRaises(ConfigError, self.read, text)))
        text = ALLOW.replace("file_server", "fileserver") + GOOD
        error = self.assertRaises(ConfigError, self.read, text)
        self.assertIn("did you mean 'connector_file_server'?", str(error))

    def test_without_services_no_secret_is_needed(self) -> None:
        path = self.folder / "connector.toml"
        path.write_text(GOOD.replace("from:env:SHOP_PW", "from:env:ABSENT_VARIABLE"))
        self.assertEqual(load(path, services=False).sockets, [])

    def test_the_documented_files(self) -> None:
        docs = Path(__file__).resolve().parents[2] / "docs"
        os.environ.update(WIKI_KEY="k", WIKI_TOKEN="t")
        self.addCleanup(os.environ.pop, "WIKI_KEY")
        self.addCleanup(os.environ.pop, "WIKI_TOKEN")
        (self.folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
        (self.folder / "alice.psk").write_text(KEY)
        (self.folder / "srv").mkdir()
        (self.folder / "keys").mkdir()
        private = ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
        )
        (self.folder / "keys" / "web-1").write_bytes(private)
        for page in ("configuration.md", "http.md"):
            blocks = (docs / page).read_text("utf-8").split("```toml\n")[1:]
            texts = [block.partition("```")[0] for block in blocks]
            # A connector that follows, and the control plane, have files of their own.
            text = "".join(one for one in texts if "[control]" not in one)
            text = text.replace("…base64…", KEY).replace("/srv/share", "srv")
            if page == "http.md":
                name = '[[policy]]\nname = "eng-web"\n'
                allow = '[local]\nallow = ["connector_file_server"]     # files of this machine'
                self.assertIn(allow, text)
                text = (
                    f'[connector]\nname = "lab"\n{name}policy_data.permissions.http = {{}}\n{text}'
                )
            self.assertGreaterEqual(len(self.read(text).sockets), 2)

    def test_mistakes(self) -> None:
        for old, new, expected in MISTAKES:
            self.assertIn(old, GOOD)
            with self.subTest(new):
                error = self.assertRaises(ConfigError, self.read, GOOD.replace(old, new, 1))
                self.assertIn(expected, str(error))
                self.assertIn("connector.toml", str(error))
                self.assertNotIn(CANARY, str(error))

    def test_no_file(self) -> None:
        error = self.assertRaises(ConfigError, load, self.folder / "absent.toml")
        self.assertIn("--config FILE", str(error))


class SSHSockets(SynchronousTestCase):
    """`ssh` sockets: what they lead to, and that each mistake says what to write."""

    def load(self, service, local="", extra=""):
        folder = Path(self.mktemp())
        folder.mkdir()
        path = folder / "connector.toml"
        path.write_text(
            f"""
[connector]
name = "lab"
{local}
[[socket]]
name = "box"
socket_type = "ssh"
private_network_ipv4 = "100.126.0.1"
[socket.upstream_configuration]
service_type = "ssh"
ssh_service_configuration = {service}
{extra}
"""
        )
        return load(path)

    def standard(self, login, more=""):
        inner = f'hostname = "10.0.0.7", {login}{more}'
        return f"{{ standard_ssh_service_configuration = {{ {inner} }} }}"

    PASSWORD = (
        'ssh_authentication_type = "username_and_password", '
        "username_and_password_auth_configuration = "
        '{ username = "app", password = "canary-5e31-password" }'
    )

    def test_a_server(self) -> None:
        from border0.proxies.ssh.upstream import SSHUpstream

        service = self.standard(self.PASSWORD, ', host_key_policy = "first-use"')
        (socket,) = self.load(service).sockets
        upstream = socket.upstream
        assert isinstance(upstream, SSHUpstream)
        self.assertEqual((socket.port, upstream.host, upstream.port), (22, "10.0.0.7", 22))
        self.assertEqual((upstream.username, upstream.username_provider), ("app", "defined"))
        self.assertNotIn(CANARY, repr(upstream))

    def test_the_built_in_shell_must_be_allowed(self) -> None:
        service = '{ ssh_service_type = "connector_built_in_ssh_service" }'
        allow = '[local]\nallow = ["connector_built_in_ssh_service"]'
        self.assertEqual(len(self.load(service, allow).sockets), 1)
        with self.assertRaises(ConfigError) as caught:
            self.load(service)
        self.assertIn('[local] allow = ["connector_built_in', str(caught.exception))

    def test_mistakes(self) -> None:
        key = (
            'ssh_authentication_type = "private_key", private_key_auth_configuration = '
            '{ username = "app", private_key = "canary-5e31-password" }'
        )
        for service, text in (
            (self.standard(self.PASSWORD), "ssh-keyscan -p 22 10.0.0.7"),
            (self.standard(self.PASSWORD, ', host_keys = ["x"]'), "expected a kind"),
            (self.standard(self.PASSWORD, ', host_key_policy = "first"'), "first-use"),
            (self.standard(key, ', host_key_policy = "first-use"'), "not a private key"),
            (self.standard('hostname2 = "x", ' + self.PASSWORD), "hostname2"),
            ('{ ssh_service_type = "aws_ssm" }', "aws_ssm"),
        ):
            with self.assertRaises(ConfigError) as caught:
                self.load(service)
            self.assertIn(text, str(caught.exception))
            self.assertNotIn(CANARY, str(caught.exception))
