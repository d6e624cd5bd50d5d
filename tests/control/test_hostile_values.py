"""Whatever the API takes can be signed: hostile values in every field, and publishing goes on."""

import json
import time

from tests.control.planes import PlaneCase

SMILE = "\N{GRINNING FACE}"
TEXTS = (
    "", " ", "-", "a" * 63, "a" * 64, "a" * 5000, "\0", "a\0b", "\n", "a\nb", "a\x1b[2Jb", "\x7f",
    "\x85", "\u2028", "\u202eabc", "\ud800", "\udfff\ud800", SMILE * 60, SMILE * 300, "token",
    "00000000-0000-4000-8000-000000000000", "../..", "a b", "\xe4\xf6", "a@b", "a@\x80b",
    "\U00020000" * 60, "from:cmd:id", "from:file:/etc/passwd",
)  # fmt: skip
OTHERS = (
    None, True, 0, -1, 2**53, 2**63, 2**64, 10**40, 1.5, 1e308, [], {}, ["a", "a"], [""], [None],
    ["\n"], ["a" * 64], {"a": "b"}, {"": ""}, {"\n": "\n"}, [[[[[[[[[[[["x"]]]]]]]]]]]],
    ["a"] * 2000,
)  # fmt: skip
VALUES = (*TEXTS, *OTHERS)
ROOT = "/organizations/iam"


def upstream(hostname="db.example.org", **more):
    inner = {
        "protocol": "postgres",
        "hostname": hostname,
        "port": 5432,
        "authentication_type": "username_and_password",
        "username_and_password_auth_configuration": {"username": "app", "password": "x"},
        **more,
    }
    return {
        "service_type": "database",
        "database_service_configuration": {
            "database_service_type": "standard",
            "standard_database_service_configuration": inner,
        },
    }


