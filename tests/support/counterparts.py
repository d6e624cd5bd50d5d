"""Find the real programs that tests talk to, and say what to install where one is missing.

``@requires("psql", "postgresql-server")`` on a test class or method skips it with a reason when a
counterpart is missing. Under ``CI=true`` a missing counterpart is a failure instead. When the run
ends, one line tells which Debian packages would enable what was skipped.

It does not start anything: see postgres.py, tunnel.py and connector.py.
"""

from __future__ import annotations

import atexit
import functools
import glob
import grp
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

EXTRA_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/ssh/sftp-server",
)
CLONE_NEWNET_PROBE = "/proc/self/ns/net"


def find_program(name: str) -> str | None:
    """Return the path of a program, also from the administrator's folders."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + EXTRA_PATH)


def postgresql_folder() -> str | None:
    """Return the folder with the newest server's ``postgres`` and ``initdb``, or None."""
    found = [
        path
        for path in glob.glob("/usr/lib/postgresql/*/bin")
        if os.access(path + "/postgres", os.X_OK) and os.access(path + "/initdb", os.X_OK)
    ]
    if found:
        return max(found, key=lambda path: float(path.split("/")[-2]))
    program = find_program("postgres")
    return os.path.dirname(os.path.realpath(program)) if program else None


def _program(name: str) -> Callable[[], str]:
    return lambda: "" if find_program(name) else f"the program {name} is not installed"


def _module(name: str) -> Callable[[], str]:
    def missing() -> str:
        return "" if importlib.util.find_spec(name) else f"the Python package {name} is missing"

    return missing


def _postgresql_server() -> str:
    return "" if postgresql_folder() else "no PostgreSQL server is installed"


def _sftp_server() -> str:
    return "" if any(map(os.path.exists, SFTP_SERVERS)) else "no sftp-server is installed"


def _root() -> str:
    # No capability arithmetic: what the tests do with namespaces and users needs the real root.
    return "" if sys.platform == "linux" and os.geteuid() == 0 else "needs root on Linux"


def _tun() -> str:
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        return f"/dev/net/tun cannot be opened ({error.strerror})"
    return ""


def _terminals() -> str:
    """An sshd without root gives a terminal only where the system makes it right at once."""
    if sys.platform != "linux" or os.geteuid() == 0:
        return ""
    near, far = os.openpty()
    try:
        entry = os.fstat(far)
        right = entry.st_uid == os.geteuid() and entry.st_gid == grp.getgrnam("tty").gr_gid
    except KeyError:
        right = False
    finally:
        os.close(near)
        os.close(far)
    return "" if right else "an sshd without root cannot give terminals (devpts has no gid=)"


def _namespaces() -> str:
    if _root():
        return _root()
    if not os.path.exists(CLONE_NEWNET_PROBE):
        return "the kernel has no network namespaces"
    return _program("ip")()


# name -> (Debian package, or "" where none helps; probe that returns the reason it is missing)
COUNTERPARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "root": ("", _root),
    "namespaces": ("iproute2", _namespaces),
    "tun": ("", _tun),
    "wg": ("wireguard-tools", _program("wg")),
    "wireguard-go": ("wireguard-go", _program("wireguard-go")),
    "postgresql-server": ("postgresql", _postgresql_server),
    "psql": ("postgresql-client", _program("psql")),
    "pgbench": ("postgresql-contrib", _program("pgbench")),
    "pgbouncer": ("pgbouncer", _program("pgbouncer")),
    "haproxy": ("haproxy", _program("haproxy")),
    "ping": ("iputils-ping", _program("ping")),
    "nc": ("netcat-openbsd", _program("nc")),
    "curl": ("curl", _program("curl")),
    "dig": ("bind9-dnsutils", _program("dig")),
    "resolvconf": ("openresolv", _program("resolvconf")),
    "busctl": ("systemd", _program("busctl")),
    "dbus-daemon": ("dbus-daemon", _program("dbus-daemon")),
    "jeepney": ("", _module("jeepney")),
    "ssh": ("openssh-client", _program("ssh")),
    "sshd": ("openssh-server", _program("sshd")),
    "psycopg": ("", _module("psycopg")),
    "websockets": ("", _module("websockets")),
    "sftp": ("openssh-client", _program("sftp")),
    "sftp-server": ("openssh-sftp-server", _sftp_server),
    "terminals": ("", _terminals),
    "openssl": ("openssl", _program("openssl")),
    "rsync": ("rsync", _program("rsync")),
    "asciinema": ("", _module("asciinema")),
    "noiseprotocol": ("", _module("noise")),
    "aioice": ("", _module("aioice")),
    "nft": ("nftables", _program("nft")),
    "nginx": ("nginx-light", _program("nginx")),
    "tinyproxy": ("tinyproxy", _program("tinyproxy")),
    "squid": ("squid", _program("squid")),
    "miniupnpd": ("miniupnpd-nftables", _program("miniupnpd")),
}

_wanted_packages: set[str] = set()


@functools.cache
def missing(name: str) -> str:
    """Return why a counterpart cannot be used, or "" when it can."""
    package, probe = COUNTERPARTS[name]
    reason = probe()
    if reason and package:
        if not _wanted_packages:
            atexit.register(_print_packages)
        _wanted_packages.add(package)
    return reason


def found() -> list[str]:
    """Return the sorted names of all counterparts that this machine has."""
    return sorted(name for name in COUNTERPARTS if not missing(name))


def under_ci() -> bool:
    """Say whether a missing counterpart is a failure."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def install_line() -> str:
    """Return the one command that would enable the skipped tests, or ""."""
    if not _wanted_packages:
        return ""
    return "to run the skipped tests: apt-get install " + " ".join(sorted(_wanted_packages))


def _print_packages() -> None:
    print(install_line(), file=sys.stderr, flush=True)


def requires(*names: str) -> Callable[[T], T]:
    """Decorate a test class or method that needs the named counterparts."""

    def decorate(subject: T) -> T:
        reasons = [reason for reason in map(missing, names) if reason]
        if not reasons:
            return subject
        text = "; ".join(reasons)
        marked: Any = subject
        if not under_ci():
            marked.skip = text
            return subject

        def refuse(self: Any, *args: object) -> None:
            raise self.failureException(f"a counterpart is missing under CI: {text}")

        if isinstance(subject, type):
            marked.setUp = refuse
            return subject
        return functools.wraps(marked)(refuse)  # type: ignore[return-value]

    return decorate


def takes_long() -> bool:
    """Say whether this is the long run: many rounds where others make do with some."""
    return os.environ.get("BORDER0_LONG", "") not in ("", "0")


def long_only(subject: T) -> T:
    """Decorate a test that is too slow for every run: ``BORDER0_LONG=1`` enables it.

    To a run under CI it does not belong at all, so that nothing which is skipped there is usual.
    """
    if not takes_long():
        if under_ci() and not isinstance(subject, type):
            missing: Any = None
            return missing  # type: ignore[no-any-return]
        marked: Any = subject
        marked.skip = "takes longer than 30 seconds: tox -e long, or BORDER0_LONG=1"
    return subject


def slow(subject: T) -> T:
    """Decorate a test that runs in minutes: under CI and with ``BORDER0_LONG=1``."""
    return subject if under_ci() else long_only(subject)
