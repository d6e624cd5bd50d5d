"""The upstream login: TLS request, authentication, start-up until the first ReadyForQuery.

Source: PostgreSQL documentation, "Start-up", "SASL Authentication", "SSL Session Encryption";
RFC 7677 (SCRAM-SHA-256), RFC 5929 (tls-server-end-point).
Bytes in, bytes out: the adapter dials, starts TLS and owns the timeout.
"""

import hashlib
from collections.abc import Mapping

from scramp import ScramClient, ScramException

from border0.proxies.postgres import codec
from border0.proxies.postgres.codec import ProtocolError
from border0.secrets import Secret

FRAME_LIMIT = 64 * 1024  # bytes of one message during login
GREETING_LIMIT = 1024 * 1024  # bytes of everything the server says before it is ready
# A hostile server could ask for a billion rounds; PostgreSQL's default is 4,096.
ITERATION_LIMIT = 500_000

TLS_MODES = ("disable", "prefer", "require", "verify-full")
_WITHOUT_TLS = ("disable", "prefer")
_UNSUPPORTED = {2: "Kerberos V5", 4: "crypt", 6: "SCM credentials", 7: "GSSAPI", 9: "SSPI"}
# What these say names the connector's account or its address: not for the client.
_CREDENTIAL_STATES = (codec.INVALID_PASSWORD, codec.INVALID_AUTHORIZATION)


class LoginFailed(ProtocolError):
    """The upstream cannot be used; `reply` is the ErrorResponse for the client.

    The text never holds a credential nor what the server said about one.
    """

    def __init__(self, reason: str, reply: bytes) -> None:
        super().__init__(reason)
        self.reply = reply


