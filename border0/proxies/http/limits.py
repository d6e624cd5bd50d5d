"""How long a client and a service may take, and how a connection ends."""

HEAD_SECONDS = 30.0  # a request's head, from its first byte (the first: from the connection)
IDLE_SECONDS = 300.0  # between requests
BODY_SECONDS = 300.0  # between two pieces of a request's body
ANSWER_SECONDS = 300.0  # from the end of a request to the head of its response
HALF_CLOSED_SECONDS = 30.0  # a client that sends no more gets its response within
STALE_SECONDS = 1.0  # an idle upstream connection is not trusted with a POST after this
HOLD_LIMIT = 64 * 1024
INTERIM_LIMIT = 32
REFUSED_METHODS = (b"CONNECT", b"TRACE", b"TRACK")

GONE = 499  # recorded when the client left before there was a response
LINGER = "linger"  # after what is queued; what still comes is thrown away
NOW = "now"  # after what is queued
ABORT = "abort"
