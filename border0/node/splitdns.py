"""Lets this machine's resolver ask the node for names of services, and undoes it.

Source: resolv.conf(5); glibc resolv/res_send.c (after REFUSED the next server is asked) and musl
(it listens to all, and to no REFUSED); resolvconf(8) of Debian and of openresolv.

The node refuses every name that is not a service's. So it suffices to stand first in the list of
servers; who is asked for the rest stays as it was.

| where it is said | when | what is left behind by a kill |
|---|---|---|
| systemd-resolved (`resolved`) | /etc/resolv.conf leads to its stub, the bus answers | nothing |
| resolvconf | it wrote /etc/resolv.conf | its record, until `undo` |
| /etc/resolv.conf | otherwise | the file, until `undo` |

Every change is in the journal before it is made. What somebody else has written since is not
touched. It blocks: small files, and programs that take milliseconds.
"""

import errno
import os
import stat
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any, Protocol

from border0.errors import Border0Error
from border0.node import programs, resolved
from border0.node.journal import Journal
from border0.node.resolved import Resolved

RESOLV_CONF = Path("/etc/resolv.conf")
MAXIMUM = 1 << 16
COMMENT = "# border0 node: the first server knows services only; this file is restored when it ends"


class Resolver(Protocol):
    """One way to say it; every method raises Border0Error or OSError."""

    @property
    def name(self) -> str:
        """What it is, for a person."""

    def use(self, servers: list[str], domains: list[str]) -> None:
        """Have these servers asked first, for these domains; again when they change."""

    def look(self) -> None:
        """Do it again where others have undone it."""

    def restore(self) -> object:
        """Undo it; harmless when nothing was done."""


def choose(journal: Journal, interface: str, path: Path = RESOLV_CONF) -> Resolver:
    """The way that this machine has."""
    if resolved.leads_to(path) and resolved.answers():
        return Resolved(journal, interface)
    if programs.find("resolvconf") and _is_generated(path):
        # Both programs put what is called like that before others, by the name alone.
        return Resolvconf(journal, f"tun0.{interface}")
    return ResolvConf(journal, path)


def undo(journal: Journal) -> list[str]:
    """Undo what a killed process left; a line for each thing, done or failed.

    What cannot be undone now stays in the journal.
    """
    said = []
    for entry in journal.read():
        try:
            what = _undo(journal, entry)
        except (KeyError, ValueError, TypeError):
            journal.done(entry)  # nobody wrote it like that
            continue
        except (Border0Error, OSError) as error:
            said.append(f"cannot restore what a killed node changed: {error}")
            continue
        if what:
            said.append(f"restored {what}: the node was killed before it could")
    return said


def _undo(journal: Journal, entry: dict[str, Any]) -> str:
    """What was restored, "" when it had gone by itself."""
    if entry["kind"] == "resolv.conf":
        file = ResolvConf(journal, Path(str(entry["path"])))
        file.entry = entry
        file.restore()
        return str(file.path)
    if entry["kind"] == "resolvconf":
        record = Resolvconf(journal, str(entry["record"]))
        record.entry = entry
        record.restore()
        return f"resolvconf's {record.record}"
    if entry["kind"] == "resolved":
        link = Resolved(journal, str(entry["interface"]))
        link.entry = entry
        return f"systemd-resolved's {link.interface}" if link.restore() else ""
    raise ValueError(entry["kind"])


def _is_generated(path: Path) -> bool:
    """Whether resolvconf writes this file."""
    if "/resolvconf/" in os.path.realpath(path):
        return True
    head = (_read(path) or b"").splitlines()[:4]
    return any(line.startswith(b"#") and b"by resolvconf" in line for line in head)


