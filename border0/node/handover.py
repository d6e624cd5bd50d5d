"""Hands a connection of the tunnel to OpenSSH, which then talks to the agent without a go-between.

Source: ssh_config(5), ProxyUseFdpass: the ProxyCommand passes a connected socket on its standard
output and ends. Unix only: descriptors travel by SCM_RIGHTS (unix(7)).
"""

import shlex
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from border0.errors import Border0Error

# What ssh runs: it fetches the descriptor from us. Without site-packages it starts in no time.
_FETCH = (
    "import socket as s,sys;c=s.socket(s.AF_UNIX);c.connect(sys.argv[1]);"
    "m,f,_,_=s.recv_fds(c,1,1);f or sys.exit(1);s.send_fds(s.socket(fileno=1),[m],f)"
)


def possible() -> bool:
    """Whether this system passes descriptors between processes."""
    return hasattr(socket, "send_fds")


def pass_on(stream: socket.socket) -> None:
    """Send a connection over our standard output.

    :raises Border0Error: standard output is not what ssh makes for ProxyUseFdpass.
    """
    try:
        with socket.socket(fileno=1) as out:
            socket.send_fds(out, [b"\0"], [stream.fileno()])
            out.detach()
    except OSError:
        raise Border0Error(
            "--fdpass is for OpenSSH, as a ProxyCommand with ProxyUseFdpass yes"
        ) from None


class Handover:
    """Waits in a socket file for ssh's ProxyCommand and then opens the connection it gets.

    :param folder: where the file lies; nobody else may reach it.
    :param open_stream: makes the connection; called in a thread, once.
    """

    def __init__(self, folder: Path, open_stream: Callable[[], socket.socket]) -> None:
        self.path = folder / "tunnel"
        self.error: Border0Error | None = None
        self._open = open_stream
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def command(self) -> str:
        """The ProxyCommand, for a shell."""
        return shlex.join([sys.executable, "-I", "-S", "-c", _FETCH, str(self.path)])

    def _serve(self) -> None:
        try:
            caller, _ = self._listener.accept()
        except OSError:
            return  # closed: ssh never asked
        with caller:
            try:
                with self._open() as stream:
                    socket.send_fds(caller, [b"\0"], [stream.fileno()])
            except Border0Error as error:
                self.error = error
            except OSError:
                pass  # ssh is gone

    def close(self) -> None:
        """Wait no longer."""
        self._listener.close()
