"""Signed statements: what nodes act on, who may sign it, and what a node believes.

Pure: the time is an argument, the disk is the caller's. Nothing here talks to anybody.
"""

from border0.statements.envelope import Statement, add_signatures, key_id, message
from border0.statements.errors import REASONS, StatementError
from border0.statements.ledger import Attached, Ledger
from border0.statements.payloads import TYPES, check, draft, live, sign
from border0.statements.signers import Signers
from border0.statements.text import time_text, time_value

__all__ = [
    "REASONS",
    "TYPES",
    "Attached",
    "Ledger",
    "Signers",
    "Statement",
    "StatementError",
    "add_signatures",
    "check",
    "draft",
    "key_id",
    "live",
    "message",
    "sign",
    "time_text",
    "time_value",
]
