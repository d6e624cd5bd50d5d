"""Files of a device: what stands beside its key, and whether one was written anew."""

from pathlib import Path


def beside(path: Path, suffix: str) -> Path:
    """A file next to another: `client.key` and `.lock` give `client.key.lock`."""
    return path.with_name(path.name + suffix)


def stamp(path: Path) -> tuple[int, int, int]:
    """What changes with each new content; zeros when there is no such file."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)
