"""Requests of any bytes: an answer below 500, or a closed connection, and nothing in the log."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.sampleroutes import Sample
from tests.support.signin import Control
from tests.support.web import ORIGIN, Wire, exchange

SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=150)
PATHS = (
    b"/api/v1/socket",
    b"/api/v1/socket/by-name/",
    b"/api/v1/device_authorizations",
    b"/api/v1/device_authorizations/poll",
    b"/api/v1/whoami",
    b"/setup",
    b"/sign-in",
    b"/device",
    b"/device/confirm",
)
LINE = st.binary(max_size=40).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b""))
NAMES = (
    b"Authorization",
    b"Content-Type",
    b"Cookie",
    b"Host",
    b"Idempotency-Key",
    b"If-Match",
    b"Origin",
    b"Sec-Fetch-Site",
    b"X-Forwarded-For",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("name", "upstream", "connector_ids", "policies", "public_key", "x")),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


class AnyBytes(SynchronousTestCase):
    def control(self) -> tuple[Control, str]:
        sample = Sample()
        control = Control(sample.table, sample.owns)
        return control, control.token(control.accounts.add("org", "o", "owner"))

    def test_requests(self) -> None:
        control, token = self.control()

        @SETTINGS
        @given(
            st.sampled_from((b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"X")),
            st.sampled_from(PATHS),
            LINE,
            st.lists(st.tuples(st.sampled_from(NAMES), LINE), max_size=4),
            st.binary(max_size=60),
        )
        def check(
            method: bytes, path: bytes, more: bytes, headers: list[tuple[bytes, bytes]], body: bytes
        ) -> None:
            control.clock.advance(120.0)
            lines = [method + b" " + path + more + b" HTTP/1.1", b"Host: control.test"]
            lines += [b"Authorization: Bearer " + token.encode()]
            lines += [name + b": " + value for name, value in headers]
            lines += [b"Content-Length: %d" % len(body)]
            wire = Wire(control.site)
            wire.send(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            response = wire.response()
            self.assertLess(response.status, 500, response.raw)
            wire.close()
            self.assertEqual(self.flushLoggedErrors(), [])

        check()

    def test_bodies_and_forms(self) -> None:
        control, token = self.control()

        @SETTINGS
        @given(st.sampled_from(PATHS), JSON, st.binary(max_size=60))
        def check(path: bytes, value: object, form: bytes) -> None:
            control.clock.advance(120.0)
            where = path.decode()
            found = exchange(control.site, "POST", where, value=value, token=token)
            self.assertLess(found.status, 500, found.raw)
            headers = [("Origin", ORIGIN), ("Content-Type", "application/x-www-form-urlencoded")]
            found = exchange(control.site, "POST", where, headers=headers, body=form)
            self.assertLess(found.status, 500, found.raw)
            self.assertEqual(self.flushLoggedErrors(), [])

        check()
