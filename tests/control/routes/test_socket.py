"""Sockets over the API."""

import copy
from typing import Any

from border0.control.effective import effective_policies
from border0.control.store import sockets
from tests.control.routes.case import ACME, NOWHERE, POSTGRES, TLS, RoutesCase

SSH = {
    "service_type": "ssh",
    "ssh_service_configuration": {
        "ssh_service_type": "standard",
        "standard_ssh_service_configuration": {
            "hostname": "10.0.0.7",
            "port": 2222,
            "ssh_authentication_type": "username_and_password",
            "username_and_password_auth_configuration": {"username": "x", "password": "canary-pw"},
        },
    },
}


def with_member(configuration: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one member set; `path` is dotted."""
    made = copy.deepcopy(configuration)
    *outer, last = path.split(".")
    here = made
    for key in outer:
        here = here[key]
    here[last] = value
    return made


INNER = "database_service_configuration.standard_database_service_configuration"


class Sockets(RoutesCase):
    async def test_a_life(self) -> None:
        connector = await self.new_connector()
        policy = await self.new_policy()
        body = {
            "name": "shop-db",
            "display_name": "The shop's",
            "description": "orders",
            "socket_type": "database",
            "tags": {"env": "prod", "team": "a=b", "plain": ""},
            "connector_ids": [connector],
            "policies": [policy],
            "upstream_configuration": POSTGRES,
        }
        response = await self.call("POST", "/socket", body)
        self.assertEqual(response.status, 201, response.raw)
        made = response.json()
        self.assertEqual(response.header("etag"), f'"v{made["version"]}"')
        wanted = {
            "name": "shop-db",
            "display_name": "The shop's",
            "description": "orders",
            "socket_type": "database",
            "port": 5432,
            "tags": {"env": "prod", "team": "a=b", "plain": ""},
            "recording_enabled": True,
            "connector_ids": [connector],
            "connectors": [{"connector_id": connector, "name": "lab", "online": False}],
            "policies": [{"id": policy, "name": "eng-read", "org_wide": False, "attached": True}],
            "upstream_configuration": POSTGRES,
            "dnsname": "shop-db.acme.border0.internal",
            "status": "no connector online",
        }
        self.assertEqual({name: made[name] for name in wanted}, wanted)
        self.assertEqual(made["created_at"], "2027-01-15T08:00:00.000000Z")
        self.assertTrue(made["private_network_ipv4"].startswith("100.126."))
        self.assertIn(":", made["private_network_ipv6"])
        for path in ("/socket/shop-db", f"/socket/{made['socket_id']}"):
            self.assertEqual(await self.ok("GET", path, by="auditor"), made)
        self.assertEqual((await self.ok("GET", "/socket"))["items"], [made])
        changed = await self.ok(
            "PUT", "/socket/shop-db", {"name": "shop", "port": 6000, "recording_enabled": False}
        )
        self.assertEqual(
            (changed["name"], changed["port"], changed["recording_enabled"], changed["version"]),
            ("shop", 6000, False, made["version"] + 1),
        )
        self.assertEqual(changed["connector_ids"], [connector])
        self.assertIsNone(await self.ok("DELETE", "/socket/shop"))
        self.assertEqual(await self.refused(404, "GET", "/socket/shop"), "there is no such socket")
        self.assertEqual((await self.ok("GET", "/socket"))["items"], [])
        for type in ("socket.create", "socket.update", "socket.delete"):
            (event,) = await self.records(type)
            self.assertEqual((event["target"]["id"], event["result"]), (made["socket_id"], "ok"))
        (update,) = await self.records("socket.update")
        self.assertEqual(update["details"], {"changed": ["name", "port", "recording_enabled"]})
        self.assertEqual((update["actor"]["user"], update["result"]), ("owner@acme.test", "ok"))

    async def test_pages(self) -> None:
        for number in range(5):
            await self.new_socket(f"s{number}")
        names, cursor = [], ""
        for _ in range(3):
            page = await self.ok("GET", f"/socket?limit=2&cursor={cursor}")
            names += [one["name"] for one in page["items"]]
            cursor = page.get("next_cursor", "")
        self.assertEqual((names, cursor), ([f"s{number}" for number in range(5)], ""))
        await self.refused(422, "GET", "/socket?cursor=bm9wZQ")

    async def test_ports_by_default(self) -> None:
        for number, (kind, configuration, port) in enumerate(
            (
                ("database", POSTGRES, 5432),
                ("database", with_member(POSTGRES, f"{INNER}.protocol", "mysql"), 3306),
                ("database", with_member(POSTGRES, f"{INNER}.protocol", "mssql"), 1433),
                ("ssh", SSH, 22),
                ("tls", TLS, 6379),
                ("vnc", {"vnc_service_configuration": {"hostname": "h", "port": 5901}}, 5900),
                ("rdp", {"rdp_service_configuration": {"hostname": "h", "port": 3389}}, 3389),
                (
                    "http",
                    {"http_service_configuration": {
                        "standard_http_service_configuration": {"hostname": "h", "port": 8080}}},
                    80,
                ),
                (
                    "ssh",
                    {"ssh_service_configuration": {
                        "ssh_service_type": "connector_built_in_ssh_service"}},
                    22,
                ),
            )
        ):  # fmt: skip
            made = await self.ok(
                "POST",
                "/socket",
                {"name": f"s{number}", "socket_type": kind,
                 "upstream_configuration": configuration},
            )  # fmt: skip
            self.assertEqual(made["port"], port, configuration)
            self.assertEqual(made["upstream_configuration"]["service_type"], kind)
        exit_node = {"name": "exit", "socket_type": "exit_node",
                     "upstream_configuration": {"exit_node_service_configuration": {}}}  # fmt: skip
        self.assertIn("port: it is required", await self.refused(422, "POST", "/socket", exit_node))
        self.assertEqual((await self.ok("POST", "/socket", {**exit_node, "port": 7}))["port"], 7)

    async def test_upstreams_of_a_wrong_form(self) -> None:
        inner = f"upstream_configuration.{INNER}"
        both = {**POSTGRES, "tls_service_configuration": TLS["tls_service_configuration"]}
        deep: Any = "x"
        for _ in range(12):
            deep = [deep]
        for configuration, message in (
            ({}, "database_service_configuration: it is required"),
            ({**POSTGRES, "service_type": "tls"}, "service_type: it does not fit"),
            (both, "unknown key; did you mean"),
            ({**POSTGRES, "service_tpe": "x"}, "did you mean 'service_type'?"),
            (
                with_member(POSTGRES, "database_service_configuration", []),
                "it must be an object",
            ),
            (
                with_member(
                    POSTGRES, "database_service_configuration.database_service_type", "standrd"
                ),
                "did you mean 'standard'?",
            ),
            (with_member(POSTGRES, f"{INNER}.protocol", "postgre"), "did you mean 'postgres'?"),
            (with_member(POSTGRES, f"{INNER}.hostname", ""), f"{inner}.hostname: it is required"),
            (with_member(POSTGRES, f"{INNER}.port", "5432"), "a port is a number"),
            (with_member(POSTGRES, f"{INNER}.port", 70000), "a port is a number"),
            (with_member(POSTGRES, f"{INNER}.authentication_type", 7), "is not known"),
            (
                with_member(POSTGRES, "database_service_configuration.x_service_configuration", {}),
                "the one configuration of that kind",
            ),
            (
                with_member(
                    POSTGRES,
                    f"{INNER}.username_and_password_auth_configuration.password",
                    "from:cmd:cat /etc/shadow",
                ),
                "from:cmd is refused",
            ),
            (with_member(POSTGRES, f"{INNER}.a", [{"b": " from:cmd:x"}]), f"{inner}.a[0].b: from"),
            (with_member(POSTGRES, f"{INNER}.a", deep), "it is nested too deeply"),
            (with_member(POSTGRES, f"{INNER}.a", "x" * 70000), "it is longer than"),
            (with_member(POSTGRES, f"{INNER}.a", "x\0"), "NUL"),
            (with_member(POSTGRES, f"{INNER}.password", "********"), "a secret is not shown"),
        ):
            body = {"name": "x", "socket_type": "database",
                    "upstream_configuration": configuration}  # fmt: skip
            found = await self.refused(422, "POST", "/socket", body)
            self.assertIn(message, found)
        body = {"name": "x", "socket_type": "databse", "upstream_configuration": POSTGRES}
        self.assertIn("did you mean 'database'?", await self.refused(422, "POST", "/socket", body))
        self.assertEqual((await self.ok("GET", "/socket"))["items"], [])

    async def test_other_wrong_values(self) -> None:
        good = {"name": "a", "socket_type": "database", "upstream_configuration": POSTGRES}
        for wrong in (
            {"name": "A"},
            {"name": "a\n"},
            {"name": NOWHERE},
            {"name": "x" * 64},
            {"port": 0},
            {"tags": {"": "x"}},
            {"tags": {"a=b": "x"}},
            {"tags": [""]},
            {"tags": {str(number): "" for number in range(65)}},
            {"private_network_ipv4": "192.0.2.1"},
            {"private_network_ipv4": "nonsense"},
            {"unknown": 1},
            {"connector_ids": ["lab"]},
        ):
            await self.refused(422, "POST", "/socket", {**good, **wrong})
        await self.ok("POST", "/socket", {**good, "tags": ["b", "a=1"]})
        self.assertEqual((await self.ok("GET", "/socket/a"))["tags"], {"a": "1", "b": ""})
        self.assertEqual(await self.refused(409, "POST", "/socket", good), "this name is taken")

    async def test_addresses_are_given_once(self) -> None:
        first = await self.ok("GET", f"/socket/{await self.new_socket()}")
        v4, v6 = first["private_network_ipv4"], first["private_network_ipv6"]
        wanted = v4.rpartition(".")[0] + ".77"
        id = await self.new_socket("second", private_network_ipv4=wanted)
        self.assertEqual((await self.ok("GET", f"/socket/{id}"))["private_network_ipv4"], wanted)
        taken = {"name": "third", "socket_type": "tls", "upstream_configuration": TLS}
        await self.refused(409, "POST", "/socket", {**taken, "private_network_ipv4": wanted})
        await self.ok("PUT", "/socket/shop-db", {"private_network_ipv4": v4,
                                                 "private_network_ipv6": v6})  # fmt: skip
        message = await self.refused(
            422, "PUT", "/socket/shop-db", {"private_network_ipv4": wanted}
        )
        self.assertIn("a socket keeps its address", message)

    async def test_versions(self) -> None:
        await self.new_socket()
        etag = (await self.call("GET", "/socket/shop-db")).header("etag")
        await self.ok("PUT", "/socket/shop-db", {"description": "one"}, match=etag)
        for method, path, body in (
            ("PUT", "/socket/shop-db", {"description": "two"}),
            ("PUT", "/socket/shop-db/connectors", {"connector_ids": []}),
            ("PUT", "/socket/shop-db/policy", {"actions": []}),
            ("DELETE", "/socket/shop-db", None),
        ):
            await self.refused(412, method, path, body, match=etag)
        found = await self.ok("GET", "/socket/shop-db")
        self.assertEqual(found["description"], "one")
        await self.ok("PUT", "/socket/shop-db", {"description": "three"})
        await self.ok("DELETE", "/socket/shop-db", match="*")
        types = [(one["type"], one["result"]) for one in await self.records()]
        self.assertEqual(types.count(("socket.update", "failed")), 1)

    async def test_secrets_are_not_shown(self) -> None:
        body = {"name": "box", "socket_type": "ssh", "upstream_configuration": SSH}
        made = await self.ok("POST", "/socket", body)
        path = "ssh_service_configuration.standard_ssh_service_configuration"
        password = f"{path}.username_and_password_auth_configuration.password"
        shown = with_member(SSH, password, "********")
        self.assertEqual(made["upstream_configuration"], shown)

        async def stored() -> Any:
            found = await self.read(lambda c: sockets.find(c, ACME, "box"))
            return found.upstream_configuration

        change = {"upstream_configuration": shown, "description": "same"}
        response = await self.call("PUT", "/socket/box", change)
        self.assertNotIn(b"canary", response.raw)
        self.assertEqual(await stored(), SSH)
        elsewhere = with_member(shown, f"{path}.hostname", "evil.test")
        message = await self.refused(
            422, "PUT", "/socket/box", {"upstream_configuration": elsewhere}
        )
        self.assertIn("give it again", message)
        self.assertEqual(await stored(), SSH)
        new = with_member(elsewhere, password, "from:env:BOX_PW")
        made = await self.ok("PUT", "/socket/box", {"upstream_configuration": new})
        self.assertEqual((made["upstream_configuration"], await stored()), (new, new))
        self.assertNotIn("canary", repr(await self.records()))

    async def test_status(self) -> None:
        one, two = await self.new_connector("one"), await self.new_connector("two")
        id = await self.new_socket(connector_ids=[one, two])

        async def status() -> str:
            found: str = (await self.ok("GET", "/socket/shop-db"))["status"]
            return found

        self.assertEqual(await status(), "no connector online")
        self.nodes.connected[ACME, one] = "192.0.2.1"
        self.assertEqual(await status(), "served")
        self.nodes.refused[ACME, one] = {id: "env:SHOP_PW is not in [local] secrets"}
        self.assertEqual(await status(), "refused: env:SHOP_PW is not in [local] secrets")
        self.nodes.connected[ACME, two] = "192.0.2.2"
        self.assertEqual(await status(), "served")
        online = (await self.ok("GET", "/socket"))["items"][0]["connectors"]
        self.assertEqual([each["online"] for each in online], [True, True])

    async def test_who_may_not_write_policies_changes_none_through_a_socket(self) -> None:
        policy = await self.new_policy()
        rules = [{"env": "prod"}]
        await self.new_policy("closed", tag_rules=rules)
        await self.new_socket(tags={"env": "prod"})
        robot = self.principals["owner"]._replace(
            role="service", scopes=frozenset(("socket.read", "socket.write"))
        )
        self.principals["robot"] = robot
        body = {"name": "x", "socket_type": "tls", "upstream_configuration": TLS}
        for method, path, value in (
            ("POST", "/socket", {**body, "policies": [policy]}),
            ("PUT", "/socket/shop-db", {"policies": [policy]}),
            ("PUT", "/socket/shop-db", {"tags": {}}),
            ("PUT", "/socket/shop-db/policy", {"actions": []}),
        ):
            message = await self.refused(403, method, path, value, by="robot")
            self.assertEqual(message, "the permission policy.write is missing")
        await self.ok("POST", "/socket", body, by="robot")
        change = {"description": "x", "policies": [], "tags": {"env": "prod", "more": ""}}
        made = await self.ok("PUT", "/socket/shop-db", change, by="robot")
        self.assertEqual([one["name"] for one in made["policies"]], ["closed"])
        results = [one["result"] for one in await self.records("socket.update")]
        self.assertEqual(sorted(results), ["denied", "denied", "ok"])

    async def test_connectors_and_policies(self) -> None:
        one, two = await self.new_connector("one"), await self.new_connector("two")
        first, second = await self.new_policy("first"), await self.new_policy("second")
        wide = await self.new_policy("wide", org_wide=True)
        id = await self.new_socket(connector_ids=[one])
        made = await self.ok("PUT", "/socket/shop-db/connectors", {"connector_ids": [two, two]})
        self.assertEqual(made["connector_ids"], [two])
        actions = [{"action": "add", "id": first}, {"action": "add", "id": second},
                   {"action": "remove", "id": first}]  # fmt: skip
        made = await self.ok("PUT", "/socket/shop-db/policy", {"actions": actions})
        in_force = {each["id"]: (each["attached"], each["org_wide"]) for each in made["policies"]}
        self.assertEqual(in_force, {second: (True, False), wide: (False, True)})
        found = await self.read(lambda c: effective_policies(c, ACME, id))
        self.assertEqual(found, sorted((second, wide)))
        (event,) = await self.records("socket.set_policies")
        self.assertEqual(event["details"], {"added": [second], "removed": []})
        made = await self.ok("PUT", "/socket/shop-db", {"policies": [], "connector_ids": [one]})
        self.assertEqual([each["id"] for each in made["policies"]], [wide])
        self.assertEqual(made["connector_ids"], [one])
        self.assertEqual(
            (await self.records("socket.update"))[0]["details"],
            {"changed": ["connector_ids", "policies"]},
        )
