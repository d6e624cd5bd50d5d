"""Makes `twistd border0-connector` known; imports nothing of border0 and no reactor."""

from twisted.application.service import ServiceMaker

border0_connector = ServiceMaker(
    "border0 connector",
    "border0.processes.connector",
    "The WireGuard endpoint and the proxies that stand next to your services.",
    "border0-connector",
)
