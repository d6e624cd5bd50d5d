"""Nobody becomes a node that is there already, and no code outlives the rights behind it."""

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from border0.control.api.errors import ApiError
from border0.control.signin.grants import Approval
from border0.control.store import connectors, devices, tokens, users
from tests.control.planes import PlaneCase
from tests.control.store.case import ACME, DAY
from tests.control.test_enrol import EnrolCase, Machine


class Thief(Machine):
    """Has the public WireGuard key of another machine, and a machine key of its own."""

    def __init__(self, victim):
        super().__init__(66)
        self.wireguard = victim.wireguard
        self.key = Ed25519PrivateKey.from_private_bytes(b"t" * 32)
        self.public = self.key.public_key().public_bytes_raw()


class Takeover(EnrolCase):
    async def kept(self, noun, id, machine):
        found = await self.store.read(lambda c: noun.get(c, ACME, id))
        self.assertEqual(base64.b64encode(machine.public).decode(), found.machine_key)
        self.assertEqual(base64.b64encode(machine.wireguard).decode(), found.wireguard_key)

    async def test_a_connectors_public_key_is_no_way_to_become_it(self):
        lab = Machine(1)
        answer = await self.join(lab.body(await self.invite("connector"), "connector", "lab"))
        some = await self.enrolment(user_id=None, role="connector", tags=["ci"], max_uses=None)
        for code in (some, await self.invite("connector"), await self.invite("connector")):
            why = await self.refused(Thief(lab).body(code, "connector", "other"))
            self.assertIn("other keys", why)
        await self.kept(connectors, answer.node, lab)
        again = await self.join(lab.body(some, "connector", "other"))
        self.assertEqual(answer.node, again.node)

    async def test_an_invite_with_a_taken_name_replaces_nobody(self):
        lab = Machine(1)
        answer = await self.join(
            lab.body(await self.invite("connector", name="lab"), "connector", "lab")
        )
        code = await self.invite("connector", name="lab")
        for other in (Machine(2), Thief(lab)):
            self.assertIn("--replace", await self.refused(other.body(code, "connector")))
        await self.kept(connectors, answer.node, lab)
        await self.join(lab.body(code, "connector"))

    async def test_an_invite_that_means_it_replaces_the_keys(self):
        first = await self.join(
            Machine(1).body(await self.invite("connector", name="lab"), "connector")
        )
        code = await self.invite("connector", name="lab", connector_id=first.node)
        again = await self.join(Machine(2).body(code, "connector"))
        self.assertEqual(first.node, again.node)
        await self.kept(connectors, first.node, Machine(2))

    async def test_what_the_browser_confirmed_is_one_key_and_no_other_name(self):
        lab = Machine(1)
        await self.join(lab.body(await self.invite("connector", name="lab"), "connector"))
        other = Machine(2)
        confirmed = {"name": "lab", "wireguard_key": base64.b64encode(other.wireguard).decode()}
        code = await self.invite("connector", **confirmed)
        self.assertIn("other keys", await self.refused(other.body(code, "connector")))
        confirmed["wireguard_key"] = base64.b64encode(lab.wireguard).decode()
        moved = Thief(lab)  # the same machine, whose membership was lost
        await self.join(moved.body(await self.invite("connector", **confirmed), "connector"))

    async def test_a_devices_public_key_is_no_way_to_become_it(self):
        laptop = Machine(1)
        answer = await self.join(laptop.body(await self.invite()))
        reusable = await self.enrolment(max_uses=None, ephemeral=True)
        for code in (reusable, await self.invite()):
            self.assertIn("the key is that of", await self.refused(Thief(laptop).body(code)))
        await self.kept(devices, answer.node, laptop)
        tagged = await self.enrolment(user_id=None, tags=["prod"], max_uses=None)
        server = Machine(2)
        answer = await self.join(server.body(tagged, name="server"))
        other = await self.enrolment(user_id=None, tags=["ci"], max_uses=None)
        await self.refused(Thief(server).body(other))
        await self.kept(devices, answer.node, server)
        confirmed = await self.invite(
            wireguard_key=base64.b64encode(laptop.wireguard).decode(), name="laptop"
        )
        await self.join(Thief(laptop).body(confirmed))

    async def test_one_key_is_one_machine(self):
        await self.join(Machine(1).body(await self.invite("connector"), "connector", "lab"))
        self.assertIn("another machine", await self.refused(Machine(1).body(await self.invite())))
        await self.join(Machine(2).body(await self.invite()))
        await self.refused(Machine(2).body(await self.invite("connector"), "connector", "two"))

    async def test_a_name_that_means_another_object(self):
        id = "00000000-0000-4000-8000-000000000001"
        await self.refused(Machine().body(await self.invite(), name=id))
        await self.refused(Machine().body(await self.invite(name=id)))
        await self.refused(Machine().body(await self.invite("connector"), "connector", "token"))


