"""A control plane in one file, and back: the database, and the keys that nodes and people rely on.

| member | what it is |
|---|---|
| control.db | a snapshot of the database, SQLite whichever database it came from |
| keys/… | seals second factors; signs organisations' statements and their tickets, is its relay |
| authority/… | the private authority whose pin every node keeps |

Without the keys a restored control plane could neither sign what its nodes believe nor be reached
by them. Whoever has the file has these keys: it is written with mode 0600.
"""

import os
import tarfile
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from border0.control.config import ControlConfig
from border0.control.keyring import Keyring
from border0.control.store import backup as store_backup
from border0.control.store.engine import make_engine, parse_url
from border0.control.tickets import key_file
from border0.errors import ConfigError

DATABASE = "control.db"
FOLDERS = ("keys", "authority")
# What of a home's keys is a control plane's; the others belong to nodes.
PATTERNS = {"keys": ("server.key", "org-*.key", "relay.key"), "authority": ("*",)}
MEMBER_LIMIT = 64 * 1024  # bytes of one key file


def backup(config: ControlConfig, path: Path) -> None:
    """Write everything to `path`; the control plane may run meanwhile.

    :raises ConfigError: the file cannot be written, or there is no control plane here.
    :raises Unavailable: the database fails.
    """
    files = [
        file
        for folder in FOLDERS
        for pattern in PATTERNS[folder]
        for file in sorted((config.state_dir / folder).glob(pattern))
        if file.is_file() and not file.name.endswith(".new")
    ]
    if not any(file.parent.name == "keys" for file in files):
        raise ConfigError(f"{config.state_dir}: no control plane has run here")
    try:
        with tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder:
            database, whole = Path(folder, DATABASE), Path(folder, "whole")
            engine = make_engine(
                parse_url(config.database.reveal()), write=False, size=1, busy_seconds=30.0
            )
            try:
                store_backup.backup(engine, database)
            finally:
                engine.dispose()
            handle = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as output:
                with tarfile.open(fileobj=output, mode="w") as tar:
                    tar.add(database, DATABASE)
                    for file in files:
                        tar.add(file, f"{file.parent.name}/{file.name}")
                output.flush()
                os.fsync(output.fileno())
            os.replace(whole, path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def restore(config: ControlConfig, path: Path) -> None:
    """Fill an empty database and an empty state folder from `path`.

    :raises ConfigError: no backup, or there is a control plane here already.
    :raises Unavailable: the database fails.
    """
    state = config.state_dir
    for folder in FOLDERS:
        if any(next((state / folder).glob(pattern), None) for pattern in PATTERNS[folder]):
            raise ConfigError(
                f"{state / folder}: there are keys already; restore into a new folder"
            )
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=state) as folder:
        found = _unpacked(path, Path(folder))
        store_backup.restore(Path(folder, DATABASE), config.database.reveal())
        for name in found:
            target = state / name
            target.parent.mkdir(mode=0o700, exist_ok=True)
            os.replace(Path(folder, name), target)


def ticket_keys(config: ControlConfig) -> dict[str, list[dict[str, Any]]]:
    """The keys by which relays know tickets, of every organisation that has one here.

    :raises ConfigError: no control plane has run here, or a key cannot be used.
    """
    keyring = Keyring(config.state_dir)
    names = [path.name for path in sorted(keyring.folder.glob("org-*.ticket.key"))]
    orgs = [name.removeprefix("org-").removesuffix(".ticket.key") for name in names]
    if not orgs:
        raise ConfigError(f"{config.state_dir}: no control plane has run here")
    keys = [(org, keyring.ticket_key(org, create=False)) for org in orgs]
    return key_file([(org, key.public_key().public_bytes_raw()) for org, key in keys], {})


def _unpacked(path: Path, folder: Path) -> list[str]:
    """Write the members that a backup has into a folder; the names of the key files."""
    names = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                parts = Path(member.name).parts
                known = member.name == DATABASE or (
                    len(parts) == 2
                    and "/".join(parts) == member.name
                    and any(fnmatchcase(parts[1], one) for one in PATTERNS.get(parts[0], ()))
                )
                if not known or not member.isreg() or parts[-1] == ".." or "\0" in member.name:
                    raise ConfigError(f"{path}: not a backup: it holds {member.name!r}")
                if member.name != DATABASE and member.size > MEMBER_LIMIT:
                    raise ConfigError(f"{path}: not a backup: {member.name} is too large")
                source = tar.extractfile(member)
                assert source is not None
                target = folder / member.name
                target.parent.mkdir(mode=0o700, exist_ok=True)
                handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as output, source:
                    while chunk := source.read(1 << 20):
                        output.write(chunk)
                if member.name != DATABASE:
                    names.append(member.name)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except tarfile.TarError:
        raise ConfigError(f"{path}: not a backup, or damaged") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    if not (folder / DATABASE).exists() or not names:
        raise ConfigError(f"{path}: not a backup: it lacks the database or the keys")
    return names
