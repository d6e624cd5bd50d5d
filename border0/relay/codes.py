"""The one-byte codes of CLOSE, HEALTH and GONE, and a word for each.

On the WebSocket, a connection that ended with code n is closed with status 4000 + n.
Source: RFC 6455 §7.4.2 (4000 to 4999 are private). docs/protocols/relay.md has the same tables.
"""

# CLOSE
NORMAL = 1
MALFORMED = 2
SLOW_LOGIN = 3
PROOF_FAILED = 4
WRONG_NAME = 5
BINDING = 6
TICKET = 7
ORIGIN = 8
REPLACED = 9
OLDER = 10
CLOCK = 11
FULL = 12
DRAINING = 13
SILENT = 14
TICKET_EXPIRED = 15
REVOKED = 16
FLOOD = 17
WRONG_RELAY = 18

CLOSE_WORDS = {
    NORMAL: "normal",
    MALFORMED: "malformed",
    SLOW_LOGIN: "slow login",
    PROOF_FAILED: "proof failed",
    WRONG_NAME: "wrong name",
    BINDING: "channel binding",
    TICKET: "ticket refused",
    ORIGIN: "origin refused",
    REPLACED: "replaced",
    OLDER: "older connection",
    CLOCK: "clock",
    FULL: "full",
    DRAINING: "draining",
    SILENT: "silent",
    TICKET_EXPIRED: "ticket expired",
    REVOKED: "revoked",
    FLOOD: "flood",
    WRONG_RELAY: "wrong relay",
}
WEBSOCKET_STATUS = 4000

# HEALTH
KEY_IN_USE_TWICE = 1
OVER_RATE = 2
UNKNOWN_DESTINATIONS = 3
TICKET_REFUSED = 4
TICKET_ENDS = 5

HEALTH_WORDS = {
    KEY_IN_USE_TWICE: "key in use twice",
    OVER_RATE: "over rate",
    UNKNOWN_DESTINATIONS: "unknown destinations",
    TICKET_REFUSED: "ticket refused",
    TICKET_ENDS: "ticket ends",
}

# GONE
NOT_HERE = 1
LEFT = 2
GONE_WORDS = {NOT_HERE: "not here", LEFT: "left"}