class Values(PlaneCase):
    timeout = 300

    async def begin(self):
        await super().begin()
        self.lab = await self.node("connector", "lab", number=1)
        self.laptop = await self.node("device", "laptop", self.owner, number=2)
        self.socket, self.policy = await self.service(self.lab, ["owner@example.org"])
        self.publisher = self.plane.fleet.organisations[self.org].publisher
        self.limits_off()

    def limits_off(self):
        from border0.control.api.limits import Limiter

        self.patch(Limiter, "take", lambda limiter, key, now: 0.0)

    async def throw(self, method, path, base, fields=None):
        """Every value in every field of a body that is good but for it."""
        taken = 0
        for field in fields or base:
            for number, value in enumerate(VALUES):
                body = {**base, field: value}
                if method == "POST" and field != "name" and "name" in base:
                    body["name"] = f"n{number}-{field.replace('_', '-')}"
                if method == "POST" and field != "email" and "email" in base:
                    body["email"] = f"n{number}-{field}@example.org"
                answer = await self.ask(method, path, body)
                self.assertLess(answer.status, 500, (path, field, value, answer.body))
                taken += answer.status < 300
        await self.still_publishing()
        return taken

    async def still_publishing(self):
        self.count = getattr(self, "count", 0) + 1
        word = f"n{self.count}@example.org"
        data = {
            "permissions": {"database": {}},
            "condition": {"who": {"email": ["owner@example.org", word]}},
        }
        await self.good("PUT", f"/policy/{self.policy}", {"policy_data": data})
        await self.plane.fleet.settled(self.org)
        self.assertEqual({}, self.publisher.unsigned)

        def told():
            found = self.lab.ledger.current("policy", self.policy, time.time())
            return found is not None and word in found.body["text"]

        await self.waiter.until(told)

    async def test_users(self):
        base = {"email": "x@example.org", "name": "x", "role": "member"}
        self.assertGreater(await self.throw("POST", f"{ROOT}/users", base), 5)
        made = await self.good("POST", f"{ROOT}/users", {"email": "eve@example.org"})
        await self.throw(
            "PUT", f"{ROOT}/user/{made['id']}", {}, ("email", "name", "role", "disabled")
        )

    async def test_groups_and_service_accounts(self):
        user = await self.good("POST", f"{ROOT}/users", {"email": "eve@example.org"})
        base = {"name": "x", "description": "", "user_ids": [user["id"]]}
        self.assertGreater(await self.throw("POST", f"{ROOT}/groups", base), 5)
        account = {"name": "x", "description": "", "role": "member"}
        self.assertGreater(await self.throw("POST", f"{ROOT}/service_accounts", account), 5)

    async def test_devices_and_connectors(self):
        _, code = await self.tagged()
        fields = ("name", "approved", "locked", "tags", "expires_at")
        await self.throw("PUT", f"/device/{code}", {}, fields)
        await self.throw("PUT", f"/device/{self.laptop.state.node}", {}, ("name", "tags"))
        base = {"name": "x", "description": "", "tags": ["a"]}
        self.assertGreater(await self.throw("POST", "/connector", base), 5)
        made = await self.good("POST", "/connector", {"name": "other"})
        await self.throw("PUT", f"/connector/{made['connector_id']}", {}, ("name", "tags"))

    async def tagged(self):
        """A device with tags and without an owner."""
        from border0.control.member.join import join

        key = await self.good(
            "POST", "/enrolment_keys", {"name": "k", "role": "device", "tags": ["ci"]}
        )
        state = await join(
            self.plane.reactor, url=self.url, ca=self.plane.pin, code=key["key"], role="device",
            name="ci", wireguard_key=bytes([9]) * 32, ssh_host_key="", folder=self.base / "ci",
        )  # fmt: skip
        return state, state.node

    async def test_policies(self):
        data = {"permissions": {"database": {}}, "condition": {"who": {"email": ["a@b.c"]}}}
        base = {
            "name": "x", "description": "", "comment": "", "org_wide": False, "tag_rules": [],
            "policy_data": data,
        }  # fmt: skip
        self.assertGreater(await self.throw("POST", "/policies", base), 5)
        for value in VALUES:
            for document in (
                {**data, "condition": {"who": {"email": [value]}}},
                {**data, "condition": {"who": {"group": [value]}}},
                {**data, "condition": value},
                {**data, "permissions": {"database": value}},
                {"permissions": value},
            ):
                answer = await self.ask("PUT", "/policy/n0-description", {"policy_data": document})
                self.assertLess(answer.status, 500, (value, answer.body))
        for letter in (SMILE, "\u20ac", '"', "\\", "\x01", "a"):
            document = {**data, "condition": {"who": {"email": [letter * 64_000]}}}
            status = await self.change_policy(document)
            self.assertIn(status, (200, 413, 422), letter)
        for count in (9_000, 30_000, 44_000, 48_000, 49_100, 60_000):
            document = {**data, "condition": {"who": {"email": [SMILE * count]}}}
            self.assertIn(await self.change_policy(document), (200, 413, 422))
        await self.still_publishing()

    async def change_policy(self, document):
        """In UTF-8, where a character takes few bytes."""
        response = await self.http.request(
            "PUT",
            f"{self.url}/api/v1/policy/n1-description",
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
            },
            data=json.dumps({"policy_data": document}, ensure_ascii=False).encode(),
        )
        await response.content()
        return response.code

    async def test_sockets(self):
        base = {
            "name": "x", "socket_type": "database", "upstream_configuration": upstream(),
            "display_name": "", "description": "", "port": 5432, "tags": {},
            "recording_enabled": True, "connector_ids": [self.lab.state.node],
            "policies": [self.policy], "private_network_ipv4": "", "private_network_ipv6": "",
        }  # fmt: skip
        self.assertGreater(await self.throw("POST", "/socket", base), 5)
        for value in VALUES:
            for body in (
                {"upstream_configuration": upstream(hostname=value)},
                {"upstream_configuration": upstream(protocol=value)},
                {"upstream_configuration": upstream(more=value)},
                {"upstream_configuration": {**upstream(), "x": value}},
            ):
                answer = await self.ask("PUT", f"/socket/{self.socket}", body)
                self.assertLess(answer.status, 500, (value, answer.body))
        await self.still_publishing()
