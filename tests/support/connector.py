"""The connector under test as a process of its own: writes its file, starts it, reads its records.

It runs ``twistd -n border0-connector --config FILE`` inside a network namespace, waits until the
log says ``ready``, and tells its memory and CPU time. It knows the stand-alone file's shape, not
the product's code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import children
from tests.support.namespaces import Namespace

PUBLIC_KEY = re.compile(r"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/]{43}=")
TWISTD = str(Path(sys.executable).with_name("twistd"))


def toml(value: Any) -> str:
    """Render a value as TOML; tables become inline tables."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items())
        return "{ " + inner + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, Path):
        return json.dumps(str(value))
    return json.dumps(value)


def render(configuration: Mapping[str, Any]) -> str:
    """Render a whole file."""
    return "".join(f"{key} = {toml(value)}\n" for key, value in configuration.items())


def device(name: str, public_key: str, addresses: Sequence[str], **more: Any) -> dict[str, Any]:
    """One [[device]] entry; the user is NAME@example.org unless given."""
    entry = {"name": name, "public_key": public_key, "addresses": list(addresses)}
    entry["user"] = f"{name.split('-')[0]}@example.org"
    return entry | more


def database(
    name: str, number: int, port: int, policies: Sequence[str], **upstream: Any
) -> dict[str, Any]:
    """One PostgreSQL [[socket]] at 100.126.0.NUMBER and ::NUMBER; its upstream is loopback."""
    login = {
        "username": upstream.pop("username", "app"),
        "password": upstream.pop("password", "from:env:SHOP_PW"),
    }
    for key in ("ca_certificate",):
        if key in upstream:
            login[key] = upstream.pop(key)
    standard = {
        "protocol": "postgres",
        "hostname": upstream.pop("hostname", "127.0.0.1"),
        "port": port,
        "authentication_type": "username_and_password",
        "username_and_password_auth_configuration": login,
        **upstream,
    }
    return {
        "name": name,
        "socket_type": "database",
        "private_network_ipv4": f"100.126.0.{number}",
        "private_network_ipv6": f"fd62:6f72:6465:7231::{number:x}",
        "port": 5432,
        "recording_enabled": True,
        "policies": list(policies),
        "upstream_configuration": {
            "service_type": "database",
            "database_service_configuration": {
                "database_service_type": "standard",
                "standard_database_service_configuration": standard,
            },
        },
    }


def tls(
    name: str, number: int, port: int, policies: Sequence[str], hostname: str = "127.0.0.1"
) -> dict[str, Any]:
    """One ``tls`` [[socket]] (any TCP) on the upstream's own port."""
    return {
        "name": name,
        "socket_type": "tls",
        "private_network_ipv4": f"100.126.0.{number}",
        "private_network_ipv6": f"fd62:6f72:6465:7231::{number:x}",
        "port": port,
        "recording_enabled": True,
        "policies": list(policies),
        "upstream_configuration": {
            "service_type": "tls",
            "tls_service_configuration": {
                "tls_service_type": "standard",
                "standard_tls_service_configuration": {"hostname": hostname, "port": port},
            },
        },
    }


def _http(
    name: str, number: int, policies: Sequence[str], configuration: dict[str, Any]
) -> dict[str, Any]:
    return {
        "name": name,
        "socket_type": "http",
        "private_network_ipv4": f"100.126.0.{number}",
        "private_network_ipv6": f"fd62:6f72:6465:7231::{number:x}",
        "recording_enabled": True,
        "policies": list(policies),
        "upstream_configuration": {
            "service_type": "http",
            "http_service_configuration": configuration,
        },
    }


def http(
    name: str, number: int, port: int, policies: Sequence[str], **upstream: Any
) -> dict[str, Any]:
    """One HTTP [[socket]] on port 80; its upstream is loopback."""
    standard = {"hostname": "127.0.0.1", "port": port, "scheme": "http", **upstream}
    configuration = {
        "http_service_type": "standard",
        "standard_http_service_configuration": standard,
    }
    return _http(name, number, policies, configuration)


def http_files(name: str, number: int, folder: Path, policies: Sequence[str]) -> dict[str, Any]:
    """One HTTP [[socket]] on port 80 with the built-in file server."""
    configuration = {
        "http_service_type": "connector_file_server",
        "fileserver_http_service_configuration": {"top_level_directory": str(folder)},
    }
    return _http(name, number, policies, configuration)