class Rights(EnrolCase):
    async def test_a_user_who_is_disabled_or_gone(self):
        code, reusable = await self.invite(), await self.enrolment(max_uses=None)
        await self.change(lambda tx: users.update(tx, self.user.id, None, disabled=True))
        for each in (code, reusable):
            self.assertIn("disabled", await self.refused(Machine().body(each)))
        gone = await self.change(lambda tx: users.create(tx, issuer="local", subject="g"))
        code = await self.invite(user_id=gone.id)
        await self.change(lambda tx: users.remove(tx, gone.id))
        self.assertIn("gone", await self.refused(Machine().body(code)))
        found = await self.store.read(lambda c: devices.page(c, ACME))
        self.assertEqual([], found.items)

    async def test_what_a_refusal_takes_back(self):
        """A code that did not let a machine in is not spent."""
        code = await self.invite()
        await self.join(Machine(1).body(await self.invite("connector"), "connector", "lab"))
        await self.refused(Machine(1).body(code))
        await self.join(Machine(2).body(code))

    async def test_a_locked_connectors_token_and_another_ones(self):
        made = await self.change(lambda tx: connectors.create(tx, name="lab"))
        _, text = await self.change(
            lambda tx: tokens.issue(
                tx, kind="node", name="ci", scopes=[], expires=tx.now + DAY, connector_id=made.id
            )
        )
        await self.change(lambda tx: connectors.update(tx, made.id, None, locked=True))
        await self.refused(Machine().body(text.reveal(), "connector"))


class Codes(PlaneCase):
    """Through the API: who may make what, and what ends with their rights."""

    async def invite(self, **body):
        return await self.ask("POST", "/invites", {"kind": "connector", **body})

    async def test_a_taken_name_must_be_meant(self):
        await self.node("connector", "lab", number=1)
        self.assertEqual(409, (await self.invite(name="lab")).status)
        self.assertEqual(422, (await self.invite(name="nobody", replace=True)).status)
        self.assertEqual(422, (await self.invite(name="token")).status)
        self.assertEqual(422, (await self.invite(kind="device", replace=True)).status)
        made = await self.invite(name="lab", replace=True)
        self.assertEqual(201, made.status, made.body)
        _, member = await self.person("m@example.org")
        answer = await self.ask(
            "POST", "/invites", {"kind": "connector", "name": "lab", "replace": True}, token=member
        )
        self.assertEqual(403, answer.status)

    async def test_an_ephemeral_device_that_never_comes_goes_too(self):
        from border0.control.member.join import join

        key = {"name": "k", "role": "device", "tags": ["ci"], "ephemeral": True}
        made = await self.good("POST", "/enrolment_keys", key)
        state = await join(
            self.plane.reactor, url=self.url, ca=self.plane.pin, code=made["key"], role="device",
            name="ci", wireguard_key=bytes([9]) * 32, ssh_host_key="", folder=self.base / "ci",
        )  # fmt: skip
        leaving = self.plane.fleet.organisations[self.org].leaving
        self.assertEqual([state.node], list(leaving))
        leaving[state.node].reset(0)
        follower = self.follower(state)
        await self.waiter.until(lambda: follower.refusal in ("unknown", "removed"))

    async def test_what_a_person_confirmed_who_may_not_any_more(self):
        admin, _ = await self.person("admin@example.org", "admin")
        approval = Approval("A" * 43 + "=", "lab", "connector", admin, self.org)
        self.assertIn("code", await self.plane._complete(approval, None))
        await self.good("PUT", f"/organizations/iam/user/{admin}", {"role": "member"})
        for purpose, fine in (("connector", False), ("device", True), ("login", True)):
            try:
                await self.plane._complete(approval._replace(purpose=purpose), None)
                self.assertTrue(fine, purpose)
            except ApiError as error:
                self.assertEqual((403, False), (error.status, fine))

    async def state_of_all(self):
        shown = [one["state"] for one in (await self.good("GET", "/invites"))["items"]]
        keys = [one["state"] for one in (await self.good("GET", "/enrolment_keys"))["items"]]
        return shown, keys

    async def codes_of(self, token):
        await self.good("POST", "/invites", {"kind": "connector"}, token=token)
        key = {"name": "k", "role": "connector", "approved": True, "max_uses": None}
        await self.good("POST", "/enrolment_keys", key, token=token)
        self.assertEqual((["live"], ["live"]), await self.state_of_all())

    async def test_codes_of_an_admin_end_with_the_role(self):
        admin, token = await self.person("admin@example.org", "admin")
        await self.codes_of(token)
        await self.good("PUT", f"/organizations/iam/user/{admin}", {"role": "member"})
        self.assertEqual((["revoked"], ["revoked"]), await self.state_of_all())

    async def test_codes_of_a_service_account_end_with_it(self):
        root = "/organizations/iam/service_accounts"
        await self.good("POST", root, {"name": "ci", "role": "admin"})
        scopes = ["connector.write", "invite.write", "enrolment_key.write"]
        made = await self.good("POST", f"{root}/ci/tokens", {"name": "t", "scopes": scopes})
        await self.codes_of(made["token"])
        await self.good("PUT", f"{root}/ci", {"active": False})
        self.assertEqual((["revoked"], ["revoked"]), await self.state_of_all())
