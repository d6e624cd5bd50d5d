"""Python's garbage collector, set for a process that handles many small messages.

What exists when the services have started lives as long as the process; looking at it again and
again finds nothing.
"""

import gc

YOUNG = 20_000  # allocations between two looks at the youngest objects


def settle() -> None:
    """Call once, when the process has started."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 50)
