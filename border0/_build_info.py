"""Which build of border0 runs: pure Python or with compiled modules, and why.

`NATIVE_MODULES` is a literal that the build backend reads without importing this package.
"""

from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from typing import NamedTuple

NATIVE_MODULES: tuple[str, ...] = ()


class BuildInfo(NamedTuple):
    """`kind` is native, pure or mixed; `reason` says why in a few words."""

    kind: str
    reason: str


def build_info() -> BuildInfo:
    """Inspect the installed modules; does not import them."""
    suffixes = tuple(EXTENSION_SUFFIXES)
    origins = [spec.origin or "" for name in NATIVE_MODULES if (spec := find_spec(name))]
    compiled = [origin for origin in origins if origin.endswith(suffixes)]
    kind = "pure" if not compiled else "native" if len(compiled) == len(origins) else "mixed"
    try:
        reason = str(import_module("border0._built").REASON)
    except ModuleNotFoundError:
        reason = "source tree"
    return BuildInfo(kind, reason)
