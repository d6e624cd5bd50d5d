"""Real web servers and proxies between two ends: nginx, tinyproxy and Squid, each on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

from tests.support import children
from tests.support.counterparts import find_program

SECONDS = 30.0

NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/errors info;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {certificate};
        ssl_certificate_key {key};
        ssl_protocols {protocols};
        location / {{
            proxy_pass {upstream};
            proxy_http_version 1.1;
            proxy_ssl_protocols {protocols};
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""

TINYPROXY = """
Listen 127.0.0.1
Port {port}
Timeout 600
Allow 127.0.0.1
LogLevel Info
{login}
"""

SQUID = """
http_port 127.0.0.1:{port}
pid_filename none
access_log none
cache_log {folder}/log
cache_store_log none
cache deny all
coredump_dir {folder}
visible_hostname localhost
shutdown_lifetime 0 seconds
pinger_enable off
{login}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """One of them, running until `stop`."""

    def __init__(self, folder: Path, argv: list[str], port: int) -> None:
        self.folder, self.port = folder, port
        self.output = folder / "output"
        self._child = children.spawn(argv, output=self.output)

        def answers() -> bool:
            if self._child.poll() is not None:
                raise AssertionError(f"{argv[0]} has ended:\n{self.output.read_text()}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        try:
            children.wait_until(answers, SECONDS, f"{argv[0]} listens")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        children.end(self._child, patience=5.0)

    def told(self) -> str:
        """What it wrote."""
        return self.output.read_text("utf-8", "replace")


def _folder(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir(mode=0o755)
    if os.geteuid() == 0:  # it gives up being root
        made.chmod(0o777)
        for parent in (folder, *list(folder.parents)[:3]):
            parent.chmod(parent.stat().st_mode | 0o011)
    return made


def nginx(
    folder: Path,
    certificate: Path,
    key: Path,
    upstream: str,
    protocols: str = "TLSv1.2 TLSv1.3",
) -> Program:
    """A server that ends TLS and passes everything on to `upstream`."""
    place, port = _folder(folder, "nginx"), free_port()
    file = place / "nginx.conf"
    file.write_text(
        NGINX.format(
            folder=place, port=port, certificate=certificate.absolute(), key=key.absolute(),
            upstream=upstream, protocols=protocols,
        )
    )  # fmt: skip
    program = find_program("nginx") or ""
    errors = str(place / "start")
    return Program(place, [program, "-p", str(place), "-c", str(file), "-e", errors], port)


def tinyproxy(folder: Path, login: tuple[str, str] | None = None) -> Program:
    """A CONNECT proxy, with Basic authentication when there is a login."""
    place, port = _folder(folder, "tinyproxy"), free_port()
    file = place / "tinyproxy.conf"
    words = f"BasicAuth {login[0]} {login[1]}" if login else ""
    file.write_text(TINYPROXY.format(port=port, login=words))
    return Program(place, [find_program("tinyproxy") or "", "-d", "-c", str(file)], port)


def squid(folder: Path, login: tuple[str, str] | None = None) -> Program:
    """As `tinyproxy`."""
    place, port = _folder(folder, "squid"), free_port()
    file, lines = place / "squid.conf", ["http_access allow localhost", "http_access deny all"]
    if login:
        made = subprocess.run(
            ["openssl", "passwd", "-apr1", login[1]], capture_output=True, text=True, check=True
        )
        users = place / "users"
        users.write_text(f"{login[0]}:{made.stdout}")
        lines = [
            f"auth_param basic program /usr/lib/squid/basic_ncsa_auth {users}",
            "auth_param basic children 1",
            "auth_param basic realm tests",
            "acl known proxy_auth REQUIRED",
            "http_access allow known",
            "http_access deny all",
        ]
    file.write_text(SQUID.format(folder=place, port=port, login="\n".join(lines)))
    return Program(place, [find_program("squid") or "", "-N", "-f", str(file)], port)


HAPROXY = """
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen front
    bind 127.0.0.1:{port} ssl crt {pair}
    server behind 127.0.0.1:{behind}
"""


def tls_before(folder: Path, certificate: Path, key: Path, behind: int) -> Program:
    """HAProxy, which ends TLS before a port of this machine."""
    place, port = _folder(folder, "haproxy"), free_port()
    pair, file = place / "pair.pem", place / "haproxy.cfg"
    pair.write_bytes(certificate.read_bytes() + key.read_bytes())
    file.write_text(HAPROXY.format(port=port, pair=pair, behind=behind))
    return Program(place, [find_program("haproxy") or "", "-db", "-f", str(file)], port)
