"""Policies over the API, and what they would decide."""

from typing import Any

from border0.control.store import devices, groups, policies, service_accounts, users
from tests.control.routes.case import ACME, NOWHERE, READ_ONLY, START, TLS, RoutesCase

EVERYBODY = {"permissions": {"database": {}, "tls": {}}}


class Policies(RoutesCase):
    async def test_a_life(self) -> None:
        body = {"name": "eng-read", "description": "reads", "version": "v2",
                "policy_data": READ_ONLY, "comment": "first", "tag_rules": []}  # fmt: skip
        response = await self.call("POST", "/policies", body)
        self.assertEqual(response.status, 201, response.raw)
        made = response.json()
        self.assertEqual(response.header("etag"), '"v1"')
        id = made["id"]
        wanted = {
            "name": "eng-read",
            "version": "v2",
            "description": "reads",
            "org_id": ACME,
            "org_wide": False,
            "policy_data": READ_ONLY,
            "socket_ids": [],
            "deleted": False,
            "version_number": 1,
            "author": "owner@acme.test",
            "etag_version": 1,
            "created_at": "2027-01-15T08:00:00.000000Z",
        }
        self.assertEqual({name: made[name] for name in wanted}, wanted)
        for path in ("/policy/eng-read", f"/policy/{id}", "/policies/find?name=eng-read"):
            self.assertEqual(await self.ok("GET", path, by="auditor"), made)
        listed = await self.ok("GET", "/policies")
        self.assertEqual(listed["list"], [made])
        self.assertEqual(listed["pagination"], {"records_per_page": 50, "next_cursor": ""})
        self.assertIsNone(await self.ok("DELETE", "/policy/eng-read"))
        await self.refused(404, "GET", f"/policy/{id}")
        await self.refused(404, "GET", "/policies/find?name=eng-read")
        for type in ("policy.create", "policy.delete"):
            (event,) = await self.records(type)
            self.assertEqual(event["target"]["id"], id)

    async def test_pages(self) -> None:
        for number in range(5):
            await self.new_policy(f"p{number}")
        names, cursor = [], ""
        for _ in range(3):
            page = await self.ok("GET", f"/policies?limit=2&cursor={cursor}")
            names += [one["name"] for one in page["list"]]
            cursor = page["pagination"]["next_cursor"]
        self.assertEqual((names, cursor), ([f"p{number}" for number in range(5)], ""))

    async def test_what_does_not_parse_is_not_stored(self) -> None:
        await self.new_policy()
        deep: Any = {}
        for _ in range(400):
            deep = {"a": deep}
        for data, message in (
            ({}, '"permissions" is missing'),
            ({"permisions": {}}, "permissions"),
            ({"permissions": {"databse": {}}}, "database"),
            ({"permissions": {}, "require": {"mfa": True}}, "cannot be enforced"),
            ({"permissions": deep}, "permissions"),
        ):
            for method, path in (("POST", "/policies"), ("PUT", "/policy/eng-read")):
                body = {"name": "new", "policy_data": data}
                self.assertIn(message, await self.refused(422, method, path, body))
        for body in (
            {"name": "new", "policy_data": READ_ONLY, "version": "v1"},
            {"name": "new", "policy_data": READ_ONLY, "tag_rules": [{}]},
            {"name": "new", "policy_data": READ_ONLY, "tag_rules": [{"env": 1}]},
            {"name": "New", "policy_data": READ_ONLY},
            {"name": "new", "policy_data": [READ_ONLY]},
            {"name": "new"},
            {"name": NOWHERE, "policy_data": READ_ONLY},
        ):
            await self.refused(422, "POST", "/policies", body)
        found = (await self.ok("GET", "/policies"))["list"]
        self.assertEqual([(one["name"], one["version_number"]) for one in found], [("eng-read", 1)])
        taken = {"name": "eng-read", "policy_data": READ_ONLY}
        self.assertEqual(await self.refused(409, "POST", "/policies", taken), "this name is taken")

    async def test_versions(self) -> None:
        id = await self.new_policy()
        self.now += 60
        etag = (await self.call("GET", f"/policy/{id}")).header("etag")
        change = {"policy_data": EVERYBODY, "comment": "open", "description": "all"}
        made = await self.ok("PUT", "/policy/eng-read", change, by="admin", match=etag)
        self.assertEqual((made["version_number"], made["author"]), (2, "admin@acme.test"))
        self.assertEqual((made["policy_data"], made["description"]), (EVERYBODY, "all"))
        for method, path, body in (
            ("PUT", "/policy/eng-read", {"description": "lost"}),
            ("PUT", "/policy/eng-read", {"policy_data": READ_ONLY}),
            ("PUT", "/policy/eng-read/socket", {"actions": []}),
            ("POST", "/policy/eng-read/revert", {"number": 1}),
            ("DELETE", "/policy/eng-read", None),
        ):
            await self.refused(412, method, path, body, match=etag)
        same = await self.ok("PUT", "/policy/eng-read", {"policy_data": EVERYBODY})
        self.assertEqual(same["version_number"], 2)
        back = await self.ok("POST", "/policy/eng-read/revert", {"number": 1, "comment": "oops"})
        self.assertEqual((back["version_number"], back["policy_data"]), (3, READ_ONLY))
        lines = (await self.ok("GET", "/policy/eng-read/versions"))["items"]
        self.assertEqual(
            [(one["number"], one["comment"], one["reverts"]) for one in lines],
            [(3, "oops", 1), (2, "open", None), (1, "", None)],
        )
        self.assertEqual(lines[1]["author"], "admin@acme.test")
        self.assertEqual(lines[1]["created_at"], "2027-01-15T08:01:00.000000Z")
        page = await self.ok("GET", "/policy/eng-read/versions?limit=1")
        self.assertEqual([one["number"] for one in page["items"]], [3])
        page = await self.ok(
            "GET", f"/policy/eng-read/versions?limit=2&cursor={page['next_cursor']}"
        )
        self.assertEqual([one["number"] for one in page["items"]], [2, 1])
        two = await self.ok("GET", f"/policy/{id}/versions/2")
        self.assertEqual((two["policy_data"], two["comment"]), (EVERYBODY, "open"))
        self.assertIn('+    "tls": {}', two["diff"])
        self.assertEqual((await self.ok("GET", f"/policy/{id}/versions/1"))["diff"], "")
        for number in ("0", "4", "x", "-1", "1.0", "9" * 30, "%C2%B2"):
            await self.refused(404, "GET", f"/policy/{id}/versions/{number}")
        await self.refused(404, "POST", f"/policy/{id}/revert", {"number": 9})
        event = next(one for one in await self.records("policy.revert") if one["result"] == "ok")
        self.assertEqual(event["details"], {"reverts": 1, "version_number": 3})
        told = [one.get("details") for one in await self.records("policy.update")]
        self.assertIn({"changed": ["description", "policy_data"], "version_number": 2}, told)

    async def test_an_old_text_that_parses_no_longer(self) -> None:
        id = await self.new_policy()
        await self.change(lambda tx: policies.edit(tx, id, None, '{"permissions": {"old": {}}}'))
        await self.ok("PUT", f"/policy/{id}", {"policy_data": READ_ONLY})
        message = await self.refused(422, "POST", f"/policy/{id}/revert", {"number": 2})
        self.assertIn("old", message)

    async def test_sockets(self) -> None:
        id = await self.new_policy()
        one, two = await self.new_socket("one"), await self.new_socket("two")
        actions = [{"action": "add", "id": one}, {"action": "add", "id": two},
                   {"action": "add", "id": two}, {"action": "remove", "id": one}]  # fmt: skip
        made = await self.ok("PUT", "/policy/eng-read/socket", {"actions": actions})
        self.assertEqual(made["socket_ids"], [two])
        found = await self.ok("GET", f"/policy/{id}/socket")
        self.assertEqual(found["items"], [{"socket_id": two, "name": "two"}])
        wrong = {"actions": [{"action": "attach", "id": one}]}
        await self.refused(422, "PUT", "/policy/eng-read/socket", wrong)
        await self.ok("DELETE", "/policy/eng-read")
        self.assertEqual((await self.ok("GET", "/socket/two"))["policies"], [])

    async def test_org_wide(self) -> None:
        one, two = await self.new_socket("one"), await self.new_socket("two")
        told: list[tuple[str, str, str]] = []
        self.store.subscribe(lambda org, revision, entries: told.extend(entries))
        attachments = [("attachment", id, "update") for id in sorted((one, two))]

        def attached() -> list[tuple[str, str, str]]:
            found = sorted(entry for entry in told if entry[0] == "attachment")
            told.clear()
            return found

        id = await self.new_policy("wide", org_wide=True)
        self.assertEqual(attached(), attachments)
        for name in ("one", "two"):
            (shown,) = (await self.ok("GET", f"/socket/{name}"))["policies"]
            self.assertEqual((shown["id"], shown["attached"]), (id, False))
        await self.ok("PUT", "/policy/wide", {"description": "x"})
        self.assertEqual(attached(), [])
        await self.ok("PUT", "/policy/wide", {"org_wide": False})
        self.assertEqual(attached(), attachments)
        self.assertEqual((await self.ok("GET", "/socket/one"))["policies"], [])
        await self.ok("PUT", "/policy/wide", {"org_wide": True})
        told.clear()
        await self.ok("DELETE", "/policy/wide")
        self.assertEqual(attached(), attachments)

    async def test_tag_rules(self) -> None:
        one = await self.new_socket("one", tags={"env": "prod", "team": "db"})
        await self.new_socket("two", tags={"env": "test", "team": "db"})
        rules = [{"env": "prod", "team": "db"}, {"open": ""}]
        made = await self.ok(
            "POST", "/policies", {"name": "p", "policy_data": EVERYBODY, "tag_rules": rules}
        )
        self.assertEqual((made["tag_rules"], made["socket_ids"]), (rules, []))

        async def reached() -> list[str]:
            found = (await self.ok("GET", "/socket"))["items"]
            return [each["name"] for each in found if each["policies"]]

        self.assertEqual(await reached(), ["one"])
        (shown,) = (await self.ok("GET", "/socket/one"))["policies"]
        self.assertEqual((shown["attached"], shown["org_wide"]), (False, False))
        told: list[tuple[str, str, str]] = []
        self.store.subscribe(lambda org, revision, entries: told.extend(entries))
        await self.ok("PUT", "/socket/one", {"tags": ["env=prod"]})
        self.assertIn(("attachment", one, "update"), told)
        self.assertEqual(await reached(), [])
        await self.ok("PUT", "/socket/two", {"tags": {"open": ""}})
        self.assertEqual(await reached(), ["two"])
        told.clear()
        await self.ok("PUT", "/policy/p", {"tag_rules": []})
        self.assertIn(("attachment", one, "update"), told)
        self.assertEqual(await reached(), [])

    async def test_an_attachment_statement_stays_small(self) -> None:
        def many(tx: Any) -> list[str]:
            text = '{"permissions": {"tls": {}}}'
            return [
                policies.create(tx, name=f"p{n}", text=text, org_wide=n < 50).id for n in range(260)
            ]

        ids = await self.change(many)
        await self.new_socket()
        actions = [{"action": "add", "id": id} for id in ids[:201]]
        message = await self.refused(409, "PUT", "/socket/shop-db/policy", {"actions": actions})
        self.assertIn("at most 200", message)
        wide = {"name": "more", "policy_data": EVERYBODY, "org_wide": True}
        self.assertIn("at most 50", await self.refused(409, "POST", "/policies", wide))
        await self.ok("PUT", "/socket/shop-db/policy", {"actions": actions[:200]})
        found = (await self.ok("GET", "/socket/shop-db"))["policies"]
        self.assertEqual(len(found), 200)


