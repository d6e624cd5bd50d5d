"""Passwords that a statement carries in clear reach no record."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.policy.sql.redaction import redacted
from border0.policy.sql.verdict import literal

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
    f"ALTER ROLE app PASSWORD 'x'\n'{CANARY}'",
    f"ALTER ROLE app PASSWORD /* a * b */ -- c\n /**/ '{CANARY}'",
    f"ALTER ROLE app PASSWORD N'{CANARY}'",
    f"ALTER ROLE app PASSWORD E'{CANARY}\\",
    f"ALTER ROLE app PASSWORD{' ' * 1000}'{CANARY}'",
    f"SELECT dblink_connect(E'host=h password=\\'a {CANARY}\\'')",
    f"CREATE SUBSCRIPTION s CONNECTION 'postgresql://u:{CANARY}@h/d' PUBLICATION p",
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
        literal(b"password" + b" " * 200 + b"x")
        literal(b"password" + b"/**/" * 200 + b"x")
        for part in (
            *("password ", "password '", "password /*", "password $a$", "password=", "--\n"),
            *(
                "-- password\n",
                "/* password */",
                "://a:",
                "password '' ",
                " ",
                "/**/",
                "password=''",
            ),
            *("password E'\\", "password -- ", "password=\\'", "$", "'\n"),
        ):
            literal((part * 20_000).encode())
            literal(("password " + part * 40_000).encode())
