"""HTTP upstreams: a service, or a folder of this machine, read strictly.

Source: the public SDK's field names (borderzero/border0-go,
types/service/http_service_configuration.go). `ca_certificate` is an addition, and so are secret
references in the values of `headers`; `host_header` may be left out.
"""

import re
from pathlib import Path

from border0.errors import ConfigError
from border0.proxies.http.fields import HOP_BY_HOP, is_forged
from border0.proxies.http.upstream import FileServer, HttpUpstream
from border0.secrets import resolve
from border0.tables import Table

KEY_LIMIT = 255
VALUE_LIMIT = 4096
HEADER_LIMIT = 64
_KEY = re.compile(r"[A-Za-z0-9-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOST = re.compile(r"[A-Za-z0-9._~%-]+(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?")
_OWN = ("host", "content-length", "via", "expect", "trailer")


def read_http(table: Table, allowed: frozenset[str]) -> HttpUpstream | FileServer:
    """The upstream of one `http` socket.

    :param allowed: the built-in services that this machine's owner permits.
    :raises ConfigError: unknown or missing keys, what is not permitted, unresolved references.
    """
    kinds = ("standard", "connector_file_server")
    kind = table.choice("http_service_type", kinds, "standard")
    if kind == "standard":
        inner = table.table("standard_http_service_configuration")
        table.close()
        return _standard(inner)
    if kind not in allowed:
        advice = f'it serves files of this machine: write [local] allow = ["{kind}"] to permit it'
        raise table.error(advice, "http_service_type")
    inner = table.table("fileserver_http_service_configuration")
    table.close()
    folder = Path(table.file).resolve().parent / inner.text("top_level_directory")
    inner.close()
    if not folder.is_dir():
        raise inner.error(f"{folder} is no folder", "top_level_directory")
    return FileServer(str(folder))


def _standard(table: Table) -> HttpUpstream:
    scheme = table.choice("scheme", ("http", "https", ""), "http") or "http"
    upstream = HttpUpstream(
        host=table.text("hostname"),
        port=table.number("port", 1, 65535, 443 if scheme == "https" else 80),
        scheme=scheme,
        host_header=table.get("host_header", str, ""),
    )
    if upstream.host_header and not _HOST.fullmatch(upstream.host_header):
        raise table.error("expected a host name, with :PORT if need be", "host_header")
    authority = table.text("ca_certificate", "")
    if authority:
        if scheme != "https":
            raise table.error("only https has certificates", "ca_certificate")
        upstream.ca_certificate = _resolve(table, authority, "ca_certificate")
    upstream.headers = [_header(header) for header in table.tables("headers")]
    if len(upstream.headers) > HEADER_LIMIT:
        raise table.error(f"there are more than {HEADER_LIMIT}", "headers")
    table.close()
    return upstream


def _header(table: Table) -> tuple[str, str]:
    key = table.text("key")
    low = key.lower()
    if not _KEY.fullmatch(key) or len(key) > KEY_LIMIT:
        raise table.error(f"a name has letters, digits and dashes, at most {KEY_LIMIT}", "key")
    if low in _OWN or low.encode() in HOP_BY_HOP or is_forged(key.encode()):
        raise table.error(f"{key} is the proxy's own", "key")
    value = _resolve(table, table.get("value", str), "value").strip()
    if len(value.encode()) > VALUE_LIMIT or _CONTROL.search(value):
        advice = f"a value has no control characters and at most {VALUE_LIMIT} bytes"
        raise table.error(advice, "value")
    table.close()
    return key, value


def _resolve(table: Table, text: str, key: str) -> str:
    try:
        return resolve(text, Path(table.file).resolve().parent).reveal()
    except ConfigError as error:
        raise table.error(str(error), key) from None
