"""The organisation's settings, and what anybody may know about the server."""

from __future__ import annotations

from border0 import __version__
from border0.control.api.routes import Table
from border0.control.enrol import DEVICE_DAYS
from border0.control.routes import organisation
from border0.control.routes.desk import Desk
from border0.control.routes.joining import Address
from border0.control.store import organisations
from tests.support.controlplane import ACME, PIN, URL, ControlPlane
from tests.support.web import exchange


class Organisation(ControlPlane):
    def register(self, table: Table, desk: Desk) -> None:
        organisation.register(table, desk, address=Address(URL, PIN))

    def test_anybody_may_ask_what_this_is(self) -> None:
        response = exchange(self.site, "GET", "/api/v1/server_info")
        self.assertEqual(
            response.json(), {"version": __version__, "url": URL, "ca": PIN}, response.raw
        )

    def test_settings(self) -> None:
        found = self.ok("GET", "/organization", who="member@acme")
        row = self.read(lambda connection: organisations.get(connection, ACME))
        self.assertEqual((found["id"], found["name"]), (ACME, "acme"))
        self.assertEqual(found["network"]["services_v6"], row.services_v6)
        self.assertEqual(
            found["settings"],
            {
                "require_device_approval": False,
                "require_connector_approval": False,
                "device_lifetime_days": DEVICE_DAYS,
            },
        )
        changed = self.ok("PUT", "/organization", {"settings": {"device_lifetime_days": 90}})
        changed = self.ok("PUT", "/organization", {"settings": {"require_device_approval": True}})
        self.assertEqual((changed["settings"]["device_lifetime_days"], changed["version"]), (90, 3))
        event = self.last_event()
        self.assertEqual(
            (event["type"], event["details"]),
            (
                "organisation.update",
                {
                    "from": {"require_device_approval": False},
                    "to": {"require_device_approval": True},
                },
            ),
        )
        row = self.read(lambda connection: organisations.get(connection, ACME))
        settings = organisation.settings_of(row)
        self.assertEqual(
            (settings.require_device_approval, settings.device_lifetime_days), (True, 90)
        )
        self.ok("PUT", "/organization", {"settings": {"device_lifetime_days": None}})
        other = self.ok("GET", "/organization", who="owner@other")
        self.assertFalse(other["settings"]["require_device_approval"])

    def test_refusals(self) -> None:
        body = {"settings": {"require_device_approval": True}}
        for who in ("admin@acme", "auditor@acme", "member@acme", "service@acme"):
            self.refused(403, "PUT", "/organization", body, who=who)
        self.refused(412, "PUT", "/organization", body, headers=[("If-Match", '"v9"')])
        for wrong in (
            {},
            {"settings": {"require_approval": True}},
            {"settings": {"device_lifetime_days": 0}},
            {"settings": {}, "name": "x"},
        ):
            self.refused(422, "PUT", "/organization", wrong)
