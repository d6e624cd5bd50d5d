"""A user's program that runs in our place: signals are its business, its status becomes ours."""

import signal
import subprocess


def calm(child: "subprocess.Popen[bytes]") -> None:
    """Leave Ctrl-C to the child, which the terminal tells too; pass a request to end on."""

    def nothing(number: int, frame: object) -> None:
        pass  # a handler, not SIG_IGN, which the child would have inherited

    def end(number: int, frame: object) -> None:
        child.terminate()

    for name in ("SIGINT", "SIGQUIT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), nothing)
    signal.signal(signal.SIGTERM, end)


def exit_status(child: "subprocess.Popen[bytes]") -> int:
    """The child's exit status as a shell would give it: 128 and the signal that ended it."""
    status = child.wait()
    return status if status >= 0 else 128 - status