class Login:
    """One login; `start`, then `receive` until `ready` is set.

    When `tls_wanted` turns true the adapter starts TLS and calls `secured`.
    Afterwards `greeting` holds the ParameterStatus and notice messages for the client,
    `parameters` what the server reported, `key` its BackendKeyData and `rest` what followed.

    :param parameters: the whole start-up message, the configured user included.
    :param socket: the service's name, for error texts.
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        password: Secret | None,
        tls_mode: str,
        socket: str,
        nonce: str,
    ) -> None:
        if tls_mode not in TLS_MODES:
            raise ValueError(f"unknown TLS mode {tls_mode!r}")
        self._startup = codec.startup_message(parameters)
        self._user = parameters["user"]
        self._password = password
        self._tls_mode = tls_mode
        self._socket = socket
        self._nonce = nonce
        self._held = b""
        self._asked_tls = False
        self._scram: ScramClient | None = None
        self._scram_step = 0
        self._authenticated = False
        self._binding: tuple[str, bytes] | None = None
        self._said = 0
        self.secure = False
        self.tls_wanted = False
        self.ready = False
        self.greeting: list[bytes] = []
        self.parameters: dict[str, str] = {}
        self.key: tuple[int, bytes] | None = None
        self.status = codec.IDLE
        self.rest = b""

    def start(self) -> bytes:
        """What the server is sent first."""
        if self._tls_mode == "disable":
            return self._startup
        self._asked_tls = True
        return codec.SSL_REQUEST_PACKET

    def secured(self, binding: tuple[str, bytes] | None) -> bytes:
        """TLS stands; `binding` is the channel-binding type and data, when there is one."""
        self.tls_wanted = False
        self.secure = True
        self._binding = binding
        return self._startup

    def receive(self, data: bytes) -> bytes:
        """Take a chunk; returns what the server is sent.

        :raises LoginFailed: refused, unsupported or not allowed by the TLS mode.
        :raises ProtocolError: bytes that are no login.
        """
        if self._asked_tls and not self.secure:
            return self._tls_answer(data)
        held = self._held + data
        at, out = 0, b""
        while len(held) - at >= 5 and not self.ready:
            kind, size = codec.HEADER.unpack_from(held, at)
            if not 4 <= size <= FRAME_LIMIT:
                raise ProtocolError("the server sent a message of impossible length during login")
            if len(held) - at <= size:
                break
            out += self._message(kind, held[at + 5 : at + 1 + size], held[at : at + 1 + size])
            at += size + 1
            self._said += size
            if self._said > GREETING_LIMIT:
                raise ProtocolError("the server talks without end during login")
        self._held = held[at:]
        if self.ready:
            self.rest, self._held = self._held, b""
        return out

    def _tls_answer(self, data: bytes) -> bytes:
        if self.tls_wanted or len(data) != 1:
            # Clear bytes behind the answer would be taken for protected ones (CVE-2021-23222).
            raise ProtocolError("the server sent clear bytes around its answer to SSLRequest")
        if data == b"S":
            self.tls_wanted = True
            return b""
        self._asked_tls = False
        if data != b"N":
            raise ProtocolError("the server did not answer the TLS request")
        if self._tls_mode in _WITHOUT_TLS:
            return self._startup
        raise self._failure(
            "the database server does not offer TLS",
            f"tls_mode is {self._tls_mode}.",
            "An administrator must enable TLS on the server or change tls_mode of this socket.",
        )

    def _message(self, kind: int, body: bytes, frame: bytes) -> bytes:
        if kind == 82:  # R
            return self._authentication(body)
        if kind == 69:  # E
            raise self._refused(body, frame)
        if kind == 78:  # N
            self.greeting.append(frame)
            return b""
        if kind == 118:  # v: we ask for 3.0 without options
            return b""
        if not self._authenticated:
            raise ProtocolError("the server left the authentication unfinished")
        if kind == 83:  # S
            name, value = codec.pair(body)
            self.parameters[name] = value
            self.greeting.append(frame)
        elif kind == 75:  # K
            if not 8 <= len(body) <= 260:
                raise ProtocolError("malformed BackendKeyData")
            self.key = (codec.I32_PAIR.unpack_from(body)[0], body[4:])
        elif kind == 90:  # Z
            if len(body) != 1:
                raise ProtocolError("malformed ReadyForQuery")
            self.status = body[0]
            self.ready = True
        else:
            raise ProtocolError(f"the server sent message {kind} during login")
        return b""

    def _authentication(self, body: bytes) -> bytes:
        if len(body) < 4 or self._authenticated:
            raise ProtocolError("malformed or repeated authentication message")
        request = codec.U32.unpack_from(body)[0]
        if request == 0:
            if self._scram is not None and self._scram_step != 3:
                raise ProtocolError("the server did not prove that it knows the password")
            self._authenticated = True
            return b""
        if request == 3:
            if not self.secure:
                raise self._failure(
                    "the database server asks for the password in clear text",
                    "A clear-text password is sent inside TLS only, and this connection has none.",
                    "An administrator must set tls_mode to require or verify-full for this socket.",
                )
            return codec.message(b"p", self._secret().encode() + b"\0")
        if request == 5 and len(body) == 8:
            return codec.message(b"p", _md5(self._user, self._secret(), body[4:]) + b"\0")
        if request == 10:
            return self._sasl_begin(body[4:])
        if request == 11 and self._scram_step == 1:
            return self._sasl_continue(body[4:])
        if request == 12 and self._scram_step == 2:
            return self._sasl_final(body[4:])
        if request in (5, 10, 11, 12):
            raise ProtocolError("authentication message out of order")
        raise self._failure(
            "the database server asks for an authentication that this service does not speak",
            f"It wants {_UNSUPPORTED.get(request, f'method {request}')}.",
            "Supported are SCRAM-SHA-256, md5, and a clear-text password inside TLS.",
        )

    def _sasl_begin(self, body: bytes) -> bytes:
        if self._scram is not None:
            raise ProtocolError("authentication message out of order")
        offered = [name.decode("ascii", "replace") for name in body.split(b"\0") if name]
        known = [name for name in offered if name in ("SCRAM-SHA-256", "SCRAM-SHA-256-PLUS")]
        if self._binding is None:
            known = [name for name in known if not name.endswith("-PLUS")]
        if not known:
            raise self._failure(
                "the database server offers no SASL mechanism that this service speaks",
                "Supported are SCRAM-SHA-256 and, inside TLS, SCRAM-SHA-256-PLUS.",
            )
        try:
            client = ScramClient(
                known,
                self._user,
                self._secret(),
                channel_binding=self._binding,
                c_nonce=self._nonce,
            )
            first = client.get_client_first().encode()
        except ScramException:
            raise self._failure(
                "the configured user name or password cannot be used with SCRAM"
            ) from None
        self._scram, self._scram_step = client, 1
        name = client.mechanism_name.encode() + b"\0"
        return codec.message(b"p", name + codec.U32.pack(len(first)) + first)

    def _sasl_continue(self, body: bytes) -> bytes:
        assert self._scram is not None
        final = b""
        try:
            self._scram.set_server_first(body.decode("utf-8"))
            if 1 <= int(self._scram.iterations) <= ITERATION_LIMIT:
                final = self._scram.get_client_final().encode()
        except Exception:  # scramp raises more than ScramException on garbage
            final = b""
        if not final:
            raise ProtocolError("malformed SCRAM message from the server")
        self._scram_step = 2
        return codec.message(b"p", final)

    def _sasl_final(self, body: bytes) -> bytes:
        assert self._scram is not None
        try:
            self._scram.set_server_final(body.decode("utf-8"))
        except Exception:  # scramp raises more than ScramException on garbage
            good = False
        else:
            good = True
        if not good:
            raise ProtocolError("the server did not prove that it knows the password")
        self._scram_step = 3
        return b""

    def _secret(self) -> str:
        if self._password is None:
            raise self._failure(
                "the database server asks for a password and none is configured",
                hint="An administrator must configure the password of this socket.",
            )
        return self._password.reveal()

    def _refused(self, body: bytes, frame: bytes) -> LoginFailed:
        state = codec.error_fields(body).get("C", "")
        if state not in _CREDENTIAL_STATES:
            return LoginFailed(f"the database server refused the session: {state}", frame)
        summary = f'the database server of "{self._socket}" refused the connector\'s credential'
        reply = codec.fatal(
            state,
            summary,
            "Your own identity was accepted; the account configured for this socket was not.",
            "An administrator must fix the credential of this socket on the connector.",
        )
        return LoginFailed(f"{summary} ({state})", reply)

    def _failure(self, summary: str, detail: str = "", hint: str = "") -> LoginFailed:
        text = f'cannot log in to the database server of "{self._socket}": {summary}'
        return LoginFailed(text, codec.fatal(codec.CONNECTION_FAILURE, text, detail, hint))


def _md5(user: str, password: str, salt: bytes) -> bytes:
    inner = hashlib.md5(password.encode() + user.encode(), usedforsecurity=False).hexdigest()
    outer = hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()
    return b"md5" + outer.encode()
