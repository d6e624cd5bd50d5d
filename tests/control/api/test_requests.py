"""Requests as they come over a connection: who is refused, with what, and what never leaks."""

import json
from typing import Annotated, Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from border0.control.api.errors import ApiError, conflict
from border0.control.api.routes import Answer
from border0.control.api.schema import decode_body, whole
from border0.tables import NAME
from tests.support.sampleroutes import Sample
from tests.support.signin import Control, now_of
from tests.support.web import ORIGIN, Response, Wire, exchange, raw_request

ORG = "org-own"


class Api(SynchronousTestCase):
    def setUp(self) -> None:
        self.sample = Sample()
        self.control = Control(self.sample.table, self.sample.owns)
        self.owner = self.control.accounts.add(ORG, "owner@own", "owner")
        self.token = self.control.token(self.owner)

    def call(self, method: str, path: str, **more: Any) -> Response:
        more.setdefault("token", self.token)
        return exchange(self.control.site, method, f"/api/v1{path}", **more)

    def code(self, response: Response) -> tuple[int, str]:
        return response.status, response.json()["error"]["code"]


class Bodies(Api):
    def fields(self, value: Any) -> dict[str, str]:
        response = self.call("POST", "/socket", value=value)
        self.assertEqual(self.code(response), (422, "invalid"))
        self.assertEqual(self.sample.calls, [])
        found = response.json()["error"]["fields"]
        return {one["field"]: one["message"] for one in found}

    def test_an_unknown_field_names_the_nearest(self) -> None:
        found = self.fields({"nme": "a"})
        self.assertEqual(found, {"nme": "there is no such field; did you mean 'name'?"})
        found = self.fields({"name": "a", "upstream": {"hostname": "h", "prt": 1}})
        self.assertEqual(found, {"upstream.prt": "there is no such field; did you mean 'port'?"})

    def test_a_name_that_is_none_is_told_what_one_is(self) -> None:
        class Named(msgspec.Struct):
            name: Annotated[str, msgspec.Meta(pattern=whole(NAME.pattern))]

        raw = b'{"name": "Lab 1"}'
        error = self.assertRaises(ApiError, decode_body, msgspec.json.Decoder(Named), raw, Named)
        self.assertEqual(error.message, "name: lower-case letters, digits and dashes, at most 63")

    def test_missing_wrong_and_out_of_bounds(self) -> None:
        self.assertEqual(self.fields({}), {"name": "it is required"})
        self.assertIn("name", self.fields({"name": 7}))
        self.assertIn("name", self.fields({"name": "x" * 64}))
        self.assertIn(
            "upstream.port", self.fields({"name": "a", "upstream": {"hostname": "h", "port": 0}})
        )
        self.assertEqual(
            self.fields({"name": "a", "connector_ids": ["NOT-AN-ID"]}),
            {"connector_ids[0]": "an id is a lower-case UUID"},
        )
        key = self.sample.add("connector", ORG)
        for bad in (key + "\n", key.upper(), "{" + key + "}", key.replace("-", "")):
            self.assertIn("connector_ids[0]", self.fields({"name": "a", "connector_ids": [bad]}))
        self.assertEqual(self.fields([]), {"": "Expected `object`, got `array`"})

    def test_no_json(self) -> None:
        kind = [("Content-Type", "application/json")]
        for body in (b"", b"{", b"\xff\xfe", b'{"name":"\xff"}', b'{"name":"a"}x', b"[" * 5000):
            response = self.call("POST", "/socket", headers=kind, body=body)
            self.assertIn(response.status, (400, 422), body[:20])
            self.assertEqual(self.sample.calls, [])

    def test_the_content_type_is_json(self) -> None:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            headers = [("Content-Type", kind)] if kind else []
            response = self.call("POST", "/socket", headers=headers, body=b'{"name":"a"}')
            self.assertEqual(self.code(response), (415, "wrong_content_type"))

    def test_a_body_where_none_is_expected(self) -> None:
        self.assertEqual(self.call("POST", "/token", value={}).status, 400)

    def test_queries(self) -> None:
        self.assertEqual(self.call("GET", "/socket?limit=2").status, 200)
        for query, status in (
            ("limit=0", 422),
            ("limit=x", 422),
            ("limt=1", 422),
            ("limit=1&limit=2", 400),
            ("limit", 400),
            ("cursor=zz", 422),
            ("name=%ff", 400),
            ("&".join(f"a{i}=1" for i in range(50)), 400),
        ):
            self.assertEqual(self.call("GET", f"/socket?{query}").status, status, query)
        self.assertEqual(self.call("GET", "/me?x=1").status, 422)

    def test_paths(self) -> None:
        for path in (
            "/socket/",
            "/socket//x",
            "/socket/../me",
            "/socket/%2e%2e",
            "/socket/a%2fb",
            "/socket/by-name/%00",
            "/socket/by-name/%ff",
            "/socket/by-name/" + "x" * 300,
        ):
            self.assertEqual(self.call("GET", path).status, 400, path)
        self.assertEqual(self.call("GET", "/nothing").status, 404)
        self.assertEqual(self.call("GET", "/socket/not-an-id").status, 404)
        response = self.call("PATCH", "/socket")
        self.assertEqual((response.status, response.header("allow")), (405, "GET, POST"))


