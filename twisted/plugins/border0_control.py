"""Makes `twistd border0-control` known; imports nothing of border0 and no reactor."""

from twisted.application.service import ServiceMaker

border0_control = ServiceMaker(
    "border0 control plane",
    "border0.processes.control",
    "People, devices, connectors, services and policies, and what every node is told of them.",
    "border0-control",
)
