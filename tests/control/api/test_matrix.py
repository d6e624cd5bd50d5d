"""Every registered route, called by every role, from its own and from a foreign organisation."""

from twisted.trial.unittest import SynchronousTestCase

from border0.control.api.principals import PERMISSIONS, PUBLIC, ROLES, SELF
from tests.support.rolematrix import Case, cases, permitted
from tests.support.sampleroutes import Sample
from tests.support.signin import Control
from tests.support.web import Response, exchange

OWN, OTHER = "org-own", "org-other"


class Matrix(SynchronousTestCase):
    def setUp(self) -> None:
        self.sample = Sample()
        self.control = Control(self.sample.table, self.sample.owns)
        self.own: dict[str, str] = {}
        self.foreign: dict[str, str] = {}
        users = {
            role: self.control.accounts.add(OWN, f"{role}@own", role)
            for role in ROLES
            if role != "service"
        }
        self.tokens = {role: self.control.token(user) for role, user in users.items()}
        service = self.control.accounts.add(OWN, "robot", "service")
        self.tokens["service"] = self.control.token(service, kind="service", scopes=PERMISSIONS)
        self.unscoped = {
            permission: self.control.token(
                service, kind="service", scopes=set(PERMISSIONS) - {permission}
            )
            for permission in PERMISSIONS
        }
        self.narrow_owner = self.control.token(users["owner"], scopes=["organisation.read"])

    def cases(self) -> list[Case]:
        def one(org: str, known: dict[str, str], kind: str) -> str:
            if kind not in known:
                known[kind] = self.sample.add(kind, org)
            return known[kind]

        found = list(
            cases(
                self.control.table,
                lambda kind: one(OWN, self.own, kind),
                lambda kind: one(OTHER, self.foreign, kind),
            )
        )
        self.assertGreater(len(found), 15)
        return found

    def call(self, case: Case, token: str) -> tuple[Response, int]:
        self.control.clock.advance(120.0)
        before = len(self.sample.calls)
        headers = [("If-Match", "*")] if case.route.versioned else []
        response = exchange(
            self.control.site,
            case.route.method,
            case.path,
            value=case.body,
            token=token,
            headers=headers,
        )
        return response, len(self.sample.calls) - before

    def test_roles(self) -> None:
        for case in self.cases():
            if case.foreign:
                continue
            for role, token in self.tokens.items():
                response, ran = self.call(case, token)
                label = f"{role}: {case.route.name}: {response.raw!r}"
                if permitted(self.control.table, case.route, role):
                    self.assertNotIn(response.status, (401, 403, 500, 0), label)
                else:
                    self.assertEqual((response.status, ran), (403, 0), label)

    def test_nobody(self) -> None:
        for case in self.cases():
            for token in ("", "b0s_nonsense"):
                response, ran = self.call(case, token)
                if case.route.permission != PUBLIC:
                    self.assertEqual((response.status, ran), (401, 0), case.route.name)

    def test_a_service_account_has_its_scopes_only(self) -> None:
        for case in self.cases():
            permission = case.route.permission
            if permission in (PUBLIC, SELF):
                continue
            for token in (self.unscoped[permission], self.narrow_owner):
                response, ran = self.call(case, token)
                self.assertEqual((response.status, ran), (403, 0), case.route.name)

    def test_a_foreign_id_anywhere_is_refused_before_the_handler(self) -> None:
        places = set()
        for case in self.cases():
            if not case.foreign:
                continue
            places.add((case.route.name, case.foreign))
            for role, token in self.tokens.items():
                response, ran = self.call(case, token)
                label = f"{role}: {case.route.name} {case.foreign}: {response.raw!r}"
                self.assertEqual(ran, 0, label)
                if not permitted(self.control.table, case.route, role):
                    expected = 403
                else:
                    expected = 404 if case.foreign.startswith("path:") else 422
                self.assertEqual(response.status, expected, label)
        self.assertIn(("POST /socket", "body.policies.value"), places)
        self.assertIn(("PUT /socket/{id:socket}", "body.connector_ids.item"), places)
        self.assertIn(("GET /socket", "query.policy"), places)
        self.assertIn(("DELETE /socket/{id:socket}/policy/{policy:policy}", "path:policy"), places)

    def test_foreign_and_unknown_ids_look_the_same(self) -> None:
        foreign = self.sample.add("socket", OTHER)
        unknown = "00000000-0000-4000-8000-000000000000"
        answers = []
        for key in (foreign, unknown):
            response = exchange(
                self.control.site, "GET", f"/api/v1/socket/{key}", token=self.tokens["owner"]
            )
            error = response.json()["error"]
            del error["request_id"]
            answers.append((response.status, error))
        self.assertEqual(answers[0], answers[1])

    def test_denials_are_recorded(self) -> None:
        exchange(self.control.site, "POST", "/api/v1/token", token=self.tokens["member"])
        entry = self.control.audit[-1]
        self.assertEqual(
            (entry.type, entry.result, entry.org, entry.actor),
            ("token.create", "denied", OWN, "member@own"),
        )