def policy(
    name: str, permissions: Mapping[str, Any], condition: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """One [[policy]] entry."""
    data: dict[str, Any] = {"permissions": dict(permissions)}
    if condition is not None:
        data["condition"] = dict(condition)
    return {"name": name, "policy_data": data}


def databases(*query_types: str) -> dict[str, Any]:
    """Permissions on every database for the given query types (none given: unrestricted)."""
    entry: dict[str, Any] = {"database": "*"}
    if query_types:
        entry["allowed_query_types"] = list(query_types)
    return {"database": {"allowed_databases": [entry]}}


class ConnectorProcess:
    """One connector; ``configuration`` lacks only what this class knows (name, port, folders)."""

    def __init__(
        self,
        namespace: Namespace | None,
        configuration: Mapping[str, Any],
        *,
        environment: Mapping[str, str] | None = None,
        state_dir: Path | None = None,
        program: Sequence[str] = (TWISTD,),
    ) -> None:
        self.namespace, self.program = namespace, list(program)
        self.folder = Path(tempfile.mkdtemp(prefix="border0-connector-"))
        self.state = state_dir or self.folder / "state"
        self.file = self.folder / "connector.toml"
        self.log_file = self.folder / "log"
        self.environment = {**os.environ, **(environment or {})}
        self.configuration: dict[str, Any] = {
            "connector": {
                "name": "lab",
                "private_key_file": "connector.key",
                "listen_port": 32442,
                "mtu": 1380,
                "state_dir": str(self.state),
            },
            **configuration,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.public_key = ""
        self._read_from = 0

    @property
    def pid(self) -> int:
        """The process id of twistd."""
        assert self.process is not None
        return self.process.pid

    def arguments(self, *options: str) -> list[str]:
        """Return the command line."""
        arguments = [*self.program, "-n", "--pidfile=", "border0-connector"]
        return [*arguments, "--config", str(self.file), *options]

    def write(self) -> None:
        """Write the file that twistd will read."""
        self.file.write_text(render(self.configuration))

    def start(self, patience: float = 60.0) -> ConnectorProcess:
        """Start it and wait until it is bound and has told its public key."""
        self.write()
        self._read_from = len(self.log())
        options: dict[str, Any] = {
            "output": self.log_file,
            "environment": self.environment,
            "folder": self.folder,
        }
        spawn = children.spawn if self.namespace is None else self.namespace.spawn
        self.process = spawn(self.arguments(), **options)
        children.wait_until(self._bound, patience, "the connector is ready")
        return self

    def _bound(self) -> bool:
        assert self.process is not None
        text = self.log()[self._read_from :]
        if self.process.poll() is not None:
            raise AssertionError(f"the connector ended ({self.process.returncode}):\n{text}")
        keys = PUBLIC_KEY.findall(text)
        if not keys or not re.search(r"\bready\b", text):
            return False
        self.public_key = keys[0]
        return True

    def validate(self, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``--validate`` on the configuration, or on a file of the given text."""
        if text is None:
            self.write()
        else:
            self.file.write_text(text)
        return subprocess.run(
            self.arguments("--validate"),
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
            timeout=30,
            check=False,
        )

    def log(self) -> str:
        """Return what the process has written so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def end(self, number: int = signal.SIGTERM) -> None:
        """End the process with a signal and wait for it."""
        if self.process is not None:
            children.end(self.process, number)
            self.process = None

    def restart(self, number: int = signal.SIGTERM) -> None:
        """End it with a signal and start it again with the same file and state."""
        self.end(number)
        self.start()

    def stop(self) -> None:
        """End it and remove its folder; harmless when it never started."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def memory(self, field: str = "VmRSS") -> int:
        """Return a memory figure of the process in bytes."""
        return children.memory(self.pid, field)

    def audit(self) -> list[dict[str, Any]]:
        """Return the audit log's lines."""
        return _lines(sorted(self.state.glob("audit/*.jsonl")))

    def recordings(self) -> dict[str, list[dict[str, Any]]]:
        """Return the recordings by session id."""
        files = sorted(self.state.glob("recordings/*/*/*/*.jsonl"))
        return {file.stem: _lines([file]) for file in files}

    def records(self, **wanted: object) -> list[dict[str, Any]]:
        """Return the recorded lines whose fields equal what is wanted, oldest first."""
        lines = [line for recording in self.recordings().values() for line in recording]
        return [line for line in lines if all(line.get(key) == wanted[key] for key in wanted)]

    def wait_for_record(self, seconds: float = 30.0, **wanted: object) -> dict[str, Any]:
        """Wait until a recorded line with these fields is in its file; return the newest."""
        children.wait_until(lambda: self.records(**wanted), seconds, f"a record with {wanted}", 0.1)
        return self.records(**wanted)[-1]

    def wait_for_audit(self, seconds: float = 30.0, **wanted: object) -> dict[str, Any]:
        """Wait until an audit line with these fields is there; return the newest."""
        children.wait_until(
            lambda: self.audited(**wanted), seconds, f"an audit line with {wanted}", 0.1
        )
        return self.audited(**wanted)[-1]

    def audited(self, **wanted: object) -> list[dict[str, Any]]:
        """Return the audit lines whose fields equal what is wanted, oldest first."""
        return [
            line for line in self.audit() if all(line.get(key) == wanted[key] for key in wanted)
        ]


def _lines(files: Sequence[Path]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for file in files:
        text = file.read_text("utf-8")
        # The last line may be half written while the connector runs.
        lines += [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
    return lines
