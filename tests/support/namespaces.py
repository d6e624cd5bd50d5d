"""Network namespaces for tests: made, entered by threads, joined by veth pairs, removed.

Names carry the process id, so that runs at the same time do not meet. Root is needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence

from tests.support import children

_libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)


def unique(prefix: str) -> str:
    """Return a name of at most 15 characters that no other process uses."""
    # A fixed width: 0x12 and 3 are not 0x1 and 0x23.
    return f"{prefix}{os.getpid():06x}{next(_numbers):x}"[:15]


def ip(*words: str) -> None:
    """Run the ip program; AssertionError with its complaint when it fails."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Namespace:
    """One network namespace; ``Namespace("name", existing=True)`` wraps one made elsewhere."""

    def __init__(self, name: str = "", *, existing: bool = False) -> None:
        self.name = name or unique("b0n")
        self.existing = existing
        if not existing:
            ip("netns", "add", self.name)
            ip("-n", self.name, "link", "set", "lo", "up")

    def close(self) -> None:
        """Remove the namespace, unless it was only wrapped."""
        if not self.existing:
            subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let this thread's new sockets and children belong to the namespace."""
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        target = os.open("/run/netns/" + self.name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(target, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            _libc.setns(outside, CLONE_NEWNET)
            os.close(outside)
            os.close(target)

    def ip(self, *words: str) -> None:
        """Run the ip program on this namespace."""
        family = [word for word in words[:1] if word == "-6"]
        ip(*family, "-n", self.name, *words[len(family) :])

    def sysctl(self, **settings: str) -> None:
        """Set net.* values that belong to the namespace; those the kernel refuses are left."""
        for name, value in settings.items():
            path = "/proc/sys/" + name.replace("__", "/")
            with self.inside(), contextlib.suppress(OSError), open(path, "w") as file:
                file.write(value)

    def spawn(self, argv: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        """Start a program inside; the options are those of children.spawn."""
        with self.inside():
            return children.spawn(argv, **options)  # type: ignore[arg-type]

    def run(
        self,
        argv: Sequence[str],
        *,
        user: str | None = None,
        input: bytes = b"",
        timeout: float = 60.0,
        environment: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program inside until it ends; output is text, errors in ``stderr``."""
        pipe = subprocess.PIPE
        child = self.spawn(
            argv, user=user, stdin=pipe, stdout=pipe, stderr=pipe, environment=environment
        )
        try:
            out, err = child.communicate(input, timeout)
        except BaseException:
            children.end(child, patience=1)
            raise
        return subprocess.CompletedProcess(
            list(argv),
            child.returncode,
            out.decode("utf-8", "replace"),
            err.decode("utf-8", "replace"),
        )


def veth(first: Namespace, second: Namespace, subnet: int = 0) -> tuple[str, str]:
    """Join two namespaces; return the IPv4 addresses 198.18.SUBNET.1 and .2 (IPv6: fd00:SUBNET::).

    198.18.0.0/15 is the range of benchmarks (RFC 2544).
    """
    one, two = unique("b0v"), unique("b0v")
    ip("link", "add", one, "netns", first.name, "type", "veth", "peer", two, "netns", second.name)
    for namespace, link, last in ((first, one, 1), (second, two, 2)):
        namespace.ip("addr", "add", f"198.18.{subnet}.{last}/24", "dev", link)
        namespace.ip("addr", "add", f"fd00:0:0:{subnet}::{last}/64", "dev", link, "nodad")
        namespace.ip("link", "set", link, "up")
    return f"198.18.{subnet}.1", f"198.18.{subnet}.2"
