"""`/healthz`, `/readyz` and `/metrics` of a process, on loopback unless an address is given.

Source: Prometheus text exposition format 0.0.4. The process hands in what is measured.
"""

from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from twisted.application.internet import StreamServerEndpointService
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from border0.errors import ConfigError

# name, help, kind (gauge or counter), [(labels, value)]
Metric = tuple[str, str, str, list[tuple[dict[str, str], float]]]


class _Page(Resource):
    isLeaf = True

    def __init__(self, answer: Callable[[], tuple[int, str]]) -> None:
        super().__init__()
        self.answer = answer

    def render_GET(self, request: Request) -> bytes:
        code, text = self.answer()
        request.setResponseCode(code)
        request.setHeader(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
        return text.encode()


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def exposition(metrics: Iterable[Metric]) -> str:
    """The metrics as Prometheus reads them."""
    lines = []
    for name, text, kind, samples in metrics:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for labels, value in samples:
            inner = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items())
            lines.append(f"{name}{{{inner}}} {value:g}" if inner else f"{name} {value:g}")
    return "\n".join(lines) + "\n"


def parse_listen(text: str) -> tuple[str, int]:
    """`PORT`, `ADDRESS:PORT` or `[ADDRESS]:PORT`; raises ConfigError."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        ip_address(host)
        number = int(port)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise ConfigError(f"--metrics-listen {text}: expected PORT or ADDRESS:PORT")
    return host, number


def health_service(
    reactor: Any,
    listen: str,
    problems: Callable[[], list[str]],
    metrics: Callable[[], Iterable[Metric]],
) -> StreamServerEndpointService:
    """The HTTP service; `problems` lists why the process is not ready (empty: ready)."""

    def ready() -> tuple[int, str]:
        found = problems()
        return (503, "\n".join(found) + "\n") if found else (200, "ready\n")

    root = Resource()
    root.putChild(b"healthz", _Page(lambda: (200, "ok\n")))
    root.putChild(b"readyz", _Page(ready))
    root.putChild(b"metrics", _Page(lambda: (200, exposition(metrics()))))
    host, port = parse_listen(listen)
    kind = TCP6ServerEndpoint if ":" in host else TCP4ServerEndpoint
    site = Site(root)
    site.noisy = False
    service = StreamServerEndpointService(kind(reactor, port, interface=host), site)
    service.setName("health")
    return service