class Explain(RoutesCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.policy = await self.new_policy()
        self.socket = await self.new_socket(policies=[self.policy])

        def people(tx: Any) -> tuple[str, str]:
            group = groups.create(tx, name="eng").id
            member = users.find(tx.connection, ACME, "local", "member@acme.test")
            assert member is not None
            groups.add(tx, group, member.id)
            laptop = devices.create(
                tx, name="laptop", wireguard_key="w", machine_key="m", user_id=member.id,
                approved=True,
            )  # fmt: skip
            service_accounts.create(tx, name="robot")
            return member.id, laptop.id

        self.member, self.laptop = await self.change(people)

    async def explain(self, **body: Any) -> Any:
        return await self.ok("POST", "/policies/explain", {"socket": "shop-db", **body})

    def verdict(self, found: Any) -> tuple[bool, str, str]:
        return found["allowed"], found["policy"], found["clause"]

    async def test_by_address(self) -> None:
        found = await self.explain(email="Member@acme.test", ip_address="192.0.2.9")
        self.assertEqual(self.verdict(found), (True, "eng-read", "permissions.database"))
        self.assertIn("permits database", found["reason"])
        self.assertEqual((found["protocol"], found["socket_id"]), ("database", self.socket))
        self.assertEqual(found["policies"], ["eng-read"])
        self.assertIn("eng", found["subject"]["groups"])
        self.assertEqual(found["time"], "2027-01-15T08:00:00.000000Z")
        self.assertIn(
            {
                "policy": "eng-read",
                "clause": "condition.where.allowed_ip",
                "outcome": "met",
                "detail": "address 192.0.2.9 is in 192.0.2.0/24",
            },
            found["steps"],
        )
        found = await self.explain(email="member@acme.test", ip_address="198.51.100.1")
        where = (False, "eng-read", "condition.where.allowed_ip")
        self.assertEqual(self.verdict(found), where)
        self.assertIn("is in none of the listed ranges", found["reason"])
        found = await self.explain(email="member@acme.test")
        self.assertEqual(self.verdict(found), where)
        self.assertIn("the address is unknown", found["reason"])
        found = await self.explain(email="owner@acme.test", ip_address="192.0.2.9")
        self.assertEqual(self.verdict(found), (False, "eng-read", "condition.who.group"))
        told = [one["details"] for one in await self.records("policy.explain")]
        self.assertIn({"subject": "Member@acme.test", "allowed": True}, told)

    async def test_a_device_asks_from_where_it_is_seen(self) -> None:
        self.assertFalse((await self.explain(device="laptop"))["allowed"])
        self.nodes.connected[ACME, self.laptop] = "192.0.2.44"
        found = await self.explain(device=self.laptop)
        self.assertEqual((found["allowed"], found["ip_address"]), (True, "192.0.2.44"))
        self.assertEqual(found["subject"]["device"], "laptop")
        self.assertFalse((await self.explain(device="laptop", ip_address="10.0.0.1"))["allowed"])

        async def reason(change: Any) -> str:
            await self.change(change)
            found = await self.explain(device="laptop")
            self.assertEqual(self.verdict(found), (False, "", "subject"))
            answer: str = found["reason"]
            return answer

        id, user = self.laptop, self.member
        for change, wanted in (
            (lambda tx: devices.update(tx, id, None, approved=False), "not approved"),
            (lambda tx: devices.update(tx, id, None, approved=True, locked=True), "locked"),
            (
                lambda tx: devices.update(tx, id, None, locked=False, expires=START - 1),
                "has expired",
            ),
            (
                lambda tx: (
                    devices.update(tx, id, None, expires=None),
                    users.update(tx, user, None, disabled=True),
                ),
                "the user is disabled",
            ),
        ):
            self.assertIn(wanted, await reason(change))

    async def test_databases_and_statements(self) -> None:
        me = {"email": "member@acme.test", "ip_address": "192.0.2.9"}
        found = await self.explain(**me, database="shop")
        self.assertEqual(
            found["grant"],
            {"database": "shop", "unrestricted": False, "read_only": True,
             "max_session_seconds": None, "policies": ["eng-read"]},
        )  # fmt: skip
        found = await self.explain(**me, database="other")
        clause = "permissions.database.allowed_databases"
        self.assertEqual(self.verdict(found), (False, "eng-read", clause))
        found = await self.explain(**me, database="shop", statement="SELECT 1")
        self.assertEqual((found["allowed"], found["statement_class"]), (True, "read"))
        found = await self.explain(
            **me, database="shop", statement="WITH x AS (DELETE FROM t RETURNING 1) TABLE x"
        )
        self.assertEqual((found["allowed"], found["statement_class"]), (False, "delete"))
        self.assertEqual(found["policy"], "eng-read")

    async def test_times(self) -> None:
        data = {"permissions": {"tls": {}}, "condition": {"when": {"after": "2027-02-01"}}}
        id = await self.new_policy("later", policy_data=data)
        await self.new_socket("cache", socket_type="tls", upstream_configuration=TLS, policies=[id])
        found = await self.explain(socket="cache", service_account="robot")
        self.assertEqual(self.verdict(found), (False, "later", "condition.when.after"))
        at = "2027-02-01T01:00:00+01:00"
        found = await self.explain(socket="cache", service_account="robot", time=at)
        self.assertEqual((found["allowed"], found["time"]), (True, "2027-02-01T00:00:00.000000Z"))
        found = await self.explain(socket="cache", email="ghost@acme.test", time=at)
        self.assertEqual(self.verdict(found), (False, "", "subject"))

    async def test_nothing_attached(self) -> None:
        await self.ok("DELETE", "/policy/eng-read")
        found = await self.explain(email="member@acme.test")
        self.assertEqual(self.verdict(found), (False, "", ""))
        self.assertEqual(found["reason"], "no policy is attached to this service")

    async def test_an_org_wide_denial(self) -> None:
        data = {"permissions": {}, "deny": {"database": {}}}
        await self.new_policy("closed", policy_data=data, org_wide=True)
        found = await self.explain(email="member@acme.test", ip_address="192.0.2.9")
        self.assertEqual(self.verdict(found), (False, "closed", "deny.database"))

    async def test_wrong_questions(self) -> None:
        me = {"email": "member@acme.test"}
        for body, message in (
            ({"socket": "shop-db"}, "exactly one"),
            ({"socket": "shop-db", "device": "laptop", **me}, "exactly one"),
            ({"socket": "ghost", **me}, "socket: there is no such socket"),
            ({"socket": NOWHERE, **me}, "socket: there is no such socket"),
            ({"socket": "shop-db", "device": "ghost"}, "device: there is no such device"),
            ({"socket": "shop-db", "service_account": "x"}, "there is no such service account"),
            ({"socket": "shop-db", "ip_address": "x", **me}, "ip_address: "),
            ({"socket": "shop-db", "time": "2027-01-01", **me}, "time: "),
            ({"socket": "shop-db", "time": "2027-01-01T00:00:00", **me}, "time: "),
            ({"socket": "shop-db", "country": "NLD", **me}, "country: "),
            ({"socket": "shop-db", "statement": "SELECT 1", **me}, "statement: "),
        ):
            self.assertIn(message, await self.refused(422, "POST", "/policies/explain", body))
        await self.refused(403, "POST", "/policies/explain", {"socket": "x"}, by="member")
        await self.refused(
            422, "POST", "/policies/explain", {"socket": self.socket, **me}, by="other"
        )
