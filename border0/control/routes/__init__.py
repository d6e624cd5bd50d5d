"""The routes of `/api/v1`, one module per noun; `desk` is how they read and change the store."""

from border0.control.api.routes import Table
from border0.control.routes import audit, connector, explain, policy, session, socket
from border0.control.routes.desk import Desk


def register_all(table: Table, desk: Desk) -> None:
    """Add every noun's routes."""
    for noun in (socket, policy, explain, connector, session, audit):
        noun.register(table, desk)
