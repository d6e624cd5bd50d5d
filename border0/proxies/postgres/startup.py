"""The client's side before the relay: TLS and GSS requests, cancel requests, start-up.

Source: PostgreSQL documentation, "Start-up", "Canceling Requests in Progress", "SSL Session
Encryption". Bytes in, bytes out; does not authenticate (the tunnel did) and dials nobody.

The tunnel already encrypts, so SSLRequest and GSSENCRequest are answered `N` (once each).
"""

from border0.proxies.postgres import codec
from border0.proxies.postgres.codec import ProtocolError

HTTP_WORDS = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"CONN", b"PATC", b"TRAC")
HTTP2_PREFACE = b"PRI "
NAME_LIMIT = 63  # bytes of a database name that the server looks at (NAMEDATALEN - 1)
SECONDS = 30.0  # a client that has not finished its start-up by then is dropped


class WrongProtocol(ProtocolError):
    """Bytes that cannot start a session; `reply` is what the client gets before the close."""

    def __init__(self, reason: str, reply: bytes = b"") -> None:
        super().__init__(reason)
        self.reply = reply


class CancelRequest:
    """A request to cancel what another session runs."""

    __slots__ = ("key", "pid")

    def __init__(self, pid: int, key: bytes) -> None:
        self.pid = pid
        self.key = key


class StartupRequest:
    """A request for a session: the client's parameters, `_pq_.` options taken out."""

    __slots__ = ("parameters",)

    def __init__(self, parameters: dict[str, str]) -> None:
        self.parameters = parameters

    @property
    def user(self) -> str:
        """The user name that the client gave; never used upstream."""
        return self.parameters["user"]

    def database(self, configured: str | None, upstream_user: str) -> str:
        """The database that is meant: the client's choice, unless absent or its user name.

        It is cut as the server cuts it, so that a rule for a long name cannot be passed by.
        """
        asked = self.parameters.get("database", "")
        if asked and asked != self.user:
            octets = asked.encode("utf-8", "surrogateescape")[:NAME_LIMIT]
            return octets.decode("utf-8", "surrogateescape")
        return configured or upstream_user


class Startup:
    """Reads a client's first packets; feed `receive` until `request` is set.

    `request` is then a StartupRequest or a CancelRequest, `rest` what followed it.
    At most 10,000 bytes of one packet are held.
    """

    __slots__ = ("_asked", "_held", "request", "rest")

    def __init__(self) -> None:
        self._held = b""
        self._asked: set[int] = set()
        self.request: StartupRequest | CancelRequest | None = None
        self.rest = b""

    def receive(self, data: bytes) -> bytes:
        """Take a chunk; returns what the client is sent now.

        :raises WrongProtocol: anything but a start-up; its `reply` may be empty.
        """
        held = self._held + data
        self._held = held
        if len(held) < 4:
            return b""
        length = codec.U32.unpack_from(held)[0]
        if not 8 <= length <= codec.STARTUP_LIMIT:
            raise _wrong_length(held)
        if len(held) < length:
            return b""
        code = codec.U32.unpack_from(held, 4)[0]
        if code in (codec.SSL_REQUEST, codec.GSSENC_REQUEST):
            return self._encryption(code, length, len(held))
        self._held, self.rest = b"", held[length:]
        if code == codec.CANCEL_REQUEST:
            if not 16 <= length <= 268:
                raise WrongProtocol("malformed CancelRequest")
            pid = codec.I32_PAIR.unpack_from(held, 8)[0]
            self.request = CancelRequest(pid, held[12:length])
            return b""
        return self._startup(code, held[8:length])

    def _encryption(self, code: int, length: int, held: int) -> bytes:
        if length != 8 or code in self._asked:
            raise _refuse("an encryption request is sent once and is 8 bytes long")
        if held > 8:
            # What came before the answer was not protected by it (CVE-2021-23222): never read on.
            raise WrongProtocol("bytes arrived between an encryption request and its answer")
        self._asked.add(code)
        self._held = b""
        return b"N"

    def _startup(self, code: int, body: bytes) -> bytes:
        major, minor = code >> 16, code & 0xFFFF
        if major != 3:
            raise _refuse(
                f"unsupported frontend protocol {major}.{minor}: this service speaks 3.0",
                codec.FEATURE_NOT_SUPPORTED,
            )
        try:
            parameters = codec.parameters_of(body)
        except ProtocolError as error:
            raise _refuse(str(error)) from None
        options = [name for name in parameters if name.startswith("_pq_.")]
        for name in options:
            del parameters[name]
        if not parameters.get("user"):
            raise _refuse(
                "no PostgreSQL user name specified in startup packet", codec.INVALID_AUTHORIZATION
            )
        self.request = StartupRequest(parameters)
        return codec.negotiate_protocol_version(options) if minor or options else b""


def _refuse(reason: str, sqlstate: str = codec.PROTOCOL_VIOLATION) -> WrongProtocol:
    return WrongProtocol(reason, codec.fatal(sqlstate, reason))


def _wrong_length(held: bytes) -> WrongProtocol:
    if held[0] == 0x16 and held[1] == 0x03:
        # A TLS client cannot read our error: it would only report a broken handshake.
        return WrongProtocol("a TLS ClientHello came to a PostgreSQL port")
    if held[:4] in HTTP_WORDS or held[:4] == HTTP2_PREFACE:
        return _refuse("this port speaks PostgreSQL, and an HTTP request came")
    return _refuse("invalid length of startup packet")