class Browsers(Api):
    def setUp(self) -> None:
        super().setUp()
        made = self.control.sessions.begin(
            self.owner.id,
            ORG,
            self.control.now(),
            "192.0.2.7",
            stage="full",
            mfa=True,
            replaces=None,
        )
        self.value = now_of(made)
        self.cookie = ("Cookie", f"__Host-border0={self.value.reveal()}")
        self.csrf = ("X-Border0-CSRF", self.control.sessions.csrf(self.value))
        self.origin = ("Origin", ORIGIN)

    def change(self, *headers: tuple[str, str], **more: Any) -> Response:
        return self.call(
            "POST", "/socket", token="", headers=list(headers), value={"name": "a"}, **more
        )

    def test_a_page_of_ours_may(self) -> None:
        self.assertEqual(self.change(self.cookie, self.csrf, self.origin).status, 201)
        site = ("Sec-Fetch-Site", "same-origin")
        self.assertEqual(self.change(self.cookie, self.csrf, self.origin, site).status, 201)
        who = self.call("GET", "/whoami", token="", headers=[self.cookie]).json()
        self.assertEqual((who["name"], who["csrf_token"]), ("owner@own", self.csrf[1]))

    def test_a_missing_origin(self) -> None:
        self.assertEqual(self.code(self.change(self.cookie, self.csrf)), (403, "wrong_origin"))

    def test_foreign_origins(self) -> None:
        for origin in (
            "https://evil.test",
            "null",
            "http://control.test",
            "https://control.test:444",
            "https://control.test.evil.test",
            "https://control.test@evil.test",
            "",
        ):
            response = self.change(self.cookie, self.csrf, ("Origin", origin))
            self.assertEqual(self.code(response), (403, "wrong_origin"), origin)
        response = self.change(self.cookie, self.csrf, self.origin, ("Origin", "https://evil.test"))
        self.assertEqual(response.status, 403)
        # a token in a foreign page's hands does not help either
        response = self.call("GET", "/me", headers=[("Origin", "https://evil.test")])
        self.assertEqual(response.status, 403)

    def test_cross_site(self) -> None:
        for site in ("cross-site", "same-site", "SAME-ORIGIN", ""):
            headers = [self.cookie, ("Sec-Fetch-Site", site)]
            response = self.call("GET", "/me", token="", headers=headers)
            self.assertEqual(self.code(response), (403, "cross_site"), site)

    def test_csrf_tokens(self) -> None:
        for value in ("", "x", self.csrf[1][:-1], self.csrf[1].upper(), "é"):
            response = self.change(self.cookie, self.origin, ("X-Border0-CSRF", value))
            self.assertEqual(self.code(response), (403, "wrong_csrf_token"), value)
        self.assertEqual(self.change(self.cookie, self.origin).status, 403)
        self.assertEqual(self.sample.calls, [])

    def test_two_cookies_of_the_name_are_none(self) -> None:
        twice = ("Cookie", f"{self.cookie[1]}; __Host-border0=evil")
        self.assertEqual(self.change(twice, self.csrf, self.origin).status, 401)

    def test_a_wrong_token_does_not_fall_back_to_the_cookie(self) -> None:
        response = self.call("GET", "/me", token="b0u_wrong", headers=[self.cookie])
        self.assertEqual(response.status, 401)

    def test_host_names(self) -> None:
        for host, status in (
            ("control.test", 200),
            ("CONTROL.test:8443", 200),
            ("127.0.0.1:8443", 200),
            ("[::1]:8443", 200),
            ("evil.test", 421),
            ("evil.test:8443", 421),
            ("127.0.0.2", 421),
            ("control.test.", 400),
            ("control.test:port", 400),
            ("a b", 400),
            ("", 400),
        ):
            response = self.call("GET", "/openapi.json", host=host)
            self.assertEqual(response.status, status, host)
        response = self.call("GET", "/openapi.json", headers=[("Host", "evil.test")])
        self.assertEqual(response.status, 400)


