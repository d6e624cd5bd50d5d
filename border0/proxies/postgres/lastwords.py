"""What a client is told last, when a session ends that was not its own to end: FATAL errors."""

from border0.proxies.postgres import codec


def server_closed() -> bytes:
    """The database server is gone and did not say why."""
    return codec.fatal(codec.CONNECTION_FAILURE, "the database server closed the connection")


def violated(error: Exception) -> bytes:
    """The client or the server broke the protocol."""
    return codec.fatal(codec.PROTOCOL_VIOLATION, str(error))


def recorder_failed() -> bytes:
    """A session that must be recorded cannot be."""
    return codec.fatal(
        codec.IO_ERROR,
        "terminating connection: the session cannot be recorded",
        "This service requires a recording, and the recorder cannot write.",
        "An administrator must free space or repair the connector's state directory.",
    )


def ended(reason: str) -> bytes:
    """The session's time is over, the service stops, or an administrator wants it."""
    return codec.fatal(codec.ADMIN_SHUTDOWN, f"terminating connection: {reason}")
