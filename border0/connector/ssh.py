"""SSH upstreams: a server, or the connector's own shell, read strictly.

Source: the public SDK's field names (borderzero/border0-go,
types/service/ssh_service_configuration.go). `host_keys` and `host_key_policy` are additions.
"""

from pathlib import Path

from border0.errors import ConfigError
from border0.proxies.ssh.adapters.client import private_key
from border0.proxies.ssh.upstream import (
    KEY_POLICIES,
    PROVIDERS,
    BuiltinSSH,
    SSHUpstream,
    read_host_key,
)
from border0.secrets import Secret, resolve
from border0.tables import Table

BUILT_IN = "connector_built_in_ssh_service"


def read_ssh(table: Table, allowed: frozenset[str]) -> SSHUpstream | BuiltinSSH:
    """The upstream of one `ssh` socket.

    :param allowed: the built-in services that this machine's owner permits.
    :raises ConfigError: unknown or missing keys, what is not permitted, unresolved references.
    """
    kind = table.choice("ssh_service_type", ("standard", BUILT_IN), "standard")
    if kind == BUILT_IN:
        if kind not in allowed:
            advice = f'it runs programs on this machine: write [local] allow = ["{kind}"]'
            raise table.error(f"{advice} to permit it", "ssh_service_type")
        inner = table.table("connector_built_in_ssh_service_configuration", optional=True)
        inner.close()
        table.close()
        return BuiltinSSH()
    inner = table.table("standard_ssh_service_configuration")
    table.close()
    return _standard(inner)


def _standard(table: Table) -> SSHUpstream:
    kinds = ("username_and_password", "private_key")
    kind = table.choice("ssh_authentication_type", kinds)
    login = table.table(f"{kind}_auth_configuration")
    provider = login.choice("username_provider", PROVIDERS, "defined")
    upstream = SSHUpstream(
        host=table.text("hostname"),
        port=table.number("port", 1, 65535, 22),
        username_provider=provider,
        host_key_policy=table.choice("host_key_policy", KEY_POLICIES, "pinned"),
        host_keys=tuple(_host_keys(table)),
    )
    if provider == "defined":
        upstream.username = _resolve(login, "username").reveal()
    else:
        login.text("username", "")
    if kind == "private_key":
        upstream.private_key = _resolve(login, "private_key")
        try:
            private_key(upstream.private_key)
        except ValueError as error:
            raise login.error(str(error), "private_key") from None
    else:
        upstream.password = _resolve(login, "password")
    login.close()
    table.close()
    if upstream.host_key_policy == "pinned" and not upstream.host_keys:
        scan = f"ssh-keyscan -p {upstream.port} {upstream.host}"
        raise table.error(
            f'name the server\'s keys (read them there, or with "{scan}" on a network that you '
            'trust), or write host_key_policy = "first-use"',
            "host_keys",
        )
    return upstream


def _host_keys(table: Table) -> list[bytes]:
    found = []
    for text in table.strings("host_keys", []):
        try:
            found.append(read_host_key(text))
        except ValueError as error:
            raise table.error(str(error), "host_keys") from None
    return found


def _resolve(table: Table, key: str) -> Secret:
    try:
        return resolve(table.text(key), Path(table.file).resolve().parent)
    except ConfigError as error:
        raise table.error(str(error), key) from None