def _read(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(MAXIMUM)
    except FileNotFoundError:
        return None


def render(original: str, servers: list[str]) -> str:
    """A resolv.conf with these servers first, otherwise as it was."""
    ours = [f"nameserver {server}" for server in servers]
    out: list[str] = []
    place = -1
    for line in original.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"]:
            if words[1:2] and words[1] in servers:
                continue
            if place < 0:
                place = len(out)
        elif words[:1] == ["options"] and "rotate" in words:
            # It would ask the others first for names that only we know.
            words.remove("rotate")
            line = " ".join(words)
            if len(words) == 1:
                continue
        if line != COMMENT:
            out.append(line)
    if place < 0:
        # Without any server in the file, the one on this machine is asked.
        place = len(out)
        out.append("nameserver 127.0.0.1")
    return "\n".join([COMMENT, *out[:place], *ours, *out[place:]]) + "\n"


class ResolvConf:
    """The file itself; what was there is in the journal."""

    name = "resolv.conf"

    def __init__(self, journal: Journal, path: Path = RESOLV_CONF) -> None:
        self.journal, self.path = journal, path
        self.entry: dict[str, Any] | None = None
        self._servers: list[str] = []

    def use(self, servers: list[str], domains: list[str]) -> None:
        """As `Resolver`; a program that asks the file's servers has them at once."""
        if servers == self._servers:
            return
        self.restore()
        self._servers = list(servers)
        if servers:
            self._write()

    def look(self) -> None:
        """What another program has written becomes the original of ours."""
        if self._servers and (self.entry is None or _read(self.path) != self._ours()):
            self._write()

    def restore(self) -> None:
        """As `Resolver`; a file that is not ours any more is left alone."""
        entry, self._servers = self.entry, []
        if entry is None:
            return
        ours = _read(self.path) == self._ours()
        link, was = entry.get("link"), entry.get("was")
        if not ours:
            pass
        elif isinstance(link, str):
            fresh = self._fresh()
            os.symlink(link, fresh)
            os.replace(fresh, self.path)
        elif was is None:
            self.path.unlink(missing_ok=True)
        else:
            self._put(b64decode(was), int(entry.get("mode", 0o644)))
        self.entry = None
        self.journal.done(entry)

    def _ours(self) -> bytes:
        assert self.entry is not None
        return b64decode(self.entry["ours"])

    def _write(self) -> None:
        original = _read(self.path)
        link = os.readlink(self.path) if self.path.is_symlink() else None
        mode = 0o644
        if original is not None:
            mode = stat.S_IMODE(self.path.stat().st_mode)
        text = (original or b"").decode("utf-8", "surrogateescape")
        ours = render(text, self._servers).encode("utf-8", "surrogateescape")
        entry = {
            "kind": "resolv.conf",
            "path": str(self.path),
            "link": link,
            "was": None if original is None else b64encode(original).decode(),
            "mode": mode,
            "ours": b64encode(ours).decode(),
        }
        if self.entry is None:
            self.journal.add(entry)
        else:
            self.journal.replace(self.entry, entry)
        self.entry = entry
        self._put(ours, mode)

    def _fresh(self) -> Path:
        fresh = self.path.with_name(f".{self.path.name}.border0")
        fresh.unlink(missing_ok=True)
        return fresh

    def _put(self, data: bytes, mode: int) -> None:
        fresh = self._fresh()
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.replace(fresh, self.path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            if error.errno != errno.EBUSY:
                raise
            # A container's file is mounted: it can be written, not replaced.
            with open(self.path, "wb") as file:
                file.write(data)


class Resolvconf:
    """A record of the program that writes the file from what all interfaces say."""

    name = "resolvconf"

    def __init__(self, journal: Journal, record: str) -> None:
        self.journal, self.record = journal, record
        self.entry: dict[str, Any] | None = None
        self._servers: list[str] = []

    def use(self, servers: list[str], domains: list[str]) -> None:
        """As `Resolver`."""
        if servers == self._servers:
            return
        if not servers:
            self.restore()
            return
        if self.entry is None:
            self.entry = {"kind": "resolvconf", "record": self.record}
            self.journal.add(self.entry)
        text = "".join(f"nameserver {server}\n" for server in servers)
        programs.run(["resolvconf", "-a", self.record], text)
        self._servers = list(servers)

    def look(self) -> None:
        """It keeps our record by itself."""

    def restore(self) -> None:
        """As `Resolver`."""
        self._servers = []
        if self.entry is not None:
            programs.run(["resolvconf", "-d", self.record, "-f"])
            self.journal.done(self.entry)
            self.entry = None
