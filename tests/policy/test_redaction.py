"""Passwords that a statement carries in clear reach no record."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.policy.sql.verdict import literal, redacted

CANARY = "canary-41c0"
TEXTS = (
    f"ALTER ROLE app PASSWORD '{CANARY}'",
    f"alter user app with encrypted password\n'{CANARY}' valid until '2027-01-01'",
    f"CREATE ROLE x LOGIN PASSWORD E'{CANARY}\\'s'",
    f"CREATE ROLE x PASSWORD $a${CANARY}$a$",
    f"CREATE ROLE x PASSWORD /* why */ '{CANARY}'",
    f"CREATE ROLE x PASSWORD -- why\n'{CANARY}'",
    f"CREATE USER MAPPING FOR app SERVER s OPTIONS (user 'u', password '{CANARY}')",
    f"CREATE SUBSCRIPTION s CONNECTION 'host=h password={CANARY} dbname=d' PUBLICATION p",
    f"SELECT dblink_connect('host=h password=''{CANARY}''')",
    f"UPDATE users SET password = '{CANARY}' WHERE id = 1",
    f"ALTER ROLE app PASSWORD '{CANARY}",
)


class Redaction(SynchronousTestCase):
    def test_passwords_are_hidden(self) -> None:
        for text in TEXTS:
            shown = json.loads(literal(text.encode()))
            self.assertNotIn(CANARY, shown)
            self.assertIn("***", shown)

    def test_the_rest_stays(self) -> None:
        for text in ("SELECT 'password'", "SELECT password FROM t WHERE id = 'x'", "SELECT 1"):
            self.assertEqual(json.loads(literal(text.encode())), text)
        self.assertEqual(
            redacted("ALTER ROLE app PASSWORD 'x' VALID UNTIL '2027'"),
            "ALTER ROLE app PASSWORD '***' VALID UNTIL '2027'",
        )

    @settings(derandomize=True, database=None, deadline=None)
    @given(st.text(), st.text(alphabet="'\"$\\/*- =password\n"))
    def test_any_text_is_one_literal(self, before: str, after: str) -> None:
        json.loads(literal((before + "password" + after).encode("utf-8", "surrogatepass")))

    def test_hostile_texts_end(self) -> None:
        # A quadratic pattern needs hours for these: the run's own time limit would end them.
        for part in ("password ", "password '", "password /*", "password $a$", "password=", "--\n"):
            literal(("password " + part * 100_000).encode())
