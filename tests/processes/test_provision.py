"""What a home asks of its own control plane at its start: made once, and never changed by it."""

from typing import Any

from border0.control.store import attachments, invites, sockets
from border0.processes.provision import Wanted, code, owner_of, provide
from tests.control.planes import PlaneCase


def wanted(name: str, port: int) -> dict[str, Any]:
    upstream = {
        "service_type": "tls",
        "tls_service_configuration": {
            "tls_service_type": "standard",
            "standard_tls_service_configuration": {"hostname": "127.0.0.1", "port": port},
        },
    }
    return {
        "name": name,
        "socket_type": "tls",
        "port": port,
        "recording_enabled": True,
        "upstream_configuration": upstream,
    }


class Providing(PlaneCase):
    async def names(self) -> list[str]:
        page = await self.plane.store.read(lambda c: sockets.page(c, self.org))
        return sorted(one.name for one in page.items)

    async def test_services_are_made_once_with_the_owners_policy(self):
        store = self.plane.store
        first = Wanted("me@local", [wanted("cache-tcp", 6379), wanted("mail-tcp", 25)])
        self.assertEqual(await provide(store, self.org, self.owner, first), [])
        self.assertEqual(await self.names(), ["cache-tcp", "mail-tcp"])
        made = await store.read(lambda c: sockets.find(c, self.org, "cache-tcp"))
        self.assertEqual(made.port, 6379)
        held = await store.read(lambda c: attachments.of_socket(c, self.org, made.id))
        self.assertEqual(len(held), 1)
        # The same again is the same; another service of that name is told, and changes nothing.
        self.assertEqual(await provide(store, self.org, self.owner, first), [])
        other = Wanted("me@local", [wanted("cache-tcp", 6380), wanted("more-tcp", 7)])
        self.assertEqual(await provide(store, self.org, self.owner, other), ["cache-tcp"])
        self.assertEqual(await self.names(), ["cache-tcp", "mail-tcp", "more-tcp"])
        self.assertEqual(made, await store.read(lambda c: sockets.get(c, self.org, made.id)))
        self.assertEqual(await provide(store, self.org, self.owner, Wanted("me@local")), [])

    async def test_the_owner_is_who_is_there(self):
        self.assertEqual(await owner_of(self.plane.store, self.org, "me@local"), self.owner)

    async def test_a_code_names_the_machine(self):
        text = await code(self.plane.store, self.org, "device", "this-machine", self.owner)
        now = self.plane.wall()
        found = await self.plane.store.read(lambda c: invites.verify(c, text, "device", now))
        payload = {"name": "this-machine", "user_id": self.owner, "approved": True}
        self.assertEqual({**found.payload, **payload}, found.payload)
