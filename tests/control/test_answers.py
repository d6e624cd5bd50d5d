"""Idempotency keys in the database: once, also over a restart, and never twice by mistake."""

from twisted.internet.defer import Deferred

from border0.control.answers import SqlAnswers
from border0.control.api.errors import ApiError, conflict
from border0.control.store import Unavailable, organisations, schema, users
from tests.control.store.case import (
    ACME,
    START,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)
from tests.support.directstore import DirectStore
from tests.support.sampleroutes import Sample
from tests.support.signin import Control, now_of
from tests.support.web import exchange

CALLER = f"{ACME}/owner/ann"
ANSWER = (201, (("ETag", '"v1"'), ("X-Two", "2")), b'{"id": "\xc3\xa9"}')


class StoredAnswers:
    def setUp(self):
        super().setUp()
        self.store = DirectStore(self.database)
        self.answers = SqlAnswers(self.store)

    def begin(self, key="k", mark=b"m", now=START, caller=CALLER, answers=None):
        return now_of((answers or self.answers).begin(caller, key, mark, now))

    def refused(self, code, **more):
        with self.assertRaises(ApiError) as caught:
            self.begin(**more)
        self.assertEqual((caught.exception.code, caught.exception.status // 100), (code, 4))
        return str(caught.exception)

    def complete(self, key="k", answer=ANSWER):
        now_of(self.answers.complete(CALLER, key, answer))

    def rows(self):
        return self.read(lambda c: c.execute(schema.kept_answers.select()).all())

    def test_an_answer_is_given_again(self):
        self.assertIsNone(self.begin())
        self.complete()
        self.assertEqual(self.begin(), ANSWER)
        self.refused("key_reused", mark=b"other")
        self.assertIsNone(self.begin(caller=f"{ACME}/owner/bob"))
        self.assertIsNone(self.begin(key="other"))
        # After a restart, too.
        self.assertEqual(self.begin(answers=SqlAnswers(self.store)), ANSWER)
        self.assertEqual(self.begin(now=START + 86_399.0), ANSWER)
        self.assertIsNone(self.begin(now=START + 86_400.0))

    def test_in_progress(self):
        self.assertIsNone(self.begin())
        self.refused("conflict")
        now_of(self.answers.abandon(CALLER, "k"))
        self.assertIsNone(self.begin())

    def test_one_whose_server_stopped_is_not_done_again(self):
        self.begin()
        restarted = SqlAnswers(self.store)
        words = self.refused("outcome_unknown", answers=restarted)
        self.assertIn("look whether", words)
        self.refused("key_reused", mark=b"other", answers=restarted)
        self.refused("outcome_unknown", answers=restarted)

    def test_secrets_and_large_answers_are_not_kept(self):
        self.begin()
        self.complete(answer=None)
        self.assertIn("only once", self.refused("conflict"))
        self.begin(key="large")
        self.complete("large", (200, (), b"canary" * 5000))
        self.refused("conflict", key="large")
        self.assertNotIn("canary", repr(self.rows()))

    def test_a_caller_has_so_many(self):
        answers = SqlAnswers(self.store, per_caller=3)
        for number in range(5):
            self.assertIsNone(self.begin(f"k{number}", now=START + number, answers=answers))
        self.begin("other", caller=f"{ACME}/owner/bob", answers=answers)
        self.assertEqual({row.key for row in self.rows()}, {"k2", "k3", "k4", "other"})

    def test_they_go_with_their_organisation(self):
        self.begin()
        self.change(lambda tx: organisations.remove(tx))
        self.assertEqual(self.rows(), [])

    def test_two_at_once(self):
        waiting = Deferred()
        real, self.store.change = self.store.change, lambda *a, **k: waiting
        first = Deferred.fromCoroutine(self.answers.begin(CALLER, "k", b"m", START))
        self.store.change = real
        self.refused("conflict")
        waiting.callback(None)
        self.assertIsNone(self.successResultOf(first))

    def test_a_failing_database(self):
        self.store.broken = Unavailable("locked")
        with self.assertRaises(Unavailable):
            self.begin()
        self.store.broken = None
        self.assertIsNone(self.begin())

    def control(self):
        sample = Sample()
        control = Control(sample.table, sample.owns, answers=SqlAnswers(self.store))
        owner = control.accounts.add(ACME, "ann", "owner")
        return sample, control, control.token(owner)

    def send(self, control, token, value):
        head = [("Idempotency-Key", "k1")]
        return exchange(
            control.site, "POST", "/api/v1/socket", headers=head, value=value, token=token
        )

    def test_through_the_api(self):
        sample, control, token = self.control()
        sample.raises = conflict("not now")
        self.assertEqual(self.send(control, token, {"name": "a"}).status, 409)
        sample.raises = None
        first = self.send(control, token, {"name": "a"})
        again = self.send(control, token, {"name": "a"})
        self.assertEqual((first.status, first.body), (201, again.body))
        self.assertEqual(again.header("idempotency-replayed"), "true")
        self.assertEqual(again.header("etag"), '"v1"')
        self.assertEqual(self.send(control, token, {"name": "b"}).status, 422)

    def test_what_was_done_is_answered_although_it_cannot_be_kept(self):
        _, control, token = self.control()

        def breaking(entry):
            self.store.broken = Unavailable("disk full")

        control.api._audit = breaking
        self.assertEqual(self.send(control, token, {"name": "a"}).status, 201)
        self.assertEqual(len(self.flushLoggedErrors(Unavailable)), 1)
        # Nothing is done while keys cannot be looked up.
        self.assertEqual(self.send(control, token, {"name": "c"}).status, 503)
        self.store.broken = None
        answer = self.send(control, token, {"name": "a"})
        self.assertEqual(answer.json()["error"]["code"], "outcome_unknown")

    def test_nothing_is_announced(self):
        before = self.read(lambda c: organisations.get(c, ACME).revision)
        self.begin()
        self.complete()
        self.assertEqual(self.read(lambda c: organisations.get(c, ACME).revision), before)
        self.assertEqual(self.read(lambda c: users.page(c, ACME)).items, [])


class AnswersOnSQLite(StoredAnswers, OnSQLite, DatabaseCase):
    pass


@needs_postgresql
class AnswersOnPostgreSQL(StoredAnswers, OnPostgreSQL, DatabaseCase):
    pass
