"""A gate, a log and a harness for the session machine: bytes in, bytes out."""

import json

from border0.proxies.postgres import codec
from border0.proxies.postgres.session import Session


class Verdict:
    def __init__(self, allowed, sql):
        self.allowed = allowed
        self.text = json.dumps(sql.decode("utf-8", "backslashreplace"))
        self.klass = "read" if allowed else "write"
        self.tables = "[]"
        self.policy = "eng-read"
        self.clause = "" if allowed else "allowed_query_types"
        self.reason = "" if allowed else "ReadOnly does not allow this"


class Gate:
    """Denies what begins with DENY; answers what begins with LATER only when asked to."""

    def __init__(self):
        self.later = []
        self.parameters = {}
        self.asked = []

    def decide(self, sql, answered=None):
        self.asked.append(sql)
        if sql.startswith(b"LATER"):
            self.later.append((sql, answered))
            return None
        return Verdict(not sql.startswith(b"DENY"), sql)

    def decide_function_call(self):
        return Verdict(False, b"(function call)")

    def parameter_status(self, name, value):
        self.parameters[name] = value


class Log:
    def __init__(self):
        self.lines = []

    def query(self, text, klass, tables, **fields):
        self.lines.append((json.loads(text), fields["decision"], fields["status"], fields["rows"]))

    def ran(self, statement, at, duration_ms, rows, status):
        self.lines.append((json.loads(statement.text), "allowed", status, rows))


class Harness:
    def __init__(self, **options):
        self.gate, self.log = Gate(), Log()
        self.to_server, self.to_client, self.held = [], [], []
        self.now = 1000.0
        self.session = Session(
            self.gate,
            self.to_server.append,
            self.to_client.append,
            self.log,
            lambda: self.now,
            lambda count: b"\x11" * count,
            hold=self.held.append,
            **options,
        )

    def client(self, *messages):
        """Feed one chunk; return what the server gets."""
        self.to_server.clear()
        self.session.client(b"".join(messages))
        return b"".join(self.to_server)

    def server(self, *messages):
        """Feed one chunk; return what the client gets."""
        self.to_client.clear()
        self.session.server(b"".join(messages))
        return self.said()

    def said(self):
        """Take what the client was sent meanwhile."""
        data = b"".join(self.to_client)
        self.to_client.clear()
        return data


def kinds(data):
    """The message kinds in some bytes, as a string."""
    found, at = "", 0
    while at < len(data):
        found += chr(data[at])
        at += codec.HEADER.unpack_from(data, at)[1] + 1
    assert at == len(data)
    return found


def parse(sql, name=b""):
    return codec.parse(name, sql)


def bind(statement=b"", portal=b"", tail=b"\0\0\0\0\0\0"):
    return codec.message(b"B", portal + b"\0" + statement + b"\0" + tail)


def execute(portal=b"", limit=0):
    return codec.message(b"E", portal + b"\0" + limit.to_bytes(4, "big"))


def describe(name=b"", kind=b"P"):
    return codec.message(b"D", kind + name + b"\0")


def close(name=b"", kind=b"S"):
    return codec.message(b"C", kind + name + b"\0")


def complete(tag):
    return codec.message(b"C", tag + b"\0")


SYNC = codec.SYNC
FLUSH = codec.message(b"H")
ROW = codec.message(b"D", b"\0\1\0\0\0\1x")
COLUMNS = codec.message(b"T", b"\0\0")
PARSED, BOUND, CLOSED = (codec.message(kind) for kind in (b"1", b"2", b"3"))
NO_DATA = codec.message(b"n")
IDLE, OPEN, FAILED = (codec.ready_for_query(status) for status in b"ITE")
COPY_IN = codec.message(b"G", b"\0\0\0")
COPY_DONE = codec.message(b"c")


def syntax_error(sent):
    """What a real server answers to a failing statement that it was sent."""
    at = sent.index(b"border0_policy_denied_")
    word = sent[at : sent.index(b" ", at)].decode()
    return codec.error_response("42601", f'syntax error at or near "{word}"')
