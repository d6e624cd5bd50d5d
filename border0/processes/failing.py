"""The end of a process under twistd that could not start: one line, and a status that says so."""

import atexit
import os
import sys


def fail(program: str, why: str = "") -> None:
    """Say why, and let the process end with status 1, whatever its reactor says.

    :param why: "" when it has been said already.
    """
    atexit.register(_exit_failed)  # the status of twistd's own end would be 0
    if why:
        print(f"{program}: {why}", file=sys.__stderr__)  # twistd's own goes to its log


def _exit_failed() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
