"""Python's garbage collector, set for a process that handles many small messages.

What exists when the services have started lives as long as the process; looking at it again and
again finds nothing.
"""

import ctypes
import gc
import sys

YOUNG = 20_000  # allocations between two looks at the youngest objects


def settle() -> None:
    """Call once, when the process has started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)


def trim() -> None:
    """Give free memory back to the system: after a storm, whose peak would stay ours for good.

    Source: malloc_trim(3), glibc; elsewhere nothing happens. It takes some milliseconds.
    """
    found = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if found is not None:
        found(0)
