"""One question to a relay from this machine: does it answer at this name, and how fast.

`GET /healthz` over TLS, verified as every other connection: by the pinned authority or the
system's store. It logs in nowhere; whether a node gets in, its own state says.
"""

import http.client
import ssl
import time
from typing import NamedTuple

from border0.audit.reading import printable
from border0.cli.contact import pinned_authority
from border0.errors import Border0Error

SECONDS = 10.0
PATH = "/healthz"


class Answer(NamedTuple):
    """What came; `seconds` from the question to the first byte, None without one."""

    ok: bool
    text: str
    seconds: float | None = None


def ask(host: str, port: int, pin: str) -> Answer:
    """Ask a relay; never raises for what others do.

    :param pin: of its private authority, "" where the system's store decides.
    """
    try:
        authority = None
        if pin:
            authority = pinned_authority(host, port, pin, SECONDS, what="the relay").decode("ascii")
        context = ssl.create_default_context(cadata=authority)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return _asked(host, port, context)
    except Border0Error as error:
        return Answer(False, printable(str(error)))
    except ssl.SSLCertVerificationError as error:
        return Answer(False, f"not trusted: {printable(error.verify_message or 'its chain')}")
    except TimeoutError:
        return Answer(False, f"no answer in {SECONDS:g} s")
    except ssl.SSLError:
        return Answer(False, "it does not speak TLS")
    except http.client.HTTPException:
        return Answer(False, "it does not speak HTTP")
    except (OSError, ValueError) as error:
        return Answer(False, getattr(error, "strerror", None) or "no connection")


def _asked(host: str, port: int, context: ssl.SSLContext) -> Answer:
    connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    try:
        connection.connect()
        began = time.monotonic()
        connection.request("GET", PATH)
        status = connection.getresponse().status
        seconds = time.monotonic() - began
    finally:
        connection.close()
    if status == 200:
        return Answer(True, "ok", seconds)
    return Answer(False, f"it answers {PATH} with {status}", seconds)