class Replies(Api):
    def test_headers(self) -> None:
        for path in ("/ping", "/me", "/nothing", "/openapi.json"):
            response = self.call("GET", path)
            for name, value in (
                ("cache-control", "no-store"),
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("server", "border0"),
                ("x-frame-options", "DENY"),
            ):
                self.assertEqual(response.all(name), [value], path)
            self.assertIn("frame-ancestors 'none'", response.header("content-security-policy"))
            self.assertTrue(response.header("strict-transport-security"))
            self.assertEqual(len(response.header("x-request-id")), 32)

    def test_an_exception_says_nothing_and_is_logged_once(self) -> None:
        self.sample.raises = KeyError("canary-internal /etc/secret")
        response = self.call("GET", "/me")
        self.assertEqual(self.code(response), (500, "internal"))
        self.assertNotIn(b"canary", response.raw)
        self.assertNotIn(b"Traceback", response.raw)
        self.assertEqual(response.json()["error"]["request_id"], response.header("x-request-id"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_failed_change_is_recorded_as_such(self) -> None:
        self.sample.raises = RuntimeError("boom")
        self.assertEqual(self.call("POST", "/token").status, 500)
        self.assertEqual(self.control.audit[-1].result, "failed")
        self.flushLoggedErrors(RuntimeError)
        self.sample.raises = conflict("the name is taken")
        response = self.call("POST", "/socket", value={"name": "a"})
        self.assertEqual(self.code(response), (409, "conflict"))
        self.assertEqual(self.control.audit[-1].reason, "the name is taken")

    def test_what_cannot_be_recorded_is_not_answered(self) -> None:
        self.control.audit_broken = True
        response = self.call("POST", "/socket", value={"name": "a"})
        self.assertEqual(self.code(response), (500, "internal"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_a_broken_store_is_no_sign_in_and_no_allow(self) -> None:
        async def broken(*arguments: object) -> None:
            raise OSError("database is locked")

        self.control.state.token = broken  # type: ignore[method-assign, assignment]
        self.assertEqual(self.code(self.call("GET", "/me")), (500, "internal"))
        self.control.api._owns = broken  # type: ignore[assignment]
        self.assertEqual(self.sample.calls, [])
        self.flushLoggedErrors(OSError)

    def test_a_header_that_would_break_the_answer(self) -> None:
        def broken(call: Any) -> Answer:
            """A handler that trusts a name."""
            return Answer(headers=[("X-Name", "a\r\nX-Evil: 1")])

        sample = Sample()
        sample.table.route("GET", "/broken", permission="socket.read")(broken)
        control = Control(sample.table, sample.owns)
        token = control.token(control.accounts.add(ORG, "o", "owner"))
        response = exchange(control.site, "GET", "/api/v1/broken", token=token)
        self.assertEqual(self.code(response), (500, "internal"))
        self.assertNotIn(b"evil", response.raw.lower())
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_an_answer_of_another_type(self) -> None:
        self.sample.sockets = {"x": "no socket"}  # type: ignore[dict-item]
        self.sample.objects["socket", "x"] = ORG
        self.assertEqual(self.call("GET", "/socket/by-name/x").status, 500)
        self.flushLoggedErrors()

    def test_a_client_that_has_gone(self) -> None:
        waiting: Deferred[None] = Deferred()

        async def later(call: Any) -> None:
            """Later."""
            await waiting

        sample = Sample()
        sample.table.route("GET", "/later", permission="socket.read")(later)
        control = Control(sample.table, sample.owns)
        owner = control.accounts.add(ORG, "o", "owner")
        wire = Wire(control.site)
        head = [("Authorization", f"Bearer {control.token(owner)}")]
        wire.send(raw_request("GET", "/api/v1/later", head))
        wire.close()
        waiting.callback(None)
        self.assertEqual(wire.response().raw, b"")

    def test_rate_limit(self) -> None:
        found = [self.call("GET", "/me").status for _ in range(601)]
        self.assertEqual(found.count(204), 600)
        self.assertEqual(found[-1], 429)
        response = self.call("GET", "/me")
        self.assertTrue(int(response.header("retry-after")) >= 1)
        self.assertEqual(self.call("GET", "/socket").status, 200)

    def test_guessing_tokens_is_slowed_by_address(self) -> None:
        found = [self.call("GET", "/me", token=f"b0u_{i}").status for i in range(25)]
        self.assertEqual(found, [401] * 20 + [429] * 5)
        self.assertEqual(self.call("GET", "/me", address="192.0.2.8").status, 204)


class Changes(Api):
    def test_versions(self) -> None:
        made = self.call("POST", "/socket", value={"name": "a"})
        self.assertEqual(made.header("etag"), '"v1"')
        path = f"/socket/{made.json()['id']}"
        put = {"value": {"name": "b"}}
        self.assertEqual(self.code(self.call("PUT", path, **put)), (428, "version_required"))
        done = self.call("PUT", path, headers=[("If-Match", '"v1"')], **put)
        self.assertEqual((done.status, done.header("etag")), (200, '"v2"'))
        late = self.call("PUT", path, headers=[("If-Match", '"v1"')], **put)
        self.assertEqual(self.code(late), (412, "version_mismatch"))
        same = self.call("GET", path, headers=[("If-None-Match", '"v2"')])
        self.assertEqual((same.status, same.body), (304, b""))

    def test_pages(self) -> None:
        for name in "abcde":
            self.sample.add("socket", ORG, name)
        self.sample.add("socket", "org-other", "a-foreign")
        seen, path = [], "/socket?limit=2"
        for _ in range(5):
            found = self.call("GET", path).json()
            seen += [one["name"] for one in found["items"]]
            if not found.get("next_cursor"):
                break
            path = f"/socket?limit=2&cursor={found['next_cursor']}"
        self.assertEqual(seen, list("abcde"))

    def test_a_repeated_request_happens_once(self) -> None:
        head = [("Idempotency-Key", "k1")]
        first = self.call("POST", "/socket", headers=head, value={"name": "a"})
        again = self.call("POST", "/socket", headers=head, value={"name": "a"})
        self.assertEqual((first.status, first.body), (again.status, again.body))
        self.assertEqual(again.header("etag"), '"v1"')
        self.assertEqual(again.header("idempotency-replayed"), "true")
        self.assertEqual(len(self.sample.calls), 1)
        other = self.call("POST", "/socket", headers=head, value={"name": "b"})
        self.assertEqual(self.code(other), (422, "key_reused"))
        admin = self.control.token(self.control.accounts.add(ORG, "second", "owner"))
        self.call("POST", "/socket", headers=head, value={"name": "a"}, token=admin)
        self.assertEqual(len(self.sample.calls), 2)
        self.control.clock.advance(24 * 3600 + 1)
        self.call("POST", "/socket", headers=head, value={"name": "a"})
        self.assertEqual(len(self.sample.calls), 3)

    def test_a_failure_may_be_repeated(self) -> None:
        head = [("Idempotency-Key", "k1")]
        self.sample.raises = conflict("not now")
        self.assertEqual(
            self.call("POST", "/socket", headers=head, value={"name": "a"}).status, 409
        )
        self.sample.raises = None
        self.assertEqual(
            self.call("POST", "/socket", headers=head, value={"name": "a"}).status, 201
        )

    def test_a_secret_is_shown_once(self) -> None:
        head = [("Idempotency-Key", "k1")]
        self.assertIn(b"canary", self.call("POST", "/token", headers=head).body)
        again = self.call("POST", "/token", headers=head)
        self.assertEqual(again.status, 409)
        self.assertNotIn(b"canary", again.body)
        self.assertNotIn("canary", repr(self.control.audit))

    def test_bad_keys(self) -> None:
        for key in ("a b", "x" * 129, "é"):
            head = [("Idempotency-Key", key)]
            self.assertEqual(self.call("POST", "/token", headers=head).status, 400, key)

    def test_the_audit_entry(self) -> None:
        made = self.call("POST", "/socket", value={"name": "a"})
        (entry,) = self.control.audit
        self.assertEqual(entry.type, "socket.create")
        self.assertEqual((entry.org, entry.actor, entry.result), (ORG, "owner@own", "ok"))
        self.assertEqual(entry.address, "192.0.2.7")
        self.assertEqual(entry.target, {"id": made.json()["id"]})
        self.assertEqual(entry.request_id, made.header("x-request-id"))


class Description(Api):
    def test_openapi(self) -> None:
        found = json.loads(self.call("GET", "/openapi.json", token="").body)
        self.assertEqual(found["openapi"], "3.1.0")
        operations = [op for path in found["paths"].values() for op in path.values()]
        self.assertEqual(len(operations), len(self.control.table.routes))
        names = [operation["operationId"] for operation in operations]
        self.assertEqual(len(set(names)), len(names))
        for operation in operations:
            self.assertTrue(operation["x-permission"])
            self.assertIn("default", operation["responses"])
        put = found["paths"]["/api/v1/socket/{id}"]["put"]
        self.assertEqual({p["name"] for p in put["parameters"]}, {"id", "If-Match"})
        listing = found["paths"]["/api/v1/socket"]["get"]
        self.assertLessEqual(
            {"limit", "cursor", "policy"}, {p["name"] for p in listing["parameters"]}
        )
        text = json.dumps(found)
        for schema in json.dumps(found).split('"$ref": "#/components/schemas/')[1:]:
            self.assertIn(schema.partition('"')[0], found["components"]["schemas"])
        self.assertNotIn("border0.control", text)
