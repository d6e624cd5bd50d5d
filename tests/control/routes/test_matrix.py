"""Every route of the organisation's API by every role, and with another organisation's ids."""

from __future__ import annotations

from border0.control.api.routes import Table
from border0.control.routes import registry
from border0.control.routes.desk import Desk
from tests.support.controlplane import PIN, URL, ControlPlane
from tests.support.routematrix import RouteMatrix


class Everything(RouteMatrix, ControlPlane):
    least = 60
    # The example gives the role admin: only an owner changes roles.
    deeper = frozenset(("PUT /organizations/iam/user/{user:text}",))

    def register(self, table: Table, desk: Desk) -> None:
        registry.register(table, desk, tokens=self.tokens, base_url=URL, pin=PIN)

    def test_the_places_are_found(self) -> None:
        places = {(case.route.name, case.foreign) for case in self.cases()}
        self.assertIn(("POST /organizations/iam/groups", "body.user_ids.item"), places)
        self.assertIn(("PUT /socket/{socket:text}/connectors", "body.connector_ids.item"), places)
        self.assertIn(("DELETE /invite/{id:invite}", "path:id"), places)
