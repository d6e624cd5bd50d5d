"""What a request may be answered with when it fails, and the one shape of the answer's body.

Source: RFC 9110 §15 (status codes), RFC 6585 §3 and §4 (428, 429), RFC 6750 §3 (Bearer).
Everything that is no `ApiError` is answered as 500 without a word about the cause.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from border0.errors import Border0Error


class FieldError(NamedTuple):
    """One wrong field: its path (`policies[0].name`) and what is wrong with it."""

    field: str
    message: str


class ErrorField(msgspec.Struct, forbid_unknown_fields=True):
    """A wrong field in an answer."""

    field: str
    message: str


class ErrorText(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Why a request failed; `request_id` also stands in the server's log."""

    code: str
    message: str
    request_id: str
    fields: list[ErrorField] = []


class ErrorAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """The body of every answer with a status of 400 or more.

    The last two members are Border0's own, for clients that know its API: the same sentence, and
    the answer's status.
    """

    error: ErrorText
    error_message: str
    status_code: int


class ApiError(Border0Error):
    """A failure that the caller may see: status, a stable code and a sentence.

    :param headers: further headers of the answer; names and values are ours, never the caller's.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fields: Sequence[FieldError] = (),
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.fields, self.headers = tuple(fields), tuple(headers)

    def body(self, request_id: str) -> bytes:
        """The JSON text of the answer."""
        fields = [ErrorField(*field) for field in self.fields]
        text = ErrorText(self.code, self.message, request_id, fields)
        return msgspec.json.encode(ErrorAnswer(text, self.message, self.status))


def bad_request(message: str, code: str = "bad_request") -> ApiError:
    """The request is not well-formed."""
    return ApiError(400, code, message)


def invalid(field: str, message: str) -> ApiError:
    """One field of body, query or path has a wrong value."""
    where = f"{field}: {message}" if field else message
    return ApiError(422, "invalid", where, fields=[FieldError(field, message)])


def unauthenticated(message: str = "sign in, or send a valid token") -> ApiError:
    """Nobody, or nobody that we know."""
    headers = [("WWW-Authenticate", 'Bearer realm="border0"')]
    return ApiError(401, "unauthenticated", message, headers=headers)


def forbidden(message: str, code: str = "forbidden") -> ApiError:
    """The caller is known and may not."""
    return ApiError(403, code, message)


def not_found(what: str = "nothing is here") -> ApiError:
    """No such thing, or one of another organisation: the two look the same."""
    return ApiError(404, "not_found", what)


def conflict(message: str) -> ApiError:
    """The state does not allow it: a name is taken, something is in use."""
    return ApiError(409, "conflict", message)


def version_mismatch() -> ApiError:
    """`If-Match` named another version than the present one."""
    return ApiError(412, "version_mismatch", "it was changed meanwhile; read it again")


def too_large(limit: int) -> ApiError:
    """The body is longer than the route takes, in bytes."""
    return ApiError(413, "too_large", f"the body is longer than {limit} bytes")


def too_many(retry_after: float) -> ApiError:
    """A rate limit was reached; `retry_after` in seconds."""
    seconds = max(1, int(retry_after + 0.999))
    headers = [("Retry-After", str(seconds))]
    return ApiError(
        429, "too_many", f"too many requests; try again in {seconds} s", headers=headers
    )


def busy(retry_after: float = 1.0) -> ApiError:
    """A bounded queue is full; `retry_after` in seconds."""
    headers = [("Retry-After", str(max(1, int(retry_after + 0.999))))]
    return ApiError(503, "busy", "the server is busy; try again", headers=headers)


def internal() -> ApiError:
    """Something of ours broke; the log has it under the request's id."""
    return ApiError(500, "internal", "something went wrong on the server")
